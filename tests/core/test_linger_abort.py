"""CLOSE with unread data, linger, ABORT (RFC 9293 3.6, 3.10.4, 3.10.5; RFC 1122 4.2.2.13; RFC 2525 2.16, 2.17)."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from support.script import RTO, SECOND, Script
from support.states import (
    CLOSE_WAIT,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    Stage,
    close_wait,
    closing,
    established,
    fin_wait_1,
    fin_wait_2,
    last_ack,
    syn_received,
    syn_sent,
    time_wait,
)
from utcp.core.config import Config
from utcp.core.deadlines import earliest_deadline, give_up_at
from utcp.core.stack import NEVER
from utcp.core.states import CLOSED_BIT, State
from utcp.core.trains import NOBODY


class TestUnreadData:
    @pytest.mark.parametrize("fin", [False, True])
    def test_C_01_closing_with_data_unread_resets(self, fin: bool) -> None:
        """SHLD-3."""
        s = established()
        s.recv("P. seq=b ack=a", b"never read")
        if fin:
            s.recv("F. seq=b+10 ack=a")
            s.expect(". seq=a ack=b+11")
        s.close()
        s.expect("R. seq=a ack=b+11" if fin else "R. seq=a ack=b+10")
        s.expect_gone(None)
        assert s.recorder.closed_reasons == ["unread-data"]
        s.silent_for(600)

    def test_C_01_the_reset_is_at_SND_NXT_and_discards_what_is_queued(self) -> None:
        s = established(wnd=1000)
        s.send(5000)
        s.expect(". seq=a ack=b len=1000")
        s.recv("P. seq=b ack=a len=10 wnd=1000")
        s.close()
        s.expect("R. seq=a+1000 ack=b+10")
        s.expect_gone(None)
        s.silent_for(600)

    def test_C_01_half_read_is_unread(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"half read")
        assert s.read(4) == b"half"
        s.close()
        s.expect("R. seq=a ack=b+9")

    def test_C_02_with_everything_read_it_sends_a_fin(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"read")
        assert s.read() == b"read"
        s.close()
        s.expect("F. seq=a ack=b+4")

    def test_C_02_an_unread_end_of_file_is_not_unread_data(self) -> None:
        s = close_wait()
        s.close()
        s.expect("F. seq=a ack=b+1")

    def test_C_02_nor_is_a_duplicate_of_what_was_read(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"read")
        s.read()
        s.recv("P. seq=b ack=a", b"read")
        s.expect(". seq=a ack=b+4")
        s.close()
        s.expect("F. seq=a ack=b+4")
        s.recv("P. seq=b ack=a", b"read")
        s.expect(". seq=a+1 ack=b+4")
        s.expect_state(State.FIN_WAIT_1)

    @pytest.mark.parametrize(
        ("make", "ack"), [(fin_wait_1, "a"), (fin_wait_1, "a+1"), (fin_wait_2, "a+1"), (fin_wait_2, "a")]
    )
    def test_C_03_data_after_a_close_resets(self, make: Callable[..., Script], ack: str) -> None:
        """RFC 1122 4.2.2.13: nobody will read it. Whether or not B has seen our FIN."""
        s = make(close=True)
        s.recv(f"P. seq=b ack={ack}", b"too late")
        s.expect("R. seq=a+1 ack=b")
        s.expect_gone(None)
        assert s.recorder.closed_reasons == ["unread-data"]
        s.silent_for(600)

    def test_C_03_data_out_of_order_too(self) -> None:
        s = fin_wait_2(close=True)
        s.recv("P. seq=b+100 ack=a+1 len=10")
        s.expect("R. seq=a+1 ack=b")
        s.expect_gone(None)

    def test_C_04_data_after_a_half_close_is_accepted(self) -> None:
        s = fin_wait_2()
        s.recv("P. seq=b ack=a+1", b"welcome")
        assert s.read() == b"welcome"
        s.expect_after(0.04, ". seq=a+1 ack=b+7")

    def test_data_out_of_order_and_unread_counts_as_unread(self) -> None:
        """It was acknowledged by SACK or not, but B has sent it and A closes without it: at the latest when the
        hole is filled, B is told."""
        s = established()
        s.recv("P. seq=b+100 ack=a len=10")
        s.expect(". seq=a ack=b")
        s.close()
        first = s.take()[0].seg
        if not first.flags & 0x04:
            s.recv("P. seq=b ack=a+1 len=100")
            assert s.take()[0].seg.flags & 0x04
        s.expect_gone(None)


class TestFlush:
    """close(flush=True): what was written is acknowledged first."""

    def test_nothing_unread_it_is_a_close(self) -> None:
        s = established()
        with s.together():
            s.send(b"bye")
            s.close(flush=True)
        s.expect("FP. seq=a ack=b", b"bye")
        s.recv(". seq=b ack=a+4")
        s.expect_state(State.FIN_WAIT_2)

    def test_unread_data_means_a_reset_once_ours_is_acknowledged(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"unread")
        with s.together():
            s.send(b"bye")
            s.close(flush=True)
        s.expect("P. seq=a ack=b+6", b"bye")
        s.expect_state(State.FIN_WAIT_1)
        s.recv(". seq=b+6 ack=a+3")
        s.expect("R. seq=a+3 ack=b+6")
        s.expect_gone(None)

    def test_unread_data_and_nothing_written_resets_at_once(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"unread")
        s.close(flush=True)
        s.expect("R. seq=a ack=b+6")
        s.expect_gone(None)

    def test_a_single_byte_is_worth_waiting_for(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"unread")
        with s.together():
            s.send(b"!")
            s.close(flush=True)
        s.expect("P. seq=a ack=b+6", b"!")
        s.recv(". seq=b+6 ack=a+1")
        s.expect("R. seq=a+1 ack=b+6")
        s.expect_gone(None)

    def test_unread_data_before_the_peers_fin_too(self) -> None:
        s = established()
        s.recv("FP. seq=b ack=a", b"unread")
        s.expect(". seq=a ack=b+7")
        with s.together():
            s.send(b"bye")
            s.close(flush=True)
        s.expect("P. seq=a ack=b+7", b"bye")
        s.expect_state(State.LAST_ACK)
        s.recv(". seq=b+7 ack=a+3")
        s.expect("R. seq=a+3 ack=b+7")
        s.expect_gone(None)
        assert s.recorder.closed_reasons == ["unread-data"]

    def test_a_fin_that_still_waits_behind_data_gives_way_to_the_reset(self) -> None:
        s = established(wnd=1000)
        s.send(1500)
        s.expect(". seq=a ack=b len=1000")
        s.shutdown()
        s.recv("P. seq=b ack=a wnd=1000 len=10")
        s.close(flush=True)
        s.take()
        s.recv(". seq=b+10 ack=a+1000 wnd=1000")
        s.expect("P. seq=a+1000 ack=b+10 len=500")
        s.recv(". seq=b+10 ack=a+1500 wnd=1000")
        s.expect("R. seq=a+1500 ack=b+10")
        s.expect_gone(None)

    def test_what_comes_with_an_ack_of_a_part_is_looked_at(self) -> None:
        s = established(wnd=1000)
        s.recv("P. seq=b ack=a", b"unread")
        with s.together():
            s.send(1500)
            s.close(flush=True)
        s.expect(". seq=a ack=b+6 len=1000")
        s.recv("F. seq=b+6 ack=a+1000 wnd=1000")
        s.expect("P. seq=a+1000 ack=b+7 len=500")
        s.recv(". seq=b+7 ack=a+1500 wnd=1000")
        s.expect("R. seq=a+1500 ack=b+7")
        s.expect_gone(None)

    def test_the_patience_counts_from_the_close(self) -> None:
        s = established(Config(close_timeout=5))
        s.recv("P. seq=b ack=a", b"unread")
        s.send(b"bye")
        s.take()
        s.advance(3)
        s.take()
        s.close(flush=True)
        s.advance(5 - 1e-9)
        s.take()
        s.expect_state(State.FIN_WAIT_1)
        s.advance(1e-9)
        s.expect_gone(TimeoutError)

    @pytest.mark.parametrize(("before", "after"), [(0, 5), (3, 5), (5, 5), (6, 4), (9, 1)])
    def test_R2_goes_on_beside_it(self, before: float, after: float) -> None:
        """A connection that was about to be given up does not live longer for being closed (RFC 9293 3.8.3)."""
        s = established(Config(r2=10, close_timeout=5))
        s.send(b"bye")
        s.take()
        s.advance(before)
        s.take()
        s.close(flush=True)
        s.take()
        s.advance(after - 1e-9)
        s.take()
        s.expect_state(State.FIN_WAIT_1)
        s.advance(1e-9)
        s.expect_gone(TimeoutError)

    def test_a_shorter_R2_goes_on_alone(self) -> None:
        s = established(Config(r2=4, close_timeout=5))
        s.send(b"bye")
        s.take()
        s.advance(3)
        s.take()
        s.close(flush=True)
        s.take()
        s.advance(1 - 1e-9)
        s.take()
        s.expect_state(State.FIN_WAIT_1)
        s.advance(1e-9)
        s.expect_gone(TimeoutError)

    def test_data_that_arrives_meanwhile_is_discarded_and_turns_the_fin_into_a_reset(self) -> None:
        s = established(wnd=1000)
        s.send(1500)
        s.expect(". seq=a ack=b len=1000")
        s.close(flush=True)
        s.recv("P. seq=b ack=a wnd=1000 len=100")
        s.advance(0.04)
        assert all(out.seg.ack == s.seq("b+100") and not out.seg.flags & 0x05 for out in s.take())
        s.recv(". seq=b+100 ack=a+1000 wnd=1000")
        s.expect("P. seq=a+1000 ack=b+100 len=500")
        s.recv(". seq=b+100 ack=a+1500 wnd=1000")
        s.expect("R. seq=a+1500 ack=b+100")
        s.expect_gone(None)

    def test_data_that_arrives_when_the_fin_is_out_already(self) -> None:
        s = established()
        with s.together():
            s.send(b"bye")
            s.close(flush=True)
        s.expect("FP. seq=a ack=b", b"bye")
        s.recv("P. seq=b ack=a len=100")
        s.advance(0.04)
        s.take()
        s.recv(". seq=b+100 ack=a+4")
        (reset,) = s.take()
        assert reset.seg.flags & 0x04
        s.expect_gone(None)

    def test_without_progress_it_ends_at_close_timeout(self) -> None:
        s = established(Config(close_timeout=5))
        with s.together():
            s.send(b"bye")
            s.close(flush=True)
        s.take()
        s.advance(4.999_999_999)
        s.take()
        s.expect_state(State.FIN_WAIT_1)
        s.advance(1e-9)
        s.expect_gone(TimeoutError)

    def test_progress_renews_the_patience(self) -> None:
        s = established(Config(close_timeout=5), wnd=1000)
        with s.together():
            s.send(5000)
            s.close(flush=True)
        s.take()
        for i in range(5):
            s.advance(4)
            s.take()
            s.recv(f". seq=b ack=a+{1000 * (i + 1)} wnd=1000")
            s.take()
        s.recv(". seq=b ack=A")
        s.take()
        assert s.conn.unacked_bytes == 0 and s.conn.error is None


class TestLinger:
    @pytest.mark.parametrize("make", [established, close_wait, fin_wait_1, fin_wait_2])
    def test_C_05_zero_resets(self, make: Callable[..., Script]) -> None:
        s = make(Config(linger=0))
        a, b = s.names["A"], s.names["B"]
        s.close()
        s.expect(f"R. seq={a} ack={b}")
        s.expect_gone(None)

    def test_C_05_zero_discards_what_is_unsent(self) -> None:
        s = established(Config(linger=0), wnd=1000)
        s.send(3000)
        s.expect(". seq=a ack=b len=1000")
        s.close()
        s.expect("R. seq=a+1000 ack=b")
        s.silent_for(600)

    def test_C_06_acknowledged_in_time(self) -> None:
        s = established(Config(linger=2))
        s.close()
        s.expect("F. seq=a ack=b")
        s.recv(". seq=b ack=a+1")
        s.silent_for(10)
        s.expect_state(State.FIN_WAIT_2)
        s.recv("F. seq=b ack=a+1")
        s.expect(". seq=a+1 ack=b+1")
        s.expect_state(State.TIME_WAIT)

    def test_C_06_data_not_acknowledged_in_time_is_an_error(self) -> None:
        s = established(Config(linger=2))
        with s.together():
            s.send(b"lost")
            s.close()
        s.expect("FP. seq=a ack=b", b"lost")
        s.advance(2 - 1e-9)
        assert len(s.take()) == 2  # .3 .9
        s.advance(1e-9)
        s.expect("R. seq=a+5 ack=b")
        s.expect_gone(ConnectionAbortedError)

    def test_C_06_in_LAST_ACK_and_CLOSING_with_only_the_fin_unacknowledged_the_end_is_silent(self) -> None:
        """RFC 9293 3.10.5: ABORT sends no RST there; B has every byte."""
        for make in (last_ack, closing):
            s = make(Config(linger=2), **({"close": True} if make is closing else {}))
            s.expect_after(RTO, "F. seq=a ack=b+1")
            s.expect_after(2 * RTO, "F. seq=a ack=b+1")
            s.silent_for(2 - 3 * RTO - 1e-9)
            assert not s.conn.closed or make is last_ack
            s.silent_for(1e-9)
            s.expect_gone(None)

    def test_C_06_not_acknowledged_in_time(self) -> None:
        s = established(Config(linger=2))
        s.close()
        s.expect("F. seq=a ack=b")
        s.expect_after(RTO, "F. seq=a ack=b")
        s.expect_after(2 * RTO, "F. seq=a ack=b")
        s.silent_for(2 - 3 * RTO - 1e-9)
        s.expect_state(State.FIN_WAIT_1)
        s.advance(1e-9)
        s.expect("R. seq=a+1 ack=b")
        s.expect_gone(None)
        assert s.recorder.closed_reasons == ["linger-expired"]

    def test_C_06_a_nanosecond_is_a_time_too(self) -> None:
        s = established(Config(linger=1e-9))
        s.close()
        s.expect("F. seq=a ack=b")
        s.expect_after(1e-9, "R. seq=a+1 ack=b")
        s.expect_gone(None)

    def test_C_07_after_a_half_close(self) -> None:
        s = fin_wait_1(Config(linger=0))
        s.close()
        s.expect("R. seq=a+1 ack=b")
        s.expect_gone(None)

    def test_C_07_in_SYN_SENT(self) -> None:
        for linger in (0, 2):
            s = syn_sent(Config(linger=linger))
            s.close()
            s.expect_gone(None)
            s.silent_for(600)

    def test_C_07_in_SYN_RECEIVED(self) -> None:
        s = syn_received(Config(linger=0), passive=False)
        s.close()
        s.expect("R. seq=a ack=b")
        s.expect_gone(None)
        s.silent_for(600)

    def test_C_07_in_SYN_RECEIVED_the_time_counts_from_the_close(self) -> None:
        s = syn_received(Config(linger=2), passive=False)
        s.close()
        s.expect_after(1, "S. seq=a-1 ack=b *")  # the SYN once more
        s.silent_for(1 - 1e-9)
        s.expect_state(State.SYN_RECEIVED)
        s.advance(1e-9)
        s.expect("R. seq=a ack=b")
        s.expect_gone(None)

    def test_it_may_be_set_on_a_connection(self) -> None:
        s = established()
        s.set_option("linger", 0.0)
        s.close()
        s.expect("R. seq=a ack=b")


class TestAbort:
    """C-08: RFC 9293 3.10.5."""

    @pytest.mark.parametrize("stage", [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT], ids=str)
    def test_C_08_resets(self, stage: Stage) -> None:
        s = stage.make()
        s.events()
        s.abort()
        s.expect(f"R. seq={stage.a} ack={stage.b}")
        s.expect_gone(None)
        assert s.events() & CLOSED_BIT
        assert s.recorder.closed_reasons == ["aborted"]

    @pytest.mark.parametrize("passive", [False, True])
    def test_C_08_resets_in_SYN_RECEIVED(self, passive: bool) -> None:
        s = syn_received(passive=passive)
        s.abort()
        s.expect("R. seq=a ack=b")
        s.expect_gone(None)

    @pytest.mark.parametrize("stage", [CLOSING, LAST_ACK], ids=str)
    def test_C_08_is_silent(self, stage: Stage) -> None:
        s = stage.make()
        s.abort()
        s.expect_gone(None)

    def test_C_08_is_silent_in_SYN_SENT(self) -> None:
        s = syn_sent()
        s.abort()
        s.expect_gone(None)

    def test_C_08_leaves_TIME_WAIT_alone(self) -> None:
        s = time_wait()
        s.abort()
        s.expect_state(State.TIME_WAIT)

    def test_twice_is_once(self) -> None:
        s = established()
        s.abort()
        s.expect("R. seq=a ack=b")
        s.abort()
        s.close()
        s.silent_for(600)

    def test_it_discards_what_is_queued_and_keeps_what_is_unread(self) -> None:
        s = established(wnd=1000)
        s.send(3000)
        s.expect(". seq=a ack=b len=1000")
        s.recv("P. seq=b ack=a wnd=1000", b"unread")
        s.abort()
        s.expect("R. seq=a+1000 ack=b+6")
        assert s.read() == b"unread"

    def test_data_before_the_fin_is_reset_in_LAST_ACK(self) -> None:
        """The RFC sends its FIN upon entering LAST-ACK; where ours still queues, B must be told."""
        s = close_wait()
        s.recv(". seq=b+1 ack=a wnd=100")
        with s.together():
            s.send(5000)
            s.close()
        s.silent()  # B's window is too small to be worth a segment
        s.expect_state(State.LAST_ACK)
        s.abort()
        s.expect("R. seq=a ack=b+1")
        s.expect_gone(None)

    def test_data_before_the_fin_is_reset_in_CLOSING(self) -> None:
        s = established()
        with s.together():
            s.send(b"lost")
            s.shutdown()
        s.expect("FP. seq=a ack=b", b"lost")
        s.recv("F. seq=b ack=a")
        s.expect(". seq=a+5 ack=b+1")
        s.expect_state(State.CLOSING)
        s.abort()
        s.expect("R. seq=a+5 ack=b+1")
        s.expect_gone(None)

    def test_a_fin_not_sent_yet_is_reset_in_LAST_ACK(self) -> None:
        """The window is closed: the peer waits for data and FIN, and would wait for ever."""
        s = established(wnd=0)
        s.recv("F. seq=b ack=a wnd=0")
        s.expect(". seq=a ack=b+1")
        s.shutdown()
        s.take()
        s.expect_state(State.LAST_ACK)
        s.abort()
        s.expect("R. * ack=b+1")
        s.expect_gone(None)

    def test_nothing_is_left_in_the_object_but_what_is_unread(self) -> None:
        """Its user may keep it for as long as he likes."""
        s = established(options="sackok")
        s.send(5000)
        s.take()
        s.recv(". seq=b ack=a sack=a+1000:a+2000")
        s.take()
        s.recv("P. seq=b+100 ack=a len=100")
        s.take()
        tcb = s.conn
        assert tcb.recovery is not None and tcb.reassembly is not None and tcb.held > 0
        with s.together():
            s.recv("P. seq=b+200 ack=a len=100")
            s.recv("R. seq=b ack=a")
        s.expect_gone(ConnectionResetError)
        assert all(held is None for held in (tcb.recovery, tcb.reassembly))
        assert (tcb.held, tcb.slot) == (0, NOBODY)
        assert (tcb.ack_now, tcb.dup_acks_due) == (False, 0)
        assert min(earliest_deadline(tcb), tcb.armed_at) == NEVER


class TestOrphans:
    def test_X_09_too_many_are_reset(self) -> None:
        s = Script(Config(max_orphans=2))
        s.listen()
        for port in (1, 2, 3):
            s.recv("S seq=b-1 mss=1000", port=port)
            s.expect("S. seq=a-1 ack=b *", port=port)
            s.recv(". seq=b ack=a", port=port)
            s.accept()
            s.close()
            s.expect("F. seq=a ack=b" if port < 3 else "R. seq=a ack=b", port=port)
        assert s.engine.counters.orphans_dropped == 1
        assert s.recorder.closed_reasons == ["too-many-orphans"]
        s.recv("R seq=b", port=1)
        s.recv("S seq=b-1 mss=1000", port=4)
        s.expect("S. seq=a-1 ack=b *", port=4)
        s.recv(". seq=b ack=a", port=4)
        s.accept()
        s.close()
        s.expect("F. seq=a ack=b", port=4)  # there is room again

    def test_X_09_one_too_many_leaves_nothing_armed(self) -> None:
        s = established(Config(max_orphans=0, linger=5))
        s.close()
        s.expect("R. seq=a ack=b")
        s.expect_gone(None)
        assert s.recorder.closed_reasons == ["too-many-orphans"]
        assert earliest_deadline(s.conn) == NEVER
        assert not s.conn.fin_queued

    def test_X_09_one_that_loses_data_is_told_so(self) -> None:
        s = established(Config(max_orphans=0))
        s.send(b"lost")
        s.expect("P. seq=a ack=b", b"lost")
        s.close()
        s.expect("R. seq=a+4 ack=b")
        s.expect_gone(ConnectionAbortedError)

    def test_an_orphan_retransmits_to_orphan_timeout(self) -> None:
        s = established(Config(orphan_timeout=3))
        with s.together():
            s.send(100)
            s.close()
        s.expect("FP. seq=a ack=b len=100")
        s.advance(2.999_999_999)
        assert len(s.take()) == 3  # .3 .9 2.1
        s.expect_state(State.FIN_WAIT_1)
        s.advance(1e-9)
        s.expect_gone(TimeoutError)
        assert isinstance(s.conn.error, OSError) and s.conn.error.errno == errno.ETIMEDOUT

    def test_closing_shortens_the_patience_of_a_timer_that_runs(self) -> None:
        """The next retransmission would be at 76.5 s."""
        s = established(Config(orphan_timeout=5))
        s.send(100)
        s.take()
        s.advance(40)
        s.take()
        s.close()
        s.expect("F. seq=a+100 ack=b")
        s.silent_for(5 - 1e-9)
        s.expect_state(State.FIN_WAIT_1)
        s.advance(1e-9)
        s.expect_gone(TimeoutError)

    def test_closing_shortens_the_patience_of_a_probe_that_is_due_later(self) -> None:
        s = established(Config(orphan_timeout=5))
        s.recv(". seq=b ack=a wnd=0")
        s.send(100)
        for _ in range(6):
            while not (probes := s.take()):
                s.advance(0.1)
            assert len(probes) == 1
            s.recv(". seq=b ack=a wnd=0")
        s.close()  # the next probe is due in about 19 s
        s.silent_for(5 - 1e-9)
        s.advance(1e-9)
        s.expect("R. seq=a ack=b")
        s.expect_gone(TimeoutError)

    def test_an_orphan_may_be_forgotten_by_its_user(self) -> None:
        s = established()
        s.close()
        s.expect("F. seq=a ack=b")
        s._conn = None
        s.recv("F. seq=b ack=a+1")
        s.expect(". seq=a+1 ack=b+1")
        s.expect_state(State.TIME_WAIT)
        s.silent_for(60)
        s.expect_state(State.CLOSED)


@pytest.mark.parametrize("before", ["nothing", "shutdown", "unread"])
def test_with_nothing_in_flight_an_orphan_s_patience_counts_from_the_close(before: str) -> None:
    """Behind a closed window there is something to wait for, and nothing that R2 would be about."""
    s = established()
    s.recv(". seq=b ack=a wnd=0")
    if before == "unread":
        s.recv("P. seq=b ack=a wnd=0 len=5")
    s.send(1)
    if before == "shutdown":
        s.shutdown()
    s.take()
    s.advance(0.1)
    s.take()
    s.close(flush=True)
    assert s.conn.progress_at == s.now
    s.take()
    s.abort()
    s.take()


@pytest.mark.parametrize("more", [0, 1, 2, 1_000_000_000])
def test_with_something_in_flight_R2_goes_on_and_the_orphan_s_time_begins(more: int) -> None:
    """In nanoseconds: what ends first."""
    r2 = 60 * SECOND + more
    s = established(Config(r2=r2 / 1e9, close_timeout=60))
    s.send(1)
    s.take()
    began = s.conn.progress_at
    s.advance(0.2)
    s.close(flush=True)
    s.take()
    assert s.conn.progress_at == began
    assert give_up_at(s.conn) == min(s.now + 60 * SECOND, began + r2)
    s.abort()
    s.take()
