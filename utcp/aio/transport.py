"""One connection as asyncio's Transport: what the engine makes ready becomes protocol callbacks.

Callbacks come straight from the endpoint's pump, in the connection's own context, and never from inside a call
of the user's. Reading (pause, resume), writing (watermarks) and closing follow asyncio's rules; where utcp
promises more (``drained``, ``closed``) the docstring says so.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import constants, transports
from asyncio.log import logger
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from utcp.aio.close_info import CloseInfo
from utcp.core.connection import SHUT_WR, Connection
from utcp.core.info import ConnectionInfo
from utcp.core.states import CONNECTED, EOF, READABLE, State

if TYPE_CHECKING:
    from utcp.aio.pump import Pump
    from utcp.aio.server import Server

MAX_READ: Final = 256 * 1024  # bytes a data_received, as asyncio
ANYTHING: Final = READABLE | EOF

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Transport(transports._FlowControlMixin, asyncio.Transport):
    """A TCP connection inside UDP. Made by ``create_connection``, a server or ``Endpoint.connect``."""

    __slots__ = (
        "__weakref__",
        "_buffered",
        "_by_peer",
        "_close_waiters",
        "_closing",
        "_conn",
        "_connected",
        "_context",
        "_drain_waiters",
        "_eof",
        "_eof_received",
        "_error",
        "_factory",
        "_lost",
        "_lost_writes",
        "_paused",
        "_protocol",
        "_pump",
        "_server",
        "_waiter",
        "_written",
    )

    _sendfile_compatible = constants._SendfileMode.FALLBACK

    def __init__(
        self,
        pump: Pump,
        conn: Connection,
        factory: ProtocolFactory,
        context: contextvars.Context,
        *,
        server: Server | None = None,
        waiter: asyncio.Future[None] | None = None,
    ) -> None:
        # Not super().__init__(): a dict of extras for each of a million connections is not free
        self._loop = pump.loop
        self._protocol_paused = False
        self._low_water = 16 * 1024
        self._high_water = 64 * 1024
        self._pump = pump
        self._conn = conn
        self._factory: ProtocolFactory | None = factory
        self._protocol: Any = None
        self._buffered = False
        self._context = context
        self._server = server
        self._waiter = waiter  # of create_connection
        self._connected = False  # connection_made has been called
        self._paused = False  # pause_reading
        self._eof = False  # write_eof
        self._eof_received = False  # eof_received has been called
        self._closing = False  # close, abort, or the end
        self._lost = False  # connection_lost has been called
        self._error: BaseException | None = None  # for connection_lost, where it is not the engine's
        self._by_peer: bool | None = None  # who closed first; None: nobody yet
        self._lost_writes = 0
        self._written = 0
        self._drain_waiters: list[tuple[int, asyncio.Future[None]]] | None = None
        self._close_waiters: list[asyncio.Future[CloseInfo]] | None = None
        conn.context = self
        pump.transports += 1

    def __repr__(self) -> str:
        local, peer = self.get_extra_info("sockname"), self.get_extra_info("peername")
        return f"<utcp.Transport {self.state} local={local} peer={peer}{' closing' if self._closing else ''}>"

    if TYPE_CHECKING:  # _FlowControlMixin's, which typeshed does not tell of

        def _maybe_pause_protocol(self) -> None: ...
        def _maybe_resume_protocol(self) -> None: ...
        def _set_write_buffer_limits(self, high: int | None, low: int | None) -> None: ...

    # What asyncio transports have

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peername`` and ``sockname`` (host, TCP port), ``udp_peername`` and ``udp_sockname`` (host, UDP port),
        ``tcp_state``."""
        if name == "tcp_state":
            return self.state
        if name in {"peername", "sockname", "udp_peername", "udp_sockname"}:
            conn = self._conn
            address: Any
            if "peer" in name:
                address, port = conn.route.peer, conn.remote_port
            else:
                address, port = conn.route.local, conn.local_port
            return (address[0], address[1] if name.startswith("udp") else port)
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """Leave arriving bytes where they are: the peer's window closes as they fill the receive buffer."""
        if not self._closing:
            self._paused = True

    def resume_reading(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            self._pump.look_at(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes. Dropped after ``close``; RuntimeError after ``write_eof``."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data:
            return
        pump = self._pump
        conn = self._conn
        try:
            if self._closing:
                raise BrokenPipeError
            conn.send(data, pump.clock())
        except OSError:
            self._write_in_vain()
            return
        self._written += len(data) if type(data) is not memoryview else data.nbytes
        pump.touch()
        if conn.send_queue_size > self._high_water:
            pump.flush()  # as asyncio tries to send before it pauses
        if self._protocol is not None:
            self._maybe_pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Half-close: our FIN follows what was written; reading goes on."""
        if self._closing or self._eof:
            return
        self._eof = True
        self._note_closer()
        try:
            self._conn.shutdown(SHUT_WR, self._pump.clock())
        except OSError:
            return  # the connection is gone, and connection_lost on its way
        self._pump.touch()

    def close(self) -> None:
        """Send and have acknowledged what was written, then FIN; what arrives meanwhile is discarded.

        ``connection_lost(None)`` follows when our FIN is acknowledged. If data was discarded a RST takes the
        FIN's place, so that the peer learns of it.
        """
        if self._closing:
            return
        self._closing = True
        self._note_closer()
        self._conn.close(self._pump.clock(), flush=True)
        self._pump.look_at(self)

    def abort(self) -> None:
        """Reset the connection; what was not yet sent is lost."""
        self._force_close(None)

    def get_write_buffer_size(self) -> int:
        """Bytes not yet handed to the network; with a high-water mark of 0, bytes not yet acknowledged."""
        return self._conn.send_queue_size if self._high_water else self._conn.unacked_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio's. ``high=0`` pauses the writer until all it has written is acknowledged."""
        self._set_write_buffer_limits(high=high, low=low)
        if self._protocol is not None and not self._lost:
            self._maybe_pause_protocol()

    # What no kernel socket can say

    @property
    def state(self) -> State:
        """The connection's TCP state."""
        return self._conn.state

    def info(self) -> ConnectionInfo:
        """A snapshot of the connection's variables."""
        return self._conn.info()

    def set_option(self, name: str, value: object) -> None:
        """Change a Config field that may change on a living connection. Raises ValueError or TypeError."""
        self._conn.set_option(name, value, self._pump.clock())
        self._pump.touch()

    async def drained(self) -> None:
        """Wait until every byte written so far is acknowledged by the peer's TCP.

        Raises what ended the connection if it ended first. Cancelling has no effect on the connection.
        """
        conn = self._conn
        if conn.unacked_bytes == 0:
            return
        if conn.closed:
            raise self._failure()
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self._drain_waiters is None:
            self._drain_waiters = []
        self._drain_waiters.append((self._written, waiter))
        await waiter

    async def closed(self) -> CloseInfo:
        """Wait until the teardown is complete on this side, and tell how it went.

        That is: our FIN acknowledged and the peer's received, or reset, or timed out. Never waits for 2MSL.
        Cancelling has no effect on the connection.
        """
        if not self._conn.closed:
            waiter: asyncio.Future[CloseInfo] = self._loop.create_future()
            if self._close_waiters is None:
                self._close_waiters = []
            self._close_waiters.append(waiter)
            return await waiter
        return self._close_info()

    # From the pump: the only place where callbacks are made

    def call(self, bits: int) -> None:
        """Tell the protocol what ``bits`` say, in the connection's own context."""
        self._context.run(self._on_ready, bits)

    def _on_ready(self, bits: int) -> None:
        if bits & CONNECTED and not self._connected:
            self._establish()
        if bits & ANYTHING:
            self._read()
        if self._protocol_paused and not self._lost:
            self._maybe_resume_protocol()
        if self._drain_waiters is not None:
            self._wake_drained()
        conn = self._conn
        if conn.closed:
            self._ended()
        elif self._closing and not self._lost and conn.fin_acked:
            self._lose(self._error)

    def _establish(self) -> None:
        self._connected = True
        factory, self._factory = self._factory, None
        waiter, self._waiter = self._waiter, None
        assert factory is not None
        try:
            self.set_protocol(factory())
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._reject(error, waiter)
            return
        if self._server is not None:
            self._server._attach(self)
        try:
            self._protocol.connection_made(self)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.connection_made() call failed.")
        else:
            if self._written and not self._lost:
                self._maybe_pause_protocol()  # written before there was a protocol to pause
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _reject(self, error: BaseException, waiter: asyncio.Future[None] | None) -> None:
        """The protocol factory failed: there is nobody to have the connection."""
        if waiter is not None:
            if not waiter.done():
                waiter.set_exception(error)
        else:
            message = "Error on transport creation" + " for incoming connection" * self._conn.passive
            self._loop.call_exception_handler({"message": message, "exception": error, "transport": self})
        self._force_close(error)

    def _read(self) -> None:
        """Hand over what has arrived, then the peer's end of file."""
        conn = self._conn
        try:
            while not self._closing and not self._paused and conn.readable_bytes:
                if self._buffered:
                    self._fill_buffer()
                else:
                    self._protocol.data_received(conn.receive(MAX_READ))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            name = "buffer_updated" if self._buffered else "data_received"
            self._fatal_error(error, f"Fatal error: protocol.{name}() call failed.")
            return
        if conn.at_eof and not self._eof_received and not self._closing and not self._paused:
            self._receive_eof()

    def _fill_buffer(self) -> None:
        conn = self._conn
        buffer = self._protocol.get_buffer(conn.readable_bytes)
        if not len(buffer):
            raise RuntimeError("get_buffer() returned an empty buffer")
        view = memoryview(buffer).cast("B")
        data = conn.receive(len(view))
        view[: len(data)] = data
        self._protocol.buffer_updated(len(data))

    def _receive_eof(self) -> None:
        self._eof_received = True
        try:
            keep_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep_open:
            self.close()

    def _wake_drained(self) -> None:
        waiting = self._drain_waiters
        assert waiting is not None
        acked = self._written - self._conn.unacked_bytes
        rest = []
        for entry in waiting:
            offset, waiter = entry
            if waiter.done():
                continue
            if acked >= offset:
                waiter.set_result(None)
            elif self._conn.closed:
                waiter.set_exception(self._failure())
            else:
                rest.append(entry)
        self._drain_waiters = rest or None

    # The end

    def _ended(self) -> None:
        """The engine has no more to do for this connection."""
        if not self._lost and self._tells_the_end():
            self._lose(self._error if self._last_ack_missing() else self._error or self._conn.error)
        if self._close_waiters is not None:
            info = self._close_info()
            for waiter in self._close_waiters:
                if not waiter.done():
                    waiter.set_result(info)
            self._close_waiters = None

    def _tells_the_end(self) -> bool:
        """Whether ``connection_lost`` is due now.

        After both FINs nothing is due until the user closes, as with a kernel socket; and a paused reader gets
        what arrived before an error first, unless somebody is waiting to write.
        """
        conn = self._conn
        if self._closing or not self._connected:
            return True
        if conn.error is None or self._last_ack_missing():
            return False
        return self._protocol_paused or self._lost_writes > 0 or not (self._paused and conn.readable_bytes)

    def _lose(self, error: BaseException | None) -> None:
        """connection_lost, exactly once, and the protocol is let go of."""
        self._lost = self._closing = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None:  # create_connection: nobody has heard of this connection yet
            if not waiter.done():
                waiter.set_exception(error or ConnectionAbortedError("Connection aborted"))
        else:
            self._tell_lost(error)
        self._protocol = self._factory = None
        server, self._server = self._server, None
        if server is not None:
            server._detach(self)
        self._pump.transports -= 1

    def _tell_lost(self, error: BaseException | None) -> None:
        try:
            if self._protocol is None:
                if self._connected or self._factory is None:
                    return  # its factory failed
                self.set_protocol(self._factory())
            self._protocol.connection_lost(error)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as failure:
            self._loop.call_exception_handler(
                {
                    "message": "protocol.connection_lost() failed",
                    "exception": failure,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )

    def _fatal_error(self, error: BaseException, message: str) -> None:
        """A callback raised: its connection ends with that error, and the loop's handler hears of it."""
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        )
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        """abort, with what connection_lost is to say; asyncio's TLS calls it by this name."""
        if self._lost:
            return
        if self._error is None:
            self._error = error
        self._closing = True
        self._note_closer()
        self._conn.abort(self._pump.clock())
        self._pump.look_at(self)

    def _write_in_vain(self) -> None:
        """After the end writes are dropped; whoever goes on writing is told, as by asyncio."""
        if self._lost_writes >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
            logger.warning("socket.send() raised exception.")
        self._lost_writes += 1
        if not self._closing:
            self._pump.look_at(self)

    def _note_closer(self) -> None:
        if self._by_peer is None:
            self._by_peer = self._conn.fin_received

    def _last_ack_missing(self) -> bool:
        """It ended in LAST-ACK (or CLOSING): both sides have every byte, only our FIN was not acknowledged."""
        conn = self._conn
        return conn.fin_received and conn.fin_sent and not conn.fin_acked and conn.unacked_bytes == 0

    def _failure(self) -> BaseException:
        return self._error or self._conn.error or ConnectionAbortedError("Connection aborted")

    def _close_info(self) -> CloseInfo:
        conn = self._conn
        return CloseInfo(
            reason=conn.reason,
            by_peer=conn.reset_received or bool(self._by_peer),
            unacked_bytes=conn.unacked_bytes,
            unread_bytes=conn.readable_bytes + conn.discarded,
            last_ack_missing=self._last_ack_missing(),
            retransmissions=conn.retransmissions,
            error=conn.error,
        )

    def take_unread(self) -> bytes:
        """What arrived and was not handed over, at the end of a connection whose reader is paused."""
        return self._conn.receive()
