"""Debug mode, warnings, and what the garbage collector finds."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from contextlib import nullcontext
from typing import Any

import pytest

from contract.stacks import HOST, Stack, on_uvloop, port_of
from support.patience import until
from support.recorder import Accepted, Recorder


async def test_a_life_in_debug_mode(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is complained of: no call from a wrong thread, no coroutine that nobody awaited."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 10
    with caplog.at_level(logging.WARNING):
        async with stack.streams() as (reader, writer, server_reader, server_writer):
            writer.write(b"question")
            writer.write_eof()
            assert await server_reader.read() == b"question"
            server_writer.write(b"answer")
            await server_writer.drain()
            server_writer.close()
            assert await reader.read() == b"answer"
            writer.close()
            await writer.wait_closed()
        gc.collect()
    assert [record.message for record in caplog.records] == []


async def test_streams_that_nobody_holds(stack: Stack) -> None:
    accepted = Accepted()
    async with stack.serving(accepted) as port:
        reader, writer = await stack.open_connection(HOST, port)
        server = await accepted.get()
        writer.write(b"last words")
        with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):  # noqa: PT031
            del reader, writer
            gc.collect()
        assert await server.lost is None
        assert bytes(server.data) == b"last words"


async def test_a_handler_that_forgets_to_close(stack: Stack) -> None:
    """The garbage collector closes its connection, as a client's; before Python 3.13 it lived on."""

    async def handle(reader: Any, writer: Any) -> None:
        writer.write(await reader.readline())

    collected = stack.is_utcp or sys.version_info >= (3, 13)
    async with await stack.start_server(handle, HOST, 0) as server:
        transport, client = await stack.create_connection(Recorder, HOST, port_of(server))
        with pytest.warns(ResourceWarning, match="unclosed <StreamWriter") if collected else nullcontext():
            transport.write(b"question\n")
            await client.received(9)
            gc.collect()
            await (client.lost if collected else asyncio.sleep(0.02))
        assert client.events == (["made", "data", "eof", "lost"] if collected else ["made", "data"])
        if not collected:
            stack.reset(transport)
        await client.lost


async def test_a_transport_that_nobody_holds_lives_with_its_connection(stack: Stack) -> None:
    class Quiet(asyncio.Protocol):
        data = b""

        def data_received(self, data: bytes) -> None:
            type(self).data += data

    accepted = Accepted()
    async with stack.serving(accepted) as port:
        transport, _ = await stack.create_connection(Quiet, HOST, port)
        server = await accepted.get()
        ref = None if on_uvloop() and not stack.is_utcp else weakref.ref(transport)
        del transport, _
        gc.collect()
        server.transport.write(b"still there?")
        await until(lambda: Quiet.data == b"still there?")
        assert server.events == ["made"]
        server.transport.close()
        assert await server.lost is None
        if ref is not None:
            await until(lambda: gc.collect() >= 0 and ref() is None)


async def test_a_protocol_is_let_go_of_with_its_connection(stack: Stack) -> None:
    async with stack.serving(Recorder) as port:
        transport, client = await stack.create_connection(Recorder, HOST, port)
        transport.close()
        await client.lost
        ref = weakref.ref(client)
        del client, transport
        await until(lambda: gc.collect() >= 0 and ref() is None)
