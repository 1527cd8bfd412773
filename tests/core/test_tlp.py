"""Tail loss probes (RFC 8985 7): a flight whose last ACK does not come is asked about before the RTO."""

from __future__ import annotations

import pytest

from support.script import RTO, Script, ns
from support.states import established
from utcp.core.config import Config
from utcp.core.paths import PathError
from utcp.core.stack import NEVER

SLACK = 0.002  # what is added to 2 SRTT
PTO = 2 * 0.1 + SLACK
PLAIN = Config(congestion_control="reno", pacing=False)


def probes(s: Script) -> int:
    return s.engine.counters.loss_probes


class TestScheduling:
    def test_two_round_trips_after_the_last_new_data(self) -> None:
        s = established(PLAIN, options="sackok")
        s.send(2000)
        assert len(s.take()) == 2
        s.silent_for(0.05)
        s.send(1000)
        assert len(s.take()) == 1
        assert s.expect_after(PTO, "P. seq=a+2000 ack=b len=1000").retransmission
        assert (s.recorder.timers, probes(s)) == (["loss-probe"], 1)

    def test_two_round_trips_after_an_ack_of_new_data(self) -> None:
        s = established(PLAIN, options="sackok")
        s.send(4000)
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+1000")
        s.expect_after(PTO, "P. seq=a+3000 ack=b len=1000")

    def test_a_lone_segment_may_have_its_ack_delayed(self) -> None:
        """200 ms more; here the RTO is sooner, and the probe takes its place."""
        s = established(PLAIN, options="sackok")
        s.send(1000)
        s.take()
        s.expect_after(RTO, "P. seq=a ack=b len=1000")
        assert s.recorder.timers == ["loss-probe"]
        s.expect_after(RTO, "P. seq=a ack=b len=1000")
        assert s.recorder.timers == ["loss-probe", "retransmit"]
        s.expect_after(2 * RTO, "P. seq=a ack=b len=1000")

    def test_a_lone_segment_and_a_long_rto(self) -> None:
        s = established(Config(rto_min=1.0), options="sackok")
        s.send(1000)
        s.take()
        s.expect_after(PTO + 0.2, "P. seq=a ack=b len=1000")
        s.expect_after(1.0, "P. seq=a ack=b len=1000")
        assert s.recorder.timers == ["loss-probe", "retransmit"]

    @pytest.mark.parametrize(("size", "delay"), [(999, 0.2), (1000, 0.2), (1001, 0.0), (1002, 0.0)])
    def test_a_byte_more_than_a_segment_is_not_alone(self, size: int, delay: float) -> None:
        s = established(Config(rto_min=1.0, nodelay=True), options="sackok")
        s.send(size)
        s.take()
        assert s.conn.tlp_at == s.now + ns(PTO + delay)
        s.advance(0.01)
        s.recv(". seq=b ack=A")

    @pytest.mark.parametrize("size", [1, 1000])
    def test_none_while_RACK_is_at_work(self, size: int) -> None:
        """7.2: something is reported, a single byte even; neither what is acknowledged nor new data starts it again."""
        s = established(Config(nodelay=True), options="sackok")
        for _ in range(3):
            s.send(size)
            s.take()
            s.silent_for(0.001)
        s.silent_for(0.099)
        assert s.conn.tlp_at < NEVER
        s.recv(f". seq=b ack=a+{size} sack=a+{2 * size}:a+{3 * size}")
        s.silent()
        assert (s.conn.tlp_at, s.conn.reo_at < NEVER) == (NEVER, True)
        s.send(size)
        s.take()
        assert s.conn.tlp_at == NEVER
        s.recv(". seq=b ack=A")

    def test_a_round_trip_of_no_time_is_one(self) -> None:
        s = established(Config(rto_min=1.0), options="sackok", rtt=0)
        assert s.conn.srtt == 0
        s.send(2000)
        assert len(s.take()) == 2
        s.expect_after(SLACK, "P. seq=a+1000 ack=b len=1000")

    def test_no_round_trip_time_one_second(self) -> None:
        s = established(Config(rto_initial=2.0), options="sackok")
        s.conn.srtt = -1
        s.conn.rto = 2 * 10**9
        s.send(2000)
        s.take()
        s.expect_after(1.0, "P. seq=a+1000 ack=b len=1000")

    def test_none_once_something_was_reported(self) -> None:
        s = established(Config(rack=False), options="sackok")
        s.send(3000)
        s.take()
        s.recv(". seq=b ack=a sack=a+1000:a+2000")
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        assert probes(s) == 0

    def test_none_without_SACK(self) -> None:
        s = established(PLAIN)
        s.send(2000)
        s.take()
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        assert probes(s) == 0

    def test_none_when_switched_off(self) -> None:
        s = established(Config(tlp=False), options="sackok")
        s.send(2000)
        s.take()
        s.expect_after(RTO, ". seq=a ack=b len=1000")

    def test_stopped_when_all_is_acknowledged(self) -> None:
        s = established(PLAIN, options="sackok")
        s.send(2000)
        s.take()
        s.recv(". seq=b ack=a+2000")
        s.silent_for(3600)

    def test_it_never_outlives_the_patience_of_the_connection(self) -> None:
        s = established(Config(r2=0.25), options="sackok")
        s.send(1000)
        s.take()
        s.advance(0.25)
        s.expect_gone(TimeoutError)


class TestProbe:
    def test_new_data_if_there_is_any_beyond_the_congestion_window(self) -> None:
        s = established(Config(initial_window=2, pacing=False), options="sackok")
        s.send(5000)
        assert len(s.take()) == 2
        assert not s.expect_after(PTO, ". seq=a+2000 ack=b len=1000").retransmission

    def test_new_data_that_nagle_holds_back(self) -> None:
        s = established(PLAIN, options="sackok")
        s.send(1000)
        s.take()
        s.send(10)
        s.advance(RTO)
        assert [(x.seg.seq - s.seq("a"), x.seg.data_len) for x in s.take()] == [(1000, 10)]

    def test_not_beyond_the_peers_window(self) -> None:
        s = established(PLAIN, options="sackok", wnd=2000)
        s.send(5000)
        assert len(s.take()) == 2
        assert s.expect_after(PTO, ". seq=a+1000 ack=b len=1000").retransmission

    def test_O_05_a_tail_loss_probe_repeats_the_fin_first(self) -> None:
        s = established(PLAIN, options="sackok")
        s.shutdown()
        s.expect("F. seq=a ack=b")
        for interval in (RTO, RTO, 2 * RTO, 4 * RTO):
            s.expect_after(interval, "F. seq=a ack=b")
        assert s.recorder.timers[:2] == ["loss-probe", "retransmit"]

    def test_the_last_segment_with_its_fin(self) -> None:
        s = established(PLAIN, options="sackok")
        with s.together():
            s.send(2500)
            s.shutdown()
        assert len(s.take()) == 3
        s.advance(PTO)
        (probe,) = s.take()
        assert (probe.seg.seq, probe.seg.data_len, probe.seg.flags & 1) == (s.seq("a+2000"), 500, 1)

    def test_its_answer_starts_the_recovery_of_the_rest(self) -> None:
        """7.4.1: what left before the probe and is not acknowledged is lost."""
        s = established(PLAIN, options="sackok")
        s.send(4000)
        s.take()
        s.expect_after(PTO, "P. seq=a+3000 ack=b len=1000")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+1000 sack=a+3000:a+4000")
        assert [sent.seg.seq - s.seq("a") for sent in s.take()] == [1000, 2000]
        s.recv(". seq=b ack=a+4000")
        s.silent_for(60)

    def test_its_answer_with_timestamps(self) -> None:
        """An ACK out of order echoes an older segment (RFC 7323 4.3): no sign that the first transmission arrived."""
        s = established(PLAIN, options="sackok ts=9000/0")
        s.send(3952)
        assert len(s.take()) == 4
        s.expect_after(PTO, "P. seq=a+2964 ack=b len=988")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+988 sack=a+2964:a+3952 ts=7000402/5000100")
        assert [sent.seg.seq - s.seq("a") for sent in s.take()] == [988, 1976]
        s.recv(". seq=b ack=a+3952")
        s.silent_for(60)

    def test_an_answer_in_less_than_a_round_trip(self) -> None:
        """Whichever transmission it is for: the segments before it left before either, and are overdue."""
        s = established(PLAIN, options="sackok")
        s.send(4000)
        s.take()
        s.expect_after(PTO, "P. seq=a+3000 ack=b len=1000")
        s.silent_for(0.05)
        s.recv(". seq=b ack=a+1000 sack=a+3000:a+4000")
        s.advance(0.025)
        assert s.take()[0].seg.seq == s.seq("a+1000")
        s.recv(". seq=b ack=a+4000")
        s.silent_for(60)

    def test_one_in_a_flight(self) -> None:
        """7.3: no other before the first is answered; then the RTO."""
        s = established(PLAIN, options="sackok")
        s.send(2000)
        s.take()
        s.expect_after(PTO, "P. seq=a+1000 ack=b len=1000")
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        assert probes(s) == 1

    def test_the_path_mtu_falls_while_one_is_out(self) -> None:
        s = established(PLAIN, options="sackok")
        s.send(2000)
        s.take()
        s.expect_after(PTO, "P. seq=a+1000 ack=b len=1000")
        s.path_error(PathError.PACKET_TOO_BIG, 600)
        assert all(sent.seg.data_len <= 552 for sent in s.take())
        s.recv(". seq=b ack=a+2000")
        s.silent_for(60)


class TestAnswer:
    """7.4.2: did the probe repair a loss?"""

    def start(self) -> Script:
        s = established(PLAIN, options="sackok")
        s.send(2000)
        s.take()
        s.expect_after(PTO, "P. seq=a+1000 ack=b len=1000")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+2000")
        return s

    def test_it_did(self) -> None:
        s = self.start()
        s.send(1000)
        s.take()
        s.recv(". seq=b ack=a+3000")
        assert s.conn.info().ssthresh == 2000  # 2 SMSS is the least

    @pytest.mark.parametrize("answer", ["sack=a+1000:a+2000", "nothing"])
    def test_it_did_not(self, answer: str) -> None:
        """Case 1, a D-SACK; case 2, a duplicate ACK of a peer that has none."""
        s = self.start()
        if answer == "nothing":
            s.send(1000)
            s.take()
            s.recv(". seq=b ack=a+2000")
        else:
            s.recv(f". seq=b ack=a+2000 {answer}")
            s.send(1000)
            s.take()
        s.recv(". seq=b ack=a+3000")
        assert s.conn.info().ssthresh > 1_000_000

    def test_new_data_repairs_nothing(self) -> None:
        s = established(Config(initial_window=2, congestion_control="reno", pacing=False), options="sackok")
        s.send(3000)
        s.take()
        s.advance(PTO)
        s.take()
        s.recv(". seq=b ack=a+3000")
        s.send(1000)
        s.take()
        s.recv(". seq=b ack=a+4000")
        assert s.conn.info().ssthresh > 1_000_000
