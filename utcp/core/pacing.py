"""Pacing: a large window leaves in trains spread over the round trip, not as one burst.

A train is what the pacing rate carries in about a millisecond: a user-space timer is no finer, and one system call
takes it whole. Nothing is paced within the initial window, which may be sent at once anyway (RFC 6928 2).
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.congestion.window import algorithm_window, initial_window
from utcp.core.tcb import Tcb

TRAIN_TIME: Final = 1_000_000  # ns
MIN_TRAIN: Final = 2  # segments: one would have its ACK delayed
# So much lateness of the timer is made up for; it also lets a round trip shorter than this go unpaced
CREDIT: Final = 1_000_000
FREE: Final = 1 << 40  # bytes
_SECOND: Final = 1_000_000_000


def unpaced_flight(tcb: Tcb) -> i64:
    """Up to so many bytes in flight segments leave at once."""
    control = tcb.congestion
    assert control is not None
    if not control.paced or tcb.srtt <= 0:
        return FREE
    return initial_window(tcb)


def pacing_rate(tcb: Tcb) -> int:
    """Bytes per second; 0 where nothing is paced."""
    control = tcb.congestion
    if control is None or not control.paced or tcb.srtt <= 0:
        return 0
    if control.pacing_rate > 0:
        return control.pacing_rate
    return int(algorithm_window(tcb, control)) * int(_percent(tcb)) * 10**9 // (100 * int(tcb.srtt))


def train_allowance(tcb: Tcb, mss: i64) -> i64:
    """Bytes that may leave now, beyond the unpaced flight; 0 before the release time."""
    if tcb.stack.now < tcb.paced_until:
        return 0
    control = tcb.congestion
    assert control is not None
    train: i64
    if control.pacing_rate > 0:
        train = control.pacing_rate // 1000
    else:
        train = algorithm_window(tcb, control) * _percent(tcb) // 100 * TRAIN_TIME // tcb.srtt
    return max(train // mss, MIN_TRAIN) * mss


def charge(tcb: Tcb, sent: i64) -> None:
    """``sent`` bytes have left: the next train leaves when the rate has caught up with them."""
    if sent == 0:
        return
    control = tcb.congestion
    assert control is not None
    cost: i64
    if control.pacing_rate > 0:
        cost = sent * _SECOND // control.pacing_rate
    else:
        cost = sent * tcb.srtt // algorithm_window(tcb, control) * 100 // _percent(tcb)
    tcb.paced_until = max(tcb.paced_until, tcb.stack.now - CREDIT) + cost


def _percent(tcb: Tcb) -> i64:
    """Of cwnd / SRTT: faster while the window still doubles (Linux: tcp_pacing_ss_ratio, tcp_pacing_ca_ratio)."""
    if 2 * tcb.cwnd < tcb.ssthresh:
        return tcb.policy.pacing_ss_ratio
    return tcb.policy.pacing_ca_ratio
