"""Watermarks and pauses, in both directions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from contract.stacks import Stack, on_uvloop
from support.recorder import Recorder, fill


async def test_pause_and_resume_writing(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        server.transport.pause_reading()
        written = await fill(client.transport, client)
        assert client.transport.get_write_buffer_size() > 65536
        server.transport.resume_reading()
        await client.resumed
        assert len(await server.received(written)) == written
        assert client.events == ["made", "pause", "resume"]


async def test_limits(stack: Stack) -> None:
    async with stack.pair() as (client, _):
        transport = client.transport
        assert transport.get_write_buffer_limits() == default_limits(stack)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=1000)
        assert transport.get_write_buffer_limits() == (1000, 4000)
        transport.set_write_buffer_limits(high=20, low=10)
        assert transport.get_write_buffer_limits() == (10, 20)
        transport.set_write_buffer_limits(high=0)
        assert transport.get_write_buffer_limits() == (0, 0)
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (16384, 65536)


@pytest.mark.parametrize(("high", "low"), [(1, 2), (-1, None), (None, -1), (-1, -1)])
async def test_limits_that_make_no_sense(stack: Stack, high: int | None, low: int | None) -> None:
    async with stack.pair() as (client, _):
        with pytest.raises(ValueError, match="must be >= 0"):
            client.transport.set_write_buffer_limits(high, low)
        assert client.transport.get_write_buffer_limits() == default_limits(stack)


async def test_a_huge_limit_never_pauses(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        server.transport.pause_reading()
        client.transport.set_write_buffer_limits(high=1 << 30)
        for _ in range(100):
            client.transport.write(bytes(100_000))
        await asyncio.sleep(0.001)
        assert client.events == ["made"]
        server.transport.resume_reading()
        assert len(await server.received(10_000_000)) == 10_000_000


async def test_limit_zero(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        client.transport.set_write_buffer_limits(0)
        client.transport.write(b"x")
        if stack.is_utcp:  # until it is acknowledged
            assert client.events == ["made", "pause"]
            await client.resumed
        else:  # until the kernel has it, which is at once
            assert client.events in (["made"], ["made", "pause"])  # uvloop writes a turn later
        assert await server.received(1) == b"x"


async def test_pause_and_resume_reading(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        transport = server.transport
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        client.transport.write(b"while paused")
        await asyncio.sleep(0.02)
        assert server.events == ["made"]
        transport.resume_reading()
        assert server.events == ["made"]  # not from inside the call
        transport.resume_reading()
        assert await server.received(12) == b"while paused"


async def test_pausing_from_inside_data_received(stack: Stack) -> None:
    class Careful(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    async with stack.pair(server_factory=Careful) as (client, server):
        client.transport.write(b"one")
        await server.received(3)
        client.transport.write(b"two")
        await asyncio.sleep(0.02)
        assert server.data == b"one"
        server.transport.resume_reading()
        assert await server.received(6) == b"onetwo"


async def test_pausing_in_connection_made(stack: Stack) -> None:
    class Slow(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    async with stack.pair(server_factory=Slow) as (client, server):
        client.transport.write(b"early")
        client.transport.write_eof()
        await asyncio.sleep(0.02)
        if stack.is_utcp or not on_uvloop():  # which starts to read afterwards, whatever was asked
            assert server.events == ["made"]
            server.transport.resume_reading()
        await server.eof
        assert server.events[:3] == ["made", "data", "eof"]


async def test_a_closing_transport_reads_no_more(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        server.transport.close()
        assert not server.transport.is_reading()
        client.transport.write(b"too late")
        await server.lost
        assert server.events == ["made", "lost"]


async def test_drain(stack: Stack) -> None:
    async with stack.streams() as (reader, writer, server_reader, server_writer):
        await writer.drain()
        size = 1 << 24  # more than any buffer in between
        writer.write(bytes(size))
        drained = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0.02)
        assert not drained.done()
        assert len(await server_reader.readexactly(size)) == size
        await drained
        server_writer.close()
        assert await reader.read() == b""


async def test_several_wait_in_drain(stack: Stack) -> None:
    async with stack.streams() as (_, writer, server_reader, _):
        size = 1 << 24
        writer.write(bytes(size))
        waiting = [asyncio.ensure_future(writer.drain()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await server_reader.readexactly(size)
        await asyncio.wait(waiting)
        assert [one.cancelled() for one in waiting] == [False, True, False]


async def test_drain_when_the_peer_has_reset(stack: Stack) -> None:
    async with stack.streams() as (reader, writer, _, server_writer):
        stack.reset(server_writer.transport)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionResetError):
            await writer.drain()


async def test_a_reset_wakes_who_waits_in_drain(stack: Stack) -> None:
    async with stack.streams() as (_, writer, _, server_writer):
        writer.write(bytes(1 << 24))
        drained = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0.01)
        stack.reset(server_writer.transport)
        with pytest.raises(ConnectionError):
            await drained


async def test_drain_after_close(stack: Stack) -> None:
    async with stack.streams() as (_, writer, _, _):
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()


def default_limits(stack: Stack) -> tuple[int, int]:
    return (16 if not stack.is_utcp and on_uvloop() else 16384, 65536)  # uvloop takes its low mark for KiB
