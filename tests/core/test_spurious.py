"""Recoveries for nothing are noticed and taken back: F-RTO, timestamps, D-SACKs (RFC 5682, 3522, 4015, 3708)."""

from __future__ import annotations

import pytest

from support.script import RTO, Script
from support.states import established
from utcp.core.config import Config

PLAIN = Config(congestion_control="reno", pacing=False, tlp=False)
TS = "sackok ts=9000/0"


def timed_out(config: Config = PLAIN, *, options: str = "", queued: int = 20_000, mss: int = 1000) -> Script:
    """Ten segments are out, the RTO has come, the first was sent again."""
    s = established(config, options=options)
    s.send(queued)
    assert len(s.take()) == min(queued // mss, 10)
    s.expect_after(RTO, f". seq=a ack=b len={mss}")
    s.silent_for(0.1)
    return s


def undone(s: Script) -> int:
    return s.engine.counters.spurious_recoveries


def window(s: Script) -> tuple[int, bool]:
    """The congestion window, and whether ssthresh is what it was at first."""
    info = s.conn.info()
    return info.cwnd, info.ssthresh > 1_000_000


class TestForwardRto:
    @pytest.mark.parametrize("options", ["", "sackok"])
    def test_acks_for_what_was_not_sent_again(self, options: str) -> None:
        """RFC 5682 2.1: the first lets two new segments go, the second proves it."""
        s = timed_out(options=options)
        s.recv(". seq=b ack=a+1000")
        s.expect(". seq=a+10000 ack=b len=1000")
        s.expect(". seq=a+11000 ack=b len=1000")
        s.recv(". seq=b ack=a+2000")
        s.take()
        assert undone(s) == 1
        assert window(s)[0] >= 10_000
        assert window(s)[1]
        s.recv(". seq=b ack=A")
        s.take()

    def test_a_real_one_goes_on_with_what_is_lost(self) -> None:
        """Step 3a: the new data arrives, the old does not."""
        s = timed_out()
        s.recv(". seq=b ack=a+1000")
        assert len(s.take()) == 2
        s.recv(". seq=b ack=a+1000")
        s.expect(". seq=a+1000 ack=b len=1000")
        assert undone(s) == 0
        assert window(s)[0] <= 3000

    @pytest.mark.parametrize("window", ["", "wnd=60000"], ids=["duplicate", "window update"])
    def test_a_real_one_by_SACK(self, window: str) -> None:
        s = timed_out(options="sackok")
        s.recv(". seq=b ack=a+1000")
        assert len(s.take()) == 2
        s.silent_for(0.1)
        s.recv(f". seq=b ack=a+1000 {window} sack=a+10000:a+11000")
        assert s.take()[0].seg.seq == s.seq("a+1000")
        assert undone(s) == 0

    def test_without_new_data_it_is_not_tried(self) -> None:
        s = timed_out(queued=10_000)
        s.recv(". seq=b ack=a+1000")
        s.expect(". seq=a+1000 ack=b len=1000")
        s.expect(". seq=a+2000 ack=b len=1000")

    def test_new_data_that_nagle_holds_back_is_none(self) -> None:
        """Step 2b: the conventional recovery goes on, and does not wait for another time-out."""
        s = timed_out(queued=4000)
        s.send(100)
        s.silent()
        s.recv(". seq=b ack=a+1000")
        s.expect(". seq=a+1000 ack=b len=1000")
        s.expect(". seq=a+2000 ack=b len=1000")

    def test_a_window_too_small_for_new_data(self) -> None:
        """It came with the very ACK."""
        s = timed_out(queued=20_000)
        s.recv(". seq=b ack=a+1000 wnd=9500")
        s.expect(". seq=a+1000 ack=b len=1000")
        s.expect(". seq=a+2000 ack=b len=1000")

    def test_one_ack_for_the_retransmission_and_more_proves_nothing(self) -> None:
        """It may have filled the only hole."""
        s = timed_out()
        s.recv(". seq=b ack=a+5000")
        assert len(s.take()) == 2
        assert undone(s) == 0

    def test_a_duplicate_ack_first(self) -> None:
        """Step 2a."""
        s = timed_out()
        s.recv(". seq=b ack=a")
        s.silent()
        s.recv(". seq=b ack=a+1000")
        assert s.take()[0].seg.seq == s.seq("a+1000")

    def test_all_acknowledged_at_once(self) -> None:
        s = timed_out()
        s.recv(". seq=b ack=a+10000")
        s.take()
        assert s.conn.recovery is None or s.conn.recovery.phase == 0

    def test_again_when_the_same_segment_times_out_again(self) -> None:
        s = timed_out()
        s.expect_after(2 * RTO - 0.1, ". seq=a ack=b len=1000")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+1000")
        s.expect(". seq=a+10000 ack=b len=1000")
        s.expect(". seq=a+11000 ack=b len=1000")

    def test_not_when_another_one_does(self) -> None:
        """Step 1: the time-out interrupts the recovery from the last one. What counts as lost waits no longer."""
        s = timed_out()
        s.recv(". seq=b ack=a+1000")
        assert len(s.take()) == 2
        s.expect_after(2 * RTO, ". seq=a+1000 ack=b len=1000")
        s.recv(". seq=b ack=a+2000")
        assert s.conn.info().ssthresh == 5500  # of the twelve that were out, less the one
        s.expect(". seq=a+2000 ack=b len=1000")
        s.expect(". seq=a+3000 ack=b len=1000")

    def test_with_SACK_a_duplicate_ack_first_decides_nothing(self) -> None:
        """RFC 5682 3.1, step 2."""
        s = timed_out(options="sackok")
        s.recv(". seq=b ack=a")
        s.silent()
        s.recv(". seq=b ack=a+1000")
        s.expect(". seq=a+10000 ack=b len=1000")
        s.expect(". seq=a+11000 ack=b len=1000")

    def test_switched_off(self) -> None:
        s = timed_out(Config(congestion_control="reno", pacing=False, tlp=False, frto=False))
        s.recv(". seq=b ack=a+1000")
        s.expect(". seq=a+1000 ack=b len=1000")
        s.expect(". seq=a+2000 ack=b len=1000")
        s.recv(". seq=b ack=a+4000")
        s.take()
        assert undone(s) == 0


class TestUndo:
    def test_a_time_out_by_the_timestamp_of_the_first_ack(self) -> None:
        """RFC 3522: it echoes the first transmission, not the second."""
        s = timed_out(options=TS, mss=988)
        s.recv(". seq=b ack=a+988 ts=9500/5000100")
        s.take()
        assert undone(s) == 1
        assert window(s)[1]
        assert window(s)[0] >= 10 * 988

    @pytest.mark.parametrize("echo", [5_000_400, 0], ids=["retransmission", "nothing"])
    def test_not_by_an_echo_of_something_else(self, echo: int) -> None:
        s = timed_out(options=TS, mss=988)
        s.recv(f". seq=b ack=a+988 ts=9500/{echo}")
        s.take()
        assert undone(s) == 0

    def test_nothing_is_lost_after_all(self) -> None:
        """All of the flight counted as lost: once the time-out is undone only new data leaves."""
        s = timed_out(options=TS, mss=988)
        s.recv(". seq=b ack=a+988 ts=9500/5000100")
        assert [sent.seg.seq - s.seq("a") for sent in s.take()] == [9880, 10_868]

    def test_once(self) -> None:
        """By timestamps; that the D-SACK says the same is no other reason."""
        s = self.recovering(TS, mss=988)
        s.recv(". seq=b ack=a+3952 ts=7000220/5000100")
        s.recv(". seq=b ack=a+3952 sack=a:a+988 ts=7000220/5000100")
        assert undone(s) == 1

    def test_what_rack_had_concluded_is_forgotten(self) -> None:
        """The first ACK seemed to be the retransmission's, a round trip old: all that left before it would be lost.
        What is reported next counts, though it left before the retransmission."""
        s = self.recovering()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+4000 sack=a:a+1000")
        assert undone(s) == 1
        s.silent()
        s.recv(". seq=b ack=a+4000 sack=a+7000:a+10000")
        s.expect_after(0.05, ". seq=a+4000 ack=b len=1000")  # a quarter of the round trip, twice after a D-SACK
        s.take()

    def recovering(self, options: str = "sackok", config: Config = PLAIN, mss: int = 1000) -> Script:
        s = established(config, options=options)
        s.send(10 * mss)
        assert len(s.take()) == 10
        s.silent_for(0.1)
        s.recv(f". seq=b ack=a sack=a+{mss}:a+{4 * mss}")
        s.expect(f". seq=a ack=b len={mss}")
        return s

    def test_a_fast_recovery_by_timestamps(self) -> None:
        s = self.recovering(TS, mss=988)
        s.silent_for(0.02)
        s.recv(". seq=b ack=a+3952 ts=7000220/5000100")
        assert undone(s) == 1
        assert window(s)[1]
        assert s.conn.recovery is not None
        assert s.conn.recovery.reordering_seen
        s.recv(". seq=b ack=a+9880")
        s.silent_for(60)

    def test_without_SACK_what_duplicate_acks_said_is_forgotten(self) -> None:
        """They were for what is acknowledged now: no more is in flight than the window allows."""
        s = established(PLAIN, options="ts=9000/0")
        s.send(30 * 988)
        assert len(s.take()) == 10
        s.silent_for(0.1)
        for first in (9880, 10_868, 0):
            s.recv(". seq=b ack=a ts=7000200/5000100")
            s.expect(f". seq=a+{first} ack=b len=988")
        s.recv(". seq=b ack=a+1976 ts=7000201/5000100")
        assert undone(s) == 1
        s.take()
        info = s.conn.info()
        assert info.cwnd - 988 < info.bytes_in_flight <= info.cwnd

    def test_a_fast_recovery_by_dsack_after_its_end(self) -> None:
        s = self.recovering()
        s.recv(". seq=b ack=a+10000")
        assert not window(s)[1]
        s.recv(". seq=b ack=a+10000 sack=a:a+1000")
        assert undone(s) == 1
        assert window(s)[0] >= 10_000
        assert window(s)[1]

    def test_while_it_lasts(self) -> None:
        s = self.recovering()
        s.recv(". seq=b ack=a+4000 sack=a:a+1000")
        assert undone(s) == 1
        s.recv(". seq=b ack=a+10000")
        s.silent_for(60)

    @pytest.mark.parametrize("outer", ["a+3000:a+10000", "a+2000:a+4000", "a+3000:a+4000"])
    def test_by_a_dsack_within_the_block_that_follows_it(self, outer: str) -> None:
        """RFC 2883 4: it lies beyond a hole, at either end of what the peer holds there, or is all of it."""
        s = established(PLAIN, options="sackok")
        s.send(10_000)
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+2000 sack=a+4000:a+10000")
        again = [sent.seg.seq - s.seq("a") for sent in s.take()]
        assert again == [2000, 3000]
        r = s.conn.recovery
        assert r is not None
        s.recv(f". seq=b ack=a+2000 sack=a+3000:a+4000,{outer}")
        assert r.undo_left == 1000
        s.recv(". seq=b ack=a+10000")
        s.take()

    def test_only_when_all_of_it_was_in_vain(self) -> None:
        s = established(PLAIN, options="sackok")
        s.send(10_000)
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a sack=a+2000:a+10000")
        assert [sent.seg.seq - s.seq("a") for sent in s.take()] == [0, 1000]
        s.recv(". seq=b ack=a+10000 sack=a:a+1000")
        assert undone(s) == 0
        s.recv(". seq=b ack=a+10000 sack=a+1000:a+2000")
        assert undone(s) == 1

    def test_what_an_earlier_recovery_sent_does_not_count(self) -> None:
        s = self.recovering()
        s.send(4000)
        s.take()
        s.recv(". seq=b ack=a+10000")
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+10000 sack=a+11000:a+14000")
        s.expect(". seq=a+10000 ack=b len=1000")
        s.recv(". seq=b ack=a+14000 sack=a+10000:a+11000")
        assert undone(s) == 1

    @pytest.mark.parametrize("blocks", [["a:a+999", "a+999:a+1000"], ["a:a+2000"]], ids=["in pieces", "and more"])
    def test_by_dsacks_that_are_no_segments(self, blocks: list[str]) -> None:
        s = self.recovering()
        s.recv(". seq=b ack=a+10000")
        for block in blocks:
            assert undone(s) == 0
            s.recv(f". seq=b ack=a+10000 sack={block}")
        assert undone(s) == 1

    @pytest.mark.parametrize("block", ["a-1000:a", "a-1000:a-500", "a+10000:a+10000", "a:a+999", "a+500:a+1000"])
    def test_not_by_a_dsack_of_something_else(self, block: str) -> None:
        s = self.recovering()
        s.recv(f". seq=b ack=a+10000 sack={block}")
        assert undone(s) == 0

    def test_not_after_the_next_flight(self) -> None:
        s = self.recovering()
        s.recv(". seq=b ack=a+10000")
        s.send(1000)
        s.take()
        s.recv(". seq=b ack=a+11000")
        s.recv(". seq=b ack=a+11000 sack=a:a+1000")
        assert undone(s) == 0

    def test_not_after_the_next_flight_though_something_is_remembered(self) -> None:
        """That the path reorders."""
        s = self.recovering()
        s.recv(". seq=b ack=a+4000 sack=a:a+1000")
        s.recv(". seq=b ack=a+10000")
        s.send(4000)
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+10000 sack=a+11000:a+14000")
        s.expect_after(0.05, ". seq=a+10000 ack=b len=1000")
        s.recv(". seq=b ack=a+14000")
        s.send(1000)
        s.take()
        s.recv(". seq=b ack=a+15000")
        assert s.conn.recovery is not None
        s.recv(". seq=b ack=a+15000 sack=a+10000:a+11000")
        assert undone(s) == 1

    def test_not_by_the_dsack_of_a_loss_probe_from_before_it(self) -> None:
        """The probe was in vain, the recovery is not."""
        s = established(Config(congestion_control="reno", pacing=False), options="sackok")
        s.send(10_000)
        s.take()
        s.expect_after(0.202, "P. seq=a+9000 ack=b len=1000")
        s.silent_for(0.05)
        s.recv(". seq=b ack=a sack=a+1000:a+10000")
        s.expect(". seq=a ack=b len=1000")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a sack=a+9000:a+10000,a+1000:a+10000")
        assert undone(s) == 0
        s.recv(". seq=b ack=a+10000")
        assert not window(s)[1]

    def test_not_by_the_echo_of_a_loss_probe_from_before_it(self) -> None:
        """The first transmission was lost: that the second one was only late does not make it good."""
        s = established(Config(congestion_control="reno", pacing=False), options=TS)
        s.send(3 * 988)
        s.take()
        probe = s.expect_after(0.202, "P. seq=a+1976 ack=b len=988")
        s.silent_for(0.05)
        s.recv(". seq=b ack=a+1976")
        s.send(3 * 988)
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+1976 sack=a+2964:a+5928")
        s.expect(". seq=a+1976 ack=b len=988")
        s.recv(f". seq=b ack=a+5928 ts=7000453/{probe.seg.ts_val}")
        assert undone(s) == 0
        assert not window(s)[1]

    def test_not_by_the_echo_of_the_first_of_two_retransmissions(self) -> None:
        """RFC 3522 3.2, step 2: RetransmitTS does not get overwritten as loss recovery progresses."""
        s = self.recovering(TS, mss=988)
        first = s.a_ts
        s.silent_for(0.1)
        s.recv(f". seq=b ack=a+3952 sack=a+4940:a+9880 ts=7000400/{first}")
        s.take()
        s.silent_for(0.01)
        s.recv(f". seq=b ack=a+4940 sack=a+5928:a+9880 ts=7000410/{first}")
        assert undone(s) == 0
        s.take()

    def test_by_an_echo_from_before_a_loss_probe(self) -> None:
        """The path has become slow: first a probe, then the RTO were for nothing. An earlier recovery was not."""
        s = self.recovering(TS, Config(congestion_control="reno", pacing=False), mss=988)
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+9880")
        assert undone(s) == 0
        s.send(3 * 988)
        first = s.take()[0].seg.ts_val
        s.advance(0.6)
        assert s.recorder.timers[-2:] == ["loss-probe", "retransmit"]
        s.take()
        s.recv(f". seq=b ack=a+10868 ts=7009000/{first}")
        assert undone(s) == 1
        s.take()

    def test_only_the_first_ack_of_something_new_decides(self) -> None:
        """RFC 3522 3.2, steps 3 and 4: it was for the retransmission; that another segment was late changes nothing."""
        s = self.recovering(TS, mss=988)
        s.silent_for(0.1)
        s.recv(f". seq=b ack=a+3952 sack=a+4940:a+9880 ts=7000400/{s.a_ts}")
        s.expect(". seq=a+3952 ack=b len=988")
        s.recv(". seq=b ack=a+4940 sack=a+5928:a+9880 ts=7000410/5000100")
        assert undone(s) == 0
        assert not window(s)[1]
        s.take()

    def test_switched_off(self) -> None:
        s = self.recovering(config=Config(congestion_control="reno", pacing=False, undo=False))
        s.recv(". seq=b ack=a+10000 sack=a:a+1000")
        assert undone(s) == 0
