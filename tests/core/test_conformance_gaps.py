"""Requirements that the tests by mechanism do not look at by themselves: one test each (docs/conformance.md,
docs/teardown.md).
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from support.script import A_ADDRESS, B_ADDRESS, RTO
from support.states import (
    CLOSING,
    FIN_WAIT_2,
    LAST_ACK,
    Stage,
    closing,
    established,
    fin_wait_1,
    fin_wait_2,
    syn_received,
    syn_sent,
    time_wait,
)
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine
from utcp.core.paths import PathError
from utcp.core.states import State
from utcp.wire.segment import Segment, decode

DAY = 86_400
SECOND = 1_000_000_000
UNKNOWN_OPTION = bytes([253, 4, 1, 2])


def with_unknown_option(seg: Segment) -> bytes:
    """The segment with an option that nobody has assigned, between header and data."""
    datagram = bytearray(seg.to_bytes())
    datagram[12] += 1 << 4
    return bytes(datagram[:20]) + UNKNOWN_OPTION + bytes(datagram[20:])


def sent_by(engine: Engine, now: int) -> list[Segment]:
    return [decode(datagram) for train in engine.transmit(now) for datagram in train.datagrams()]


class TestWindow:
    def test_REC_1_it_has_32_bits(self) -> None:
        s = established(options="ws=14")
        s.recv(". seq=b ack=a wnd=65535")
        assert s.conn.info().snd_wnd == 65535 << 14

    def test_MAY_8_ours_may_stay_shut_for_a_day(self) -> None:
        s = established(Config(receive_buffer=1000))
        s.recv("P. seq=b ack=a len=1000")
        s.advance(1)
        assert s.take()[-1].seg.wnd == 0
        for _ in range(24 * 60):
            s.advance(60)
            s.recv(". seq=b+1000 ack=a len=1")  # a probe
            s.expect(". seq=a ack=b+1000 wnd=0")
        s.expect_state(State.ESTABLISHED)
        assert len(s.read()) == 1000
        s.expect(". seq=a ack=b+1000 wnd=1000")

    def test_SHLD_16_MAY_7_what_was_sent_is_sent_again_though_the_window_shrank(self) -> None:
        s = established(wnd=4000)
        s.send(3000)
        assert len(s.take()) == 3
        s.recv(". seq=b ack=a wnd=500")
        again = s.expect_after(RTO, ". seq=a ack=b len=1000")
        assert again.retransmission

    def test_SHLD_17_data_beyond_a_window_that_shrank_does_not_end_the_connection(self) -> None:
        """B goes on answering with a window of nothing: that is a zero window, not a dead peer."""
        s = established(Config(r2=10), wnd=4000)
        s.send(3000)
        s.take()
        s.recv(". seq=b ack=a+1000 wnd=0")
        for _ in range(600):
            s.advance(0.5)
            if s.take():
                s.recv(". seq=b ack=a+1000 wnd=0")
        s.expect_state(State.ESTABLISHED)

    def test_H_02_probes_for_a_fin_alone_back_off_to_a_minute(self) -> None:
        s = established()
        s.recv(". seq=b ack=a wnd=0")
        s.shutdown()
        interval = RTO
        for _ in range(12):
            s.expect_after(min(interval, 60), ". seq=a-1 ack=b")
            interval *= 2
            s.recv(". seq=b ack=a wnd=0")
        s.expect_state(State.FIN_WAIT_1)


class TestOptions:
    @pytest.mark.parametrize(
        ("text", "state"),
        [("F. seq=b ack=a", State.CLOSE_WAIT), ("R. seq=b ack=a", State.CLOSED), (". seq=b ack=a+1", State.FIN_WAIT_2)],
    )
    def test_MUST_5_MUST_68_an_option_may_come_in_any_segment(self, text: str, state: State) -> None:
        s = fin_wait_1() if "a+1" in text else established()
        s.recv_bytes(with_unknown_option(s.segment(text)))
        s.take()
        s.expect_state(state)

    def test_MUST_5_in_front_of_data(self) -> None:
        s = established()
        s.recv_bytes(with_unknown_option(s.segment("P. seq=b ack=a", b"data")))
        assert s.read() == b"data"
        s.expect_after(0.04, ". seq=a ack=b+4")

    @pytest.mark.parametrize(
        ("local", "peer", "size"), [("10.0.0.1", "10.0.0.2", 536), ("fe80::1", "fe80::2", 1220)], ids=["IPv4", "IPv6"]
    )
    def test_MUST_15_without_an_mss_option(self, local: str, peer: str, size: int) -> None:
        engine = Engine(Config(timestamps=False), mtu=9000)
        conn = engine.connect(engine.path((local, 9000), (peer, 9000)), 80, 0, local_port=1000)
        (syn,) = sent_by(engine, 0)
        answer = Segment(80, 1000, 5, syn.seq + 1, 0x12, 65535)
        engine.receive(conn.path, answer.to_bytes(), 0)
        conn.send(bytes(5000), 0)
        assert sent_by(engine, 0)[1].data_len == size

    def test_MUST_69_padding_is_zero(self) -> None:
        segment = Segment(1, 2, 3, 4, 0x12, wscale=5)
        options = segment.to_bytes()[20:]
        assert len(options) % 4 == 0 and options.replace(b"\x01", b"").rstrip(b"\0") == bytes([3, 3, 5])
        assert options.startswith((b"\x01\x03", b"\x03"))  # a NOP in front, or zeros behind: never rubbish

    def test_7323_timestamp_offsets_differ_between_connections_and_not_between_incarnations(self) -> None:
        """RFC 7323 5.4 and 7.1: one clock, its offset a secret of each connection."""

        def ts_val(secret: bytes, port: int) -> int:
            engine = Engine(secret=secret)
            engine.connect(engine.path("a", "b"), port, SECOND, local_port=1000)
            (syn,) = sent_by(engine, SECOND)
            return int(syn.ts_val)

        one, other = b"k" * 16, b"l" * 16
        assert ts_val(one, 80) == ts_val(one, 80)
        assert len({ts_val(one, 80), ts_val(one, 81), ts_val(other, 80)}) == 3

    def test_7323_an_ack_of_nothing_new_is_no_sample(self) -> None:
        """RFC 7323 4.1. It may echo anything, and long after."""
        s = established(options="ts=9/0")
        s.send(10)
        s.take()
        echo = s.a_ts
        s.recv(f". seq=b ack=a+10 ts=10/{echo}")
        before = s.conn.info()
        s.silent_for(10)
        s.recv(f". seq=b ack=a+10 ts=20/{echo}")
        s.recv(f"P. seq=b ack=a+10 len=10 ts=20/{echo}")
        s.expect_after(0.04, ". seq=a+10 ack=b+10")
        after = s.conn.info()
        assert (after.srtt, after.rttvar, after.rto) == (before.srtt, before.rttvar, before.rto)


class TestFailures:
    def test_MUST_20_SHLD_9_SHLD_10_doubt_is_told_at_R1_and_the_end_comes_at_R2(self) -> None:
        s = established()
        s.send(1)
        s.take()
        s.advance(RTO * 3)
        assert len(s.take()) == 2
        assert "r1" not in s.recorder.timers
        s.expect_after(RTO * 4, "P. seq=a ack=b len=1")  # the third retransmission
        assert s.recorder.timers[-1] == "r1"
        s.expect_state(State.ESTABLISHED)
        s.advance(120 - RTO * 7 - 1e-9)
        s.take()
        s.expect_state(State.ESTABLISHED)
        s.advance(1e-9)
        s.expect_gone(TimeoutError)
        assert s.recorder.timers.count("r1") == 1

    def test_MUST_22_for_a_syn_too(self) -> None:
        s = syn_sent()
        s.advance(7)
        assert len(s.take()) == 3
        assert s.recorder.timers[-1] == "r1"

    @pytest.mark.parametrize(
        "kind", [PathError.NET_UNREACHABLE, PathError.HOST_UNREACHABLE], ids=lambda kind: kind.name
    )
    def test_SHLD_25_the_user_learns_what_the_path_said(self, kind: PathError) -> None:
        s = established(Config(r2=5))
        s.send(1)
        s.take()
        s.path_error(kind)
        s.advance(5)
        s.take()
        s.expect_gone(TimeoutError)
        assert str(kind) in str(s.conn.error)

    @pytest.mark.parametrize("stage", [FIN_WAIT_2, CLOSING, LAST_ACK], ids=str)
    @pytest.mark.parametrize("kind", [k for k in PathError if k != PathError.PACKET_TOO_BIG], ids=lambda k: k.name)
    def test_X_08_errors_of_the_path_are_soft_while_closing(self, stage: Stage, kind: PathError) -> None:
        s = stage.make()
        s.path_error(kind)
        s.expect_state(stage.state)
        if stage is FIN_WAIT_2:
            s.recv("F. seq=b ack=a+1")
            s.expect(". seq=a+1 ack=b+1")
            s.expect_state(State.TIME_WAIT)
        else:
            s.expect_after(RTO, "F. seq=a ack=b+1")  # its timer runs on
            s.recv(". seq=b+1 ack=a+1")
            s.expect_state(State.TIME_WAIT if stage is CLOSING else State.CLOSED)
        assert s.conn.error is None

    def test_MUST_12_an_abort_and_an_end_can_be_told_apart(self) -> None:
        ends: dict[str, BaseException | None] = {}
        for text in ("F. seq=b ack=a+1", "R. seq=b ack=a+1"):
            s = fin_wait_2()
            s.recv(text)
            s.take()
            assert s.conn.closed
            ends[s.recorder.closed_reasons[0]] = s.conn.error
        assert ends["graceful"] is None
        assert isinstance(ends["reset-by-peer"], ConnectionResetError)


class TestClosing:
    def test_N_08_CLOSING_ends_at_R2(self) -> None:
        s = closing(Config(r2=10))
        for n in range(5):  # .3 .9 2.1 4.5 9.3
            s.expect_after(RTO * 2**n, "F. seq=a ack=b+1")
        s.silent_for(0.7 - 1e-9)
        s.expect_state(State.CLOSING)
        s.silent_for(1e-9)
        s.expect_gone(TimeoutError)

    def test_R_05_in_CLOSING_with_data_unacknowledged_a_reset_is_an_error(self) -> None:
        s = established()
        with s.together():
            s.send(b"lost")
            s.shutdown()
        s.expect("FP. seq=a ack=b", b"lost")
        s.recv("F. seq=b ack=a")
        s.expect(". seq=a+5 ack=b+1")
        s.expect_state(State.CLOSING)
        s.recv("R seq=b+1")
        s.expect_gone(ConnectionResetError)
        s.silent_for(10 * RTO)

    def test_O_06_every_fin_of_the_peer_is_answered(self) -> None:
        s = closing()
        s.recv("F. seq=b ack=a")  # again with the old ACK
        s.expect(". seq=a+1 ack=b+1")
        s.expect_state(State.CLOSING)
        s.recv("F. seq=b ack=a+1")  # and now with that of our FIN
        s.expect(". seq=a+1 ack=b+1")
        s.expect_state(State.TIME_WAIT)

    def test_C_06_C_07_linger_counts_from_the_close_not_from_the_half_close(self) -> None:
        s = fin_wait_1(Config(linger=2))
        s.expect_after(RTO, "F. seq=a ack=b")
        s.close()
        s.expect_after(2 * RTO, "F. seq=a ack=b")
        s.expect_after(4 * RTO, "F. seq=a ack=b")
        s.silent_for(2 - 6 * RTO - 1e-9)
        s.expect_state(State.FIN_WAIT_1)
        s.advance(1e-9)
        s.expect("R. seq=a+1 ack=b")
        s.expect_gone(None)

    def test_C_07_linger_in_SYN_RECEIVED_with_time(self) -> None:
        s = syn_received(Config(linger=2), passive=False)
        s.close()
        s.recv(". seq=b ack=a")
        s.expect("F. seq=a ack=b")
        s.recv(". seq=b ack=a+1")
        s.silent_for(10)
        s.expect_state(State.FIN_WAIT_2)

    def test_X_10_a_fin_from_another_udp_port_closes_nothing(self) -> None:
        s = fin_wait_2()
        elsewhere = s.engine.path(A_ADDRESS, (B_ADDRESS[0], B_ADDRESS[1] + 1))
        s.recv("F. seq=b ack=a+1", path=elsewhere)
        s.expect("R seq=a+1", path=elsewhere)
        s.expect_state(State.FIN_WAIT_2)
        s.recv("F. seq=b ack=a+1")
        s.expect(". seq=a+1 ack=b+1")
        s.expect_state(State.TIME_WAIT)

    def test_X_14_an_hour_away_in_TIME_WAIT_and_CLOSING(self) -> None:
        for s, left in ((time_wait(), State.CLOSED), (closing(Config(r2=7200)), State.CLOSING)):
            s.now += 3600 * SECOND
            s.engine.handle_timeout(s.now)
            with s.together():
                pass
            if left is State.CLOSING:
                s.expect("F. seq=a ack=b+1")  # once, not once for each time-out that has passed
            s.expect_state(left)
            due = s.engine.next_timeout()
            assert due is None if left is State.CLOSED else due is not None and due > s.now


class TestLocalReuse:
    """T-13: ephemeral ports and pairs in TIME-WAIT (without timestamps, so that none may be reused)."""

    @staticmethod
    def waiting(ports: Callable[[], int]) -> tuple[Engine, Connection]:
        engine = Engine(Config(timestamps=False), port_source=ports)
        conn = engine.connect(engine.path("a", "b"), 80, 0)
        (syn,) = sent_by(engine, 0)
        port, b = conn.local_port, 7000
        engine.receive(conn.path, Segment(80, port, b - 1, syn.seq + 1, 0x12, 65535, mss=1000).to_bytes(), 0)
        conn.close(0)
        engine.transmit(0)
        engine.receive(conn.path, Segment(80, port, b, syn.seq + 2, 0x11, 65535).to_bytes(), 0)
        engine.transmit(0)
        assert engine.states() == {State.TIME_WAIT: 1}
        return engine, conn

    def test_T_13_an_ephemeral_port_that_waits_is_passed_over(self) -> None:
        ports = iter([5000, 5000, 6000])
        engine, old = self.waiting(lambda: next(ports))
        assert (old.local_port, engine.connect(old.path, 80, 0).local_port) == (5000, 6000)

    def test_T_13_when_all_of_them_wait_it_says_so(self) -> None:
        engine, old = self.waiting(lambda: 5000)
        with pytest.raises(OSError, match="no free TCP port") as raised:
            engine.connect(old.path, 80, 0)
        assert raised.value.errno == errno.EADDRNOTAVAIL
        engine.handle_timeout(60 * SECOND)
        assert engine.connect(old.path, 80, 60 * SECOND).local_port == 5000
