"""anyio's byte streams and listeners over utcp, with anyio's own errors. Needs the extra ``anyio``, and asyncio.

    stream = await utcp.contrib.anyio.connect_tcp("127.0.0.1", 9000)
    listener = await utcp.contrib.anyio.create_tcp_listener(local_host="127.0.0.1", local_port=9000)

In a loop of ``utcp.new_event_loop`` clients may say ``anyio.connect_tcp("127.0.0.1.utcp", 9000)`` instead; but anyio
closes such a stream by ``abort``, which resets the connection here, and its listeners want kernel sockets.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.streams.memory
from anyio.abc import ByteStream, Listener, SocketAttribute, TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from utcp.aio.server import Server
from utcp.aio.streams import StreamReader, StreamWriter, open_connection, start_server
from utcp.aio.transport import Transport


async def connect_tcp(remote_host: str, remote_port: int, **kwargs: Any) -> UtcpStream:
    """Connect; ``kwargs`` are those of ``utcp.create_connection``. Raises OSError as it does."""
    return UtcpStream(*await open_connection(remote_host, remote_port, **kwargs))


async def create_tcp_listener(*, local_host: str | None = None, local_port: int = 0, **kwargs: Any) -> UtcpListener:
    """Listen, on all interfaces by default, on a port of the system's choice; ``kwargs`` are those of
    ``utcp.create_server``. Raises OSError as it does."""
    arrivals, accepted = anyio.create_memory_object_stream[UtcpStream](math.inf)

    def arrive(reader: StreamReader, writer: StreamWriter) -> None:
        arrivals.send_nowait(UtcpStream(reader, writer))

    try:
        server = await start_server(arrive, local_host, local_port, **kwargs)
    except BaseException:
        arrivals.close()
        accepted.close()
        raise
    return UtcpListener(server, arrivals, accepted)


class UtcpStream(ByteStream):
    """A connection. ``transport`` has what only utcp's have: ``drained``, ``closed``, ``state``, ``info``."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._closed = False
        self._receive_guard = anyio.ResourceGuard("reading from")
        self._send_guard = anyio.ResourceGuard("writing to")

    @property
    def transport(self) -> Transport:
        return self._writer.transport

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises EndOfStream after the peer's FIN, BrokenResourceError after a reset or a time-out, each behind all
        the bytes that came before; ClosedResourceError after ``aclose``."""
        if max_bytes < 1:
            raise ValueError("max_bytes must be a positive integer")
        with self._receive_guard:
            await checkpoint()
            self._check_open()
            try:
                data = await self._reader.read(max_bytes)
            except OSError as error:
                self._check_open()
                raise anyio.BrokenResourceError from error
            if not data:
                self._check_open()
                raise anyio.EndOfStream
            return data

    async def send(self, item: bytes) -> None:
        """Queue bytes; waits while too many are queued. ``transport.drained()`` waits until they are acknowledged."""
        with self._send_guard:
            await checkpoint_if_cancelled()
            self._check_open()
            try:
                self._writer.write(item)
                await self._writer.drain()
            except OSError as error:
                self._check_open()
                raise anyio.BrokenResourceError from error
            self._check_open()
            await cancel_shielded_checkpoint()

    async def send_eof(self) -> None:
        """Half-close: our FIN follows what was sent, and receiving goes on."""
        self._check_open()
        self._writer.write_eof()
        await checkpoint()

    async def aclose(self) -> None:
        """Wait until the peer's TCP has everything and our FIN; cancelled (``aclose_forcefully``), reset."""
        self._closed = True
        try:
            await checkpoint()
            self._writer.close()
            await self._writer.wait_closed()
        except OSError:
            pass  # how it ended is known to ``transport.closed()``
        except BaseException:
            self.transport.abort()
            raise

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        here, there = self.transport.get_extra_info("sockname"), self.transport.get_extra_info("peername")
        return {
            SocketAttribute.family: lambda: socket.AF_INET6 if ":" in here[0] else socket.AF_INET,
            SocketAttribute.local_address: lambda: here,
            SocketAttribute.local_port: lambda: here[1],
            SocketAttribute.remote_address: lambda: there,
            SocketAttribute.remote_port: lambda: there[1],
        }

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError


class UtcpListener(Listener[UtcpStream]):
    """A server; connections that come in wait for ``accept`` or ``serve``."""

    def __init__(
        self,
        server: Server,
        arrivals: anyio.streams.memory.MemoryObjectSendStream[UtcpStream],
        accepted: anyio.streams.memory.MemoryObjectReceiveStream[UtcpStream],
    ) -> None:
        self._server = server
        self._arrivals = arrivals
        self._accepted = accepted
        self._sockets = server.sockets

    async def accept(self) -> UtcpStream:
        """The next connection. Raises ClosedResourceError once the listener is closed."""
        try:
            return await self._accepted.receive()
        except anyio.EndOfStream:
            raise anyio.ClosedResourceError from None

    async def serve(self, handler: Callable[[UtcpStream], Any], task_group: TaskGroup | None = None) -> None:
        """Start ``handler(stream)`` in the task group (one of its own if there is none) for every connection."""
        async with AsyncExitStack() as stack:
            if task_group is None:
                task_group = await stack.enter_async_context(anyio.create_task_group())
            while True:
                task_group.start_soon(handler, await self.accept())

    async def aclose(self) -> None:
        """Listen no more; connections that nobody accepted are reset, the others go on."""
        self._server.close()
        self._arrivals.close()
        while self._accepted.statistics().current_buffer_used:
            stream = self._accepted.receive_nowait()
            stream.transport.abort()
        self._accepted.close()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        first = self._sockets[0]
        return {
            SocketAttribute.family: lambda: first.family,
            SocketAttribute.local_address: first.getsockname,
            SocketAttribute.local_port: lambda: first.port,
        }
