"""Urgent data between protocols: in line, and announced (RFC 9293 3.8.5, RFC 6093)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import utcp
from aio.protocols import HOST, Accepted, Echo, Recorder, pair, serving, transport_of


class Urgent(Recorder):
    """Keeps in ``amounts`` what it was told of urgent data, and in ``seen`` what it had by then."""

    def __init__(self) -> None:
        super().__init__()
        self.amounts: list[int] = []
        self.seen: list[bytes] = []
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def urgent_received(self, amount: int) -> None:
        self.amounts.append(amount)
        self.seen.append(bytes(self.data))
        if not self.told.done():
            self.told.set_result(None)


async def connected(port: int, factory: Callable[[], Recorder] = Recorder) -> tuple[utcp.Transport, Recorder]:
    transport, protocol = await utcp.create_connection(factory, HOST, port)
    assert isinstance(protocol, Recorder)
    return transport, protocol


async def test_urgent_data_is_announced_before_it_is_delivered_in_line() -> None:
    accepted = Accepted(Urgent)
    async with serving(accepted) as port:
        transport, _ = await connected(port)
        server = await accepted.get()
        assert isinstance(server, Urgent)
        transport.write(b"calm")
        assert await server.received(4) == b"calm"
        transport.write_urgent(b"now!")
        transport.write(b" and later")
        assert await server.received(18) == b"calmnow! and later"
        assert (server.amounts, server.seen) == ([4], [b"calm"])
        transport.abort()


async def test_both_ways_and_to_the_side_that_connected() -> None:
    accepted = Accepted(Urgent)
    async with serving(accepted) as port:
        _, client = await connected(port, Urgent)
        server = await accepted.get()
        transport_of(server).write_urgent(b"up")
        transport_of(client).write_urgent(b"down")
        assert (await client.received(2), await server.received(4)) == (b"up", b"down")
        assert isinstance(client, Urgent) and isinstance(server, Urgent)
        assert (client.amounts, server.amounts) == ([2], [4])
        transport_of(client).abort()


async def test_what_was_queued_before_is_hurried_too() -> None:
    """The amount says how far to read before the urgency is over (MUST-33)."""
    accepted = Accepted(Urgent)
    async with serving(accepted) as port:
        transport, _ = await connected(port)
        server = await accepted.get()
        transport.write(b"first")
        transport.write_urgent(b"!")
        await server.received(6)
        assert isinstance(server, Urgent) and server.amounts == [6]
        transport.abort()


async def test_a_paused_reader_is_told_at_once() -> None:
    """MUST-32; what it is told of stays where it is."""
    accepted = Accepted(Urgent)
    async with serving(accepted) as port:
        transport, _ = await connected(port)
        server = await accepted.get()
        assert isinstance(server, Urgent)
        transport_of(server).pause_reading()
        transport.write_urgent(b"wake up")
        await server.told
        assert (server.amounts, bytes(server.data)) == ([7], b"")
        transport_of(server).resume_reading()
        assert await server.received(7) == b"wake up"
        assert server.amounts == [7]
        transport.abort()


async def test_with_the_handshake() -> None:
    accepted = Accepted(Urgent)
    async with serving(accepted) as port, await utcp.Endpoint.create((HOST, 0)) as endpoint:
        transport = endpoint.connect(Recorder, (HOST, port))
        transport.write_urgent(b"!")
        server = await accepted.get()
        assert await server.received(1) == b"!"
        assert isinstance(server, Urgent) and server.amounts == [1]
        transport.abort()


async def test_a_protocol_that_does_not_care_just_gets_the_bytes() -> None:
    async with serving(Echo) as port:
        transport, client = await connected(port)
        transport.write_urgent(b"!")
        assert await client.received(1) == b"!"
        transport.abort()


async def test_streams_get_the_bytes() -> None:
    async with serving(Echo) as port:
        reader, writer = await utcp.open_connection(HOST, port)
        writer.transport.write_urgent(b"urgent")
        writer.write_eof()
        assert await reader.read() == b"urgent"
        writer.close()
        await writer.wait_closed()


async def test_a_callback_that_fails_ends_its_connection_and_reaches_the_exception_handler() -> None:
    class Fails(Recorder):
        def urgent_received(self, amount: int) -> None:
            raise ValueError(f"no use for {amount}")

    contexts: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    accepted = Accepted(Fails)
    async with serving(accepted) as port:
        transport, client = await connected(port)
        server = await accepted.get()
        transport.write_urgent(b"abc")
        assert str(await server.lost) == "no use for 3"
        assert isinstance(await client.lost, ConnectionResetError)
    assert [context["message"] for context in contexts] == ["Fatal error: protocol.urgent_received() call failed."]


async def test_after_close_nobody_is_told() -> None:
    accepted = Accepted(Urgent)
    async with serving(accepted) as port:
        transport, client = await connected(port)
        server = await accepted.get()
        transport_of(server).close()
        transport.write_urgent(b"too late")
        await client.lost
        await server.lost
        assert isinstance(server, Urgent) and server.amounts == []


async def test_it_is_a_write_in_every_other_way() -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        with pytest.raises(TypeError, match="data argument must be a bytes-like object, not 'str'"):
            transport.write_urgent("text")  # type: ignore[arg-type]
        transport.write_urgent(b"")
        transport.set_write_buffer_limits(0)
        transport.write_urgent(memoryview(b"abc"))
        assert client.events[-1] == "pause"
        assert transport.get_write_buffer_size() == 3
        await transport.drained()
        assert bytes(server.data) == b"abc"
        transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            transport.write_urgent(b"x")
