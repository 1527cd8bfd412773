"""What users and peers do wrong: factories and callbacks that raise, wrong arguments, peers without manners."""

from __future__ import annotations

import array
import asyncio
import gc
import warnings
from typing import Any

import pytest

from contract.stacks import HOST, Stack, on_uvloop, port_of
from support.patience import PATIENCE, until
from support.recorder import Accepted, Recorder


class BadError(Exception):
    pass


@pytest.fixture
async def reports() -> list[dict[str, Any]]:
    """What the loop's exception handler hears."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    return heard


@pytest.mark.parametrize("error", [BadError("no protocol"), OSError(5, "of the factory's own"), KeyError("x")])
async def test_a_factory_that_raises_on_the_client(
    stack: Stack, reports: list[dict[str, Any]], error: Exception
) -> None:
    def factory() -> Recorder:
        raise error

    accepted = Accepted()
    async with stack.serving(accepted) as port:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # asyncio leaves its socket to the garbage collector
            with pytest.raises(type(error)) as caught:
                await stack.create_connection(factory, HOST, port)
            assert caught.value is error
            error.__traceback__ = None
            del caught
            gc.collect()
        if stack.is_utcp:  # a reset; most often before the server has accepted
            transport, client = await stack.create_connection(Recorder, HOST, port)
            transport.close()
            await client.lost
            assert all(isinstance(one.lost.result(), ConnectionResetError) for one in accepted.made[:-1])
        elif not on_uvloop():  # which makes the protocol first, and then does not connect
            assert await (await accepted.get()).lost is None
        assert reports == []


async def test_a_factory_that_raises_on_the_server(stack: Stack, reports: list[dict[str, Any]]) -> None:
    protocols = iter([BadError("not this time"), None])

    def factory() -> Recorder:
        if (error := next(protocols)) is not None:
            raise error
        return Recorder()

    if not stack.is_utcp:
        asyncio.get_running_loop().set_debug(True)  # asyncio says nothing without
    server = await stack.create_server(factory, HOST, 0)
    port = port_of(server)
    try:
        try:
            transport, client = await stack.create_connection(Recorder, HOST, port)
            if stack.is_utcp:
                assert isinstance(await client.lost, ConnectionResetError)
            transport.abort()
        except ConnectionResetError:
            assert stack.is_utcp  # the reset came before create_connection had returned
        await until(lambda: bool(reports))
        assert isinstance(reports[0]["exception"], BadError)
        if stack.is_utcp or not on_uvloop():
            assert reports[0]["message"] == "Error on transport creation for incoming connection"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # asyncio leaves the socket to the garbage collector
            reports[0]["exception"].__traceback__ = None
            gc.collect()
        transport, client = await stack.create_connection(Recorder, HOST, port)  # the server goes on
        transport.close()
        assert await client.lost is None
    finally:
        server.close()
        if stack.is_utcp:  # asyncio's waits for ever, for the connection that has no protocol
            await server.wait_closed()


async def test_connection_made_that_raises(stack: Stack, reports: list[dict[str, Any]]) -> None:
    """asyncio goes on with a protocol that has not begun; utcp ends its connection."""

    class Bad(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            raise BadError

    accepted = Accepted()
    async with stack.serving(accepted) as port:
        transport, client = await stack.create_connection(Bad, HOST, port)
        await until(lambda: bool(reports))
        assert isinstance(reports[0]["exception"], BadError)
        assert transport.is_closing() == stack.is_utcp
        if stack.is_utcp:  # the server gets a reset; most often before it has accepted
            assert isinstance(await client.lost, BadError)
            assert reports[0]["protocol"] is client and reports[0]["transport"] is transport
        else:
            server = await accepted.get()
            transport.write(b"as if nothing had happened")
            assert await server.received(26)
            transport.close()
            assert await server.lost is None
        await client.lost


async def test_connection_lost_that_raises(stack: Stack, reports: list[dict[str, Any]]) -> None:
    class Bad(Recorder):
        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            raise BadError

    async with stack.pair(client_factory=Bad) as (client, server):
        client.transport.close()
        assert await client.lost is None
        assert await server.lost is None
        await until(lambda: bool(reports))
        assert [type(report["exception"]) for report in reports] == [BadError]


@pytest.mark.parametrize("data", [None, "text", 5, ["list"], array.array("i", [1])])
@pytest.mark.parametrize("how", ["transport", "writer"])
async def test_writing_what_is_no_bytes(stack: Stack, how: str, data: object) -> None:
    if not stack.is_utcp and on_uvloop() and (data is None or isinstance(data, array.array)):
        pytest.skip("uvloop takes whatever is empty or has a buffer")
    async with stack.streams() as (_, writer, reader, _):
        target = writer if how == "writer" else writer.transport
        with pytest.raises(TypeError):
            target.write(data)
        if not isinstance(data, array.array):  # which bytes.join takes
            with pytest.raises(TypeError):
                target.writelines([b"one", data])
        assert not writer.is_closing()
        target.write(b"two")
        writer.write_eof()
        assert (await reader.read()).endswith(b"two")


async def test_a_buffer_of_wide_items(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        data = bytes(range(64))
        client.transport.write(memoryview(data).cast("I"))
        client.transport.write(memoryview(data))
        assert await server.received(128) == data + data


@pytest.mark.parametrize(
    ("call", "argument", "error"),
    [
        ("readexactly", -1, "readexactly size can not be less than zero"),
        ("readuntil", b"", "Separator should be at least one-byte string"),
    ],
)
async def test_reading_with_arguments_that_make_no_sense(stack: Stack, call: str, argument: Any, error: str) -> None:
    async with stack.streams() as (reader, _, _, _):
        with pytest.raises(ValueError, match=error):
            await getattr(reader, call)(argument)


@pytest.mark.parametrize("limit", [0, -5])
async def test_a_limit_that_makes_no_sense(stack: Stack, limit: int) -> None:
    accepted = Accepted()
    async with stack.serving(accepted) as port:
        with pytest.raises(ValueError, match="Limit cannot be <= 0"):
            await stack.open_connection(HOST, port, limit=limit)
        assert accepted.made == []


async def test_a_line_beyond_the_limit(stack: Stack) -> None:
    accepted = Accepted()
    async with stack.serving(accepted) as port:
        reader, writer = await stack.open_connection(HOST, port, limit=10)
        server = await accepted.get()
        server.transport.write(b"a line of more than ten\nshort\n")
        with pytest.raises(asyncio.LimitOverrunError, match="limit"):
            await reader.readuntil()
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()
        assert await reader.readline() == b"short\n"
        writer.close()
        await writer.wait_closed()


async def test_a_peer_that_never_reads(stack: Stack) -> None:
    """Writers are paused, memory is bounded, and an abort ends it at once."""
    async with stack.pair() as (client, server):
        server.transport.pause_reading()
        client.transport.write(bytes(1 << 24))  # more than any buffer in between
        await asyncio.sleep(0.1)
        before = client.transport.get_write_buffer_size()
        await asyncio.sleep(0.05)
        assert client.transport.get_write_buffer_size() <= before
        assert client.events == ["made", "pause"]
        client.transport.abort()
        async with asyncio.timeout(PATIENCE):
            assert await client.lost is None
        assert client.events[-1] == "lost"
        assert client.transport.get_write_buffer_size() == 0


async def test_a_peer_that_sends_after_our_close(stack: Stack) -> None:
    async with stack.pair(server_keeps_open=True) as (client, server):
        client.transport.close()
        await server.eof
        assert await client.lost is None
        async with asyncio.timeout(PATIENCE):
            while not server.lost.done():  # the kernel's hears of the RST when it writes again
                server.transport.write(b"have you heard?")
                await asyncio.sleep(0.02)
        error = await server.lost
        assert isinstance(error, (ConnectionResetError, BrokenPipeError))
        assert client.events == ["made", "lost"]


async def test_a_peer_that_says_nothing(stack: Stack) -> None:
    async with stack.streams() as (reader, writer, _, _):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.02)
        assert not writer.is_closing()


async def test_a_protocol_that_resets_itself_from_every_callback(stack: Stack, reports: list[dict[str, Any]]) -> None:
    class Harsh(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.abort()
            self.transport.write(b"dropped")
            self.transport.close()
            self.transport.abort()

    async with stack.serving(Harsh) as port:
        for _ in range(5):
            transport, client = await stack.create_connection(Recorder, HOST, port)
            transport.write(b"x")
            await client.lost
    assert reports == []
