"""X-15: random calls on both sides, over a network with random faults; the invariants I1 to I6 hold throughout."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from support.apps import pattern
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.states import State
from utcp.sim import Host, Network
from utcp.wire.segment import RST

CONFIGS = [
    Config(),
    Config(nodelay=True, delayed_ack=0),
    Config(receive_buffer=1000, initial_window=1),
    Config(timestamps=False, sack=False, window_scaling=False),
    Config(max_segment_size=100, msl=0.5, linger=5.0),
    Config(rfc1337=False, rfc5961_rst=False, rfc5961_syn=False),
]

GRACEFUL_CALLS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 20_000)),
    st.tuples(st.just("read"), st.sampled_from([-1, 1, 500])),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.03, 0.3, 3.0, 50.0])),
    st.tuples(st.just("shutdown"), st.just(socket.SHUT_WR)),
)
ROUGH_CALLS = st.one_of(
    GRACEFUL_CALLS,
    st.tuples(st.just("shutdown"), st.sampled_from([socket.SHUT_RD, socket.SHUT_RDWR])),
    st.tuples(st.just("close"), st.booleans()),
    st.tuples(st.just("abort"), st.none()),
    st.tuples(st.just("partition"), st.sampled_from([0.1, 5.0, 200.0])),
)
CALLS = st.lists(st.tuples(st.sampled_from(["client", "server"]), ROUGH_CALLS), max_size=15)


class End:
    """One end of the connection: what it wrote and read, and that what it read is a prefix of what was written."""

    def __init__(self, host: Host, seed: int) -> None:
        self.host = host
        self.stream = pattern(seed, 300_000)
        self.written = 0
        self.read = 0
        self.connection: Connection | None = None
        self.other: End = self

    def call(self, name: str, argument: Any) -> None:
        connection, now = self.connection, self.host.network.now
        if connection is None:
            return
        if name == "read":
            self.receive(argument)
            return
        try:
            if name == "send":
                data = self.stream[self.written : self.written + argument]
                connection.send(data, now)
                self.written += len(data)
            elif name == "shutdown":
                connection.shutdown(argument, now)
            elif name == "close":
                connection.close(now, flush=argument)
            elif name == "abort":
                connection.abort(now)
        except OSError:
            pass

    def receive(self, limit: int) -> None:
        connection, other = self.connection, self.other
        assert connection is not None
        data = connection.receive(limit)
        assert data == other.stream[self.read : self.read + len(data)], "I3: not what was sent"
        self.read += len(data)
        assert self.read <= other.written

    def drain(self) -> None:
        while self.connection is not None and self.connection.readable_bytes:
            self.receive(-1)


class Life:
    def __init__(self, seed: int, config: Config, **faults: float) -> None:
        self.network = Network(seed, delay=0.01, check=invariants.check, **faults)  # type: ignore[arg-type]
        self.client = End(self.network.host("client", config), 1)
        self.server = End(self.network.host("server", config), 2)
        self.client.other, self.server.other = self.server, self.client
        self.listener = self.server.host.listen(80, self.accept)
        self.client.connection = self.client.host.connect(self.server.host, 80)

    def accept(self, connection: Connection) -> None:
        if self.server.connection is None:  # the first: a second would be another incarnation
            self.server.connection = connection

    def play(self, calls: list[tuple[str, tuple[str, Any]]]) -> None:
        for who, (name, argument) in calls:
            if name == "wait":
                self.network.run_for(argument)
            elif name == "partition":
                self.network.partition(self.client.host, self.server.host)
                self.network.run_for(argument)
                self.network.heal(self.client.host, self.server.host)
            else:
                (self.client if who == "client" else self.server).call(name, argument)
                self.network.run_for(0)

    def nothing_left(self) -> None:
        """I5: once both applications have closed, everything ends within a bound."""
        assert self.network.run_to_the_end(limit=10_000), self.network.ladder()
        for end in (self.client, self.server):
            engine = end.host.engine
            assert engine.states() in ({}, {State.LISTEN: 1}), self.network.ladder()
            assert list(engine.connections()) == []
            assert end.connection is None or end.connection.closed


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32),
    config=st.sampled_from(CONFIGS),
    loss=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    duplicate=st.sampled_from([0.0, 0.2]),
    reorder=st.sampled_from([0.0, 0.3]),
    calls=CALLS,
)
def test_I5_everything_ends(
    seed: int,
    config: Config,
    loss: float,
    duplicate: float,
    reorder: float,
    calls: list[tuple[str, tuple[str, Any]]],
) -> None:
    life = Life(seed, config, loss=loss, duplicate=duplicate, reorder=reorder)
    life.play(calls)
    for end in (life.client, life.server):
        end.drain()
        end.call("close", True)
    life.listener.close(life.network.now)
    life.nothing_left()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    config=st.sampled_from(CONFIGS[:5]),
    jitter=st.sampled_from([0.0, 0.05]),
    calls=st.lists(st.tuples(st.sampled_from(["client", "server"]), GRACEFUL_CALLS), max_size=15),
)
def test_I6_a_lossless_graceful_life_has_no_reset_and_loses_nothing(
    seed: int, config: Config, jitter: float, calls: list[tuple[str, tuple[str, Any]]]
) -> None:
    life = Life(seed, config, jitter=jitter)
    network, client, server = life.network, life.client, life.server
    assert network.run_until(lambda: server.connection is not None)
    life.play(calls)
    for end in (client, server):
        end.call("shutdown", socket.SHUT_WR)

    def drained() -> bool:
        for end in (client, server):
            end.drain()
        return all(end.connection is not None and end.connection.at_eof for end in (client, server))

    assert network.run_until(drained, limit=3600), network.ladder()
    for end in (client, server):
        assert end.read == end.other.written, "I4: end of file before the last byte"
        end.call("close", False)
    life.nothing_left()
    assert client.connection is not None and client.connection.error is None
    assert server.connection is not None and server.connection.error is None
    assert not [packet for packet in network.trace if packet.segment.flags & RST], network.ladder()
