"""Explicit congestion notification: RFC 3168 6.1, with the sender's reaction of RFC 8511."""

from __future__ import annotations

import pytest

from support.script import RTO, RTT, Script
from support.states import established, listen, syn_sent
from utcp.core.config import Config
from utcp.core.congestion.control import ECN
from utcp.core.ecn import Ecn
from utcp.core.engine import Engine
from utcp.core.observer import Observer
from utcp.core.states import State
from utcp.wire.segment import ACK, CWR, ECE, SYN, Segment, decode

ASK = Config(ecn=True)
RENO = Config(ecn=True, congestion_control="reno", pacing=False)


def agreed(config: Config = ASK, *, options: str = "sackok") -> Script:
    """Established by an active open, with ECN."""
    s = Script(config)
    s.connect()
    s.expect("SEW seq=a-1 *")
    s.advance(RTT)
    s.ts = "ts=" in options
    s.recv(f"S.E seq=b-1 ack=a mss=1000 {options}")
    s.expect(". seq=a ack=b")
    assert s.conn.info().ecn
    return s


def flight(config: Config, segments: int, **options: str) -> Script:
    """So many segments of 1000 bytes have left, and half an RTO has passed."""
    s = agreed(config, **options)
    s.send(1000 * segments)
    assert [sent.ecn for sent in s.take()] == [2] * segments
    s.silent_for(0.1)
    return s


def sent_flags(s: Script) -> list[tuple[int, bool, int]]:
    """Of what A has sent: the first byte, whether it says CWR, the ECN field."""
    return [(sent.seg.seq - s.seq("a"), sent.seg.flags & CWR != 0, sent.ecn) for sent in s.take()]


def window(s: Script) -> tuple[int, int]:
    info = s.conn.info()
    return info.cwnd, info.ssthresh


class TestNegotiation:
    """RFC 3168 6.1.1. That no SYN, SYN-ACK or ACK is ECN-capable in its IP header, every ``expect`` here asserts."""

    def test_an_active_open_asks(self) -> None:
        s = agreed()
        s.send(10)
        s.expect("P. seq=a ack=b len=10 ect")
        s.recv(". seq=b ack=A")

    @pytest.mark.parametrize("config", [None, ASK, Config(ecn="passive")])
    def test_a_passive_open_agrees(self, config: Config | None) -> None:
        s = listen(config)
        s.recv("SEW seq=b-1 mss=1000")
        s.expect("S.E seq=a-1 ack=b *")
        s.recv(". seq=b ack=a")
        s.accept()
        assert s.conn.info().ecn
        s.send(10)
        s.expect("P. seq=a ack=b len=10 ect")
        s.recv(". seq=b ack=A")

    @pytest.mark.parametrize("flags", ["S.", "S.W", "S.EW"])
    def test_a_peer_that_does_not_know_it(self, flags: str) -> None:
        """6.1.1.2: one that reflects both bits does not know it either."""
        s = syn_sent_with_ecn()
        s.recv(f"{flags} seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")
        assert_not_used(s)

    @pytest.mark.parametrize("flags", ["S", "SE", "SW"])
    def test_a_SYN_with_less_than_both_bits_is_no_request(self, flags: str) -> None:
        s = listen(ASK)
        s.recv(f"{flags} seq=b-1 mss=1000")
        s.expect("S. seq=a-1 ack=b *")
        s.recv(". seq=b ack=a")
        s.accept()
        assert_not_used(s)

    def test_refused(self) -> None:
        s = listen(Config(ecn=False))
        s.recv("SEW seq=b-1 mss=1000")
        s.expect("S. seq=a-1 ack=b *")
        s.recv(". seq=b ack=a")
        s.accept()
        assert_not_used(s)

    @pytest.mark.parametrize("config", [None, Config(ecn=False)])
    def test_who_does_not_ask_gets_no_consent(self, config: Config | None) -> None:
        s = syn_sent(config)  # a plain SYN
        s.recv("S.E seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")
        assert_not_used(s)

    def test_the_ECN_field_of_a_SYN_says_nothing(self) -> None:
        """It may have been marked on the way, or set by a peer that experiments: CE is counted, and that is all."""
        s = listen()
        s.recv("SEW seq=b-1 mss=1000 ce")
        s.expect("S.E seq=a-1 ack=b *")
        s.recv(". seq=b ack=a ce")
        s.accept()
        assert s.conn.info().ecn
        s.send(10)
        s.expect("P. seq=a ack=b len=10 ect")  # and no ECE
        s.recv(". seq=b ack=A")
        assert (s.engine.counters.ce_in, s.conn.info().ce_in) == (2, 0)

    def test_AccECN_is_answered_as_ECN(self) -> None:
        """RFC 9768 3.1.2: a third bit beside the two is not ours to know."""
        s = listen()
        syn = bytearray(s.segment("SEW seq=b-1 mss=1000").to_bytes())
        syn[12] |= 1
        s.recv_bytes(bytes(syn))
        s.expect("S.E seq=a-1 ack=b *")
        s.recv("R seq=b")

    def test_a_SYN_that_is_sent_again_asks_no_more(self) -> None:
        """6.1.1.1: something on the way may drop the other kind."""
        s = syn_sent_with_ecn()
        s.expect_after(1.0, "S seq=a-1 *")
        s.expect_after(2.0, "S seq=a-1 *")
        s.recv("S. seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")
        assert_not_used(s)

    def test_consent_that_comes_after_a_SYN_without(self) -> None:
        """6.1.1: we must not mark, having sent a non-ECN-setup SYN, and must answer CE, having sent the other."""
        s = syn_sent_with_ecn()
        s.expect_after(1.0, "S seq=a-1 *")
        s.recv("S.E seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")
        s.send(10)
        s.expect("P. seq=a ack=b len=10")
        s.recv(".E seq=b ack=A")  # no mark of ours can be the cause
        assert (s.conn.info().ecn_reductions, s.engine.counters.ecn_ignored) == (0, 1)
        s.recv("P. seq=b ack=A len=10 ce")
        s.expect(".E seq=A ack=b+10")

    def test_a_peer_that_gives_it_up(self) -> None:
        """6.1.1.1, the example: after a SYN without, a SYN-ACK without, and neither side marks."""
        s = listen()
        s.recv("SEW seq=b-1 mss=1000")
        s.expect("S.E seq=a-1 ack=b *")
        s.recv("S seq=b-1 mss=1000")
        s.expect("S. seq=a-1 ack=b *")
        s.recv("SEW seq=b-1 mss=1000")  # the first one again: it stays given up
        s.expect("S. seq=a-1 ack=b *")
        s.recv(". seq=b ack=a")
        s.accept()
        assert_not_used(s)

    def test_a_SYN_ACK_that_is_sent_again_consents_again(self) -> None:
        s = listen()
        s.recv("SEW seq=b-1 mss=1000")
        s.expect("S.E seq=a-1 ack=b *")
        s.expect_after(1.0, "S.E seq=a-1 ack=b *")
        s.recv("SEW seq=b-1 mss=1000")
        s.expect("S.E seq=a-1 ack=b *")
        s.recv(". seq=b ack=a")
        s.accept()
        assert s.conn.info().ecn

    @pytest.mark.parametrize(
        ("syn", "ours", "syn_ack", "used"),
        [("SEW", "S.E", "S.E", True), ("SEW", "S.E", "S.", False), ("S", "S.", "S.", False)],
    )
    def test_simultaneous_open(self, syn: str, ours: str, syn_ack: str, used: bool) -> None:
        s = syn_sent_with_ecn()
        s.recv(f"{syn} seq=b-1 mss=1000")
        s.expect(f"{ours} seq=a-1 ack=b *")
        s.recv(f"{syn_ack} seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")
        s.expect_state(State.ESTABLISHED)
        assert s.conn.info().ecn == used

    def test_simultaneous_open_with_somebody_who_asks(self) -> None:
        """6.1.1: having sent a SYN without, we may not mark."""
        s = syn_sent()
        s.recv("SEW seq=b-1 mss=1000")
        s.expect("S. seq=a-1 ack=b *")
        s.recv(". seq=b ack=a")
        assert_not_used(s)

    def test_a_new_incarnation_begins_anew(self) -> None:
        """6.1.1: TIME-WAIT ignores what was agreed before; so does what follows it."""
        s = agreed()
        s.recv("P. seq=b ack=a len=10 ce")
        s.expect(".E seq=a ack=b+10")
        s.shutdown()
        s.expect("F.E seq=a ack=b+10")
        s.recv(". seq=b+10 ack=a+1")
        s.recv("F. seq=b+10 ack=a+1")
        s.expect(".E seq=a+1 ack=b+11")
        s.expect_state(State.TIME_WAIT)
        s.recv("F. seq=b+10 ack=a+1")
        s.expect(". seq=a+1 ack=b+11")
        s.listen()
        s.recv("S seq=b+1000000 mss=1000")
        s.expect("S. seq=a+65538 ack=b+1000001 *")
        s.recv("R seq=b+1000001")


def syn_sent_with_ecn() -> Script:
    s = Script(ASK)
    s.connect()
    s.expect("SEW seq=a-1 *")
    return s


def assert_not_used(s: Script) -> None:
    """Not by our data, nor when the network and the peer say something."""
    assert not s.conn.info().ecn
    s.send(100)
    s.expect("P. seq=a ack=b len=100")
    before = window(s)
    s.recv(".E seq=b ack=a+50")
    assert (s.conn.info().ecn_reductions, s.engine.counters.ecn_ignored) == (0, 1)
    assert window(s)[0] >= before[0]
    s.recv("P.W seq=b ack=A len=10 ce")
    s.silent_for(0.039)
    s.expect_after(0.001, ". seq=A ack=b+10")
    assert (s.engine.counters.ce_in, s.conn.info().ce_in) == (1, 0)


class TestReceiver:
    """RFC 3168 6.1.3."""

    def test_CE_is_echoed_until_CWR(self) -> None:
        s = agreed(Config(ecn=True, tlp=False))
        s.recv("P. seq=b ack=a len=10 ce")
        s.expect(".E seq=a ack=b+10")  # at once: the peer's window may be small
        s.recv("P. seq=b+10 ack=a len=10 ect")
        s.expect_after(0.04, ".E seq=a ack=b+20")  # delayed, as ever
        s.send(10)
        s.expect("P.E seq=a ack=b+20 len=10 ect")
        s.expect_after(RTO, "P.E seq=a ack=b+20 len=10")
        s.recv("P.W seq=b+20 ack=A len=10 ect")
        s.expect(". seq=A ack=b+30")  # at once: the peer's window has become smaller
        s.recv("P. seq=b+30 ack=A len=10 ect")
        s.expect_after(0.04, ". seq=A ack=b+40")
        assert s.conn.info().ce_in == 1

    def test_CE_on_the_segment_that_says_CWR_is_new(self) -> None:
        s = agreed()
        s.recv("P. seq=b ack=a len=10 ce")
        s.expect(".E seq=a ack=b+10")
        s.recv("P.W seq=b+10 ack=a len=10 ce")
        s.expect(".E seq=a ack=b+20")
        assert s.conn.info().ce_in == 2

    def test_one_ACK_for_several_segments(self) -> None:
        """... says ECE if one of them was marked."""
        s = agreed()
        with s.together():
            s.recv("P. seq=b ack=a len=10 ect")
            s.recv("P. seq=b+10 ack=a len=10 ce")
            s.recv("P. seq=b+20 ack=a len=10 ect")
        s.expect(".E seq=a ack=b+30")

    def test_a_train_has_one_field(self) -> None:
        s = agreed()
        train = b"".join(s.segment(f". seq=b+{100 * i} ack=a len=100").to_bytes() for i in range(3))
        s.recv_bytes(train[:-50], 120, ecn=3)
        s.expect(".E seq=a ack=b+250")
        assert (s.conn.info().ce_in, s.engine.counters.ce_in) == (3, 3)

    def test_out_of_order(self) -> None:
        s = agreed()
        s.recv("P. seq=b+10 ack=a len=10 ce")
        s.expect(".E seq=a ack=b sack=b+10:b+20")
        s.recv("P. seq=b ack=a len=10 ect")
        s.expect(".E seq=a ack=b+20")

    @pytest.mark.parametrize("text", ["P. seq=b+100000 ack=a len=10 ce", "P. seq=b-10 ack=a len=10 ce"])
    def test_6_1_5_outside_of_the_window_it_says_nothing(self, text: str) -> None:
        s = agreed(Config(ecn=True, receive_buffer=60_000, dsack=False))
        s.recv(text)
        s.expect(". seq=a ack=b")
        assert (s.conn.info().ce_in, s.engine.counters.ce_in) == (0, 1)

    def test_with_an_impossible_ACK_it_says_nothing(self) -> None:
        s = agreed()
        s.recv("P. seq=b ack=a+1000 len=10 ce")
        s.expect(". seq=a ack=b")
        assert s.conn.info().ce_in == 0

    def test_6_1_4_an_ACK_alone_says_nothing(self) -> None:
        s = agreed()
        s.send(10)
        s.expect("P. seq=a ack=b len=10 ect")
        s.recv(". seq=b ack=A ce")
        s.recv("P. seq=b ack=A len=10 ect")
        s.expect_after(0.04, ". seq=A ack=b+10")

    @pytest.mark.parametrize("codepoint", ["", "ect", "ect1"])
    def test_other_codepoints_say_nothing(self, codepoint: str) -> None:
        s = agreed()
        s.recv(f"P. seq=b ack=a len=10 {codepoint}")
        s.expect_after(0.04, ". seq=a ack=b+10")

    def test_6_1_6_a_marked_window_probe_is_echoed(self) -> None:
        s = agreed(Config(ecn=True, receive_buffer=1000, window_scaling=False))
        s.recv("P. seq=b ack=a len=1000 ect")
        s.expect_after(0.04, ". seq=a ack=b+1000 wnd=0")
        s.recv(". seq=b+1000 ack=a len=1 ce")
        s.expect(".E seq=a ack=b+1000 wnd=0")

    def test_what_closing_says(self) -> None:
        """ECE stays on whatever acknowledges, the FIN and the last ACK too; never on a RST."""
        s = agreed()
        s.recv("P. seq=b ack=a len=10 ce")
        s.expect(".E seq=a ack=b+10")
        s.recv("F. seq=b+10 ack=a")
        s.expect(".E seq=a ack=b+11")
        assert len(s.read()) == 10
        s.close()
        s.expect("F.E seq=a ack=b+11")
        s.expect_after(RTO, "F.E seq=a ack=b+11")
        s.recv(". seq=b+11 ack=a+1")
        s.expect_gone()

    def test_no_reset_says_ECE(self) -> None:
        s = agreed()
        s.recv("P. seq=b ack=a len=10 ce")
        s.expect(".E seq=a ack=b+10")
        s.abort()
        s.expect("R. seq=a ack=b+10")


class TestCapable:
    """RFC 3168 6.1.2, 6.1.4 to 6.1.6: new data is, and nothing else."""

    def test_new_data_is_and_what_is_sent_again_is_not(self) -> None:
        s = agreed(Config(ecn=True, tlp=False))
        s.send(10)
        s.expect("P. seq=a ack=b len=10 ect")
        assert s.expect_after(RTO, "P. seq=a ack=b len=10").retransmission
        s.recv(". seq=b ack=A")

    def test_a_fast_retransmission_is_not(self) -> None:
        s = flight(RENO, 5)
        s.recv(". seq=b ack=a sack=a+1000:a+4000")
        s.expect(". seq=a ack=b len=1000")
        s.recv(". seq=b ack=A")

    def test_a_loss_probe_is_if_it_is_new(self) -> None:
        s = agreed(Config(ecn=True, initial_window=2, pacing=False))
        s.send(3000)
        assert [sent.ecn for sent in s.take()] == [2, 2]
        s.expect_after(2 * RTT + 0.002, "P. seq=a+2000 ack=b len=1000 ect")
        s.recv(". seq=b ack=A")
        s.send(1000)
        s.expect("P. seq=a+3000 ack=b len=1000 ect")
        s.advance(1.0)
        assert {sent.ecn for sent in s.take()} == {0}
        s.recv(". seq=b ack=A")

    def test_acknowledgments_are_not(self) -> None:
        s = agreed(Config(ecn=True, delayed_ack=0.0))
        s.recv("P. seq=b ack=a len=10 ect")
        s.expect(". seq=a ack=b+10")
        s.recv("P. seq=b+20 ack=a len=10 ect")
        s.expect(". seq=a ack=b+10 sack=b+20:b+30")

    def test_a_window_probe_is_not(self) -> None:
        s = agreed()
        s.recv(". seq=b ack=a wnd=0")
        s.send(10)
        s.expect_after(RTO, ". seq=a-1 ack=b")
        s.recv(". seq=b ack=a wnd=100")
        s.expect("P. seq=a ack=b len=10 ect")
        s.recv(". seq=b ack=A")

    def test_a_FIN_is_with_data_and_is_not_without(self) -> None:
        s = agreed()
        with s.together():
            s.conn.send(bytes(10), s.now)
            s.conn.shutdown(1, s.now)
        s.expect("FP. seq=a ack=b len=10 ect")
        s.recv(". seq=b ack=A")
        other = agreed()
        other.shutdown()
        other.expect("F. seq=a ack=b")
        other.recv(". seq=b ack=A")

    def test_a_keepalive_probe_is_not(self) -> None:
        s = agreed(Config(ecn=True, keepalive=True, keepalive_idle=10.0))
        s.expect_after(10.0, ". seq=a-1 ack=b")
        s.recv(". seq=b ack=a")

    def test_trains_differ_by_it(self) -> None:
        """One system call has one field: what is of equal length and not of equal field travels apart."""
        engine = Engine()
        path = engine.path("a", "b")
        engine.listen(80)
        for port, flags in ((1, SYN | ECE | CWR), (2, SYN), (3, SYN)):
            engine.receive(path, Segment(port, 80, 99, 0, flags, mss=1000).to_bytes(), 0)
            (answer,) = engine.transmit(0)
            number = decode(answer.payload()).seq + 1
            engine.receive(path, Segment(port, 80, 100, number, ACK).to_bytes(), 0)
        for conn in engine.connections():
            conn.send(bytes(100), 0)
        trains = engine.transmit(0)
        assert sorted((train.ecn, train.count, len(train.payload())) for train in trains) == [(0, 2, 240), (2, 1, 120)]


class TestSender:
    """RFC 3168 6.1.2 with RFC 8511."""

    @pytest.mark.parametrize(("choice", "window_after"), [("reno", 8000), ("cubic", 8500)])
    def test_the_window_is_reduced_and_the_next_new_data_says_so(self, choice: str, window_after: int) -> None:
        s = agreed(Config(ecn=True, congestion_control=choice, pacing=False))
        s.send(20_000)
        assert sent_flags(s) == [(1000 * i, False, 2) for i in range(10)]
        s.silent_for(0.1)
        s.recv(".E seq=b ack=a+1000")
        assert window(s) == (window_after, window_after)
        s.silent()  # nine segments are in flight
        s.recv(".E seq=b ack=a+3000")
        assert sent_flags(s) == [(10_000, True, 2)]
        s.recv(".E seq=b ack=a+4000")
        assert sent_flags(s) == [(11_000, False, 2)]
        assert window(s) == (window_after, window_after)
        assert (s.conn.info().ecn_reductions, s.engine.counters.ecn_reductions) == (1, 1)
        s.recv(". seq=b ack=A")
        s.take()
        s.recv(". seq=b ack=A")

    def test_once_for_each_window_of_data(self) -> None:
        s = flight(RENO, 10)
        s.recv(".E seq=b ack=a+1000")
        s.recv(".E seq=b ack=a+5000")
        s.recv(".E seq=b ack=a+10000")  # all that was out when the window was reduced
        assert (window(s), s.conn.info().ecn_reductions) == ((8000, 8000), 1)
        s.send(8000)
        assert [cwr for _, cwr, _ in sent_flags(s)] == [True] + [False] * 7
        s.recv(".E seq=b ack=a+10500")  # the peer has said so again, after our CWR or for want of it
        assert (window(s), s.conn.info().ecn_reductions) == ((6400, 6400), 2)
        s.recv(". seq=b ack=A")
        s.send(2000)
        assert [cwr for _, cwr, _ in sent_flags(s)] == [True, False]
        s.recv(". seq=b ack=A")

    def test_the_window_does_not_grow_on_ECE(self) -> None:
        s = flight(RENO, 10)
        s.recv(".E seq=b ack=a+10000")
        assert window(s) == (8000, 8000)
        s.send(8000)
        s.take()
        s.recv(". seq=b ack=A")
        assert window(s) == (9000, 8000)
        for _ in range(3):
            s.send(9000)
            s.take()
            s.recv(". seq=b ack=A-8000")
            s.recv(". seq=b ack=A")
        assert window(s)[0] > 10_000

    def test_an_ECE_ACK_that_acknowledges_nothing_new_counts(self) -> None:
        s = flight(RENO, 10)
        s.recv(".E seq=b ack=a sack=a+1000:a+2000")
        assert (window(s), s.conn.info().ecn_reductions) == ((8000, 8000), 1)
        s.recv(". seq=b ack=A")

    def test_an_old_one_does_not(self) -> None:
        s = flight(RENO, 10)
        s.recv(". seq=b ack=a+2000")
        before = window(s)
        s.recv(".E seq=b ack=a+1000")
        assert (window(s), s.conn.info().ecn_reductions) == (before, 0)
        s.recv(". seq=b ack=A")

    @pytest.mark.parametrize("when", ["before the loss", "with it", "after it"])
    def test_with_a_loss_it_is_one_event(self, when: str) -> None:
        """6.1.2: ... in response to a series of dropped and/or CE packets from a single window of data."""
        s = flight(RENO, 10)
        if when == "before the loss":
            s.recv(".E seq=b ack=a sack=a+1000:a+2000")
            s.recv(".E seq=b ack=a sack=a+1000:a+6000")
        elif when == "with it":
            s.recv(".E seq=b ack=a sack=a+1000:a+6000")
        else:
            s.recv(". seq=b ack=a sack=a+1000:a+6000")
        assert s.expect(". seq=a ack=b len=1000").retransmission  # no CWR
        if when == "after it":
            s.recv(".E seq=b ack=a sack=a+1000:a+7000")
        first = ECN if when == "before the loss" else 0
        assert s.conn.info().ssthresh == (8000 if first == ECN else 5000)
        assert s.engine.counters.fast_recoveries == 1
        assert s.conn.info().ecn_reductions == (1 if first == ECN else 0)
        s.recv(".E seq=b ack=A")
        assert s.conn.info().ssthresh == (8000 if first == ECN else 5000)
        s.send(2000)
        assert [cwr for _, cwr, _ in sent_flags(s)] == [True, False]
        s.recv(". seq=b ack=A")

    def test_in_a_recovery_the_window_is_the_algorithm_s(self) -> None:
        """What PRR lets leave at the moment may be a segment, and is no reason to wait for an RTO."""
        s = agreed(RENO)
        s.send(30_000)
        s.take()
        s.silent_for(0.1)
        s.recv(".E seq=b ack=a+2000")
        s.recv(". seq=b ack=a+5000")
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+5000 sack=a+6000:a+10000")  # part of what the window was reduced for
        s.take()
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+11000")
        assert [(at, cwr) for at, cwr, _ in sent_flags(s)] == [(11_000, False), (12_000, False)]
        s.silent_for(0.1)
        s.recv(".E seq=b ack=a+11000 sack=a+12000:a+13000")  # another window of data: all but this is lost
        assert s.conn.info().ecn_reductions == 2
        assert s.conn.info().ssthresh == 4000  # 0.8 of what was in flight
        assert len(s.take()) == 1  # as much as has arrived (RFC 6937, PRR-CRB)
        s.silent_for(0.1)
        s.recv(". seq=b ack=a+16000")
        assert (16_000, True, 2) in sent_flags(s)
        s.recv(". seq=b ack=A")
        s.take()

    def test_a_time_out_in_the_same_window(self) -> None:
        """... is the same event; the window is one segment all the same (RFC 5681 3.1)."""
        s = flight(Config(ecn=True, congestion_control="reno", pacing=False, tlp=False), 10)
        s.recv(".E seq=b ack=a+1000")
        s.advance(1.0)
        assert {sent.ecn for sent in s.take()} == {0}
        assert s.conn.info().ssthresh == 8000
        assert s.conn.info().cwnd <= 2000
        s.recv(".E seq=b ack=A")
        s.send(3000)
        s.expect(".W seq=a+10000 ack=b len=1000 ect")
        s.recv(". seq=b ack=A")
        assert [cwr for _, cwr, _ in sent_flags(s)] == [False, False]
        s.recv(". seq=b ack=A")

    def test_CWR_follows_a_loss(self) -> None:
        """6.1.2: whatever the window was reduced for."""
        s = flight(RENO, 10)
        s.recv(". seq=b ack=a sack=a+1000:a+6000")
        s.expect(". seq=a ack=b len=1000")
        s.recv(". seq=b ack=A")
        s.send(2000)
        s.expect(".W seq=a+10000 ack=b len=1000 ect")
        s.expect("P. seq=a+11000 ack=b len=1000 ect")
        s.recv(". seq=b ack=A")

    def test_CWR_follows_a_time_out(self) -> None:
        s = agreed(Config(ecn=True, tlp=False))
        s.send(10)
        s.take()
        s.expect_after(RTO, "P. seq=a ack=b len=10")
        s.recv(". seq=b ack=A")
        s.send(10)
        s.expect("P.W seq=a+10 ack=b len=10 ect")
        s.recv(". seq=b ack=A")

    def test_a_probe_of_the_path_MTU_says_no_CWR(self) -> None:
        """Its loss would be no congestion (RFC 8899 3), and CWR lost for good; the segment before it does."""
        s = Script(Config(ecn=True, congestion_control="reno", pacing=False, tlp=False), link_mtu=1500)
        s.connect()
        s.expect("SEW seq=a-1 *")
        s.advance(RTT)
        s.recv("S.E seq=b-1 ack=a mss=1452 sackok")
        s.expect(". seq=a ack=b")
        s.send(10 * 1180)
        assert len(s.take()) == 10
        s.advance(RTT)
        s.recv(".E seq=b ack=A")
        s.send(30_000)
        s.expect(".W seq=a+11800 ack=b len=1180 ect")
        s.take()
        s.recv(". seq=b ack=A")
        probe = s.take()[0].seg
        assert (probe.data_len, probe.flags & CWR, s.engine.counters.mtu_probes) == (1452, 0, 1)
        for _ in range(2):
            s.recv(". seq=b ack=A")
            s.take()
        s.recv(". seq=b ack=A")

    def test_no_CWR_without_ECN(self) -> None:
        s = established(Config(tlp=False))
        s.send(10)
        s.take()
        s.expect_after(RTO, "P. seq=a ack=b len=10")
        s.recv(". seq=b ack=A")
        s.send(10)
        s.expect("P. seq=a+10 ack=b len=10")
        s.recv(". seq=b ack=A")

    @pytest.mark.parametrize("echoed", [False, True])
    def test_a_loss_that_was_none(self, echoed: bool) -> None:
        """The window is restored, unless the peer says that the path is congested; CWR is not said in vain."""
        s = flight(RENO, 10, options="mss=1012 sackok ts=9/0")
        first = s.a_ts
        s.recv(f"{'.E' if echoed else '.'} seq=b ack=a sack=a+1000:a+6000 ts=7000200/{first}")
        s.expect(". seq=a ack=b len=1000")
        s.silent_for(0.01)
        s.recv(f". seq=b ack=a+10000 ts=7000210/{first}")
        assert s.engine.counters.spurious_recoveries == 1
        assert s.conn.info().ssthresh == (5000 if echoed else 1 << 40)
        s.send(1000)
        assert [cwr for _, cwr, _ in sent_flags(s)] == [echoed]
        s.recv(". seq=b ack=A")

    def test_a_loss_that_was_none_after_a_time_out(self) -> None:
        """The peer's ECE of the same window counts on."""
        s = flight(RENO, 10, options="mss=1012 sackok ts=9/0")
        first = s.a_ts
        s.recv(f". seq=b ack=a sack=a+1000:a+6000 ts=7000200/{first}")
        s.expect(". seq=a ack=b len=1000")
        s.recv(f".E seq=b ack=a sack=a+1000:a+7000 ts=7000200/{first}")
        s.advance(1.0)
        s.take()
        assert "retransmit" in s.recorder.timers
        s.recv(f". seq=b ack=a+10000 ts=7001200/{first}")
        assert s.engine.counters.spurious_recoveries == 1
        assert s.conn.info().ssthresh == 5000

    def test_a_window_of_one_segment_waits_for_the_timer(self) -> None:
        """6.1.2: it cannot be halved, so the next segment leaves when the retransmission timer would run out."""
        s = agreed(Config(ecn=True, tlp=False, initial_window=1, congestion_control="reno"))
        s.conn.cwnd = 1000
        s.send(3000)
        s.expect(". seq=a ack=b len=1000 ect")
        s.silent_for(0.1)
        s.recv(".E seq=b ack=a+1000")
        rto = s.conn.info().rto
        assert s.conn.info().cwnd == 1000
        s.expect_after(rto, ".W seq=a+1000 ack=b len=1000 ect")
        assert s.conn.info().ecn_reductions == 1
        s.recv(". seq=b ack=A")
        s.expect("P. seq=a+2000 ack=b len=1000 ect")
        s.recv(". seq=b ack=A")

    def test_nothing_is_waited_for_by_a_FIN_alone(self) -> None:
        s = agreed(Config(ecn=True, tlp=False))
        s.conn.cwnd = 1000
        s.send(1000)
        s.expect("P. seq=a ack=b len=1000 ect")
        s.recv(".E seq=b ack=a+1000")
        s.shutdown()
        s.expect("F. seq=a+1000 ack=b")
        s.recv(". seq=b ack=A")

    def test_a_peer_that_always_says_ECE(self) -> None:
        """It slows itself down, and gets everything all the same."""
        s = agreed(Config(ecn=True, tlp=False, pacing=False))
        s.send(100_000)
        for _ in range(200):
            if s.conn.unacked_bytes == 0:
                break
            s.take()
            s.recv(".E seq=b ack=A")
            assert s.conn.info().cwnd >= 2000
        assert s.conn.unacked_bytes == 0
        assert s.conn.info().ecn_reductions >= 10

    def test_an_ECE_with_nothing_in_flight(self) -> None:
        """Say, on the ACK of our SYN-ACK: nothing of ours can have been marked."""
        s = listen()
        s.recv("SEW seq=b-1 mss=1000")
        s.expect("S.E seq=a-1 ack=b *")
        s.recv(".EW seq=b ack=a")
        s.accept()
        before = window(s)
        s.recv(".E seq=b ack=a")
        s.recv("P.E seq=b ack=a len=10")
        s.expect_after(0.04, ". seq=a ack=b+10")
        assert (window(s), s.conn.info().ecn_reductions) == (before, 0)
        assert s.engine.counters.ecn_ignored == 3

    def test_recover_is_forgotten_before_numbers_come_round(self) -> None:
        ecn = Ecn()
        ecn.on_reduction(ECN, 100)
        assert ecn.reduced(100)
        assert not ecn.reduced(101)
        assert not ecn.reduced(1 << 31)


def test_what_an_observer_is_told() -> None:
    told: list[tuple[str, int]] = []

    class Watcher(Observer):
        def ecn_field(self, now: int, path: int, ecn: int) -> None:
            told.append(("field", ecn))

        def segment_in(self, now: int, path: int, segment: bytes) -> None:
            told.append(("in", 0))

        def segment_out(self, now: int, path: int, segment: bytes, retransmission: bool) -> None:
            told.append(("out", 0))

    client, server = Engine(ASK, observer=Watcher()), Engine()
    there, back = client.path("c", "s"), server.path("s", "c")
    server.listen(80)
    conn = client.connect(there, 80, 0)

    def exchange(ecn: int = 0) -> None:
        for train in client.transmit(0):
            server.receive(back, train.payload(), 0, train.segment_size, train.ecn)
        for train in server.transmit(0):
            client.receive(there, train.payload(), 0, train.segment_size, ecn or train.ecn)

    exchange()
    exchange()
    told.clear()
    conn.send(b"data", 0)
    exchange()
    server_side = server.connection(back, 80, conn.local_port)
    assert server_side is not None
    server_side.send(b"answer", 0)
    exchange(ecn=3)
    assert told == [("field", 2), ("out", 0), ("field", 3), ("in", 0)]


@pytest.mark.parametrize(("size", "fin", "reductions"), [(1, False, 1), (1, True, 1), (0, True, 0)])
def test_an_echo_is_about_data_if_only_a_byte(size: int, fin: bool, reductions: int) -> None:
    """Our FIN alone tells of no congestion that its window could be reduced for."""
    s = agreed()
    with s.together():
        s.send(size)
        if fin:
            s.conn.shutdown(1, s.now)
    s.take()
    s.advance(0.1)
    s.recv(f".E seq=b ack=a+{size + fin}")
    assert s.engine.counters.ecn_reductions == reductions
    assert (s.conn.congestion is None) == (size == 0)
