"""Streams: what readers raise at the end, and what cancelling does."""

from __future__ import annotations

import asyncio

import pytest

from contract.stacks import Stack


async def test_readexactly_and_readuntil_at_eof(stack: Stack) -> None:
    async with stack.streams() as (_, writer, reader, _):
        writer.write(b"line\nrest")
        writer.write_eof()
        assert await reader.readuntil() == b"line\n"
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(5)
        assert caught.value.partial == b"rest"
        assert reader.at_eof()
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readuntil()


async def test_data_before_a_reset(stack: Stack) -> None:
    async with stack.streams() as (_, writer, reader, _):
        writer.write(b"last words")
        assert await reader.readexactly(5) == b"last "
        stack.reset(writer.transport)
        await asyncio.sleep(0.02)
        if stack.is_utcp:
            assert await reader.read(100) == b"words"
        with pytest.raises(ConnectionResetError):
            await reader.read(100)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)


@pytest.mark.parametrize("call", ["read", "readline", "readuntil", "readexactly"])
async def test_cancelling_a_reader_loses_nothing(stack: Stack, call: str) -> None:
    async with stack.streams() as (_, writer, reader, _):
        read = getattr(reader, call)
        waiting = asyncio.ensure_future(read(10) if call in ("read", "readexactly") else read())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        writer.write(b"all of it\n")
        assert await reader.readline() == b"all of it\n"


async def test_a_timeout_leaves_the_connection(stack: Stack) -> None:
    async with stack.streams() as (_, writer, reader, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await reader.readexactly(3)
        writer.write(b"yes")
        assert await reader.readexactly(3) == b"yes"


async def test_cancelling_wait_closed_leaves_the_close(stack: Stack) -> None:
    async with stack.streams() as (_, writer, reader, _):
        writer.write(b"bye")
        writer.close()
        assert writer.is_closing()
        waiting = asyncio.ensure_future(asyncio.shield(writer.wait_closed()))
        waiting.cancel()
        assert await reader.read() == b"bye"
        await writer.wait_closed()
