"""Path MTU discovery end to end: two engines, or two asyncio programs, and links that carry less than they should."""

from __future__ import annotations

import asyncio

import pytest

import utcp
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.observer import Observer
from utcp.core.paths import PathError
from utcp.sim import Network, run
from utcp.sim.host import Host
from utcp.sim.link import Fate

DELAY = 0.02
RTT = 2 * DELAY
BASE_MTU = 1228
WINDOW = 40_000  # of the receiver: no queue grows, so that nothing is lost but what is too big


class Watch(Observer):
    def __init__(self) -> None:
        super().__init__()
        self.mtus: list[tuple[float, int, int]] = []
        self.timers: list[str] = []

    def path_mtu(self, now: int, path: int, old: int, new: int) -> None:
        self.mtus.append((now / 1e9, old, new))

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.timers.append(name)


class Transfer:
    """Bytes from a client to a server, both with a link of ``link`` bytes."""

    def __init__(self, network: Network, link: int, size: int = 400_000) -> None:
        self.network = network
        self.watch = Watch()
        self.client = network.host("client", mtu=link, discover_mtu=True, observer=self.watch)
        self.server = network.host("server", Config(receive_buffer=WINDOW), mtu=link, discover_mtu=True)
        self.sent = bytes(i * i & 255 for i in range(size))
        self.received = bytearray()
        self.server.listen(80, accept=lambda _connection: self._on_server_ready)
        self.connection: Connection = self.client.connect(self.server, 80)
        self.connection.send(self.sent, self.network.now)

    def _on_server_ready(self, connection: Connection, bits: int) -> None:
        self.received += connection.receive()

    def finish(self, limit: float = 100.0) -> float:
        """Until everything has arrived, unchanged. Returns how many seconds that took."""
        begun = self.network.now
        assert self.network.run_until(lambda: len(self.received) >= len(self.sent), limit=limit), self.network.ladder()
        assert bytes(self.received) == self.sent
        return (self.network.now - begun) / 1e9

    @property
    def pmtu(self) -> int:
        return self.connection.info().pmtu

    @property
    def probes(self) -> tuple[int, int]:
        counters = self.client.engine.counters
        return counters.mtu_probes, counters.mtu_probes_lost


def network(seed: int = 1, mtu: int = 0, *, rate: float = 0.0, loss: float = 0.0, too_big: bool = False) -> Network:
    return Network(
        seed,
        delay=DELAY,
        rate=rate,
        loss=loss,
        mtu=mtu,
        packet_too_big=too_big,
        queue=4_000_000,
    )


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_what_the_link_takes_is_found_in_a_few_round_trips(mtu: int) -> None:
    transfer = Transfer(network(mtu=mtu), mtu)
    transfer.finish()
    assert [(old, new) for _, old, new in transfer.watch.mtus] == [(BASE_MTU, mtu)]
    assert transfer.watch.mtus[0][0] <= 5 * RTT
    assert transfer.probes == (1, 0)
    assert max(len(packet.payload) for packet in transfer.network.trace) == mtu - 28


@pytest.mark.parametrize(("link", "path"), [(9000, 1500), (1500, 1400), (1500, 1300), (9000, 4000)])
@pytest.mark.parametrize("too_big", [False, True], ids=["vanishing", "icmp"])
def test_a_smaller_path_behind_the_link(link: int, path: int, too_big: bool) -> None:
    """Nothing but probes is ever too big; ICMP says at once how large they may be."""
    transfer = Transfer(network(mtu=path, rate=20e6, too_big=too_big), link, 400_000 if too_big else 3_000_000)
    transfer.finish()
    if too_big:
        assert transfer.pmtu == path
    else:
        assert path - max(8, path // 8) <= transfer.pmtu <= path
    probes, lost = transfer.probes
    assert lost == transfer.network.counts[Fate.TOO_BIG]
    assert probes <= (4 if too_big else 30)


def test_lost_probes_cost_no_window() -> None:
    """A link that takes no more than the path, and one that does: neither recovery nor time-out."""
    seconds = []
    for mtu in (BASE_MTU, 1500):
        transfer = Transfer(network(mtu=BASE_MTU, rate=20e6), mtu, 2_000_000)
        seconds.append(transfer.finish())
        assert transfer.client.engine.counters.fast_recoveries == 0
        assert "retransmit" not in transfer.watch.timers
    assert transfer.probes[1] > 5
    assert transfer.client.engine.counters.retransmissions == 2 * transfer.probes[1]
    assert seconds[1] < seconds[0] + 1.5 * RTT * transfer.probes[1]  # what waits behind one waits for a round trip


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_lossy_path(seed: int) -> None:
    """Losses that have nothing to do with size do not keep it small for long."""
    transfer = Transfer(network(seed, 1500, loss=0.02), 1500)
    transfer.finish()
    assert transfer.pmtu == 1500


@pytest.mark.parametrize("mtu", [1400, 1300, 1229, 900, 600])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_path_that_shrinks_in_silence(mtu: int, seed: int) -> None:
    """A black hole in mid-life: found by time-outs, and no byte is lost."""
    net = network(seed, 1500, rate=20e6)
    net.check = invariants.check
    transfer = Transfer(net, 1500, 1_000_000)
    net.run_for(0.3)
    assert transfer.pmtu == 1500
    net.mtu = mtu
    transfer.finish()
    assert transfer.client.engine.counters.black_holes == (1 if mtu >= BASE_MTU else 2)
    assert transfer.pmtu <= mtu


def test_a_path_that_shrinks_and_says_so() -> None:
    """No time-out, no congestion."""
    net = network(mtu=1500, rate=20e6, too_big=True)
    transfer = Transfer(net, 1500, 1_000_000)
    net.run_for(0.3)
    net.mtu = 1300
    transfer.finish()
    assert transfer.pmtu == 1300
    assert "retransmit" not in transfer.watch.timers
    assert transfer.client.engine.counters.fast_recoveries == 0


def test_a_path_that_grows_back() -> None:
    """PMTU_RAISE_TIMER (RFC 8899 5.1.1)."""
    net = network(mtu=1300, too_big=True)
    transfer = Transfer(net, 1500)
    transfer.finish()
    assert transfer.pmtu == 1300
    net.mtu = 1500
    for seconds, pmtu in ((300, 1300), (301, 1500)):
        net.run_for(seconds)
        transfer.connection.send(transfer.sent, net.now)
        transfer.sent += transfer.sent
        transfer.finish()
        assert transfer.pmtu == pmtu


def test_a_router_in_the_middle() -> None:
    net = network(mtu=9000)
    transfer = Transfer(net, 9000)
    router = net.router("router")
    net.link(transfer.client, router)
    net.link(router, transfer.server, mtu=1400, packet_too_big=True)
    transfer.finish()
    assert transfer.pmtu == 1400


@pytest.mark.parametrize("mtu", [0, 68, 576, 1227])
def test_forged_icmp_of_a_tiny_mtu(mtu: int) -> None:
    """From somebody who knows even the sequence numbers."""
    net = network(mtu=1500, rate=20e6)
    transfer = Transfer(net, 1500)
    forged = 0
    while len(transfer.received) < len(transfer.sent):
        net.run_for(0.01)
        quote = transfer.network.trace[-1].payload[:8]
        engine = transfer.client.engine
        engine.path_error(transfer.client.path_to(transfer.server), PathError.PACKET_TOO_BIG, net.now, mtu, quote)
        forged += 1
    assert transfer.pmtu == 1500
    assert engine.counters.packets_too_big_ignored == forged
    assert engine.counters.packets_too_big == 0


def test_the_next_connection_begins_with_what_was_found() -> None:
    net = network(mtu=1500)
    transfer = Transfer(net, 1500)
    transfer.finish()
    second = transfer.client.connect(transfer.server, 80)
    second.send(bytes(10_000), net.now)
    net.run_for(1)
    assert second.info().snd_mss == 1500 - 28 - 32
    assert transfer.probes == (1, 0)


@pytest.mark.parametrize("too_big", [False, True], ids=["vanishing", "icmp"])
def test_asyncio_programs(too_big: bool) -> None:
    net = network(mtu=1400, rate=10e6, too_big=too_big)
    server, client = (net.host(name, mtu=1500, discover_mtu=True) for name in ("server", "client"))
    size = 2_000_000

    async def serve() -> None:
        async def handle(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            writer.write(str(len(await reader.read())).encode())
            writer.close()

        async with await utcp.start_server(handle, "server", 9000) as listening:
            await listening.serve_forever()

    async def ask() -> tuple[int, int]:
        reader, writer = await utcp.open_connection("server", 9000)
        writer.write(bytes(size))
        await writer.transport.drained()
        pmtu = writer.transport.info().pmtu
        writer.write_eof()
        answer = int(await reader.read())
        writer.close()
        await writer.wait_closed()
        return answer, pmtu

    async def main() -> tuple[int, int]:
        server.start(serve)
        await asyncio.sleep(0.1)
        return await client.start(ask)

    answer, pmtu = run(main, network=net)
    assert answer == size
    assert pmtu == 1400 if too_big else BASE_MTU < pmtu <= 1400


def test_hosts_that_are_told_the_mtu_search_nothing() -> None:
    net = network(mtu=0)
    known = [net.host(name, mtu=1500) for name in ("client", "server")]
    assert isinstance(known[0], Host)
    known[1].listen(80)
    connection = known[0].connect(known[1], 80)
    connection.send(bytes(100_000), net.now)
    net.run_for(1)
    assert connection.info().snd_mss == 1440
    assert known[0].engine.counters.mtu_probes == 0
