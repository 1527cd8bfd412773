"""Servers: listening, and its end."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import Any

import pytest

from contract.stacks import HOST, Stack, on_uvloop, port_of
from support.patience import PATIENCE, until
from support.recorder import Accepted, Recorder


async def test_a_server_s_life(stack: Stack) -> None:
    server = await stack.create_server(Recorder, HOST, 0, start_serving=False)
    assert not server.is_serving()
    assert server.get_loop() is asyncio.get_running_loop()
    port = port_of(server)
    with pytest.raises(ConnectionRefusedError):
        await stack.create_connection(Recorder, HOST, port)
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    assert server.sockets[0].getsockname() == (HOST, port)
    assert server.sockets[0].family == socket.AF_INET
    assert server.sockets[0].type == socket.SOCK_STREAM
    transport, client = await stack.create_connection(Recorder, HOST, port)
    transport.close()
    await client.lost
    server.close()
    server.close()
    assert not server.is_serving()
    assert list(server.sockets) == []
    await server.wait_closed()
    # The kernel's server stumbles over its own None
    with pytest.raises(RuntimeError if stack.is_utcp else TypeError, match="is closed" if stack.is_utcp else "None"):
        await server.start_serving()


async def test_close_refuses_at_once_and_keeps_what_was_accepted(stack: Stack) -> None:
    accepted = Accepted()
    server = await stack.create_server(accepted, HOST, 0)
    port = port_of(server)
    transport, client = await stack.create_connection(Recorder, HOST, port)
    kept = await accepted.get()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        await stack.create_connection(Recorder, HOST, port)
    transport.write(b"still here")
    assert await kept.received(10) == b"still here"
    transport.close()
    assert await client.lost is None
    assert await kept.lost is None


async def test_serve_forever(stack: Stack) -> None:
    async with await stack.create_server(Recorder, HOST, 0) as server:
        forever = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already being awaited on serve_forever"):
            await server.serve_forever()
        forever.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forever
        assert not server.is_serving()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()


async def test_closing_ends_serve_forever(stack: Stack) -> None:
    server = await stack.create_server(Recorder, HOST, 0)
    forever = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    if not stack.is_utcp and on_uvloop():  # whose server goes on being served, closed though it is
        await asyncio.wait([forever], timeout=0.05)
        assert not forever.done()
        forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forever


async def test_serve_forever_starts_to_serve(stack: Stack) -> None:
    server = await stack.create_server(Recorder, HOST, 0, start_serving=False)
    forever = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    transport, client = await stack.create_connection(Recorder, HOST, port_of(server))
    transport.close()
    await client.lost
    forever.cancel()
    await asyncio.wait([forever], timeout=PATIENCE)
    assert forever.cancelled()


async def test_wait_closed_waits_for_the_close_and_for_connections(stack: Stack) -> None:
    accepted = Accepted()
    server = await stack.create_server(accepted, HOST, 0)
    waiting = asyncio.ensure_future(server.wait_closed())
    transport, client = await stack.create_connection(Recorder, HOST, port_of(server))
    await accepted.get()
    transport.close()
    await client.lost
    await asyncio.sleep(0.02)
    assert not waiting.done()  # nobody is connected, but it is open
    transport, client = await stack.create_connection(Recorder, HOST, port_of(server))
    kept = await accepted.get()
    server.close()
    await asyncio.sleep(0.02)
    late = asyncio.ensure_future(server.wait_closed())
    if waits_only_while_open(stack):
        await asyncio.wait([late], timeout=PATIENCE)
    else:
        await asyncio.sleep(0.02)
    assert not waiting.done()
    assert late.done() == waits_only_while_open(stack)
    transport.close()
    await kept.lost
    await asyncio.wait_for(asyncio.gather(waiting, late), PATIENCE)
    await server.wait_closed()


async def test_cancelling_wait_closed(stack: Stack) -> None:
    server = await stack.create_server(Recorder, HOST, 0)
    waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait(waiting[1:2])
    assert server.is_serving()
    server.close()
    await asyncio.wait(waiting, timeout=PATIENCE)
    assert [one.done() and not one.cancelled() for one in waiting] == [True, False, True]


async def test_a_second_cancel_ends_a_serve_forever_that_waits_for_its_connections(stack: Stack) -> None:
    accepted = Accepted()
    server = await stack.create_server(accepted, HOST, 0)
    transport, _ = await stack.create_connection(Recorder, HOST, port_of(server))
    kept = await accepted.get()
    forever = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    forever.cancel()
    await until(lambda: not server.is_serving())
    if waits_only_while_open(stack):
        await asyncio.wait([forever], timeout=PATIENCE)
    else:
        await asyncio.sleep(0.01)
    assert forever.done() == waits_only_while_open(stack)
    forever.cancel()
    await asyncio.wait([forever], timeout=PATIENCE)
    assert forever.cancelled()
    assert not kept.transport.is_closing()
    transport.abort()
    await kept.lost


@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
async def test_the_end_of_all_clients(stack: Stack, how: str) -> None:
    accepted = Accepted()
    server = await stack.create_server(accepted, HOST, 0)
    if not hasattr(server, how):
        server.close()
        pytest.skip("asyncio's servers have it from Python 3.13 on, uvloop's not yet")
    clients = [(await stack.create_connection(Recorder, HOST, port_of(server)))[1] for _ in range(3)]
    served = [await accepted.get() for _ in clients]
    for one in served:
        one.transport.write(b"farewell")
    getattr(server, how)()
    assert server.is_serving()
    assert all(one.transport.is_closing() for one in served)
    server.close()
    await asyncio.wait_for(server.wait_closed(), PATIENCE)
    for one in served:
        assert await one.lost is None
    for client in clients:
        error = await client.lost
        if how == "close_clients":
            assert client.data == b"farewell"
        assert (error is not None) == (how == "abort_clients" and stack.is_utcp)


async def test_leaving_async_with_closes_and_waits(stack: Stack) -> None:
    async with await stack.create_server(Recorder, HOST, 0) as server:
        port = port_of(server)
        assert server.is_serving()
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await stack.create_connection(Recorder, HOST, port)


async def test_several_hosts(stack: Stack) -> None:
    hosts = ["127.0.0.1", "127.0.0.2"]
    async with await stack.create_server(Recorder, hosts, 0) as server:
        names = [sock.getsockname() for sock in server.sockets]
        assert sorted(host for host, _ in names) == hosts
        for host, port in names:
            transport, client = await stack.create_connection(Recorder, host, port)
            assert transport.get_extra_info("peername") == (host, port)
            transport.close()
            await client.lost


@pytest.mark.parametrize("host", [None, ""])
async def test_no_host_is_every_address(stack: Stack, host: str | None) -> None:
    async with await stack.create_server(Recorder, host, 0, family=socket.AF_INET) as server:
        assert server.sockets[0].getsockname()[0] == "0.0.0.0"
        transport, client = await stack.create_connection(Recorder, "127.0.0.9", port_of(server))
        assert transport.get_extra_info("peername")[0] == "127.0.0.9"
        transport.close()
        await client.lost


async def test_a_port_in_use(stack: Stack) -> None:
    async with await stack.create_server(Recorder, HOST, 0) as server:
        port = port_of(server)
        text = rf"error while attempting to bind on address \('{HOST}', {port}\): .*address already in use"
        with pytest.raises(OSError, match=text) as caught:
            await stack.create_server(Recorder, HOST, port)
        assert caught.value.errno == errno.EADDRINUSE


async def test_a_socket_of_one_s_own(stack: Stack) -> None:
    sock = socket.socket(socket.AF_INET, stack.socket_type)
    sock.bind((HOST, 0))
    port = sock.getsockname()[1]
    accepted = Accepted()
    async with await stack.create_server(accepted, sock=sock) as server:
        assert port_of(server) == port
        transport, _ = await stack.create_connection(Recorder, HOST, port)
        transport.close()
        await (await accepted.get()).lost
    await until(lambda: sock.fileno() == -1)  # it was handed over


async def test_a_socket_of_the_wrong_type(stack: Stack) -> None:
    wrong = socket.SOCK_STREAM if stack.is_utcp else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, wrong) as sock:
        text = "A bound UDP socket was expected, got" if stack.is_utcp else "A Stream Socket was expected, got"
        with pytest.raises(ValueError, match=text):
            await stack.create_server(Recorder, sock=sock)
        assert sock.fileno() != -1


@pytest.mark.parametrize(
    ("kwargs", "kind", "error"),
    [
        ({}, ValueError, "Neither host/port nor sock were specified"),
        ({"host": HOST, "port": 0, "ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
        ({"host": HOST, "port": 0, "ssl_handshake_timeout": 1.0}, ValueError, "is only meaningful with ssl"),
        ({"host": HOST, "port": 0, "ssl_shutdown_timeout": 1.0}, ValueError, "is only meaningful with ssl"),
        ({"host": "no.such.host.invalid", "port": 0}, socket.gaierror, "."),
    ],
)
async def test_arguments_that_make_no_sense(
    stack: Stack, kwargs: dict[str, Any], kind: type[Exception], error: str
) -> None:
    with pytest.raises(kind, match=error):
        await stack.create_server(Recorder, **kwargs)


async def test_a_port_that_is_none(stack: Stack) -> None:
    if not stack.is_utcp and on_uvloop():
        pytest.skip("uvloop takes it modulo 65536")
    with pytest.raises(OverflowError, match="port must be 0-65535"):
        await stack.create_server(Recorder, HOST, 70_000)


async def test_more_at_once_than_the_backlog(stack: Stack) -> None:
    """The kernel lets those wait that its queue has no place for; utcp's backlog is never that short."""
    async with stack.serving(Recorder, backlog=1) as port:
        began = asyncio.get_running_loop().time()
        attempts = [asyncio.ensure_future(stack.create_connection(Recorder, HOST, port)) for _ in range(30)]
        _, waiting = await asyncio.wait(attempts, timeout=PATIENCE if stack.is_utcp else 0.3)
        if stack.is_utcp:
            assert not waiting
        elif asyncio.get_running_loop().time() - began < 1:  # when its SYNs are repeated
            assert waiting
        for one in waiting:
            one.cancel()
        for transport, client in [one.result() for one in attempts if one.done() and not one.cancelled()]:
            transport.abort()
            await client.lost


def waits_only_while_open(stack: Stack) -> bool:
    """On uvloop, and before Python 3.12.1, ``wait_closed`` of a closed server returns at once."""
    return not stack.is_utcp and (on_uvloop() or sys.version_info < (3, 12, 1))
