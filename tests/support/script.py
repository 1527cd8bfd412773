"""A scripted peer around one engine, in virtual time.

A is the engine under test, B the script. Every step is exact: what A sends is either expected next, or the
test fails, and so does anything that A has sent and nobody asked for when the next step begins, or when the
test ends. A failure prints the whole exchange. See `support.notation` for how segments are written.

    s = Script()
    s.listen()
    s.recv("S seq=b-1 mss=1000")
    s.expect("S. seq=a-1 ack=b mss=1452")
    s.recv(". seq=b ack=a")
    s.accept()
    s.close()
    s.expect("F. seq=a ack=b")
    s.expect_after(0.3, "F. seq=a ack=b")
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from support.notation import differences, number, parse_pattern, text_of
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine
from utcp.core.listener import Listener
from utcp.core.observer import Observer
from utcp.core.paths import PathError
from utcp.core.states import State, legal_transition
from utcp.wire import segment as w
from utcp.wire.segment import Segment, decode
from utcp.wire.seq import seq_add, seq_gt

SECOND = 1_000_000_000
A_ADDRESS, B_ADDRESS = ("10.0.0.1", 9000), ("10.0.0.2", 9000)
A_PORT, B_PORT = 1000, 2000
A_ISS, B_ISS = 1_000_000_000 - 1, 2_000_000_000 - 1
A_MSS = 1452  # what A announces for an MTU of 1500: less IP 20, UDP 8, TCP 20
RTT = 0.1  # of the handshake in `established`
RTO = 0.3  # what follows from it: SRTT + 4 * RTTVAR = 0.1 + 4 * 0.05 (RFC 6298 2.2)


OPEN: list[Script] = []
"""The scripts of the running test: each must end in silence (tests/core/conftest.py sees to it)."""


def ns(seconds: float) -> int:
    return round(seconds * SECOND)


@dataclass
class Sent:
    """A segment that A sent: when, on which path, whether the engine called it a retransmission, and the ECN field of
    its IP header."""

    at: int
    path: int
    seg: Segment
    retransmission: bool
    ecn: int


class Recorder(Observer):
    """Writes down what the engine tells, and checks every state change against RFC 9293 Figure 5."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.sent: list[tuple[bytes, bool]] = []
        self.received = 0
        self.drops: list[str] = []
        self.timers: list[str] = []
        self.closed_reasons: list[str] = []
        self.calls: list[str] = []
        self.path_mtus: list[tuple[int, int]] = []
        self.states: dict[tuple[int, int, int], list[State]] = {}

    def segment_in(self, now: int, path: int, segment: bytes) -> None:
        self.received += 1

    def segment_out(self, now: int, path: int, segment: bytes, retransmission: bool) -> None:
        self.sent.append((segment, retransmission))

    def drop(self, now: int, path: int, segment: bytes, reason: str) -> None:
        self.drops.append(reason)
        self.script.note(f"dropped: {reason}")

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        states = self.states.setdefault((path, local_port, remote_port), [])
        self.script.note(f"{old} -> {new}")
        if not legal_transition(old, new):
            self.script.faults.append(f"no legal transition: {old} -> {new}")
        begins = old in (State.CLOSED, State.LISTEN)  # a listener's child is born in LISTEN
        if states and states[-1] != (State.CLOSED if begins else old):
            self.script.faults.append(f"was {states[-1]}, not {old}")
        states.append(new)

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.timers.append(name)
        self.script.note(f"timer: {name}")

    def user_call(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.calls.append(name)

    def path_mtu(self, now: int, path: int, old: int, new: int) -> None:
        self.path_mtus.append((old, new))
        self.script.note(f"path MTU {old} -> {new}")

    def closed(self, now: int, path: int, local_port: int, remote_port: int, reason: str) -> None:
        self.closed_reasons.append(reason)
        self.script.note(f"closed: {reason}")


class Script:
    """One engine, one scripted peer, one conversation (``port`` and ``path`` arguments allow for more)."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        a_iss: int = A_ISS,
        b_iss: int = B_ISS,
        mtu: int = 1500,
        link_mtu: int | Callable[[object, object], int] = 0,
        start: int = 0,
        a_port: int = A_PORT,
        b_port: int = B_PORT,
    ) -> None:
        self.names = {"a": seq_add(a_iss, 1), "b": seq_add(b_iss, 1)}
        self.names["A"], self.names["B"] = self.names["a"], self.names["b"]
        self.now = start
        self.start = start
        self.failed = False
        self.segments, self.resets = 0, 0  # that A has sent
        self.faults: list[str] = []  # what the observer found wrong; raised at the next occasion
        self.log: list[str] = []
        self.recorder = Recorder(self)
        self.iss = a_iss
        self.ts_clock: int | None = None  # a fixed TSval, else milliseconds
        self.engine = Engine(
            config,
            secret=bytes(range(32)),
            isn=lambda path, local_port, remote_port: self.iss,
            timestamp_clock=self._ts_now,
            mtu=0 if link_mtu else mtu,
            link_mtu=link_mtu,
            observer=self.recorder,
        )
        self.a_port, self.b_port = a_port, b_port
        self.path = self.engine.path(A_ADDRESS, B_ADDRESS)
        self.ts = False  # timestamps are in use: every segment carries them
        self.b_ts = 7_000_000
        self.a_ts = 0  # the last TSval of A
        self.listener: Listener | None = None
        self._conn: Connection | None = None
        self._sent: deque[Sent] = deque()
        self._holding = False
        self._patient = False
        OPEN.append(self)

    def _ts_now(self, now: int) -> int:
        return now // 1_000_000 + 5_000_000 if self.ts_clock is None else self.ts_clock

    @property
    def conn(self) -> Connection:
        """The connection under test."""
        assert self._conn is not None, "no connection yet"
        return self._conn

    def conns(self) -> list[Connection]:
        """The connection under test, if there is one."""
        return [] if self._conn is None else [self._conn]

    # --- B's side ------------------------------------------------------------------------------------------

    def recv(self, text: str, data: bytes | None = None, *, port: int | None = None, path: int | None = None) -> None:
        """A segment arrives. Data is zeros of the given ``len`` unless it is given."""
        self._require_silence(f"before < {text}")
        seg = self.segment(text, data, port=port)
        ecn = parse_pattern(text, self.names).ecn
        self.note(f"< {text_of(seg, self.names, ecn)}")
        self.engine.receive(self.path if path is None else path, seg.to_bytes(), self.now, ecn=ecn)
        self._settle()

    def recv_bytes(self, datagram: bytes, segment_size: int = 0, ecn: int = 0) -> None:
        """Any bytes arrive."""
        self._require_silence("before garbage")
        self.note(f"< {len(datagram)} bytes")
        self.engine.receive(self.path, datagram, self.now, segment_size, ecn)
        self._settle()

    def segment(self, text: str, data: bytes | None = None, *, port: int | None = None) -> Segment:
        """A segment of B's, from text."""
        p = parse_pattern(text, self.names)
        assert p.seq is not None, f"{text!r} says no seq"
        assert p.ack is not None or not p.flags & w.ACK, f"{text!r} says no ack"
        ts_val, ts_ecr = -1, 0
        if p.ts is not None:
            ts_val, ts_ecr = p.ts[0] or 0, p.ts[1] or 0
        elif self.ts and not p.nots:
            ts_val, ts_ecr = self.b_ts + self.now // 1_000_000, self.a_ts
        return Segment(
            self.b_port if port is None else port,
            self.a_port,
            p.seq,
            p.ack or 0,
            p.flags,
            65535 if p.wnd is None else p.wnd,
            bytes(p.len) if data is None else data,
            urg=p.urg or 0,
            mss=int(p.mss),
            wscale=int(p.ws),
            sack_permitted=bool(p.sackok),
            ts_val=ts_val,
            ts_ecr=ts_ecr,
            sack=p.sack,
        )

    @contextmanager
    def together(self) -> Iterator[None]:
        """What happens inside reaches the engine before it may send anything: one pass of a driver."""
        self._require_silence("before several things at once")
        self._holding = True
        yield
        self._holding = False
        self._settle()

    @contextmanager
    def patient(self) -> Iterator[None]:
        """ACKs for which an answer is likely wait for it until the end of this: see `Engine.transmit`."""
        self._patient = True
        yield
        self._patient = False
        self._settle()

    # --- A's side ------------------------------------------------------------------------------------------

    def expect(self, text: str, data: bytes | None = None, *, port: int | None = None, path: int | None = None) -> Sent:
        """The next segment that A has sent is this one."""
        if not self._sent:
            raise AssertionError(self.failure(f"expected > {text}, and there was silence"))
        sent = self._sent.popleft()
        pattern = parse_pattern(text, self.names)
        if data is not None:
            pattern.len = len(data)
        wrong = differences(pattern, sent.seg, self.names, ts_expected=self.ts, ecn=sent.ecn)
        if sent.seg.dst_port != (self.b_port if port is None else port) or sent.seg.src_port != self.a_port:
            wrong.append(f"ports: {sent.seg.src_port} > {sent.seg.dst_port}")
        if sent.path != (self.path if path is None else path):
            wrong.append(f"path: {sent.path}")
        if data is not None and sent.seg.data != data:
            wrong.append(f"data: {sent.seg.data[:40]!r}")
        if wrong:
            raise AssertionError(self.failure(f"expected > {text}\n" + "\n".join(wrong)))
        return sent

    def expect_after(self, seconds: float, text: str, data: bytes | None = None) -> Sent:
        """Silence until exactly that much time has passed, to the nanosecond, and then this segment."""
        self._quiet(ns(seconds) - 1, text)
        self._advance_to(self.now + 1)
        return self.expect(text, data)

    def take(self) -> list[Sent]:
        """All that A has sent and nobody expected: for tests that look for themselves."""
        sent, self._sent = list(self._sent), deque()
        return sent

    def silent(self) -> None:
        """A has sent nothing."""
        self._require_silence("here")

    def silent_for(self, seconds: float) -> None:
        """Time passes and A sends nothing."""
        self._quiet(ns(seconds), f"{seconds} s of silence")

    def advance(self, seconds: float) -> None:
        """Time passes; what A sends meanwhile is to be expected next, see `Sent.at`."""
        self._require_silence("before time passes")
        self._advance_to(self.now + ns(seconds))

    # --- the user of A ---------------------------------------------------------------------------------------

    def connect(self, config: Config | None = None, *, b_port: int | None = None) -> Connection:
        self._require_silence("before connect")
        port = self.b_port if b_port is None else b_port
        self._conn = self.engine.connect(self.path, port, self.now, local_port=self.a_port, config=config)
        self._settle()
        return self._conn

    def listen(self, config: Config | None = None, *, backlog: int = 128) -> Listener:
        self.listener = self.engine.listen(self.a_port, self.now, backlog, config)
        return self.listener

    def accept(self) -> Connection:
        """The listener has a connection for us, which becomes the one under test."""
        assert self.listener is not None
        conn = self.listener.accept()
        assert conn is not None, self.failure("nothing to accept")
        self._conn = conn
        return conn

    def embryo(self) -> Connection:
        """The one connection the engine has, accepted or not, becomes the one under test."""
        (self._conn,) = self.engine.connections()
        return self._conn

    def send(self, data: bytes | int) -> None:
        """SEND; an int is a number of zeros."""
        self._call("send", bytes(data) if isinstance(data, int) else data)

    def read(self, limit: int = -1) -> bytes:
        """RECEIVE."""
        self._require_silence("before receive")
        data = self.conn.receive(limit)
        self._settle()
        return data

    def shutdown(self, how: int = socket.SHUT_WR) -> None:
        self._call("shutdown", how)

    def close(self, *, flush: bool = False) -> None:
        self._require_silence("before close")
        self.note("user: close" + (" (flush)" if flush else ""))
        self.conn.close(self.now, flush=flush)
        self._settle()

    def lingering_close(self, timeout: float) -> None:
        self._call("lingering_close", ns(timeout))

    def abort(self) -> None:
        self._call("abort")

    def set_option(self, name: str, value: object) -> None:
        self._require_silence(f"before set_option {name}")
        self.conn.set_option(name, value, self.now)
        self._settle()

    def path_error(self, kind: PathError, mtu: int = 0, quote: bytes = b"") -> None:
        self._require_silence(f"before {kind}")
        self.note(f"path error: {kind} {mtu}")
        self.engine.path_error(self.path, kind, self.now, mtu, quote)
        self._settle()

    def _call(self, name: str, *args: object) -> None:
        self._require_silence(f"before {name}")
        self.note(f"user: {name}")
        getattr(self.conn, name)(*args, self.now)
        self._settle()

    # --- what became of it -----------------------------------------------------------------------------------

    def expect_state(self, state: State) -> None:
        """The state, as the engine counts it and as the connection's own object has it."""
        counts = {str(s): n for s, n in self.engine.states().items() if n and s != State.LISTEN}
        wanted = {} if state is State.CLOSED else {str(state): 1}
        if counts != wanted:
            raise AssertionError(self.failure(f"states are {counts}, not {wanted}"))
        if self._conn is not None and state is not State.CLOSED and self._conn.state != state:
            raise AssertionError(self.failure(f"state is {self._conn.state!s}, not {state}"))

    def expect_gone(self, error: type[BaseException] | None = None) -> None:
        """The connection is over for this error (None: gracefully), and the engine holds nothing of it."""
        self._require_silence("at the end")
        self.expect_state(State.CLOSED)
        assert list(self.engine.connections()) == [], self.failure("the engine still holds a connection")
        assert self.conn.closed, self.failure("the connection is not closed")
        got = None if self.conn.error is None else type(self.conn.error)
        assert got is error, self.failure(f"error is {self.conn.error!r}, not {error}")

    def visited(self) -> list[str]:
        """The states that the connection has been in, in order."""
        return [str(s) for s in self.recorder.states.get((self.path, self.a_port, self.b_port), [])]

    def events(self) -> int:
        """Readiness bits since the last call."""
        self.engine.ready()
        return self.conn.take_ready()

    def done(self) -> None:
        """The test is over: nothing unexpected may be left."""
        if not self.failed:
            self._require_silence("at the end of the test")

    # --- time and output -------------------------------------------------------------------------------------

    def _quiet(self, duration: int, waiting_for: str) -> None:
        self._require_silence("before time passes")
        self._advance_to(self.now + duration)
        self._require_silence(f"while waiting for {waiting_for}")

    def _advance_to(self, instant: int) -> None:
        while (deadline := self.engine.next_timeout()) is not None and deadline <= instant:
            self.now = max(self.now, deadline)
            self.engine.handle_timeout(self.now)
            left = self.engine.next_timeout()
            assert left is None or left > self.now, self.failure("a timer is still due after handle_timeout")
            self._settle()
        self.now = instant

    def _settle(self) -> None:
        """Collect what A sends now, and check the engine's invariants."""
        if self._holding:
            return
        datagrams = [(t.path, t.ecn, d) for t in self.engine.transmit(self.now, self._patient) for d in t.datagrams()]
        told = dict(self.recorder.sent)
        self._count(len(datagrams))
        assert sorted(d for *_, d in datagrams) == sorted(d for d, _ in self.recorder.sent), self.failure(
            "what leaves is not what the observer was told"
        )
        self.recorder.sent.clear()
        for path, ecn, datagram in datagrams:
            seg = decode(datagram)
            if seg.flags & w.RST:
                self.resets += 1
                assert not told[datagram], self.failure("a RST is no retransmission")
            assert seg.flags & w.ACK or seg.ack == 0, self.failure("an acknowledgment number without ACK")
            self._sent.append(Sent(self.now, path, seg, told[datagram], ecn))
            self.note(f"> {text_of(seg, self.names, ecn)}" + ("  (retransmission)" if told[datagram] else ""))
            self._follow(seg)
        assert self.engine.counters.resets_out == self.resets, self.failure("resets are miscounted")
        assert not self.faults, self.failure("\n".join(self.faults))
        invariants.check(self.engine)

    def _count(self, datagrams: int) -> None:
        self.segments += datagrams
        assert self.engine.counters.segments_out == self.segments, self.failure("what leaves is not what is counted")

    def _follow(self, seg: Segment) -> None:
        """Keep `A`, A's SND.NXT, and `B`, A's RCV.NXT, as the wire shows them."""
        if seg.flags & w.RST or seg.dst_port != self.b_port:
            return
        end = seq_add(seg.seq, seg.len)
        if seq_gt(end, self.names["A"]):
            self.names["A"] = end
        if seg.flags & w.ACK:
            self.names["B"] = int(seg.ack)
        if seg.ts:
            self.a_ts = int(seg.ts_val)

    def seq(self, text: str) -> int:
        """The absolute value of a sequence number in the notation."""
        return number(text, self.names)

    def _require_silence(self, when: str) -> None:
        if self._sent:
            segments = "\n".join(f"> {text_of(sent.seg, self.names, sent.ecn)}" for sent in self._sent)
            self._sent.clear()
            raise AssertionError(self.failure(f"nobody expected, {when}:\n{segments}"))

    def note(self, text: str) -> None:
        self.log.append(f"{(self.now - self.start) / SECOND:13.6f}  {text}")

    def failure(self, what: str) -> str:
        """What to raise an AssertionError with: what is wrong, and all that happened so far."""
        self.failed = True
        return "\n".join([what, "", "the whole exchange:", *self.log])
