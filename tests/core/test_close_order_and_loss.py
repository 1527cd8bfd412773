"""Closing when segments are lost, late, repeated or out of order."""

from __future__ import annotations

import pytest

from support.script import RTO
from support.states import (
    CLOSE_WAIT,
    CLOSING,
    CONNECTED,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    Stage,
    closing,
    established,
    fin_wait_1,
    fin_wait_2,
    last_ack,
)
from utcp.core.config import Config
from utcp.core.states import EOF, State


def test_O_01_fin_before_the_data_in_front_of_it() -> None:
    s = established(options="sackok")
    s.recv("F. seq=b+10 ack=a")
    s.expect(". seq=a ack=b")  # there is nothing in front of the FIN that SACK could report with it
    s.expect_state(State.ESTABLISHED)
    assert not s.events() & EOF and not s.conn.fin_received
    s.recv("P. seq=b+5 ack=a", b"56789")
    s.expect(". seq=a ack=b sack=b+5:b+11")  # the FIN's number too
    s.expect_state(State.ESTABLISHED)
    s.recv("P. seq=b ack=a", b"01234")
    s.expect(". seq=a ack=b+11")
    s.expect_state(State.CLOSE_WAIT)
    assert s.read() == b"0123456789" and s.conn.at_eof


def test_O_01_data_with_fin_before_the_data_in_front_of_it() -> None:
    s = established(options="sackok")
    s.recv("FP. seq=b+5 ack=a", b"56789")
    s.expect(". seq=a ack=b sack=b+5:b+11")
    s.expect_state(State.ESTABLISHED)
    assert not s.events() & EOF and s.conn.readable_bytes == 0
    s.recv("P. seq=b ack=a", b"01234")
    s.expect(". seq=a ack=b+11")
    s.expect_state(State.CLOSE_WAIT)
    assert s.read() == b"0123456789" and s.conn.at_eof


def test_O_02_fin_beyond_the_window() -> None:
    s = established()
    s.recv("F. seq=b+65536 ack=a")
    s.expect(". seq=a ack=b")
    s.expect_state(State.ESTABLISHED)
    assert len(s.recorder.drops) == 1
    s.recv("P. seq=b ack=a len=10")
    assert s.conn.readable_bytes == 10 and not s.conn.fin_received
    s.expect_after(0.04, ". seq=a ack=b+10")


@pytest.mark.parametrize("stage", [CLOSE_WAIT, CLOSING, LAST_ACK], ids=str)
def test_O_03_an_old_fin_is_acknowledged_each_time(stage: Stage) -> None:
    s = stage.make()
    for _ in range(5):
        s.recv("F. seq=b ack=a")
        s.expect(f". seq={stage.a} ack=b+1")
    s.expect_state(stage.state)


def test_O_04_fin_with_an_old_ack_in_FIN_WAIT_2() -> None:
    """The FIN was sent before B had ours, and arrives after B's ACK of ours."""
    s = fin_wait_2()
    s.recv("F. seq=b ack=a")
    s.expect(". seq=a+1 ack=b+1")
    s.expect_state(State.TIME_WAIT)


def test_O_04_data_with_an_old_ack_in_FIN_WAIT_2() -> None:
    s = established()
    with s.together():
        s.send(100)
        s.shutdown()
    s.expect("FP. seq=a ack=b len=100")
    s.recv(". seq=b+10 ack=a+101")
    s.expect_state(State.FIN_WAIT_2)
    s.recv("P. seq=b ack=a len=10")
    assert s.conn.readable_bytes == 10
    s.expect_after(0.04, ". seq=a+101 ack=b+10")


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_O_05_a_lost_fin_is_sent_again_at_doubling_intervals(lost: int) -> None:
    s = fin_wait_1()
    for n in range(lost):
        sent = s.expect_after(RTO * 2**n, "F. seq=a ack=b")
        assert sent.retransmission
    s.recv(". seq=b ack=a+1")
    s.expect_state(State.FIN_WAIT_2)
    s.silent_for(3600)


def test_O_06_the_ack_of_our_fin_is_lost_and_theirs_comes_with_an_old_one() -> None:
    s = closing()
    s.expect_after(RTO, "F. seq=a ack=b+1")
    s.recv("F. seq=b ack=a+1")  # B repeats its FIN, now with the ACK
    s.expect(". seq=a+1 ack=b+1")
    s.expect_state(State.TIME_WAIT)
    s.silent_for(60)
    s.expect_gone()


def test_O_07_a_lost_segment_in_front_of_the_fin() -> None:
    s = established(options="sackok")
    with s.together():
        s.send(2500)
        s.close()
    s.expect(". seq=a ack=b len=1000")
    s.expect(". seq=a+1000 ack=b len=1000")
    s.expect("FP. seq=a+2000 ack=b len=500")
    s.silent_for(0.1)
    s.recv(". seq=b ack=a+1000 sack=a+2000:a+2501")
    s.expect_after(0.025, ". seq=a+1000 ack=b len=1000")  # the reordering window over; not the FIN
    s.silent_for(0.1)
    s.recv(". seq=b ack=a+2501")
    s.expect_state(State.FIN_WAIT_2)


def test_O_08_an_ack_of_the_data_is_not_one_of_the_fin() -> None:
    s = established()
    with s.together():
        s.send(100)
        s.close()
    s.expect("FP. seq=a ack=b len=100")
    s.recv(". seq=b ack=a+100")
    s.expect_state(State.FIN_WAIT_1)
    assert not s.conn.fin_acked
    s.expect_after(s.conn.info().rto, "F. seq=a+100 ack=b")  # the FIN alone is missing
    s.recv(". seq=b ack=a+101")
    s.expect_state(State.FIN_WAIT_2)


@pytest.mark.parametrize("stage", CONNECTED, ids=str)
def test_O_09_an_ack_of_what_was_never_sent(stage: Stage) -> None:
    """RFC 9293 3.10.7.4, fifth: send an ACK, drop the segment."""
    s = stage.make()
    s.recv(f". seq={stage.b} ack=a+2")
    s.expect(f". seq={stage.a} ack={stage.b}")
    s.expect_state(stage.state)


@pytest.mark.parametrize("stage", CONNECTED, ids=str)
@pytest.mark.parametrize("flags", ["F", "P", "none", "FP"])
def test_O_10_a_segment_without_ack_has_no_effect(stage: Stage, flags: str) -> None:
    s = stage.make()
    s.recv(f"{flags} seq={stage.b} len=10")
    s.recv(f"{flags} seq={stage.b}")
    s.expect_state(stage.state)
    assert s.conn.readable_bytes == 0
    if stage in (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2):
        s.recv(f"{flags} seq=b+5 len=10")  # out of order: not kept either
        s.recv("P. seq=b ack=a len=5")
        s.take()
        assert s.conn.readable_bytes == 5
    assert len(s.recorder.drops) >= 2


def test_O_11_fin_retries_have_an_end() -> None:
    s = fin_wait_1()
    times = [RTO * (2**n - 1) for n in range(1, 8)]  # .3, .9, 2.1, 4.5, 9.3, 18.9, 38.1; next 76.5, 120 is the end
    for before, at in zip([0, *times], [*times, 76.5], strict=False):
        s.expect_after(at - before, "F. seq=a ack=b")
    s.silent_for(120 - 76.5 - 1e-9)
    s.expect_state(State.FIN_WAIT_1)
    s.advance(1e-9)
    s.expect_gone(TimeoutError)
    s.recv("F. seq=b ack=a+1")
    s.expect("R seq=a+1")


def test_X_03_last_ack_has_an_end() -> None:
    s = last_ack(Config(orphan_timeout=5, r2=7))
    for n in range(4):  # .3 .9 2.1 4.5
        s.expect_after(RTO * 2**n, "F. seq=a ack=b+1")
    s.silent_for(0.5 - 1e-9)
    s.expect_state(State.LAST_ACK)
    s.silent_for(1e-9)
    s.expect_gone(TimeoutError)
    s.recv(". seq=b+1 ack=a+1")
    s.expect("R seq=a+1 wnd=0")


def test_O_12_a_repeated_fin_with_overlapping_data() -> None:
    s = established()
    s.recv("FP. seq=b ack=a", b"0123456789")
    s.expect(". seq=a ack=b+11")
    assert s.events() & EOF
    s.recv("FP. seq=b+5 ack=a", b"56789")
    s.expect(". seq=a ack=b+11")
    s.recv("FP. seq=b+5 ack=a", b"56789ABC")  # data behind the FIN that was: ignored (3.10.7.4, seventh)
    s.silent_for(1)
    s.expect_state(State.CLOSE_WAIT)
    assert not s.events() & EOF
    assert s.read() == b"0123456789" and s.conn.at_eof


def test_a_fin_that_comes_with_data_we_have() -> None:
    """The data was sent again because its ACK was lost, and by then B had closed."""
    s = established()
    s.recv("P. seq=b ack=a", b"0123456789")
    s.expect_after(0.04, ". seq=a ack=b+10")
    s.recv("FP. seq=b ack=a", b"0123456789")
    s.expect(". seq=a ack=b+11")
    s.expect_state(State.CLOSE_WAIT)
    assert s.read() == b"0123456789" and s.conn.at_eof


@pytest.mark.parametrize("before_wrap", [1, 2, 100])
def test_O_13_fin_at_the_wrap(before_wrap: int) -> None:
    """A's FIN has the last sequence number there is, and B's too."""
    s = established(a_iss=2**32 - 1 - before_wrap, b_iss=2**32 - 1 - before_wrap)
    n = before_wrap - 1
    if n:
        s.send(n)
        s.expect(f"P. seq=a ack=b len={n}")
        s.recv(f"P. seq=b ack=a+{n} len={n}")
        assert len(s.read()) == n
        s.expect_after(0.04, ". seq=4294967295 ack=4294967295")
    s.close()
    s.expect("F. seq=4294967295 ack=4294967295")
    s.recv("F. seq=4294967295 ack=0")
    s.expect(". seq=0 ack=0")
    s.expect_state(State.TIME_WAIT)


def test_data_behind_a_fin_is_not_delivered() -> None:
    """RFC 9293 3.10.7.4, seventh: this should not occur, since a FIN has been received; ignore the text."""
    s = established()
    s.recv("F. seq=b ack=a")
    s.expect(". seq=a ack=b+1")
    s.recv("P. seq=b+1 ack=a", b"impossible")
    s.take()
    assert s.conn.readable_bytes == 0 and s.conn.at_eof
    s.expect_state(State.CLOSE_WAIT)


def test_data_behind_a_fin_that_waits_is_not_delivered() -> None:
    s = established()
    s.recv("F. seq=b+5 ack=a")
    s.expect(". seq=a ack=b")
    s.recv("P. seq=b+6 ack=a", b"impossible")
    s.take()
    s.recv("P. seq=b ack=a", b"01234")
    s.expect(". seq=a ack=b+6")
    assert s.read() == b"01234" and s.conn.at_eof
