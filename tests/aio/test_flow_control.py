"""Watermarks on the writing side, pause and resume on the reading side."""

from __future__ import annotations

import asyncio

import pytest

import utcp
from aio.protocols import HOST, Accepted, pair, serving, transport_of
from support.patience import until

SMALL = utcp.Config(receive_buffer=100_000)


async def test_pause_and_resume_writing() -> None:
    async with pair(config=SMALL) as (client, server):
        transport = transport_of(client)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport_of(server).pause_reading()
        while "pause" not in client.events:
            transport.write(bytes(60_000))
            await asyncio.sleep(0.001)
        assert transport.get_write_buffer_size() > 65536
        transport_of(server).resume_reading()
        await transport.drained()
        assert client.events.count("resume") == client.events.count("pause") >= 1
        assert client.events[-1] == "resume"
        assert transport.get_write_buffer_size() == 0


async def test_a_write_that_goes_out_at_once_does_not_pause() -> None:
    async with pair() as (client, _):
        transport = transport_of(client)
        transport.write(b"warm up")
        await transport.drained()
        transport.write(bytes(65_000))
        assert "pause" not in client.events


async def test_limit_zero_pauses_until_everything_is_acknowledged() -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        transport.set_write_buffer_limits(0)
        assert transport.get_write_buffer_limits() == (0, 0)
        for _ in range(3):
            transport.write(b"x")
            assert client.events[-1] == "pause"
            assert transport.get_write_buffer_size() == 1
            await until(lambda: client.events[-1] == "resume")
            assert transport.get_write_buffer_size() == 0
        assert bytes(server.data) == b"xxx"


async def test_limits_that_make_no_sense() -> None:
    async with pair() as (client, _):
        with pytest.raises(ValueError, match="must be >="):
            transport_of(client).set_write_buffer_limits(high=1, low=2)
        with pytest.raises(ValueError, match="must be >="):
            transport_of(client).set_write_buffer_limits(high=-1)
        transport_of(client).set_write_buffer_limits(high=1 << 40)
        assert transport_of(client).get_write_buffer_limits() == (1 << 38, 1 << 40)


async def test_pause_and_resume_reading() -> None:
    async with pair() as (client, server):
        transport = transport_of(server)
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport_of(client).write(b"while paused")
        await transport_of(client).drained()
        assert server.events == ["made"]
        transport.resume_reading()
        transport.resume_reading()
        assert await server.received(12) == b"while paused"


async def test_eof_waits_while_reading_is_paused() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        transport_of(server).pause_reading()
        transport_of(client).write(b"data")
        transport_of(client).close()
        await client.lost
        assert server.events == ["made"]
        transport_of(server).resume_reading()
        await server.eof
        assert server.events == ["made", "data", "eof"]
        transport_of(server).close()
        assert await server.lost is None


async def test_pausing_from_inside_data_received() -> None:
    async with pair() as (client, server):
        seen: list[int] = []
        original = server.data_received

        def data_received(data: bytes) -> None:
            original(data)
            seen.append(len(data))
            transport_of(server).pause_reading()

        server.data_received = data_received  # type: ignore[method-assign]
        transport_of(client).write(bytes(900_000))
        while len(server.data) < 900_000:
            transport_of(server).resume_reading()
            await asyncio.sleep(0.001)
        assert max(seen) <= 256 * 1024


async def test_a_closed_window_lets_small_answers_through() -> None:
    """A peer that reads nothing still acknowledges, and still may write."""
    accepted = Accepted()
    async with serving(accepted, config=SMALL) as port:
        transport, client = await utcp.create_connection(accepted._factory, HOST, port)
        server = await accepted.get()
        transport_of(server).pause_reading()
        transport.write(bytes(500_000))
        await asyncio.sleep(0.05)
        for _ in range(5):
            size = len(client.data)
            transport_of(server).write(b"answer")
            await client.received(size + 6)
        transport_of(server).resume_reading()
        await server.received(500_000)
        transport.abort()
