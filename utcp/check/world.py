"""The model: two real engines, two applications that follow their scripts, and a network that does as it is told.

A **choice** is a short word, and a schedule of them replays a world exactly:

- ``c``, ``s``: the client, the server takes the next step of its script
- ``d0``: the network delivers the first of the segments in flight; ``d1`` the second, ...
- ``t``: time passes until a timer has had an effect
- ``h0``: the network holds that segment back, for a while or for ever: a fault
- ``u0``: it delivers it and keeps a copy: a fault
- ``l0``: it loses it: a fault that a search need not try, because what is held back for ever is lost
- ``x``: silence, from here to the end: nothing gets through any more

The network keeps the order of each direction and takes no longer than ``LATE``, but for copies and for what it holds
back: these arrive whenever they like, until they are older than MSL. So a fault is a segment lost, doubled, reordered
or late.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from utcp.check.scenarios import Scenario
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import SHUT_WR, Connection
from utcp.core.deadlines import earliest_deadline
from utcp.core.engine import Engine
from utcp.core.listener import Listener
from utcp.core.observer import Observer
from utcp.core.stack import NEVER
from utcp.core.states import State, legal_transition
from utcp.wire.segment import RST
from utcp.wire.seq import MASK

CLIENT: Final = 0
SERVER: Final = 1
NAMES: Final = ("client", "server")
PORTS: Final = (1000, 80)

MILLISECOND: Final = 1_000_000
START: Final = 1_000 * 1_000_000_000
TRAVEL: Final = MILLISECOND  # how long a delivery takes, unless a deadline comes first
LATE: Final = 100 * MILLISECOND  # longer than an ACK is delayed, shorter than an RTO
MAX_IN_FLIGHT: Final = 40  # far more than any script can cause, but for a storm

# Both streams cross a boundary of sequence arithmetic within their first bytes: 2**32 and 2**31
FIRST_ISS: Final = (0xFFFFFFFD, 0x7FFFFFFD)
_ISS_STEP: Final = 0x100000

# These concern more than the connection at hand, and happen also when that has failed
_AFTER_FAILURE: Final = ("connect", "accept", "unlisten", "leave", "vanish")


class Violation(AssertionError):
    """An invariant does not hold, or an engine raised."""


class Isn:
    """Initial sequence numbers that are the same in every run, and rise with every connection."""

    def __init__(self, end: int) -> None:
        self.next = FIRST_ISS[end]

    def __call__(self, path: int, local_port: int, remote_port: int) -> int:
        iss = self.next
        self.next = (iss + _ISS_STEP) & MASK
        return iss


def timestamp(now: int) -> int:
    """The timestamp clock of both engines: milliseconds, which PAWS compares."""
    return (now // MILLISECOND) & MASK


class Watch(Observer):
    """What an engine tells: its transitions, which must be legal and continuous."""

    def __init__(self) -> None:
        self.transitions: list[tuple[State, State]] = []  # since somebody last looked
        self.complaint = ""  # about a transition; an observer must not raise
        self._states: dict[tuple[int, int], State] = {}

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        pair = (local_port, remote_port)
        known = self._states.get(pair, State.CLOSED)
        if old is not known and not (known is State.CLOSED and old is State.LISTEN):  # a listener's child begins there
            self.complaint = f"a transition begins in {old}, the connection was in {known}"
        if not legal_transition(old, new):
            self.complaint = f"RFC 9293 Figure 5 has no transition from {old} to {new}"
        self._states[pair] = new
        if new is State.CLOSED:
            del self._states[pair]
        self.transitions.append((old, new))


@dataclass(slots=True)
class Flying:
    """A segment in flight to one end."""

    to: int
    payload: bytes
    sent_at: int
    held: bool = False  # or a copy: in no order, and not in time


@dataclass(slots=True)
class Stream:
    """What was written to a connection, by its initial sequence number: bytes, and whether that was all."""

    written: int = 0
    ended: bool = False


class End:
    """One engine and the application on it."""

    def __init__(self, index: int, scenario: Scenario, config: dict[str, Any]) -> None:
        self.index = index
        self.watch = Watch()
        self.config = Config(**(scenario.settings(index) | config))
        self.isn = Isn(index)
        self.engine = Engine(
            self.config,
            secret=bytes(32),
            isn=self.isn,
            timestamp_clock=timestamp,
            mtu=1500,
            observer=self.watch,
        )
        self.path = self.engine.path(NAMES[index], NAMES[1 - index])
        self.listener: Listener | None = None
        self.connection: Connection | None = None
        self.steps_taken = 0
        self.read = 0  # bytes of this connection
        self.vanished = False

    def next_deadline(self) -> int:
        """The earliest of all connections and TIME-WAIT records, NEVER if there is none."""
        if self.vanished:
            return NEVER
        stack = self.engine.stack
        expiry = stack.time_wait.next_deadline()
        instants = [earliest_deadline(tcb) for tcb in stack.connections.values()]
        return min(instants + [expiry] * (expiry >= 0), default=NEVER)

    @property
    def failed(self) -> bool:
        return self.connection is not None and self.connection.closed and self.connection.error is not None


class World:
    """One state of the model, and the steps out of it. Subclasses may put faults in: see ``send`` and ``settle``."""

    def __init__(self, scenario: Scenario, config: dict[str, Any] | None = None) -> None:
        """``config``: fields of Config for both ends, beside the scenario's own."""
        self.scenario = scenario
        self.scripts = (scenario.script(CLIENT), scenario.script(SERVER))
        self.now = START
        self.ends = [End(index, scenario, config or {}) for index in (CLIENT, SERVER)]
        self.flight: list[Flying] = []
        self.streams: dict[int, Stream] = {}
        self.faults = 0
        self.resets = 0
        self.silent = False
        for end in self.ends:
            script = self.scripts[end.index]
            if script and script[0][0] in ("accept", "listen"):
                end.listener = end.engine.listen(PORTS[end.index], self.now)
        # Whose application reads when its script says so, not whenever there is something
        self.manual = [any(call.startswith("read") for step in script for call in step) for script in self.scripts]

        if all(script and script[0] == ("connect",) for script in self.scripts):
            self.apply("c")  # simultaneous open: neither end may find the other's port closed
            self.apply("s")

    # What can happen

    def choices(self) -> list[str]:
        """What may come next without a fault."""
        found = self.calls() + [f"d{number}" for number in self._in_turn()]
        at = self.next_deadline()
        if at is not None and self._in_time(at):
            found.append("t")
        return found

    def faulty_choices(self) -> list[str]:
        """What the network may do wrong next.

        A loss is no choice of its own here: a segment is held back, and never arrives.
        """
        return [
            choice
            for number in self._in_turn()
            for choice in ([f"u{number}"] if self.flight[number].held else [f"u{number}", f"h{number}"])
        ]

    def only_held(self) -> bool:
        """Nothing can happen any more, but that what is held back arrives."""
        return self.next_deadline() is None and not self.calls() and all(flying.held for flying in self.flight)

    def _in_turn(self) -> list[int]:
        """The segments that may be delivered: the first of each direction, and one of each kind that is held back."""
        first: dict[object, int] = {}
        for number, flying in enumerate(self.flight):
            first.setdefault((flying.to, flying.payload) if flying.held else flying.to, number)
        return list(first.values())

    def calls(self) -> list[str]:
        """Which applications can take their next step."""
        return [name[0] for name, end in zip(NAMES, self.ends, strict=True) if self._enabled(end)]

    def next_deadline(self) -> int | None:
        """When the next timer has an effect: an engine's ``next_timeout`` may be earlier."""
        return min((at for end in self.ends if (at := end.next_deadline()) < NEVER), default=None)

    def _in_time(self, at: int) -> bool:
        """Whether the network may still be at it at that instant."""
        limit = self.network_limit()
        return limit is None or at <= limit

    def network_limit(self) -> int | None:
        """When the oldest segment that is not held back must have arrived."""
        return min((flying.sent_at + LATE for flying in self.flight if not flying.held), default=None)

    def next_timeout(self) -> int | None:
        instants = [at for end in self.ends if not end.vanished and (at := end.engine.next_timeout()) is not None]
        return min(instants, default=None)

    def _enabled(self, end: End) -> bool:
        """Whether the application of ``end`` can take its next step."""
        script = self.scripts[end.index]
        return end.steps_taken < len(script) and self._awaited(end, script[end.steps_taken][0])

    def _awaited(self, end: End, call: str) -> bool:
        verb, _, argument = call.partition(" ")
        connection = end.connection
        if verb == "accept":
            return end.listener is not None and end.listener.pending > 0
        if verb == "connect":
            return connection is None or connection.state is State.CLOSED
        if verb == "vanish":
            return next(end.engine.connections(), None) is None
        if connection is None:
            return verb in ("listen", "unlisten", "leave")
        if verb == "established":
            return connection.state >= State.ESTABLISHED or connection.closed
        if verb == "expect":
            return end.read >= int(argument)
        if verb == "read":
            return connection.readable_bytes >= int(argument)
        if verb == "eof":
            return connection.at_eof
        return True

    # Steps

    def apply(self, choice: str) -> None:
        """Take one step. Raises Violation, or what an engine raised."""
        letter, number = choice[0], int(choice[1:] or 0)
        if letter in "cs":
            end = self.ends["cs".index(letter)]
            for call in self.scripts[end.index][end.steps_taken]:
                self._call(end, call)
            end.steps_taken += 1
            self.settle(end)
        elif letter == "t":
            self._pass_time()
        elif letter == "x":
            self._fall_silent()
        else:
            flying = self.flight[number]
            self.faults += letter != "d"
            if letter in "uh":
                self.flight[number] = replace(flying, held=True)
            else:
                del self.flight[number]
            if letter in "du":
                self._deliver(flying)

    def _call(self, end: End, call: str) -> None:
        verb, _, argument = call.partition(" ")
        connection, now = end.connection, self.now
        if verb == "connect":
            end.connection = end.engine.connect(end.path, PORTS[1 - end.index], now, local_port=PORTS[end.index])
            end.read = 0
        elif verb == "accept":
            assert end.listener is not None
            end.connection = end.listener.accept()
            end.read = 0
        elif verb in ("unlisten", "leave") and end.listener is not None:
            end.listener.close(now)
        elif verb == "vanish":
            end.vanished = True
        if connection is None or connection.closed:
            return
        if verb == "send":
            stream = self._stream(connection.iss)
            data = pattern(connection.iss, stream.written, int(argument))
            stream.written += len(data)
            connection.send(data, now)
        elif verb == "read":
            self._read(end, int(argument))
        elif verb in ("shutdown", "close", "leave", "flush", "linger", "abort"):
            self._stream(connection.iss).ended = True
            if verb == "shutdown":
                connection.shutdown(SHUT_WR, now)
            elif verb == "abort":
                connection.abort(now)
            elif verb == "linger":
                connection.lingering_close(int(argument) * 1_000_000_000, now)
            else:
                connection.close(now, flush=verb == "flush")

    def _stream(self, iss: int) -> Stream:
        return self.streams.setdefault(iss, Stream())

    def _deliver(self, flying: Flying) -> None:
        end = self.ends[flying.to]
        deadline = self.next_deadline()
        arrival = self.now + TRAVEL
        self.now = arrival if deadline is None else max(self.now, min(arrival, deadline))
        if not end.vanished:
            end.engine.receive(end.path, flying.payload, self.now)
            self.settle(end)

    def _pass_time(self) -> None:
        """Until the next timer of either end has fired."""
        at = self.next_deadline()
        assert at is not None
        self.now = max(self.now, at)
        for end in self.ends:
            if end.next_deadline() <= self.now:
                end.engine.handle_timeout(self.now)
                self.settle(end)
        # No segment is older than MSL (RFC 9293 3.4.2): TIME-WAIT relies on it
        lifetime = max(round(end.config.msl * 1e9) for end in self.ends)
        self.flight = [flying for flying in self.flight if flying.sent_at + lifetime >= self.now]

    def _fall_silent(self) -> None:
        """Nothing gets through any more: the applications do what they can, and every timer runs out (I5)."""
        self.silent = True
        self.flight.clear()
        limit = self.now + 4 * sum(self._patience(end) for end in self.ends)
        while True:
            ready = [end for end in self.ends if self._enabled(end)]
            if ready:
                self.apply(NAMES[ready[0].index][0])
            elif self.next_deadline() is not None:
                self._pass_time()
            else:
                break
            if self.now > limit:
                raise Violation(f"I5: {(self.now - START) / 1e9:.0f} s of silence have not ended it")
        for end in self.ends:
            held = end.connection if end.steps_taken < len(self.scripts[end.index]) else None
            for connection in end.engine.connections():
                if connection is not held:
                    raise Violation(f"I5: nobody is left who could end {connection!r}")

    @staticmethod
    def _patience(end: End) -> int:
        config = end.config
        seconds = (config.r2, config.syn_r2, config.orphan_timeout, config.close_timeout, config.fin_timeout)
        return round((sum(seconds) + 2 * config.msl + config.rto_max + config.persist_max) * 1e9)

    # After every step

    def settle(self, end: End) -> None:
        """Let the application read, hand the network what the engine has to send, check everything."""
        engine = end.engine
        while not end.vanished:
            engine.ready_listeners()
            for connection in engine.ready():
                connection.take_ready()
            if end.connection is not None and not self.manual[end.index]:
                self._read(end, -1)
            trains = engine.transmit(self.now)
            for train in trains:
                for payload in train.datagrams():
                    self.send(end, payload)
            if not trains and not engine.pending():
                break
        if not end.vanished:
            invariants.check(engine)
        if end.watch.complaint:
            raise Violation(end.watch.complaint)
        if len(self.flight) > MAX_IN_FLIGHT:
            raise Violation(f"a storm: {len(self.flight)} segments in flight")
        self._check_end_of_file(end)
        script = self.scripts[end.index]
        while end.failed and end.steps_taken < len(script) and script[end.steps_taken][0] not in _AFTER_FAILURE:
            end.steps_taken += 1

    def send(self, end: End, payload: bytes) -> None:
        """Take one segment from an engine."""
        if payload[13] & RST:
            self.resets += 1
        if not self.silent:
            self.flight.append(Flying(1 - end.index, payload, self.now))

    def _read(self, end: End, limit: int) -> None:
        connection = end.connection
        assert connection is not None
        data = connection.receive(limit)
        if data != pattern(connection.irs, end.read, len(data)):
            raise Violation(f"I3: the {NAMES[end.index]} read {data!r}, not what was sent")
        end.read += len(data)
        if end.read > self._stream(connection.irs).written:
            raise Violation(f"I3: the {NAMES[end.index]} read more than was sent")

    def _check_end_of_file(self, end: End) -> None:
        connection = end.connection
        if connection is None or not connection.at_eof or connection.error is not None:
            return
        stream = self._stream(connection.irs)
        if not stream.ended:
            raise Violation(f"I4: the {NAMES[end.index]} sees end-of-file, and the other end has not closed")
        if not connection.shut_rd and end.read != stream.written:
            raise Violation(f"I4: the {NAMES[end.index]} sees end-of-file after {end.read} of {stream.written} bytes")

    def check_the_end(self) -> None:
        """What must hold where nothing can happen any more (I5)."""
        for end in self.ends:
            script, left = self.scripts[end.index], list(end.engine.connections())
            waits = "" if end.steps_taken == len(script) else script[end.steps_taken][0]
            if end.vanished:
                continue
            if left:
                raise Violation(f"I5: {left[0]!r} is left, and nothing will ever happen to it")
            if waits and (waits != "accept" or self.scenario.graceful):
                raise Violation(f"I5: the {NAMES[end.index]} waits for ever: {waits}")
            if self.scenario.graceful:
                self._check_graceful(end)

    def _check_graceful(self, end: End) -> None:
        connection = end.connection
        if connection is None:
            return
        if connection.error is not None:
            raise Violation(f"the {NAMES[end.index]} sees {connection.error!r} in a graceful close")
        if end.read != self._stream(connection.irs).written:
            raise Violation(f"I3: the {NAMES[end.index]} has read {end.read} bytes of what was sent")

    def take_transitions(self) -> list[tuple[State, State]]:
        """The transitions since the last call."""
        found = [edge for end in self.ends for edge in end.watch.transitions]
        for end in self.ends:
            end.watch.transitions.clear()
        return found


def pattern(iss: int, start: int, n: int) -> bytes:
    """Bytes ``start`` to ``start + n`` of the stream that begins with ``iss``; neighbours and streams differ."""
    return bytes((iss >> 20 ^ iss >> 28 ^ (start + i) * 7) & 0xFF for i in range(n))
