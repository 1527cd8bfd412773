"""HyStart++ (RFC 9406): rounds, thresholds, conservative slow start, and what ends it."""

from __future__ import annotations

import pytest

from support.congestion import MILLISECOND, MSS, make_ack
from utcp.core.congestion import LOSS, UNLIMITED, Cubic, NewReno
from utcp.core.congestion.hystart import HyStart

SEGMENTS = 16  # in flight: a round


class Rounds:
    """Whole rounds of acknowledgments, one for each segment of a window that stays the same."""

    def __init__(self) -> None:
        self.hystart = HyStart()
        self.delivered = 0

    def ack(self, rtt: float) -> None:
        self.delivered += MSS
        self.hystart.on_ack(round(rtt * MILLISECOND), self.delivered, SEGMENTS * MSS)

    def round(self, rtt: float) -> None:
        for _ in range(SEGMENTS + 1 if self.delivered == 0 else SEGMENTS):
            self.ack(rtt)

    def in_css(self) -> bool:
        return self.hystart.in_css

    def finished(self) -> bool:
        return self.hystart.finished


@pytest.mark.parametrize(
    ("base", "threshold"),
    [
        (20.0, 4.0),  # MIN_RTT_THRESH
        (32.0, 4.0),
        (80.0, 10.0),  # an eighth
        (128.0, 16.0),
        (400.0, 16.0),  # MAX_RTT_THRESH
    ],
)
def test_a_round_trip_longer_by_the_threshold_ends_slow_start(base: float, threshold: float) -> None:
    for rtt, in_css in ((base + threshold - 0.001, False), (base + threshold, True)):
        rounds = Rounds()
        rounds.round(base)
        rounds.round(rtt)
        assert rounds.in_css() is in_css


def test_the_eighth_sample_of_a_round_decides() -> None:
    rounds = Rounds()
    rounds.round(50)
    for _ in range(7):
        rounds.ack(100)
    assert not rounds.in_css()
    rounds.ack(100)
    assert rounds.in_css()


def test_the_lowest_of_a_round_counts() -> None:
    rounds = Rounds()
    rounds.round(50)
    rounds.ack(50)
    for _ in range(SEGMENTS - 1):
        rounds.ack(100)
    assert not rounds.in_css()


def test_acknowledgments_without_a_sample_count_for_nothing() -> None:
    rounds = Rounds()
    rounds.round(50)
    rounds.delivered += SEGMENTS * MSS
    for _ in range(20):
        rounds.hystart.on_ack(-1, rounds.delivered - 1, SEGMENTS * MSS)
    assert not rounds.in_css()


def test_growth() -> None:
    """RFC 9406 4.2, 4.3: L = 8 unless paced, a quarter in conservative slow start."""
    hystart = HyStart()
    assert hystart.growth(5 * MSS, MSS, False) == 5 * MSS
    assert hystart.growth(9 * MSS, MSS, False) == 8 * MSS
    assert hystart.growth(9 * MSS, MSS, True) == 9 * MSS
    hystart.in_css = True
    assert hystart.growth(9 * MSS, MSS, False) == 2 * MSS
    assert hystart.growth(12 * MSS, MSS, True) == 3 * MSS


def test_five_rounds_of_conservative_slow_start_then_it_is_over() -> None:
    """CSS_ROUNDS; the one in which it began counts, however little of it was left."""
    rounds = Rounds()
    rounds.round(50)
    for n in range(5):
        assert not rounds.finished(), n
        rounds.round(60)
        assert rounds.in_css()
    assert rounds.finished()


def test_a_round_trip_that_comes_down_again_resumes_slow_start() -> None:
    rounds = Rounds()
    rounds.round(50)
    rounds.round(60)
    assert rounds.in_css()
    rounds.round(60)
    assert rounds.in_css()  # not below the baseline
    for _ in range(8):
        rounds.ack(59.9)
    assert not rounds.in_css()
    for _ in range(SEGMENTS - 8):
        rounds.ack(50)
    rounds.round(60)
    assert rounds.in_css()
    for _ in range(4):
        rounds.round(60)
    assert rounds.finished()  # counted anew


@pytest.mark.parametrize("kind", [NewReno, Cubic])
def test_the_end_sets_ssthresh_to_the_window(kind: type[NewReno | Cubic]) -> None:
    control = kind(MSS, 10 * MSS)
    control.paced = True
    total = 0
    rtt = 50 * MILLISECOND
    for _ in range(60):
        for _ in range(10):
            total += MSS
            control.on_ack(make_ack(MSS, flight=10 * MSS, rtt=rtt, total=total))
        rtt += 8 * MILLISECOND
        if control.ssthresh != UNLIMITED:
            break
    assert control.ssthresh <= control.cwnd < 60 * MSS
    assert control.hystart is None


@pytest.mark.parametrize("kind", [NewReno, Cubic])
def test_only_the_first_slow_start_looks_at_round_trips(kind: type[NewReno | Cubic]) -> None:
    control = kind(MSS, 40 * MSS)
    control.on_congestion_event(LOSS, 40 * MSS, 0)
    ssthresh = control.ssthresh
    control.cwnd = 10 * MSS
    total = 0
    rtt = 50 * MILLISECOND
    for i in range(1, ssthresh // MSS - 9):
        total += MSS
        rtt += MILLISECOND
        control.on_ack(make_ack(MSS, flight=10 * MSS, rtt=rtt, total=total))
        assert control.cwnd == (10 + i) * MSS
    assert control.ssthresh == ssthresh == control.cwnd
