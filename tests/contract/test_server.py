"""Servers: listening, and its end."""

from __future__ import annotations

import asyncio

import pytest

from contract.stacks import HOST, Stack, on_uvloop, port_of
from support.recorder import Accepted, Recorder


async def test_a_server_s_life(stack: Stack) -> None:
    not_uvloop_s_own(stack)
    server = await stack.create_server(Recorder, HOST, 0, start_serving=False)
    assert not server.is_serving()
    assert server.get_loop() is asyncio.get_running_loop()
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    assert server.sockets[0].getsockname()[0] == HOST
    server.close()
    server.close()
    assert not server.is_serving()
    assert server.sockets == ()
    await server.wait_closed()


async def test_close_refuses_at_once_and_keeps_what_was_accepted(stack: Stack) -> None:
    accepted = Accepted()
    server = await stack.create_server(accepted, HOST, 0)
    port = port_of(server)
    transport, client = await stack.create_connection(Recorder, HOST, port)
    kept = await accepted.get()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        await stack.create_connection(Recorder, HOST, port)
    transport.write(b"still here")
    assert await kept.received(10) == b"still here"
    transport.close()
    assert await client.lost is None
    assert await kept.lost is None


async def test_serve_forever(stack: Stack) -> None:
    async with await stack.create_server(Recorder, HOST, 0) as server:
        forever = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already being awaited on serve_forever"):
            await server.serve_forever()
        forever.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forever
        assert not server.is_serving()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()


async def test_closing_ends_serve_forever(stack: Stack) -> None:
    not_uvloop_s_own(stack)
    server = await stack.create_server(Recorder, HOST, 0)
    forever = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await forever


def not_uvloop_s_own(stack: Stack) -> None:
    if on_uvloop() and not stack.is_utcp:
        pytest.skip("uvloop's Server differs from asyncio's here, so it is no oracle")
