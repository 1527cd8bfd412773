"""RACK-TLP: losses found by time, and probes for losses at the tail (RFC 8985).

A segment is lost when one that was sent later has arrived, and the path's reordering is no excuse any more.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.congestion.control import LOSS
from utcp.core.congestion.window import on_congestion_event
from utcp.core.recovery_state import NONE, OPEN, REO_WND_PERSIST, Recovery, tsval_at
from utcp.core.scoreboard import LOST, RETRANSMITTED, SACKED
from utcp.core.stack import NEVER
from utcp.core.tcb import Tcb
from utcp.wire.segment import Segment
from utcp.wire.seq import seq_lt

DUP_THRESH: Final = 3


# Section 6.2: upon receiving an ACK


def rack_update(tcb: Tcb, r: Recovery, seg: Segment, i: i64, end: i64, in_sequence: bool) -> None:
    """Steps 1 to 3 for the run ``i``, which ``seg`` newly acknowledges up to ``end``, in sequence or by SACK."""
    now = tcb.stack.now
    sent_at = r.runs.sent_at(i)
    rtt: i64 = now - sent_at
    if r.runs.flags(i) & RETRANSMITTED:
        # Step 2: which of the transmissions was this? Not the last one, if the ACK echoes an earlier segment (one that
        # reports by SACK always does: it echoes the last segment in sequence, RFC 7323 4.3), or came back too soon
        tsval = tsval_at(tcb.stack, sent_at, tcb.ts_offset)
        earlier = in_sequence and tcb.ts_on and seg.ts and seq_lt(seg.ts_ecr, tsval)
        if earlier or rtt < tcb.min_rtt:
            if not r.tlp_is_retrans or end != r.tlp_end:
                return
            # A probe's says the same of what left before its first transmission, whichever it is (7.3)
            sent_at = r.tlp_first_at
            rtt = now - sent_at
    else:
        tcb.min_rtt = min(tcb.min_rtt, rtt)  # step 1
        if end < r.rack_fack:  # step 3
            r.reordering_seen = True
    r.rack_fack = max(r.rack_fack, end)
    if sent_at > r.rack_xmit_at or (sent_at == r.rack_xmit_at and end > r.rack_end):
        r.rack_rtt = rtt
        r.rack_xmit_at = sent_at
        r.rack_end = end


def widen_reordering_window(tcb: Tcb, r: Recovery) -> None:
    """Step 4: a D-SACK has shown that something was sent again in vain. At most once a round trip."""
    if r.dsack_round == NONE:
        r.dsack_round = r.runs.position(tcb.snd_nxt)
        r.reo_wnd_mult += 1
        r.reo_wnd_persist = REO_WND_PERSIST


def dsack_round_over(r: Recovery) -> None:
    if r.dsack_round != NONE and r.runs.una >= r.dsack_round:
        r.dsack_round = NONE


def narrow_reordering_window(r: Recovery) -> None:
    """Step 4, when a recovery ends."""
    r.reo_wnd_persist -= 1
    if r.reo_wnd_persist <= 0:
        r.reo_wnd_mult = 1


def reordering_window(tcb: Tcb, r: Recovery) -> i64:
    """RACK.reo_wnd: a quarter of the lowest round-trip time, more after D-SACKs, at most SRTT."""
    if not r.reordering_seen and (r.phase != OPEN or r.runs.sacked_segments >= DUP_THRESH):
        return 0
    if tcb.min_rtt == NEVER:
        return 0
    return min(r.reo_wnd_mult * tcb.min_rtt // 4, max(tcb.srtt, 0))


def rack_detect_loss(tcb: Tcb, r: Recovery) -> i64:
    """Step 5. Returns how many bytes are newly lost; sets the reordering timer for those that may yet arrive."""
    tcb.reo_at = NEVER
    runs = r.runs
    if r.rack_end == NONE or runs.count == 0:
        return 0
    if runs.sacked == 0 and runs.resent == 0 and runs.sent_at(0) >= r.rack_xmit_at:
        return 0  # all has arrived in order, as nearly always
    before = runs.lost
    window: i64 = r.rack_rtt + reordering_window(tcb, r)
    now = tcb.stack.now
    latest: i64 = now
    i: i64 = 0
    while i < runs.count:
        flags = runs.flags(i)
        if not flags & (SACKED | LOST):
            sent_at = runs.sent_at(i)
            if sent_at < r.rack_xmit_at or (sent_at == r.rack_xmit_at and runs.right(i) < r.rack_end):
                due = sent_at + window
                if sent_at == r.rack_xmit_at and flags & RETRANSMITTED and r.rack_end > runs.high_rxt:
                    due += r.rack_rtt // 4  # new data of that instant may have left first: a tie proves nothing
                if due <= now:
                    runs.lose(i)
                else:
                    latest = max(latest, due)
            elif runs.left(i) >= runs.high_rxt:
                break  # and so were all that follow
        i += 1
    if latest > now:
        tcb.reo_at = latest
    return runs.lost - before


# Section 6.3: upon RTO expiration


def rack_mark_losses_on_rto(tcb: Tcb, r: Recovery) -> None:
    """The first segment, and whatever else was sent long enough ago."""
    runs = r.runs
    runs.lose_first(tcb.smss)
    window: i64 = r.rack_rtt + reordering_window(tcb, r)
    i: i64 = 1
    while i < runs.count:
        if not runs.flags(i) & (SACKED | LOST) and runs.sent_at(i) + window <= tcb.stack.now:
            runs.lose(i)
        i += 1


# Section 7.4: the tail loss probe's answer. Its scheduling is in utcp.core.deadlines, its sending in utcp.core.output


def tlp_process_ack(tcb: Tcb, r: Recovery, duplicate: bool, dsack_end: i64, flight: i64) -> None:
    """``dsack_end``: right edge of the ACK's D-SACK, NONE if it has none; ``duplicate``: a bare duplicate ACK."""
    if r.tlp_end == NONE or r.runs.una < r.tlp_end:
        return
    if not r.tlp_is_retrans or dsack_end == r.tlp_end:
        r.tlp_end = NONE  # new data has arrived; or case 1: both transmissions have
    elif r.runs.una > r.tlp_end:
        r.tlp_end = NONE
        if r.phase == OPEN:
            on_congestion_event(tcb, LOSS, flight)  # the probe has repaired a loss
    elif duplicate:
        r.tlp_end = NONE  # case 2
