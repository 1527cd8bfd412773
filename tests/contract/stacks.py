"""The two ways to a TCP connection, behind one set of names, so that a test does not know which it uses."""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, final

import utcp
from support.patience import PATIENCE
from support.recorder import Accepted, Recorder

HOST: Final = "127.0.0.1"


@final
class Stack:
    """``asyncio``'s functions over the kernel's TCP, or ``utcp``'s."""

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.is_utcp = module is utcp
        self.socket_type = socket.SOCK_DGRAM if self.is_utcp else socket.SOCK_STREAM  # what sock= wants
        self.open_connection: Callable[..., Any] = module.open_connection
        self.start_server: Callable[..., Any] = module.start_server

    async def create_connection(self, factory: Callable[[], Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        create = utcp.create_connection if self.is_utcp else asyncio.get_running_loop().create_connection
        transport, protocol = await create(factory, *args, **kwargs)
        return transport, protocol

    async def create_server(self, factory: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        create = utcp.create_server if self.is_utcp else asyncio.get_running_loop().create_server
        return await create(factory, *args, **kwargs)

    def reset(self, transport: Any) -> None:
        """End a connection by RST. The kernel's sends one on close with SO_LINGER 0; ``abort`` alone sends its FIN."""
        if not self.is_utcp:
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()

    @asynccontextmanager
    async def serving(self, factory: Callable[[], Any], **kwargs: Any) -> AsyncIterator[int]:
        """A server on a port of the system's choice, which it yields."""
        server = await self.create_server(factory, HOST, 0, **kwargs)
        try:
            yield port_of(server)
        finally:
            server.close()
            if self.is_utcp:
                server.abort_clients()
            async with asyncio.timeout(PATIENCE):  # it waits for clients, which a failing test leaves behind
                await server.wait_closed()

    @asynccontextmanager
    async def pair(
        self,
        *,
        client_factory: Callable[[], Any] | None = None,
        server_factory: Callable[[], Any] | None = None,
        client_keeps_open: bool = False,
        server_keeps_open: bool = False,
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Two connected protocols, the client's and the server's: Recorders, unless other factories are given."""
        accepted = Accepted(server_factory or functools.partial(Recorder, keep_open=server_keeps_open))
        client_factory = client_factory or functools.partial(Recorder, keep_open=client_keeps_open)
        async with self.serving(accepted) as port:
            transport, client = await self.create_connection(client_factory, HOST, port)
            server = await accepted.get()
            try:
                yield client, server
            finally:
                transport.abort()
                server.transport.abort()
                await asyncio.wait([client.lost, server.lost], timeout=PATIENCE)

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[tuple[Any, Any, Any, Any]]:
        """The client's reader and writer, and the server's."""
        accepted: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()

        def take(reader: Any, writer: Any) -> None:
            accepted.set_result((reader, writer))

        server = await self.start_server(take, HOST, 0)
        try:
            reader, writer = await self.open_connection(HOST, port_of(server))
            server_reader, server_writer = await accepted
            try:
                yield reader, writer, server_reader, server_writer
            finally:
                for one in (writer, server_writer):
                    one.transport.abort()
                    await asyncio.wait([asyncio.ensure_future(_closed(one))], timeout=PATIENCE)
        finally:
            server.close()
            async with asyncio.timeout(PATIENCE):
                await server.wait_closed()


async def _closed(writer: Any) -> None:
    try:
        await writer.wait_closed()
    except OSError:
        pass


def on_uvloop() -> bool:
    return type(asyncio.get_running_loop()).__module__.startswith("uvloop")


def port_of(server: Any) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


@contextmanager
def deaf(stack: Stack, host: str = HOST, port: int = 0) -> Iterator[int]:
    """Somebody who never completes a handshake: for the kernel's, a listener whose queue is full. Yields the port."""
    with ExitStack() as sockets:
        sock = sockets.enter_context(socket.socket(socket.AF_INET, stack.socket_type))
        sock.bind((host, port))
        if not stack.is_utcp:
            sock.listen(0)
            for _ in range(3):
                filler = sockets.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(sock.getsockname())
        yield sock.getsockname()[1]


KERNEL: Final = Stack("kernel", asyncio)
UTCP: Final = Stack("utcp", utcp)
