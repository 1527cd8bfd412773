"""Challenge ACKs: RFC 5961, their limits, and half-open connections."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.script import Script
from support.states import (
    CONNECTED,
    Stage,
    close_wait,
    closing,
    established,
    fin_wait_1,
    fin_wait_2,
    last_ack,
    time_wait,
)
from utcp.core.config import Config
from utcp.core.states import State


class TestSyn:
    @pytest.mark.parametrize("stage", CONNECTED, ids=str)
    @pytest.mark.parametrize("flags", ["S", "S."])
    @pytest.mark.parametrize("offset", [0, 10_000, 100_000, -10_000])
    def test_R_11_a_syn_is_challenged_whatever_its_number(self, stage: Stage, flags: str, offset: int) -> None:
        """RFC 5961 4.2; 3.10.7.4, fourth."""
        s = stage.make()
        s.recv(f"{flags} seq=b{offset:+} ack={stage.a} mss=1000" if "." in flags else f"S seq=b{offset:+} mss=1000")
        s.expect(f". seq={stage.a} ack={stage.b}")
        s.expect_state(stage.state)

    @pytest.mark.parametrize("make", [established, fin_wait_1, fin_wait_2, close_wait])
    def test_R_11_by_RFC_793_a_syn_in_the_window_resets(self, make: Callable[[Config], Script]) -> None:
        s = make(Config(rfc5961_syn=False))
        s.recv("S seq=b+100 mss=1000")
        s.expect("R. seq=A ack=B")
        s.expect_gone(ConnectionResetError)

    @pytest.mark.parametrize("passive", [False, True])
    @pytest.mark.parametrize("flags", ["S", "S."])
    def test_R_11_whoever_opened(self, flags: str, passive: bool) -> None:
        """Only in SYN-RECEIVED does a SYN return a passive open to LISTEN."""
        s = established(passive=passive)
        for offset in (0, 100):
            s.recv(f"{flags} seq=b+{offset} mss=1000 {'ack=a' if '.' in flags else ''}")
            s.take()
            s.expect_state(State.ESTABLISHED)
        assert (s.engine.counters.challenge_acks, s.recorder.closed_reasons) == (1, [])

    def test_R_11_by_RFC_793_a_syn_elsewhere_is_acknowledged(self) -> None:
        s = established(Config(rfc5961_syn=False))
        s.recv("S seq=b+100000 mss=1000")
        s.expect(". seq=a ack=b")
        s.expect_state(State.ESTABLISHED)

    def test_X_04_half_open_the_peer_has_crashed_and_opens_anew(self) -> None:
        """RFC 9293 3.5.1: challenge; its RST, at the number of our ACK; its next SYN is welcome."""
        s = established(passive=True)
        s.recv("S seq=b+1000000 mss=1000")
        s.expect(". seq=a ack=b")
        s.recv("R seq=b")
        s.expect_gone(ConnectionResetError)
        s.advance(1)
        s.recv("S seq=b+1000000 mss=1000")
        s.expect("S. seq=a-1 ack=b+1000001 *")

    def test_X_04_half_open_the_reset_of_a_peer_that_sits_in_SYN_SENT(self) -> None:
        """Figure 9: A's data, or challenge, reaches a B in SYN-SENT, which resets by `<SEQ=SEG.ACK>`."""
        s = established()
        s.send(b"x")
        s.expect("P. seq=a ack=b len=1")
        s.recv("R seq=b")
        s.expect_gone(ConnectionResetError)

    def test_the_ack_of_a_challenged_syn_acknowledges_nothing(self) -> None:
        s = established()
        s.send(10)
        s.take()
        s.recv("S. seq=b-1 ack=a+10 mss=1000")
        s.expect(". seq=a+10 ack=b")
        assert s.conn.unacked_bytes == 10


class TestLimits:
    def test_R_12_one_in_half_a_second(self) -> None:
        s = established()
        s.recv("R seq=b+1")
        s.expect(". seq=a ack=b")
        for _ in range(199):
            s.recv("R seq=b+1")
            s.silent()
        s.silent_for(0.499_999_999)
        s.recv("R seq=b+1")
        s.silent_for(0.000_000_001)
        s.recv("R seq=b+1")
        s.expect(". seq=a ack=b")
        assert s.engine.counters.challenge_acks_suppressed == 200
        assert s.engine.counters.challenge_acks == 2

    def test_R_12_the_limit_covers_every_kind_of_bad_segment(self) -> None:
        s = established()
        s.recv("S seq=b+1 mss=1000")
        s.expect(". seq=a ack=b")
        s.recv("R seq=b+1")
        s.recv(". seq=b ack=a+1")
        s.recv(". seq=b+100000 ack=a")
        s.silent()
        s.expect_state(State.ESTABLISHED)

    def test_R_12_the_interval_is_configurable_and_may_be_none(self) -> None:
        s = established(Config(challenge_ack_interval=0))
        for _ in range(100):
            s.recv("R seq=b+1")
            s.expect(". seq=a ack=b")
        s = established(Config(challenge_ack_interval=2))
        s.recv("R seq=b+1")
        s.expect(". seq=a ack=b")
        s.silent_for(1.9)
        s.recv("R seq=b+1")
        s.silent()

    @pytest.mark.parametrize("make", [close_wait, closing, last_ack])
    def test_R_12_a_repeated_fin_is_always_answered(self, make: Callable[[], Script]) -> None:
        s = make()
        for _ in range(20):
            s.recv("F. seq=b ack=a")
            assert [out.seg.ack for out in s.take()] == [s.seq("b+1")]
            s.advance(0.01)
            s.take()

    def test_R_12_repeated_data_is_always_answered(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a len=10")
        s.expect_after(0.04, ". seq=a ack=b+10")
        for _ in range(20):
            s.recv("P. seq=b ack=a len=10")
            s.expect(". seq=a ack=b+10")

    def test_R_12_the_engine_has_a_limit_a_second_that_nobody_can_know(self) -> None:
        """RFC 5961 7, CVE-2016-5696: between half the configured number and all of it, differing by the second."""
        budgets = []
        s = Script(Config(challenge_ack_limit=100, challenge_ack_interval=0))
        s.listen(backlog=1000)
        for port in range(1, 131):
            s.recv("S seq=b-1 mss=1000", port=port)
            s.expect("S. seq=a-1 ack=b *", port=port)
            s.recv(". seq=b ack=a", port=port)
        for _ in range(8):
            answered = 0
            for port in range(1, 131):
                s.recv("R seq=b+1", port=port)
                answered += len(s.take())
            budgets.append(answered)
            s.advance(1)
        assert all(50 <= budget <= 100 for budget in budgets)
        assert len(set(budgets)) > 1

    def test_R_12_a_limit_of_zero_challenges_nobody(self) -> None:
        s = established(Config(challenge_ack_limit=0))
        s.recv("R seq=b+1")
        s.recv("S seq=b mss=1000")
        s.silent()
        s.expect_state(State.ESTABLISHED)

    def test_R_12_a_limit_of_one_or_two_is_a_limit(self) -> None:
        """The noise has room for what the limit leaves, and the last of the budget is spent."""
        for limit in (1, 2):
            seen = set()
            s = established(Config(challenge_ack_limit=limit, challenge_ack_interval=0))
            for _ in range(40):
                answered = 0
                for _ in range(4):
                    s.recv("R seq=b+1")
                    answered += len(s.take())
                seen.add(answered)
                s.advance(1)
            assert seen == set(range(limit // 2, limit + 1))

    def test_R_12_the_budget_is_renewed_after_a_second_and_no_sooner(self) -> None:
        s = established(Config(challenge_ack_limit=4, challenge_ack_interval=0))
        for _ in range(5):
            s.recv("R seq=b+1")
            s.take()
        s.silent_for(0.999_999_999)
        s.recv("R seq=b+1")
        s.silent_for(0.000_000_001)
        s.recv("R seq=b+1")
        s.expect(". seq=a ack=b")

    def test_R_12_a_reset_with_text_is_always_challenged(self) -> None:
        s = established(Config(challenge_ack_limit=0))
        s.recv("R seq=b+1 len=5")
        s.expect(". seq=a ack=b")

    def test_R_12_a_segment_outside_the_window_has_the_limit_of_its_connection_only(self) -> None:
        """3.10.7.4, first: no challenge, but an ACK that two confused ends could trade for ever. What others do must
        not silence the answer to a window probe."""
        s = established(Config(challenge_ack_limit=0))
        s.recv(". seq=b-1 ack=a")
        s.expect(". seq=a ack=b")
        for _ in range(10):
            s.recv(". seq=b-1 ack=a")
            s.recv(". seq=b+100000 ack=a")
            s.silent()
        assert s.engine.counters.old_segments_unanswered == 20
        s.silent_for(0.5)
        s.recv(". seq=b+100000 ack=a")
        s.expect(". seq=a ack=b")


class TestBlindData:
    def test_an_ack_beyond_SND_NXT_with_data(self) -> None:
        """RFC 5961 5.2: discarded with an ACK."""
        s = fin_wait_2()
        s.recv("P. seq=b ack=a+2 len=10")
        s.expect(". seq=a+1 ack=b")
        assert s.conn.readable_bytes == 0

    def test_what_nobody_sent_cannot_acknowledge(self) -> None:
        s = established()
        s.send(1000)
        s.take()
        s.recv(". seq=b ack=a+1001")
        s.expect(". seq=a+1000 ack=b")
        assert s.conn.unacked_bytes == 1000


def test_a_challenge_in_TIME_WAIT_has_the_limit_of_the_engine_too() -> None:
    s = time_wait(Config(challenge_ack_limit=4))
    answers = 0
    for _ in range(100):
        s.recv("S seq=b-100 mss=1000")
        answers += len(s.take())
    assert 2 <= answers <= 4
    for _ in range(10):
        s.recv("F. seq=b ack=a+1")
        s.expect(". seq=a+1 ack=b+1")
