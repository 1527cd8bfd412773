"""Congestion control: slow start, congestion avoidance and the response to a time-out (RFC 5681 3.1).

Loss recovery without a time-out, and other algorithms, plug in here.
"""

from __future__ import annotations

from mypy_extensions import i64

from utcp.core.tcb import Tcb
from utcp.wire.seq import MASK


def start_congestion_control(tcb: Tcb) -> None:
    """One segment if the SYN or SYN-ACK was lost (RFC 5681 3.1), else the initial window."""
    tcb.cwnd = tcb.smss if tcb.syn_lost else initial_window(tcb)


def initial_window(tcb: Tcb) -> i64:
    """RFC 6928 2."""
    smss = tcb.smss
    segments = tcb.policy.initial_window
    return min(segments * smss, max(2 * smss, segments * 1460))


def restart_after_idle(tcb: Tcb) -> None:
    """Nothing was sent for an RTO: what the window was says little of the path now (RFC 5681 4.1)."""
    if tcb.stack.now - tcb.sent_at > tcb.rto:
        tcb.cwnd = min(tcb.cwnd, initial_window(tcb))


def on_acked(tcb: Tcb, acked: i64, flight: i64, recovering: bool) -> None:
    """``acked`` new bytes of the ``flight`` that was out are acknowledged.

    The window grows by bytes, not by ACKs: dividing an ACK gains a peer nothing (RFC 3465), and one ACK for a
    whole train loses nothing. It grows only while it is what limits us (RFC 7661 3). While ``recovering`` from a
    time-out one segment an ACK is the limit: such an ACK may cover what left the network long ago (RFC 3465 2.3).
    """
    if 2 * flight < tcb.cwnd:
        return
    if recovering:
        acked = min(acked, tcb.smss)
    if tcb.cwnd < tcb.ssthresh:
        slow_start = min(acked, tcb.ssthresh - tcb.cwnd)
        tcb.cwnd += slow_start
        acked -= slow_start
    tcb.cwnd_acked += acked
    if tcb.cwnd_acked >= tcb.cwnd:
        tcb.cwnd_acked -= tcb.cwnd
        tcb.cwnd += tcb.smss


def on_retransmission_timeout(tcb: Tcb) -> None:
    """RFC 5681 3.1, equation (4): once per loss event, however often its segment times out."""
    if tcb.rtx_count == 0:
        flight: i64 = (tcb.snd_nxt - tcb.snd_una) & MASK
        tcb.ssthresh = max(flight // 2, 2 * tcb.smss)
    tcb.cwnd = tcb.smss
    tcb.cwnd_acked = 0
