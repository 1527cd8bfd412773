"""A connection as asyncio sees it."""

from __future__ import annotations

import asyncio
from asyncio import constants, transports
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from utcp.aio.channel import Channel
from utcp.aio.close_info import CloseInfo
from utcp.core.info import ConnectionInfo
from utcp.core.states import State

ProtocolFactory = Callable[[], asyncio.BaseProtocol]

_LONGEST: Final = 86_400  # seconds of a lingering close


class Transport(transports._FlowControlMixin, asyncio.Transport):
    """A TCP connection inside UDP. Made by ``create_connection``, a server or ``Endpoint.connect``.

    What asyncio's transports do it does as they do. Beyond that: ``drained``, ``closed``, ``lingering_close``,
    ``state``, ``info``, ``set_option`` and ``write_urgent``.
    """

    __slots__ = ("__weakref__", "_channel")

    _sendfile_compatible = constants._SendfileMode.FALLBACK
    _start_tls_compatible = True  # asyncio.sslproto runs over it too

    _channel: Channel  # whoever makes a transport sets it

    # Not asyncio's: in Python, with a dict of extras for each connection, it would cost more than all else here
    if TYPE_CHECKING:

        def __init__(self) -> None: ...
    else:
        __init__ = object.__init__

    def __repr__(self) -> str:
        local, peer = self.get_extra_info("sockname"), self.get_extra_info("peername")
        return f"<utcp.Transport {self.state} local={local} peer={peer}{' closing' if self.is_closing() else ''}>"

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._channel.pump.loop

    # What asyncio's transports have

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peername`` and ``sockname``: (host, TCP port); ``udp_peername`` and ``udp_sockname``: (host, UDP port);
        ``tcp_state``. There is no ``socket``, but for libraries in a loop of ``utcp.new_event_loop`` a stand-in."""
        conn = self._channel.conn
        address: Any
        if name == "tcp_state":
            return conn.state
        if name == "socket":
            return self._loop.utcp_socket(self) if hasattr(self._loop, "utcp_socket") else default
        if name in ("peername", "udp_peername"):
            address, port = conn.route.peer, conn.remote_port
        elif name in ("sockname", "udp_sockname"):
            address, port = conn.route.local, conn.local_port
        else:
            return default
        return (address[0], address[1] if name.startswith("udp") else port)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._channel.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._channel.protocol
        return protocol

    def is_closing(self) -> bool:
        return self._channel.closing

    def is_reading(self) -> bool:
        return self._channel.reading and not self._channel.closing

    def pause_reading(self) -> None:
        """Leave arriving bytes where they are: the peer's window closes as they fill the receive buffer."""
        self._channel.pause_reading()

    def resume_reading(self) -> None:
        self._channel.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes. Dropped after ``close``; RuntimeError after ``write_eof``."""
        self._channel.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Half-close: our FIN follows what was written; reading goes on."""
        self._channel.write_eof()

    def close(self) -> None:
        """Send and have acknowledged what was written, then FIN; what arrives meanwhile is discarded.

        ``connection_lost(None)`` follows when our FIN is acknowledged. If data was discarded a RST takes the
        FIN's place, so that the peer learns of it.
        """
        self._channel.close()

    def abort(self) -> None:
        """Reset the connection; what was not yet sent is lost. It cuts a lingering close short."""
        self._channel.abort(None)

    def get_write_buffer_size(self) -> int:
        """Bytes not yet handed to the network; with a high-water mark of 0, not yet acknowledged. 0 at the end."""
        return 0 if self._channel.lost else self._channel.buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (self._channel.low_water, self._channel.high_water)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio's. ``high=0`` pauses the writer until all it has written is acknowledged."""
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._channel.high_water = high
        self._channel.low_water = low
        self._channel.pause_if_full()

    # What no kernel socket can say

    @property
    def eof_written(self) -> bool:
        """Whether ``write_eof`` has been called."""
        return self._channel.eof_written

    @property
    def state(self) -> State:
        """The connection's TCP state."""
        return self._channel.conn.state

    def info(self) -> ConnectionInfo:
        """A snapshot of the connection's variables."""
        return self._channel.conn.info(self._channel.pump.clock())

    def set_option(self, name: str, value: object) -> None:
        """Change a Config field that may change on a living connection. Raises ValueError or TypeError."""
        pump = self._channel.pump
        self._channel.conn.set_option(name, value, pump.clock())
        pump.touch()

    def write_urgent(self, data: bytes | bytearray | memoryview) -> None:
        """As ``write``, and the peer's TCP is told that everything up to the end of ``data`` is urgent (RFC 6093).

        The bytes stay in line. The peer's protocol hears of it by ``urgent_received(amount)``, if it has that
        method: of the bytes it gets from then on, so many are urgent; they may not all have arrived.
        """
        self._channel.write(data, True)

    async def drained(self) -> None:
        """Wait until every byte written so far is acknowledged by the peer's TCP.

        Raises what ended the connection if it ended first. Cancelling has no effect on the connection.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._channel.wait_drained(waiter)
        await waiter

    async def closed(self) -> CloseInfo:
        """Wait until the teardown is complete on this side, and tell how it went.

        That is: our FIN acknowledged and the peer's received, or reset, or timed out. Never waits for 2MSL.
        Cancelling has no effect on the connection.
        """
        waiter: asyncio.Future[CloseInfo] = self._loop.create_future()
        self._channel.wait_closed(waiter)
        return await waiter

    async def lingering_close(self, timeout: float) -> CloseInfo:
        """Close, and let a peer that is still sending finish: a RST in the middle could cost it what we wrote.

        Our FIN follows what was written; what arrives is acknowledged and discarded until the peer's FIN. After
        ``timeout`` seconds (0 to 86,400) from the call, which bound the whole of it, the connection is reset, and the
        reason is ``linger-expired``. ``unread_bytes`` counts what was discarded. To the protocol this is ``close``.

        Cancelling has no effect: the close goes on, within the same time. After ``close`` this only waits for its end.
        Raises TypeError or ValueError, with nothing done, for a ``timeout`` that is none.
        """
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout: {timeout!r} is not a float")
        if not 0 <= timeout <= _LONGEST:  # false for nan as well
            raise ValueError(f"timeout: {timeout!r} is not in [0, {_LONGEST}] (seconds)")
        self._channel.close(int(timeout * 1e9))
        return await self.closed()

    def take_unread(self) -> bytes:
        """What arrived and was not handed over, when a connection ends whose reader has paused."""
        return self._channel.conn.receive()

    # What asyncio's TLS and sendfile look for

    @property
    def _protocol_paused(self) -> bool:
        return self._channel.writing_paused

    def _force_close(self, error: BaseException | None) -> None:
        self._channel.abort(error)
