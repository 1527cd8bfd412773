"""Streams over utcp: asyncio's interface, with half-close and with data before errors."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, Accepted, serving, serving_streams
from support.patience import until


async def echo(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_echo_and_half_close() -> None:
    async with serving_streams(echo) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        assert isinstance(reader, asyncio.StreamReader)
        assert isinstance(writer, asyncio.StreamWriter)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.write(b"and goodbye")
        writer.write_eof()
        assert await reader.read() == b"and goodbye"
        assert reader.at_eof()
        writer.close()
        await writer.wait_closed()
        assert (await writer.transport.closed()).reason == "graceful"


async def test_answer_after_the_request_s_end() -> None:
    """`echo foo | nc`: the end of the request is no reason to drop the answer."""

    async def handler(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        request = await reader.read()
        for _ in range(10):
            writer.write(hashlib.sha256(request).digest() * 1000)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with serving_streams(handler) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        writer.write(b"foo")
        writer.write_eof()
        assert await reader.read() == hashlib.sha256(b"foo").digest() * 10_000
        writer.close()


@pytest.mark.parametrize("size", [3_000_000])
async def test_large_transfers_both_ways(size: int) -> None:
    data = bytes(range(256)) * (size // 256)
    async with serving_streams(echo) as port:
        reader, writer = await utcp.open_connection(HOST, port)

        async def send() -> None:
            for start in range(0, len(data), 100_000):
                writer.write(data[start : start + 100_000])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        received = await reader.read()
        await sending
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
        writer.close()
        await writer.wait_closed()


async def test_a_slow_reader_stops_the_writer() -> None:
    written = 0
    stopped = asyncio.Event()

    async def handler(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        nonlocal written
        try:
            while True:
                writer.write(b"x" * 65536)
                written += 65536
                await asyncio.wait_for(writer.drain(), 0.3)
        except TimeoutError:
            stopped.set()
        writer.close()

    async with serving_streams(handler, config=utcp.Config(receive_buffer=100_000)) as port:
        reader, writer = await utcp.open_connection(HOST, port, config=utcp.Config(receive_buffer=100_000))
        await stopped.wait()
        assert written < 1_000_000
        assert len(await reader.read()) == written
        writer.close()


async def test_data_before_a_reset_is_read_first() -> None:
    async def handler(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        writer.write(b"0123456789" * 10)
        await writer.transport.drained()
        writer.transport.abort()

    async with serving_streams(handler) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
        assert await reader.read(50) == b"0123456789" * 5
        assert await reader.readexactly(10) == b"0123456789"
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1000)
        with pytest.raises(ConnectionResetError):
            await reader.readline()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert await reader.read(1000) == b"0123456789" * 4
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        with pytest.raises(ConnectionResetError):
            await writer.drain()


async def test_a_reset_wakes_a_reader_that_waits() -> None:
    async def handler(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        writer.write(b"abc")
        await reader.readexactly(1)
        writer.transport.abort()

    async with serving_streams(handler) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(10)
        assert await reader.read(10) == b"abc"


async def test_data_that_a_paused_reader_had_not_taken() -> None:
    """The buffer is over its limit, reading is paused, more has arrived, then RST: all of it can be read."""

    async def handler(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        writer.write(bytes(300_000))
        await writer.transport.drained()
        writer.transport.abort()

    async with serving_streams(handler) as port:
        reader, writer = await utcp.open_connection(HOST, port, limit=1000)
        assert len(await reader.readexactly(300_000)) == 300_000
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


async def test_reading_after_eof_is_eof_even_after_an_error() -> None:
    async def handler(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        writer.write_eof()
        await reader.read(1)
        writer.transport.abort()

    async with serving_streams(handler) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        assert await reader.read() == b""
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
        assert await reader.read() == b""
        assert reader.at_eof()


async def test_an_exception_in_the_handler() -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))

    async def handler(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        raise ZeroDivisionError

    async with serving_streams(handler) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert problems[0]["message"] == "Unhandled exception in client_connected_cb"


async def test_cancelled_handler_closes() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def handler(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await reader.read()

    async with serving_streams(handler) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        await until(lambda: bool(tasks))
        tasks[0].cancel()
        assert await reader.read() == b""
        writer.close()


async def test_a_plain_callback_may_take_the_streams() -> None:
    taken: asyncio.Future[tuple[utcp.StreamReader, utcp.StreamWriter]] = asyncio.get_running_loop().create_future()

    async with serving_streams(lambda reader, writer: taken.set_result((reader, writer))) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        _, theirs = await taken
        assert isinstance(theirs, utcp.StreamWriter)
        theirs.write(b"hello")
        theirs.close()
        assert await reader.read() == b"hello"
        writer.close()


async def test_there_is_nothing_to_wait_for_once_the_peer_has_everything() -> None:
    """The peer closed after us: when we close, its TCP has all that we wrote, and our FIN."""
    async with serving_streams(echo) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
        waiting = writer.wait_closed()
        with pytest.raises(StopIteration):
            waiting.send(None)
        assert (await writer.transport.closed()).reason == "graceful"


async def test_waiting_for_the_end_does_not_end_before_the_peer_has_everything() -> None:
    async with serving_streams(echo) as port:
        _, writer = await utcp.open_connection(HOST, port)
        writer.write(b"hello")
        writer.close()
        waiting = asyncio.ensure_future(writer.wait_closed())
        await asyncio.sleep(0)
        assert not waiting.done()
        await waiting
        assert writer.transport._channel.conn.fin_acked


async def test_writers_that_gave_up_waiting_are_forgotten() -> None:
    config = utcp.Config(receive_buffer=10_000)
    held: list[utcp.StreamWriter] = []
    async with serving_streams(lambda _, theirs: held.append(theirs), config=config) as port:
        _, writer = await utcp.open_connection(HOST, port)
        writer.write(bytes(1_000_000))
        for _ in range(10):
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0)
            assert not draining.done()
            draining.cancel()
            await asyncio.wait([draining])
        assert len(writer._protocol._drain_waiters or ()) == 1
        draining = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0)
        await until(lambda: bool(held))
        held[0].transport.abort()
        with pytest.raises(ConnectionResetError):
            await draining


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_makes_no_sense(limit: int) -> None:
    with pytest.raises(ValueError, match="Limit cannot be <= 0"):
        utcp.StreamReader(limit)


async def test_a_writer_that_nobody_holds_any_more_is_closed_with_a_warning() -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        writer.write(b"last words")
        with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
            del writer
        del reader
        server = await accepted.get()
        assert await server.lost is None
        assert server.data == b"last words"
