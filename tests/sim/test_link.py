"""Links: rate and queue, corruption, values of their own; replay; counts. (What they share with all: test_network.)"""

from __future__ import annotations

import pytest

from utcp.core.observer import Observer
from utcp.sim import Fate, Host, Network
from utcp.sim.link import HEADERS

SECOND = 10**9
MILLISECOND = 10**6
SEGMENT = bytes(12) + b"\x50\x10" + bytes(6) + bytes(100 - 20 - HEADERS)  # 100 bytes on the wire


class Arrivals(Observer):
    """When segments came, in nanoseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[int] = []

    def segment_in(self, now: int, path: int, segment: bytes) -> None:
        self.at.append(now)


def pair(network: Network) -> tuple[Host, Host, Arrivals]:
    arrivals = Arrivals()
    return network.host("a"), network.host("b", observer=arrivals), arrivals


def burst(network: Network, count: int, src: str = "a", dst: str = "b") -> None:
    for _ in range(count):
        network.send(src, dst, SEGMENT)


def test_a_rate_spaces_segments() -> None:
    network = Network(delay=0.05, rate=8_000)  # 100 bytes take 100 ms
    _, _, arrivals = pair(network)
    burst(network, 3)
    network.run_for(10)
    assert arrivals.at == [150 * MILLISECOND, 250 * MILLISECOND, 350 * MILLISECOND]


def test_an_idle_link_begins_at_once() -> None:
    network = Network(delay=0, rate=8_000)
    _, _, arrivals = pair(network)
    burst(network, 1)
    network.run_for(5)
    burst(network, 1)
    network.run_for(5)
    assert arrivals.at == [100 * MILLISECOND, 5100 * MILLISECOND]


def test_a_full_queue_drops_what_comes() -> None:
    network = Network(delay=0, rate=8_000, queue=350)
    _, _, arrivals = pair(network)
    burst(network, 10)
    assert [packet.fate for packet in network.trace] == [Fate.DELIVERED] * 3 + [Fate.OVERFLOWED] * 7
    network.run_for(0.1)  # the first has left
    burst(network, 1)
    network.run_for(5)
    assert len(arrivals.at) == 4
    assert network.counts == {Fate.DELIVERED: 4, Fate.OVERFLOWED: 7}


def test_lost_segments_take_their_time_too() -> None:
    network = Network(delay=0, rate=8_000, loss=1)
    _, _, arrivals = pair(network)
    burst(network, 2)
    network.loss = 0
    burst(network, 1)
    network.run_for(5)
    assert arrivals.at == [300 * MILLISECOND]


def test_the_directions_do_not_share_a_rate() -> None:
    network = Network(delay=0, rate=8_000)
    _, _, arrivals = pair(network)
    burst(network, 5, "b", "a")
    burst(network, 1, "a", "b")
    network.run_for(0.2)
    assert arrivals.at == [100 * MILLISECOND]


def test_corruption_is_a_loss_counted_apart() -> None:
    network = Network(1, loss=0.2, corrupt=0.5)
    _, _, arrivals = pair(network)
    burst(network, 2000)
    network.run_for(10)
    assert abs(network.counts[Fate.LOST] - 400) < 60
    assert abs(network.counts[Fate.CORRUPTED] - 800) < 80  # half of what is not lost
    assert (
        len(arrivals.at)
        == network.counts[Fate.DELIVERED]
        == 2000 - 400 - 800 + sum((400 - network.counts[Fate.LOST], 800 - network.counts[Fate.CORRUPTED]))
    )


def test_corruption_does_not_change_who_is_lost() -> None:
    def lost(corrupt: float) -> list[int]:
        network = Network(5, loss=0.3, corrupt=corrupt)
        pair(network)
        burst(network, 300)
        return [n for n, packet in enumerate(network.trace) if packet.fate is Fate.LOST]

    assert lost(0) == lost(0.5)


def test_a_link_of_its_own() -> None:
    network = Network(delay=0.01)
    a, b, arrivals = pair(network)
    link = network.link(a, b, delay=0.5)
    network.send("a", "b", SEGMENT)
    network.run_for(1)
    assert arrivals.at == [500 * MILLISECOND]
    link.delay = 0.25
    network.send("b", "a", SEGMENT)
    assert network.next_event() == SECOND + 250 * MILLISECOND


def test_a_link_of_one_way() -> None:
    network = Network(delay=0.01, jitter=0.001)
    a, b, _ = pair(network)
    link = network.link(a, b, one_way=True, loss=1)
    assert link.jitter == 0.001
    network.send("a", "b", SEGMENT)
    network.send("b", "a", SEGMENT)
    assert [packet.fate for packet in network.trace] == [Fate.LOST, Fate.DELIVERED]


def test_an_old_duplicate_is_delivered_when_asked_for() -> None:
    network = Network(loss=1)
    _, _, arrivals = pair(network)
    network.send("a", "b", SEGMENT)
    network.replay(network.trace[0], after=2)
    network.run_for(5)
    assert arrivals.at == [2 * SECOND]
    assert [(packet.sent_at, packet.fate) for packet in network.trace] == [(0, Fate.LOST), (2 * SECOND, Fate.REPLAYED)]


def test_a_network_without_a_trace_counts_all_the_same() -> None:
    network = Network(record=False)
    pair(network)
    burst(network, 3)
    network.send("a", "nobody", SEGMENT)
    assert network.trace == []
    assert network.counts == {Fate.DELIVERED: 3, Fate.UNREACHABLE: 1}


@pytest.mark.parametrize(
    ("name", "value"), [("corrupt", 1.5), ("rate", -1), ("rate", float("nan")), ("queue", -1), ("delay", -1)]
)
def test_what_no_link_can_have(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Network(**{name: value})  # type: ignore[arg-type]
    network = Network()
    a, b, _ = pair(network)
    with pytest.raises(ValueError, match=name):
        network.link(a, b, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        network.link(a, b, colour="red")


class TestBareCrash:
    def test_a_crash_silences_and_forgets(self) -> None:
        network = Network(delay=0.01)
        a, b = network.host("a"), network.host("b")
        b.listen(80)
        connection = a.connect(b, 80)
        network.run_for(1)
        b.crash()
        assert not b.up
        connection.send(b"x", network.now)
        network.run_for(0.5)
        assert not connection.closed
        assert network.trace[-1].fate is Fate.UNREACHABLE
        b.restart()
        assert network.run_until(lambda: connection.closed, limit=5)
        assert isinstance(connection.error, ConnectionResetError)  # by the next retransmission: nobody knows it

    def test_what_is_under_way_to_it_is_lost(self) -> None:
        network = Network(delay=0.5)
        _, b, arrivals = pair(network)
        network.send("a", "b", SEGMENT)
        network.run_for(0.1)
        b.crash()
        network.run_for(1)
        assert arrivals.at == []

    def test_its_sequence_numbers_are_new_after_it(self) -> None:
        network = Network()
        a = network.host("a")
        first = a.engine
        a.crash()
        a.crash()  # a second time changes nothing
        a.restart()
        assert a.engine is not first
        assert a.life.number == 1
