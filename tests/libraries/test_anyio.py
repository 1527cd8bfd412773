"""anyio over utcp: its byte streams and listeners in anyio's own terms, and its own streams in a drop-in loop."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener, TLSStream

import utcp
from libraries.carried import HOST, NAME, Carried
from utcp.aio.connection_socket import ConnectionSocket
from utcp.contrib.anyio import UtcpListener, UtcpStream, connect_tcp, create_tcp_listener

BODY = bytes(range(256)) * 8192  # 2 MiB


@asynccontextmanager
async def listening() -> AsyncIterator[UtcpListener]:
    async with await create_tcp_listener(local_host=HOST) as listener:
        yield listener


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[UtcpStream, UtcpStream]]:
    """The client's stream and the server's."""
    async with listening() as listener:
        client = await connect_tcp(HOST, listener.extra(SocketAttribute.local_port))
        server = await listener.accept()
        try:
            yield client, server
        finally:
            for stream in (client, server):
                await anyio.aclose_forcefully(stream)


async def receive_all(stream: ByteStream) -> bytes:
    return b"".join([part async for part in stream])


async def test_both_ways_and_half_close(carried: Carried) -> None:
    async with pair() as (client, server), anyio.create_task_group() as tasks:
        assert isinstance(client, ByteStream)

        async def answer() -> None:
            body = await receive_all(server)  # to the client's FIN
            await server.send(body[::-1])
            await server.aclose()

        tasks.start_soon(answer)
        await client.send(BODY)
        await client.send_eof()
        assert await receive_all(client) == BODY[::-1]
        await client.aclose()
        assert (await client.transport.closed()).reason == "graceful"
        assert carried.bytes == 2 * len(BODY)


async def test_end_of_stream_again_and_again() -> None:
    async with pair() as (client, server):
        await server.send(b"last words")
        await server.send_eof()
        assert await client.receive(4) == b"last"
        assert await client.receive() == b" words"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await client.receive()
        await client.send(b"still open")
        assert await server.receive() == b"still open"


async def test_a_broken_connection() -> None:
    async with pair() as (client, server):
        await server.send(b"last words")
        await server.transport.drained()
        await anyio.aclose_forcefully(server)
        assert await client.receive() == b"last words"
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await client.receive()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        with pytest.raises(anyio.BrokenResourceError):
            await client.send(b"hello?")


async def test_closed_here() -> None:
    async with pair() as (client, server):
        await client.aclose()
        for action in (client.receive(), client.send(b"x"), client.send_eof()):
            with pytest.raises(anyio.ClosedResourceError):
                await action
        await client.aclose()
        with pytest.raises(anyio.EndOfStream):
            await server.receive()


async def test_closed_here_while_receiving() -> None:
    async with pair() as (client, _), anyio.create_task_group() as tasks:

        async def receive() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await client.receive()

        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await client.aclose()


async def test_closed_here_while_sending() -> None:
    async with pair() as (client, _), anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await client.send(bytes(10_000_000))

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await client.aclose()


async def test_one_task_at_a_time() -> None:
    async with pair() as (client, server), anyio.create_task_group() as tasks:
        tasks.start_soon(client.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError, match="reading from"):
            await client.receive()
        await server.send(b"x")


async def test_a_cancelled_receive_loses_nothing() -> None:
    async with pair() as (client, server):
        with anyio.move_on_after(0.01):
            await client.receive()
        await server.send(b"here")
        assert await client.receive() == b"here"


async def test_send_after_send_eof() -> None:
    async with pair() as (client, _):
        await client.send_eof()
        await client.send_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            await client.send(b"x")


async def test_bad_arguments() -> None:
    async with pair() as (client, _):
        with pytest.raises(ValueError, match="positive"):
            await client.receive(0)
        with pytest.raises(TypeError):
            await client.send("text")  # type: ignore[arg-type]


async def test_attributes() -> None:
    async with pair() as (client, server):
        for one, other in ((client, server), (server, client)):
            assert one.extra(SocketAttribute.local_address) == other.extra(SocketAttribute.remote_address)
            assert one.extra(SocketAttribute.local_port) == other.extra(SocketAttribute.remote_port)
            assert one.extra(SocketAttribute.family) == socket.AF_INET


async def test_serving(carried: Carried) -> None:
    async def upper(stream: UtcpStream) -> None:
        async with stream:
            async for part in stream:
                await stream.send(part.upper())

    async with listening() as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, upper)
        assert listener.extra(SocketAttribute.local_address)[0] == HOST
        for word in (b"one", b"two"):
            async with await connect_tcp(HOST, listener.extra(SocketAttribute.local_port)) as client:
                await client.send(word)
                assert await client.receive() == word.upper()
        assert carried.connections == 2
        tasks.cancel_scope.cancel()


async def test_a_listener_that_is_closed() -> None:
    async with listening() as listener:
        port = listener.extra(SocketAttribute.local_port)
        waiting = await connect_tcp(HOST, port)
        await anyio.wait_all_tasks_blocked()
        await listener.aclose()
        with pytest.raises(anyio.BrokenResourceError):  # nobody had accepted it
            await waiting.receive()
        await waiting.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await listener.accept()
        with pytest.raises(ConnectionRefusedError):
            await connect_tcp(HOST, port)


async def test_a_listener_that_is_closed_while_accepting() -> None:
    async with listening() as listener, anyio.create_task_group() as tasks:

        async def accept() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await listener.accept()

        tasks.start_soon(accept)
        await anyio.wait_all_tasks_blocked()
        await listener.aclose()


async def test_a_listener_on_a_port_in_use() -> None:
    async with listening() as listener:
        with pytest.raises(OSError, match="in use"):
            await create_tcp_listener(local_host=HOST, local_port=listener.extra(SocketAttribute.local_port))


async def test_its_own_client(carried: Carried) -> None:
    """In a drop-in loop ``anyio.connect_tcp`` itself does, by the ending of the name."""
    async with listening() as listener:
        port = listener.extra(SocketAttribute.local_port)
        async with await anyio.connect_tcp(NAME, port) as client, await listener.accept() as server:
            assert isinstance(client.extra(SocketAttribute.raw_socket), ConnectionSocket)
            assert client.extra(SocketAttribute.remote_address) == (HOST, port)
            assert client.extra(SocketAttribute.local_address) == server.extra(SocketAttribute.remote_address)
            await client.send(BODY[:100_000])
            await client.send_eof()
            assert await receive_all(server) == BODY[:100_000]
            await server.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await client.receive()
        assert carried.bytes == 100_000


def test_anyio_run() -> None:
    """As docs/libraries.md says."""

    async def main() -> None:
        async with listening() as listener:
            port = listener.extra(SocketAttribute.local_port)
            async with await anyio.connect_tcp("localhost.utcp", port) as client, await listener.accept() as server:
                await client.send(b"hello")
                assert await server.receive() == b"hello"

    anyio.run(main, backend_options={"loop_factory": utcp.new_event_loop})


async def test_tls_by_anyio(carried: Carried, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """anyio's TLS goes over any ByteStream and any listener."""

    async def upper(stream: TLSStream) -> None:
        async with stream:
            await stream.send((await stream.receive()).upper())

    async with listening() as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(TLSListener(listener, server_tls).serve, upper)
        plain = await connect_tcp(HOST, listener.extra(SocketAttribute.local_port))
        async with await TLSStream.wrap(plain, hostname="localhost", ssl_context=client_tls) as client:
            await client.send(b"hello")
            assert await client.receive() == b"HELLO"
            with pytest.raises(anyio.EndOfStream):
                await client.receive()
        assert carried.connections == 1
        tasks.cancel_scope.cancel()


async def test_tls_by_utcp(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with await create_tcp_listener(local_host=HOST, ssl=server_tls) as listener:
        port = listener.extra(SocketAttribute.local_port)
        async with await connect_tcp(HOST, port, ssl=client_tls) as client, await listener.accept() as server:
            await client.send(BODY[:300_000])
            await client.send_eof()
            assert await receive_all(server) == BODY[:300_000]
            assert client.transport.get_extra_info("cipher") is not None
