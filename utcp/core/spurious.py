"""Recoveries for nothing: the segments were late, not lost, and what the recovery changed is taken back.

Three ways to see it: the peer reports all that was sent again as duplicates (D-SACK, RFC 2883, RFC 3708); its
timestamps show that the first transmissions arrived (Eifel, RFC 3522); after a time-out, ACKs come for what was
not sent again (F-RTO, RFC 5682).
"""

from __future__ import annotations

from mypy_extensions import i64

from utcp.core.congestion.window import on_spurious
from utcp.core.recovery_state import NONE, OPEN, TIMED_OUT, Recovery, forget_duplicates
from utcp.core.stack import NEVER
from utcp.core.tcb import Tcb, queued_bytes
from utcp.wire.segment import Segment
from utcp.wire.seq import MASK, seq_lt


def start_watching(tcb: Tcb, r: Recovery) -> None:
    """A recovery begins. D-SACKs for what was sent again before, by a loss probe or for its size, say nothing of it."""
    r.undo_marker = max(r.runs.una, r.runs.high_rxt) if tcb.policy.undo else NONE
    r.undo_left = NONE


def on_sent_again(tcb: Tcb, r: Recovery, n: i64) -> None:
    """``n`` bytes are about to be sent again."""
    if r.phase == OPEN:
        r.undo_marker = NONE  # not by the last recovery: what D-SACKs report from now on may be this
        r.undo_left = NONE
    if r.undo_left == NONE:
        if r.runs.high_rxt <= r.runs.una:  # else something was sent again before and may still be in flight
            r.undo_ts = tcb.stack.ts_now(tcb.ts_offset)
        r.undo_left = 0
    r.undo_left += n


def on_dsack(r: Recovery, left: i64, right: i64) -> None:
    """The peer had [left, right) already when it came once more."""
    if r.undo_marker != NONE and r.undo_left > 0 and left >= r.undo_marker:
        r.undo_left = max(r.undo_left - (right - left), 0)


def all_in_vain(r: Recovery) -> bool:
    """Everything sent again was reported as a duplicate."""
    return r.undo_marker != NONE and r.undo_left == 0


def only_late(tcb: Tcb, r: Recovery, seg: Segment) -> bool:
    """Eifel detection (RFC 3522 3.2), of an ACK of something new: the first one since something was sent again decides,
    by whether it echoes what was sent before."""
    if r.undo_marker == NONE or not (tcb.ts_on and seg.ts):
        return False
    if r.undo_left == NONE or r.undo_ts == 0 or seg.ts_ecr == 0:
        return False
    sent_again_at = r.undo_ts
    r.undo_ts = 0
    return seq_lt(seg.ts_ecr, sent_again_at)


def undo(tcb: Tcb, r: Recovery) -> None:
    """Eifel response (RFC 4015 3.2, as Linux has it): the window is restored, and nothing is lost after all."""
    r.runs.find_all()
    if r.phase != TIMED_OUT:
        r.reordering_seen = True  # what was late had been overtaken: RACK waits longer from now on (as Linux)
    r.phase = OPEN
    r.frto = False
    r.frto_new_data = False
    r.undo_marker = NONE
    # The ACKs that were taken for those of retransmissions were not: RACK begins anew
    r.rack_end = NONE
    r.rack_xmit_at = -NEVER
    tcb.reo_at = NEVER
    forget_duplicates(r)
    tcb.stack.counters.spurious_recoveries += 1
    on_spurious(tcb)


# F-RTO


def start_frto(tcb: Tcb, r: Recovery) -> None:
    """RFC 5682 2.1, step 1: the time-out has come.

    Not when it interrupts a recovery, whose own retransmissions would be taken for first ones; again when the same
    segment times out again.
    """
    r.frto = tcb.policy.frto and (r.phase == OPEN or (r.phase == TIMED_OUT and tcb.rtx_count > 0))
    r.frto_new_data = False


def frto_on_ack(tcb: Tcb, r: Recovery, advanced: bool, duplicate: bool, sacked: bool) -> None:
    """RFC 5682 2.1 and 3.1, steps 2 and 3, as an ACK arrives while a time-out is being recovered from."""
    if not r.frto:
        return
    if r.original_delivered:
        undo(tcb, r)  # step 3b: it acknowledges what was not sent again
    elif r.frto_new_data:
        if sacked or duplicate:
            give_up_frto(r)  # step 3a: the new data has arrived and the old has not
    elif not advanced:
        if duplicate and not tcb.sack_on:
            give_up_frto(r)  # step 2a
    elif r.runs.una < r.recover and _may_send_new(tcb):
        # Step 2b: one ACK proves nothing, for the segment sent again may have filled the only hole
        r.recover = r.runs.position(tcb.snd_nxt)
        r.frto_new_data = True
    else:
        give_up_frto(r)


def give_up_frto(r: Recovery) -> None:
    """Segments were lost: all that counts as such is sent again."""
    r.frto = False
    r.frto_new_data = False


def _may_send_new(tcb: Tcb) -> bool:
    flight: i64 = (tcb.snd_nxt - tcb.snd_una) & MASK
    return tcb.snd_wnd > flight and not tcb.fin_sent and queued_bytes(tcb) > 0
