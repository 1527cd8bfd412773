"""Congestion control over a bottleneck, engine to engine in virtual time; the example of docs/congestion.md."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from support.transfer import Transfer
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.congestion import LOSS, UNLIMITED, Ack, CongestionControl
from utcp.core.states import State
from utcp.sim import Network, Packet

SECOND = 1_000_000_000


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_100_megabits_over_50_milliseconds(algorithm: str) -> None:
    """Above 95 percent of the rate once slow start is over, headers not counted as data; nothing is lost any more."""
    network = Network(delay=0.025, rate=100e6, queue=1_250_000, record=False)
    transfer = Transfer(network, Config(congestion_control=algorithm, receive_buffer=1 << 24), mtu=9000)
    network.run_for(3)
    lost = transfer.connection.info().retransmissions
    assert transfer.rate(2.0) > 95e6
    assert transfer.connection.info().retransmissions == lost


def test_a_deep_queue_ends_slow_start_before_anything_is_lost() -> None:
    """HyStart++ (RFC 9406), with the round-trip times that the engine measures; and the rate sample is the link's."""
    network = Network(delay=0.025, rate=100e6, queue=20_000_000, record=False)
    transfer = Transfer(network, Config(receive_buffer=1 << 25), mtu=9000)
    network.run_for(2.5)
    info = transfer.connection.info()
    assert info.ssthresh < UNLIMITED
    assert info.retransmissions == 0
    data = info.snd_mss / (info.snd_mss + 12 + 20 + 28)  # a segment's data in what the link carries
    assert info.delivery_rate == pytest.approx(100e6 / 8 * data, rel=1e-3)


@pytest.mark.parametrize(("algorithm", "every", "rtt"), [("reno", 800, 0.05), ("cubic", 2000, 0.2)])
def test_the_response_function_of_a_whole_connection(algorithm: str, every: int, rtt: float) -> None:
    """Each ``every``-th segment is lost, and recovered: the average window is that of theory within a tenth.

    RFC 9438 5.1: sqrt(3 / 2p) for Reno, 1.054 (RTT / p)**(3/4) for CUBIC in its own region.
    """
    expected = (1.5 * every) ** 0.5 if algorithm == "reno" else (0.4 * 3.7 / 1.2) ** 0.25 * (rtt * every) ** 0.75
    network = Network(delay=rtt / 2, rate=1e9, record=False)
    transfer = Transfer(network, Config(congestion_control=algorithm, receive_buffer=1 << 24))
    connection = transfer.connection
    network.run_until(lambda: connection.congestion is not None)
    control: Any = connection.congestion
    mss = connection.info().snd_mss
    # As if the last reduction had been one of theory's, or a little less: see test_congestion_cubic.py
    top = expected * (4 / 3 if algorithm == "reno" else 4 / 3.7)
    control.on_congestion_event(LOSS, round(0.95 * top) * mss, network.now)
    if algorithm == "cubic":
        control.w_max = round(0.95 * top) * mss
    control.cwnd = control.ssthresh
    sent = 0

    def each(packet: Packet) -> bool:
        nonlocal sent
        if packet.src != "client":
            return False
        sent += 1
        return sent % every == 0

    network.drop(each)
    network.run_until(lambda: sent >= every)
    began, before, lost = network.now, transfer.received, connection.info().retransmissions
    network.run_until(lambda: sent >= 6 * every)
    round_trips = (network.now - began) / SECOND / rtt
    assert connection.info().retransmissions - lost == 5
    assert (transfer.received - before) / mss / round_trips == pytest.approx(expected, rel=0.1)


def test_pacing_keeps_the_queue_of_a_bottleneck_short() -> None:
    """A window of 80 segments over 50 ms, in a queue of 20: paced it fits, in bursts of a window it does not."""
    lost = {}
    for pacing in (True, False):
        network = Network(delay=0.025, rate=100e6, queue=30_000, record=False)
        config = Config(pacing=pacing, receive_buffer=120_000)
        transfer = Transfer(network, config)
        network.run_for(1)
        lost[pacing] = transfer.connection.info().retransmissions
    assert lost[True] == 0
    assert lost[False] > 0


class Chaos(CongestionControl):
    """Says anything."""

    dice = random.Random(0)

    def on_ack(self, ack: Ack) -> None:
        self.cwnd = self.dice.choice([-(1 << 60), 0, 1, 999, 5_000, 50_000, 1 << 40, 1 << 60])
        self.ssthresh = self.dice.choice([-1, 0, 10_000, UNLIMITED, 1 << 60])
        self.pacing_rate = self.dice.choice([-(1 << 60), 0, 20_000, 10_000_000, 1 << 60])
        self.prr = self.dice.random() < 0.5

    def on_congestion_event(self, kind: int, flight: int, now: int) -> None:
        self.remember()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_an_algorithm_says_everything_arrives(seed: int) -> None:
    """With losses, reordering and duplicates, and the engine's invariants checked after every step."""
    Chaos.dice.seed(seed)
    network = Network(seed, loss=0.05, reorder=0.05, duplicate=0.02, check=invariants.check, record=False)
    server, client = network.host("server"), network.host("client", Config(congestion_control=Chaos))
    received = bytearray()
    server.listen(80, accept=lambda _: lambda connection, bits: received.extend(connection.receive()))
    connection = client.connect(server, 80)
    assert network.run_until(lambda: connection.state is State.ESTABLISHED)
    data = random.Random(seed).randbytes(300_000)
    connection.send(data, network.now)
    connection.close(network.now, flush=True)
    assert network.run_until(lambda: len(received) == len(data), limit=600)
    assert received == data


def test_the_example_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "congestion.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/congestion.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == ["CUBIC", "Vegas"]
    rate, rtt = names["transfer"](names["Vegas"])
    assert printed[1] == f"Vegas: {rate:.2f} Mbit/s, {1000 * rtt:.0f} ms"
    assert rate > 9.0
    assert 0.040 < rtt < 0.050  # a queue of a few segments


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("timestamps", [True, False])
def test_where_nothing_is_reordered_no_recovery_is_spurious(seed: int, timestamps: bool) -> None:
    """A recovery that begins where one ends finds retransmissions of that one in flight: they are no proof."""
    network = Network(seed, delay=0.025, rate=10e6, queue=62_500, loss=0.01, record=False)
    Transfer(network, Config(timestamps=timestamps, congestion_control="reno"))
    network.run_for(3)
    counters = network.hosts["client"].engine.counters
    assert counters.fast_recoveries > 5
    assert counters.spurious_recoveries == 0
