"""ECN between two sockets of the system: the field of the IP header there and back (RFC 3168 5)."""

from __future__ import annotations

import select
import socket
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, Accepted, Recorder, transport_of
from support.patience import until
from utcp.aio.datagrams import LINUX, Received, UdpSocket

pytestmark = pytest.mark.skipif(not LINUX, reason="SKIPPED: reads socket options by Linux's numbers")

SIZE = 3_000_000


def receive(end: UdpSocket) -> Received:
    select.select([end._sock], [], [], 5)
    received = end.receive()
    assert received is not None
    return received


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize("gso", [True, False])
def test_each_send_has_its_field(host: str, gso: bool) -> None:
    """... and what arrives tells it once that was asked for, beside everything else."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ours, theirs = (UdpSocket.bind(family, (host, 0), gso=gso) for _ in range(2))
    target = ("::1" if ":" in host else "127.0.0.1", theirs.local[1])
    local = ours.route(target)

    def arrive(ecn: int) -> list[Received]:
        ours.send(bytes(300), 100, local, target, ecn)
        return [receive(theirs) for _ in range(1 if gso else 3)]

    def expected(ecn: int) -> list[Received]:
        if gso:
            return [Received(bytes(300), 100, target, local, ecn)]
        return [Received(bytes(100), 0, target, local, ecn)] * 3

    try:
        assert arrive(2) == expected(0)
        theirs.report_ecn()
        theirs.report_ecn()
        for ecn in (2, 0, 1, 3):
            assert arrive(ecn) == expected(ecn)
        assert theirs.receive() is None
    finally:
        ours.close()
        theirs.close()


class Router(UdpSocket):
    """A socket behind a router that marks a share of the ECN-capable datagrams; what came is kept by ECN field."""

    marked = 0

    def receive(self) -> Received | None:
        received = super().receive()
        if received is not None and received.ecn:
            assert received.ecn == 2
            self.marked += 1
            if self.marked % 20 == 10:
                return received._replace(ecn=3)
        return received


async def endpoints(**client: Any) -> tuple[utcp.Endpoint, utcp.Endpoint]:
    """A server's, and a client's with these options."""
    made = []
    for config in ({}, client):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((HOST, 0))
        made.append(utcp.Endpoint(Router(sock), config=utcp.Config(max_segment_size=1200, **config)))
    return made[0], made[1]


def reports(endpoint: utcp.Endpoint) -> bool:
    """Whether its socket tells the ECN fields of what arrives."""
    datagrams: Any = endpoint._datagrams
    return bool(datagrams._sock.getsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS))


@pytest.mark.parametrize("upload", [True, False])
async def test_a_transfer_that_is_marked(upload: bool) -> None:
    """Who asks and who agrees, each as sender: its window is reduced, and nothing is lost."""
    server, client = await endpoints(ecn=True)
    accepted = Accepted(Recorder)
    async with server, client:
        port = server.local_addr[1]
        listening = await server.create_server(accepted, port=port)
        transport, here = await client.create_connection(Recorder, HOST, port)
        there = await accepted.get()
        assert reports(client)
        assert reports(server)
        sender, receiver = (here, there) if upload else (there, here)
        transport_of(sender).write(bytes(SIZE))
        await until(lambda: len(receiver.data) == SIZE)
        infos = transport.info(), transport_of(there).info()
        assert all(info.ecn for info in infos)
        sending, receiving = infos if upload else infos[::-1]
        assert receiving.ce_in > 0
        assert 0 < sending.ecn_reductions <= receiving.ce_in
        sender_side = client if upload else server
        assert sender_side.stats().counters.fast_recoveries == 0
        transport.abort()
        listening.close()


async def test_who_does_not_use_it_asks_the_system_for_nothing() -> None:
    server, client = await endpoints()
    async with server, client:
        port = server.local_addr[1]
        listening = await server.create_server(Recorder, port=port)
        transport, _ = await client.create_connection(Recorder, HOST, port)
        assert not transport.info().ecn
        assert not reports(server)
        assert not reports(client)
        transport.abort()
        listening.close()
