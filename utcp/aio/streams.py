"""Streams: asyncio's reader and writer over utcp, with half-close and with data before errors."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from utcp.aio.close_info import CloseInfo
from utcp.aio.connecting import create_connection
from utcp.aio.server import Server, create_server
from utcp.aio.transport import Transport

if TYPE_CHECKING:
    import ssl

ClientConnected = Callable[["StreamReader", "StreamWriter"], Awaitable[None] | None]

DEFAULT_LIMIT = 2**16  # 64 KiB, as asyncio


class StreamReader(asyncio.StreamReader):
    """asyncio's reader, except that an error comes after the data that arrived before it.

    Whoever asks for more than there is gets the error, and what there is stays readable: ``read(n)`` returns it.
    """

    if TYPE_CHECKING:  # asyncio's, which typeshed does not tell of
        _buffer: bytearray
        _eof: bool
        _loop: asyncio.AbstractEventLoop
        _paused: bool
        _waiter: asyncio.Future[None] | None
        _transport: Transport | None

        def _maybe_resume_transport(self) -> None: ...

    _failure: Exception | None = None

    def exception(self) -> Exception | None:
        return self._failure

    def set_exception(self, exc: Exception) -> None:
        self._failure = exc
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_exception(exc)

    def feed_eof(self) -> None:
        self._eof = True
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.cancelled():
                waiter.set_result(None)

    async def read(self, n: int = -1) -> bytes:
        if n == 0:
            return b""
        buffer = self._buffer
        # One read to the end of file; an error before that leaves everything in the buffer
        while not self._eof and (n < 0 or not buffer):
            self._waiter = self._begin_to_wait("read")
            try:  # not by _wait_for_data, which is a coroutine more
                await self._waiter
            finally:
                self._waiter = None
        if n < 0 or n >= len(buffer):
            data = bytes(buffer)
            buffer.clear()
        else:
            data = bytes(buffer[:n])
            del buffer[:n]
        if self._paused:
            self._maybe_resume_transport()
        return data

    async def _wait_for_data(self, func_name: str) -> None:
        self._waiter = self._begin_to_wait(func_name)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _begin_to_wait(self, func_name: str) -> asyncio.Future[None]:
        if self._failure is not None:
            raise self._failure
        if self._waiter is not None:
            raise RuntimeError(f"{func_name}() called while another coroutine is already waiting for incoming data")
        if self._paused:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()
        return self._loop.create_future()


def _nobody() -> None:
    """In place of a weak reference to a reader."""


class StreamReaderProtocol(asyncio.StreamReaderProtocol):
    """Between a transport and a StreamReader.

    Nothing of asyncio's own is called on the way of a connection that comes and goes: its future for ``wait_closed``
    is made for those who wait, and its attributes that hardly ever change are here the class's.
    """

    if TYPE_CHECKING:
        _stream_reader: StreamReader | None
        _paused: bool

    _connection_lost = False
    _reject_connection = False
    _over_ssl = False
    _stream_writer: asyncio.StreamWriter | None = None
    _transport: Transport | None = None
    _task: asyncio.Task[None] | None = None
    _error: Exception | None = None  # that connection_lost came with
    _close_waiters: list[asyncio.Future[None]] | None = None

    def __init__(
        self,
        stream_reader: StreamReader | None,
        client_connected_cb: ClientConnected | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._stream_reader_wr: Callable[[], StreamReader | None] = _nobody
        if stream_reader is not None:
            self._stream_reader_wr = weakref.ref(stream_reader)
        # Until there is a connection nobody else holds a server's reader
        self._strong_reader = None if client_connected_cb is None else stream_reader
        self._client_connected_cb = client_connected_cb
        self._paused = False
        self._drain_waiters: list[asyncio.Future[None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self._transport = transport
        self._note_half_close()
        reader = self._stream_reader_wr()
        if reader is not None:
            reader._transport = transport
        connected = self._client_connected_cb
        if connected is None:
            return
        assert reader is not None
        self._strong_reader = None
        result = connected(reader, StreamWriter(transport, self, reader, self._loop))
        if asyncio.iscoroutine(result):
            self._task = self._loop.create_task(result)
            self._task.add_done_callback(functools.partial(_handler_done, self._loop, transport))

    def data_received(self, data: bytes) -> None:
        reader = self._stream_reader_wr()
        if reader is not None:
            reader.feed_data(data)

    def eof_received(self) -> bool:
        reader = self._stream_reader_wr()
        if reader is not None:
            reader.feed_eof()
        return not self._over_ssl

    def connection_lost(self, exc: Exception | None) -> None:
        reader = self._stream_reader_wr()
        if exc is not None:
            self._error = exc
            self._tell_of_error(reader, exc)
        elif reader is not None:
            reader.feed_eof()
        self._connection_lost = True
        closing, self._close_waiters = self._close_waiters, None
        for waiter in (*self._drain_waiters, *(closing or ())):
            self._settle(waiter)
        self._stream_reader_wr = _nobody
        self._task = None
        self._transport = None

    def _tell_of_error(self, reader: StreamReader | None, exc: Exception) -> None:
        if reader is None:
            return
        rest = self._transport.take_unread() if self._transport is not None else b""  # the reader had paused
        if rest and not reader._eof:
            reader.feed_data(rest)
        reader.set_exception(exc)

    def _get_close_waiter(self, stream: asyncio.StreamWriter) -> asyncio.Future[None]:
        """A future for each who waits: that one is cancelled is nobody else's loss, who waits too or will."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self._connection_lost:
            self._settle(waiter)
        else:
            self._close_waiters = [one for one in self._close_waiters or () if not one.done()]
            self._close_waiters.append(waiter)
        return waiter

    def _settle(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done():
            return
        if self._error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(self._error)
            waiter.exception()  # whoever waits may be cancelled before it hears: no complaint then

    def __del__(self) -> None:
        """asyncio's looks after the future that it makes for each connection."""

    def replace_transport(self, transport: Transport) -> None:
        """Go on over ``transport``, which has TLS."""
        self._transport = transport
        self._note_half_close()
        if self._stream_reader is not None:
            self._stream_reader._transport = transport

    def _note_half_close(self) -> None:
        """asyncio's ``eof_received`` closes what it takes for TLS: right for those versions that have no half-close."""
        assert self._transport is not None
        self._over_ssl = not self._transport.can_write_eof()


def _handler_done(loop: asyncio.AbstractEventLoop, transport: Transport, task: asyncio.Task[None]) -> None:
    if task.cancelled():
        transport.close()
    elif (error := task.exception()) is not None:
        message = "Unhandled exception in client_connected_cb"
        loop.call_exception_handler({"message": message, "exception": error, "transport": transport})
        transport.close()


class StreamWriter(asyncio.StreamWriter):
    """asyncio's writer; ``writer.transport`` has ``drained()`` and ``closed()``."""

    if TYPE_CHECKING:
        _transport: Transport
        _protocol: StreamReaderProtocol

    def __init__(
        self,
        transport: Transport,
        protocol: StreamReaderProtocol,
        reader: StreamReader | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        # Not super().__init__(): it makes a future that nothing ever looks at
        self._transport = transport
        self._protocol = protocol
        self._reader = reader
        self._loop = loop

    @property
    def transport(self) -> Transport:
        return self._transport

    async def lingering_close(self, timeout: float) -> CloseInfo:
        """As the transport's, in place of ``close`` and ``wait_closed``: RFC 9112 9.6 has HTTP servers do it."""
        return await self._transport.lingering_close(timeout)

    async def start_tls(
        self,
        sslcontext: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        """Upgrade the connection as ``utcp.start_tls`` does; as the server if it came from ``start_server``."""
        from utcp.aio.tls import start_tls

        protocol = self._protocol
        await self.drain()
        self._transport = await start_tls(
            self._transport,
            protocol,
            sslcontext,
            server_side=protocol._client_connected_cb is not None,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        protocol.replace_transport(self._transport)


async def open_connection(
    host: str | None = None, port: int | str | None = None, *, limit: int = DEFAULT_LIMIT, **kwds: Any
) -> tuple[StreamReader, StreamWriter]:
    """As ``asyncio.open_connection``, with the arguments of ``utcp.create_connection``."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(limit=limit, loop=loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    endpoint = kwds.pop("endpoint", None)
    connect = create_connection if endpoint is None else endpoint.create_connection
    transport, _ = await connect(lambda: protocol, host, port, **kwds)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_server(
    client_connected_cb: ClientConnected,
    host: Any = None,
    port: int | str | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    **kwds: Any,
) -> Server:
    """As ``asyncio.start_server``, with the arguments of ``utcp.create_server``."""
    loop = asyncio.get_running_loop()

    def factory() -> StreamReaderProtocol:
        reader = StreamReader(limit=limit, loop=loop)
        connected: Any = client_connected_cb  # asyncio's signature speaks of its own reader and writer
        return StreamReaderProtocol(reader, connected, loop=loop)

    return await create_server(factory, host, port, **kwds)
