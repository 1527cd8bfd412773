"""TLS between a transport and a protocol: the handshake, the records, the two ends of a connection.

To the transport below this is a protocol, and to the protocol above the maker of its callbacks. There is no buffer
of its own: what is written is encrypted and given to the transport at once, so TCP's queue, window and watermarks are
TLS's too. Why not ``asyncio.sslproto``: it sends the FIN only after the peer's close_notify, knows no half-close,
resets a peer that is still sending when we close, and keeps alerts to itself.
"""

from __future__ import annotations

import asyncio
import ssl
import weakref
from asyncio import constants
from asyncio.log import logger
from typing import TYPE_CHECKING, Any, Final

from utcp.aio.tls_records import TlsRecords
from utcp.aio.tls_transport import TlsTransport

if TYPE_CHECKING:
    from utcp.aio.tls import Tls
    from utcp.aio.transport import Transport

CHUNK: Final = 256 * 1024  # bytes encrypted at a time
HIGH_WATER: Final = constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE * 1024
LONGEST: Final = 86_400  # seconds


class TlsLayer(asyncio.Protocol):
    """``protocol`` is who gets what is decrypted; with ``upgrade`` it has long had its ``connection_made``."""

    def __init__(self, tls: Tls, protocol: Any, *, upgrade: bool = False) -> None:
        self.protocol: Any = protocol
        self.reading = True  # not paused by the protocol
        self.closed = False  # by us, or because TLS has failed
        self.truncated = False  # the peer's FIN came without its close_notify
        self.notified = 0  # bytes that our close_notify took, and the peer's takes too
        self.records = TlsRecords(tls)
        self._tls = tls
        self._below: Transport | None = None
        self._transport: weakref.ref[TlsTransport] | None = None
        self._loop = asyncio.get_running_loop()
        self._secured: asyncio.Future[None] | None = None  # for whoever waits for the handshake
        self._connected = upgrade  # the protocol has a connection that it can lose
        self._timer: asyncio.TimerHandle | None = None
        self._plain: list[bytes | memoryview] = []  # decrypted, not yet handed over
        self._eof_told = False
        self._paused = False  # the protocol was told not to write
        self._error: BaseException | None = None  # for connection_lost
        self._writes_in_vain = 0

    async def secured(self) -> tuple[TlsTransport, Any]:
        """Wait for the handshake; returns (transport, protocol). Cancelled, the connection is reset."""
        if not self.records.handshaken:
            if self._error is not None:
                raise self._error
            self._secured = self._loop.create_future()
            try:
                await self._secured
            except BaseException:
                self.close()
                raise
        return self.transport, self.protocol

    @property
    def transport(self) -> TlsTransport:
        """What ``protocol`` gets to see, once there is a transport below; it has no state of its own, and no cycle of
        references outlives the connection."""
        made = None if self._transport is None else self._transport()
        if made is None:
            made = TlsTransport(self, self._lower)
            self._transport = weakref.ref(made)
        return made

    @property
    def is_closing(self) -> bool:
        return self.closed or self._lower.is_closing()

    @property
    def can_half_close(self) -> bool:
        """By RFC 8446 6.1 each direction ends with a close_notify of its own; before, one ended both."""
        below = self._below
        return self.records.version == "TLSv1.3" and below is not None and below.can_write_eof()

    # The user's calls, by way of the TlsTransport

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        if self._below is not None and not self.closed:
            self.reading = False
            self._below.pause_reading()

    def resume_reading(self) -> None:
        if self._below is not None and not self.reading and not self.closed:
            self.reading = True
            self._below.resume_reading()
            if self._plain or self.records.peer_ended:  # never from inside a call of the user's
                self._loop.call_soon(self._deliver, context=self._below._channel.context())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closing:
            if self._writes_in_vain >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("SSL connection is closed")
            self._writes_in_vain += 1
            return
        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), CHUNK):
                self.records.encrypt(view[start : start + CHUNK])
                self._flush()
        except ssl.SSLError as error:
            self._flush()
            self._break(error, "Fatal error on SSL protocol")

    def write_eof(self) -> None:
        if self.is_closing or self._lower.eof_written:
            return
        self._notify()
        self._lower.write_eof()

    def close(self, lingering: int = -1) -> None:
        """``lingering`` as in ``Channel.close``; by default the ``ssl_shutdown_timeout``."""
        if self.closed:
            return
        if not self.records.handshaken:
            self.abort()
            return
        self._notify()
        self._close_below(lingering)

    def abort(self) -> None:
        self.closed = True
        self._lower.abort()

    def take_unread(self) -> bytes:
        """What arrived and was not handed over, when a connection ends whose reader has paused."""
        self.records.feed(self._lower.take_unread())
        self._decrypt()
        plain, self._plain = self._plain, []
        return b"".join(plain)

    # From the transport below

    def connection_made(self, transport: Any) -> None:
        self._below = transport
        self._paused = self._connected and transport._protocol_paused
        transport._channel.tls = self
        transport.set_write_buffer_limits(HIGH_WATER)
        self._timer = self._loop.call_later(self._tls.handshake_timeout, self._handshake_timed_out)
        self._handshake()

    def data_received(self, data: bytes) -> None:
        self.records.feed(data)
        if self.records.handshaken:
            self._decrypt()
            self._deliver()
        elif not self.closed:
            self._handshake()

    def eof_received(self) -> bool:
        """The peer's FIN. The transport below stays open until this side has closed too."""
        if not self.records.handshaken:
            self._handshake_failed(ConnectionResetError("The peer closed the connection during the SSL handshake"))
        elif not self.records.peer_ended:
            self.records.peer_ended = self.truncated = True
            self._deliver()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self.closed = True
        self._cancel_timer()
        if self._lower._channel.conn.reason == "linger-expired":
            exc = TimeoutError("SSL shutdown timed out")
        if self._error is None:
            self._error = exc
            if not self.records.handshaken:
                self._wake(exc or ConnectionAbortedError("Connection aborted during the SSL handshake"))
        protocol, self.protocol = self.protocol, None
        if self._connected:
            self._connected = False
            protocol.connection_lost(self._error)

    def pause_writing(self) -> None:
        if self._connected and not self._paused:
            self._paused = True
            self.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._paused:
            self._paused = False
            if self._connected:
                self.protocol.resume_writing()

    # The handshake

    def _handshake(self) -> None:
        try:
            done = self.records.handshake()
        except ssl.SSLError as error:
            self._flush()
            self._handshake_failed(error)
            return
        self._flush()
        if done:
            self._handshake_done()

    def _handshake_done(self) -> None:
        self._cancel_timer()
        if not self._connected:
            self._connected = True
            self._tell("connection_made", self.transport)
        self._wake(None)
        self._decrypt()
        self._deliver()

    def _handshake_failed(self, error: OSError) -> None:
        self._break(error, "SSL handshake failed")
        self._wake(error)

    def _handshake_timed_out(self) -> None:
        timeout = self._tls.handshake_timeout
        self._error = ConnectionAbortedError(
            f"SSL handshake is taking longer than {timeout} seconds: aborting the connection"
        )
        self.abort()
        self._wake(self._error)

    def _wake(self, error: BaseException | None) -> None:
        """Tell whoever waits how the handshake went; called once."""
        waiter, self._secured = self._secured, None
        if waiter is None:
            if error is not None:
                self._error = error  # secured() will raise it
                self._report(error)
        elif not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    def _report(self, error: BaseException) -> None:
        """In debug mode, as asyncio's servers: nobody else hears of a handshake that failed there."""
        if self._tls.server_side and not self._connected and self._loop.get_debug():
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error,
                    "transport": self.transport,
                    "protocol": self.protocol,
                }
            )

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Records, in

    def _decrypt(self) -> None:
        self._plain += self.records.decrypt()
        self._flush()

    def _deliver(self) -> None:
        """Hand over what was decrypted, then tell of the end, if the protocol does not pause."""
        while self._plain and self.reading and not self.closed:
            data = self._plain[0] if len(self._plain) == 1 else b"".join(self._plain)
            self._plain.clear()
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                self._fill_buffer(memoryview(data))
            else:
                self._tell("data_received", bytes(data))
        if self.records.peer_ended and self.reading and not self.closed:
            if self.records.failure is not None:
                self._break(self.records.failure, "Fatal error on SSL protocol")
            elif not self._eof_told:
                self._tell_eof()

    def _fill_buffer(self, data: memoryview) -> None:
        """As much as the protocol's buffer takes; the rest waits."""
        buffer = self._tell("get_buffer", len(data))
        if self.closed or buffer is None:
            return
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(data))
        if size == 0:
            self._fail("get_buffer", RuntimeError("get_buffer() returned an empty buffer"))
            return
        view[:size] = data[:size]
        if size < len(data):
            self._plain.insert(0, data[size:])
        self._tell("buffer_updated", size)

    def _tell_eof(self) -> None:
        """The peer's close_notify, or its FIN without one."""
        self._eof_told = True
        keep_open = self._tell("eof_received")
        if self.closed:
            return
        if self.truncated:
            self._close_below(-1)  # no close_notify either: the peer broke off, it does not listen
        elif not keep_open:
            self.close()
        elif not self.can_half_close:
            logger.warning("returning true from eof_received() has no effect when using ssl")
            self.close()

    # Records, out

    def _notify(self) -> None:
        self._decrypt()
        self.records.notify()
        self.notified = max(self.notified, self._flush())

    def _flush(self) -> int:
        """Give the transport what TLS has to send; returns how many bytes."""
        data = self.records.outgoing()
        if data and not self._lower.eof_written and not self._lower.is_closing():
            self._lower.write(data)
        return len(data)

    # The end

    def _close_below(self, lingering: int) -> None:
        """FIN behind what was written. What still arrives is discarded, in good order up to the peer's FIN."""
        self.closed = True
        self._plain.clear()
        below, channel = self._lower, self._lower._channel
        channel.tls = None
        if isinstance(below, TlsTransport):
            below.layer.close(lingering)
        else:
            seconds = min(self._tls.shutdown_timeout, LONGEST)
            channel.close(int(seconds * 1e9) if lingering < 0 else lingering)

    def _break(self, error: OSError, message: str) -> None:
        """TLS has failed: the protocol will lose its connection with ``error``, the peer has our alert."""
        if self._loop.get_debug():
            logger.debug("%r: %s", self, message, exc_info=error)
        if not self.closed:
            self._error = error
            self._close_below(-1)

    def _tell(self, callback: str, *arguments: Any) -> Any:
        """Call the protocol back; an exception ends the connection."""
        try:
            return getattr(self.protocol, callback)(*arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(callback, error)

    def _fail(self, callback: str, error: BaseException) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"Fatal error: protocol.{callback}() call failed.",
                "exception": error,
                "transport": self.transport,
                "protocol": self.protocol,
            }
        )
        self.closed = True
        self._lower._force_close(error)

    @property
    def _lower(self) -> Transport:
        assert self._below is not None
        return self._below
