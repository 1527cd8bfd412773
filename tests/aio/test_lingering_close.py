"""lingering_close: a peer that is still sending gets to read what we wrote (RFC 9112 9.6)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, pair, transport_of

State = utcp.State


async def test_the_peer_reads_the_answer_though_it_is_still_sending() -> None:
    """What a plain close would lose: the answer to a request refused in the middle."""
    async with pair(client_keeps_open=True, server_keeps_open=True) as (client, server):
        transport_of(client).write(b"a request of many bytes, and ...")
        await server.received(10)
        transport_of(server).write(b"too large")
        lingering = asyncio.ensure_future(transport_of(server).lingering_close(5))
        await client.eof
        assert transport_of(server).is_closing()
        for _ in range(10):
            transport_of(client).write(bytes(100_000))
            await transport_of(client).drained()
        assert not lingering.done()
        transport_of(client).close()
        info = await lingering
        assert (info.reason, info.by_peer, info.error) == ("graceful", False, None)
        assert (info.unacked_bytes, info.unread_bytes) == (0, 1_000_000)
        assert await client.lost is None
        assert await server.lost is None
        assert bytes(client.data) == b"too large"
        assert server.events == ["made", "data", "lost"]


async def test_it_ends_with_the_peer_s_fin_long_before_its_time() -> None:
    async with pair() as (client, server):  # the server closes on end of file
        async with asyncio.timeout(5):
            info = await transport_of(client).lingering_close(3600)
        assert info.reason == "graceful"
        assert list(info.seconds_in) == [State.FIN_WAIT_1, State.FIN_WAIT_2]
        assert await server.lost is None


async def test_a_peer_that_never_closes_is_reset_when_the_time_is_over() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        info = await transport_of(client).lingering_close(0.2)
        assert (info.reason, info.error) == ("linger-expired", None)
        assert 0.2 <= sum(info.seconds_in.values()) < 5
        assert await client.lost is None  # our FIN was acknowledged
        await server.eof
        assert isinstance(await server.lost, ConnectionResetError)


async def test_a_reader_that_never_reads_costs_no_more_than_the_time() -> None:
    async with pair() as (client, server):
        transport_of(server).pause_reading()
        transport_of(client).write(bytes(8_000_000))
        info = await transport_of(client).lingering_close(0.2)
        assert info.reason == "linger-expired"
        assert info.unacked_bytes > 0
        error = await client.lost
        assert isinstance(error, ConnectionAbortedError)
        assert f"{info.unacked_bytes} bytes unacknowledged" in str(error)


async def test_what_lies_unread_in_a_paused_transport_is_no_reset() -> None:
    async with pair() as (client, server):
        transport_of(client).pause_reading()
        transport_of(server).write(b"never read")
        await transport_of(server).drained()
        info = await transport_of(client).lingering_close(5)
        assert (info.reason, info.unread_bytes) == ("graceful", 10)
        assert await server.lost is None


async def test_cancelling_leaves_it_to_go_on() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        lingering = asyncio.ensure_future(transport_of(client).lingering_close(5))
        await server.eof
        lingering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lingering
        transport_of(server).write(b"late")  # a plain close would answer with a RST
        await transport_of(server).drained()
        transport_of(server).close()
        info = await transport_of(client).closed()
        assert (info.reason, info.unread_bytes) == ("graceful", 4)
        assert await server.lost is None


async def test_a_cancelled_one_keeps_to_its_time() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(transport_of(client).lingering_close(0.4), 0.05)
        info = await transport_of(client).closed()
        assert info.reason == "linger-expired"
        assert sum(info.seconds_in.values()) >= 0.4
        assert isinstance(await server.lost, ConnectionResetError)


async def test_dropping_every_reference_too() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        lingering = asyncio.ensure_future(transport_of(client).lingering_close(0.2))
        await client.lost
        lingering.cancel()
        del client, lingering
        assert isinstance(await server.lost, ConnectionResetError)


async def test_abort_cuts_it_short() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        lingering = asyncio.ensure_future(transport_of(client).lingering_close(3600))
        assert await client.lost is None  # the FIN is acknowledged: only the lingering is left
        assert not lingering.done()
        transport_of(client).abort()
        assert (await lingering).reason == "aborted"
        assert isinstance(await server.lost, ConnectionResetError)
        assert client.events.count("lost") == 1


async def test_twice_and_after_close_it_waits_for_the_end() -> None:
    async with pair() as (client, server):
        first, second = await asyncio.gather(
            transport_of(client).lingering_close(5), transport_of(client).lingering_close(7)
        )
        assert first == second
        assert await transport_of(client).lingering_close(9) == first
        await server.lost
    async with pair(server_keeps_open=True) as (client, server):
        transport_of(client).close()
        lingering = asyncio.ensure_future(transport_of(client).lingering_close(5))
        await server.eof
        transport_of(server).write(b"too late")
        assert (await lingering).reason == "unread-data"


async def test_writes_after_it_are_those_after_close() -> None:
    async with pair() as (client, server):
        lingering = asyncio.ensure_future(transport_of(client).lingering_close(5))
        await asyncio.sleep(0)
        transport_of(client).write(b"dropped")
        transport_of(client).write_eof()
        transport_of(client).close()
        await lingering
        await server.lost
        assert server.data == b""


@pytest.mark.parametrize(
    ("timeout", "error", "complaint"),
    [
        (None, TypeError, "timeout: None is not a float"),
        ("5", TypeError, "timeout: '5' is not a float"),
        (True, TypeError, "timeout: True is not a float"),
        (-1, ValueError, r"timeout: -1 is not in \[0, 86400\] \(seconds\)"),
        (float("nan"), ValueError, "timeout: nan is not in"),
        (float("inf"), ValueError, "timeout: inf is not in"),
    ],
)
async def test_a_timeout_that_is_none(timeout: Any, error: type[Exception], complaint: str) -> None:
    async with pair() as (client, _):
        with pytest.raises(error, match=complaint):
            await transport_of(client).lingering_close(timeout)
        assert not transport_of(client).is_closing()


async def test_on_a_stream_writer() -> None:
    ends: asyncio.Queue[utcp.CloseInfo] = asyncio.Queue()

    async def refuse(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"no")
        ends.put_nowait(await writer.lingering_close(5))
        await writer.wait_closed()

    async with await utcp.start_server(refuse, HOST, 0) as server:
        reader, writer = await utcp.open_connection(HOST, server.sockets[0].getsockname()[1])
        writer.write(b"x")
        assert await reader.read() == b"no"
        writer.write(bytes(100_000))
        writer.close()
        await writer.wait_closed()
        info = await ends.get()
        assert (info.reason, info.unread_bytes) == ("graceful", 100_000)
