"""Half a megabyte over paths that lose, reorder and double segments: it arrives, and hardly a time-out is needed."""

from __future__ import annotations

from typing import Any

import pytest

from support.apps import Peer, pattern
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.observer import Observer
from utcp.sim import Network

SIZE = 500_000
PATHS: dict[str, dict[str, Any]] = {
    "a short queue": {"queue": 60_000},
    "loss": {"loss": 0.02},
    "heavy loss": {"loss": 0.08},
    "reordering": {"reorder": 0.02},
    "all of it": {"loss": 0.02, "reorder": 0.02, "duplicate": 0.02},
}
CONFIGS = {
    "RACK": Config(),
    "counting": Config(rack=False, tlp=False),
    "duplicate ACKs": Config(sack=False),
    "no timestamps": Config(timestamps=False),
}


class Timers(Observer):
    def __init__(self) -> None:
        super().__init__()
        self.fired: list[str] = []

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.fired.append(name)


def transfer(seed: int, path: dict[str, Any], config: Config) -> tuple[Peer, Timers, Any]:
    """The receiver once everything has arrived, the sender's timers and counters."""
    network = Network(seed, delay=0.025, rate=20e6, record=False, check=invariants.check, **path)
    timers = Timers()
    one, other = network.host("sender", config, observer=timers), network.host("receiver", config)
    data = pattern(seed, SIZE)
    receiver = Peer(network, b"", data)
    other.listen(80, lambda _: receiver)
    one.connect(other, 80, Peer(network, data, b""))
    assert network.run_until(lambda: receiver.closed, limit=600), f"seed {seed}: {receiver}"
    return receiver, timers, one.engine.counters


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("path", PATHS)
def test_everything_arrives(path: str, config: str, seed: int) -> None:
    receiver, _, _ = transfer(seed, PATHS[path], CONFIGS[config])
    assert (receiver.read, receiver.eof, receiver.error) == (SIZE, True, None)


def test_losses_are_repaired_without_a_time_out() -> None:
    """2 % of 350 segments, ten times: 70 losses, retransmissions' losses among them."""
    time_outs = recoveries = 0
    for seed in range(10):
        _, timers, counters = transfer(seed, PATHS["loss"], CONFIGS["RACK"])
        time_outs += timers.fired.count("retransmit")
        recoveries += counters.fast_recoveries
    assert recoveries > 25
    assert time_outs <= 2


def test_reordering_costs_next_to_nothing() -> None:
    """Nothing is lost: most recoveries are taken back, others are over before that could be known."""
    recoveries = spurious = 0
    for seed in range(5):
        _, timers, counters = transfer(seed, {"reorder": 0.02, "queue": 4_000_000}, CONFIGS["RACK"])
        assert "retransmit" not in timers.fired
        recoveries += counters.fast_recoveries
        spurious += counters.spurious_recoveries
    assert spurious > recoveries // 2
    assert 0 < recoveries < 40
