"""Windows: zero windows and probes, silly windows on both sides, Nagle, delayed ACKs (RFC 9293 3.8.6, 3.7.4)."""

from __future__ import annotations

import pytest

from support.script import RTO, Script
from support.states import ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, Stage, close_wait, established, fin_wait_1, fin_wait_2
from utcp.core.config import Config
from utcp.core.states import State


def zero_window(config: Config | None = None) -> Script:
    """A has 3000 bytes to send and B's window is shut."""
    s = established(config)
    s.recv(". seq=b ack=a wnd=0")
    s.send(3000)
    s.silent()
    return s


class TestSending:
    def test_no_more_than_the_window(self) -> None:
        s = established(wnd=2500)
        s.send(10_000)
        s.expect(". seq=a ack=b len=1000")
        s.expect(". seq=a+1000 ack=b len=1000")
        s.recv(". seq=b ack=a+1000 wnd=2500")
        s.expect(". seq=a+2000 ack=b len=1000")

    def test_MUST_1_the_window_is_unsigned(self) -> None:
        s = established(Config(initial_window=100), wnd=0xFFFF)
        s.send(70_000)
        assert sum(out.seg.data_len for out in s.take()) >= 65_000

    def test_SHLD_15_a_window_that_shrinks(self) -> None:
        """No new data beyond it, what is out is sent again, nothing is given up."""
        s = established(wnd=4000)
        s.send(10_000)
        assert len(s.take()) == 4
        s.recv(". seq=b ack=a+1000 wnd=500")  # the right edge moves left by 2500
        s.silent()
        s.advance(5)
        assert {out.seg.seq - s.seq("a") for out in s.take()} == {1000}
        s.recv(". seq=b ack=a+4000 wnd=2000")
        s.expect(". seq=a+4000 ack=b len=1000")
        s.expect(". seq=a+5000 ack=b len=1000")

    def test_an_old_segment_does_not_move_the_window(self) -> None:
        """SND.WL1, SND.WL2: 3.10.7.4, fifth."""
        s = established(wnd=4000)
        s.recv("P. seq=b ack=a wnd=4000 len=10")
        s.recv("P. seq=b+10 ack=a wnd=3000 len=10")
        s.expect(". seq=a ack=b+20")
        s.recv(". seq=b ack=a wnd=60000")  # sent before
        s.take()
        s.send(10_000)
        assert sum(out.seg.data_len for out in s.take()) == 3000

    def test_a_newer_segment_does_whatever_its_size(self) -> None:
        s = established(wnd=4000)
        s.recv(". seq=b ack=a wnd=1000")
        s.send(10_000)
        s.expect(". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a wnd=3000")  # same seq, same ack: an update
        s.expect(". seq=a+1000 ack=b len=1000")
        s.expect(". seq=a+2000 ack=b len=1000")


class TestZeroWindow:
    def test_MUST_36_probes_at_doubling_intervals_up_to_persist_max(self) -> None:
        s = zero_window()
        interval = RTO
        for _ in range(12):
            s.expect_after(min(interval, 60), ". seq=a-1 ack=b")
            interval *= 2
            s.recv(". seq=b ack=a wnd=0")
        s.expect_state(State.ESTABLISHED)

    def test_persist_max_is_configurable(self) -> None:
        s = zero_window(Config(persist_max=1))
        for interval in (0.3, 0.6, 1, 1, 1):
            s.expect_after(interval, ". seq=a-1 ack=b")
            s.recv(". seq=b ack=a wnd=0")

    def test_the_window_opens_by_itself(self) -> None:
        s = zero_window()
        s.recv(". seq=b ack=a wnd=2000")
        s.expect(". seq=a ack=b len=1000")
        s.expect(". seq=a+1000 ack=b len=1000")
        s.recv(". seq=b ack=a+2000 wnd=2000")
        s.expect("P. seq=a+2000 ack=b len=1000")
        s.recv(". seq=b ack=a+3000")
        s.silent_for(600)  # no probe goes on

    def test_no_probe_goes_out_beside_what_the_open_window_let_go(self) -> None:
        s = zero_window()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a wnd=1000")
        s.expect(". seq=a ack=b len=1000")
        s.expect_after(RTO, ". seq=a ack=b len=1000")  # the retransmission timer, not the persist timer

    def test_a_probe_does_not_eat_an_ack_that_is_owed(self) -> None:
        """B answers a segment below its window without a look at what it acknowledges."""
        s = zero_window()
        s.silent_for(RTO - 0.02)
        s.recv("P. seq=b ack=a wnd=0 len=10")
        s.expect_after(0.02, ". seq=a-1 ack=b+10")
        s.expect(". seq=a ack=b+10")

    def test_the_answer_to_a_probe_opens_the_window(self) -> None:
        s = zero_window()
        s.expect_after(RTO, ". seq=a-1 ack=b")
        s.recv(". seq=b ack=a wnd=3000")
        assert [out.seg.data_len for out in s.take()] == [1000, 1000, 1000]

    def test_H_02_fin_behind_a_zero_window_waits_and_probes(self) -> None:
        s = established()
        s.recv(". seq=b ack=a wnd=0")
        s.shutdown()
        s.expect_state(State.FIN_WAIT_1)
        s.expect_after(RTO, ". seq=a-1 ack=b")
        s.recv(". seq=b ack=a wnd=0")
        s.expect_after(2 * RTO, ". seq=a-1 ack=b")
        s.recv(". seq=b ack=a wnd=1")
        s.expect("F. seq=a ack=b")
        s.recv(". seq=b ack=a+1 wnd=0")
        s.expect_state(State.FIN_WAIT_2)

    def test_H_02_data_and_fin_behind_a_zero_window(self) -> None:
        s = zero_window()
        s.shutdown()
        s.expect_after(RTO, ". seq=a-1 ack=b")
        s.recv(". seq=b ack=a wnd=3000")  # room for the data and not for the FIN
        assert [out.seg.data_len for out in s.take()] == [1000, 1000, 1000]
        s.recv(". seq=b ack=a+3000 wnd=0")
        s.advance(60)
        assert {out.seg.seq - s.seq("a") for out in s.take()} == {2999}
        s.recv(". seq=b ack=a+3000 wnd=1")
        s.expect("F. seq=a+3000 ack=b")

    def test_H_03_a_peer_that_answers_probes_is_never_given_up(self) -> None:
        """MUST-37, RFC 6429: for ever."""
        s = zero_window()
        probes = 0
        while s.now < 24 * 3600 * 10**9:
            s.advance(10)
            for _ in s.take():
                probes += 1
                s.recv(". seq=b ack=a wnd=0")
        assert 24 * 60 - 20 < probes < 24 * 60 + 20
        s.expect_state(State.ESTABLISHED)
        s.recv(". seq=b ack=a")
        assert sum(out.seg.data_len for out in s.take()) == 3000

    def test_H_04_a_peer_that_does_not_is_given_up_at_R2(self) -> None:
        s = zero_window()
        s.expect_after(0.3, ". seq=a-1 ack=b")  # patience begins with the first probe that nobody answers
        s.advance(119.999_999_999)
        assert {out.seg.seq for out in s.take()} == {s.seq("a-1")}
        s.expect_state(State.ESTABLISHED)
        s.advance(0.000_000_001)
        s.expect_gone(TimeoutError)

    def test_one_lost_probe_does_not_end_what_was_answered_for_hours(self) -> None:
        """MUST-37. With probes a minute apart, R2 from the last answer on would allow for one."""
        s = zero_window()
        for _ in range(600):
            s.advance(1)
            for _ in s.take():
                s.recv(". seq=b ack=a wnd=0")
        s.advance(119)  # the last answer was 43 s ago, the first probe without one is sent in 17 s
        assert len(s.take()) == 2
        s.expect_state(State.ESTABLISHED)

    def test_H_05_an_orphan_behind_a_zero_window_has_an_end(self) -> None:
        """Though B answers every probe: nobody is left to wait for it. B is told by a RST."""
        s = zero_window(Config(orphan_timeout=20))
        s.close()
        end = s.now + 20 * 10**9
        while s.now < end - 10**7:
            s.advance(0.01)
            for _ in s.take():
                s.recv(". seq=b ack=a wnd=0")
        s.expect_state(State.FIN_WAIT_1)
        s.advance(0.01)
        s.expect("R. seq=a ack=b")
        s.expect_gone(TimeoutError)

    def test_MUST_66_a_reset_is_heard_though_our_window_is_shut(self) -> None:
        s = shut(established(Config(receive_buffer=2000)))
        s.recv("R. seq=b+2000 ack=a")
        s.expect_gone(ConnectionResetError)

    def test_an_ack_is_heard_though_our_window_is_shut(self) -> None:
        s = established(Config(receive_buffer=2000))
        s.send(b"x")
        s.expect("P. seq=a ack=b", b"x")
        shut(s)
        s.recv(". seq=b+2000 ack=a+1")
        assert s.conn.unacked_bytes == 0

    def test_a_probe_of_one_byte_is_answered_and_not_taken(self) -> None:
        s = shut(established(Config(receive_buffer=2000)))
        s.recv(". seq=b+2000 ack=a len=1")
        s.expect(". seq=a ack=b+2000 wnd=0")
        s.recv(". seq=b+1999 ack=a")  # Linux's form
        s.expect(". seq=a ack=b+2000 wnd=0")
        assert len(s.read()) == 2000
        s.expect(". seq=a ack=b+2000 wnd=2000")

    def test_H_02_a_fin_at_RCV_NXT_is_accepted_though_our_window_is_shut(self) -> None:
        s = shut(established(Config(receive_buffer=2000)))
        s.recv("F. seq=b+2000 ack=a")
        s.expect(". seq=a ack=b+2001")
        s.expect_state(State.CLOSE_WAIT)
        assert len(s.read()) == 2000 and s.conn.at_eof


def shut(s: Script) -> Script:
    """B fills A's receive buffer of 2000 bytes."""
    for i in (0, 1000):
        s.recv(f"P. seq=b+{i} ack=A len=1000")
        s.take()
    s.advance(0.04)
    s.take()
    return s


class TestOurWindow:
    def test_it_shrinks_by_what_is_unread_and_never_from_the_right(self) -> None:
        """SHLD-14."""
        s = established(Config(receive_buffer=10_000))
        edge = 0
        for i in range(10):
            s.recv(f"P. seq=b+{i * 1000} ack=a len=1000")
            s.advance(0.04)
            for out in s.take():
                now_at = (out.seg.ack + out.seg.wnd - s.seq("b")) % 2**32
                assert now_at >= edge
                edge = now_at
        assert edge == 10_000
        assert len(s.read()) == 10_000
        s.expect(". seq=a ack=b+10000 wnd=10000")

    def test_SHLD_19_small_reads_do_not_open_it_by_little(self) -> None:
        """Silly window avoidance: an opening counts from min(half the buffer, MSS)."""
        s = shut(established(Config(receive_buffer=2000)))
        for _ in range(9):
            s.read(100)
            s.silent()
        s.recv(". seq=b+1999 ack=a")
        s.expect(". seq=a ack=b+2000 wnd=0")
        s.read(100)
        s.expect(". seq=a ack=b+2000 wnd=1000")

    def test_data_beyond_it_is_cut_off(self) -> None:
        s = established(Config(receive_buffer=2000))
        s.recv("P. seq=b ack=a len=1000")
        s.recv("P. seq=b+1000 ack=a len=1400")
        s.expect(". seq=a ack=b+2000 wnd=0")
        assert len(s.read()) == 2000
        s.take()

    def test_reading_slowly_never_stalls(self) -> None:
        s = established(Config(receive_buffer=3000))
        sent = read = 0
        edge = 3000
        while read < 50_000:
            n = min(1000, edge - sent)
            if n > 0:
                s.recv(f"P. seq=b+{sent} ack=a len={n}")
                sent += n
            else:
                s.recv(f". seq=b+{sent - 1} ack=a")  # probe
            for out in s.take():
                edge = max(edge, (out.seg.ack + out.seg.wnd - s.seq("b")) % 2**32)
            read += len(s.read(700))
            for out in s.take():
                edge = max(edge, (out.seg.ack + out.seg.wnd - s.seq("b")) % 2**32)
            s.advance(0.04)
            for out in s.take():
                edge = max(edge, (out.seg.ack + out.seg.wnd - s.seq("b")) % 2**32)


class TestNagle:
    """RFC 9293 3.7.4, MUST-17, SHLD-7."""

    def test_a_small_segment_waits_for_the_ack_of_what_is_out(self) -> None:
        s = established()
        s.send(b"a")
        s.expect("P. seq=a ack=b", b"a")
        s.send(b"b")
        s.send(b"c")
        s.silent()
        s.recv(". seq=b ack=a+1")
        s.expect("P. seq=a+1 ack=b", b"bc")

    def test_a_full_segment_does_not(self) -> None:
        s = established()
        s.send(b"a")
        s.expect("P. seq=a ack=b", b"a")
        s.send(1500)
        s.expect(". seq=a+1 ack=b len=1000")
        s.silent()
        s.recv(". seq=b ack=a+1")
        s.silent()  # still 1000 bytes out
        s.recv(". seq=b ack=a+1001")
        s.expect("P. seq=a+1001 ack=b len=500")

    def test_it_can_be_switched_off(self) -> None:
        s = established(Config(nodelay=True))
        for i in range(3):
            s.send(b"x")
            s.expect(f"P. seq=a+{i} ack=b", b"x")

    def test_switching_it_off_sends_what_it_held(self) -> None:
        s = established()
        s.send(b"a")
        s.expect("P. seq=a ack=b", b"a")
        s.send(b"b")
        s.silent()
        s.set_option("nodelay", True)
        s.expect("P. seq=a+1 ack=b", b"b")

    def test_MUST_60_nothing_is_held_when_nothing_is_out(self) -> None:
        s = established()
        for i in range(3):
            s.send(b"x")
            s.expect(f"P. seq=a+{i} ack=b", b"x")
            s.recv(f". seq=b ack=a+{i + 1}")

    def test_SWS_a_small_window_is_used_by_half_of_the_largest_seen(self) -> None:
        """MUST-38: send when min(D, U) >= Fs * Max(SND.WND), with Fs = 1/2."""
        s = established(wnd=900)
        s.send(5000)
        s.expect(". seq=a ack=b len=900")
        s.recv(". seq=b ack=a+900 wnd=449")
        s.silent()
        s.recv(". seq=b ack=a+900 wnd=450")
        s.expect(". seq=a+900 ack=b len=450")

    def test_SWS_the_override_timer_sends_into_a_small_window(self) -> None:
        """3.8.6.2.1 (4): the PUSH flag is set or the override time-out occurs: 0.1 to 1 s, or our persist timer."""
        s = established(wnd=4000)
        s.send(4000)
        assert len(s.take()) == 4
        s.recv(". seq=b ack=a+4000 wnd=100")
        s.send(5000)
        s.silent()
        s.advance(1.5)
        first = s.take()[0]
        assert first.seg.seq == s.seq("a+4000") and first.seg.data_len == 100


class TestDelayedAck:
    """MUST-40, SHLD-18, SHLD-19 of RFC 9293 3.8.6.3."""

    def test_a_lone_segment_is_acknowledged_after_the_delay(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a len=1000")
        s.expect_after(0.04, ". seq=a ack=b+1000")

    def test_the_delay_is_counted_from_the_first_segment(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a len=1000")
        s.silent_for(0.03)
        s.recv("P. seq=b+1000 ack=a len=10")
        s.expect_after(0.01, ". seq=a ack=b+1010")

    def test_every_second_full_segment_is_acknowledged_at_once(self) -> None:
        s = established()
        for i in range(0, 6000, 2000):
            s.recv(f". seq=b+{i} ack=a len=1000")
            s.silent()
            s.recv(f". seq=b+{i + 1000} ack=a len=1000")
            s.expect(f". seq=a ack=b+{i + 2000}")

    def test_MUST_58_59_ten_segments_in_one_batch(self) -> None:
        s = established()
        with s.together():
            for i in range(10):
                s.recv(f". seq=b+{i * 1000} ack=a len=1000")
        acks = s.take()
        assert 1 <= len(acks) <= 5
        assert acks[-1].seg.ack == s.seq("b+10000")

    def test_an_answer_takes_the_ack_along(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a len=10")
        s.silent_for(0.02)
        s.send(b"answer")
        s.expect("P. seq=a ack=b+10", b"answer")
        s.silent_for(0.1)

    def test_the_delay_is_configurable_and_may_be_none(self) -> None:
        s = established(Config(delayed_ack=0.2))
        s.recv("P. seq=b ack=a len=10")
        s.expect_after(0.2, ". seq=a ack=b+10")
        s = established(Config(delayed_ack=0))
        s.recv("P. seq=b ack=a len=10")
        s.expect(". seq=a ack=b+10")

    @pytest.mark.parametrize("stage", [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2], ids=str)
    def test_a_segment_out_of_order_is_acknowledged_at_once(self, stage: Stage) -> None:
        """RFC 5681 4.2: so is one that fills a hole."""
        s = stage.make()
        s.recv("P. seq=b+1000 ack=a len=1000")
        s.expect(f". seq={stage.a} ack=b")
        s.recv("P. seq=b+2000 ack=a len=1000")
        s.expect(f". seq={stage.a} ack=b")
        s.recv("P. seq=b ack=a len=1000")
        s.expect(f". seq={stage.a} ack=b+3000")

    def test_a_fin_is_acknowledged_at_once(self) -> None:
        for make in (established, fin_wait_1, fin_wait_2):
            s = make()
            s.recv("F. seq=b ack=a")
            s.expect(". seq=A ack=b+1")

    def test_an_ack_is_never_acknowledged(self) -> None:
        for make in (established, close_wait):
            s = make()
            s.recv(". seq=B ack=a")
            s.recv(". seq=B ack=a wnd=100")
            s.silent_for(10)
