"""Protocol and BufferedProtocol: which callbacks come, in what order, and what becomes of exceptions in them."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from contract.stacks import HOST, Stack, on_uvloop, port_of
from support.recorder import BufferedRecorder, Recorder

Kind = type[Recorder] | type[BufferedRecorder]


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
async def test_a_life(stack: Stack, kind: Kind) -> None:
    async with stack.pair(client_factory=kind, server_factory=kind) as (client, server):
        client.transport.write(b"request")
        assert await server.received(7) == b"request"
        server.transport.write(b"answer")
        assert await client.received(6) == b"answer"
        client.transport.close()
        assert await client.lost is None
        assert await server.lost is None
        assert client.events == ["made", "data", "lost"]
        assert server.events == ["made", "data", "eof", "lost"]


async def test_a_buffer_smaller_than_what_arrives(stack: Stack) -> None:
    async with stack.pair(server_factory=lambda: BufferedRecorder(7)) as (client, server):
        data = bytes(range(256)) * 10
        client.transport.write(data)
        assert await server.received(len(data)) == data
        assert server.largest == 7
        if stack.is_utcp:
            assert server.sizehint > 0  # the bytes that are there
        else:
            assert server.sizehint in (-1, 65536)  # nobody knows


async def test_set_protocol_midstream(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        client.transport.write(b"one")
        await server.received(3)
        second = BufferedRecorder()
        transport = server.transport
        transport.set_protocol(second)
        second.events.append("set")
        second.transport = transport
        assert transport.get_protocol() is second
        client.transport.write(b"two")
        assert await second.received(3) == b"two"
        third = Recorder(keep_open=True)
        transport.set_protocol(third)
        client.transport.write(b"three")
        assert await third.received(5) == b"three"
        client.transport.close()
        await third.eof
        transport.close()
        assert await third.lost is None
        assert server.events == ["made", "data"]
        assert second.events == ["set", "data"]
        server.lost.set_result(None)  # nobody will tell it: it is no longer the protocol


async def test_set_protocol_from_inside_data_received(stack: Stack) -> None:
    second: list[Recorder] = []

    class First(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            second.append(Recorder())
            self.transport.set_protocol(second[0])
            self.lost.set_result(None)

    async with stack.pair(server_factory=First) as (client, server):
        client.transport.write(b"upgrade")
        await server.received(7)
        client.transport.write(b"hello")
        assert await second[0].received(5) == b"hello"
        assert server.events == ["made", "data"]


async def test_no_data_before_connection_made_has_returned(stack: Stack) -> None:
    class Eager(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"a greeting")
            transport.resume_reading()
            assert self.events == ["made"]

    async with stack.pair(client_factory=Eager, server_factory=Eager) as (client, server):
        assert await client.received(10) == await server.received(10) == b"a greeting"


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_no_callback_from_inside_close_or_abort(stack: Stack, end: str) -> None:
    async with stack.pair() as (client, _):
        getattr(client.transport, end)()
        assert client.events == ["made"]
        assert client.transport.is_closing()
        assert await client.lost is None
        getattr(client.transport, end)()
        await asyncio.sleep(0.001)
        assert client.events == ["made", "lost"]


async def test_closing_from_inside_connection_made(stack: Stack) -> None:
    class Shy(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"busy")
            transport.close()

    async with stack.pair(server_factory=Shy) as (client, server):
        assert await client.received(4) == b"busy"
        assert await server.lost is None
        assert await client.lost is None
        assert client.events == ["made", "data", "eof", "lost"]


async def test_nothing_after_closing_from_inside_data_received(stack: Stack) -> None:
    class Once(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.close()

    async with stack.pair(server_factory=Once) as (client, server):
        client.transport.write(b"x")
        await server.lost
        assert server.events == ["made", "data", "lost"]


@pytest.mark.parametrize("callback", ["data_received", "eof_received", "get_buffer", "buffer_updated"])
async def test_an_exception_in_a_callback(stack: Stack, callback: str) -> None:
    class BadError(Exception):
        pass

    def fail(*_: object) -> None:
        raise BadError

    base: Kind = BufferedRecorder if "buffer" in callback else Recorder
    bad: Any = type("Bad", (base,), {callback: fail})
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with stack.pair(server_factory=bad) as (client, server):
        client.transport.write(b"x")
        client.transport.write_eof()
        failure = await server.lost
        assert failure is reports[0]["exception"]
        if not stack.is_utcp and on_uvloop() and callback == "get_buffer":
            assert isinstance(failure, RuntimeError)  # uvloop's own, about what went wrong
        else:
            assert isinstance(failure, BadError)
        assert reports[0]["transport"] is server.transport
        assert len(reports) == 1
        error = await client.lost
        if stack.is_utcp or callback == "get_buffer":  # unread data makes the kernel send RST
            assert isinstance(error, ConnectionResetError)  # an error is told to the peer
        else:
            assert error is None  # the kernel sends a FIN, as if all were well


@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
async def test_an_exception_in_flow_control_is_reported_and_nothing_else(stack: Stack, callback: str) -> None:
    class BadError(Exception):
        pass

    class Bad(Recorder):
        def pause_writing(self) -> None:
            super().pause_writing()
            if callback == "pause_writing":
                raise BadError

        def resume_writing(self) -> None:
            super().resume_writing()
            if callback == "resume_writing":
                raise BadError

    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with stack.pair(client_factory=Bad) as (client, server):
        client.transport.write(bytes(1 << 23))
        await client.paused
        await client.resumed
        await server.received(1 << 23)
        assert [type(report["exception"]) for report in reports] == [BadError]
        assert reports[0]["message"].startswith(f"protocol.{callback}() failed")
        assert not client.transport.is_closing()


async def test_each_callback_sees_the_context_of_its_connection(stack: Stack) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    class Named(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.seen = name.get()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.seen += " " + name.get()

    async with stack.serving(Recorder) as port:
        clients = []
        for who in ("ann", "bob"):
            name.set(who)
            clients.append(await stack.create_connection(Named, HOST, port))
        name.set("main")
        for transport, client in clients:
            transport.write(b"x")
            transport.close()
            await client.lost
        assert [client.seen for _, client in clients] == ["ann", "bob"]


async def test_a_server_s_callbacks_see_the_context_it_was_made_in(stack: Stack) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    class Named(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.write(name.get().encode())
            name.set("changed by a connection")

    name.set("server")
    async with stack.serving(Named) as port:
        name.set("client")
        shared = not stack.is_utcp and on_uvloop()  # by all connections of the server
        for seen in (b"server", b"changed by a connection" if shared else b"server"):
            transport, client = await stack.create_connection(Recorder, HOST, port)
            transport.write(b"who?")
            assert await client.received(len(seen)) == seen
            transport.close()
            await client.lost


async def test_extra_info(stack: Stack) -> None:
    async with stack.pair() as (client, server):
        for name, other in (("peername", "sockname"), ("sockname", "peername")):
            assert client.transport.get_extra_info(name) == server.transport.get_extra_info(other)
        host, port = client.transport.get_extra_info("peername")
        assert host == HOST and port > 0
        assert client.transport.get_extra_info("no such thing") is None
        assert client.transport.get_extra_info("no such thing", 5) == 5
        assert client.transport.get_extra_info("sslcontext") is None
        assert (client.transport.get_extra_info("socket") is None) == stack.is_utcp


async def test_refused(stack: Stack) -> None:
    server = await stack.create_server(Recorder, HOST, 0)
    port = port_of(server)
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await stack.create_connection(Recorder, HOST, port)
