"""Protocols that write down what happens to them, and small servers to talk to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import utcp

HOST = "127.0.0.1"


class Recorder(asyncio.Protocol):
    """Keeps every callback in ``events`` and all data in ``data``; futures tell of the milestones."""

    def __init__(self, *, keep_open: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.keep_open = keep_open
        self.events: list[str] = []
        self.data = bytearray()
        self.transport: utcp.Transport | None = None
        self.made: asyncio.Future[utcp.Transport] = loop.create_future()
        self.eof: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self._expected: list[tuple[int, asyncio.Future[None]]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, utcp.Transport)
        self.events.append("made")
        self.transport = transport
        self.made.set_result(transport)

    def data_received(self, data: bytes) -> None:
        if self.events[-1] != "data":
            self.events.append("data")
        self.data += data
        for size, waiter in self._expected:
            if len(self.data) >= size and not waiter.done():
                waiter.set_result(None)

    def eof_received(self) -> bool:
        self.events.append("eof")
        self.eof.set_result(None)
        return self.keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append("lost")
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    async def received(self, size: int) -> bytes:
        """Wait for this many bytes in all."""
        if len(self.data) < size:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._expected.append((size, waiter))
            await waiter
        return bytes(self.data)


class Echo(asyncio.Protocol):
    """Sends back what it gets; closes when the peer has."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Accepted:
    """A protocol factory for servers that hands out what it made."""

    def __init__(self, factory: Callable[[], Recorder] = Recorder) -> None:
        self._factory = factory
        self._queue: asyncio.Queue[Recorder] = asyncio.Queue()

    def __call__(self) -> Recorder:
        protocol = self._factory()
        self._queue.put_nowait(protocol)
        return protocol

    async def get(self) -> Recorder:
        protocol = await self._queue.get()
        await protocol.made
        return protocol


@asynccontextmanager
async def serving(factory: Callable[[], asyncio.BaseProtocol], **kwargs: Any) -> AsyncIterator[int]:
    """A server on a port of the system's choice, which it yields; all its connections end with it."""
    server = await utcp.create_server(factory, HOST, 0, **kwargs)
    try:
        yield server.sockets[0].port
    finally:
        server.close()
        server.abort_clients()
        await server.wait_closed()


@asynccontextmanager
async def pair(
    *, client_keeps_open: bool = False, server_keeps_open: bool = False, **kwargs: Any
) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """Two connected recorders: the client's and the server's."""
    accepted = Accepted(lambda: Recorder(keep_open=server_keeps_open))
    async with serving(accepted) as port:
        transport, client = await utcp.create_connection(
            lambda: Recorder(keep_open=client_keeps_open), HOST, port, **kwargs
        )
        try:
            yield client, await accepted.get()
        finally:
            transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds that nobody tells of."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def transport_of(recorder: Recorder) -> utcp.Transport:
    assert recorder.transport is not None
    return recorder.transport
