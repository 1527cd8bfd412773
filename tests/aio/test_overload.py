"""Too much at once: sockets that overflow or refuse, peers that never read, a blocked loop, many who are idle."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, Accepted, Echo, Recorder, serving, settled, transport_of
from support.patience import until
from utcp.aio.addresses import Address
from utcp.aio.datagrams import Received, UdpSocket

IDLE = 5_000  # connections, both of whose ends are one endpoint's
WATCHED = 0.5  # seconds


async def test_ten_thousand_idle_connections_wake_nobody() -> None:
    async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
        await endpoint.create_server(Echo)
        clients: list[Recorder] = []

        def client() -> Recorder:
            clients.append(Recorder())
            return clients[-1]

        for _ in range(IDLE // 500):
            for _ in range(500):
                endpoint.connect(client, endpoint.local_addr)
            wanted = len(clients) + 500
            await until(lambda wanted=wanted: len(clients) == wanted)  # type: ignore[misc]
        await settled(endpoint)
        states = endpoint.stats().states
        assert states[utcp.State.ESTABLISHED] == 2 * IDLE
        before, began = endpoint.stats().wakeups, time.process_time()
        await asyncio.sleep(WATCHED)
        assert endpoint.stats().wakeups == before
        assert time.process_time() - began < WATCHED / 2  # the loop has nothing of ours to go round for either
        # One of them says something: request, answer, acknowledgments, and each of their timers once
        transport_of(clients[0]).write(b"still there?")
        await until(lambda: clients[0].data == b"still there?")
        await settled(endpoint)
        assert 2 <= endpoint.stats().wakeups - before <= 12
        before = endpoint.stats().wakeups
        await asyncio.sleep(WATCHED)
        assert endpoint.stats().wakeups == before
        endpoint.abort()


async def test_a_peer_that_never_reads() -> None:
    """What is on its way is bounded by the buffers at both ends, and probing its window is all that goes on."""
    config = utcp.Config(receive_buffer=65_536)
    accepted = Accepted()
    async with (
        await utcp.Endpoint.create((HOST, 0), config=config) as theirs,
        await utcp.Endpoint.create((HOST, 0)) as ours,
    ):
        await theirs.create_server(accepted)
        transport, client = await ours.create_connection(Recorder, HOST, theirs.local_addr[1])
        server = await accepted.get()
        transport_of(server).pause_reading()
        chunk, written = bytes(16_384), 0
        while transport.get_write_buffer_size() < 65_536 or client.events.count("pause") == client.events.count(
            "resume"
        ):
            transport.write(chunk)
            written += len(chunk)
            assert written < 1_000_000
            await asyncio.sleep(0.001)
        before = ours.stats().wakeups
        await asyncio.sleep(1.0)
        assert theirs.stats().memory <= 65_536
        assert ours.stats().wakeups - before <= 10  # RFC 9293 3.8.6.1: probes, further and further apart
        transport_of(server).resume_reading()
        await server.received(written)
        assert len(server.data) == written


async def test_a_receive_buffer_that_overflows() -> None:
    """What the system drops is sent again; nothing else is lost, and nothing arrives twice."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        datagrams = UdpSocket(sock, gso=False, gro=False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # two datagrams
        async with utcp.Endpoint(datagrams) as theirs, await utcp.Endpoint.create((HOST, 0), gso=False) as ours:
            accepted = Accepted()
            await theirs.create_server(accepted)
            config = utcp.Config(max_segment_size=1000, rto_min=0.02)
            clients = [
                await ours.create_connection(Recorder, HOST, theirs.local_addr[1], config=config) for _ in range(10)
            ]
            for number, (transport, _) in enumerate(clients):
                transport.write(bytes([number]) * 20_000)
                transport.close()
            for _, client in clients:
                assert await client.lost is None
            servers = [await accepted.get() for _ in clients]
            assert sorted(bytes(server.data) for server in servers) == [bytes([n]) * 20_000 for n in range(10)]
            assert ours.stats().counters.retransmissions > 0


class Reluctant:
    """A socket that mostly says EAGAIN, takes half of a train when it does not, and soon says that it is writable."""

    def __init__(self, inner: UdpSocket, rng: random.Random) -> None:
        self.inner = inner
        self.rng = rng
        self.refusals = 0
        self.writable: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def send(self, payload: bytes, segment_size: int, local: Address, peer: Address, ecn: int = 0) -> int:
        if self.rng.random() < 0.8:
            self.refusals += 1
            return 0
        size = max(segment_size, len(payload) // 2 // segment_size * segment_size)
        return self.inner.send(payload[:size], segment_size, local, peer, ecn)

    def wait_writable(self, writable: Callable[[], None] | None) -> None:
        self.writable = writable
        if writable is not None:
            asyncio.get_running_loop().call_later(0.0005, self.tell)

    def tell(self) -> None:
        if self.writable is not None:
            self.writable()
            if self.writable is not None:
                asyncio.get_running_loop().call_later(0.0005, self.tell)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_socket_that_mostly_refuses(seed: int) -> None:
    network = Reluctant(UdpSocket.bind(socket.AF_INET, (HOST, 0)), random.Random(seed))
    async with serving(Echo) as port:
        endpoint = utcp.Endpoint(network)
        config = utcp.Config(max_segment_size=1000)
        clients = [await endpoint.create_connection(Recorder, HOST, port, config=config) for _ in range(20)]
        for transport, _ in clients:
            transport.write(bytes(20_000))
            transport.write_eof()
        for _, client in clients:
            assert await client.lost is None
            assert bytes(client.data) == bytes(20_000)
        assert network.refusals > 50
        assert endpoint.stats().congestions > 20
        endpoint.abort()


class Backlog:
    """Trains of noise in front of what the socket has, the first of which takes long to come."""

    def __init__(self, inner: UdpSocket) -> None:
        self.inner = inner
        self.trains = 0
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def receive(self) -> Received | None:
        if self.trains == 0:
            return self.inner.receive()
        self.trains -= 1
        time.sleep(self.seconds)
        self.seconds = 0.0
        return Received(bytes(32), 1, self.inner.local, ("127.0.0.2", 9))


async def test_deadlines_come_after_a_queue_that_tasks_interrupt() -> None:
    """However often tasks run before its end is reached: what it acknowledges is not sent again."""
    queue = Backlog(UdpSocket.bind(socket.AF_INET, (HOST, 0)))
    async with serving(Echo) as port:
        endpoint = utcp.Endpoint(queue)
        transport, client = await endpoint.create_connection(Recorder, HOST, port)
        await settled(endpoint)
        assert endpoint.engine.stack.acks_could_wait  # tasks are who answers
        before = endpoint.stats()
        queue.trains, queue.seconds = 2_000, 0.5  # more than the RTO
        transport.write(b"once")
        await client.received(4)
        after = endpoint.stats()
        assert after.wakeups - before.wakeups > 500
        assert after.counters.retransmissions == 0
        endpoint.abort()


class Retransmissions(utcp.Observer):
    """When the retransmission timers fired (ns), by local port."""

    def __init__(self) -> None:
        self.fired: defaultdict[int, list[int]] = defaultdict(list)

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        if name == "retransmit":
            self.fired[local_port].append(now)


async def test_timers_that_came_due_while_the_loop_was_blocked() -> None:
    timers = Retransmissions()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, 0))
        async with await utcp.Endpoint.create((HOST, 0), observer=timers) as endpoint:
            config = utcp.Config(rto_initial=0.1)
            attempts = [
                asyncio.ensure_future(
                    endpoint.create_connection(Recorder, *silent.getsockname(), connect_timeout=after, config=config)
                )
                for after in (0.05, 0.06, 3600.0)
            ]
            await until(lambda: endpoint.stats().counters.segments_out >= 3)
            time.sleep(1.0)  # noqa: ASYNC251
            await asyncio.wait(attempts[:2])
            done, pending = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
            assert [one in done for one in attempts] == [True, True, False]
            assert all(isinstance(one.exception(), TimeoutError) for one in done)
            # The third has sent what was due once, not once for each time-out that it slept through
            await until(lambda: len(timers.fired) == 3)
            for fired in timers.fired.values():
                assert all(later - sooner >= 100_000_000 for sooner, later in pairwise(fired))
            for one in pending:
                one.cancel()
            await asyncio.wait(pending)
