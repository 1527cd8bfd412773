"""Bottlenecks that many flows share: routers, queues in packets, CoDel, losses in bursts, flows' figures."""

from __future__ import annotations

import random
from itertools import groupby
from typing import Any

import pytest

from utcp.core.connection import Connection
from utcp.sim import Fate, Flow, Host, Link, Network
from utcp.sim.codel import INTERVAL, TARGET, Codel
from utcp.sim.link import DRAWS, HEADERS, Lane

SECOND = 10**9
MILLISECOND = 10**6
SEGMENT = (
    b"\x00\x07\x00\x09" + bytes(8) + b"\x50\x04" + bytes(6) + bytes(100 - 20 - HEADERS)
)  # RST; 100 bytes on the wire


def dumbbell(network: Network, pairs: int, **bottleneck: Any) -> list[tuple[Host, Host]]:
    """``pairs`` of hosts, each with links of 1 ms to the two ends of one bottleneck."""
    left, right = network.router("left"), network.router("right")
    network.link(left, right, **bottleneck)
    ends = [(network.host(f"a{i}"), network.host(f"b{i}")) for i in range(pairs)]
    for one, other in ends:
        network.link(one, left, delay=0.001)
        network.link(other, right, delay=0.001)
    return ends


# Routers


def test_flows_share_the_rate_of_a_link_between_routers() -> None:
    network = Network()
    network.watch_flows()
    dumbbell(network, 2, delay=0.01, rate=8_000)  # 100 bytes take 100 ms
    for _ in range(2):
        for src, dst in (("a0", "b0"), ("a1", "b1"), ("b0", "a0")):  # the last one is the other direction's
            network.send(src, dst, SEGMENT)
    network.run_for(5)
    flows = {key[0]: flow for key, flow in network.flows.items()}
    assert [flows[name].max_delay for name in ("a0", "a1", "b0")] == [
        312 * MILLISECOND,
        412 * MILLISECOND,
        212 * MILLISECOND,
    ]
    assert network.counts == {Fate.DELIVERED: 6}


def test_a_full_queue_behind_a_router() -> None:
    network = Network()
    network.watch_flows()
    dumbbell(network, 2, delay=0.01, rate=8_000, queue_packets=3)
    for number in range(6):
        network.send(f"a{number % 2}", f"b{number % 2}", SEGMENT)
    network.run_for(5)
    assert network.counts == {Fate.DELIVERED: 3, Fate.OVERFLOWED: 3}
    assert [packet.fate for packet in network.trace] == [Fate.DELIVERED] * 3 + [Fate.OVERFLOWED] * 3
    one = network.flows["a0", 7, "b0", 9]
    assert one == Flow(one.fates, 2 * len(SEGMENT), 0, (112 + 312) * MILLISECOND, 312 * MILLISECOND)
    assert one.fates == {Fate.DELIVERED: 2, Fate.OVERFLOWED: 1}


def test_the_shortest_route_and_a_link_of_their_own_first() -> None:
    network = Network(delay=1.0)
    network.watch_flows()
    a, b = network.host("a"), network.host("b")
    routers = [network.router(f"r{i}") for i in range(3)]
    for one, other in ((a, routers[0]), (routers[0], routers[1]), (routers[1], b), (a, routers[2])):
        network.link(one, other, delay=0.01)

    def delay() -> int:
        network.flows.clear()
        network.send("a", "b", SEGMENT)
        network.run_for(5)
        (flow,) = network.flows.values()
        return flow.delay

    assert delay() == 30 * MILLISECOND
    network.link(routers[2], b, delay=0.02)
    assert delay() == 30 * MILLISECOND  # two links of 10 and 20 ms
    network.link(a, b, delay=0.5)
    assert delay() == 500 * MILLISECOND


def test_hosts_forward_nothing_and_without_a_route_the_network_is_the_link() -> None:
    network = Network(delay=1.0)
    network.watch_flows()
    a, b, c = (network.host(name) for name in "abc")
    network.link(a, b, delay=0.01)
    network.link(b, c, delay=0.01)
    network.send("a", "c", SEGMENT)
    network.run_for(5)
    assert [flow.delay for flow in network.flows.values()] == [SECOND]


def test_names_are_taken_once() -> None:
    network = Network()
    network.router("r")
    with pytest.raises(ValueError, match="there is a router 'r' already"):
        network.host("r")
    network.host("h")
    with pytest.raises(ValueError, match="there is a host 'h' already"):
        network.router("h")


# Queues


def test_a_queue_of_packets() -> None:
    network = Network(delay=0, rate=8_000, queue_packets=2)
    network.host("a"), network.host("b")
    for _ in range(4):
        network.send("a", "b", SEGMENT)
    network.run_for(0.1)  # the first has left
    network.send("a", "b", SEGMENT)
    assert [packet.fate for packet in network.trace] == [
        Fate.DELIVERED,
        Fate.DELIVERED,
        Fate.OVERFLOWED,
        Fate.OVERFLOWED,
        Fate.DELIVERED,
    ]


def fill(codel: Codel[int], count: int, now: int = 0) -> None:
    for number in range(count):
        codel.put(number, 1500, now)


def test_codel_lets_bursts_pass_and_then_drops_by_its_law() -> None:
    """RFC 8289 5: nothing within the first interval above the target, then at now + interval / sqrt(count)."""
    codel: Codel[int] = Codel(lambda item: False)
    fill(codel, 1000)
    began = TARGET
    drops = []
    for step in range(400):
        now = began + step * MILLISECOND
        drops += [now - began] * len(codel.take(now, ecn=False).dropped)
    first = INTERVAL
    second = first + INTERVAL
    third = second + INTERVAL * 1000 // 1414
    expected = [first, second, third, third + INTERVAL * 1000 // 1732]
    assert [at // MILLISECOND for at in drops[:4]] == [-(-at // MILLISECOND) for at in expected]


def test_codel_stops_when_the_wait_is_short_and_goes_on_at_its_rate() -> None:
    codel: Codel[int] = Codel(lambda item: False)
    fill(codel, 3000)
    dropped = sum(len(codel.take(TARGET + step * MILLISECOND, ecn=False).dropped) for step in range(500))
    now = TARGET + 500 * MILLISECOND
    while len(codel):
        codel.take(now, ecn=False)
    assert codel.take(now, ecn=False).item is None
    codel.put(0, 1500, now)
    assert codel.take(now, ecn=False).dropped == []
    fill(codel, 3000, now)
    again = [len(codel.take(now + TARGET + step * MILLISECOND, ecn=False).dropped) for step in range(200)]
    assert dropped > 5
    assert sum(again[:100]) == 0
    assert sum(again[100:150]) == 2  # without its memory the second would come an interval after the first


def test_codel_marks_what_can_be_marked() -> None:
    codel: Codel[int] = Codel(lambda item: item % 2 == 0)
    fill(codel, 1000)
    outcomes = [codel.take(TARGET + step * MILLISECOND, ecn=True) for step in range(600)]
    marked = [one.item for one in outcomes if one.marked]
    dropped = [item for one in outcomes for item in one.dropped]
    assert marked
    assert dropped
    assert all(item is not None and item % 2 == 0 for item in marked)
    assert all(item % 2 == 1 for item in dropped)


@pytest.mark.parametrize("ecn", [0, 2])
def test_a_link_with_codel(ecn: int) -> None:
    """20 Mbit/s into 10: the wait stays near the target, where drop-tail would let it grow to the queue's length."""
    waits = {}
    for aqm in ("", "codel"):
        network = Network(delay=0, rate=10e6, queue=1_000_000, aqm=aqm, ecn=True)
        network.host("a"), network.host("b")
        network.watch_flows()
        for step in range(5000):
            network.run_until(step * MILLISECOND * 3 // 5)
            network.send("a", "b", SEGMENT[:20] + bytes(1400), ecn)
        network.run_for(5)
        (flow,) = network.flows.values()
        waits[aqm] = flow.max_delay
        assert sum(flow.fates.values()) == 5000
        if aqm:
            assert (flow.marked > 0, Fate.CODEL in flow.fates) == (ecn == 2, ecn == 0)
    if ecn == 0:
        assert waits["codel"] < waits[""]


@pytest.mark.parametrize("aqm", ["", "codel"])
def test_a_connection_over_a_bottleneck_with_codel(aqm: str) -> None:
    """CoDel keeps the round trip of a whole connection short, drop-tail fills its queue; both fill the link."""
    network = Network(record=False)
    ((client, server),) = dumbbell(network, 1, delay=0.01, rate=10e6, queue=250_000, aqm=aqm)
    network.watch_flows()
    received = 0

    def read(connection: Any, bits: int) -> None:
        nonlocal received
        received += len(connection.receive())

    server.listen(80, accept=lambda _: read)
    connection = client.connect(server, 80)
    network.run_for(1)
    connection.set_option("nodelay", True, network.now)
    connection.send(bytes(8_000_000), network.now)
    network.run_for(5)
    data = next(flow for key, flow in network.flows.items() if key[0] == client.name)
    mean = data.delay / sum(data.fates.values())
    assert received * 8 / 5 > 8.5e6
    if aqm:
        assert data.fates[Fate.CODEL] > 0
        assert mean < 40 * MILLISECOND
    else:
        assert mean > 60 * MILLISECOND


# Losses in bursts


@pytest.mark.parametrize(("loss", "burst", "bad"), [(0.05, 4.0, 1.0), (0.1, 10.0, 0.5), (0.01, 1.0, 1.0)])
def test_gilbert_and_elliott(loss: float, burst: float, bad: float) -> None:
    """In the long run as many are lost as it says, in periods as long as it says."""
    link, lane = Link(loss=loss, loss_burst=burst, loss_bad=bad), Lane()
    dice = random.Random(1)
    fates, periods = [], []
    for _ in range(200_000):
        fates.append(link.carry(lane, 100, 0, [dice.random() for _ in range(DRAWS)])[0])
        periods.append(lane.bad)
    assert fates.count(Fate.LOST) / len(fates) == pytest.approx(loss, rel=0.1)
    lengths = [len(list(group)) for state, group in groupby(periods) if state]
    assert sum(lengths) / len(lengths) == pytest.approx(burst, rel=0.1)
    lost_in_bad = [fate is Fate.LOST for fate, state in zip(fates, periods, strict=True) if state]
    assert sum(lost_in_bad) / len(lost_in_bad) == pytest.approx(bad, rel=0.1)
    assert not any(fate is Fate.LOST for fate, state in zip(fates, periods, strict=True) if not state)


@pytest.mark.parametrize(
    "bad",
    [
        {"queue_packets": -1},
        {"aqm": "red"},
        {"loss_burst": 0.5},
        {"loss_burst": -1},
        {"loss": 0.5, "loss_burst": 2.0, "loss_bad": 0.5},
        {"loss_bad": 1.5},
    ],
)
def test_values_that_make_no_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Link(**bad)


def read_all(connection: Connection, bits: int) -> None:
    connection.receive()


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> str:
        network = Network(seed)
        pairs = dumbbell(network, 2, rate=5e6, queue_packets=20, aqm="codel", loss=0.02, loss_burst=3)
        for one, other in pairs:
            other.listen(80, accept=lambda _: read_all)
            one.connect(other, 80).send(bytes(200_000), network.now)
        network.run_for(3)
        return network.ladder(10_000)

    assert run(3) == run(3)
    assert run(3) != run(4)
