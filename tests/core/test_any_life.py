"""X-15, statefully: any calls of any users, on several connections, in any order, over a network that changes its mind.

Hypothesis chooses what happens next from what is possible; after every step the invariants hold, and when it has had
enough everybody closes and nothing may be left. A failure is shrunk to a few steps and printed as a program.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.apps import pattern
from support.lifecycle import nothing_left
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.observer import Observer
from utcp.core.paths import PathError
from utcp.core.states import State, legal_transition
from utcp.sim import Host, Network
from utcp.wire.segment import RST

SECOND = 10**9
CONFIGS = [
    Config(),
    Config(nodelay=True, delayed_ack=0, msl=0.5),
    Config(receive_buffer=1000, initial_window=1),
    Config(timestamps=False, sack=False, window_scaling=False),
    Config(max_segment_size=100, max_memory=2000),
    Config(ecn=True),
    Config(rfc5961_rst=False, rfc5961_syn=False, challenge_ack_interval=0),
    Config(keepalive=True, keepalive_idle=5, keepalive_interval=1, keepalive_count=3),
]
MSL = 0.5  # the shortest: no segment is older when it comes again
STREAMS = [pattern(seed, 1 << 20) for seed in range(6)]
ENDS = st.sampled_from(["client", "server"])
PAIRS = st.integers(0, 2)
PAUSES = st.sampled_from([0.0, 0.005, 0.03, 1.0])
ROUGH = [
    ("close", True),
    ("close", False),
    ("lingering_close", SECOND),
    ("lingering_close", 60 * SECOND),
    ("abort", 0),
    ("shutdown", socket.SHUT_RD),
    ("shutdown", socket.SHUT_RDWR),
]
OPTIONS: list[tuple[str, object]] = [
    ("linger", None),
    ("linger", 0.0),
    ("linger", 1.0),
    ("nodelay", True),
    ("keepalive", True),
    ("user_timeout", 3.0),
    ("receive_buffer", 500),
    ("fin_timeout", 0.0),
    ("max_segment_size", 64),
]
PROBABILITIES = st.sampled_from([0.0, 0.0, 0.1, 0.5])


class Watcher(Observer):
    """Every state change is one of RFC 9293 Figure 5 or an abort."""

    def __init__(self) -> None:
        super().__init__()
        self.illegal: list[str] = []

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        if not legal_transition(old, new):
            self.illegal.append(f"{old} -> {new}")


class End:
    """One end of a connection, and what its user has done and seen."""

    def __init__(self, host: Host, seed: int) -> None:
        self.host = host
        self.stream = STREAMS[seed]
        self.written = 0
        self.read = 0
        self.ended = False  # nothing more will be written
        self.deaf = False  # what arrives is discarded
        self.connection: Connection | None = None
        self.other = self

    @property
    def now(self) -> int:
        return self.host.network.now

    def call(self, call: Callable[[Connection], None]) -> bool:
        """Make a call; one that came too late says OSError, and nothing else. Whether it was in time."""
        if self.connection is None:
            return False
        with suppress(OSError):
            call(self.connection)
            return True
        return False

    def is_connected(self) -> bool:
        return self.connection is not None

    def shut(self, connection: Connection) -> None:
        connection.shutdown(socket.SHUT_WR, self.now)

    def send(self, size: int) -> None:
        data = self.stream[self.written : self.written + size]
        if self.call(lambda connection: connection.send(data, self.now)):
            self.written += len(data)

    def receive(self, limit: int) -> None:
        if self.connection is None:
            return
        data = self.connection.receive(limit)
        assert data == self.other.stream[self.read : self.read + len(data)], "I3: not what was sent"
        self.read += len(data)
        assert self.read <= self.other.written, "I3: more than was sent"

    def check(self) -> None:
        connection = self.connection
        if connection is not None and connection.at_eof and not self.deaf:
            assert self.other.ended, "I4: end of file, and the other end has not closed"
            assert self.read == self.other.written, f"I4: end of file at {self.read} of {self.other.written}"


class AnyLife(RuleBasedStateMachine):
    """Two hosts, up to three connections one beside or after the other."""

    @initialize(seed=st.integers(0, 2**32), config=st.sampled_from(CONFIGS), jitter=st.sampled_from([0.0, 0.05]))
    def begin(self, seed: int, config: Config, jitter: float) -> None:
        self.network = Network(seed, delay=0.01, jitter=jitter, check=invariants.check)
        self.watchers = [Watcher(), Watcher()]
        self.client, self.server = (
            self.network.host(name, config, observer=watcher)
            for name, watcher in zip(("client", "server"), self.watchers, strict=True)
        )
        self.pairs: list[tuple[End, End]] = []
        self.calm = True  # no fault and no rough call so far: no reason for a RST (I6)
        self.listener = self.server.listen(80, self.accept, backlog=2)
        self.connect(None, 0.1)

    def accept(self, connection: Connection) -> None:
        for client, server in reversed(self.pairs):
            mine = client.connection
            if server.connection is None and mine is not None and mine.local_port == connection.remote_port:
                server.connection = connection
                return
        raise AssertionError(f"{connection!r}: nobody has asked for it")

    def end(self, who: str, pair: int) -> End:
        return self.pairs[pair % len(self.pairs)][who == "server"]

    # Users

    @precondition(lambda self: len(self.pairs) < 3)
    @rule(again=st.none() | PAIRS, pause=PAUSES)
    def connect(self, again: int | None, pause: float) -> None:
        """A new connection, or a new incarnation of an old one: on the same ports."""
        port = 0
        if again is not None:
            old = self.end("client", again).connection
            port = 0 if old is None else old.local_port
        client, server = (End(host, 2 * len(self.pairs) + i) for i, host in enumerate((self.client, self.server)))
        client.other, server.other = server, client
        self.pairs.append((client, server))
        try:
            client.connection = self.client.connect(self.server, 80, local_port=port)
        except OSError:
            self.pairs.pop()
            assert port, "there are ports enough"
        else:
            self.calm = self.calm and not self.listener.closed and port == 0
        self.network.run_for(pause)

    @rule(who=ENDS, pair=PAIRS, size=st.sampled_from([1, 100, 1000, 20_000]), pause=PAUSES)
    def send(self, who: str, pair: int, size: int, pause: float) -> None:
        self.end(who, pair).send(size)
        self.network.run_for(pause)

    @rule(who=ENDS, pair=PAIRS, limit=st.sampled_from([-1, -1, 0, 1, 500]), pause=PAUSES)
    def receive(self, who: str, pair: int, limit: int, pause: float) -> None:
        self.end(who, pair).receive(limit)
        self.network.run_for(pause)

    @rule(who=ENDS, pair=PAIRS, pause=PAUSES)
    def half_close(self, who: str, pair: int, pause: float) -> None:
        end = self.end(who, pair)
        if end.call(end.shut):
            end.ended = True
        self.network.run_for(pause)

    @rule(who=ENDS, pair=PAIRS, how=st.sampled_from(ROUGH), pause=PAUSES)
    def end_roughly(self, who: str, pair: int, how: tuple[str, int], pause: float) -> None:
        """Whatever a user may do, also when the handshake or the other user is not done."""
        end = self.end(who, pair)
        name, argument = how
        self.calm = False
        if name == "close":
            done = end.call(lambda connection: connection.close(end.now, flush=bool(argument)))
        elif name == "lingering_close":
            done = end.call(lambda connection: connection.lingering_close(argument, end.now))
        elif name == "abort":
            done = end.call(lambda connection: connection.abort(end.now))
        else:
            done = end.call(lambda connection: connection.shutdown(argument, end.now))
        if done:
            end.deaf = True
            end.ended = end.ended or how != ("shutdown", socket.SHUT_RD)
        self.network.run_for(pause)

    @rule(who=ENDS, pair=PAIRS, option=st.sampled_from(OPTIONS))
    def set_option(self, who: str, pair: int, option: tuple[str, object]) -> None:
        end = self.end(who, pair)
        self.calm = self.calm and option[0] not in ("linger", "user_timeout", "keepalive")
        end.call(lambda connection: connection.set_option(*option, end.now))
        self.network.run_for(0)

    @rule(who=ENDS, option=st.sampled_from([("msl", 0.5), ("msl", 30.0), ("max_time_wait", 1), ("max_memory", 500)]))
    def set_option_of_all(self, who: str, option: tuple[str, object]) -> None:
        self.network.hosts[who].engine.set_option(*option, self.network.now)
        self.network.run_for(0)

    # The network and the clock

    @rule(seconds=st.sampled_from([0.03, 0.3, 3.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.network.run_for(seconds)

    @rule(loss=PROBABILITIES, duplicate=PROBABILITIES, reorder=PROBABILITIES)
    def change_the_weather(self, loss: float, duplicate: float, reorder: float) -> None:
        self.network.loss, self.network.duplicate, self.network.reorder = loss, duplicate, reorder
        self.calm = self.calm and not loss

    @rule(back=st.integers(1, 30), after=st.sampled_from([0.0, 0.02, 0.3]))
    def old_duplicate(self, back: int, after: float) -> None:
        """A segment comes once more, within its lifetime."""
        trace = self.network.trace
        if back <= len(trace) and self.network.now - trace[-back].sent_at + round(after * SECOND) < MSL * SECOND:
            self.calm = False
            self.network.replay(trace[-back], after=after)

    @rule(who=ENDS, what=st.sampled_from([*PathError, "early", "spurious", 0.1, 200.0, "listener"]))
    def misfortune(self, who: str, what: PathError | str | float) -> None:
        """Errors of the path, calls of handle_timeout for nothing, a partition, a listener that closes."""
        host = self.network.hosts[who]
        now = self.network.now
        if what in ("early", "spurious"):
            host.engine.handle_timeout(now - SECOND if what == "early" else now)
        elif what == "listener":
            self.calm = False
            self.listener.close(now)
        elif isinstance(what, PathError):
            self.calm = False
            other = self.server if who == "client" else self.client
            host.engine.path_error(host.path_to(other), what, now, 600)
        else:
            assert isinstance(what, float)
            self.calm = False
            self.network.partition(self.client, self.server)
            self.network.run_for(what)
            self.network.heal()
        self.network.run_for(0)

    # What holds after every step, and at the end

    @invariant()
    def nothing_illegal(self) -> None:
        for host in (self.client, self.server):
            invariants.check(host.engine)  # I1, I2
        for pair in self.pairs:
            for end in pair:
                end.check()  # I4; I3 is checked where something is read
        for watcher in self.watchers:
            assert not watcher.illegal, watcher.illegal
        if self.calm:
            resets = [str(packet) for packet in self.network.trace if packet.segment.flags & RST]
            assert not resets, f"I6: {resets[0]}"
            errors = [end.connection.error for pair in self.pairs for end in pair if end.connection is not None]
            assert not any(errors), f"I6: {errors}"

    def teardown(self) -> None:
        """I5: once everybody has closed, everything ends."""
        if not hasattr(self, "pairs"):
            return
        if self.calm:
            self.end_gracefully()
        for host in (self.client, self.server):
            for connection in host.engine.connections():
                connection.close(self.network.now, flush=True)
        self.listener.close(self.network.now)
        assert self.network.run_to_the_end(limit=100_000), self.network.ladder()
        for host in (self.client, self.server):
            nothing_left(host)

    def end_gracefully(self) -> None:
        """Nothing has gone wrong so far: every byte arrives, both ends read to the end."""
        for pair in self.pairs:
            for end in pair:
                assert self.network.run_until(end.is_connected)
                end.call(end.shut)
                end.ended = True

        def drained() -> bool:
            for pair in self.pairs:
                for end in pair:
                    end.receive(-1)
                    end.check()
            return all(end.connection is not None and end.connection.at_eof for pair in self.pairs for end in pair)

        assert self.network.run_until(drained, limit=10_000), self.network.ladder()
        assert all(end.read == end.other.written for pair in self.pairs for end in pair)


AnyLife.TestCase.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=40)
TestAnyLife = pytest.mark.timeout(0)(AnyLife.TestCase)  # --deep takes long
