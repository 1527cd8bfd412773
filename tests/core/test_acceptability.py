"""RFC 9293 3.10.7.4, first, exhaustively around every edge: table 6, and which old segments may still acknowledge."""

from __future__ import annotations

from itertools import product

import pytest

from support.script import Script
from support.states import established, syn_received
from utcp.core.arrives import _check_sequence, _recent
from utcp.wire.segment import ACK, FIN, RST, SYN, Segment
from utcp.wire.seq import seq_add


def segment(s: Script, offset: int, length: int, flags: int = ACK, ack: str = "a") -> Segment:
    """At ``offset`` from RCV.NXT; a FIN takes one of ``length``."""
    data = bytes(length - 1) if flags & FIN else bytes(length)
    return Segment(s.b_port, s.a_port, seq_add(s.conn.rcv_nxt, offset), s.seq(ack), flags, 65535, data)


@pytest.mark.parametrize("b_iss", [2_000_000_000, 0xFFFFFFFD, 0x7FFFFFFE], ids=["plain", "wraps", "signed"])
@pytest.mark.parametrize("window", [0, 1, 2, 3, 5])
def test_the_window_and_what_lies_around_it(window: int, b_iss: int) -> None:
    """Table 6; at RCV.NXT whatever the window (MUST-66), and with an end beyond it if there is something inside."""
    s = established(b_iss=b_iss)
    s.conn.rcv_adv = seq_add(s.conn.rcv_nxt, window)
    for offset, length in product(range(-8, 9), range(8)):
        inside = {offset + i for i in range(length)} & set(range(window))
        acceptable = offset == 0 or 0 <= offset < window or bool(inside)
        assert _check_sequence(s.conn, segment(s, offset, length)) == acceptable, (offset, length)
    for offset, length in product((-(1 << 31) + 9, -65536, 65536, (1 << 31) - 9), (0, 1, 8)):
        assert not _check_sequence(s.conn, segment(s, offset, length))


def test_a_window_of_one_byte_that_a_long_segment_covers() -> None:
    s = established()
    s.conn.rcv_adv = seq_add(s.conn.rcv_nxt, 1)
    assert _check_sequence(s.conn, segment(s, -1, 2))
    assert _check_sequence(s.conn, segment(s, -1, 3))
    assert not _check_sequence(s.conn, segment(s, -1, 1))
    assert _check_sequence(s.conn, segment(s, -1, 2, ACK | FIN))
    assert not _check_sequence(s.conn, segment(s, 1, 1))


@pytest.mark.parametrize("b_iss", [2_000_000_000, 0xFFFFFFFD, 30_000], ids=["plain", "wraps", "below"])
def test_old_segments_whose_ack_is_looked_at(b_iss: int) -> None:
    """RFC 9293 A.2: those that end at RCV.NXT or up to a window without scale below it."""
    s = established(b_iss=b_iss)
    s.conn.snd_nxt = seq_add(s.conn.snd_una, 10)
    for length, behind in product((0, 1, 7), (-1, 0, 1, 2, 65_534, 65_535, 65_536, (1 << 31) - 20)):
        seg = segment(s, -behind - length, length)
        assert _recent(s.conn, seg) == (0 <= behind <= 65_535), (length, behind)
        seg = segment(s, -behind - length - 1, length + 1, ACK | FIN)
        assert _recent(s.conn, seg) == (0 <= behind <= 65_535), (length, behind)


def test_the_ack_of_an_old_segment_lies_in_what_is_in_flight() -> None:
    s = established()
    s.conn.snd_nxt = seq_add(s.conn.snd_una, 10)
    for ahead in (-65_536, -2, -1, 0, 1, 9, 10, 11, 65_536):
        assert _recent(s.conn, segment(s, -1, 1, ack=f"a{ahead:+}")) == (0 <= ahead <= 10), ahead


def test_old_segments_whose_ack_is_not_looked_at() -> None:
    s = established()
    assert _recent(s.conn, segment(s, -1, 1))
    for flags in (0, FIN, SYN, SYN | ACK, RST):
        assert not _recent(s.conn, segment(s, -2, 2, flags))
    s = syn_received()
    assert not _recent(s.conn, segment(s, -1, 1))


def test_the_answer_to_what_was_sent_again_echoes_its_timestamp() -> None:
    """Our ACK was lost: the peer measures from its second transmission, not from the first."""
    s = established(options="ts=1000/0")
    s.recv("P. seq=b ack=a len=10 ts=2000/0")
    s.expect_after(0.04, ". seq=a ack=b+10 ts=*/2000")
    s.recv("P. seq=b ack=a len=10 ts=3000/0")
    s.expect(". seq=a ack=b+10 ts=*/3000")
    s.recv("P. seq=b-20000 ack=a len=10 ts=3500/0")
    s.expect(". seq=a ack=b+10 ts=*/3500")
    s.recv("P. seq=b+10 ack=a+1 len=10 ts=4000/0")  # acknowledges what was not sent: nothing of it counts
    s.expect(". seq=a ack=b+10 ts=*/3500")
