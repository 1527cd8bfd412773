"""Urgent data (RFC 9293 3.8.5, RFC 6093): in line, with a pointer to the octet behind it. Not for new protocols."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.states import RECEIVING, URGENT
from utcp.core.tcb import Tcb, mark_ready
from utcp.wire.segment import URG, Segment
from utcp.wire.seq import MASK, seq_gt, seq_le, seq_sub

_MAX_POINTER: Final = 65_535


def mark_urgent(tcb: Tcb) -> None:
    """All that is queued up to now is urgent (MUST-30, MUST-31: any length)."""
    queue = tcb.send_queue
    if queue is None:
        return
    tcb.urgent_out = True
    # Before our SYN is acknowledged byte 0 of the queue is number ISS + 1
    first: i64 = tcb.snd_una if tcb.syn_acked else (tcb.iss + 1) & MASK
    tcb.snd_up = (first + queue.size) & MASK
    tcb.push_now = True


def urgent_pointer(tcb: Tcb, seq: i64) -> i64:
    """The urgent field of a segment at ``seq``: where the urgent data ends (MUST-62), 0 if it lies before ``seq``."""
    if not tcb.urgent_out:
        return 0
    if seq_le(tcb.snd_up, tcb.snd_una):
        tcb.urgent_out = False
        return 0
    ahead: i64 = seq_sub(tcb.snd_up, seq)
    return min(max(ahead, 0), _MAX_POINTER)


def check_urg(tcb: Tcb, seg: Segment) -> None:
    """RFC 9293 3.10.7.4, sixth: RCV.UP <- max(RCV.UP, SEG.UP); the user is told at once (MUST-32)."""
    if not seg.flags & URG or not (RECEIVING >> tcb.st) & 1:
        return
    up: i64 = (seg.seq + seg.urg) & MASK
    if seq_gt(up, tcb.rcv_nxt) and (not tcb.urgent_in or seq_gt(up, tcb.rcv_up)):
        tcb.urgent_in = True
        tcb.rcv_up = up
        mark_ready(tcb, URGENT)


def urgent_bytes(tcb: Tcb) -> i64:
    """How much urgent data the user has still to read, or to wait for (MUST-33)."""
    if not tcb.urgent_in:
        return 0
    queue = tcb.receive_queue
    unread: i64 = 0 if queue is None else queue.size
    ahead: i64 = seq_sub(tcb.rcv_up, tcb.rcv_nxt) + unread
    if tcb.fin_received:
        ahead += 1  # RCV.NXT counts the FIN
    return max(ahead, 0)
