"""Servers: addresses, ports, sharing, and the ways to stop."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, Accepted, Echo, Recorder, serving, transport_of
from support.patience import until


async def test_sockets_and_ports() -> None:
    async with await utcp.create_server(Echo, HOST, 0) as server:
        (sock,) = server.sockets
        host, port = sock.getsockname()
        assert host == HOST
        assert port == sock.udp_port == sock.port > 0
        assert sock.family == socket.AF_INET
        assert server.is_serving()
        assert server.get_loop() is asyncio.get_running_loop()
    assert server.sockets == ()
    assert not server.is_serving()


async def test_udp_port_and_tcp_port_may_differ() -> None:
    async with await utcp.create_server(Echo, HOST, 80, udp_port=0) as server:
        assert server.sockets[0].getsockname() == (HOST, 80)
        udp_port = server.sockets[0].udp_port
        assert udp_port != 80
        transport, client = await utcp.create_connection(Recorder, HOST, 80, udp_port=udp_port)
        assert transport.get_extra_info("peername") == (HOST, 80)
        assert transport.get_extra_info("udp_peername") == (HOST, udp_port)
        transport.close()
        await client.lost


async def test_servers_share_a_udp_port() -> None:
    async with await utcp.create_server(Echo, HOST, 0) as first:
        udp_port = first.sockets[0].udp_port
        async with await utcp.create_server(Recorder, HOST, 81, udp_port=udp_port) as second:
            assert second.sockets[0].udp_port == udp_port
            for port in (udp_port, 81):
                transport, _ = await utcp.create_connection(Recorder, HOST, port, udp_port=udp_port)
                transport.abort()
            with pytest.raises(
                OSError, match=r"error while attempting to bind on address \('127.0.0.1', 81\)"
            ) as caught:
                await utcp.create_server(Echo, HOST, 81, udp_port=udp_port)
            assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(ConnectionRefusedError):
            await utcp.create_connection(Recorder, HOST, 81, udp_port=udp_port)
        transport, _ = await utcp.create_connection(Recorder, HOST, udp_port)
        transport.abort()


async def test_a_port_in_use() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        port = sock.getsockname()[1]
        text = f"error while attempting to bind on address ('{HOST}', {port}): address already in use"
        with pytest.raises(OSError, match=re.escape(text)) as caught:
            await utcp.create_server(Echo, HOST, port)
        assert caught.value.errno == errno.EADDRINUSE


async def test_the_port_is_free_again_once_nobody_needs_it() -> None:
    accepted = Accepted()
    server = await utcp.create_server(accepted, HOST, 0)
    port = server.sockets[0].port
    transport, client = await utcp.create_connection(Recorder, HOST, port)
    await accepted.get()
    server.close()
    transport.write(b"still connected")
    await transport.drained()
    transport.close()  # the client closes first: TIME-WAIT is on its side
    await client.lost
    await transport.closed()
    await until(lambda: is_free(port))


def is_free(udp_port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((HOST, udp_port))
        except OSError:
            return False
        return True


async def test_time_wait_does_not_stand_in_the_way() -> None:
    accepted = Accepted()
    server = await utcp.create_server(accepted, HOST, 0)
    port = server.sockets[0].port
    transport, client = await utcp.create_connection(Recorder, HOST, port)
    first = transport_of(await accepted.get())
    first.close()
    await client.lost
    await first.closed()
    assert first.state is utcp.State.TIME_WAIT
    server.close()
    await server.wait_closed()
    async with await utcp.create_server(Echo, HOST, port):
        transport, client = await utcp.create_connection(Recorder, HOST, port)
        transport.close()
        await client.lost


async def test_close_refuses_new_connections_and_keeps_old_ones() -> None:
    accepted = Accepted(lambda: Recorder(keep_open=True))
    other = await utcp.create_server(Echo, HOST, 0)
    udp_port = other.sockets[0].udp_port
    server = await utcp.create_server(accepted, HOST, 81, udp_port=udp_port)
    transport, client = await utcp.create_connection(Recorder, HOST, 81, udp_port=udp_port)
    theirs = await accepted.get()
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        await utcp.create_connection(Recorder, HOST, 81, udp_port=udp_port)
    transport.write(b"old")
    assert await theirs.received(3) == b"old"
    waiting = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    server.close_clients()
    await waiting
    assert await client.lost is None
    other.close()


async def test_abort_clients() -> None:
    accepted = Accepted()
    server = await utcp.create_server(accepted, HOST, 0)
    clients = [(await utcp.create_connection(Recorder, HOST, server.sockets[0].port))[1] for _ in range(3)]
    for _ in clients:
        await accepted.get()
    server.close()
    server.abort_clients()
    await server.wait_closed()
    for client in clients:
        assert isinstance(await client.lost, ConnectionResetError)


async def test_start_serving_later() -> None:
    server = await utcp.create_server(Echo, HOST, 0, start_serving=False)
    port = server.sockets[0].port
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await utcp.create_connection(Recorder, HOST, port)
    with pytest.raises(OSError, match="already in use"):
        await utcp.create_server(Echo, HOST, port)
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    transport, _ = await utcp.create_connection(Recorder, HOST, port)
    transport.abort()
    server.close()
    await server.wait_closed()


async def test_serve_forever() -> None:
    server = await utcp.create_server(Echo, HOST, 0, start_serving=False)
    port = server.sockets[0].port
    serving = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already being awaited on serve_forever"):
        await server.serve_forever()
    transport, client = await utcp.create_connection(Recorder, HOST, port)
    transport.close()
    await client.lost
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()


async def test_closing_ends_serve_forever() -> None:
    server = await utcp.create_server(Echo, HOST, 0)
    serving = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_every_address_of_several_hosts() -> None:
    async with await utcp.create_server(Echo, [HOST, "127.0.0.2", HOST], 0) as server:
        names = [sock.getsockname() for sock in server.sockets]
        assert sorted(host for host, _ in names) == [HOST, "127.0.0.2"]
        for host, port in names:
            transport, _ = await utcp.create_connection(Recorder, host, port)
            assert transport.get_extra_info("peername") == (host, port)
            transport.abort()


async def test_no_host_is_every_address() -> None:
    async with await utcp.create_server(Echo, None, 0) as server:
        assert {sock.getsockname()[0] for sock in server.sockets} >= {"0.0.0.0"}
        port = next(sock.port for sock in server.sockets if sock.family == socket.AF_INET)
        for host in (HOST, "127.0.0.7"):
            transport, client = await utcp.create_connection(Recorder, host, port)
            # The answer leaves from the address that was asked
            assert transport.get_extra_info("peername") == (host, port)
            transport.write(b"x")
            assert await client.received(1) == b"x"
            transport.abort()


async def test_a_socket_of_one_s_own() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))
    name = sock.getsockname()
    async with await utcp.create_server(Echo, sock=sock) as server:
        assert server.sockets[0].getsockname() == name
        transport, client = await utcp.create_connection(Recorder, *name)
        transport.close()
        await client.lost
        await transport.closed()
    await until(lambda: sock.fileno() == -1)


async def test_reuse_port() -> None:
    first = await utcp.Endpoint.create((HOST, 0), reuse_port=True)
    second = await utcp.Endpoint.create((HOST, first.local_addr[1]), reuse_port=True)
    assert first.local_addr == second.local_addr
    await first.aclose()
    await second.aclose()


@pytest.mark.parametrize(
    ("kwargs", "kind", "error"),
    [
        ({}, ValueError, "Neither host/port nor sock were specified"),
        ({"host": HOST, "port": 0, "ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
        ({"host": HOST, "port": 0, "ssl": object()}, TypeError, "ssl argument must be an SSLContext or None"),
        (
            {"host": HOST, "port": 0, "ssl_handshake_timeout": 1.0},
            ValueError,
            "ssl_handshake_timeout is only meaningful with ssl",
        ),
        (
            {"host": HOST, "port": 0, "ssl_shutdown_timeout": 1.0},
            ValueError,
            "ssl_shutdown_timeout is only meaningful with ssl",
        ),
    ],
)
async def test_arguments_that_make_no_sense(kwargs: dict[str, Any], kind: type[Exception], error: str) -> None:
    with pytest.raises(kind, match=error):
        await utcp.create_server(Echo, **kwargs)


async def test_a_server_that_cannot_listen_gives_its_port_back() -> None:
    async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
        with pytest.raises(TypeError):
            await endpoint.create_server(Echo, backlog="many")
        async with await endpoint.create_server(Echo) as server:
            assert server.is_serving()


async def test_keep_alive_is_the_config_s() -> None:
    accepted = Accepted()
    async with serving(accepted, keep_alive=True, config=utcp.Config(keepalive_idle=0.05)) as port:
        transport, _ = await utcp.create_connection(Recorder, HOST, port)
        theirs = transport_of(await accepted.get())
        before = theirs.info().segments_out
        await until(lambda: theirs.info().segments_out > before)
        transport.abort()
