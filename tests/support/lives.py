"""Whole lives of connections in a simulated network, each drawn from one seed.

PYTHONPATH=tests python -m support.lives 1-10000      # how they went, by the way in which they ended
PYTHONPATH=tests python -m support.lives 4711         # one of them, segment by segment
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from support.apps import Peer, pattern
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.listener import Listener
from utcp.core.states import State
from utcp.sim import Fate, Host, Network
from utcp.wire.segment import RST

SECOND = 10**9
# At 50 % loss three tries in four fail: patience, and a TIME-WAIT that outlives a long back-off of the last FIN
PATIENT = Config(
    r2=3600,
    syn_r2=3600,
    syn_ack_timeout=3600,
    orphan_timeout=3600,
    close_timeout=3600,
    fin_timeout=3600,
    msl=600,
)
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


class Lifecycle:
    """A client and a server, one connection, and what either application saw."""

    def __init__(self, network: Network, config: Config | None = None) -> None:
        self.network = network
        self.client_host = network.host("client", config)
        self.server_host = network.host("server", config)
        self.client: Peer | None = None
        self.server: Peer | None = None

    def start(self, client: Peer, server: Peer, port: int = 80) -> None:
        self.client, self.server = client, server
        self.server_host.listen(port, lambda connection: server)
        self.client_host.connect(self.server_host, port, client)

    def run(self, limit: float = 86_400) -> None:
        """To the end of everything, TIME-WAIT included."""
        network = self.network
        ended = network.run_to_the_end(limit=limit)
        assert ended, f"something goes on for ever\n{network.ladder()}"
        for peer in (self.client, self.server):
            assert peer is not None and peer.complete, f"{peer}\n{network.ladder()}"
        for host in (self.client_host, self.server_host):
            nothing_left(host)

    def resets(self) -> list[str]:
        """RSTs but for those of a side that is CLOSED already: it answers what arrives late, and TIME-WAIT on the
        other side does not mind (RFC 1337)."""
        assert self.client is not None and self.server is not None
        closed_at = {"client": self.client.closed_at, "server": self.server.closed_at}
        return resets(self.network, closed_at)


def resets(network: Network, before: dict[str, int]) -> list[str]:
    """The RSTs that each host sent before that instant."""
    return [
        str(packet) for packet in network.trace if packet.sent_at < before[packet.src] and packet.segment.flags & RST
    ]


def nothing_left(host: Host) -> None:
    """No connection, no timer, no record, no byte, nothing to send; listeners excepted."""
    engine = host.engine
    stack = engine.stack
    assert {state for state, n in engine.states().items() if n} <= {State.LISTEN}, f"left behind: {engine.states()}"
    assert list(engine.connections()) == []
    assert engine.next_timeout() is None
    assert not engine.pending() and engine.ready() == []
    assert (engine.memory, engine.time_wait_count, stack.orphans, stack.half_open) == (0, 0, 0, 0)
    assert not any(stack.slots)
    for peer in host.network.hosts.values():
        route = stack.paths.get(host.path_to(peer))
        assert route is not None and (route.users, route.connecting) == (0, 0)
    invariants.check(engine)


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


# Ways to end. In a graceful one every byte arrives, whatever is lost on the way; in the others what arrives is a
# prefix of what was sent (Peer sees to it), and nothing is left behind.


def client_first(life: Life) -> None:
    life.open()


def server_first(life: Life) -> None:
    life.client.ends_when, life.server.ends_when = "eof", "written"
    life.open()


def both(life: Life) -> None:
    life.server.ends_when = "written"
    life.open()


def half_close_and_drain(life: Life) -> None:
    life.server.answers_at_eof = True
    life.open()


def close_with_data_queued(life: Life) -> None:
    """As asyncio's close: the other end has said all it had to say."""
    life.client.closes, life.client.ends_when, life.server.ends_when = True, "eof", "written"
    life.client.answers_at_eof = True
    life.open()


def close_first(life: Life) -> None:
    """The closer has no user any more in FIN-WAIT-1, FIN-WAIT-2 and TIME-WAIT."""
    life.client.closes, life.client.incoming, life.server.outgoing = True, b"", b""
    life.open()


def linger_in_time(life: Life) -> None:
    close_first_config = replace(life.hosts[0].engine.config, linger=86_400)
    life.client.closes, life.client.incoming, life.server.outgoing = True, b"", b""
    life.open(close_first_config)


def simultaneous_open(life: Life) -> None:
    life.server.ends_when = life.rng.choice(["eof", "written"])
    client, server = life.hosts
    life.client.connection = client.connect(server, 80, life.client, local_port=70)
    life.server.connection = server.connect(client, 70, life.server, local_port=80)


def some_time(life: Life) -> None:
    life.network.run_for(life.rng.choice([0.0, 0.05, 0.5, 5.0, 50.0]))


def abort(life: Life) -> None:
    life.open()
    some_time(life)
    connection = life.rng.choice([life.client, life.server]).connection
    if connection is not None:
        connection.abort(life.network.now)
    some_time(life)


def close_while_data_comes(life: Life) -> None:
    life.open()
    some_time(life)
    connection = life.client.connection
    assert connection is not None
    connection.context = None
    connection.close(life.network.now)
    some_time(life)


def unread_data(life: Life) -> None:
    life.server.reads = False
    life.open()
    some_time(life)
    if life.server.connection is not None:
        life.server.connection.close(life.network.now, flush=life.rng.random() < 0.5)
    some_time(life)


def linger_zero(life: Life) -> None:
    life.client.closes = True
    life.open(replace(life.hosts[0].engine.config, linger=0))
    some_time(life)


def linger_too_short(life: Life) -> None:
    life.client.closes, life.client.incoming, life.server.outgoing = True, b"", b""
    life.open(replace(life.hosts[0].engine.config, linger=life.rng.choice([0.01, 0.5, 5.0])))
    some_time(life)


def listener_closes(life: Life) -> None:
    """Often while the handshake is going on; a connection that was accepted goes on."""
    life.open()
    some_time(life)
    assert life.listener is not None
    life.listener.close(life.network.now)
    some_time(life)


def silence(life: Life) -> None:
    life.open()
    some_time(life)
    life.network.partition(*life.hosts)
    some_time(life)


GRACEFUL: dict[str, Callable[[Life], None]] = {
    "client first": client_first,
    "server first": server_first,
    "both at once": both,
    "half-close and drain": half_close_and_drain,
    "close with data queued": close_with_data_queued,
    "close first": close_first,
    "linger, in time": linger_in_time,
    "simultaneous open": simultaneous_open,
}
ROUGH: dict[str, Callable[[Life], None]] = {
    "abort": abort,
    "close while data comes": close_while_data_comes,
    "unread data": unread_data,
    "linger 0": linger_zero,
    "linger too short": linger_too_short,
    "listener closes": listener_closes,
    "silence for good": silence,
}


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
