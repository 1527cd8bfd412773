"""RACK: a segment is lost when one that was sent later has arrived and the reordering window is over (RFC 8985 6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.script import Script
from support.states import established
from utcp.core.config import Config

RTT = 0.1  # of the handshake too, so that RACK.min_RTT is 0.1 and the window 0.025
PLAIN = Config(congestion_control="reno", pacing=False, tlp=False)


def spaced(segments: int, *, options: str = "sackok", config: Config = PLAIN, gap: float = 0.001) -> Script:
    """So many segments of 1000 bytes leave, ``gap`` seconds apart; a round trip after the first has just passed."""
    s = established(config, options=options)
    for _ in range(segments):
        s.send(1000)
        assert len(s.take()) == 1
        s.silent_for(gap)
    s.silent_for(RTT - segments * gap)
    return s


def reordering_seen(s: Script) -> bool:
    assert s.conn.recovery is not None
    return s.conn.recovery.reordering_seen


class TestReorderingWindow:
    def test_one_later_segment_starts_the_timer_and_no_recovery(self) -> None:
        """Sent at 0, its successor at 1 ms took 100 ms: lost at 0 + 100 + 25 ms."""
        s = spaced(2)
        s.silent_for(0.001)
        s.recv(". seq=b ack=a sack=a+1000:a+2000")
        assert s.expect_after(0.024, ". seq=a ack=b len=1000").retransmission
        assert s.recorder.timers[-1] == "reordering"
        assert s.engine.counters.fast_recoveries == 1

    def test_it_arrives_in_time_and_nothing_was_wrong(self) -> None:
        s = spaced(2)
        s.silent_for(0.001)
        s.recv(". seq=b ack=a sack=a+1000:a+2000")
        s.silent_for(0.02)
        s.recv(". seq=b ack=a+2000")
        s.silent_for(60)
        assert s.engine.counters.fast_recoveries == 0
        assert s.conn.info().cwnd >= 10_000

    def test_it_arrives_in_time_and_the_timer_is_stopped(self) -> None:
        s = spaced(3)
        s.silent_for(0.001)
        s.recv(". seq=b ack=a sack=a+1000:a+2000")
        s.recv(". seq=b ack=a+2000")
        s.silent_for(0.1)
        assert "reordering" not in s.recorder.timers
        s.recv(". seq=b ack=A")

    def test_it_is_a_quarter_of_the_lowest_round_trip_that_SACK_has_shown(self) -> None:
        """40 ms, where the handshake took 100 (6.2, step 1)."""
        s = established(PLAIN, options="sackok")
        for _ in range(3):
            s.send(1000)
            assert len(s.take()) == 1
            s.silent_for(0.01)
        s.silent_for(0.02)
        s.recv(". seq=b ack=a sack=a+1000:a+2000")  # after 40 ms; the hole left 50 ms ago
        s.expect(". seq=a ack=b len=1000")
        s.recv(". seq=b ack=A")

    def test_the_third_segment_reported_needs_no_window(self) -> None:
        """... as long as nothing was ever seen to be reordered (6.2, step 4)."""
        s = spaced(4)
        s.silent_for(0.003)
        s.recv(". seq=b ack=a sack=a+1000:a+3000")
        s.silent()
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.expect(". seq=a ack=b len=1000")

    def test_three_small_segments_do_as_well(self) -> None:
        """They count as segments, not by their bytes."""
        s = established(PLAIN, options="sackok")
        s.set_option("nodelay", True)
        for _ in range(4):
            s.send(10)
            s.take()
            s.silent_for(0.001)
        s.silent_for(RTT)
        s.recv(". seq=b ack=a sack=a+10:a+40")
        s.expect(". seq=a ack=b len=10")

    def test_once_reordering_was_seen_the_third_has_to_wait_too(self) -> None:
        s = spaced(2)
        s.silent_for(0.001)
        s.recv(". seq=b ack=a sack=a+1000:a+2000")
        s.recv(". seq=b ack=a+2000")  # the first came later, and was sent once
        assert reordering_seen(s)
        s.send(4000)
        assert len(s.take()) == 4
        s.silent_for(RTT)
        s.recv(". seq=b ack=a+2000 sack=a+3000:a+6000")
        s.expect_after(0.025, ". seq=a+2000 ack=b len=1000")

    def test_a_retransmission_that_arrives_is_no_reordering(self) -> None:
        s = spaced(4)
        s.silent_for(0.003)
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.expect(". seq=a ack=b len=1000")
        s.silent_for(RTT)
        s.recv(". seq=b ack=a+4000")
        assert s.conn.recovery is None or not reordering_seen(s)

    def test_two_blocks_in_one_ack_are_no_reordering(self) -> None:
        """The latest comes first (RFC 2018 4): not the order of arrival."""
        s = established(PLAIN, options="sackok")
        s.send(8000)
        assert len(s.take()) == 8
        s.silent_for(RTT)
        s.recv(". seq=b ack=a sack=a+6000:a+7000,a+1000:a+3000")
        assert not reordering_seen(s)
        s.expect(". seq=a ack=b len=1000")  # three segments: no window
        assert s.take()

    def test_a_dsack_that_comes_as_its_round_ends_widens_it_again(self) -> None:
        """6.2, step 4: the round is over first."""
        s = established(PLAIN, options="sackok")
        s.send(8000)
        assert len(s.take()) == 8
        s.silent_for(RTT)
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.take()
        s.recv(". seq=b ack=a+4000 sack=a:a+1000")
        s.take()
        r = s.conn.recovery
        assert r is not None
        assert r.reo_wnd_mult == 2
        s.recv(". seq=b ack=a+8000 sack=a+4000:a+5000")
        assert r.reo_wnd_mult == 3

    def test_it_stays_wider_for_sixteen_recoveries(self) -> None:
        """RACK.reo_wnd_persist (6.2, step 4)."""
        s = spaced(4)
        s.silent_for(0.003)
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.expect(". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a+4000")
        s.recv(". seq=b ack=a+4000 sack=a:a+1000")
        r = s.conn.recovery
        assert r is not None
        widened = []
        for una in range(4000, 38_000, 2000):
            s.send(2000)
            assert len(s.take()) == 2
            s.silent_for(RTT)
            s.recv(f". seq=b ack=a+{una} sack=a+{una + 1000}:a+{una + 2000}")
            widened.append(r.reo_wnd_mult)
            s.expect_after(RTT / 4 * int(r.reo_wnd_mult), f". seq=a+{una} ack=b len=1000")
            s.recv(f". seq=b ack=a+{una + 2000}")
        assert widened == [2] * 16 + [1]

    def test_2883_a_dsack_widens_it(self) -> None:
        """Once a round trip, by another quarter of the lowest one."""
        s = spaced(4)
        s.silent_for(0.003)
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.expect(". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a+4000")  # the original, after all
        s.recv(". seq=b ack=a+4000 sack=a:a+1000")
        r = s.conn.recovery
        assert r is not None
        assert r.reo_wnd_mult == 2
        s.send(2000)
        assert len(s.take()) == 2
        s.silent_for(RTT)
        s.recv(". seq=b ack=a+4000 sack=a+5000:a+6000")
        s.expect_after(0.05, ". seq=a+4000 ack=b len=1000")

    def test_2883_several_dsacks_in_a_round_trip_widen_it_once(self) -> None:
        s = spaced(4)
        s.silent_for(0.003)
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.expect(". seq=a ack=b len=1000")
        s.send(1000)
        s.take()
        for block in ("a:a+500", "a+500:a+1000"):
            s.recv(f". seq=b ack=a+4000 sack={block}")
        r = s.conn.recovery
        assert r is not None
        assert r.reo_wnd_mult == 2
        s.recv(". seq=b ack=a+5000 sack=a:a+1000")  # the round is over
        assert r.reo_wnd_mult == 3


class TestDetection:
    def test_a_whole_train_but_its_last_segment(self) -> None:
        """Segments that left at one instant are in the order of their numbers."""
        s = established(PLAIN, options="sackok")
        s.send(8000)
        assert len(s.take()) == 8
        s.silent_for(RTT)
        s.recv(". seq=b ack=a sack=a+5000:a+8000")
        assert [sent.seg.seq - s.seq("a") for sent in s.take()] == [0, 1000, 2000]  # PRR: as much as has arrived

    def test_of_one_instant_the_highest_that_arrived_counts(self) -> None:
        """Not the latest to be reported (6.2, step 2): all below it left before it."""
        s = established(PLAIN, options="sackok")
        s.send(8000)
        assert len(s.take()) == 8
        s.silent_for(RTT)
        s.recv(". seq=b ack=a sack=a+4000:a+5000")
        s.recv(". seq=b ack=a sack=a+1000:a+2000,a+4000:a+5000")
        s.expect_after(RTT / 4, ". seq=a ack=b len=1000")
        r = s.conn.recovery
        assert r is not None
        assert r.runs.lost == 2000  # PRR has let one of three leave
        s.recv(". seq=b ack=A")

    def test_a_lost_retransmission_is_found_by_what_left_after_it(self) -> None:
        s = established(PLAIN, options="sackok")
        s.send(20_000)
        assert len(s.take()) == 10
        s.silent_for(RTT)
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.expect(". seq=a ack=b len=1000")
        s.silent_for(0.01)
        s.recv(". seq=b ack=a sack=a+1000:a+10000")
        assert {sent.seg.seq for sent in s.take()} >= {s.seq("a+10000")}  # new data, sent 10 ms later
        s.silent_for(RTT - 0.01)
        s.silent_for(0.01)
        s.recv(". seq=b ack=a sack=a+1000:a+11000")
        again = s.take()
        assert again[0].seg.seq == s.seq("a")
        assert again[0].retransmission
        s.silent_for(RTT)
        s.recv(". seq=b ack=A")
        s.take()
        assert s.engine.counters.fast_recoveries == 1

    @pytest.mark.parametrize("arrives", [True, False])
    def test_new_data_of_the_same_instant_proves_nothing_at_once(self, arrives: bool) -> None:
        """It left first, for the loss was found in the same instant: the numbers do not tell the order."""
        s = established(PLAIN, options="sackok")
        s.send(20_000)
        assert len(s.take()) == 10
        s.silent_for(RTT)
        s.recv(". seq=b ack=a+4000")
        assert s.take()[0].seg.seq == s.seq("a+10000")
        s.recv(". seq=b ack=a+4000 sack=a+5000:a+8000")
        assert s.take()[0].seg.seq == s.seq("a+4000")
        s.silent_for(RTT)
        s.recv(". seq=b ack=a+4000 sack=a+5000:a+11000")
        assert not any(sent.retransmission for sent in s.take())
        r = s.conn.recovery
        assert r is not None
        assert r.runs.lost == 0
        if arrives:
            s.recv(". seq=b ack=a+11000")
            assert not any(sent.retransmission for sent in s.take())
        else:
            s.advance(RTT / 4)
            assert s.recorder.timers[-1] == "reordering"
            assert r.runs.lost == 1000

    def test_an_answer_in_less_than_a_round_trip_is_not_the_retransmissions(self) -> None:
        """6.2, step 2: it says nothing of what left before the retransmission."""
        s = spaced(5)
        s.silent_for(0.004)
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.expect(". seq=a ack=b len=1000")
        s.silent_for(0.01)
        s.recv(". seq=b ack=a+4000")
        r = s.conn.recovery
        assert r is not None
        assert (r.rack_xmit_at, r.rack_end) == (103_000_000, s.seq("a+4000"))
        s.recv(". seq=b ack=a+5000")

    def test_the_timestamp_says_which_transmission_it_was(self) -> None:
        s = established(replace(PLAIN, undo=False), options="sackok ts=9000/0")
        for _ in range(4):
            s.send(988)
            s.take()
            s.silent_for(0.001)
        s.silent_for(RTT - 0.001)
        s.recv(". seq=b ack=a sack=a+988:a+3952 ts=9200/5000103")
        s.expect(". seq=a ack=b len=988")
        s.silent_for(0.15)  # longer than a round trip, yet it echoes the first transmission
        s.recv(". seq=b ack=a+3952 ts=9350/5000100")
        r = s.conn.recovery
        assert r is not None
        assert r.rack_xmit_at == 103_000_000

    def test_the_timestamp_of_the_retransmission_says_that_it_was_that(self) -> None:
        """What left before it, and was not reported, is lost."""
        s = established(PLAIN, options="sackok ts=9000/0")
        s.send(10 * 988)
        assert len(s.take()) == 10
        s.silent_for(RTT)
        s.recv(". seq=b ack=a sack=a+988:a+3952 ts=9200/5000100")
        s.expect(". seq=a ack=b len=988")
        s.silent_for(RTT)
        s.recv(". seq=b ack=a+3952 ts=9300/5000200")
        r = s.conn.recovery
        assert r is not None
        assert r.rack_xmit_at == 200_000_000
        assert s.take()[0].seg.seq == s.seq("a+3952")

    def test_the_timer_covers_all_that_may_yet_arrive(self) -> None:
        """Step 5: one timer, for the latest of them."""
        s = spaced(3)
        s.silent_for(0.002)
        s.recv(". seq=b ack=a sack=a+2000:a+3000")
        s.silent_for(0.023 - 0.000_000_001)
        s.advance(0.001_000_001)
        assert [sent.seg.seq - s.seq("a") for sent in s.take()] == [0]
        assert s.recorder.timers.count("reordering") == 1
        r = s.conn.recovery
        assert r is not None
        assert r.runs.lost == 1000  # the second one waits for PRR

    def test_at_a_time_out_what_left_lately_is_not_lost(self) -> None:
        """6.3: RACK_mark_losses_on_RTO."""
        s = spaced(2, gap=0.09)
        s.recv(". seq=b ack=a+1000")  # RACK.rtt is about 0.1
        s.take()
        s.send(1000)
        s.take()
        r = s.conn.recovery
        assert r is not None
        s.silent_for(0.2)
        s.send(1000)
        s.take()
        s.advance(0.1)
        s.take()
        assert s.recorder.timers[-1] == "retransmit"
        assert r.runs.flags(r.runs.count - 1) == 0
        s.recv(". seq=b ack=A")


def test_before_any_answer_a_time_out_goes_by_the_smoothed_round_trip() -> None:
    """RACK.rtt is not known yet: what left 50 ms ago, half a round trip, is not lost."""
    s = established(PLAIN, options="sackok")
    s.send(4000)
    assert len(s.take()) == 4
    s.silent_for(0.25)
    s.send(6000)
    assert len(s.take()) == 6
    s.expect_after(0.05, ". seq=a ack=b len=1000")
    r = s.conn.recovery
    assert r is not None
    assert r.runs.lost == 3000
    assert r.runs.flags(r.runs.count - 1) == 0


def test_without_rack_time_alone_proves_nothing() -> None:
    s = spaced(2, config=Config(rack=False, tlp=False))
    s.recv(". seq=b ack=a sack=a+1000:a+2000")
    s.silent_for(0.1)
    s.advance(1)
    assert s.recorder.timers[0] == "retransmit"
    s.take()
