"""Properties: whatever arrives, whatever the user calls, nothing raises that should not, and the invariants hold."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.script import OPEN, Script
from support.states import SITUATIONS, established, syn_sent, time_wait
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine
from utcp.core.paths import PathError
from utcp.core.states import State
from utcp.wire.segment import ACK, FIN, RST, SYN, Segment

# Numbers near those that matter, and any others
OFFSETS = st.one_of(st.integers(-3, 3), st.integers(-70_000, 70_000), st.integers(0, 2**32 - 1))
FLAGS = st.one_of(
    st.sampled_from([ACK, FIN | ACK, SYN, SYN | ACK, RST, RST | ACK, 0, FIN, SYN | FIN, SYN | RST]), st.integers(0, 255)
)


@st.composite
def segment_fields(draw: st.DrawFn) -> dict[str, object]:
    flags = draw(FLAGS)
    syn = bool(flags & SYN)
    fields: dict[str, object] = {
        "seq": draw(OFFSETS),
        "ack": draw(OFFSETS),
        "flags": flags,
        "wnd": draw(st.sampled_from([0, 1, 100, 1000, 65535])),
        "data": bytes(draw(st.sampled_from([0, 0, 1, 10, 1000, 1452]))),
        "urg": draw(st.sampled_from([0, 1, 65535])),
        "ecn": draw(st.sampled_from([0, 0, 2, 3])),
    }
    if syn:
        fields["mss"] = draw(st.sampled_from([0, 1, 536, 1000, 65535]))
        fields["wscale"] = draw(st.sampled_from([-1, 0, 14, 255]))
        fields["sack_permitted"] = draw(st.booleans())
    if draw(st.booleans()):
        fields["ts_val"] = draw(st.sampled_from([0, 1, 1000, 7_000_100, 2**31, 2**32 - 1]))
        fields["ts_ecr"] = draw(st.sampled_from([0, 5_000_100, 2**32 - 1]))
    if not syn:
        fields["sack"] = draw(st.lists(st.tuples(OFFSETS, OFFSETS), max_size=2))
    return fields


def arrive(s: Script, fields: dict[str, object]) -> None:
    """Offsets become numbers near A's SND.NXT and RCV.NXT as B knows them."""
    fields = dict(fields)
    ecn = fields.pop("ecn")
    assert isinstance(ecn, int)
    seq, ack, sack = fields.pop("seq"), fields.pop("ack"), fields.pop("sack", [])
    assert isinstance(seq, int) and isinstance(ack, int) and isinstance(sack, list)
    a, b = s.names["A"], s.names["B"]
    blocks = [((a + left) % 2**32, (a + right) % 2**32) for left, right in sack]
    segment = Segment(s.b_port, s.a_port, b + seq, a + ack, sack=blocks, **fields)  # type: ignore[arg-type]
    s.recv_bytes(segment.to_bytes(), ecn=ecn)  # checks the invariants


def established_with_ecn() -> Script:
    s = Script()
    s.listen()
    s.recv("SEW seq=b-1 mss=1000")
    s.expect("S.E seq=a-1 ack=b *")
    s.recv(". seq=b ack=a")
    s.accept()
    return s


STATES = {**SITUATIONS, "ESTABLISHED with ECN": established_with_ecn}


class TestAnyState:
    @pytest.mark.parametrize("state", STATES)
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(segments=st.lists(segment_fields(), min_size=1, max_size=6))
    def test_any_segments(self, state: str, segments: list[dict[str, object]]) -> None:
        OPEN.clear()
        s = STATES[state]()
        for fields in segments:
            arrive(s, fields)
            s.take()
        self.wind_up(s)

    @pytest.mark.parametrize("state", STATES)
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("segment"), segment_fields()),
                st.tuples(st.just("send"), st.integers(0, 5000)),
                st.tuples(st.just("shutdown"), st.sampled_from([socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])),
                st.tuples(st.just("read"), st.sampled_from([-1, 0, 1, 1000])),
                st.tuples(st.just("close"), st.booleans()),
                st.tuples(st.just("abort"), st.none()),
                st.tuples(st.just("advance"), st.sampled_from([0.001, 0.05, 1.0, 30.0, 100.0])),
                st.tuples(st.just("path error"), st.sampled_from(list(PathError))),
                st.tuples(st.just("option"), st.sampled_from([("nodelay", True), ("linger", 0.0), ("msl", 0.0)])),
            ),
            max_size=8,
        )
    )
    def test_any_calls_in_any_order_between_any_segments(self, state: str, steps: list[tuple[str, Any]]) -> None:
        """A call may say OSError (it came too late); it never says anything else, and breaks nothing."""
        OPEN.clear()
        s = STATES[state]()
        for name, argument in steps:
            if name == "segment":
                arrive(s, argument)
            elif name == "advance":
                s.advance(argument)
            elif name == "path error":
                s.path_error(argument, 1000)
            elif conns := list(s.engine.connections()) or s.conns():
                with s.together(), suppress(OSError):
                    self.call(conns[0], name, argument, s.now)
            s.take()
        self.wind_up(s)

    @staticmethod
    def call(conn: Connection, name: str, argument: Any, now: int) -> None:
        if name == "send":
            conn.send(bytes(argument), now)
        elif name == "shutdown":
            conn.shutdown(argument, now)
        elif name == "read":
            conn.receive(argument)
        elif name == "close":
            conn.close(now, flush=argument)
        elif name == "abort":
            conn.abort(now)
        else:
            name, value = argument
            conn.set_option(name, value, now)

    @staticmethod
    def wind_up(s: Script) -> None:
        """Once the users have closed, silence from B ends everything within a bound (I5)."""
        if s.listener is not None:
            with s.together():
                s.listener.close(s.now)
            s.take()
        for conn in list(s.engine.connections()):
            conn.close(s.now)
        with s.together():
            pass
        s.take()
        s.advance(400)
        s.take()
        assert s.engine.states() == {}, s.failure("something is left")
        assert s.engine.next_timeout() is None


@given(st.lists(st.tuples(st.binary(max_size=200), st.integers(-2, 100), st.integers(0, 3)), max_size=10))
def test_any_garbage_of_any_segment_size_and_ECN_field(buffers: list[tuple[bytes, int, int]]) -> None:
    engine = Engine(secret=bytes(16))
    path = engine.path("a", "b")
    engine.listen(1)
    engine.connect(path, 1, 0, local_port=1)
    for data, segment_size, ecn in buffers:
        engine.receive(path, data, 0, segment_size, ecn)
        engine.transmit(0)
        invariants.check(engine)


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.binary(min_size=12, max_size=60),
)
def test_any_bytes_behind_two_port_numbers_that_mean_something(src: int, dst: int, rest: bytes) -> None:
    OPEN.clear()
    for s in (established(), time_wait(), syn_sent()):
        for source, destination in ((s.b_port, s.a_port), (src, dst)):
            ports = source.to_bytes(2, "big") + destination.to_bytes(2, "big")
            s.recv_bytes(ports + rest[:8] + b"\x50" + rest[9:])
            s.take()


@given(st.lists(st.sampled_from(["connect", "listen", "close listener", "connect back", "time"]), max_size=12))
def test_any_order_of_opens(calls: list[str]) -> None:
    """Two ports that listen and connect to each other inside one engine."""
    engine = Engine(Config(syn_r2=5, r2=5), secret=bytes(16))
    path = engine.path("a", "a")
    now = 0
    for call in calls:
        try:
            if call == "connect":
                engine.connect(path, 2, now, local_port=1)
            elif call == "connect back":
                engine.connect(path, 1, now, local_port=2)
            elif call == "listen":
                engine.listen(2, now)
            elif call == "close listener" and engine.listeners():
                engine.listeners()[0].close(now)
        except OSError:
            pass
        now += 10**9 if call == "time" else 0
        engine.handle_timeout(now)
        for _ in range(20):
            datagrams = [datagram for train in engine.transmit(now) for datagram in train.datagrams()]
            for datagram in datagrams:
                engine.receive(path, datagram, now)
            if not datagrams:
                break
        else:
            raise AssertionError("the engine talks to itself for ever")
        invariants.check(engine)
        assert State.CLOSED not in engine.states()
