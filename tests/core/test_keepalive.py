"""Keepalive (RFC 9293 3.8.4) and the user timeout with its option (RFC 9293 3.8.3, RFC 5482)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.script import RTO, Script
from support.states import close_wait, established, fin_wait_2, listen
from utcp.core.config import Config
from utcp.core.states import State

KEEPALIVE = Config(keepalive=True, keepalive_idle=100, keepalive_interval=10, keepalive_count=3)


class TestKeepalive:
    def test_MUST_25_it_is_off_by_default(self) -> None:
        s = established()
        s.silent_for(30 * 86_400)

    def test_MUST_28_two_hours_by_default(self) -> None:
        s = established(Config(keepalive=True))
        s.expect_after(7200, ". seq=a-1 ack=b")

    def test_MUST_27_probes_of_an_idle_connection(self) -> None:
        """MAY-6: without a garbage octet, below the window so that it must be answered."""
        s = established(KEEPALIVE)
        for _ in range(3):
            s.expect_after(100, ". seq=a-1 ack=b")
            s.recv(". seq=b ack=a")
        s.expect_state(State.ESTABLISHED)

    def test_MUST_26_what_arrives_puts_them_off(self) -> None:
        s = established(KEEPALIVE)
        s.silent_for(60)
        s.recv("P. seq=b ack=a len=10")
        s.expect_after(0.04, ". seq=a ack=b+10")
        s.expect_after(99.96, ". seq=a-1 ack=b+10")

    def test_MUST_29_one_lost_answer_does_not_end_it(self) -> None:
        s = established(KEEPALIVE)
        s.expect_after(100, ". seq=a-1 ack=b")
        s.expect_after(10, ". seq=a-1 ack=b")
        s.recv(". seq=b ack=a")
        s.expect_after(100, ". seq=a-1 ack=b")

    @pytest.mark.parametrize("make", [established, close_wait, fin_wait_2])
    def test_H_10_a_dead_peer_is_given_up(self, make: Callable[..., Script]) -> None:
        s = make(KEEPALIVE)
        s.expect_after(100, ". seq=A-1 ack=B")
        s.expect_after(10, ". seq=A-1 ack=B")
        s.expect_after(10, ". seq=A-1 ack=B")
        s.silent_for(9.999_999_999)
        assert not s.conn.closed
        s.advance(1e-9)
        s.expect("R. seq=A ack=B")
        s.expect_gone(TimeoutError)

    def test_a_connection_with_data_out_is_not_idle(self) -> None:
        """Retransmission watches the peer."""
        s = established(Config(keepalive=True, keepalive_idle=1, keepalive_interval=1))
        s.send(b"x")
        s.take()
        s.advance(50)
        assert {out.seg.seq for out in s.take()} == {s.seq("a")}
        s.recv(". seq=b ack=a+1")
        s.expect_after(1, ". seq=a ack=b")

    def test_it_may_be_switched_on_and_off_on_a_connection(self) -> None:
        s = established()
        s.set_option("keepalive_idle", 5.0)
        s.set_option("keepalive", True)
        s.expect_after(5, ". seq=a-1 ack=b")
        s.recv(". seq=b ack=a")
        s.set_option("keepalive", False)
        s.silent_for(3600)

    def test_our_answer_to_a_probe(self) -> None:
        s = established()
        for _ in range(3):
            s.advance(100)
            s.recv(". seq=b-1 ack=a")
            s.expect(". seq=a ack=b")
            s.recv(". seq=b-1 ack=a len=1")  # with a garbage octet
            s.expect(". seq=a ack=b")
        assert s.conn.readable_bytes == 0


class TestUserTimeout:
    def test_X_07_it_takes_the_place_of_R2(self) -> None:
        for timeout in (3, 300):
            s = established(Config(user_timeout=timeout))
            s.send(1)
            s.take()
            s.advance(timeout - 1e-9)
            s.take()
            s.expect_state(State.ESTABLISHED)
            s.advance(1e-9)
            s.expect_gone(TimeoutError)

    def test_X_07_for_the_fin_too(self) -> None:
        s = established(Config(user_timeout=3))
        s.shutdown()
        s.expect("F. seq=a ack=b")
        for n in range(3):  # .3 .9 2.1
            s.expect_after(RTO * 2**n, "F. seq=a ack=b")
        s.silent_for(0.9 - 1e-9)
        s.expect_state(State.FIN_WAIT_1)
        s.silent_for(1e-9)
        s.expect_gone(TimeoutError)

    def test_it_ends_an_unanswered_zero_window(self) -> None:
        s = established(Config(user_timeout=3))
        s.recv(". seq=b ack=a wnd=0")
        s.send(1)
        s.expect_after(0.3, ". seq=a-1 ack=b")  # the first probe that nobody answers
        s.advance(3)
        s.take()
        s.expect_gone(TimeoutError)

    def test_not_an_idle_connection(self) -> None:
        s = established(Config(user_timeout=3))
        s.silent_for(3600)

    def test_it_bounds_keepalive(self) -> None:
        """As Linux does: in place of the count of probes."""
        s = established(
            Config(keepalive=True, keepalive_idle=100, keepalive_interval=10, keepalive_count=9, user_timeout=115)
        )
        s.expect_after(100, ". seq=a-1 ack=b")
        s.expect_after(10, ". seq=a-1 ack=b")
        s.advance(10)
        s.expect("R. seq=a ack=b")
        s.expect_gone(TimeoutError)

    def test_it_may_be_set_on_a_connection(self) -> None:
        s = established()
        s.send(1)
        s.take()
        s.silent_for(0.1)
        s.set_option("user_timeout", 0.5)
        s.advance(60)
        assert len(s.take()) == 1
        s.expect_gone(TimeoutError)


class TestUserTimeoutOption:
    """RFC 5482."""

    def test_it_is_not_said_by_default(self) -> None:
        s = Script(Config(user_timeout=300))
        s.connect()
        assert s.take()[0].seg.user_timeout == -1

    @pytest.mark.parametrize(
        ("timeout", "field"), [(1.0, 1), (300.0, 300), (32_767.0, 32_767), (32_768.0, 0x8000 | 546), (0.2, 1)]
    )
    def test_it_is_said_in_the_syn_and_in_the_segment_after(self, timeout: float, field: int) -> None:
        s = Script(Config(user_timeout=timeout, user_timeout_option=True))
        s.connect()
        assert s.take()[0].seg.user_timeout == field
        s.recv("S. seq=b-1 ack=a mss=1000")
        assert s.take()[0].seg.user_timeout == field
        s.send(b"x")
        assert s.take()[0].seg.user_timeout == -1

    def test_it_is_said_again_when_it_changes(self) -> None:
        s = established(Config(user_timeout_option=True))
        s.set_option("user_timeout", 77.0)
        s.send(b"x")
        assert s.take()[0].seg.user_timeout == 77

    @pytest.mark.parametrize(
        ("field", "patience"),
        [
            (200, 200),
            (10, 120),  # our own R2 is more
            (0x8000 | 5, 300),
            (0x7FFF, 3600),  # U_LIMIT
            (0, 120),  # reserved
        ],
    )
    def test_theirs_is_adopted_within_limits(self, field: int, patience: int) -> None:
        s = established(Config(user_timeout_option=True, rto_max=60))
        said = s.segment(". seq=b ack=a")
        said.user_timeout = field
        s.recv_bytes(said.to_bytes())
        s.send(1)
        s.take()
        s.advance(patience - 1e-6)
        s.take()
        s.expect_state(State.ESTABLISHED)
        s.advance(2e-6)
        s.take()
        s.expect_gone(TimeoutError)

    def test_ours_wins_over_theirs_and_off_is_off(self) -> None:
        for config in (Config(user_timeout_option=True, user_timeout=5), Config(r2=5)):
            s = established(config)
            said = s.segment(". seq=b ack=a")
            said.user_timeout = 200
            s.recv_bytes(said.to_bytes())
            s.take()
            s.send(1)
            s.take()
            s.advance(5 + RTO)
            s.take()
            s.expect_gone(TimeoutError)

    def test_theirs_in_the_syn(self) -> None:
        s = listen(Config(user_timeout_option=True))
        syn = s.segment("S seq=b-1 mss=1000")
        syn.user_timeout = 500
        s.recv_bytes(syn.to_bytes())
        assert s.take()[0].seg.user_timeout == 120
        s.recv(". seq=b ack=a")
        s.accept()
        s.take()
        s.send(1)
        s.take()
        s.advance(499)
        s.take()
        s.expect_state(State.ESTABLISHED)
        s.advance(2)
        s.expect_gone(TimeoutError)
