"""Datagrams that are no segment, and segments that make no sense: counted by reason, and nothing else."""

from __future__ import annotations

import pytest

from support.script import Script
from support.states import established, listen
from utcp.core.engine import Engine
from utcp.core.paths import PathError
from utcp.core.states import State
from utcp.wire.segment import ACK, FIN, RST, SYN, Segment

GARBAGE = [
    pytest.param(b"", "too-short", id="nothing"),
    pytest.param(b"\0", "too-short", id="one byte"),
    pytest.param(bytes(19), "too-short", id="19 bytes"),
    pytest.param(bytes(20), "bad-data-offset", id="zeros"),
    pytest.param(b"\xff" * 20, "bad-data-offset", id="ones"),
    pytest.param(bytes(12) + b"\x40" + bytes(47), "bad-data-offset", id="offset 4"),
    pytest.param(bytes(12) + b"\x60" + bytes(7), "bad-data-offset", id="offset past the end"),
    pytest.param(bytes(12) + b"\x60\x10" + bytes(6) + bytes([2, 0, 0, 0]), "bad-option-length", id="option length 0"),
    pytest.param(bytes(12) + b"\x60\x10" + bytes(6) + bytes([2, 9, 0, 0]), "bad-option-length", id="option too long"),
    pytest.param(bytes(65_507), "bad-data-offset", id="65507 zeros"),
]


@pytest.mark.parametrize(("datagram", "reason"), GARBAGE)
def test_garbage_is_counted_and_dropped(datagram: bytes, reason: str) -> None:
    for s in (Script(), listen(), established()):
        before = s.engine.states()
        s.recv_bytes(datagram)
        s.silent()
        assert s.engine.counters.drops == {reason: 1}
        assert s.recorder.drops == [reason]
        assert s.engine.states() == before


def test_every_segment_is_told_before_its_drop() -> None:
    s = Script()
    s.recv_bytes(b"garbage")
    s.recv("none seq=b")
    assert (s.recorder.received, len(s.recorder.drops)) == (2, 2)
    assert s.engine.counters.segments_in == 2
    assert sum(s.engine.counters.drops.values()) == 2


@pytest.mark.parametrize("ports", [(0, 1000), (2000, 0), (0, 0)])
def test_port_zero_is_nobody(ports: tuple[int, int]) -> None:
    s = listen()
    s.recv_bytes(Segment(*ports, 5, 0, 2).to_bytes())
    s.silent()
    assert len(s.recorder.drops) == 1


def test_garbage_between_segments_of_one_buffer() -> None:
    """GRO: what is equal in length may still be garbage."""
    s = established()
    good = [s.segment(f"P. seq=b+{i * 100} ack=a len=100").to_bytes() for i in range(3)]
    s.recv_bytes(good[0] + bytes(120) + good[1] + b"\xff" * 120 + good[2], 120)
    s.take()
    assert s.conn.readable_bytes == 300
    assert sum(s.engine.counters.drops.values()) == 2


def test_the_rest_of_a_gro_buffer_may_be_too_short() -> None:
    s = established()
    s.recv_bytes(s.segment("P. seq=b ack=a len=100").to_bytes() + bytes(7), 120)
    assert s.conn.readable_bytes == 100
    assert s.engine.counters.drops == {"too-short": 1}
    s.advance(0.04)
    s.take()


@pytest.mark.parametrize("segment_size", [0, 1, 19, 20, 65_535, 10**9, -1, -(10**9)])
def test_any_segment_size(segment_size: int) -> None:
    s = established()
    s.recv_bytes(s.segment("P. seq=b ack=a len=100").to_bytes(), segment_size)
    s.take()
    s.expect_state(State.ESTABLISHED)


def test_a_segment_of_the_largest_datagram() -> None:
    s = established()
    segment = s.segment("P. seq=b ack=a len=65487").to_bytes()
    assert len(segment) == 65_507
    s.recv_bytes(segment)
    s.take()
    assert s.conn.readable_bytes == 65_487
    s.advance(1)
    s.take()


@pytest.mark.parametrize("path", [-1, 7, 10**6, 2**40])
def test_an_unknown_path_is_counted(path: int) -> None:
    engine = Engine()
    engine.receive(path, Segment(1, 2, 3, 4, ACK).to_bytes(), 0)
    assert engine.transmit(0) == []
    assert sum(engine.counters.drops.values()) == 1
    engine.path_error(path, PathError.PORT_UNREACHABLE, 0)


@pytest.mark.parametrize("flags", range(256))
def test_every_combination_of_flags_in_every_kind_of_state(flags: int) -> None:
    """Nothing raises, and an established connection falls only by RST, an in-order FIN leading to CLOSE-WAIT."""
    for s in (Script(), listen(), established()):
        segment = s.segment(". seq=b ack=a len=3")
        segment.flags = flags
        s.recv_bytes(segment.to_bytes())
        s.take()
    counts = s.engine.states()
    if flags & RST:
        assert counts == {}
    elif flags & SYN or not flags & ACK:
        assert counts == {State.ESTABLISHED: 1}
    else:
        assert counts == {State.CLOSE_WAIT if flags & FIN else State.ESTABLISHED: 1}
    s.advance(1)
    s.take()


def test_urgent_data_is_delivered_in_line() -> None:
    """RFC 6093 2: as if it were ordinary data."""
    s = established()
    s.recv("PU. seq=b ack=a urg=3", b"abcdef")
    assert s.read() == b"abcdef"
    s.advance(0.04)
    s.take()


def test_the_clock_may_go_back() -> None:
    """An earlier instant counts as the latest one told."""
    s = established()
    s.send(b"x")
    s.take()
    latest = s.engine.now
    s.engine.receive(s.path, s.segment(". seq=b ack=a+1").to_bytes(), 0)
    s.engine.handle_timeout(5)
    s.engine.transmit(-1)
    assert s.engine.now == latest
    assert s.conn.unacked_bytes == 0
