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


async def test_a_timeout_leaves_the_connection(stack: Stack) -> None:
    async with stack.streams() as (_, writer, reader, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await reader.readexactly(3)
        writer.write(b"yes")
        assert await reader.readexactly(3) == b"yes"
