"""Endpoints: owning the socket, connecting without awaiting, closing, and the pump's manners."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, Accepted, Echo, Recorder, serving, settled, transport_of
from support.patience import PATIENCE, UNHURRIED
from utcp.aio.addresses import Address
from utcp.aio.datagrams import Received, UdpSocket


async def test_connect_without_awaiting() -> None:
    async with serving(Echo) as port, await utcp.Endpoint.create((HOST, 0)) as endpoint:
        recorder = Recorder()
        transport = endpoint.connect(lambda: recorder, (HOST, port))
        assert transport.state is utcp.State.SYN_SENT
        assert recorder.events == []
        assert await recorder.made is transport
        transport.write_eof()
        assert await recorder.lost is None


async def test_connect_that_fails_tells_the_protocol() -> None:
    async with serving(Echo) as port, await utcp.Endpoint.create((HOST, 0)) as endpoint:
        recorder = Recorder()
        endpoint.connect(lambda: recorder, (HOST, port), 7)
        assert isinstance(await recorder.lost, ConnectionRefusedError)
        assert recorder.events == ["lost"]
        recorder = Recorder()
        endpoint.connect(lambda: recorder, (HOST, port)).abort()
        assert await recorder.lost is None


async def test_connect_with_arguments_that_make_no_sense() -> None:
    async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
        with pytest.raises(ValueError, match="'localhost' is not an IPv4 or IPv6 address"):
            endpoint.connect(Recorder, ("localhost", 9))
        with pytest.raises(ValueError, match="port"):
            endpoint.connect(Recorder, (HOST, 9), 0)
        with pytest.raises(OSError, match="is not the endpoint's address"):
            endpoint.connect(Recorder, (HOST, 9), local_addr=("127.0.0.2", 0))
        assert endpoint.stats().states == {}
    with pytest.raises(RuntimeError, match="Endpoint is closed"):
        endpoint.connect(Recorder, (HOST, 9))


async def test_server_and_clients_over_one_endpoint() -> None:
    async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
        server = await endpoint.create_server(Echo)
        port = endpoint.local_addr[1]
        assert server.sockets[0].getsockname() == (HOST, port)
        second = await endpoint.create_server(Echo, "localhost", 81)
        with pytest.raises(ValueError, match="is not the endpoint's"):
            await endpoint.create_server(Echo, "127.0.0.2", 82)
        for tcp_port in (port, 81):
            _, client = await endpoint.create_connection(Recorder, HOST, tcp_port, udp_port=port)
            client.transport.write(b"to myself")
            assert await client.received(9) == b"to myself"
            client.transport.close()
            assert await client.lost is None
        assert second.is_serving()
    assert not server.is_serving()
    assert not second.is_serving()


async def test_stats() -> None:
    async with serving(Echo) as port, await utcp.Endpoint.create((HOST, 0)) as endpoint:
        _, client = await endpoint.create_connection(Recorder, HOST, port)
        client.transport.write(b"x")
        await client.received(1)
        stats = endpoint.stats()
        assert stats.states == {utcp.State.ESTABLISHED: 1}
        assert stats.counters.segments_out >= 3
        assert 1 <= stats.wakeups <= 4
        assert stats.congestions == 0
        assert stats.datagrams["receive_buffer"] > 100_000
        assert stats.datagrams["send_calls"] >= 2


async def test_stats_of_a_closed_endpoint() -> None:
    endpoint = await utcp.Endpoint.create((HOST, 0))
    await endpoint.aclose()
    assert endpoint.stats().states == {}
    assert endpoint.stats().datagrams["receive_buffer"] > 0
    assert "closed" in repr(endpoint)


async def test_aclose_flushes() -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
            transport, client = await endpoint.create_connection(Recorder, HOST, port)
            transport.write(bytes(2_000_000))
        assert await client.lost is None
        server = await accepted.get()
        await server.lost
        assert len(server.data) == 2_000_000
        assert not endpoint.is_open
        assert endpoint.is_closing()
        assert endpoint.stats().datagrams["receive_buffer"] > 0


async def test_aclose_is_bounded() -> None:
    """A peer that reads nothing does not hold the endpoint for longer than its time-out."""
    accepted = Accepted()
    async with serving(accepted) as port:
        endpoint = await utcp.Endpoint.create((HOST, 0))
        endpoint.shutdown_timeout = 0.2
        transport, client = await endpoint.create_connection(Recorder, HOST, port)
        server = await accepted.get()
        transport_of(server).pause_reading()
        transport.write(bytes(8_000_000))
        async with asyncio.timeout(PATIENCE):
            await endpoint.aclose()
        await client.lost
        assert (await transport.closed()).unacked_bytes > 0
        transport_of(server).resume_reading()
        assert isinstance(await server.lost, ConnectionResetError)


async def test_cancelling_aclose_leaves_it_to_go_on() -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        endpoint = await utcp.Endpoint.create((HOST, 0))
        transport, client = await endpoint.create_connection(Recorder, HOST, port)
        transport.write(bytes(2_000_000))
        closing = asyncio.ensure_future(endpoint.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await endpoint.aclose()
        assert not endpoint.is_open
        assert await client.lost is None
        server = await accepted.get()
        assert await server.lost is None
        assert len(server.data) == 2_000_000


async def test_lingering_in_time_wait() -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        for time_wait, msl in (("linger", 0.2), ("discard", 3600.0)):
            endpoint = await utcp.Endpoint.create((HOST, 0), config=utcp.Config(msl=msl))
            await endpoint.create_connection(Recorder, HOST, port)
            begun = time.monotonic()
            async with asyncio.timeout(PATIENCE):
                await endpoint.aclose(time_wait=time_wait)  # type: ignore[arg-type]
            assert time.monotonic() - begun >= 0.38 or time_wait == "discard"
    with pytest.raises(ValueError, match="time_wait"):
        await endpoint.aclose(time_wait="maybe")  # type: ignore[arg-type]


async def test_abort() -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        endpoint = await utcp.Endpoint.create((HOST, 0))
        await endpoint.create_server(Echo)
        _, client = await endpoint.create_connection(Recorder, HOST, port)
        server = await accepted.get()
        endpoint.abort()
        endpoint.abort()
        assert await client.lost is None
        assert isinstance(await server.lost, ConnectionResetError)
        assert not endpoint.is_open


async def test_arguments_of_create() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        with pytest.raises(OSError, match="error while attempting to bind on address"):
            await utcp.Endpoint.create(sock.getsockname())
        with pytest.raises(ValueError, match="can not be specified at the same time"):
            await utcp.Endpoint.create((HOST, 0), sock=sock)
    async with await utcp.Endpoint.create() as endpoint:
        assert endpoint.local_addr[0] == "0.0.0.0"
    async with await utcp.Endpoint.create(family=socket.AF_INET6) as endpoint:
        assert endpoint.local_addr[0] == "::"
        assert endpoint.family == socket.AF_INET6


async def test_a_loop_without_add_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_reader(*args: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)
    with pytest.raises(NotImplementedError, match="SelectorEventLoop"):
        await utcp.Endpoint.create((HOST, 0))


async def test_garbage_is_counted_and_nothing_else() -> None:
    random_bytes = random.Random(1).randbytes
    async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
        await endpoint.create_server(Echo)
        port = endpoint.local_addr[1]
        transport, client = await utcp.create_connection(Recorder, HOST, port)
        garbage = [b"", b"x", random_bytes(19), bytes(20), random_bytes(65_507)]
        garbage += [random_bytes(size) for size in range(1, 400, 7)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for datagram in garbage:
                sock.sendto(datagram, (HOST, port))
            transport.write(b"still alive")
            assert await client.received(11) == b"still alive"
        counters = endpoint.stats().counters
        assert counters.segments_in >= len(garbage)
        assert counters.drops["too-short"] >= 4
        transport.close()
        await client.lost


async def test_answers_leave_from_the_address_that_was_asked() -> None:
    async with await utcp.Endpoint.create(("0.0.0.0", 0)) as endpoint:
        accepted = Accepted()
        await endpoint.create_server(accepted)
        port = endpoint.local_addr[1]
        for host in ("127.0.0.5", "127.0.0.6"):
            transport, _ = await utcp.create_connection(Recorder, host, port)
            server = await accepted.get()
            assert transport_of(server).get_extra_info("udp_sockname") == (host, port)
            transport.abort()


async def test_a_thousand_connections_at_once() -> None:
    config = utcp.Config(**UNHURRIED)
    async with serving(Echo, config=config) as port, await utcp.Endpoint.create((HOST, 0), config=config) as endpoint:
        clients = [Recorder() for _ in range(1000)]
        for client in clients:
            endpoint.connect(lambda client=client: client, (HOST, port))  # type: ignore[misc]
        for client in clients:
            transport = await client.made
            transport.write(b"hello")
        assert endpoint.stats().states == {utcp.State.ESTABLISHED: 1000}
        for client in clients:
            assert await client.received(5) == b"hello"
            transport_of(client).close()
        for client in clients:
            assert await client.lost is None
        assert endpoint.stats().counters.retransmissions == 0


@pytest.mark.parametrize("off", ["gso", "gro", "both"])
async def test_without_batching(off: str) -> None:
    gso, gro = off == "gro", off == "gso"
    async with (
        await utcp.Endpoint.create((HOST, 0), gso=gso, gro=gro) as ours,
        await utcp.Endpoint.create((HOST, 0), gso=gso, gro=gro) as theirs,
    ):
        accepted = Accepted()
        await theirs.create_server(accepted)
        config = utcp.Config(max_segment_size=1000)
        transport, client = await ours.create_connection(Recorder, HOST, theirs.local_addr[1], config=config)
        transport.write(bytes(500_000))
        transport.close()
        server = await accepted.get()
        await server.lost
        assert len(server.data) == 500_000
        assert await client.lost is None
        if not gso:
            assert ours.stats().datagrams["send_calls"] >= 500
        else:
            assert ours.stats().datagrams["send_calls"] < 250


class Congested:
    """A network that takes datagrams only while it is open."""

    def __init__(self, inner: UdpSocket) -> None:
        self.inner = inner
        self.is_open = True
        self.calls = 0
        self.writable: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def send(self, payload: bytes, segment_size: int, local: Address, peer: Address, ecn: int = 0) -> int:
        self.calls += 1
        if not self.is_open:
            return 0
        # Half at a time: the rest of a train has to follow
        size = max(segment_size, len(payload) // 2 // segment_size * segment_size)
        return self.inner.send(payload[:size], segment_size, local, peer, ecn)

    def wait_writable(self, writable: Callable[[], None] | None) -> None:
        self.writable = writable


async def test_a_congested_network_gets_nothing_more_until_it_is_writable() -> None:
    async with serving(Echo) as port:
        network = Congested(UdpSocket.bind(socket.AF_INET, (HOST, 0)))
        endpoint = utcp.Endpoint(network)
        transport, client = await endpoint.create_connection(
            Recorder, HOST, port, config=utcp.Config(max_segment_size=1000)
        )
        network.is_open = False
        before = network.calls
        for _ in range(20):
            transport.write(bytes(10_000))
            await asyncio.sleep(0.001)
        assert network.calls == before + 1
        assert endpoint.stats().congestions >= 1
        network.is_open = True
        while len(client.data) < 200_000:
            if network.writable is not None:
                network.writable()
            await asyncio.sleep(0)
        endpoint.abort()
        await client.lost


async def test_a_blocked_loop_does_not_retransmit_what_is_acknowledged() -> None:
    """The acknowledgments wait in the socket while the loop is busy for longer than the retransmission timeout."""
    port = asyncio.get_running_loop().create_future()
    acknowledged = threading.Event()
    done = threading.Event()
    main = asyncio.get_running_loop()

    async def serve() -> None:
        async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
            accepted = Accepted()
            await endpoint.create_server(accepted)
            main.call_soon_threadsafe(port.set_result, endpoint.local_addr[1])
            for _ in range(200):
                await (await accepted.get()).received(1000)
            await settled(endpoint)  # no acknowledgment is delayed any more
            acknowledged.set()
            await asyncio.to_thread(done.wait)
            endpoint.abort()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
            transports = [(await endpoint.create_connection(Recorder, HOST, await port))[0] for _ in range(200)]
            for transport in transports:
                transport.write(bytes(1000))
            await asyncio.sleep(0)
            assert endpoint.stats().counters.segments_out >= 3 * len(transports)  # it has left
            acknowledged.wait(PATIENCE)
            time.sleep(0.3)  # noqa: ASYNC251
            await asyncio.gather(*[transport.drained() for transport in transports])
            assert endpoint.stats().counters.retransmissions == 0
    finally:
        done.set()
        thread.join()


async def test_an_idle_endpoint_sleeps() -> None:
    accepted = Accepted()
    async with serving(accepted) as port, await utcp.Endpoint.create((HOST, 0)) as endpoint:
        clients = [(await endpoint.create_connection(Recorder, HOST, port))[1] for _ in range(100)]
        await settled(endpoint)
        before = endpoint.stats().wakeups
        await asyncio.sleep(0.3)
        assert endpoint.stats().wakeups == before
        for client in clients:
            client.transport.abort()


class Flood:
    """A network on which there is always one more datagram."""

    def __init__(self, inner: UdpSocket) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def receive(self) -> Received:
        return Received(b"noise", 0, self.inner.local, ("127.0.0.2", 9))


async def test_a_flood_stops_neither_timers_nor_the_loop() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, 0))
        endpoint = utcp.Endpoint(Flood(UdpSocket.bind(socket.AF_INET, (HOST, 0))))
        silent.sendto(b"wake up", endpoint.local_addr)
        with pytest.raises(TimeoutError):
            await endpoint.create_connection(Recorder, *silent.getsockname(), connect_timeout=0.1)
        await asyncio.sleep(0)
        endpoint.abort()


async def test_an_interrupt_in_a_callback_is_nobody_else_s_loss() -> None:
    """KeyboardInterrupt leaves the loop; whoever was to be told in the same turn is told when it runs again."""

    def run(port: int) -> list[str]:
        class Interrupted(asyncio.Protocol):
            def connection_lost(self, exc: BaseException | None) -> None:
                raise KeyboardInterrupt

        async def connect() -> tuple[utcp.Endpoint, list[Recorder]]:
            endpoint = await utcp.Endpoint.create((HOST, 0))
            recorders = [Recorder() for _ in range(3)]
            endpoint.connect(Interrupted, (HOST, port), 7)
            for recorder in recorders:
                endpoint.connect(lambda recorder=recorder: recorder, (HOST, port), 7)  # type: ignore[misc]
            return endpoint, recorders

        async def wait() -> None:
            for recorder in recorders:
                assert isinstance(await recorder.lost, ConnectionRefusedError)

        loop = asyncio.new_event_loop()
        try:
            endpoint, recorders = loop.run_until_complete(connect())
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.sleep(5))
            loop.run_until_complete(wait())
            loop.run_until_complete(endpoint.aclose())
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        return [event for recorder in recorders for event in recorder.events]

    async with serving(Echo) as port:
        assert await asyncio.to_thread(run, port) == ["lost"] * 3


async def test_two_loops_in_two_threads() -> None:
    def run() -> bytes:
        async def main() -> bytes:
            async with serving(Echo) as port:
                transport, client = await utcp.create_connection(Recorder, HOST, port)
                transport.write(b"x")
                received: bytes = await client.received(1)
                return received

        return asyncio.run(main())

    results = await asyncio.gather(asyncio.to_thread(run), asyncio.to_thread(run))
    assert list(results) == [b"x", b"x"]
