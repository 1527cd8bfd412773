"""The table of docs/closing.md: what ended a connection, and what each call says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

import pytest

import utcp
from aio.protocols import HOST
from support.patience import until

State = utcp.State
NOTHING: Final = "returns"
WAITS: Final = 0.2  # seconds after which a call counts as waiting

# cause -> what came first, a further read, write, drain, drained, wait_closed
TABLE: Final = {
    "peer's FIN": (b"before", b"", NOTHING, NOTHING, NOTHING, "waits"),
    "our write_eof": (b"before", "waits", "RuntimeError", NOTHING, NOTHING, "waits"),
    "our close": (b"before", b"", NOTHING, "ConnectionResetError", NOTHING, NOTHING),
    "our abort": (b"before", b"", NOTHING, "ConnectionResetError", NOTHING, NOTHING),
    "our abort, and a loss": (b"before", b"", NOTHING, "ConnectionResetError", "ConnectionAbortedError", NOTHING),
    "peer's RST": (b"before", "ConnectionResetError", NOTHING, "ConnectionResetError", NOTHING, "ConnectionResetError"),
    "peer's RST, and a loss": (b"before", "ConnectionResetError", NOTHING, *["ConnectionResetError"] * 3),
    "time-out": (b"before", "TimeoutError", NOTHING, "TimeoutError", "TimeoutError", "TimeoutError"),
}


# What our end comes to by that; by the others to CLOSED
AFTERWARDS: Final = {
    "peer's FIN": (State.CLOSE_WAIT,),
    "our write_eof": (State.FIN_WAIT_2,),
    "our close": (State.FIN_WAIT_2, State.TIME_WAIT),
}


async def outcome(call: Awaitable[Any]) -> Any:
    """What a call returned, the name of what it raised, or that it waits."""
    task = asyncio.ensure_future(call)
    done, _ = await asyncio.wait([task], timeout=WAITS)
    if not done:
        task.cancel()
        return "waits"
    error = task.exception()
    if error is not None:
        return type(error).__name__
    return NOTHING if task.result() is None else task.result()


@pytest.mark.parametrize("cause", TABLE)
async def test_who_hears_what(cause: str) -> None:
    accepted: asyncio.Queue[tuple[utcp.StreamReader, utcp.StreamWriter]] = asyncio.Queue()
    endpoint = await utcp.Endpoint.create((HOST, 0))
    await utcp.start_server(lambda *streams: accepted.put_nowait(streams), endpoint=endpoint)
    config = utcp.Config(user_timeout=0.3 if cause == "time-out" else None)
    reader, writer = await utcp.open_connection(HOST, endpoint.local_addr[1], config=config)
    _, peer = await accepted.get()
    peer.write(b"before")
    await peer.transport.drained()
    if "loss" in cause:
        peer.transport.pause_reading()
        writer.write(bytes(8_000_000))
    if cause == "peer's FIN":
        peer.write_eof()
    elif cause == "our write_eof":
        writer.write_eof()
    elif cause == "our close":
        writer.close()
    elif cause.startswith("our abort"):
        writer.transport.abort()
    elif cause.startswith("peer's RST"):
        peer.transport.abort()
    else:
        endpoint.abandon()  # its socket is gone, and nobody says so
        writer.write(b"anybody?")
        await writer.transport.closed()
    await until(lambda: writer.transport.state in AFTERWARDS.get(cause, (State.CLOSED,)))

    first, *rest = TABLE[cause]
    assert await reader.read(100) == first
    found = [await outcome(reader.read(100))]
    try:
        writer.write(b"more")
        found.append(NOTHING)
    except RuntimeError as error:
        found.append(type(error).__name__)
    found += [await outcome(call) for call in (writer.drain(), writer.transport.drained(), writer.wait_closed())]
    assert found == rest
    for one in (writer, peer):
        one.close()
        one.transport.abort()
    endpoint.abort()


async def test_the_first_cause_wins() -> None:
    accepted: asyncio.Queue[tuple[utcp.StreamReader, utcp.StreamWriter]] = asyncio.Queue()
    async with await utcp.start_server(lambda *streams: accepted.put_nowait(streams), HOST, 0) as server:
        _, writer = await utcp.open_connection(HOST, server.sockets[0].getsockname()[1])
        _, peer = await accepted.get()
        peer.transport.abort()
        first = await writer.transport.closed()
        assert first.reason == "reset-by-peer"
        writer.transport.abort()
        writer.close()
        assert await writer.transport.closed() == first
        for _ in range(2):
            with pytest.raises(ConnectionResetError) as caught:
                await writer.wait_closed()
            assert caught.value is first.error


async def test_a_reset_after_the_end_of_file_is_still_reported() -> None:
    accepted: asyncio.Queue[tuple[utcp.StreamReader, utcp.StreamWriter]] = asyncio.Queue()
    async with await utcp.start_server(lambda *streams: accepted.put_nowait(streams), HOST, 0) as server:
        reader, writer = await utcp.open_connection(HOST, server.sockets[0].getsockname()[1])
        _, peer = await accepted.get()
        peer.write_eof()
        assert await reader.read() == b""
        peer.transport.abort()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
        with pytest.raises(ConnectionResetError):
            await writer.drain()
