"""Path MTU discovery over real links: network namespaces, virtual Ethernet, and a router that is the Linux kernel.

A client here, a router, and a server in a process of its own::

    here (near) ---- (in) router (out) ---- (far) server
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import IO, Final

import pytest

import utcp
from interop.namespace import ip, private_namespace
from support.patience import PATIENCE, UNHURRIED
from utcp.core.info import ConnectionInfo

SERVER: Final = """
    import asyncio, socket, sys, utcp

    async def handle(reader, writer):
        count = 0
        while data := await reader.read(65536):
            count += len(data)
        writer.write(str(count).encode())
        writer.close()

    async def main(host):
        async with await utcp.start_server(handle, host, 9000) as server:
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    print("begun", flush=True)
    sys.stdin.readline()  # until there is a network
    asyncio.run(main(sys.argv[1]))
"""
HOSTS: Final = {socket.AF_INET: ("10.1.0.1", "10.2.0.2"), socket.AF_INET6: ("fd01::1", "fd02::2")}
SIZE: Final = 1_000_000


class Namespace:
    """A process in a network namespace of its own."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            ["unshare", "-n", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *commands: str) -> None:
        for command in commands:
            subprocess.run(
                ["nsenter", "-t", str(self.process.pid), "-n", *command.split()], check=True, capture_output=True
            )

    def ask(self, line: str | None = None) -> str:
        """What it says next, once it was told ``line``."""
        if line is not None:
            print(line, file=_stream(self.process.stdin), flush=True)
        return _stream(self.process.stdout).readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class Way:
    """From here over the router to the server."""

    def __init__(self, family: int = socket.AF_INET) -> None:
        _, self.host = HOSTS[socket.AddressFamily(family)]
        self.router = Namespace("sh", "-c", "echo begun; read line")
        self.server = Namespace(sys.executable, "-c", textwrap.dedent(SERVER), self.host)
        try:
            assert (self.router.ask(), self.server.ask()) == ("begun", "begun")
            self._connect()
            assert self.server.ask("go") == "ready"
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        router, server = self.router, self.server
        ip(f"link add near type veth peer name in netns {router.process.pid}")
        router.run(f"ip link add out type veth peer name far netns {server.process.pid}")
        for run, device, v4, v6 in (
            (ip, "near", "10.1.0.1", "fd01::1"),
            (lambda command: router.run("ip " + command), "in", "10.1.0.2", "fd01::2"),
            (lambda command: router.run("ip " + command), "out", "10.2.0.1", "fd02::1"),
            (lambda command: server.run("ip " + command), "far", "10.2.0.2", "fd02::2"),
        ):
            run(f"address add {v4}/24 dev {device}")
            run(f"address add {v6}/64 dev {device} nodad")
            run(f"link set {device} up")
        router.run("sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv6.conf.all.forwarding=1")
        for net, via in (("10.2.0.0/24", "10.1.0.2"), ("fd02::/64", "fd01::2")):
            ip(f"route add {net} via {via}")
        server.run("ip route add 10.1.0.0/24 via 10.2.0.1", "ip route add fd01::/64 via fd02::1")

    def close(self) -> None:
        self.router.end()
        self.server.end()


@pytest.fixture
def namespace() -> Iterator[None]:
    with private_namespace():
        yield


@pytest.fixture
def way(namespace: None) -> Iterator[Way]:
    made = Way()
    yield made
    made.close()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


class Client:
    """Sends to the server; ``gso=False``: each segment is a packet of its own, as it is on real Ethernet.

    It learns from answers alone; from ``silence`` too if that is given, which a server that has to wait for a processor
    also keeps.
    """

    def __init__(self, way: Way, *, gso: bool = True, silence: bool = False) -> None:
        self.way = way
        self.gso = gso
        self.silence = silence
        self.sent = 0

    async def __aenter__(self) -> Client:
        family = socket.AF_INET6 if ":" in self.way.host else socket.AF_INET
        config = None if self.silence else utcp.Config(**UNHURRIED)
        self.endpoint = await utcp.Endpoint.create(family=family, gso=self.gso, config=config)
        self.reader, self.writer = await utcp.open_connection(self.way.host, 9000, endpoint=self.endpoint)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.endpoint.abort()

    async def send(self, size: int = SIZE) -> ConnectionInfo:
        """Send, and wait until it is acknowledged."""
        self.writer.write(bytes(size))
        self.sent += size
        await self.writer.transport.drained()
        return self.info()

    async def send_until(self, pmtu: int) -> ConnectionInfo:
        """Send as much as it takes to find out: a search pauses between its probes, however fast data leaves."""
        async with asyncio.timeout(PATIENCE):
            while (info := await self.send()).pmtu != pmtu:
                pass
        return info

    def info(self) -> ConnectionInfo:
        return self.writer.transport.info()

    async def finish(self) -> None:
        """Every byte has arrived."""
        self.writer.write_eof()
        assert int(await self.reader.read()) == self.sent
        self.writer.close()
        await self.writer.wait_closed()


async def test_the_link_s_mtu_is_found(way: Way) -> None:
    async with Client(way) as client:
        assert (client.info().pmtu, client.info().advmss) == (1228, 1452)
        info = await client.send_until(1500)
        assert info.snd_mss == 1500 - 28 - 32
        assert client.endpoint.engine.counters.mtu_probes_lost == 0
        await client.finish()


async def test_a_smaller_link_here(way: Way) -> None:
    """The system names it."""
    ip("link set near mtu 1400")
    async with Client(way) as client:
        assert client.info().advmss == 1352
        await client.send_until(1400)
        await client.finish()


async def test_a_smaller_link_there(way: Way) -> None:
    """The server's MSS names it."""
    way.server.run("ip link set far mtu 1300")
    async with Client(way) as client:
        await client.send_until(1300)
        await client.finish()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
async def test_a_router_with_a_smaller_link(namespace: None, family: int) -> None:
    """It answers probes by ICMP."""
    way = Way(family)
    try:
        way.router.run("ip link set out mtu 1300")
        async with Client(way) as client:
            await client.send_until(1300)
            counters = client.endpoint.engine.counters
            assert (counters.packets_too_big, counters.black_holes) == (1, 0)
            await client.finish()
    finally:
        way.close()


async def test_a_link_that_drops_what_is_too_large_in_silence(way: Way) -> None:
    """The router's end of the first link takes less than ours sends."""
    way.router.run("ip link set in mtu 1300")
    async with Client(way, gso=False, silence=True) as client:
        info = await client.send()
        assert 1228 <= info.pmtu <= 1300
        assert client.endpoint.engine.counters.mtu_probes_lost > 0
        await client.finish()


async def test_a_link_that_begins_to_drop_in_silence(way: Way) -> None:
    async with Client(way, gso=False, silence=True) as client:
        await client.send_until(1500)
        way.router.run("ip link set in mtu 1300")
        assert (await client.send()).pmtu <= 1300
        assert client.endpoint.engine.counters.black_holes == 1
        await client.finish()


@pytest.mark.parametrize("gso", [True, False])
async def test_a_route_that_shrinks(way: Way, gso: bool) -> None:
    """ICMP for ordinary segments."""
    async with Client(way, gso=gso) as client:
        await client.send_until(1500)
        way.router.run("ip link set out mtu 1300")
        await client.send_until(1300)
        counters = client.endpoint.engine.counters
        assert counters.packets_too_big == 1
        assert counters.black_holes == 0
        await client.finish()


@pytest.mark.parametrize("gso", [True, False])
async def test_our_own_link_shrinks(way: Way, gso: bool) -> None:
    """EMSGSIZE."""
    async with Client(way, gso=gso) as client:
        await client.send_until(1500)
        ip("link set near mtu 1300")
        await client.send_until(1300)
        assert client.endpoint.engine.counters.black_holes == 0
        await client.finish()


async def test_the_next_connection_begins_where_this_one_was(way: Way) -> None:
    async with Client(way) as client:
        await client.send_until(1500)
        _, writer = await utcp.open_connection(way.host, 9000, endpoint=client.endpoint)
        assert writer.transport.info().snd_mss == 1500 - 28 - 32
        writer.close()
        await writer.wait_closed()
        await client.finish()


async def test_the_loopback_is_known(namespace: None) -> None:
    async with await utcp.Endpoint.create(("127.0.0.1", 0)) as endpoint:
        port = endpoint.local_addr[1]
        server = await utcp.create_server(asyncio.Protocol, "127.0.0.1", port, endpoint=endpoint)
        transport, _ = await utcp.create_connection(asyncio.Protocol, "127.0.0.1", port)
        assert transport.info().pmtu == 65_535
        transport.abort()
        server.close()
