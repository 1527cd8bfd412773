"""The drop-in loop itself: which hosts go by utcp, and what a library finds there."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import pytest

import utcp
from libraries.carried import HOST, NAME, Carried, kernel_refuses
from support.patience import until
from support.recorder import Accepted, Recorder

BASES: Final = ("asyncio", "uvloop")


@pytest.fixture(params=BASES)
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Run a coroutine in a drop-in loop with these arguments."""

    def run_in(main: Coroutine[Any, Any, None], hosts: Any = None, **kwargs: Any) -> None:
        factory = partial(utcp.new_event_loop, hosts, base=request.param, **kwargs)
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main)

    return run_in


@asynccontextmanager
async def connected(host: str | None, to: str | None = None, **kwargs: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A server of the running loop on ``host``, a client that calls it by the same name or another: the protocols."""
    loop = asyncio.get_running_loop()
    accepted = Accepted(Recorder)
    server = await loop.create_server(accepted, host, 0)
    port = server.sockets[0].getsockname()[1]
    _, client = await loop.create_connection(Recorder, to or host, port, **kwargs)
    other = await accepted.get()
    try:
        yield client, other
    finally:
        server.close()
        for one in (client, other):
            one.transport.abort()
            await one.lost
        await server.wait_closed()


def by_utcp(protocol: Recorder) -> bool:
    return isinstance(protocol.transport, utcp.Transport)


# Which hosts


@pytest.mark.parametrize("host", [NAME, "127.0.0.1.UTCP", "localhost.utcp", "localhost.utcp."])
async def test_the_ending(host: str, carried: Carried) -> None:
    async with connected(host) as (client, server):
        assert by_utcp(client) and by_utcp(server)
        client.transport.write(b"hello")
        assert await server.received(5) == b"hello"
        assert carried.bytes == 5


async def test_ipv6() -> None:
    async with connected("::1.utcp") as (client, _):
        assert by_utcp(client)
        assert client.transport.get_extra_info("peername")[0] == "::1"
        assert client.transport.get_extra_info("socket").family == socket.AF_INET6


async def test_all_interfaces_by_their_address() -> None:
    async with connected("0.0.0.0.utcp", NAME) as (client, server):
        assert by_utcp(client) and by_utcp(server)


@pytest.mark.parametrize("host", [HOST, "localhost"])
async def test_other_hosts_stay_with_the_kernel(host: str, carried: Carried) -> None:
    async with connected(host) as (client, server):
        assert not by_utcp(client) and not by_utcp(server)
        assert carried.connections == 0
        assert not kernel_refuses(client.transport.get_extra_info("peername")[1])


@pytest.mark.parametrize("host", [HOST, "localhost", "LOCALHOST"])
def test_by_address(run: Callable[..., None], host: str) -> None:
    """Spelled so, or by a name that stands for it."""

    async def main() -> None:
        async with connected(host) as (client, server):
            assert by_utcp(client) and by_utcp(server)
        async with connected(NAME) as (client, server):
            assert by_utcp(client) and by_utcp(server)
        async with connected("127.0.0.2") as (client, server):
            assert not by_utcp(client) and not by_utcp(server)

    run(main(), {HOST})


def test_by_name(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with connected("localhost") as (client, server):
            assert by_utcp(client) and by_utcp(server)
        async with connected(HOST) as (client, server):
            assert not by_utcp(client) and not by_utcp(server)

    run(main(), ["LocalHost."])


def test_by_another_spelling_of_an_address(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with connected("::1") as (client, _):
            assert by_utcp(client)

    run(main(), {"0:0::0:1"})


def test_by_a_function(run: Callable[..., None]) -> None:
    asked = []

    def choose(host: str, port: object) -> bool:
        asked.append((host, port))
        return host in ("", HOST)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with connected(None, HOST) as (client, server):
            assert by_utcp(client) and by_utcp(server)
        assert ("", 0) in asked
        async with connected("127.0.0.2") as (client, server):
            assert not by_utcp(client)
        with pytest.raises(socket.gaierror):
            await loop.create_connection(Recorder, "no-such-host.invalid", 1)

    run(main(), choose)


async def test_a_server_goes_one_way() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="not by both"):
        await loop.create_server(Recorder, [HOST, NAME], 0)
    server = await loop.create_server(Recorder, [NAME, "127.0.0.2.utcp"], 0)
    assert [one.getsockname()[0] for one in server.sockets] == [HOST, "127.0.0.2"]
    server.close()


def test_bad_arguments() -> None:
    for hosts in ("localhost", 5):
        with pytest.raises(TypeError, match="hosts must be a collection of hosts or a function"):
            utcp.new_event_loop(hosts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'tornado' is not 'uvloop' or 'asyncio'"):
        utcp.new_event_loop(base="tornado")  # type: ignore[arg-type]


@pytest.mark.parametrize(("base", "module"), [(None, "uvloop"), ("uvloop", "uvloop"), ("asyncio", "asyncio")])
def test_the_loop_underneath(base: Literal["uvloop", "asyncio"] | None, module: str) -> None:
    loop = utcp.new_event_loop(base=base)
    try:
        assert [one.__module__.partition(".")[0] for one in type(loop).__mro__[2:3]] == [module]
    finally:
        loop.close()


def test_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = utcp.new_event_loop()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()
    with pytest.raises(ImportError):
        utcp.new_event_loop(base="uvloop")


def test_the_config(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with connected(NAME) as (client, server):
            for one in (client, server):
                assert one.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1

    run(main(), config=utcp.Config(keepalive=True))


# What asyncio has on top


async def test_streams() -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    async with await asyncio.start_server(upper, NAME, 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(NAME, port)
        assert isinstance(writer.transport, utcp.Transport)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"HELLO"
        writer.close()
        await writer.wait_closed()
        assert (await writer.transport.closed()).reason == "graceful"


async def test_utcps_own_functions_know_the_ending() -> None:
    async with await utcp.start_server(lambda _, writer: writer.close(), "localhost.utcp", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await utcp.open_connection("localhost.utcp", port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("host", [NAME, HOST])
async def test_sendfile(host: str, tmp_path: Path) -> None:
    """Over utcp on both loops; over the kernel as the base loop does, and uvloop does not."""
    loop = asyncio.get_running_loop()
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1_000_000))
    async with connected(host) as (client, server):
        with path.open("rb") as file:
            if not by_utcp(client) and type(loop).__mro__[2].__module__ == "uvloop":
                with pytest.raises(NotImplementedError):
                    await loop.sendfile(client.transport, file)
                return
            assert await loop.sendfile(client.transport, file) == 1_000_000
            assert await server.received(1_000_000) == path.read_bytes()
            assert await loop.sendfile(client.transport, file, 999_000, 500) == 500
            assert (await server.received(1_000_500))[1_000_000:] == path.read_bytes()[999_000:999_500]
            if by_utcp(client):
                with pytest.raises(RuntimeError, match="fallback is disabled"):
                    await loop.sendfile(client.transport, file, fallback=False)


@pytest.mark.parametrize("host", [NAME, HOST])
async def test_start_tls(host: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    async with connected(host) as (client, server):
        hostname = "localhost.utcp" if by_utcp(client) else "localhost"
        client.transport, server.transport = await asyncio.gather(
            loop.start_tls(client.transport, client, client_tls, server_hostname=hostname),
            loop.start_tls(server.transport, server, server_tls, server_side=True),
        )
        client.transport.write(b"secret")
        assert await server.received(6) == b"secret"
        assert client.transport.get_extra_info("peercert") is not None
        assert by_utcp(client) == (host == NAME)


# For libraries that resolve and connect by themselves


async def test_getaddrinfo_leaves_the_ending() -> None:
    loop = asyncio.get_running_loop()
    plain = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    marked = await loop.getaddrinfo("localhost.utcp", 80, type=socket.SOCK_STREAM)
    assert [info[4][0] for info in marked] == [f"{info[4][0]}.utcp" for info in plain]
    assert [info[:4] + info[4][1:] for info in marked] == [info[:4] + info[4][1:] for info in plain]
    assert await loop.getaddrinfo(b"127.0.0.1.utcp", 80, type=socket.SOCK_STREAM) == [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (NAME, 80))
    ]
    datagrams = await loop.getaddrinfo("localhost.utcp", 80, type=socket.SOCK_DGRAM)
    assert all(not str(info[4][0]).endswith("utcp") for info in datagrams)


async def test_datagrams_to_a_name_with_the_ending() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(HOST, 9))
    transport.close()
    assert (await loop.getaddrinfo("localhost.utcp", 9, type=socket.SOCK_DGRAM))[0][4][1] == 9


async def test_a_socket_that_is_connected_first(carried: Carried) -> None:
    """As aiohttp does: ``sock_connect``, then ``create_connection(sock=...)``."""
    loop = asyncio.get_running_loop()
    async with connected(NAME) as (client, _):
        port = client.transport.get_extra_info("peername")[1]
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, (NAME, port))
        _, protocol = await loop.create_connection(Recorder, sock=sock)
        assert by_utcp(protocol)
        assert (sock.fileno(), carried.connections) == (-1, 2)
        protocol.transport.abort()


async def test_a_socket_that_is_connected_to_nobody(udp_socket: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    port = udp_socket.getsockname()[1]
    udp_socket.close()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, (NAME, port))
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(Recorder, sock=sock)
    assert sock.fileno() == -1


async def test_a_kernel_socket_stays_one() -> None:
    loop = asyncio.get_running_loop()
    async with connected(HOST) as (client, _):
        port = client.transport.get_extra_info("peername")[1]
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, (HOST, port))
        _, protocol = await loop.create_connection(Recorder, sock=sock)
        assert not by_utcp(protocol)
        protocol.transport.abort()
        await protocol.lost


async def test_udp_sockets(udp_socket: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    accepted = Accepted(Recorder)
    server = await loop.create_server(accepted, sock=udp_socket)
    mine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mine.connect(udp_socket.getsockname())
    _, client = await loop.create_connection(Recorder, sock=mine)
    assert by_utcp(client) and by_utcp(await accepted.get())
    client.transport.abort()
    server.close()


# The stand-in for the socket


async def test_addresses_of_the_socket() -> None:
    async with connected(NAME) as (client, server):
        one, other = (end.transport.get_extra_info("socket") for end in (client, server))
        assert one.getpeername() == other.getsockname()
        assert one.getsockname() == other.getpeername()
        assert (one.family, one.type, one.proto) == (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        assert one.gettimeout() == 0
        one.setblocking(False)
        with pytest.raises(ValueError, match="cannot be blocking"):
            one.setblocking(True)
        assert repr(one.getsockname()) in repr(one)


def readable(sock: Any) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


async def test_polling_the_socket() -> None:
    async with connected(NAME) as (client, server):
        sock = server.transport.get_extra_info("socket")
        server.transport.pause_reading()
        assert not readable(sock)
        client.transport.write(b"hello")
        await client.transport.drained()
        assert readable(sock) and readable(sock)
        server.transport.resume_reading()
        await server.received(5)
        assert not readable(sock)
        server.transport.pause_reading()
        client.transport.write_eof()
        await until(partial(readable, sock))
        assert readable(sock)
        descriptor = sock.fileno()
        server.transport.close()
        assert sock.fileno() == -1
        del sock
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_options_of_the_socket() -> None:
    async with connected(NAME) as (client, _):
        sock = client.transport.get_extra_info("socket")
        for level, option, value in [
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 0),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
            (socket.SOL_SOCKET, socket.SO_RCVBUF, 300_000),
            (socket.SOL_SOCKET, socket.SO_SNDBUF, 300_000),
        ]:
            sock.setsockopt(level, option, value)
            assert sock.getsockopt(level, option) == value
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            for milliseconds in (1500, 0):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds
        for linger in (struct.pack("ii", 1, 5), struct.pack("ii", 0, 0)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == linger
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        with pytest.raises(OSError, match="utcp has no socket option") as caught:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        assert caught.value.errno == errno.ENOPROTOOPT
        with pytest.raises(OSError, match="keepalive_count") as caught:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1000)
        assert caught.value.errno == errno.EINVAL


def test_import_utcp_imports_no_library() -> None:
    libraries = {"aiohttp", "anyio", "httpx", "uvicorn", "websockets"}
    program = f"import sys, utcp; utcp.new_event_loop; print({libraries!r} & sys.modules.keys())"
    env = {**os.environ, "PYTHONPATH": str(Path(utcp.__file__).parents[1])}
    assert (
        subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True).stdout == b"set()\n"
    )


def test_another_loop_gives_no_socket() -> None:
    """Only a drop-in loop has a stand-in for it."""

    async def main() -> None:
        server = await utcp.create_server(Recorder, HOST, 0)
        transport, _ = await utcp.create_connection(Recorder, HOST, server.sockets[0].port)
        assert transport.get_extra_info("socket") is None
        transport.abort()
        server.close()

    asyncio.run(main())
