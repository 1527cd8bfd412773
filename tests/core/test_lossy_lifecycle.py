"""Whole lives of connections over a seeded network: every byte arrives, both sides close, nothing is left."""

from __future__ import annotations

import random

import pytest

from support.apps import Peer, pattern
from support.lifecycle import PATIENT, Lifecycle, nothing_left
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.states import State
from utcp.sim import Fate, Host, Network, Packet
from utcp.wire.segment import FIN, flag_text

REQUEST = pattern(1, 20_000)
DRAIN = pattern(2, 200_000)
SECOND = 10**9


def drained_after_the_fin(network: Network, config: Config | None = None) -> Lifecycle:
    """The client uploads and half-closes; the server answers 200 kB once it has seen the FIN, then closes."""
    life = Lifecycle(network, config)
    life.start(
        Peer(network, REQUEST, DRAIN),
        Peer(network, DRAIN, REQUEST, answers_at_eof=True, ends_when="eof"),
    )
    return life


@pytest.mark.parametrize("seed", range(1, 201))
def test_30_percent_loss_and_200_kB_drained_after_the_fin(seed: int) -> None:
    network = Network(seed, delay=0.02, loss=0.3, check=invariants.check)
    life = drained_after_the_fin(network, PATIENT)
    life.run()
    assert life.resets() == []
    assert any(packet.fate is Fate.LOST for packet in network.trace)


@pytest.mark.parametrize("seed", range(1, 31))
def test_loss_duplication_and_reordering_together(seed: int) -> None:
    rng = random.Random(seed)
    network = Network(
        seed,
        delay=0.02,
        jitter=rng.choice([0, 0.01, 0.1]),
        loss=rng.choice([0, 0.05, 0.2]),
        duplicate=rng.choice([0, 0.1, 0.5]),
        reorder=rng.choice([0, 0.1, 0.5]),
        check=invariants.check,
    )
    life = drained_after_the_fin(network, PATIENT)
    life.run()
    assert life.resets() == []


ORDERS = {
    # who closes: (the client's way of ending, the server's)
    "client first": ("written", "eof"),
    "server first": ("eof", "written"),
    "both at once": ("written", "written"),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("loss", [0, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(1, 6))
def test_every_order_of_closing(order: str, loss: float, seed: int) -> None:
    network = Network(seed, delay=0.01, loss=loss, check=invariants.check)
    life = Lifecycle(network, PATIENT)
    client_ends, server_ends = ORDERS[order]
    life.start(
        Peer(network, REQUEST, REQUEST, ends_when=client_ends),
        Peer(network, REQUEST, REQUEST, ends_when=server_ends),
    )
    life.run()
    assert life.resets() == []  # I6 and more


def lose_one(network: Network, victim: int) -> None:
    """The n-th segment from now on is lost, whichever it is."""
    seen = 0

    def is_victim(packet: Packet) -> bool:
        nonlocal seen
        seen += 1
        return seen == victim

    network.drop(is_victim)


@pytest.mark.parametrize(
    ("order", "victim"),
    [(order, n) for order, count in zip(ORDERS, (5, 6, 5), strict=True) for n in range(1, count + 1)],
)
def test_O_14_any_single_segment_lost(order: str, victim: int) -> None:
    """Of a life as short as can be, whose data rides on its FINs."""
    network = Network(0, delay=0.01, check=invariants.check)
    lose_one(network, victim)
    life = Lifecycle(network)
    client_ends, server_ends = ORDERS[order]
    life.start(
        Peer(network, b"question", b"answer", ends_when=client_ends),
        Peer(network, b"answer", b"question", ends_when=server_ends),
    )
    life.run()
    assert life.resets() == []
    assert network.counts[Fate.DROPPED] == 1, f"this life has no segment {victim}: {network.ladder()}"


@pytest.mark.parametrize("order", ["active", "passive", "simultaneous"])
@pytest.mark.parametrize("victim", range(1, 5))
def test_O_14_any_of_the_four_segments_of_a_teardown_lost(order: str, victim: int) -> None:
    """FIN, ACK, FIN, ACK, each a segment of its own (FIN, FIN, ACK, ACK when the FINs cross)."""
    network = Network(0, delay=0.01, check=invariants.check)
    life = Lifecycle(network)
    client = Peer(network, b"question", b"answer", ends_when="never")
    server = Peer(network, b"answer", b"question", ends_when="never")
    life.start(client, server)
    network.run_for(1)
    begun = len(network.trace)
    lose_one(network, victim)
    first, second = (server, client) if order == "passive" else (client, server)
    first.half_close()
    if order != "simultaneous":
        network.run_for(5)
        assert first.connection is not None and second.connection is not None
        assert (first.connection.state, second.connection.state) == (State.FIN_WAIT_2, State.CLOSE_WAIT)
    second.half_close()
    life.run()
    assert life.resets() == []
    teardown = network.trace[begun:]
    expected = ["F.", "F.", ".", "."] if order == "simultaneous" else ["F.", ".", "F.", "."]
    lost = [i for i, packet in enumerate(teardown, 1) if packet.fate is Fate.DROPPED]
    assert lost == [victim]
    assert flag_text(teardown[victim - 1].segment.flags) == expected[victim - 1]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("lost", [1, 3, 5])
@pytest.mark.parametrize("who", ["client", "server"])
def test_O_05_the_first_fins_of_one_side_lost(order: str, who: str, lost: int) -> None:
    network = Network(0, delay=0.01, check=invariants.check)
    network.drop(lambda packet: packet.src == who and bool(packet.segment.flags & FIN), lost)
    life = Lifecycle(network)
    client_ends, server_ends = ORDERS[order]
    life.start(
        Peer(network, REQUEST, b"", ends_when=client_ends),
        Peer(network, b"", REQUEST, ends_when=server_ends),
    )
    life.run()
    fins = [packet for packet in network.trace if packet.src == who and packet.segment.flags & FIN]
    assert len(fins) == lost + 1
    assert len({packet.segment.seq + packet.segment.data_len for packet in fins}) == 1


def test_a_lossless_life_takes_as_few_segments_as_it_can() -> None:
    """SYN, SYN-ACK, FIN with the ACK, FIN with the ACK of that, ACK."""
    network = Network(0, delay=0.01, check=invariants.check)
    life = Lifecycle(network)
    life.start(Peer(network, b"", b""), Peer(network, b"", b"", ends_when="eof"))
    life.run()
    assert [flag_text(packet.segment.flags) for packet in network.trace] == ["S", "S.", "F.", "F.", "."]
    assert network.trace[-1].sent_at == round(0.04 * SECOND)


def test_the_active_closer_waits_2_MSL_and_the_passive_one_does_not() -> None:
    network = Network(0, delay=0.01)
    life = drained_after_the_fin(network)
    network.run_until(lambda: life.client is not None and life.client.closed)
    assert life.client_host.engine.states()[State.TIME_WAIT] == 1
    began = network.now
    network.run_until(lambda: not life.client_host.engine.states())
    assert network.now - began == 60 * SECOND
    assert State.TIME_WAIT not in life.server_host.engine.states()


def test_a_partition_in_the_middle_of_a_teardown_heals() -> None:
    network = Network(0, delay=0.01, check=invariants.check)
    life = drained_after_the_fin(network)
    assert network.run_until(lambda: life.server is not None and life.server.read > 0)
    network.partition(life.client_host, life.server_host)
    network.run_for(30)
    network.heal(life.client_host, life.server_host)
    life.run()
    assert life.resets() == []


def test_a_partition_for_ever_ends_in_time_outs_on_both_sides() -> None:
    network = Network(0, delay=0.01, check=invariants.check)
    life = drained_after_the_fin(network)
    assert network.run_until(lambda: life.server is not None and life.server.written > 0)
    network.partition(life.client_host, life.server_host)
    assert life.client is not None and life.server is not None
    assert network.run_until(lambda: life.server is not None and life.server.closed, limit=200)
    assert isinstance(life.server.error, TimeoutError)
    # The client is in FIN-WAIT-2, with nothing to send: it may wait for ever, and does
    network.run_for(86_400)
    connection = life.client.connection
    assert connection is not None and connection.state in (State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSED)
    connection.abort(network.now)
    assert network.run_to_the_end()
    nothing_left(life.client_host)
    nothing_left(life.server_host)


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[str]:
        network = Network(seed, delay=0.02, jitter=0.01, loss=0.2, duplicate=0.1, reorder=0.1)
        drained_after_the_fin(network, PATIENT).run()
        return [str(packet) for packet in network.trace]

    assert run(7) == run(7)
    assert run(7) != run(8)


@pytest.mark.parametrize("loss", [0, 0.1])
def test_a_thousand_connections_at_once(loss: float) -> None:
    network = Network(3, delay=0.01, loss=loss)
    client_host, server_host = network.host("client"), network.host("server")
    request, answer = pattern(5, 300), pattern(6, 3000)
    servers: list[Peer] = []

    def accept(connection: Connection) -> Peer:
        servers.append(Peer(network, answer, request, ends_when="eof", answers_at_eof=True))
        return servers[-1]

    server_host.listen(80, accept, backlog=2000)
    clients = [Peer(network, request, answer) for _ in range(1000)]
    for client in clients:
        client_host.connect(server_host, 80, client)
    assert network.run_until(lambda: all(client.closed for client in clients), limit=1000)
    assert network.run_to_the_end()
    assert all(client.complete for client in clients)
    assert len(servers) == 1000 and all(server.complete for server in servers)
    for host in (client_host, server_host):
        nothing_left(host)
    assert client_host.engine.counters.active_opens == 1000
    assert server_host.engine.counters.passive_opens >= 1000


@pytest.mark.parametrize("seed", range(1, 6))
def test_one_connection_after_another_on_the_same_pair_of_ports(seed: int) -> None:
    """Reuse through TIME-WAIT (RFC 6191): thirty incarnations, none sees the bytes of another."""
    network = Network(seed, delay=0.01, loss=0.1, duplicate=0.1, reorder=0.1, check=invariants.check)
    client_host, server_host = network.host("client"), network.host("server")
    peers: list[tuple[Peer, Peer]] = []
    server_host.listen(80, lambda connection: peers[-1][1])
    for n in range(30):
        request, answer = pattern(2 * n, 2000), pattern(2 * n + 1, 2000)
        client = Peer(network, request, answer)
        server = Peer(network, answer, request, ends_when="eof", answers_at_eof=True)
        peers.append((client, server))
        reconnect(network, client_host, server_host, client)
        assert network.run_until(lambda: peers[-1][0].closed and peers[-1][1].closed, limit=500), network.ladder()
        assert client.complete and server.complete, network.ladder()
    assert client_host.engine.counters.time_wait_reused == 29
    assert network.run_to_the_end()
    nothing_left(client_host)
    nothing_left(server_host)


def reconnect(network: Network, client_host: Host, server_host: Host, client: Peer) -> None:
    """The timestamp clock must have gone on since TIME-WAIT last used it: a millisecond or two."""
    while True:
        try:
            client_host.connect(server_host, 80, client, local_port=5000)
        except OSError:
            network.run_for(0.001)
        else:
            return
