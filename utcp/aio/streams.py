"""Streams: asyncio's reader and writer over utcp, with half-close and with data before errors."""

from __future__ import annotations

import asyncio
import functools
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
        if n >= 0:
            return await super().read(n)
        # To the end of file: an error before that leaves everything in the buffer
        while not self._eof:
            await self._wait_for_data("read")
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def _wait_for_data(self, func_name: str) -> None:
        if self._failure is not None:
            raise self._failure
        # As asyncio's from here on, but that a call of it is a coroutine more for each wait
        if self._waiter is not None:
            raise RuntimeError(f"{func_name}() called while another coroutine is already waiting for incoming data")
        if self._paused:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class StreamReaderProtocol(asyncio.StreamReaderProtocol):
    """Between a transport and a StreamReader."""

    if TYPE_CHECKING:
        _stream_reader: StreamReader | None
        _transport: Transport | None
        _client_connected_cb: ClientConnected | None
        _strong_reader: StreamReader | None
        _loop: asyncio.AbstractEventLoop
        _task: asyncio.Task[None] | None

        def _get_close_waiter(self, stream: asyncio.StreamWriter) -> asyncio.Future[None]: ...

        _over_ssl: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connected = self._client_connected_cb
        if connected is None:
            super().connection_made(transport)
            self._note_half_close()
            return
        assert isinstance(transport, Transport)
        reader = self._stream_reader
        assert reader is not None
        self._transport = transport
        self._note_half_close()
        self._strong_reader = None
        reader.set_transport(transport)
        result = connected(reader, StreamWriter(transport, self, reader, self._loop))
        if asyncio.iscoroutine(result):
            self._task = self._loop.create_task(result)
            self._task.add_done_callback(functools.partial(_handler_done, self._loop, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            reader = self._stream_reader
            transport = self._transport
            if reader is not None and transport is not None:
                rest = transport.take_unread()  # the reader had paused
                if rest and not reader._eof:
                    reader.feed_data(rest)
        super().connection_lost(exc)

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

    @property
    def transport(self) -> Transport:
        return self._transport

    async def wait_closed(self) -> None:
        """As asyncio's; but cancelling it is nobody else's loss, who waits too or will."""
        await asyncio.shield(self._protocol._get_close_waiter(self))

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
