"""Retransmission: RTO by RFC 6298 to the nanosecond, Karn, back-off, SYN, data, FIN, and when to give up."""

from __future__ import annotations

import pytest

from support.script import RTO, Script
from support.states import close_wait, established, fin_wait_1, listen, syn_received, syn_sent
from utcp.core.config import Config
from utcp.core.paths import PathError
from utcp.core.states import State


class TestRoundTripTime:
    def test_the_first_sample_is_the_handshake(self) -> None:
        """RFC 6298 2.2: SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 * RTTVAR."""
        for passive in (False, True):
            s = established(passive=passive, rtt=0.5)
            s.send(10)
            s.expect("P. seq=a ack=b len=10")
            s.expect_after(1.5, "P. seq=a ack=b len=10")

    @pytest.mark.parametrize(
        ("samples", "rto"),
        [
            ([0.1], 0.25),  # RTTVAR = 0.75 * 0.05, SRTT = 0.1
            ([0.1, 0.1], 0.2125),
            ([0.1, 0.1, 0.1], 0.2),  # the minimum; RFC 6298 2.3 gives 0.184375
            ([0.28], 0.4525),  # RTTVAR = 0.75 * 0.05 + 0.25 * 0.18 = 0.0825, SRTT = 0.1225
            ([0.02], 0.32),  # RTTVAR = 0.75 * 0.05 + 0.25 * 0.08 = 0.0575, SRTT = 0.09
        ],
    )
    def test_further_samples(self, samples: list[float], rto: float) -> None:
        s = established(rtt=0.1)
        for i, rtt in enumerate(samples):
            s.send(1)
            s.expect(f"P. seq=a+{i} ack=b len=1")
            s.silent_for(rtt)
            s.recv(f". seq=b ack=a+{i + 1}")
        s.send(1)
        s.take()
        s.expect_after(rto, f"P. seq=a+{len(samples)} ack=b len=1")

    def test_the_minimum_is_configurable(self) -> None:
        s = established(Config(rto_min=1.0), rtt=0.1)
        s.send(1)
        s.take()
        s.expect_after(1.0, "P. seq=a ack=b len=1")

    def test_MUST_18_karn_an_ack_after_a_retransmission_is_no_sample(self) -> None:
        """... and the backed-off RTO stays until there is one."""
        s = established()
        s.send(1)
        s.take()
        s.expect_after(RTO, "P. seq=a ack=b len=1")
        s.recv(". seq=b ack=a+1")
        s.send(1)
        s.take()
        s.expect_after(2 * RTO, "P. seq=a+1 ack=b len=1")
        s.recv(". seq=b ack=a+2")
        s.send(1)
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+3")  # a clean sample of 0.1
        s.send(1)
        s.take()
        s.expect_after(0.25, "P. seq=a+3 ack=b len=1")

    def test_with_timestamps_a_retransmission_can_be_measured(self) -> None:
        s = established(options="sackok ts=9/0")
        s.send(1)
        s.take()
        s.expect_after(RTO, "P. seq=a ack=b len=1")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+1")  # echoes the retransmission
        s.send(1)
        s.take()
        s.expect_after(0.25, "P. seq=a+1 ack=b len=1")

    def test_one_sample_for_all_that_left_together(self) -> None:
        """RFC 7323 4.2. Each ACK of the flight echoes a timestamp, and the later ones had to wait for one another."""
        s = established(options="sackok ts=9/0")
        s.send(5 * 988)
        flight = s.take()
        s.silent_for(0.1)
        s.recv(f". seq=b ack=a+988 ts=10/{flight[0].seg.ts_val}")
        before = s.conn.info()
        assert before.srtt == 0.1
        for i in range(2, 6):
            s.silent_for(0.03)
            s.recv(f". seq=b ack=a+{i * 988} ts=10/{flight[0].seg.ts_val}")
        after = s.conn.info()
        assert (after.srtt, after.rttvar, after.rto) == (before.srtt, before.rttvar, before.rto)
        s.send(1)
        s.take()
        s.silent_for(0.18)
        s.recv(f". seq=b ack=A ts=10/{s.a_ts}")
        assert s.conn.info().srtt == pytest.approx(0.11)

    def test_one_echo_for_a_round_trip_of_retransmissions(self) -> None:
        s = established(options="sackok ts=9/0")
        s.send(4 * 988)
        s.take()
        s.advance(0.65)
        s.take()  # a loss probe, and the first segment after the time-out
        again = s.a_ts
        s.recv(f". seq=b ack=a+988 ts=10/{again}")
        before = s.conn.info()
        s.take()
        s.advance(0.1)
        s.recv(f". seq=b ack=a+1976 ts=10/{again}")
        after = s.conn.info()
        assert before.srtt == pytest.approx(0.1 * 7 / 8 + 0.148 / 8)
        assert (after.srtt, after.rttvar, after.rto) == (before.srtt, before.rttvar, before.rto)
        s.take()

    def test_the_echo_of_the_first_retransmission_ends_the_back_off(self) -> None:
        """RFC 6298 5: ... once a new RTT measurement is obtained; though what left with it gave one before."""
        s = established(Config(tlp=False), options="sackok ts=9/0")
        s.send(4 * 988)
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+988")
        rto = s.conn.info().rto
        s.expect_after(rto, ". seq=a+988 ack=b len=988")
        assert s.conn.info().rto == 2 * rto
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+1976")
        assert s.conn.info().rto < rto
        s.take()

    def test_an_echo_from_before_the_time_out_does_not(self) -> None:
        """It says how long we waited, not how long the path is."""
        s = established(Config(tlp=False), options="sackok ts=9/0")
        s.send(4 * 988)
        first = s.take()[0].seg.ts_val
        s.expect_after(RTO, ". seq=a ack=b len=988")
        s.recv(f". seq=b ack=a+988 ts=10/{first}")
        assert s.conn.info().rto == 2 * RTO
        s.take()

    @pytest.mark.parametrize("ahead", [1, 1000, 0x7FFFFFFE])
    def test_an_echo_of_what_was_never_sent_is_no_sample(self, ahead: int) -> None:
        s = established(options="sackok ts=9/0")
        s.send(1)
        s.take()
        s.expect_after(RTO, "P. seq=a ack=b len=1")
        before = s.conn.info()
        s.recv(f". seq=b ack=a+1 ts=10/{s.a_ts + ahead}")
        after = s.conn.info()
        assert (after.srtt, after.rttvar) == (before.srtt, before.rttvar)

    def test_an_echo_within_a_tick_of_the_clock_counts_as_one(self) -> None:
        s = established(options="sackok ts=9/0", rtt=0.008)
        s.send(1)
        s.take()
        s.expect_after(0.2, "P. seq=a ack=b len=1")
        s.recv(f". seq=b ack=a+1 ts=10/{s.a_ts}")
        assert s.conn.info().srtt == pytest.approx(0.008 * 7 / 8 + 0.001 / 8)

    def test_an_ack_of_a_part_of_the_timed_segment_is_no_sample(self) -> None:
        s = established()
        s.send(1000)
        s.take()
        s.silent_for(0.05)
        s.recv(". seq=b ack=a+500")
        s.silent_for(0.05)
        s.recv(". seq=b ack=a+1000")  # one sample: 0.1
        s.send(1)
        s.take()
        s.expect_after(0.25, "P. seq=a+1000 ack=b len=1")


class TestTimer:
    def test_back_off_and_its_cap(self) -> None:
        """RFC 6298 5.5, 2.5."""
        s = established(Config(rto_max=2.0))
        s.send(1)
        s.take()
        for interval in (0.3, 0.6, 1.2, 2.0, 2.0, 2.0):
            sent = s.expect_after(interval, "P. seq=a ack=b len=1")
            assert sent.retransmission

    def test_it_is_restarted_by_an_ack_of_new_data(self) -> None:
        """RFC 6298 5.3: it then expires an RTO later; here 0.35 by the sample of 0.2."""
        s = established()
        s.send(2000)
        assert len(s.take()) == 2
        s.silent_for(0.2)
        s.recv(". seq=b ack=a+1000")
        # RTTVAR = 0.75 * 0.05 + 0.25 * 0.1 = 0.0625, SRTT = 0.1125, RTO = 0.3625
        s.expect_after(0.3625, "P. seq=a+1000 ack=b len=1000")

    def test_it_is_not_restarted_by_a_duplicate_ack(self) -> None:
        s = established()
        s.send(2000)
        s.take()
        s.silent_for(0.2)
        s.recv(". seq=b ack=a")
        s.expect_after(0.1, ". seq=a ack=b len=1000")

    def test_it_is_stopped_when_all_is_acknowledged(self) -> None:
        """RFC 6298 5.2."""
        s = established()
        s.send(2000)
        s.take()
        s.recv(". seq=b ack=a+2000")
        s.silent_for(3600)

    def test_it_is_not_restarted_by_more_data(self) -> None:
        """RFC 6298 5.1: only if it is not running."""
        s = established()
        s.send(1000)
        s.take()
        s.silent_for(0.2)
        s.send(1000)
        s.take()
        s.expect_after(0.1, ". seq=a ack=b len=1000")

    def test_early_and_spurious_calls_are_harmless(self) -> None:
        s = established()
        s.send(1)
        s.take()
        for _ in range(10):
            s.silent_for(0.03 - 1e-9)
            s.engine.handle_timeout(s.now)
            with s.together():
                pass
            s.silent()
        s.expect_after(1e-8, "P. seq=a ack=b len=1")

    def test_X_14_the_clock_jumps_by_an_hour(self) -> None:
        s = fin_wait_1(Config(r2=7200))
        s.now += 3600 * 10**9
        s.engine.handle_timeout(s.now)
        with s.together():
            pass
        s.expect("F. seq=a ack=b")
        s.expect_state(State.FIN_WAIT_1)
        due = s.engine.next_timeout()
        assert due is not None and due > s.now

    def test_only_the_first_segment_is_sent_again(self) -> None:
        """RFC 6298 5.4; the rest follows as the window of one segment grows (RFC 5681 3.1)."""
        s = established(Config(initial_window=8))
        s.send(8000)
        assert len(s.take()) == 8
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a+1000")
        s.expect(". seq=a+1000 ack=b len=1000")
        s.expect(". seq=a+2000 ack=b len=1000")
        s.recv(". seq=b ack=a+3000")
        # one ACK, however much it covers, is worth one segment while recovering (RFC 3465 2.3)
        assert [out.seg.seq - s.seq("a") for out in s.take()] == [3000, 4000, 5000]
        s.recv(". seq=b ack=a+8000")
        s.silent_for(60)

    def test_what_was_reported_by_SACK_is_not_sent_again(self) -> None:
        """RFC 2018 5.1."""
        s = established(Config(rack=False, tlp=False), options="sackok")
        s.send(6000)
        assert len(s.take()) == 6
        s.recv(". seq=b ack=a sack=a+1000:a+2000,a+3000:a+4000")
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a+2000 sack=a+3000:a+4000")
        s.expect(". seq=a+2000 ack=b len=1000")
        s.expect(". seq=a+4000 ack=b len=1000")
        s.recv(". seq=b ack=a+5000")
        s.expect("P. seq=a+5000 ack=b len=1000")
        s.recv(". seq=b ack=a+6000")
        s.silent_for(600)

    def test_what_arrived_after_all_is_not_sent_again(self) -> None:
        s = established()
        s.send(8000)
        s.take()
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a+8000")
        s.silent_for(60)
        assert s.conn.unacked_bytes == 0

    def test_a_retransmission_takes_in_what_nagle_collected(self) -> None:
        """Or it does not: but the bytes are right, and B gets all of them."""
        s = established()
        s.send(b"one")
        s.take()
        s.send(b"two")
        s.silent_for(RTO - 1e-9)
        s.advance(1e-9)
        again = s.take()[0].seg
        assert again.seq == s.seq("a") and b"onetwo".startswith(again.data) and len(again.data) >= 3
        s.recv(f". seq=b ack=a+{len(again.data)}")
        if len(again.data) == 3:
            s.expect("P. seq=a+3 ack=b", b"two")

    def test_a_retransmission_carries_what_is_current(self) -> None:
        """Today's ACK and window, not those of the first time."""
        s = established()
        s.send(10)
        s.take()
        s.recv("P. seq=b ack=a len=1000")
        s.expect_after(0.04, ". seq=a+10 ack=b+1000")
        s.advance(1)
        assert s.take()[0].seg.ack == s.seq("b+1000")


class TestSyn:
    def test_it_is_sent_again_at_1_3_7_and_so_on_up_to_180_seconds(self) -> None:
        """MUST-23: at least 3 minutes."""
        s = syn_sent()
        for interval in (1, 2, 4, 8, 16, 32, 60):
            sent = s.expect_after(interval, "S seq=a-1 *")
            assert sent.retransmission
        s.silent_for(57 - 1e-9)
        s.expect_state(State.SYN_SENT)
        s.silent_for(1e-9)
        s.expect_gone(TimeoutError)
        assert "8" in str(s.conn.error)  # how many tries there were

    def test_the_syn_ack_too(self) -> None:
        s = syn_received()
        for interval in (1, 2, 4, 8, 16):
            s.expect_after(interval, "S. seq=a-1 ack=b *")
        s.advance(32)  # syn_ack_timeout, 63 s: whoever sent the SYN may never have existed
        s.take()
        s.expect_state(State.CLOSED)
        assert list(s.engine.connections()) == []
        assert s.listener is not None and s.listener.accept() is None

    def test_both_limits_are_configurable(self) -> None:
        s = syn_sent(Config(rto_initial=0.5, syn_r2=2))
        s.expect_after(0.5, "S seq=a-1 *")
        s.expect_after(1, "S seq=a-1 *")
        s.silent_for(0.5)
        s.expect_gone(TimeoutError)

    def test_6298_5_7_a_lost_syn_makes_the_first_rto_three_seconds_and_the_window_one_segment(self) -> None:
        s = syn_sent()
        s.expect_after(1, "S seq=a-1 *")
        s.silent_for(0.1)
        s.recv("S. seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")
        s.send(3000)
        s.expect(". seq=a ack=b len=1000")  # RFC 5681 3.1
        s.silent_for(3 - 1e-9)
        s.advance(1e-9)
        (again,) = s.take()
        assert (again.seg.seq, again.seg.data_len) == (s.seq("a"), 1000)

    def test_5681_a_repeated_syn_means_that_the_syn_ack_was_lost(self) -> None:
        """RFC 5681 3.1: the initial window is then one segment."""
        s = syn_received()
        s.recv("S seq=b-1 mss=1000")
        s.expect("S. seq=a-1 ack=b *")
        s.recv(". seq=b ack=a")
        s.accept()
        s.send(3000)
        s.expect(". seq=a ack=b len=1000")

    def test_a_repeated_syn_ack_is_acknowledged_again(self) -> None:
        s = established()
        s.recv("S. seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")


class TestGivingUp:
    def test_data_at_R2(self) -> None:
        s = established()
        s.send(1)
        s.take()
        s.advance(119.999_999_999)
        assert len(s.take()) == 8  # at .3 .9 2.1 4.5 9.3 18.9 38.1 76.5
        s.expect_state(State.ESTABLISHED)
        s.advance(1e-9)
        s.expect_gone(TimeoutError)
        assert s.recorder.closed_reasons == ["timed-out"]

    def test_R2_counts_from_the_last_progress(self) -> None:
        s = established(Config(r2=10))
        s.send(2000)
        s.take()
        s.advance(6)
        s.take()
        s.recv(". seq=b ack=a+1000")
        s.take()
        s.advance(9.9)
        s.take()
        s.expect_state(State.ESTABLISHED)
        s.advance(0.2)
        s.take()
        s.expect_gone(TimeoutError)

    def test_R2_counts_from_the_sending_after_idleness(self) -> None:
        s = established(Config(r2=10))
        s.silent_for(1000)
        s.send(1)
        s.take()
        s.advance(9.9)
        s.take()
        s.expect_state(State.ESTABLISHED)
        s.advance(0.1)
        s.expect_gone(TimeoutError)

    def test_X_07_the_fin_counts_as_data(self) -> None:
        for make in (fin_wait_1, lambda config: shut(close_wait(config))):
            s = make(Config(r2=10))
            s.advance(9.999_999_999)
            s.take()
            assert list(s.engine.connections())
            s.advance(1e-9)
            s.expect_gone(TimeoutError)

    def test_R2_may_be_changed_on_a_connection(self) -> None:
        s = established()
        s.set_option("r2", 3.0)
        s.send(1)
        s.take()
        s.advance(2.999_999_999)
        s.take()
        s.expect_state(State.ESTABLISHED)
        s.advance(1e-9)
        s.expect_gone(TimeoutError)

    def test_X_06_an_idle_connection_is_not_given_up(self) -> None:
        s = established()
        s.silent_for(365 * 86400)
        s.expect_state(State.ESTABLISHED)
        assert s.engine.next_timeout() is None


class TestCongestionWindow:
    def test_the_initial_window_is_ten_segments(self) -> None:
        """RFC 6928 2: min(10 * MSS, max(2 * MSS, 14600))."""
        s = established()
        s.send(30_000)
        assert len(s.take()) == 10

    def test_slow_start_doubles_it_in_a_round_trip(self) -> None:
        s = established(Config(initial_window=2, pacing=False))
        s.send(100_000)
        assert len(s.take()) == 2
        for n in (2, 4, 8):  # then an ACK for more than 8 segments adds only 8 (RFC 9406 4.3: L)
            s.recv(". seq=b ack=A")
            assert len(s.take()) == 2 * n

    def test_after_a_timeout_slow_start_up_to_half_the_flight_then_one_segment_a_round_trip(self) -> None:
        s = established(Config(congestion_control="reno"))
        s.send(200_000)
        assert len(s.take()) == 10
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a+10000")  # cwnd 2000 by slow start: ssthresh is 5000
        windows = []
        for _ in range(8):
            windows.append(len(s.take()))
            s.recv(". seq=b ack=A")
        s.take()
        assert windows[-1] - windows[-2] == 1  # linear
        assert windows == sorted(windows)
        assert windows[2] <= 6

    def test_congestion_avoidance_counts_bytes_not_acks(self) -> None:
        """RFC 5681 3.1: about one segment more for each window acknowledged, however many ACKs that takes."""
        s = established(Config(congestion_control="reno"))
        s.send(200_000)
        s.take()
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        while len(s.take()) < 6:  # beyond ssthresh, which is 5000
            s.recv(". seq=b ack=A")
        first = s.names["A"] - 6000 - s.seq("a")
        sent = 0
        for i in range(1, 7):
            s.recv(f". seq=b ack=a+{first + 1000 * i}")
            sent += len(s.take())
        assert sent == 7


class TestPathErrors:
    """X-08: RFC 9293 3.9.2.2."""

    @pytest.mark.parametrize(
        "kind", [PathError.PORT_UNREACHABLE, PathError.ADMIN_PROHIBITED], ids=lambda kind: kind.name
    )
    def test_hard_in_SYN_SENT(self, kind: PathError) -> None:
        s = syn_sent()
        s.path_error(kind)
        s.expect_gone(ConnectionRefusedError)

    @pytest.mark.parametrize(
        "kind", [PathError.HOST_UNREACHABLE, PathError.NET_UNREACHABLE, PathError.TTL_EXCEEDED], ids=lambda k: k.name
    )
    def test_MUST_56_soft_errors_do_not_end_the_attempt(self, kind: PathError) -> None:
        s = syn_sent()
        s.path_error(kind)
        s.expect_state(State.SYN_SENT)
        s.recv("S. seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")

    @pytest.mark.parametrize("kind", [k for k in PathError if k != PathError.PACKET_TOO_BIG], ids=lambda k: k.name)
    @pytest.mark.parametrize("make", [established, fin_wait_1, close_wait])
    def test_a_connection_outlives_them(self, make: object, kind: PathError) -> None:
        assert callable(make)
        s: Script = make()
        before = s.conn.state
        s.path_error(kind)
        s.expect_state(before)

    def test_a_smaller_path_mtu_cuts_segments_anew(self) -> None:
        s = established(mss=1400)
        s.send(2800)
        assert [out.seg.data_len for out in s.take()] == [1400, 1400]
        s.path_error(PathError.PACKET_TOO_BIG, 1028)
        s.expect(f". seq=a ack=b len={1028 - 20 - 8 - 20}")
        s.expect(". seq=a+980 ack=b len=980")
        s.expect("P. seq=a+1960 ack=b len=840")

    @pytest.mark.parametrize("mtu", [1, 67, 68])
    def test_an_absurd_mtu_does_no_harm(self, mtu: int) -> None:
        s = established()
        s.path_error(PathError.PACKET_TOO_BIG, mtu)
        s.send(3000)
        assert min(out.seg.data_len for out in s.take()[:-1]) >= 64

    @pytest.mark.parametrize("mtu", [0, -1, 1500, 9000, 65535])
    def test_an_mtu_that_is_none_or_no_news_changes_nothing(self, mtu: int) -> None:
        s = established()
        s.path_error(PathError.PACKET_TOO_BIG, mtu)
        s.send(3000)
        assert [out.seg.data_len for out in s.take()] == [1000, 1000, 1000]

    def test_another_path_is_another_matter(self) -> None:
        s = syn_sent()
        other = s.engine.path("a", "elsewhere")
        s.engine.connect(other, 80, s.now)
        s.engine.path_error(other, PathError.PORT_UNREACHABLE, s.now)
        assert [conn.path for conn in s.engine.connections()] == [s.path]
        with s.together():
            pass
        s.expect_state(State.SYN_SENT)

    def test_listeners_do_not_mind(self) -> None:
        s = listen()
        for kind in PathError:
            s.path_error(kind, 1280)
        s.recv("S seq=b-1 mss=1000")
        s.expect("S. seq=a-1 ack=b *")


def shut(s: Script) -> Script:
    s.shutdown()
    s.take()
    return s
