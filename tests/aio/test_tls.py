"""TLS where no other stack is an oracle: what utcp adds to it, what lies over it and under it, and how programs end."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import ssl
import weakref
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, Accepted, Recorder, pair, serving, serving_streams, transport_of
from support.certificates import NAME, Certificates
from support.patience import until
from utcp.sim import Network, run


@asynccontextmanager
async def secure(
    certificates: Certificates,
    *,
    client_factory: Callable[[], Any] = Recorder,
    server_factory: Callable[[], Any] = Recorder,
    version: ssl.TLSVersion | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Any, Any]]:
    """Two protocols connected by TLS, the client's and the server's; ``options`` are the server's."""
    accepted = Accepted(server_factory)
    async with serving(accepted, ssl=certificates.server(version=version), **options) as port:
        transport, client = await utcp.create_connection(
            client_factory, HOST, port, ssl=certificates.client(), server_hostname=NAME
        )
        try:
            yield client, await accepted.get()
        finally:
            transport.abort()


class TestTransport:
    async def test_what_is_beyond_asyncio(self, certificates: Certificates) -> None:
        async with secure(certificates) as (client, server):
            transport = client.transport
            assert isinstance(transport, utcp.TlsTransport)
            assert str(transport.state) == "ESTABLISHED"
            assert transport.info().state is transport.state
            assert "TLSv1.3" in repr(transport)
            transport.write(bytes(300_000))
            await transport.drained()
            assert transport.info().unacked_bytes == 0
            transport.set_option("keepalive", True)
            with pytest.raises(NotImplementedError, match="no urgent data under TLS"):
                transport.write_urgent(b"!")
            transport.close()
            info = await transport.closed()
            assert info.reason == "graceful"
            assert not info.by_peer
            assert await server.lost is None

    async def test_lingering_close(self, certificates: Certificates) -> None:
        async with secure(certificates, server_factory=functools.partial(Recorder, keep_open=True)) as (client, server):
            closing = asyncio.ensure_future(client.transport.lingering_close(5))
            await server.eof  # close_notify has arrived, and our FIN
            server.transport.write(bytes(100_000))
            server.transport.close()
            info = await closing
            assert info.reason == "graceful"
            assert info.unread_bytes > 100_000
            assert await server.lost is None

    async def test_closing_the_transport_below(self, certificates: Certificates) -> None:
        async with pair() as (client, server):
            below = transport_of(client)
            closed = asyncio.ensure_future(transport_of(server).closed())
            _, client.transport = await asyncio.gather(
                utcp.start_tls(transport_of(server), server, certificates.server(), server_side=True),
                utcp.start_tls(below, client, certificates.client(), server_hostname=NAME),
            )
            server_transport = server.transport
            below.close()
            assert client.transport.is_closing()
            assert await client.lost is None
            assert await server.lost is None
            assert server_transport.is_closing()
            assert (await closed).reason == "graceful"

    async def test_writing_on_after_the_end(self, certificates: Certificates, caplog: pytest.LogCaptureFixture) -> None:
        async with secure(certificates) as (client, _):
            client.transport.close()
            for _ in range(5):
                client.transport.write(b"dropped")
            assert not caplog.records
            client.transport.write(b"dropped")
            assert [record.message for record in caplog.records] == ["SSL connection is closed"]

    async def test_a_negotiation_that_comes_between(self, certificates: Certificates) -> None:
        """By TLS 1.2 a peer may begin anew at any time; who writes meanwhile loses the connection, not the data in
        silence."""

        class Anew(ssl.SSLObject):
            def write(self, data: Any) -> int:
                raise ssl.SSLWantReadError

        async with serving(Recorder, ssl=certificates.server()) as port:
            context = certificates.client()
            context.sslobject_class = Anew
            transport, client = await utcp.create_connection(Recorder, HOST, port, ssl=context, server_hostname=NAME)
            transport.write(b"x")
            assert isinstance(await client.lost, ssl.SSLWantReadError)


class TestLayers:
    async def test_tls_over_tls(self, certificates: Certificates) -> None:
        async with secure(certificates) as (client, server):
            server.transport, client.transport = await asyncio.gather(
                utcp.start_tls(server.transport, server, certificates.server(), server_side=True),
                utcp.start_tls(client.transport, client, certificates.client(), server_hostname=NAME),
            )
            assert repr(client.transport).count("TLSv1.3") == 2
            server_transport = server.transport
            closed = asyncio.ensure_future(server_transport.closed())
            client.transport.write(bytes(1_000_000))
            assert len(await server.received(1_000_000)) == 1_000_000
            server.transport.write(b"and back")
            assert await client.received(8) == b"and back"
            client.transport.close()
            assert await client.lost is None
            assert await server.lost is None
            assert (await closed).reason == "graceful"
            assert server.events == ["made", "data", "eof", "lost"]

    @pytest.mark.parametrize("server_side", [True, False])
    async def test_asyncio_s_own_tls_as_the_peer(self, certificates: Certificates, server_side: bool) -> None:
        """asyncio.sslproto runs over a utcp transport as it is, and understands ours."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        theirs = Recorder()
        context = certificates.server() if server_side else certificates.client()
        name = None if server_side else NAME
        # Typeshed does not tell of it
        protocol: Any = SSLProtocol(loop, theirs, context, waiter, server_side, name)
        accepted = Accepted()
        if server_side:
            async with serving(lambda: protocol) as port:
                _, ours = await utcp.create_connection(
                    Recorder, HOST, port, ssl=certificates.client(), server_hostname=NAME
                )
                await waiter
                await self._talk(ours, theirs)
        else:
            async with serving(accepted, ssl=certificates.server()) as port:
                await utcp.create_connection(lambda: protocol, HOST, port)
                await waiter
                await self._talk(theirs, await accepted.get())

    async def _talk(self, client: Recorder, server: Recorder) -> None:
        client.transport.write(bytes(2_000_000))
        server.transport.write(bytes(2_000_000))
        assert len(await client.received(2_000_000)) == len(await server.received(2_000_000)) == 2_000_000
        client.transport.close()
        assert await client.lost is None
        assert await server.lost is None

    async def test_asyncio_s_start_tls(self, certificates: Certificates) -> None:
        loop = asyncio.get_running_loop()
        if type(loop).__module__.startswith("uvloop"):
            pytest.skip("uvloop's start_tls takes its own transports only")
        async with pair() as (client, server):
            ours, theirs = await asyncio.gather(
                utcp.start_tls(transport_of(server), server, certificates.server(), server_side=True),
                loop.start_tls(transport_of(client), client, certificates.client(), server_hostname=NAME),
            )
            assert theirs is not None
            theirs.write(b"secret")
            assert await server.received(6) == b"secret"
            ours.close()
            assert await server.lost is None
            assert await client.lost is None


class TestArguments:
    @pytest.mark.parametrize("value", [0, -1])
    @pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
    async def test_timeouts_of_a_server(self, certificates: Certificates, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"{name} should be a positive number, got {value}"):
            await utcp.create_server(Recorder, HOST, 0, ssl=certificates.server(), **{name: value})  # type: ignore[arg-type]

    async def test_a_context_for_the_other_side(self, certificates: Certificates) -> None:
        with pytest.raises(ssl.SSLError, match="Cannot create a server socket with a PROTOCOL_TLS_CLIENT context"):
            await utcp.create_server(Recorder, HOST, 0, ssl=certificates.client())
        with pytest.raises(ssl.SSLError, match="Cannot create a client socket with a PROTOCOL_TLS_SERVER context"):
            await utcp.create_connection(Recorder, HOST, 9, ssl=certificates.server())

    async def test_what_is_no_context(self) -> None:
        with pytest.raises(TypeError, match="ssl argument must be an SSLContext"):
            await utcp.create_connection(Recorder, HOST, 9, ssl="yes")  # type: ignore[arg-type]

    async def test_no_host_name(self, certificates: Certificates) -> None:
        with pytest.raises(ValueError, match="check_hostname requires server_hostname"):
            await utcp.create_connection(Recorder, HOST, 9, ssl=certificates.client(), server_hostname="")

    async def test_upgrading_too_late(self, certificates: Certificates) -> None:
        async with pair(client_keeps_open=True, server_keeps_open=True) as (client, _):
            transport = transport_of(client)
            transport.write_eof()
            with pytest.raises(RuntimeError, match=r"Cannot call start_tls\(\) after write_eof\(\)"):
                await utcp.start_tls(transport, client, certificates.client(), server_hostname=NAME)
            transport.close()
            with pytest.raises(ConnectionAbortedError, match="closing"):
                await utcp.start_tls(transport, client, certificates.client(), server_hostname=NAME)

    async def test_a_transport_of_another_stack(self, certificates: Certificates) -> None:
        with pytest.raises(TypeError, match=r"is not supported by start_tls\(\)"):
            await utcp.start_tls(asyncio.Transport(), Recorder(), certificates.client())  # type: ignore[arg-type]


class TestHandshake:
    @pytest.mark.parametrize("how", ["nonsense", "silence", "reset"])
    async def test_a_failure_is_reported_in_debug_mode(self, certificates: Certificates, how: str) -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        reported: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: reported.append(context))
        async with serving(Recorder, ssl=certificates.server(), ssl_handshake_timeout=0.2) as port:
            transport, client = await utcp.create_connection(Recorder, HOST, port)
            if how == "nonsense":
                transport.write(b"GET / HTTP/1.1\r\n\r\n")
            elif how == "reset":
                transport.abort()
            await client.lost
            await asyncio.sleep(0.05)
        assert [context["message"] for context in reported] == ["Error on transport creation for incoming connection"]
        expected = {"nonsense": ssl.SSLError, "silence": ConnectionAbortedError, "reset": ConnectionResetError}
        assert isinstance(reported[0]["exception"], expected[how])

    async def test_plain_text_injected_before_an_upgrade(self, certificates: Certificates) -> None:
        """What came in the clear must not pass for what came under TLS: the client's upgrade fails (CVE-2011-0411)."""

        async def inject(_: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            writer.write(b"220 go ahead\r\n250 injected\r\n")
            with pytest.raises(OSError, match="during the SSL handshake"):
                await writer.start_tls(certificates.server())
            done.set_result(None)

        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with serving_streams(inject) as port:
            reader, writer = await utcp.open_connection(HOST, port)
            assert await reader.readline() == b"220 go ahead\r\n"
            with pytest.raises(ssl.SSLError):
                await writer.start_tls(certificates.client(), server_hostname=NAME)
            await done

    async def test_an_upgrade_of_a_writer_that_is_paused(self, certificates: Certificates) -> None:
        begin: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        size = 3_000_000

        async def handle(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            await begin
            await reader.readexactly(size)
            await writer.start_tls(certificates.server())
            writer.write(await reader.readline())
            writer.close()

        async with serving_streams(handle, config=utcp.Config(receive_buffer=100_000)) as port:
            transport, client = await utcp.create_connection(Recorder, HOST, port)
            transport.write(bytes(size))
            await asyncio.sleep(0.01)
            assert client.events == ["made", "pause"]
            upgrade = utcp.start_tls(transport, client, certificates.client(), server_hostname=NAME)
            upgrading = asyncio.ensure_future(upgrade)
            begin.set_result(None)
            transport = await upgrading
            await client.resumed
            assert client.events == ["made", "pause", "resume"]
            transport.write(b"secret\n")
            assert await client.received(7) == b"secret\n"
            transport.close()
            await client.lost

    async def test_an_upgrade_of_a_reader_that_paused(self, certificates: Certificates) -> None:
        """A ClientHello behind more than the reader's limit: the upgrade resumes it. Then it pauses what has TLS."""
        upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def handle(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            assert await reader.readexactly(1000) == bytes(1000)
            await writer.start_tls(certificates.server())
            await until(lambda: not writer.transport.is_reading())
            writer.write(await reader.readexactly(1000))
            writer.close()
            upgraded.set_result(None)

        async with serving_streams(handle, limit=100) as port:
            reader, writer = await utcp.open_connection(HOST, port)
            writer.write(bytes(1000))
            await writer.start_tls(certificates.client(), server_hostname=NAME)
            writer.write(b"secret" * 200)
            assert await reader.read() == (b"secret" * 200)[:1000]
            await upgraded
            writer.close()


class TestEnds:
    async def test_readers_get_what_came_before_an_error(self, certificates: Certificates) -> None:
        got: asyncio.Future[tuple[utcp.StreamReader, utcp.StreamWriter]] = asyncio.get_running_loop().create_future()

        def take(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            got.set_result((reader, writer))

        async with serving_streams(take, ssl=certificates.server(), limit=1000) as port:
            _, writer = await utcp.open_connection(HOST, port, ssl=certificates.client(), server_hostname=NAME)
            reader, accepted = await got
            writer.write(bytes(5_000))
            await writer.transport.drained()
            assert len(await reader.readexactly(1)) == 1
            writer.write(bytes(100_000))  # the reader has paused
            await writer.transport.drained()
            writer.transport.abort()
            rest = 0
            while rest < 104_999:
                rest += len(await reader.read(10_000))
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            accepted.close()

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_close_clients(self, certificates: Certificates, version: ssl.TLSVersion) -> None:
        accepted = Accepted()
        server = await utcp.create_server(accepted, HOST, 0, ssl=certificates.server(version=version))
        transport, client = await utcp.create_connection(
            Recorder, HOST, server.sockets[0].port, ssl=certificates.client(), server_hostname=NAME
        )
        (await accepted.get()).transport.write(bytes(1_000_000))
        closed = asyncio.ensure_future(transport.closed())
        server.close()
        server.close_clients()
        await server.wait_closed()
        assert await client.lost is None
        assert len(client.data) == 1_000_000
        assert (await closed).reason == "graceful"  # not truncated

    async def test_the_end_of_an_endpoint(self, certificates: Certificates) -> None:
        accepted = Accepted()
        async with serving(accepted, ssl=certificates.server()) as port:
            async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
                transport, _ = await endpoint.create_connection(
                    Recorder, HOST, port, ssl=certificates.client(), server_hostname=NAME
                )
                server = await accepted.get()
                closed = asyncio.ensure_future(server.transport.closed())
                transport.write(bytes(3_000_000))
            assert await server.lost is None
            assert len(server.data) == 3_000_000
            assert (await closed).reason == "graceful"

    @pytest.mark.parametrize("closes", [True, False])
    async def test_the_end_of_a_program(self, certificates: Certificates, closes: bool) -> None:
        """``asyncio.run`` returns: what was written, close_notify and the FIN still arrive."""
        accepted = Accepted()
        kept: list[Any] = []

        async def program(port: int) -> None:
            transport, _ = await utcp.create_connection(
                Recorder, HOST, port, ssl=certificates.client(), server_hostname=NAME
            )
            transport.write(bytes(3_000_000))
            kept.append(transport)
            if closes:
                transport.close()

        async with serving(accepted, ssl=certificates.server()) as port:
            with pytest.warns(ResourceWarning, match="unclosed transport") if not closes else nullcontext():
                running = asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(program(port))))
                server = await accepted.get()
                closed = asyncio.ensure_future(server.transport.closed())
                await running
            assert await server.lost is None
            assert len(server.data) == 3_000_000
            assert (await closed).reason == "graceful"

    async def test_a_server_on_an_endpoint(self, certificates: Certificates) -> None:
        async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
            accepted = Accepted()
            await endpoint.create_server(accepted, ssl=certificates.server())
            _, client = await utcp.create_connection(
                Recorder, *endpoint.local_addr, ssl=certificates.client(), server_hostname=NAME
            )
            await accepted.get()
        assert await client.lost is None
        assert client.events == ["made", "eof", "lost"]

    async def test_closing_in_mid_handshake(self, certificates: Certificates) -> None:
        accepted = Accepted()
        async with serving(accepted) as port, await utcp.Endpoint.create((HOST, 0)) as endpoint:
            connecting = asyncio.ensure_future(
                endpoint.create_connection(Recorder, HOST, port, ssl=certificates.client(), server_hostname=NAME)
            )
            await (await accepted.get()).received(100)
            await endpoint.aclose()
            with pytest.raises(ConnectionAbortedError):
                await connecting

    async def test_nothing_outlives_a_connection(self, certificates: Certificates) -> None:
        """Not even until the next garbage collection: no cycle of references is left."""
        gc.collect()
        gc.disable()
        try:
            async with secure(certificates) as (client, server):
                traces = [weakref.ref(one.transport) for one in (client, server)]
                traces += [weakref.ref(one.transport.get_extra_info("ssl_object")) for one in (client, server)]
                client.transport.close()
                await client.lost
                await server.lost
                await client.transport.closed()
                del client.transport, server.transport
            client.made = server.made = None
            assert [trace() for trace in traces] == [None] * 4
        finally:
            gc.enable()

    async def test_a_peer_that_closes_while_we_pause(self, certificates: Certificates) -> None:
        async with secure(certificates) as (client, server):
            server.transport.pause_reading()
            client.transport.write(bytes(100_000))
            client.transport.close()
            assert await client.lost is None  # the server's TCP has it all
            assert server.events == ["made"]
            server.transport.resume_reading()
            assert await server.lost is None
            assert len(server.data) == 100_000
            assert server.events == ["made", "data", "eof", "lost"]

    async def test_debug_mode_logs_failures(self, certificates: Certificates, caplog: pytest.LogCaptureFixture) -> None:
        asyncio.get_running_loop().set_debug(True)
        async with serving(Recorder, ssl=certificates.server()) as port:
            with caplog.at_level(logging.DEBUG, "asyncio"), pytest.raises(ssl.SSLCertVerificationError):
                await utcp.create_connection(
                    Recorder, HOST, port, ssl=certificates.client(trusting=False), server_hostname=NAME
                )
        assert "SSL handshake failed" in caplog.text


@pytest.mark.parametrize("seed", range(8))
def test_over_a_network_that_loses(certificates: Certificates, seed: int) -> None:
    """Programs with TLS run in the simulation as others do; 10 % of the segments are lost, some come twice or late."""
    network = Network(seed=seed, delay=0.02, jitter=0.01, loss=0.1, duplicate=0.05, reorder=0.05)
    server, client = network.host("server"), network.host("client")

    async def answer(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()
        await writer.wait_closed()

    async def serve() -> None:
        async with await utcp.start_server(answer, None, 9000, ssl=certificates.server()) as listening:
            await listening.serve_forever()

    async def ask() -> tuple[bytes, utcp.CloseInfo]:
        server.start(serve)
        await asyncio.sleep(1)
        reader, writer = await utcp.open_connection("server", 9000, ssl=certificates.client(), server_hostname=NAME)
        writer.write(b"question " * 10_000)
        writer.write_eof()
        found = await reader.read()
        writer.close()
        await writer.wait_closed()
        return found, await writer.transport.closed()

    found, info = run(ask, network=network, host=client)
    assert found == b"QUESTION " * 10_000
    assert info.reason == "graceful"
