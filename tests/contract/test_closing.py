"""Ends: half-close, close, abort, and what may still be written."""

from __future__ import annotations

import asyncio

import pytest

from contract.stacks import Stack, on_uvloop


@pytest.mark.parametrize("who", ["client", "server"])
async def test_half_close_leaves_the_other_direction(stack: Stack, who: str) -> None:
    async with stack.pair(client_keeps_open=True, server_keeps_open=True) as (client, server):
        first, second = (client, server) if who == "client" else (server, client)
        assert first.transport.can_write_eof()
        first.transport.write(b"question")
        first.transport.write_eof()
        first.transport.write_eof()
        await second.eof
        second.transport.write(b"an answer")
        assert await first.received(9) == b"an answer"
        second.transport.close()
        await first.eof
        first.transport.close()
        assert await first.lost is None
        assert await second.lost is None
        assert second.events == ["made", "data", "eof", "lost"]
        assert first.events == ["made", "data", "eof", "lost"]


async def test_eof_received_that_returns_false_closes(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        client.transport.write_eof()
        assert await server.lost is None
        assert server.events == ["made", "eof", "lost"]
        assert await client.lost is None


async def test_both_have_finished_and_nobody_has_closed(stack: Stack) -> None:
    """A transport that was told to stay open stays, until it is closed."""
    async with stack.pair(client_keeps_open=True, server_keeps_open=True) as (client, server):
        client.transport.write_eof()
        await server.eof
        server.transport.write_eof()
        await client.eof
        await asyncio.sleep(0.02)
        assert not client.lost.done() and not server.lost.done()
        assert not client.transport.is_closing()
        client.transport.close()
        server.transport.close()
        assert await client.lost is None
        assert await server.lost is None


async def test_write_after_eof(stack: Stack) -> None:
    async with stack.pair(server_keeps_open=True) as (client, _):
        client.transport.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            client.transport.write(b"x")


async def test_write_and_write_eof_after_close(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        client.transport.close()
        client.transport.write(b"dropped")
        if stack.is_utcp or not on_uvloop():  # whose transports raise RuntimeError
            client.transport.write_eof()
            assert await client.lost is None
            client.transport.write(b"dropped")
        await server.lost
        assert server.data == b""


@pytest.mark.parametrize("data", ["text", 5, ["list"]])
async def test_writing_what_is_no_bytes(stack: Stack, data: object) -> None:
    async with stack.pair() as (client, _):
        with pytest.raises(TypeError):
            client.transport.write(data)
        assert not client.transport.is_closing()


async def test_writelines(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        client.transport.writelines([b"one", bytearray(b"two"), memoryview(b"three")])
        client.transport.writelines(chunk for chunk in (b"four", b""))
        client.transport.writelines([])
        assert await server.received(15) == b"onetwothreefour"


async def test_a_buffer_may_be_used_again_after_write(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        server.transport.pause_reading()
        buffer = bytearray(1000)
        for number in range(256):
            buffer[:] = bytes([number]) * 1000
            client.transport.write(buffer)
            await asyncio.sleep(0)  # uvloop keeps the buffer until the turn's end
        server.transport.resume_reading()
        assert await server.received(256_000) == b"".join(bytes([number]) * 1000 for number in range(256))


async def test_close_sends_what_was_written(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        client.transport.write(bytes(3_000_000))
        client.transport.close()
        assert client.transport.is_closing()
        assert await client.lost is None
        assert await server.lost is None
        assert len(server.data) == 3_000_000


async def test_abort(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        client.transport.abort()
        assert client.transport.is_closing()
        assert await client.lost is None
        error = await server.lost
        if stack.is_utcp:
            assert isinstance(error, ConnectionResetError)  # RFC 9293 3.10.5
        else:
            assert error is None  # the kernel sends a FIN


async def test_abort_right_behind_a_write(stack: Stack) -> None:
    """asyncio promises nothing ("buffered data will be lost"); but a kernel has it by then, and a FIN behind it."""
    async with stack.pair() as (client, server):
        client.transport.write(b"late")
        client.transport.abort()
        assert await client.lost is None
        error = await server.lost
        assert isinstance(error, ConnectionResetError) == stack.is_utcp
        assert server.data == (b"" if stack.is_utcp else b"late")  # RFC 9293 3.10.5: what is queued is discarded


async def test_abort_a_turn_after_a_write(stack: Stack) -> None:
    """What has left by then arrives."""
    async with stack.pair() as (client, server):
        client.transport.write(b"sent")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        client.transport.abort()
        assert await client.lost is None
        await server.lost
        assert server.data == b"sent"


async def test_a_reset_by_the_peer(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        stack.reset(client.transport)
        assert isinstance(await server.lost, ConnectionResetError)
        assert server.events == ["made", "lost"]
        assert server.transport.is_closing()
