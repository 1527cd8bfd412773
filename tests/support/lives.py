"""Whole lives of connections in a simulated network, each drawn from one seed.

PYTHONPATH=tests python -m support.lives 1-10000      # how they went, by the way in which they ended
PYTHONPATH=tests python -m support.lives 4711         # one of them, segment by segment
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from support.apps import Peer, pattern
from support.lifecycle import PATIENT, nothing_left, resets
from support.ways import GRACEFUL, ROUGH
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.listener import Listener
from utcp.sim import Fate, Host, Network
from utcp.wire.segment import RST

SECOND = 10**9
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"timestamps": False},
    {"sack": False, "window_scaling": False},
    {"timestamps": False, "sack": False, "window_scaling": False},
    {"nodelay": True, "delayed_ack": 0},
    {"receive_buffer": 3000},
    {"max_segment_size": 200, "initial_window": 2},
    {"rto_min": 1.0, "rfc1337": False, "challenge_ack_interval": 0},
)


@dataclass
class Outcome:
    """How a life went."""

    way: str
    graceful: bool
    loss: float
    segments: int
    fates: Counter[str]
    delivered: int  # bytes that the applications read
    resets: int
    seconds: float  # virtual


@dataclass
class Life:
    """One life: two hosts, a network and a plan, from the seed alone."""

    seed: int
    way: str = ""
    rng: random.Random = field(init=False)
    network: Network = field(init=False)
    peers: dict[str, Peer] = field(init=False)
    listener: Listener | None = None

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(f"life {self.seed}")
        self.way = self.way or rng.choice([*GRACEFUL, *GRACEFUL, *ROUGH])
        delay = rng.choice([0.001, 0.02, 0.2])
        self.network = Network(
            self.seed,
            delay=delay,
            jitter=rng.choice([0.0, delay, 5 * delay]),
            loss=rng.uniform(0.0, 0.5),
            duplicate=rng.choice([0.0, 0.1, 0.5]),
            reorder=rng.choice([0.0, 0.1, 0.5]),
            check=invariants.check,
        )
        config = replace(PATIENT, **rng.choice(VARIANTS))
        for name in ("client", "server"):
            self.network.host(name, config)
        sizes = [0, 1, 500, rng.randrange(5_000), rng.randrange(40_000)]
        request, answer = pattern(2 * self.seed, rng.choice(sizes)), pattern(2 * self.seed + 1, rng.choice(sizes))
        self.peers = {
            "client": Peer(self.network, request, answer),
            "server": Peer(self.network, answer, request, ends_when="eof"),
        }

    @property
    def client(self) -> Peer:
        return self.peers["client"]

    @property
    def server(self) -> Peer:
        return self.peers["server"]

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.network.hosts["client"], self.network.hosts["server"]

    def open(self, config: Config | None = None) -> None:
        client, server = self.hosts
        self.listener = server.listen(80, lambda connection: self.server)
        self.client.connection = client.connect(server, 80, self.client, config=config)

    def live(self) -> Outcome:
        """From the first SYN to the end of the last TIME-WAIT. Raises AssertionError, with the segments."""
        try:
            graceful = self.way in GRACEFUL
            (GRACEFUL if graceful else ROUGH)[self.way](self)
            if not graceful:
                self._end()
            self._run_out(2 * PATIENT.msl if graceful else 3600)
            if graceful:
                assert self.client.complete and self.server.complete, f"{self.client}\n{self.server}"
                early = resets(self.network, {name: peer.closed_at for name, peer in self.peers.items()})
                assert not early, f"a RST in a graceful life: {early[0]}"
            for peer in self.peers.values():
                assert peer.connection is None or peer.connection.closed
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self!r}\n{self.network.ladder()}\nreplay: {self.replay}") from error
        return self._outcome(graceful)

    @property
    def replay(self) -> str:
        return f"PYTHONPATH=tests python -m support.lives {self.seed}"

    def _end(self) -> None:
        """Both applications close, whatever they were doing."""
        for host in self.hosts:
            for listener in host.engine.listeners():
                listener.close(self.network.now)
            for connection in host.engine.connections():
                end(connection, self.network.now)

    def _run_out(self, longest: float) -> None:
        """To the end of the last connection and record: at most ``longest`` seconds after the last segment, or
        after the applications' end."""
        network = self.network
        began = network.now
        network.run_until(lambda: not any(busy(host) for host in self.hosts), limit=10**6)
        ended = network.now
        assert network.run_to_the_end(limit=10**6), "something goes on for ever"
        for host in self.hosts:
            nothing_left(host)
        wait = (ended - max(began, network.trace[-1].sent_at)) / SECOND
        assert wait <= longest + 10, f"something was left for {wait} s"  # 10: segments under way

    def _outcome(self, graceful: bool) -> Outcome:
        network = self.network
        segments = len(network.trace)
        fates = Counter({str(fate): n for fate, n in network.counts.items() if fate is not Fate.DELIVERED})
        resets = sum(1 for packet in network.trace if packet.segment.flags & RST)
        delivered = self.client.read + self.server.read
        return Outcome(self.way, graceful, network.loss, segments, fates, delivered, resets, network.now / SECOND)


def busy(host: Host) -> bool:
    return host.engine.connection_count() + host.engine.time_wait_count > 0


def end(connection: Connection, now: int) -> None:
    """What an application does that has no patience left."""
    connection.context = None  # what arrives from now on is discarded, and nobody looks
    if connection.send_queue_size:
        connection.abort(now)
    else:
        connection.close(now, flush=True)


def report(outcomes: list[Outcome]) -> str:
    """A table by way of ending."""
    lines = [f"{'way of ending':24} {'lives':>6} {'segments':>9} {'lost':>8} {'doubled':>8} {'bytes':>12} {'RSTs':>6}"]
    for way in (*GRACEFUL, *ROUGH, ""):
        some = [one for one in outcomes if way in ("", one.way)]
        fates = sum((one.fates for one in some), Counter[str]())
        lines.append(
            f"{way or 'all':24} {len(some):6,} {sum(one.segments for one in some):9,} "
            f"{fates[str(Fate.LOST)] + fates[str(Fate.PARTITIONED)]:8,} {fates[str(Fate.DUPLICATED)]:8,} "
            f"{sum(one.delivered for one in some):12,} {sum(one.resets for one in some):6,}"
        )
    lines.append(
        f"{sum(one.seconds for one in outcomes) / 86_400:,.0f} days of virtual time; no byte lost, nothing left"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("seeds", help="one seed, or the first and the last: 1-10000")
    first, _, last = parser.parse_args().seeds.partition("-")
    if last:
        print(report([Life(seed).live() for seed in range(int(first), int(last) + 1)]))
        return
    life = Life(int(first))
    print(life.live())
    print(life.network.ladder(10**6))


if __name__ == "__main__":
    main()
