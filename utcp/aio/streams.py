"""Streams: asyncio's reader and writer over utcp, with half-close and with data before errors."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from utcp.aio.addresses import literal
from utcp.aio.attempt import attempt
from utcp.aio.close_info import CloseInfo
from utcp.aio.connecting import client_endpoint, create_connection
from utcp.aio.server import Server, create_server
from utcp.aio.transport import Transport

if TYPE_CHECKING:
    import ssl

    from utcp.aio.endpoint import Endpoint

ClientConnected = Callable[["StreamReader", "StreamWriter"], Awaitable[None] | None]
Waiters = list[asyncio.Future[None]]

DEFAULT_LIMIT = 2**16  # 64 KiB, as asyncio


class StreamReader(asyncio.StreamReader):
    """asyncio's reader, except that an error comes after the data that arrived before it.

    Whoever asks for more than there is gets the error, and what there is stays readable: ``read(n)`` returns it.
    """

    if TYPE_CHECKING:  # asyncio's, which typeshed does not tell of

        def _maybe_resume_transport(self) -> None: ...

    # asyncio's attributes; those that many a connection never changes are the class's
    _paused: bool = False
    _exception: Exception | None = None  # stays None: asyncio's methods raise it before they look into the buffer
    _failure: Exception | None = None

    def __init__(self, limit: int = DEFAULT_LIMIT, loop: asyncio.AbstractEventLoop | None = None) -> None:
        # Not super().__init__(), which would set all of them, and more, for each connection
        if limit <= 0:
            raise ValueError("Limit cannot be <= 0")
        self._limit = limit
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._buffer = bytearray()
        # Set here, not when first needed: an attribute that comes when many readers are there has CPython make each
        # a dict of its own. (Few connections pause or fail.)
        self._eof = False
        self._waiter: asyncio.Future[None] | None = None
        self._transport: Transport | None = None

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


class StreamReaderProtocol(asyncio.Protocol):
    """Between a transport and a StreamReader; what a StreamWriter waits on.

    Not asyncio's: that has a future, a weak reference, a queue of waiters and a finalizer for each connection. It is
    its own factory, when it is called.
    """

    __slots__ = (
        "_client_connected_cb",
        "_close_waiters",
        "_connection_lost",
        "_drain_waiters",
        "_error",
        "_loop",
        "_over_ssl",
        "_paused",
        "_stream_reader",
        "_task",
        "_transport",
    )

    def __init__(
        self,
        stream_reader: StreamReader | None,
        client_connected_cb: ClientConnected | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._stream_reader = stream_reader
        self._client_connected_cb = client_connected_cb
        self._transport: Transport | None = None
        self._task: asyncio.Task[None] | None = None  # the handler's
        self._over_ssl = False
        self._paused = False
        self._connection_lost = False
        self._error: Exception | None = None  # that connection_lost came with
        self._drain_waiters: Waiters | None = None
        self._close_waiters: Waiters | None = None

    def __call__(self) -> StreamReaderProtocol:
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Transport)
        reader = self._stream_reader
        self._set_transport(transport)
        connected = self._client_connected_cb
        if connected is None:
            return
        assert reader is not None
        result = connected(reader, StreamWriter(transport, self, reader, self._loop))
        if type(result) is CoroutineType or asyncio.iscoroutine(result):
            self._task = task = self._loop.create_task(result)
            task.add_done_callback(self._handler_done, context=transport._channel.own_context)  # None: it makes a copy

    def data_received(self, data: bytes) -> None:
        reader = self._stream_reader
        if reader is not None:
            reader.feed_data(data)

    def eof_received(self) -> bool:
        reader = self._stream_reader
        if reader is not None:
            reader.feed_eof()
        return not self._over_ssl

    def connection_lost(self, exc: Exception | None) -> None:
        reader = self._stream_reader
        self._connection_lost = True
        if exc is not None:
            self._error = exc
            self._tell_of_error(reader, exc)
        elif reader is not None and not reader._eof:
            reader.feed_eof()
        if self._drain_waiters is not None:
            self._settle(self._drain_waiters)
        if self._close_waiters is not None:
            self._settle(self._close_waiters)
        self._stream_reader = None
        self._task = None

    def _tell_of_error(self, reader: StreamReader | None, exc: Exception) -> None:
        if reader is None:
            return
        rest = self._transport.take_unread() if self._transport is not None else b""  # the reader had paused
        if rest and not reader._eof:
            reader.feed_data(rest)
        reader.set_exception(exc)

    # Flow control

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._drain_waiters is not None:
            self._settle(self._drain_waiters)

    async def _drain_helper(self) -> None:
        if self._connection_lost:
            raise ConnectionResetError("Connection lost")
        if not self._paused:
            return
        self._drain_waiters, waiter = self._one_more(self._drain_waiters)
        await waiter

    # The end

    def _get_close_waiter(self, stream: asyncio.StreamWriter) -> asyncio.Future[None]:
        self._close_waiters, waiter = self._one_more(self._close_waiters)
        if self._connection_lost:
            self._settle(self._close_waiters)
        return waiter

    def _one_more(self, waiters: Waiters | None) -> tuple[Waiters, asyncio.Future[None]]:
        """A future for each who waits: that one is cancelled is nobody else's loss, who waits too or will."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        if waiters is None:
            return [waiter], waiter
        return [*(one for one in waiters if not one.done()), waiter], waiter

    def _settle(self, waiters: Waiters) -> None:
        """What they wait for has happened, or never will."""
        for waiter in waiters:
            if waiter.done():
                continue
            if self._error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(self._error)
                waiter.exception()  # whoever waits may be cancelled before it hears: no complaint then
        waiters.clear()

    def _handler_done(self, task: asyncio.Task[None]) -> None:
        transport = self._transport
        assert transport is not None
        if task.cancelled():
            transport.close()
        elif (error := task.exception()) is not None:
            message = "Unhandled exception in client_connected_cb"
            self._loop.call_exception_handler({"message": message, "exception": error, "transport": transport})
            transport.close()

    def _set_transport(self, transport: Transport) -> None:
        """Go on over ``transport``: the first, or one that has TLS."""
        self._transport = transport
        # asyncio's ``eof_received`` closes what it takes for TLS: right for those versions that have no half-close
        self._over_ssl = type(transport) is not Transport and not transport.can_write_eof()
        if self._stream_reader is not None:
            self._stream_reader._transport = transport


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

    def __del__(self) -> None:
        """As asyncio's, which only newer Pythons have."""
        if self._transport._channel.closing or self._transport.is_closing():
            return
        if self._loop.is_closed():
            warnings.warn("loop is closed", ResourceWarning)  # noqa: B028 - no caller is to blame
        else:
            # Later: the collector may have come in the middle of the engine, or in another thread
            self._loop.call_soon_threadsafe(self._transport.close)
            warnings.warn(f"unclosed {self!r}", ResourceWarning)  # noqa: B028

    @property
    def transport(self) -> Transport:
        return self._transport

    async def drain(self) -> None:
        """As asyncio's, without a coroutine more where there is nothing to wait for."""
        reader = self._reader
        if reader is not None and (error := reader.exception()) is not None:
            raise error
        if self._transport.is_closing():
            await asyncio.sleep(0)  # connection_lost may be due, and the error is to come from it
        protocol = self._protocol
        if protocol._paused or protocol._connection_lost:
            await protocol._drain_helper()

    async def wait_closed(self) -> None:
        """Wait until the peer's TCP has acknowledged every byte and our FIN; raises what ended it before."""
        transport = self._transport
        if type(transport) is Transport and transport._channel.delivered():
            return  # connection_lost(None) will come, but there is nothing left to wait for
        await self._protocol._get_close_waiter(self)

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
        protocol._set_transport(self._transport)


async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    endpoint: Endpoint | None = None,
    udp_port: int | None = None,
    **kwds: Any,
) -> tuple[StreamReader, StreamWriter]:
    """As ``asyncio.open_connection``, with the arguments of ``utcp.create_connection``."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(limit=limit, loop=loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    known = None if kwds else literal(host, port, 0 if endpoint is None else endpoint.family)
    if known is None:
        transport, _ = await create_connection(protocol, host, port, udp_port=udp_port, endpoint=endpoint, **kwds)
    else:
        # Nothing to look up, to choose or to race, as mostly: each coroutine less is an object less to collect
        if endpoint is None:
            endpoint = client_endpoint(loop, known.family)
        where = known.at(known.port if udp_port is None else udp_port)
        outcome = await attempt(endpoint, protocol, where, known.port, None, None)
        if isinstance(outcome, OSError):
            raise outcome
        transport, _ = outcome
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
