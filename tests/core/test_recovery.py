"""Loss recovery: SACK's scoreboard, fast recovery and its rate, NewReno, and peers that lie (RFC 6675, 6937, 6582)."""

from __future__ import annotations

import pytest

from support.script import RTO, Script
from support.states import established
from utcp.core.config import Config

SACK = "sackok"
NOT_BY_TIME = Config(rack=False, tlp=False, congestion_control="reno", pacing=False)
RENO = Config(congestion_control="reno", pacing=False)


def flight(config: Config, segments: int, *, options: str = SACK, rtt: float = 0.1) -> Script:
    """So many segments of 1000 bytes have left, and a round trip has passed since; no more is queued."""
    s = established(config, options=options)
    s.send(1000 * segments)
    assert len(s.take()) == segments
    s.silent_for(rtt)
    return s


def numbers(s: Script) -> list[int]:
    """Of what A has sent: the first byte of each segment."""
    return [sent.seg.seq - s.seq("a") for sent in s.take()]


class TestCounting:
    """RFC 6675: three segments reported above a hole make it a loss."""

    def test_two_reported_segments_do_not(self) -> None:
        s = flight(NOT_BY_TIME, 6)
        s.recv(". seq=b ack=a sack=a+1000:a+3000")
        s.silent_for(0.1)

    def test_more_than_two_segments_do(self) -> None:
        s = flight(NOT_BY_TIME, 6)
        s.recv(". seq=b ack=a sack=a+1000:a+3001")
        assert s.expect(". seq=a ack=b len=1000").retransmission

    def test_three_blocks_do(self) -> None:
        s = flight(NOT_BY_TIME, 6)
        s.recv(". seq=b ack=a sack=a+1000:a+1100,a+2000:a+2100,a+3000:a+3100")
        s.expect(". seq=a ack=b len=1000")

    def test_blocks_that_touch_are_one(self) -> None:
        s = flight(NOT_BY_TIME, 6)
        for left in (1000, 1100, 1200):
            s.recv(f". seq=b ack=a sack=a+{left}:a+{left + 100}")
        s.silent()

    def test_a_hole_with_less_above_it_waits(self) -> None:
        s = flight(NOT_BY_TIME, 8)
        s.recv(". seq=b ack=a sack=a+1000:a+3000,a+4000:a+6000")
        s.expect(". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a+3000 sack=a+4000:a+7000")
        s.expect(". seq=a+3000 ack=b len=1000")
        s.recv(". seq=b ack=a+8000")
        s.silent_for(60)

    def test_a_lost_retransmission_waits_for_the_time_out(self) -> None:
        s = flight(NOT_BY_TIME, 6)
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.expect(". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a sack=a+1000:a+6000")
        s.silent_for(RTO - 1e-9)  # it began anew with the retransmission
        s.advance(1e-9)
        assert numbers(s)[0] == 0


class TestLimitedTransmit:
    def test_3042_each_of_the_first_duplicate_acks_sends_a_new_segment(self) -> None:
        s = established(Config(initial_window=4, pacing=False))
        s.send(20_000)
        assert len(s.take()) == 4
        s.silent_for(0.1)
        s.recv(". seq=b ack=a")
        s.expect(". seq=a+4000 ack=b len=1000")
        s.recv(". seq=b ack=a")
        s.expect(". seq=a+5000 ack=b len=1000")
        s.recv(". seq=b ack=a")
        s.expect(". seq=a ack=b len=1000")  # the third: fast retransmit

    def test_3042_by_SACK_too(self) -> None:
        s = established(Config(initial_window=4, rack=False, tlp=False), options=SACK)
        s.send(20_000)
        assert len(s.take()) == 4
        s.recv(". seq=b ack=a sack=a+1000:a+2000")
        s.expect(". seq=a+4000 ack=b len=1000")

    def test_3042_not_beyond_the_peers_window(self) -> None:
        s = established(Config(initial_window=4), wnd=4000)
        s.send(20_000)
        assert len(s.take()) == 4
        s.recv(". seq=b ack=a wnd=4000")
        s.silent()


class TestWithoutSack:
    """NewReno (RFC 6582)."""

    def test_the_third_duplicate_ack_and_no_other(self) -> None:
        s = flight(RENO, 6, options="")
        s.recv(". seq=b ack=a")
        s.recv(". seq=b ack=a")
        s.silent()
        s.recv(". seq=b ack=a")
        assert s.expect(". seq=a ack=b len=1000").retransmission
        s.recv(". seq=b ack=a")
        s.recv(". seq=b ack=a+6000")
        s.silent_for(60)
        assert s.engine.counters.fast_recoveries == 1

    @pytest.mark.parametrize("text", [". seq=b ack=a wnd=60000", "P. seq=b ack=a len=1"], ids=["window", "data"])
    def test_5681_what_is_no_duplicate_ack(self, text: str) -> None:
        s = flight(RENO, 6, options="")
        for i in range(4):
            s.recv(text.replace("60000", str(60_000 + i)).replace("seq=b", f"seq=b+{i if 'len' in text else 0}"))
            s.take()
        assert s.engine.counters.fast_recoveries == 0

    def test_a_partial_acknowledgment_sends_the_next_hole_at_once(self) -> None:
        s = flight(RENO, 8, options="")
        for _ in range(3):
            s.recv(". seq=b ack=a")
        s.expect(". seq=a ack=b len=1000")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+2000")
        s.expect(". seq=a+2000 ack=b len=1000")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+5000")
        s.expect(". seq=a+5000 ack=b len=1000")
        s.recv(". seq=b ack=a+8000")
        s.silent_for(60)
        assert s.engine.counters.fast_recoveries == 1

    def test_the_window_is_halved_once_for_all_of_them(self) -> None:
        s = established(RENO)
        s.send(100_000)
        assert len(s.take()) == 10
        s.silent_for(0.1)
        for _ in range(3):
            s.recv(". seq=b ack=a")
            s.take()
        for end in (3000, 6000, 9000):
            s.recv(f". seq=b ack=a+{end}")
            s.take()
        assert s.conn.info().ssthresh == 5000
        s.recv(". seq=b ack=A")
        assert len(s.take()) <= 6
        assert s.conn.info().ssthresh == 5000

    def test_duplicate_acks_of_what_was_sent_twice_begin_no_other_recovery(self) -> None:
        """RFC 6582 3.2, step 2 and section 4.1: RecoveryPoint must be passed first."""
        s = flight(RENO, 6, options="")
        for _ in range(3):
            s.recv(". seq=b ack=a")
        s.take()
        s.recv(". seq=b ack=a+6000")
        s.send(6000)
        s.take()
        for _ in range(5):
            s.recv(". seq=b ack=a+6000")
            s.take()
        assert s.engine.counters.fast_recoveries == 1

    def test_after_a_time_out_duplicate_acks_prove_nothing(self) -> None:
        s = flight(RENO, 6, options="", rtt=0)
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        for _ in range(5):
            s.recv(". seq=b ack=a")
        s.silent()


class TestRate:
    """Proportional rate reduction (RFC 6937)."""

    def test_it_sends_one_segment_for_two_that_arrive(self) -> None:
        s = established(Config(initial_window=20, congestion_control="reno", pacing=False), options=SACK)
        s.send(100_000)
        assert len(s.take()) == 20
        s.silent_for(0.1)
        sent = []
        for right in range(4000, 10_000, 1000):
            s.recv(f". seq=b ack=a sack=a+1000:a+{right}")
            sent.append(numbers(s))
        assert sent == [[0], [20_000], [], [21_000], [], [22_000]]

    def test_below_ssthresh_it_grows_back_by_slow_start(self) -> None:
        """Most of a window is lost: as much as has arrived, and a segment more for each ACK that moves SND.UNA."""
        s = established(RENO, options=SACK)
        s.send(100_000)
        assert len(s.take()) == 10
        s.silent_for(0.1)
        s.recv(". seq=b ack=a sack=a+7000:a+10000")
        assert numbers(s) == [0, 1000, 2000]
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+1000 sack=a+7000:a+10000")
        assert numbers(s) == [3000, 4000]

    def test_below_ssthresh_an_ack_that_moves_nothing_lets_one_leave_for_one(self) -> None:
        """The conservative bound (PRR-CRB): SND.UNA waits for a retransmission that is lost, perhaps."""
        s = established(NOT_BY_TIME, options=SACK)
        s.send(100_000)
        assert len(s.take()) == 10
        s.silent_for(0.1)
        s.recv(". seq=b ack=a sack=a+7000:a+10000")
        assert numbers(s) == [0, 1000, 2000]
        s.silent_for(0.1)
        s.recv(". seq=b ack=a sack=a+1000:a+2000,a+7000:a+10000")
        assert numbers(s) == [3000]

    def test_without_sack_each_duplicate_ack_is_a_segment_that_has_arrived(self) -> None:
        """As many as were out when SND.UNA last moved count; PRR lets not quite half as many leave."""
        s = established(RENO)
        s.send(100_000)
        assert len(s.take()) == 10
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+5000")
        assert len(s.take()) == 10
        s.silent_for(0.1)
        sent = 0
        for _ in range(14):
            s.recv(". seq=b ack=a+5000")
            sent += len(s.take())
        assert s.conn.info().ssthresh == 7500
        assert sent == 7  # two by limited transmit, then PRR: one again, and four

    @pytest.mark.parametrize("algorithm", ["reno", "cubic"])
    def test_5681_at_the_end_the_window_is_ssthresh(self, algorithm: str) -> None:
        """RFC 5681 3.2, step 6. The ACK that ends it is for a whole flight, reported long before: no growth."""
        s = flight(Config(congestion_control=algorithm, pacing=False), 10)
        s.recv(". seq=b ack=a sack=a+1000:a+10000")
        s.expect(". seq=a ack=b len=1000")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+10000")
        ssthresh = {"reno": 5000, "cubic": 7000}[algorithm]
        assert s.conn.info().ssthresh == ssthresh
        assert ssthresh <= s.conn.info().cwnd < ssthresh + 100

    def test_5681_also_without_sack(self) -> None:
        s = flight(RENO, 10, options="")
        for _ in range(9):
            s.recv(". seq=b ack=a")
            assert numbers(s) in ([], [0])
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+10000")
        assert s.conn.info().ssthresh == 5000
        assert s.conn.info().cwnd == 5000


class TestLies:
    def test_2018_blocks_outside_the_flight_count_for_nothing(self) -> None:
        s = flight(RENO, 4)
        for block in ("a+9000:a+12000", "a+3000:a+5000", "a+3000:a+1000", "a-5000:a-1000", "a+1000000:a+1000001"):
            s.recv(f". seq=b ack=a sack={block}")
        s.silent()
        assert s.conn.info().cwnd == 10_000
        s.recv(". seq=b ack=a+4000")
        s.silent_for(60)

    def test_overlapping_blocks_count_once(self) -> None:
        s = flight(NOT_BY_TIME, 8)
        s.recv(". seq=b ack=a sack=a+2000:a+3000,a+1500:a+3500,a+1000:a+3000")
        assert numbers(s) == [0]
        r = s.conn.recovery
        assert r is not None
        assert r.runs.sacked == 2500

    def test_2018_8_a_peer_that_reneges_gets_it_all_again(self) -> None:
        s = flight(RENO, 6)
        s.recv(". seq=b ack=a sack=a+1000:a+6000")
        s.expect(". seq=a ack=b len=1000")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+1000")  # and of the rest not a word any more
        assert numbers(s) == [1000, 2000, 3000]
        s.recv(". seq=b ack=a+6000")
        s.silent_for(60)

    def test_2018_8_also_where_only_the_time_out_finds_it(self) -> None:
        s = flight(Config(rack=False, tlp=False), 3)
        s.recv(". seq=b ack=a sack=a+1000:a+2000")
        s.recv(". seq=b ack=a+1000")
        s.advance(RTO)
        assert numbers(s)[0] == 1000

    def test_an_ack_of_what_was_never_sent_changes_nothing(self) -> None:
        s = flight(RENO, 4)
        s.recv(". seq=b ack=a+4001 sack=a+1000:a+4000")
        s.take()  # a challenge ACK
        assert s.conn.recovery is None
        assert s.conn.unacked_bytes == 4000

    def test_divided_acks_gain_nothing(self) -> None:
        windows = []
        for step in (10_000, 100):
            s = flight(RENO, 10)
            for end in range(step, 10_001, step):
                s.recv(f". seq=b ack=a+{end}")
            windows.append(s.conn.info().cwnd)
        assert windows[1] <= windows[0]

    def test_repeated_acks_send_no_more_than_a_flight(self) -> None:
        s = established(RENO)
        s.send(1_000_000)
        assert len(s.take()) == 10
        s.silent_for(0.1)
        sent = 0
        for _ in range(1000):
            s.recv(". seq=b ack=a")
            sent += len(s.take())
        assert sent <= 12
        assert s.conn.info().cwnd <= 10_000

    def test_a_timestamp_that_jumps_back_is_dropped(self) -> None:
        s = established(RENO, options="sackok ts=9000/0")
        s.send(6000)
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a sack=a+1000:a+6000 ts=5/5000100")
        s.expect(". seq=A ack=b")
        assert s.recorder.drops == ["paws"]
        assert s.conn.recovery is None

    def test_a_report_for_every_other_byte_is_bounded(self) -> None:
        s = established(Config(initial_window=100, pacing=False), options=SACK)
        s.send(60_000)
        s.take()
        with s.together():
            for i in range(3_000):
                left = 4 * i + 1
                s.engine.receive(s.path, s.segment(f". seq=b ack=a sack=a+{left}:a+{left + 1}").to_bytes(), s.now)
        s.take()
        r = s.conn.recovery
        assert r is not None
        assert r.runs.blocks <= 1024
        s.recv(". seq=b ack=a+60000")
        s.silent_for(60)


class TestScoreboard:
    def test_a_round_trip_time_by_SACK_does_not_wait_for_the_hole(self) -> None:
        s = established(RENO, options=SACK)
        s.send(1000)
        s.take()
        s.recv(". seq=b ack=a+1000")
        s.send(5000)
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+1000 sack=a+2000:a+6000")
        s.expect(". seq=a+1000 ack=b len=1000")
        srtt = s.conn.info().srtt
        s.silent_for(0.2)
        s.recv(". seq=b ack=a+6000")
        assert s.conn.info().srtt == srtt

    def test_what_is_acknowledged_leaves_nothing_behind(self) -> None:
        s = flight(RENO, 6)
        s.recv(". seq=b ack=a sack=a+1000:a+6000")
        s.take()
        s.recv(". seq=b ack=a+6000")
        s.send(1)
        s.take()
        s.recv(". seq=b ack=a+6001")
        assert s.conn.recovery is None

    def test_a_single_train_makes_none(self) -> None:
        s = flight(RENO, 6)
        assert s.conn.recovery is None
        s.recv(". seq=b ack=a+2000")
        s.recv(". seq=b ack=a+6000")
        assert s.conn.recovery is None

    def test_a_window_of_trains_is_a_record_each(self) -> None:
        s = established(Config(initial_window=1000, pacing=False), options=SACK)
        for _ in range(5):
            s.send(10_000)
            assert len(s.take()) == 10
            s.silent_for(0.001)
        r = s.conn.recovery
        assert r is not None
        assert r.runs.count == 5
        s.recv(". seq=b ack=A")
