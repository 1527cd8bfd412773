"""Protocols that write down what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class _Recording(asyncio.BaseProtocol):
    """Keeps every callback in ``events`` and all data in ``data``; futures tell of the milestones."""

    def __init__(self, *, keep_open: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.keep_open = keep_open
        self.events: list[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.made: asyncio.Future[Any] = loop.create_future()  # the transport
        self.eof: asyncio.Future[None] = loop.create_future()
        self.paused: asyncio.Future[None] = loop.create_future()
        self.resumed: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self._expected: list[tuple[int, asyncio.Future[None]]] = []

    def connection_made(self, transport: Any) -> None:
        self.events.append("made")
        self.transport = transport
        self.made.set_result(transport)

    def eof_received(self) -> bool:
        self.events.append("eof")
        self.eof.set_result(None)
        return self.keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.events.append("lost")
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self.events.append("pause")
        if not self.paused.done():
            self.paused.set_result(None)

    def resume_writing(self) -> None:
        self.events.append("resume")
        if not self.resumed.done():
            self.resumed.set_result(None)

    async def received(self, size: int) -> bytes:
        """Wait for this many bytes in all."""
        if len(self.data) < size:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._expected.append((size, waiter))
            await waiter
        return bytes(self.data)

    def _take(self, data: bytes | memoryview) -> None:
        if not self.events or self.events[-1] != "data":
            self.events.append("data")
        self.data += data
        for size, waiter in self._expected:
            if len(self.data) >= size and not waiter.done():
                waiter.set_result(None)


class Recorder(_Recording, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self._take(data)


class BufferedRecorder(_Recording, asyncio.BufferedProtocol):
    """Takes its data in a buffer of its own, of ``size`` bytes."""

    def __init__(self, size: int = 1000, *, keep_open: bool = False) -> None:
        super().__init__(keep_open=keep_open)
        self.size = size
        self.buffer = bytearray(size)
        self.largest = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        self.sizehint = sizehint
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self.largest = max(self.largest, nbytes)
        self._take(memoryview(self.buffer)[:nbytes])


class Accepted:
    """A protocol factory for servers that hands out what it made."""

    def __init__(self, factory: Callable[[], Any] = Recorder) -> None:
        self._factory = factory
        self.all: list[Any] = []
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.made: list[Any] = []

    def __call__(self) -> Any:
        protocol = self._factory()
        self.made.append(protocol)
        self.all.append(protocol)
        self._queue.put_nowait(protocol)
        return protocol

    async def get(self) -> Any:
        protocol = await self._queue.get()
        await protocol.made
        return protocol


async def fill(transport: Any, protocol: _Recording) -> int:
    """Write more than all buffers on the way to a peer that does not read take; returns the bytes written."""
    for _ in range(1 << 8):
        transport.write(bytes(1 << 16))
    await protocol.paused
    await asyncio.sleep(0.01)  # what can leave does
    return 1 << 24
