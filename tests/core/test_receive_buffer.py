"""The round trip as a receiver sees it, by which its buffer grows (dynamic right-sizing)."""

from __future__ import annotations

import pytest

from support.script import RTT, Script
from support.states import established
from utcp.core.config import Config

FULL = 988  # data bytes of a full segment of B, beside timestamps


def receiving() -> Script:
    """Measured from now on; the handshake took 0.1 s, and nothing waits for the reader."""
    s = established(Config(initial_receive_buffer=16 * FULL, delayed_ack=0), options="sackok ts=9000/0")
    s.advance(1)
    for n in range(-4, 0):
        bring(s, n)
        read(s)
    assert s.conn.info().rcv_rtt == RTT
    return s


def bring(s: Script, n: int, ago: float = 0.0, size: int = FULL) -> None:
    """The ``n``-th segment of B from now on, which answers what A said so long ago."""
    echo = 5_000_000 + round(s.now / 1e6) - round(1000 * ago)
    s.recv(f". seq=b+{(4 + n) * FULL} ack=a len={size} ts={9004 + n}/{echo}")


def read(s: Script) -> None:
    s.take()
    s.read()
    s.take()


def test_a_longer_echo_counts_for_an_eighth() -> None:
    s = receiving()
    bring(s, 0, 0.3)
    s.take()
    assert s.conn.info().rcv_rtt == pytest.approx(0.1 + 0.2 / 8)
    read(s)
    bring(s, 1, 0.125)
    s.take()
    assert s.conn.info().rcv_rtt == pytest.approx(0.125)


def test_a_shorter_one_counts_at_once() -> None:
    s = receiving()
    bring(s, 0, 0.03)
    s.take()
    assert s.conn.info().rcv_rtt == pytest.approx(0.03)


def test_a_longer_one_counts_for_nothing_while_the_reader_is_behind() -> None:
    """It is not the path that takes so long."""
    s = receiving()
    bring(s, 0, RTT)
    s.take()
    before = s.conn.info().rcv_rtt
    bring(s, 1, 0.9)
    s.take()
    assert s.conn.info().rcv_rtt == before
    read(s)
    bring(s, 2, 0.8)
    s.take()
    after = s.conn.info().rcv_rtt
    assert before is not None and after is not None and after > before


def test_only_full_segments_are_looked_at() -> None:
    s = receiving()
    bring(s, 0, 0.03, size=FULL - 1)
    s.take()
    assert s.conn.info().rcv_rtt == RTT


def test_the_second_of_two_that_came_together_has_not_made_the_reader_late() -> None:
    """They echo the same, and the first one counts."""
    s = receiving()
    with s.together():
        bring(s, 0, 0.3)
        bring(s, 1, 0.3)
    s.take()
    s.take()
    assert s.conn.info().rcv_rtt == pytest.approx(0.1 + 0.2 / 8)
