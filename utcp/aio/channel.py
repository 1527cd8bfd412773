"""One connection and its protocol: what the engine makes ready becomes callbacks, what the user asks becomes calls.

``Transport`` is how asyncio sees this; here is what happens. Callbacks come straight from the pump, in the
connection's own context, and never from inside a call of the user's. Nothing here depends on an event loop but
the futures that are handed in.
"""

from __future__ import annotations

import contextvars
from asyncio import BufferedProtocol, constants
from asyncio.log import logger
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, final

from mypy_extensions import i64

from utcp.aio.close_info import CloseInfo
from utcp.core.connection import SHUT_WR, Connection
from utcp.core.info import last_ack_missing
from utcp.core.states import CLOSED_BIT, CONNECTED, EOF, FIN_ACKED, READABLE, URGENT

if TYPE_CHECKING:
    from utcp.aio.pump import Pump

MAX_READ: Final = 256 * 1024  # bytes a data_received, as asyncio
HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16 * 1024
ENOUGH_WARNINGS: Final = constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES
EVERYTHING: Final = READABLE | EOF | FIN_ACKED | CLOSED_BIT
HEARD: Final = CONNECTED | URGENT | READABLE | EOF | CLOSED_BIT


@final
class Channel:
    """The state between a Connection and a protocol. ``transport`` is what the protocol gets to see."""

    def __init__(
        self,
        pump: Pump,
        conn: Connection,
        factory: Callable[[], Any],
        context: contextvars.Context | None,
        server: Any,
        clients: dict[Any, None] | None,
        waiter: Any,
    ) -> None:
        self.pump: Pump = pump
        self.conn: Connection = conn
        self.transport: Any = None
        self.tls: Any = None  # the TlsLayer on top, while it has yet to say close_notify
        self.protocol: Any = None
        self.buffered: bool = False  # a BufferedProtocol
        self.factory: Callable[[], Any] | None = factory
        self.own_context: contextvars.Context | None = context  # None: an empty one, see ``Pump.empty``
        self.server: Any = server  # which accepted it, or None
        self.clients: dict[Any, None] | None = clients  # the server's
        self.waiter: Any = waiter  # the future of create_connection, or None
        self.connected: bool = False  # connection_made has been called
        self.reading: bool = True  # not paused
        self.eof_written: bool = False
        self.eof_told: bool = False  # eof_received has been called
        self.closing: bool = False  # close, abort, or the end
        self.lost: bool = False  # connection_lost has been called
        self.busy: bool = False  # in a callback round
        self.error: BaseException | None = None  # for connection_lost, where it is not the engine's
        self.writing_paused: bool = False
        self.high_water: int = HIGH_WATER
        self.low_water: int = LOW_WATER
        self.written: int = 0
        self.writes_in_vain: int = 0
        self.drain_waiters: list[tuple[int, Any]] | None = None  # (offset in the stream, future)
        self.close_waiters: list[Any] | None = None
        conn.context = self
        pump.channels += 1

    # The user's calls

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol
        pump = self.pump
        if type(protocol) is not pump.protocol_class:  # asking each time costs as much as calling the protocol
            pump.protocol_class = type(protocol)
            pump.protocol_buffered = isinstance(protocol, BufferedProtocol)
        self.buffered = pump.protocol_buffered

    def pause_reading(self) -> None:
        if not self.closing:
            self.reading = False

    def resume_reading(self) -> None:
        if not self.reading and not self.closing:
            self.reading = True
            self._look_again()

    def write(self, data: Any, urgent: bool = False) -> None:
        size = self.size_to_write(data)
        if size == 0:
            return
        conn = self.conn
        pump = self.pump
        try:
            if self.closing:
                raise BrokenPipeError
            if urgent:
                conn.send_urgent(data, pump.clock())
            else:
                conn.send(data, pump.clock())
        except OSError:
            self._write_in_vain()
            return
        self.written += size
        pump.touch()
        if conn.send_queue_size > self.high_water:
            pump.flush()  # as asyncio tries to send before it pauses
        self.pause_if_full()

    def size_to_write(self, data: Any) -> int:
        """How many bytes ``data`` has. Raises TypeError if it is not bytes-like, RuntimeError after ``write_eof``."""
        if isinstance(data, bytes):
            size = len(data)
        elif isinstance(data, memoryview):
            size = data.nbytes
        elif isinstance(data, bytearray):
            size = len(data)
        else:
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self.eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        return size

    def write_eof(self) -> None:
        if self.closing or self.eof_written:
            return
        self.eof_written = True
        try:
            self.conn.shutdown(SHUT_WR, self.pump.clock())
        except OSError:
            return  # the connection is gone, and connection_lost on its way
        self.pump.touch()

    def close(self, lingering: int = -1) -> None:
        """``lingering``: the nanoseconds of a lingering close, if not negative."""
        if self.closing:
            return
        if self.tls is not None:
            self.tls.close(lingering)  # it comes back here with its last words said
            return
        self.closing = True
        conn = self.conn
        if lingering < 0:
            conn.close(self.pump.clock(), flush=True)
        else:
            conn.lingering_close(lingering, self.pump.clock())
        if conn.fin_acked or conn.closed:
            self._look_again()
        else:
            self.pump.touch()

    def abort(self, error: BaseException | None) -> None:
        """Reset; ``error`` is for connection_lost."""
        if self.lost and not self.conn.lingering:
            return
        if self.error is None:
            self.error = error
        self.closing = True
        self.conn.abort(self.pump.clock())
        self._look_again()

    def buffer_size(self) -> int:
        """Bytes not yet handed to the network; with a high-water mark of 0, bytes not yet acknowledged."""
        return self.conn.send_queue_size if self.high_water > 0 else self.conn.unacked_bytes

    def delivered(self) -> bool:
        """Whether the peer's TCP has everything, so that connection_lost(None) has come after our close, or will."""
        conn = self.conn
        return self.closing and conn.fin_acked and conn.error is None and self.error is None

    def pause_if_full(self) -> None:
        if self.writing_paused or self.protocol is None or self.buffer_size() <= self.high_water:
            return
        self.writing_paused = True
        try:
            self.protocol.pause_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report("protocol.pause_writing() failed", error)

    def wait_drained(self, waiter: Any) -> None:
        """Give ``waiter`` a result when everything written so far is acknowledged, or an exception."""
        if self.drain_waiters is None:
            self.drain_waiters = []
        self.drain_waiters.append((self.written, waiter))
        self._wake_drained()

    def wait_closed(self, waiter: Any) -> None:
        """Give ``waiter`` the CloseInfo when the teardown is complete."""
        if self.conn.closed:
            waiter.set_result(CloseInfo.of(self.conn))
            return
        waiting = self.close_waiters or []
        self.close_waiters = [one for one in waiting if not one.done()]  # without those that were cancelled
        self.close_waiters.append(waiter)

    # From the pump: the only place where callbacks are made

    def call(self, bits: i64) -> None:
        """Tell the protocol what the readiness bits say, in the connection's own context."""
        context = self.own_context
        pump = self.pump
        if context is None and pump.in_empty:
            try:
                self.on_ready(bits)
            finally:
                if len(pump.empty) > 0:
                    self._keep_the_context()
        elif context is None:
            self.context().run(_ON_READY, self, bits)
        elif context is pump.empty:
            self.on_ready(bits)  # ours since a callback of this round
        else:
            context.run(_ON_READY, self, bits)  # not self.on_ready: a bound method costs as much as all the rest

    def _keep_the_context(self) -> None:
        """A variable set in the context that was everybody's makes it ours."""
        pump = self.pump
        if pump.in_empty:
            pump.in_empty = False
            self.own_context = pump.empty

    def context(self) -> contextvars.Context:
        """That of the connection, for calls that do not come from the pump."""
        context = self.own_context
        if context is None:
            pump = self.pump
            if self.busy and pump.in_empty:  # we are in it
                pump.in_empty = False
                context = pump.empty
            else:
                context = contextvars.Context()
            self.own_context = context
        return context

    def call_again(self) -> None:
        """Tell it whatever there is to tell; once it is closing that is the end."""
        self.call(self.conn.take_ready() | (CLOSED_BIT if self.closing else EVERYTHING))

    def hears_of(self, bits: i64) -> bool:
        """Whether there is anything to tell: that bytes have left, or were acknowledged, concerns those who wait."""
        return bits & HEARD != 0 or self.writing_paused or self.drain_waiters is not None or self.closing

    def on_ready(self, bits: i64) -> None:
        """As ``call``, in the present context."""
        self.busy = True
        try:
            if bits & CONNECTED and not self.connected:
                self._establish()
            if bits & URGENT:
                self._tell_of_urgent()
            if bits & READABLE:
                self._read()
            if bits & EOF:
                self._read_eof()
            if self.writing_paused:
                self._resume_if_drained()
            if self.drain_waiters is not None:
                self._wake_drained()
            if self.closing or bits & CLOSED_BIT:
                self._look_for_the_end()
        finally:
            self.busy = False

    def _look_again(self) -> None:
        """Have the protocol told soon; a callback round that is under way looks at everything before it ends."""
        if self.busy:
            self.pump.touch()
        else:
            self.pump.look_at(self)

    def _establish(self) -> None:
        self.connected = True
        factory, self.factory = self.factory, None
        waiter, self.waiter = self.waiter, None
        assert factory is not None
        try:
            self.set_protocol(factory())
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._reject(error, waiter)
            return
        clients = self.clients
        if clients is not None:
            clients[self.transport] = None
        try:
            self.protocol.connection_made(self.transport)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail("connection_made", error)
        if self.written > 0 and not self.closing:
            self.pause_if_full()  # written before there was a protocol to pause
        if waiter is not None and not waiter.done():
            waiter.set_result(self.protocol)

    def _reject(self, error: BaseException, waiter: Any) -> None:
        """The protocol factory failed: there is nobody to have the connection."""
        if waiter is None:
            which = " for incoming connection" if self.conn.passive else ""
            self._report("Error on transport creation" + which, error)
        elif not waiter.done():
            waiter.set_exception(error)
        self.abort(error)

    def _tell_of_urgent(self) -> None:
        """At once and before the data, also to a paused reader (RFC 9293 3.8.5, MUST-32)."""
        tell = getattr(self.protocol, "urgent_received", None)
        if tell is None or self.closing:
            return
        try:
            tell(self.conn.urgent_bytes)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail("urgent_received", error)

    def _read(self) -> None:
        """Hand over what has arrived."""
        conn = self.conn
        try:
            while self.reading and not self.closing and conn.readable_bytes > 0:
                if self.buffered:
                    self._fill_buffer()
                else:
                    self.protocol.data_received(conn.receive(MAX_READ))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail("buffer_updated" if self.buffered else "data_received", error)

    def _fill_buffer(self) -> None:
        conn = self.conn
        buffer = self.protocol.get_buffer(conn.readable_bytes)
        if len(buffer) == 0:
            raise RuntimeError("get_buffer() returned an empty buffer")
        view = memoryview(buffer).cast("B")
        data = conn.receive(len(view))
        view[: len(data)] = data
        self.protocol.buffer_updated(len(data))

    def _read_eof(self) -> None:
        """The peer's end of file, once everything before it has been handed over."""
        if self.eof_told or self.closing or not self.reading or not self.conn.at_eof:
            return
        self.eof_told = True
        try:
            keep_open = self.protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail("eof_received", error)
            return
        if not keep_open:
            self.close()

    def _resume_if_drained(self) -> None:
        if self.lost or self.buffer_size() > self.low_water:
            return
        self.writing_paused = False
        try:
            self.protocol.resume_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report("protocol.resume_writing() failed", error)

    def _wake_drained(self) -> None:
        waiting = self.drain_waiters
        if waiting is None:
            return
        acked = self.written - self.conn.unacked_bytes
        rest: list[tuple[int, Any]] = []
        for offset, waiter in waiting:
            if waiter.done():
                continue
            if acked >= offset:
                waiter.set_result(None)
            elif self.conn.closed:
                waiter.set_exception(self.error or self.conn.error or ConnectionAbortedError("Connection aborted"))
            else:
                rest.append((offset, waiter))
        self.drain_waiters = rest if rest else None

    # The end

    def _look_for_the_end(self) -> None:
        conn = self.conn
        if conn.done:
            if not self.lost and self._end_is_due():
                self._lose(self.error if last_ack_missing(conn) else self.error or conn.error)
            if self.close_waiters is not None:
                self._wake_closed()
            if self.lost:
                # Nothing more will come. Without cycles the memory is free at once, not at the next collection
                conn.context = None
                self.transport = None
                self.tls = None
        elif self.closing and not self.lost and conn.fin_acked:
            self._lose(self.error)

    def _end_is_due(self) -> bool:
        """Whether a connection that has ended is now lost to its protocol.

        After both FINs that is only when the user closes, as with a kernel socket; and a paused reader gets what
        arrived before an error first, unless somebody waits to write, or tries to.
        """
        conn = self.conn
        if self.closing or not self.connected:
            return True
        if conn.error is None or last_ack_missing(conn):
            return False
        return self.reading or conn.readable_bytes == 0 or self.writing_paused or self.writes_in_vain > 0

    def _lose(self, error: BaseException | None) -> None:
        """connection_lost, exactly once, and the protocol is let go of."""
        self.lost = True
        self.closing = True
        self.pump.channels -= 1
        waiter, self.waiter = self.waiter, None
        server, self.server = self.server, None
        clients, self.clients = self.clients, None
        try:
            if waiter is None:
                self._tell_lost(error)
            elif not waiter.done():  # create_connection: nobody has heard of this connection yet
                waiter.set_exception(error or ConnectionAbortedError("Connection aborted"))
        finally:
            self.protocol = None
            self.factory = None
            if clients is not None:
                transport = self.transport
                if transport in clients:  # it has been established
                    del clients[transport]
                if not clients:
                    server.on_no_clients()

    def _tell_lost(self, error: BaseException | None) -> None:
        try:
            if self.protocol is None:
                if self.connected or self.factory is None:
                    return  # its factory failed
                self.set_protocol(self.factory())
            self.protocol.connection_lost(error)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as failure:
            self._report("protocol.connection_lost() failed", failure)

    def _wake_closed(self) -> None:
        waiting = self.close_waiters
        if waiting is not None:
            self.close_waiters = None
            info = CloseInfo.of(self.conn)
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(info)

    def _fail(self, callback: str, error: BaseException) -> None:
        """A callback raised: its connection ends with that error, and the loop's handler hears of it."""
        self._report(f"Fatal error: protocol.{callback}() call failed.", error)
        self.abort(error)

    def _report(self, message: str, error: BaseException) -> None:
        self.pump.loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self.transport, "protocol": self.protocol}
        )

    def _write_in_vain(self) -> None:
        """After the end writes are dropped; whoever goes on writing is told, as by asyncio."""
        if self.writes_in_vain >= ENOUGH_WARNINGS:
            logger.warning("socket.send() raised exception.")
        self.writes_in_vain += 1
        if not self.closing:
            self._look_again()


def _on_ready(channel: Channel, bits: i64) -> None:
    channel.on_ready(bits)


_ON_READY: Final = _on_ready
