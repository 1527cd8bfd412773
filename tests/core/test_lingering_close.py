"""The lingering close: our FIN, then what the peer still sends is discarded until its FIN (RFC 9112 9.6)."""

from __future__ import annotations

from support.script import RTO
from support.states import close_wait, established, fin_wait_1, fin_wait_2, syn_received, syn_sent
from utcp.core.config import Config
from utcp.core.states import State

BEFORE = 1e-9  # an instant before a deadline


class TestThePeerCloses:
    def test_what_arrives_is_acknowledged_and_discarded_without_a_reset(self) -> None:
        s = established()
        s.lingering_close(5)
        s.expect("F. seq=a ack=b")
        s.recv("P. seq=b ack=a len=1000")
        s.recv("P. seq=b+1000 ack=a len=1000")
        s.expect(". seq=a+1 ack=b+2000")
        s.recv(". seq=b+2000 ack=a+1")
        s.expect_state(State.FIN_WAIT_2)
        s.recv("P. seq=b+2000 ack=a+1 len=1000")
        s.recv("P. seq=b+3000 ack=a+1 len=1000")
        s.expect(". seq=a+1 ack=b+4000")
        assert s.conn.readable_bytes == 0
        s.recv("F. seq=b+4000 ack=a+1")
        s.expect(". seq=a+1 ack=b+4001")
        s.expect_state(State.TIME_WAIT)
        assert s.recorder.closed_reasons == ["graceful"]
        assert s.conn.discarded == 4000

    def test_what_was_written_goes_first(self) -> None:
        s = established(wnd=1000)
        with s.together():
            s.send(2500)
            s.lingering_close(5)
        s.expect(". seq=a ack=b len=1000")
        s.recv("P. seq=b ack=a+1000 len=10 wnd=1000")
        s.expect(". seq=a+1000 ack=b+10 len=1000")
        s.recv(". seq=b+10 ack=a+2000 wnd=1000")
        s.expect("FP. seq=a+2000 ack=b+10 len=500")
        s.recv("F. seq=b+10 ack=a+2501")
        s.expect(". seq=a+2501 ack=b+11")
        s.expect_state(State.TIME_WAIT)

    def test_what_lies_unread_is_no_reason_for_a_reset(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"never read")
        s.lingering_close(5)
        s.expect("F. seq=a ack=b+10")
        s.recv("F. seq=b+10 ack=a+1")
        s.expect(". seq=a+1 ack=b+11")
        s.expect_state(State.TIME_WAIT)
        assert s.conn.discarded == 10

    def test_out_of_order_data_waits_for_the_hole(self) -> None:
        s = fin_wait_2()
        s.lingering_close(5)
        s.recv("F. seq=b+1000 ack=a+1 len=1000")
        s.expect(". seq=a+1 ack=b *")
        s.recv(". seq=b ack=a+1 len=1000")
        s.expect(". seq=a+1 ack=b+2001")
        s.expect_state(State.TIME_WAIT)

    def test_in_CLOSE_WAIT_there_is_nothing_to_wait_for(self) -> None:
        s = close_wait()
        s.lingering_close(5)
        s.expect("F. seq=a ack=b+1")
        s.recv(". seq=b+1 ack=a+1")
        s.expect_gone(None)
        s.silent_for(600)

    def test_simultaneously(self) -> None:
        s = fin_wait_1()
        s.lingering_close(5)
        s.recv("F. seq=b ack=a")
        s.expect(". seq=a+1 ack=b+1")
        s.expect_state(State.CLOSING)
        s.recv(". seq=b+1 ack=a+1")
        s.expect_state(State.TIME_WAIT)

    def test_in_SYN_RECEIVED_the_FIN_follows_the_handshake(self) -> None:
        s = syn_received(passive=False)
        s.lingering_close(5)
        s.recv(". seq=b ack=a")
        s.expect("F. seq=a ack=b")
        s.recv("P. seq=b ack=a+1 len=100")
        s.recv("F. seq=b+100 ack=a+1")
        s.expect(". seq=a+1 ack=b+101")
        s.expect_state(State.TIME_WAIT)

    def test_in_SYN_SENT_it_is_over_at_once(self) -> None:
        s = syn_sent()
        s.lingering_close(5)
        s.expect_gone(None)


class TestTheTimeIsOver:
    def test_a_peer_that_never_closes_is_reset(self) -> None:
        s = fin_wait_2()
        s.lingering_close(5)
        s.advance(3)
        s.recv("P. seq=b ack=a+1 len=1000")
        s.recv("P. seq=b+1000 ack=a+1 len=1000")  # does not prolong it
        s.expect(". seq=a+1 ack=b+2000")
        s.silent_for(2 - BEFORE)
        s.expect_state(State.FIN_WAIT_2)
        s.advance(BEFORE)
        s.expect("R. seq=a+1 ack=b+2000")
        s.expect_gone(None)
        assert s.recorder.closed_reasons == ["linger-expired"]
        assert s.recorder.timers[-1] == "linger"
        assert set(s.recorder.timers) <= {"delayed-ack", "linger"}  # nobody polls

    def test_longer_than_FIN_WAIT_2_lasts_for_others(self) -> None:
        s = fin_wait_1(Config(fin_timeout=1.0))
        s.lingering_close(5)
        s.recv(". seq=b ack=a+1")
        s.silent_for(5 - BEFORE)
        s.advance(BEFORE)
        s.expect("R. seq=a+1 ack=b")
        s.expect_gone(None)

    def test_what_is_not_acknowledged_by_then_is_lost_and_the_user_told(self) -> None:
        s = established()
        with s.together():
            s.send(b"lost")
            s.lingering_close(1)
        s.expect("FP. seq=a ack=b", b"lost")
        s.expect_after(RTO, "FP. seq=a ack=b", b"lost")
        s.silent_for(2 * RTO - BEFORE)
        s.advance(BEFORE)
        s.take()
        s.advance(1 - 3 * RTO)
        s.expect("R. seq=a+5 ack=b")
        s.expect_gone(ConnectionAbortedError)
        assert "4 bytes unacknowledged" in str(s.conn.error)

    def test_zero_seconds(self) -> None:
        s = established()
        s.lingering_close(0)
        s.expect("F. seq=a ack=b")
        s.advance(0)
        s.expect("R. seq=a+1 ack=b")
        s.expect_gone(None)

    def test_in_LAST_ACK_it_goes_silently(self) -> None:
        """RFC 9293 3.10.5: no RST, both sides have everything."""
        s = close_wait()
        s.lingering_close(0.1)
        s.expect("F. seq=a ack=b+1")
        s.silent_for(0.1)
        s.expect_gone(None)
        assert s.recorder.closed_reasons == ["linger-expired"]


class TestOtherCalls:
    def test_after_close_it_does_nothing(self) -> None:
        s = fin_wait_2(close=True)
        s.lingering_close(5)
        s.recv("P. seq=b ack=a+1 len=10")
        s.expect("R. seq=a+1 *")
        s.expect_gone(None)

    def test_close_after_it_changes_nothing(self) -> None:
        s = fin_wait_2()
        s.lingering_close(5)
        s.close()
        s.recv("P. seq=b ack=a+1 len=1000")
        s.recv("P. seq=b+1000 ack=a+1 len=1000")
        s.expect(". seq=a+1 ack=b+2000")
        s.expect_state(State.FIN_WAIT_2)

    def test_abort_cuts_it_short(self) -> None:
        s = fin_wait_2()
        s.lingering_close(5)
        s.abort()
        s.expect("R. seq=a+1 ack=b")
        s.expect_gone(None)
        assert s.recorder.closed_reasons == ["aborted"]

    def test_it_comes_before_the_linger_option(self) -> None:
        s = established(Config(linger=0))
        s.lingering_close(5)
        s.expect("F. seq=a ack=b")
        s.recv("P. seq=b ack=a+1 len=1000")
        s.recv("P. seq=b+1000 ack=a+1 len=1000")
        s.expect(". seq=a+1 ack=b+2000")
        s.silent_for(5 - BEFORE)
        s.advance(BEFORE)
        s.expect("R. seq=a+1 ack=b+2000")


def test_in_FIN_WAIT_2_its_time_may_be_longer_than_fin_timeout() -> None:
    s = fin_wait_2(Config(fin_timeout=5))
    s.lingering_close(20)
    s.silent_for(20 - BEFORE)
    s.expect_state(State.FIN_WAIT_2)
    s.advance(BEFORE)
    s.expect("R. seq=a+1 ack=b")
    s.expect_gone(None)
    assert s.recorder.closed_reasons == ["linger-expired"]


def test_no_time_at_all_is_still_a_lingering_close() -> None:
    s = established(Config(linger=0))
    with s.together():
        s.conn.lingering_close(0, s.now)
    s.take()
    s.advance(0)
    s.take()
    s.expect_gone(None)
    assert s.recorder.closed_reasons == ["linger-expired"]
