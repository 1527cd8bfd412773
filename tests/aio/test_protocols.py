"""Protocols over utcp: the callbacks, their order, and whose context they run in."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, Accepted, Echo, Recorder, pair, serving, transport_of


async def test_echo() -> None:
    async with serving(Echo) as port:
        transport, client = await utcp.create_connection(Recorder, HOST, port)
        transport.write(b"hello")
        assert await client.received(5) == b"hello"
        transport.write_eof()
        assert await client.lost is None
    assert client.events == ["made", "data", "eof", "lost"]


async def test_the_four_steps_of_a_close() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        transport_of(client).write_eof()
        await server.eof
        assert transport_of(server).state is utcp.State.CLOSE_WAIT
        transport_of(server).write(b"still draining")
        assert await client.received(14) == b"still draining"
        assert transport_of(client).state is utcp.State.FIN_WAIT_2
        transport_of(server).close()
        assert await client.lost is None
        assert await server.lost is None
        assert transport_of(client).state is utcp.State.TIME_WAIT
        assert transport_of(server).state is utcp.State.CLOSED
    assert client.events == ["made", "data", "eof", "lost"]
    assert server.events == ["made", "eof", "lost"]


@pytest.mark.parametrize("who", ["client", "server"])
async def test_half_close_leaves_the_other_direction(who: str) -> None:
    async with pair(client_keeps_open=True, server_keeps_open=True) as (client, server):
        closer, other = (client, server) if who == "client" else (server, client)
        transport_of(closer).write(b"last words")
        transport_of(closer).write_eof()
        assert not transport_of(closer).is_closing()
        await other.eof
        assert bytes(other.data) == b"last words"
        for _ in range(3):
            size = len(closer.data)
            transport_of(other).write(b"more")
            await closer.received(size + 4)
        assert not closer.lost.done()
        assert not other.lost.done()


async def test_eof_received_returning_false_closes() -> None:
    async with pair() as (client, server):
        transport_of(client).write_eof()
        assert await server.lost is None
        assert server.events == ["made", "eof", "lost"]


async def test_after_both_fins_a_transport_stays_until_it_is_closed() -> None:
    async with pair(client_keeps_open=True, server_keeps_open=True) as (client, server):
        transport_of(client).write_eof()
        transport_of(server).write_eof()
        await client.eof
        await server.eof
        info = await transport_of(client).closed()
        assert info.reason == "graceful"
        assert not client.lost.done()
        assert not transport_of(client).is_closing()
        transport_of(client).close()
        assert not client.lost.done()
        assert await client.lost is None


async def test_buffered_protocol() -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(10)
            self.data = bytearray()
            self.eof = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.buffer[:nbytes]

        def eof_received(self) -> None:
            self.eof.set_result(None)

    accepted = Accepted()
    async with serving(accepted) as port:
        _, client = await utcp.create_connection(Buffered, HOST, port)
        server = await accepted.get()
        transport_of(server).write(b"0123456789" * 100 + b"tail")
        transport_of(server).close()
        await client.eof
        assert bytes(client.data) == b"0123456789" * 100 + b"tail"


async def test_an_empty_buffer_ends_the_connection() -> None:
    class Empty(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.lost = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return bytearray()

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    problems = collect_problems()
    accepted = Accepted()
    async with serving(accepted) as port:
        _, client = await utcp.create_connection(Empty, HOST, port)
        transport_of(await accepted.get()).write(b"x")
        assert isinstance(await client.lost, RuntimeError)
    assert "get_buffer() returned an empty buffer" in str(problems[0]["exception"])


async def test_set_protocol_midstream() -> None:
    async with pair() as (client, server):
        transport_of(client).write(b"first")
        await server.received(5)
        second = Recorder()
        second.events.append("made")
        transport_of(server).set_protocol(second)
        assert transport_of(server).get_protocol() is second
        transport_of(client).write(b"second")
        assert await second.received(6) == b"second"
        assert bytes(server.data) == b"first"


def collect_problems() -> list[dict[str, Any]]:
    """What reaches the loop's exception handler from now on."""
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    return problems


@pytest.mark.parametrize("name", ["connection_made", "data_received", "eof_received"])
async def test_an_exception_in_a_callback_ends_that_connection(name: str) -> None:
    class Faulty(Recorder):
        pass

    def fail(self: Recorder, *args: object) -> None:
        raise ZeroDivisionError(name)

    setattr(Faulty, name, fail)
    problems = collect_problems()
    faulty: list[Faulty] = []

    def factory() -> asyncio.Protocol:
        if faulty:
            return Echo()
        faulty.append(Faulty())
        return faulty[0]

    async with serving(factory) as port:
        _, client = await utcp.create_connection(Recorder, HOST, port)
        if name != "connection_made":
            client.transport.write(b"x")
            client.transport.write_eof()
        assert isinstance(await client.lost, ConnectionResetError)
        assert isinstance(await faulty[0].lost, ZeroDivisionError)
        assert [type(problem["exception"]) for problem in problems] == [ZeroDivisionError]
        assert name in problems[0]["message"]
        # Nothing else suffers
        _, other = await utcp.create_connection(Recorder, HOST, port)
        other.transport.write(b"well")
        assert await other.received(4) == b"well"
        other.transport.abort()


async def test_an_exception_in_connection_lost_reaches_the_loop() -> None:
    class Faulty(Recorder):
        def connection_lost(self, exc: BaseException | None) -> None:
            raise ZeroDivisionError

    problems = collect_problems()
    async with serving(Echo) as port:
        transport, _ = await utcp.create_connection(Faulty, HOST, port)
        transport.close()
        await transport.closed()
    assert isinstance(problems[0]["exception"], ZeroDivisionError)


async def test_a_factory_that_raises_on_the_server() -> None:
    def factory() -> asyncio.Protocol:
        raise ZeroDivisionError

    problems = collect_problems()
    async with serving(factory) as port:
        _, client = await utcp.create_connection(Recorder, HOST, port)
        assert isinstance(await client.lost, ConnectionResetError)
    assert problems[0]["message"] == "Error on transport creation for incoming connection"


async def test_a_factory_that_raises_on_the_client() -> None:
    def factory() -> asyncio.Protocol:
        raise ZeroDivisionError

    problems = collect_problems()
    async with serving(Echo) as port, await utcp.Endpoint.create((HOST, 0)) as endpoint:
        with pytest.raises(ZeroDivisionError):
            await endpoint.create_connection(factory, HOST, port)
        assert endpoint.engine.connection_count() == 0
        assert problems == []
        # Without anybody waiting it is the loop that hears of it
        info = await endpoint.connect(factory, (HOST, port)).closed()
        assert info.reason == "aborted"
        assert isinstance(problems[0]["exception"], ZeroDivisionError)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


async def test_each_connection_has_its_own_context() -> None:
    class Remembers(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.at_start = variable.get()
            variable.set(f"set by {id(self)}")

        def connection_lost(self, exc: BaseException | None) -> None:
            self.at_end = variable.get()
            super().connection_lost(exc)

    variable.set("server")
    made: list[Remembers] = []

    def factory() -> Remembers:
        made.append(Remembers())
        return made[-1]

    async with serving(factory) as port:
        variable.set("client")
        clients = [(await utcp.create_connection(Remembers, HOST, port))[1] for _ in range(3)]
        assert variable.get() == "client"
        for client in clients:
            client.transport.close()
            await client.lost
        for server in made:
            await server.lost
    assert [client.at_start for client in clients] == ["client"] * 3
    assert [server.at_start for server in made] == ["server"] * 3
    for one in [*clients, *made]:
        assert one.at_end == f"set by {id(one)}"


class Chooses(Recorder):
    """Some set a variable when they are made, some when data arrives, some never; all say what they saw."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        type(self).count += 1
        self.kind = self.count % 4
        self.seen = [variable.get()]
        if self.kind == 1:
            variable.set(f"made {id(self)}")
        if self.kind == 2:
            # As TLS does, to go on in it later
            self.context = transport_of(self)._channel.context()
            variable.set(f"kept {id(self)}")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.seen.append(variable.get())
        if self.kind == 3:
            variable.set(f"data {id(self)}")
            variable.set(f"data twice {id(self)}")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.seen.append(variable.get())
        super().connection_lost(exc)

    def expected(self) -> list[str]:
        made, data = {
            0: ("nothing", "nothing"),
            1: (f"made {id(self)}",) * 2,
            2: (f"kept {id(self)}",) * 2,
            3: ("nothing", f"data twice {id(self)}"),
        }[self.kind]
        return ["nothing", made, data]


async def test_connections_without_variables_share_a_context_and_nobody_notices() -> None:
    accepted: list[Chooses] = []

    def factory() -> Chooses:
        accepted.append(Chooses())
        return accepted[-1]

    async def live() -> list[Chooses]:
        async with serving(factory) as port:
            opening = [utcp.create_connection(Chooses, HOST, port) for _ in range(40)]
            clients = [protocol for _, protocol in await asyncio.gather(*opening)]
            for client in clients:
                client.transport.write(b"x")
            for server in accepted:
                await server.received(1)
                server.transport.write(b"y")
            for client in clients:
                await client.received(1)
                client.transport.close()
            for one in [*clients, *accepted]:
                await one.lost
        return clients

    clients = await asyncio.create_task(live(), context=contextvars.Context())
    assert len(clients) == len(accepted) == 40
    for one in [*clients, *accepted]:
        assert one.seen == one.expected()
        if one.kind == 2:
            assert one.context.run(variable.get) == f"kept {id(one)}"


async def test_no_callback_from_inside_a_call() -> None:
    """data_received and the like come from the loop, never from inside the user's own calls."""
    async with pair(client_keeps_open=True) as (client, server):
        transport = transport_of(client)
        transport.pause_reading()
        transport_of(server).write(b"x" * 1000)
        transport_of(server).write_eof()
        await transport_of(server).drained()
        before = list(client.events)
        transport.resume_reading()
        transport.write(b"y")
        transport.close()
        transport.abort()
        assert client.events == before
        await client.lost
        assert client.events == ["made", "lost"]


async def test_data_before_connection_made_has_returned() -> None:
    """What a server sends at once reaches the protocol after connection_made, even when all comes in one go."""

    class Greets(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"hello")
            transport.close()

    async with serving(Greets) as port:
        for _ in range(20):
            _, client = await utcp.create_connection(Recorder, HOST, port)
            await client.lost
            assert client.events == ["made", "data", "eof", "lost"]
            assert bytes(client.data) == b"hello"


async def test_extra_info() -> None:
    async with pair() as (client, server):
        ours, theirs = transport_of(client), transport_of(server)
        assert ours.get_extra_info("peername") == theirs.get_extra_info("sockname")
        assert ours.get_extra_info("sockname") == theirs.get_extra_info("peername")
        assert ours.get_extra_info("udp_peername") == theirs.get_extra_info("udp_sockname")
        assert ours.get_extra_info("udp_sockname") == theirs.get_extra_info("udp_peername")
        assert len(ours.get_extra_info("peername")) == 2
        assert ours.get_extra_info("tcp_state") is utcp.State.ESTABLISHED
        assert ours.get_extra_info("socket") is None
        assert ours.get_extra_info("anything", 7) == 7
        assert "ESTABLISHED" in repr(ours)
        assert ours.info().state is utcp.State.ESTABLISHED


async def test_writing_before_the_handshake_is_complete() -> None:
    accepted = Accepted()
    async with serving(accepted) as port, await utcp.Endpoint.create((HOST, 0)) as endpoint:
        transport = endpoint.connect(Recorder, (HOST, port))
        transport.write(b"early")
        transport.write_eof()
        server = await accepted.get()
        await server.eof
        assert bytes(server.data) == b"early"


async def test_the_protocol_is_let_go_of() -> None:
    async with pair() as (client, _):
        transport = transport_of(client)
        transport.abort()
        await client.lost
        assert transport.get_protocol() is None
        transport.write(b"dropped")
        assert transport.is_closing()
