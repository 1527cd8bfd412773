"""The simulated network itself: fate by seed, order, delay, rules, partitions, time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from utcp.core.connection import Connection
from utcp.core.observer import Observer
from utcp.core.states import READABLE, State
from utcp.sim import Fate, Host, Network, Packet
from utcp.wire.segment import SYN

SECOND = 10**9
MILLISECOND = 10**6
PAYLOAD = bytes(12) + b"\x50\x10" + bytes(6)  # the least that can be decoded


class Arrivals(Observer):
    """Sends a thousand numbered segments from host "a" to host "b", a millisecond apart, and notes what arrives."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.numbers: list[int] = []
        self.delays: list[int] = []
        network.host("a")
        network.host("b", observer=self)
        start = network.now
        for number in range(1000):
            network.send("a", "b", PAYLOAD[:4] + number.to_bytes(4, "big") + PAYLOAD[8:])
            network.run_until(start + (number + 1) * MILLISECOND)
        network.run_for(10)

    def segment_in(self, now: int, path: int, segment: bytes) -> None:
        number = int.from_bytes(segment[4:8], "big")
        self.numbers.append(number)
        self.delays.append(now - number * MILLISECOND)


def test_a_perfect_network_delivers_everything_in_order_after_the_delay() -> None:
    got = Arrivals(Network(1, delay=0.25))
    assert got.numbers == list(range(1000))
    assert set(got.delays) == {250 * MILLISECOND}


def test_jitter_delays_and_does_not_reorder() -> None:
    got = Arrivals(Network(1, delay=0.01, jitter=0.05))
    assert got.numbers == list(range(1000))
    assert min(got.delays) >= 10 * MILLISECOND and max(got.delays) <= 60 * MILLISECOND
    assert len(set(got.delays)) > 100


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_loss_is_as_frequent_as_asked_for_and_keeps_the_order(rate: float) -> None:
    got = Arrivals(Network(1, loss=rate)).numbers
    assert got == sorted(set(got))
    assert abs(len(got) / 1000 - (1 - rate)) < 0.05


def test_all_or_nothing() -> None:
    assert Arrivals(Network(1, loss=1)).numbers == []
    assert len(Arrivals(Network(1, duplicate=1)).numbers) == 2000


def test_duplicates_are_as_frequent_as_asked_for() -> None:
    got = Arrivals(Network(1, duplicate=0.3)).numbers
    assert set(got) == set(range(1000))
    assert abs(len(got) / 1000 - 1.3) < 0.05


def test_reordering_loses_nothing() -> None:
    got = Arrivals(Network(1, reorder=0.2, delay=0.02)).numbers
    assert sorted(got) == list(range(1000)) and got != sorted(got)
    assert 50 < sum(a > b for a, b in pairwise(got)) < 400


def test_a_seed_repeats_itself_and_another_does_not() -> None:
    def run(seed: int) -> tuple[list[int], list[int]]:
        got = Arrivals(Network(seed, loss=0.3, duplicate=0.3, reorder=0.3, jitter=0.01))
        return got.numbers, got.delays

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_one_fault_does_not_shift_the_dice_of_another() -> None:
    """Segments lost with a seed are the same ones whether or not others are duplicated."""

    def lost(duplicate: float) -> list[int]:
        network = Network(5, loss=0.3, duplicate=duplicate)
        Arrivals(network)
        return [n for n, packet in enumerate(network.trace) if packet.fate is Fate.LOST]

    assert lost(0.0) == lost(0.5)


def test_fate_strikes_segments_not_trains() -> None:
    network = Network(3)
    a, b = network.host("a"), network.host("b")
    connection, _ = connect(network, a, b)
    network.loss = 0.5
    sent = len(network.trace)
    connection.send(bytes(10_000), network.now)
    network.step()
    fates = [packet.fate for packet in network.trace[sent:]]
    assert len(fates) > 3 and {Fate.LOST, Fate.DELIVERED} <= set(fates)


def test_drop_rules_count() -> None:
    network = Network()
    a, b = network.host("a"), network.host("b")
    network.drop(lambda packet: packet.src == "a" and bool(packet.segment.flags & SYN), 2)
    connection = a.connect(b, 80)
    b.listen(80)
    assert network.run_until(lambda: connection.state == State.ESTABLISHED)
    assert network.now == 3 * SECOND + 20_000_000  # the third SYN, at 0, 1, 3 s, and its answer
    assert [packet.fate for packet in network.trace[:3]] == [Fate.DROPPED, Fate.DROPPED, Fate.DELIVERED]


def test_a_partition_takes_what_is_under_way_too() -> None:
    network = Network(delay=1)
    a, b = network.host("a"), network.host("b")
    b.listen(80)
    a.connect(b, 80)
    network.run_for(0.5)  # the SYN is under way
    network.partition(a, b)
    network.run_for(10)
    assert State.SYN_RECEIVED not in b.engine.states()
    assert {packet.fate for packet in network.trace[1:]} == {Fate.PARTITIONED}
    network.heal(b, a)
    assert network.run_until(lambda: State.ESTABLISHED in b.engine.states(), limit=60)


def test_three_hosts() -> None:
    network = Network()
    hosts = [network.host(name) for name in ("a", "b", "c")]
    for host in hosts:
        host.listen(80)
    for one, other in ((0, 1), (1, 2), (2, 0)):
        hosts[one].connect(hosts[other], 80)
    network.run_for(1)
    assert [host.engine.states()[State.ESTABLISHED] for host in hosts] == [2, 2, 2]
    assert {(packet.src, packet.dst) for packet in network.trace} == {
        (one, other) for one in "abc" for other in "abc" if one != other
    }


class TestTime:
    def test_an_instant(self) -> None:
        network = Network(start=5 * SECOND)
        assert network.now == 5 * SECOND
        assert network.run_until(7 * SECOND)
        assert network.now == 7 * SECOND
        network.run_for(0.5)
        assert network.now == 7_500_000_000

    def test_a_condition_that_never_comes(self) -> None:
        network = Network()
        assert not network.run_until(lambda: False, limit=3)
        a, b = network.host("a"), network.host("b")
        a.connect(b, 80)  # nobody listens
        assert not network.run_until(lambda: False, limit=3)
        assert not a.engine.states()

    def test_a_condition_that_holds_already(self) -> None:
        network = Network()
        assert network.run_until(lambda: True)
        assert network.now == 0

    def test_the_end_of_everything(self) -> None:
        network = Network()
        a, b = network.host("a"), network.host("b")
        connection, _ = connect(network, a, b)
        connection.close(network.now)
        assert network.run_to_the_end()  # the other side never closes: FIN-WAIT-2 runs out
        assert network.next_event() is None and not network.step()
        assert connection.closed and not a.engine.states()

    def test_steps_go_from_event_to_event(self) -> None:
        network = Network(delay=0.01)
        a, b = network.host("a"), network.host("b")
        b.listen(80)
        a.connect(b, 80)
        instants = []
        while network.step():
            instants.append(network.now)
        assert instants == sorted(instants)
        assert instants[:2] == [10_000_000, 20_000_000]

    def test_the_check_runs_after_each_step(self) -> None:
        checked: list[object] = []
        network = Network(check=checked.append)
        a, b = network.host("a"), network.host("b")
        connect(network, a, b)
        assert a.engine in checked and b.engine in checked


@pytest.mark.parametrize("name", ["loss", "duplicate", "reorder"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Network(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["delay", "jitter"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_what_is_no_duration(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Network(**{name: value})  # type: ignore[arg-type]


def test_two_hosts_of_one_name() -> None:
    network = Network()
    network.host("a")
    with pytest.raises(ValueError, match="'a'"):
        network.host("a")


def test_the_ladder_names_the_seed_and_the_fates() -> None:
    network = Network(99, loss=1)
    a, b = network.host("a"), network.host("b")
    a.connect(b, 80)
    network.run_for(1)
    lines = network.ladder().splitlines()
    assert lines[0] == "seed 99"
    assert "a -> b" in lines[1] and "(lost)" in lines[1]


def test_an_application_on_both_sides() -> None:
    """The example of the module."""
    network = Network(seed=7, delay=0.01, loss=0.3)
    client, server = network.host("client"), network.host("server")

    def echo(connection: Connection, bits: int) -> None:
        if bits & READABLE:
            connection.send(connection.receive(), network.now)

    answers: list[bytes] = []

    def collect(connection: Connection, bits: int) -> None:
        if bits & READABLE:
            answers.append(connection.receive())

    server.listen(80, lambda _connection: echo)
    connection = client.connect(server, 80, collect)
    connection.send(b"hello", network.now)
    assert network.run_until(lambda: b"".join(answers) == b"hello")


def connect(network: Network, a: Host, b: Host) -> tuple[Connection, Connection]:
    accepted: list[Connection] = []

    def accept(connection: Connection) -> Callable[[Connection, int], None]:
        accepted.append(connection)
        return lambda _connection, _bits: None

    b.listen(80, accept)
    connection = a.connect(b, 80)
    assert network.run_until(lambda: bool(accepted))
    return connection, accepted[0]


def test_packets_say_what_they_are() -> None:
    packet = Packet(1_500_000_000, "a", "b", PAYLOAD, Fate.LOST)
    assert " ".join(str(packet).split()) == "1.500000 a -> b <Segment 0>0 . seq=0 ack=0 wnd=0> (lost)"
    assert packet.segment.flags == 0x10
