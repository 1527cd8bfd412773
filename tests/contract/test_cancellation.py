"""Cancelling at every await: nothing else happens, nothing is lost, nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

import utcp
from contract.stacks import HOST, UTCP, Stack, deaf, on_uvloop, port_of
from support.names import resolve_to
from support.patience import PATIENCE, until
from support.ports import free_port
from support.recorder import Accepted, Recorder


@asynccontextmanager
async def nothing_left_behind(stack: Stack) -> AsyncIterator[None]:
    """Checks that every connection and task that begins in this block ends, and that the loop hears of no error."""
    reports: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context))
    tasks = len(asyncio.all_tasks())
    yield
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    if stack.is_utcp:
        await until(lambda: live_connections() == 0)
    gc.collect()
    assert reports == []


def live_connections() -> int:
    """utcp's, in this loop; what remains in FIN-WAIT-2 or TIME-WAIT is nobody's."""
    from utcp.aio.loops import endpoints_of

    endpoints = endpoints_of(asyncio.get_running_loop()).endpoints
    return sum(conn.context is not None for one in endpoints for conn in one.engine.connections())


async def cancel(coroutine: Coroutine[Any, Any, Any], turns: int = 1) -> asyncio.Task[Any]:
    """Run it as a task for some turns of the loop, then cancel it and wait for it."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE)
    assert task.done()
    return task


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("call", ["create_connection", "open_connection"])
async def test_connecting(stack: Stack, call: str, turns: int) -> None:
    """In whichever turn: the connection is made, or it is not; and the peer sees the end of what was begun."""
    accepted = Accepted()
    async with stack.serving(accepted) as port, nothing_left_behind(stack):
        if call == "create_connection":
            task = await cancel(stack.create_connection(Recorder, HOST, port), turns)
        else:
            task = await cancel(stack.open_connection(HOST, port), turns)
        if not task.cancelled():
            (task.result()[0] if call == "create_connection" else task.result()[1]).close()
        transport, client = await stack.create_connection(Recorder, HOST, port)
        transport.close()
        await client.lost
        await until(lambda: all(one.lost.done() for one in accepted.made))


async def test_connecting_to_nobody_who_answers(stack: Stack) -> None:
    made: list[Recorder] = []

    def factory() -> Recorder:
        made.append(Recorder())
        return made[-1]

    async with nothing_left_behind(stack):
        with deaf(stack) as port:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await stack.create_connection(factory, HOST, port)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stack.open_connection(HOST, port), 0.05)
        if stack.is_utcp or not on_uvloop():  # which makes the protocol first
            assert made == []


async def test_happy_eyeballs(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_uvloop() and not stack.is_utcp:
        pytest.skip("uvloop knows nothing of happy eyeballs")
    async with stack.serving(Recorder) as port, nothing_left_behind(stack):
        resolve_to(monkeypatch, ["127.0.0.2", "127.0.0.3", HOST], port)
        for turns in range(12):
            task = await cancel(stack.create_connection(Recorder, "many.example", port, happy_eyeballs_delay=0), turns)
            if not task.cancelled():
                task.result()[0].close()


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("call", ["create_server", "start_server"])
async def test_starting_a_server(stack: Stack, call: str, turns: int) -> None:
    """It serves or it does not; either way its port is free afterwards."""
    port = free_port(stack.socket_type)
    async with nothing_left_behind(stack):
        for _ in range(3):
            if call == "create_server":
                task = await cancel(stack.create_server(Recorder, HOST, port), turns)
            else:
                task = await cancel(stack.start_server(lambda *_: None, HOST, port), turns)
            if not task.cancelled():
                task.result().close()
                await task.result().wait_closed()
            elif not stack.is_utcp:
                gc.collect()  # asyncio leaves its socket to the garbage collector


async def test_resolving_the_name_of_a_server(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_uvloop() and not stack.is_utcp:
        pytest.skip("uvloop resolves names where no test can reach")
    asked = asyncio.Event()

    async def getaddrinfo(*args: Any, **kwargs: Any) -> list[Any]:
        asked.set()
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with nothing_left_behind(stack):
        for coroutine in (
            stack.create_server(Recorder, "slow.example", 0),
            stack.create_connection(Recorder, "slow.example", 9),
        ):
            asked.clear()
            task = asyncio.ensure_future(coroutine)
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_drain(stack: Stack) -> None:
    async with stack.streams() as (_, writer, server_reader, _):
        size = 1 << 24
        writer.write(bytes(size))
        task = await cancel(writer.drain())
        assert task.cancelled()
        assert not writer.is_closing()
        writer.write(b"end")
        assert await server_reader.readexactly(size + 3) == bytes(size) + b"end"
        await writer.drain()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [("read", (10,)), ("read", ()), ("readline", ()), ("readuntil", (b"!",)), ("readexactly", (10,))],
)
@pytest.mark.parametrize("turns", range(3))
async def test_reading(stack: Stack, call: str, arguments: tuple[Any, ...], turns: int) -> None:
    """What has arrived stays to be read; ``read()`` and ``readexactly`` keep a part of it in the buffer too."""
    async with stack.streams() as (_, writer, reader, _):
        task = await cancel(getattr(reader, call)(*arguments), turns)
        assert task.cancelled()
        writer.write(b"all ")
        task = asyncio.ensure_future(reader.readexactly(10))
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        writer.write(b"of it\n")
        assert await reader.readline() == b"all of it\n"


@pytest.mark.parametrize("turns", range(3))
async def test_wait_closed_of_a_writer(stack: Stack, turns: int) -> None:
    async with stack.streams() as (_, writer, reader, _):
        writer.write(b"bye")
        writer.close()
        task = await cancel(writer.wait_closed(), turns)
        assert await reader.read() == b"bye"
        if turns > 0 and task.cancelled() and not stack.is_utcp:
            with pytest.raises(asyncio.CancelledError):  # whoever waits later pays for it
                await writer.wait_closed()
        else:
            await writer.wait_closed()


async def test_one_of_several_in_wait_closed(stack: Stack) -> None:
    async with stack.streams() as (_, writer, _, _):
        waiting = [asyncio.ensure_future(writer.wait_closed()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        writer.close()
        await asyncio.wait(waiting, timeout=PATIENCE)
        assert [one.cancelled() for one in waiting] == ([False, True, False] if stack.is_utcp else [True, True, True])


async def test_serve_forever(stack: Stack) -> None:
    accepted = Accepted()
    async with nothing_left_behind(stack):
        server = await stack.create_server(accepted, HOST, 0)
        transport, client = await stack.create_connection(Recorder, HOST, port_of(server))
        kept = await accepted.get()
        transport.close()
        await client.lost
        await kept.lost
        task = await cancel(server.serve_forever())
        assert task.cancelled()
        assert not server.is_serving()
        await server.wait_closed()


async def test_a_handler(stack: Stack) -> None:
    """A handler that is cancelled closes its connection, as one that ends with an exception does."""
    if not stack.is_utcp and sys.version_info < (3, 13):
        pytest.skip("before Python 3.13 asyncio left such a connection open")
    began: asyncio.Future[asyncio.Task[Any] | None] = asyncio.get_running_loop().create_future()

    async def handle(reader: Any, writer: Any) -> None:
        began.set_result(asyncio.current_task())
        await asyncio.sleep(60)

    async with nothing_left_behind(stack), await stack.start_server(handle, HOST, 0) as server:
        reader, writer = await stack.open_connection(HOST, port_of(server))
        task = await began
        assert task is not None
        task.cancel()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("call", ["drained", "closed"])
async def test_what_only_utcp_has(call: str) -> None:
    async with nothing_left_behind(UTCP), UTCP.pair() as (client, server):
        assert isinstance(client.transport, utcp.Transport)
        server.transport.pause_reading()
        client.transport.write(bytes(1 << 22))
        task = await cancel(getattr(client.transport, call)())
        assert task.cancelled()
        assert not client.transport.is_closing()
        server.transport.resume_reading()
        await client.transport.drained()
        assert len(await server.received(1 << 22)) == 1 << 22
        client.transport.close()
        assert (await client.transport.closed()).reason == "graceful"
