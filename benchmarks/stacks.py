"""Kernel TCP and utcp behind the same few calls, so that client and server are written once (worker.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from benchmarks.workload import Workload

HOST = "127.0.0.1"
BACKLOG = 4096  # connections not yet accepted

Factory = Callable[[], asyncio.Protocol]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Listening = dict[str, Any]  # what a server says of itself to its clients


class Stack(Protocol):
    """One kind of TCP; ports are TCP ports on this host."""

    async def serve(self, workload: Workload, count: int, factory: Factory) -> Listening:
        """Listen on ``count`` ports with a protocol factory."""

    async def serve_streams(self, workload: Workload, count: int, handler: Handler) -> Listening:
        """Listen on ``count`` ports with a streams handler."""

    async def open(self, workload: Workload, listening: Listening) -> None:
        """Prepare to connect to a server that said this of itself."""

    async def create_connection(self, factory: Factory, port: int) -> Any:
        """The protocol of a new connection."""

    async def open_connection(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...

    def connect(self, factory: Factory, port: int) -> None:
        """Begin to connect; the protocol's callbacks tell the rest."""

    def counters(self) -> dict[str, int]:
        """What this process counts itself, since it began."""

    def time_wait(self) -> int:
        """TIME-WAIT records of this process, where it keeps them."""

    def facts(self) -> dict[str, Any]:
        """What a reader of the figures should know."""

    async def close(self) -> None: ...


class KernelStack:
    """asyncio's own API; the kernel counts for itself (peers.kernel_counters)."""

    async def serve(self, workload: Workload, count: int, factory: Factory) -> Listening:
        loop = asyncio.get_running_loop()
        self._servers = [await loop.create_server(factory, HOST, 0, backlog=BACKLOG) for _ in range(count)]
        return self._listening()

    async def serve_streams(self, workload: Workload, count: int, handler: Handler) -> Listening:
        self._servers = [await asyncio.start_server(handler, HOST, 0, backlog=BACKLOG) for _ in range(count)]
        return self._listening()

    def _listening(self) -> Listening:
        return {"ports": [server.sockets[0].getsockname()[1] for server in self._servers]}

    async def open(self, workload: Workload, listening: Listening) -> None:
        self._loop = asyncio.get_running_loop()

    async def create_connection(self, factory: Factory, port: int) -> Any:
        _, protocol = await self._loop.create_connection(factory, HOST, port)
        return protocol

    async def open_connection(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, port)

    def connect(self, factory: Factory, port: int) -> None:
        raise ValueError("asyncio has no way to connect without awaiting: --connect direct is utcp's alone")

    def counters(self) -> dict[str, int]:
        return {}

    def time_wait(self) -> int:
        return 0

    def facts(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        pass


def make_stack(name: str) -> Stack:
    if name == "kernel":
        return KernelStack()
    if name == "aioquic":
        from benchmarks.quic_stack import QuicStack

        return QuicStack()
    from benchmarks.utcp_stack import UtcpStack

    return UtcpStack()
