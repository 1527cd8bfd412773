"""NewReno's window, number by number (RFC 5681 3.1), and its response function."""

from __future__ import annotations

import pytest

from support.congestion import MSS, average_window, make_ack
from utcp.core.congestion import ECN, LOSS, TIMEOUT, UNLIMITED, NewReno


def avoiding(cwnd: int) -> NewReno:
    reno = NewReno(MSS, cwnd)
    reno.ssthresh = cwnd
    return reno


def test_slow_start_adds_what_was_acknowledged() -> None:
    reno = NewReno(MSS, 10 * MSS)
    reno.paced = True
    reno.on_ack(make_ack(10 * MSS))
    assert reno.cwnd == 20 * MSS
    reno.on_ack(make_ack(1))
    assert reno.cwnd == 20 * MSS + 1


def test_slow_start_ends_at_ssthresh_and_the_rest_counts_for_avoidance() -> None:
    reno = NewReno(MSS, 10 * MSS)
    reno.ssthresh = 12 * MSS
    reno.on_ack(make_ack(10 * MSS))
    assert reno.cwnd == 12 * MSS
    reno.on_ack(make_ack(4 * MSS - 1))
    assert reno.cwnd == 12 * MSS
    reno.on_ack(make_ack(1))  # 8 + 4 segments: a window
    assert reno.cwnd == 13 * MSS


@pytest.mark.parametrize("piece", [1, 100, 1000, 2000, 10_000])
def test_avoidance_adds_one_segment_for_each_window_however_it_is_acknowledged(piece: int) -> None:
    """RFC 3465 2.1: dividing an ACK gains nothing, one ACK for many segments loses nothing."""
    reno = avoiding(10 * MSS)
    acked = 0
    while acked < 10 * MSS:
        assert reno.cwnd == 10 * MSS
        reno.on_ack(make_ack(piece))
        acked += piece
    assert reno.cwnd == 11 * MSS


@pytest.mark.parametrize(
    ("kind", "cwnd", "flight", "ssthresh", "window"),
    [
        (LOSS, 20, 20, 10, 10),
        (LOSS, 20, 12, 6, 6),  # from FlightSize, not from a window that was not used
        (LOSS, 3, 3, 2, 2),  # not below two segments
        (ECN, 20, 20, 16, 16),  # RFC 8511: 0.8
        (ECN, 2, 2, 2, 2),
        (TIMEOUT, 20, 20, 10, 1),
        (TIMEOUT, 1, 1, 2, 1),
    ],
)
def test_the_response(kind: int, cwnd: int, flight: int, ssthresh: int, window: int) -> None:
    reno = NewReno(MSS, cwnd * MSS)
    reno.on_congestion_event(kind, flight * MSS, 0)
    assert (reno.ssthresh, reno.cwnd) == (ssthresh * MSS, window * MSS)


def test_what_was_acknowledged_before_a_loss_does_not_count_after_it() -> None:
    reno = avoiding(10 * MSS)
    reno.on_ack(make_ack(10 * MSS - 1))
    reno.on_congestion_event(LOSS, 10 * MSS, 0)
    reno.on_ack(make_ack(MSS))
    assert reno.cwnd == 5 * MSS


@pytest.mark.parametrize("kind", [LOSS, TIMEOUT])
def test_a_spurious_event_is_undone(kind: int) -> None:
    reno = NewReno(MSS, 20 * MSS)
    reno.on_congestion_event(kind, 20 * MSS, 0)
    reno.on_spurious(0)
    assert (reno.cwnd, reno.ssthresh) == (20 * MSS, UNLIMITED)


def test_undoing_never_makes_the_window_smaller() -> None:
    reno = NewReno(MSS, 4 * MSS)
    reno.on_congestion_event(LOSS, 4 * MSS, 0)
    reno.cwnd = 7 * MSS
    reno.on_spurious(0)
    assert reno.cwnd == 7 * MSS


def test_no_growth_in_recovery_or_where_the_window_is_not_the_limit() -> None:
    for ack in (make_ack(10 * MSS, in_recovery=True), make_ack(10 * MSS, window_limited=False)):
        for reno in (NewReno(MSS, 10 * MSS), avoiding(10 * MSS)):
            reno.on_ack(ack)
            assert reno.cwnd == 10 * MSS


@pytest.mark.parametrize("every", [300, 2000, 10_000])
def test_the_response_function(every: int) -> None:
    """Deterministic loss: the average window is sqrt(3 / 2p) segments, within a tenth (RFC 9438 5.1)."""
    average = average_window(avoiding(10 * MSS), every=every, rtt=0.1, cycles=14, warm_up=6)
    assert average == pytest.approx((1.5 * every) ** 0.5, rel=0.1)
