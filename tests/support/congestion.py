"""Algorithms of congestion control without an engine: acknowledgments made by hand, a path with periodic loss."""

from __future__ import annotations

from utcp.core.congestion import LOSS, UNLIMITED, Ack, CongestionControl

MSS = 1000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000


def make_ack(
    acked: int,
    now: int = 0,
    *,
    flight: int = 0,
    rtt: int = -1,
    srtt: int = -1,
    total: int = 0,
    window_limited: bool = True,
    in_recovery: bool = False,
) -> Ack:
    """What an acknowledgment of ``acked`` bytes tells; all delivered in order."""
    ack = Ack()
    ack.now = now
    ack.acked = ack.delivered = acked
    ack.flight = flight
    ack.rtt = rtt
    ack.srtt = srtt
    ack.delivered_total = total
    ack.window_limited = window_limited
    ack.in_recovery = in_recovery
    return ack


def average_window(control: CongestionControl, *, every: int, rtt: float, cycles: int, warm_up: int) -> float:
    """The average window in segments where each ``every``-th segment is lost, and its loss known at once.

    The model behind the response functions of RFC 9438 5.1: a window of segments is acknowledged evenly over a round
    trip of ``rtt`` seconds. The first ``warm_up`` cycles do not count.
    """
    control.ssthresh = min(control.ssthresh, control.cwnd)
    assert control.ssthresh < UNLIMITED
    ns = rtt * SECOND
    now = 0.0
    started = 0.0
    for cycle in range(cycles):
        if cycle == warm_up:
            started = now
        for _ in range(every - 1):
            now += ns * MSS / int(control.cwnd)
            control.on_ack(make_ack(MSS, round(now), flight=control.cwnd, srtt=round(ns)))
        now += ns * MSS / int(control.cwnd)
        control.on_congestion_event(LOSS, control.cwnd, round(now))
    return every * (cycles - warm_up) / ((now - started) / ns)
