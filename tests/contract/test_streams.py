"""Streams: what readers raise at the end, and what cancelling does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from contract.stacks import Stack
from support.patience import until


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
    async with stack.streams() as (_, writer, reader, server_writer):
        writer.write(b"last words")
        assert await reader.readexactly(5) == b"last "
        stack.reset(writer.transport)
        if stack.is_utcp:
            await until(server_writer.is_closing)
            assert await reader.read(100) == b"words"
        else:
            await until(lambda: reader.exception() is not None)
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


@pytest.mark.parametrize(("call", "argument"), [("readexactly", 100), ("readuntil", b"!"), ("read", -1)])
async def test_asking_for_more_than_there_was_before_a_reset(stack: Stack, call: str, argument: Any) -> None:
    async with stack.streams() as (_, writer, reader, _):
        writer.write(b"last words")
        assert await reader.readexactly(5) == b"last "
        stack.reset(writer.transport)
        with pytest.raises(ConnectionResetError):
            await getattr(reader, call)(argument)
        if stack.is_utcp:
            assert await reader.read(100) == b"words"  # what there is stays to be read
        with pytest.raises(ConnectionResetError):
            await reader.read(1)


@pytest.mark.parametrize("call", ["read", "readline", "readuntil", "readexactly"])
async def test_a_reset_wakes_who_waits_for_data(stack: Stack, call: str) -> None:
    async with stack.streams() as (_, writer, reader, _):
        waiting = asyncio.ensure_future(getattr(reader, call)(*((10,) if call in ("read", "readexactly") else ())))
        await asyncio.sleep(0.005)
        stack.reset(writer.transport)
        with pytest.raises(ConnectionResetError):
            await waiting
        assert isinstance(reader.exception(), ConnectionResetError)


async def test_lines_to_the_end(stack: Stack) -> None:
    async with stack.streams() as (_, writer, reader, _):
        writer.writelines([b"one\n", bytearray(b"two\nthr"), memoryview(b"ee")])
        writer.write_eof()
        assert [line async for line in reader] == [b"one\n", b"two\n", b"three"]
        assert reader.at_eof()
        assert await reader.read() == await reader.readline() == b""


async def test_two_readers_at_once(stack: Stack) -> None:
    async with stack.streams() as (_, writer, reader, _):
        first = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="called while another coroutine is already waiting"):
            await reader.readline()
        writer.write(b"for one")
        assert await first == b"for one"


async def test_writing_after_eof_and_after_close(stack: Stack) -> None:
    async with stack.streams() as (_, writer, reader, _):
        assert writer.can_write_eof()
        writer.write(b"all")
        writer.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            writer.write(b"more")
        assert await reader.read() == b"all"
        writer.close()
        writer.close()
        assert writer.is_closing()
        await writer.wait_closed()


async def test_wait_closed_after_a_reset(stack: Stack) -> None:
    async with stack.streams() as (reader, writer, _, server_writer):
        stack.reset(server_writer.transport)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
