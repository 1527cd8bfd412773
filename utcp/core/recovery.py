"""Loss recovery: what an ACK says about the flight, when recovery begins and ends, and how much it may send.

The detectors are RACK (utcp.core.rack), counting (RFC 6675) if the user wants that, and duplicate ACKs where the
peer has no SACK (RFC 6582). Fast recovery reduces in proportion (RFC 6937).
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.congestion.control import LOSS
from utcp.core.congestion.window import leave_recovery, on_acked, on_congestion_event, on_timeout, recovers_by_itself
from utcp.core.path_mtu import give_up_probe, lost_probe, on_probe_ack
from utcp.core.rack import (
    DUP_THRESH,
    dsack_round_over,
    narrow_reordering_window,
    rack_detect_loss,
    rack_mark_losses_on_rto,
    rack_update,
    tlp_process_ack,
    widen_reordering_window,
)
from utcp.core.recovery_state import NONE, OPEN, RECOVERY, TIMED_OUT, Recovery, forget_duplicates, open_scoreboard, pipe
from utcp.core.rtt import on_delivered
from utcp.core.scoreboard import LOST, MAX_BLOCKS, RETRANSMITTED, SACKED
from utcp.core.spurious import (
    all_in_vain,
    frto_on_ack,
    on_dsack,
    only_late,
    start_frto,
    start_watching,
    undo,
)
from utcp.core.stack import NEVER
from utcp.core.tcb import Tcb
from utcp.wire.segment import Segment
from utcp.wire.seq import MASK, seq_gt, seq_le, seq_lt

# Who looks for losses
_RACK: Final = 1
_COUNT: Final = 2
_DUP_ACKS: Final = 3


def on_ack(tcb: Tcb, r: Recovery, seg: Segment, acked: i64, flight: i64, duplicate: bool) -> None:
    """A plausible ACK: ``acked`` numbers of the ``flight`` are new in sequence, SND.UNA has moved already.

    ``duplicate``: it is a duplicate ACK in the sense of RFC 5681 2, but for SACK blocks, which are looked at here.
    """
    r.delivered = 0
    r.original_delivered = False
    sacked_before = r.runs.sacked
    after_timeout = r.phase == TIMED_OUT
    in_recovery = r.phase == RECOVERY
    if acked > 0:
        _acknowledged(tcb, r, seg, acked)
    dsack_round_over(r)
    dsack_end: i64 = NONE
    if tcb.sack_on:
        dsack_end = _note_sack(tcb, r, seg)
    elif duplicate:
        _count_duplicate(tcb, r)
    if r.mtu_probe != NONE:
        on_probe_ack(tcb, r)
    tlp_process_ack(tcb, r, duplicate and len(seg.sack) == 0, dsack_end, flight)
    if r.phase != OPEN:
        _in_recovery(tcb, r, seg, acked, duplicate, r.runs.sacked > sacked_before)
    elif dsack_end != NONE and all_in_vain(r):
        undo(tcb, r)  # after the end of the recovery
    lost = find_losses(tcb, r)
    data: i64 = acked - (1 if tcb.fin_sent and acked > 0 and seg.ack == tcb.snd_nxt else 0)
    if in_recovery and r.phase != RECOVERY:
        # Its end sets the window to ssthresh (RFC 5681 3.2, step 6): what arrived while it lasted lets nothing grow
        in_recovery = False
        data = min(data, r.delivered)
    on_acked(tcb, data, r.delivered, lost, flight, in_recovery, after_timeout)
    if r.phase == RECOVERY and not recovers_by_itself(tcb):
        _reduce_in_proportion(tcb, r, acked > 0 and lost == 0)


def find_losses(tcb: Tcb, r: Recovery) -> i64:
    """Look for losses with what is known now, and begin to recover from them. Returns how many bytes are new."""
    detector = _detector(tcb)
    lost: i64 = 0
    if detector == _RACK:
        lost = rack_detect_loss(tcb, r)
    elif detector == _COUNT:
        lost = _count_losses(tcb, r)
    elif r.phase == OPEN and r.dup_acks >= DUP_THRESH and r.runs.una > r.recover:
        # RFC 6582 3.2, step 2: not for what the last recovery has sent twice
        lost = r.runs.lose_first(tcb.smss)
    if lost > 0 and r.mtu_probe != NONE:
        lost -= lost_probe(tcb, r)
    if lost > 0 and r.phase == OPEN:
        _enter_recovery(tcb, r)
    return lost


def on_reordering_timeout(tcb: Tcb, r: Recovery) -> None:
    """RFC 8985 6.3: what could have been reordered is lost."""
    r.delivered = 0
    if find_losses(tcb, r) > 0 and r.phase == RECOVERY and not recovers_by_itself(tcb):
        _reduce_in_proportion(tcb, r, False)


def enter_timeout(tcb: Tcb) -> None:
    """The retransmission timer ran out (RFC 6298 5.4, RFC 5681 3.1, RFC 8985 6.3)."""
    r = open_scoreboard(tcb)
    runs = r.runs
    flight: i64 = (tcb.snd_nxt - tcb.snd_una) & MASK
    again = (r.phase == RECOVERY and runs.una < r.recover) or (r.phase == TIMED_OUT and tcb.rtx_count > 0)
    start_frto(tcb, r)
    if not again:
        start_watching(tcb, r)
    forget_duplicates(r)
    if runs.flags(0) & SACKED:
        runs.distrust(tcb.smss)  # reneging: it lacks what it has reported (RFC 2018 8)
    if _detector(tcb) == _RACK:
        rack_mark_losses_on_rto(tcb, r)
    else:
        runs.lose_all()
    r.phase = TIMED_OUT
    r.recover = runs.position(tcb.snd_nxt)
    r.tlp_end = NONE  # RFC 8985 7.1
    r.probe_due = False
    if r.mtu_probe != NONE:
        give_up_probe(tcb, r)
    tcb.tlp_at = NEVER
    tcb.reo_at = NEVER
    on_timeout(tcb, flight, again)
    tcb.cwnd = pipe(tcb, r) + tcb.smss  # what RACK still believes in flight is no reason to wait


def let_go(tcb: Tcb, r: Recovery) -> None:
    """Everything is acknowledged: keep of the past only what may still matter."""
    forget_duplicates(r)
    tcb.reo_at = NEVER
    beyond = r.runs.una > r.recover
    if beyond:
        r.undo_marker = NONE
    if beyond and r.tlp_end == NONE and r.tlp_measured and not r.reordering_seen and r.reo_wnd_mult == 1:
        tcb.recovery = None


# What an ACK says


def _acknowledged(tcb: Tcb, r: Recovery, seg: Segment, acked: i64) -> None:
    """In sequence: every run up to SEG.ACK has arrived."""
    runs = r.runs
    una = runs.position(seg.ack)
    sent_again = False
    i: i64 = 0
    while i < runs.count and runs.left(i) < una:
        flags = runs.flags(i)
        if not flags & SACKED:
            sent_again = sent_again or flags & RETRANSMITTED != 0
            _delivered(tcb, r, seg, i, min(runs.right(i), una), True)
        elif runs.right(i) > una:
            runs.distrust(tcb.smss)  # it asks for what it said it had: reneging (RFC 2018 8)
        i += 1
    runs.acknowledged(una)
    if runs.count > 0 and runs.flags(0) & SACKED:
        runs.distrust(tcb.smss)
    if sent_again:
        # What lay behind a hole may have been reported by ACKs that were lost: no sign of a spurious time-out
        r.original_delivered = False
    if not tcb.sack_on:
        r.dup_end = runs.nxt()
        # The first segment filled the hole, the others were counted with the duplicate ACKs
        counted: i64 = min(r.dup_bytes, max(acked - tcb.smss, 0))
        r.delivered = acked - counted
        r.dup_bytes -= counted
        if r.phase == OPEN:
            forget_duplicates(r)


def _delivered(tcb: Tcb, r: Recovery, seg: Segment, i: i64, end: i64, in_sequence: bool) -> None:
    """The run ``i`` has arrived, up to ``end``."""
    runs = r.runs
    r.delivered += end - runs.left(i)
    if not runs.flags(i) & RETRANSMITTED:
        on_delivered(tcb, runs.left(i), end)
        if end <= r.recover:
            r.original_delivered = True
    if tcb.sack_on:
        rack_update(tcb, r, seg, i, end, in_sequence)


def _note_sack(tcb: Tcb, r: Recovery, seg: Segment) -> i64:
    """The blocks of ``seg``. Returns the right edge of its D-SACK, NONE if it has none.

    Blocks that reach beyond what is in flight are lies and count for nothing (RFC 2018 5.1, RFC 9293 MAY-12's spirit).
    """
    runs = r.runs
    dsack_end: i64 = NONE
    held: list[tuple[int, int]] = []
    first = True
    for left, right in seg.sack:
        if seq_lt(left, right) and seq_le(right, tcb.snd_nxt):
            if first and _is_dsack(seg, left, right):
                dsack_end = _note_dsack(tcb, r, left, right)
            elif seq_gt(left, seg.ack) and seq_gt(left, tcb.snd_una):
                held.append((int(runs.position(left)), int(runs.position(right))))
        first = False
    if len(held) > 1:
        held.sort()  # the latest comes first (RFC 2018 4), which RACK would take for reordering
    for left, right in held:
        if runs.blocks < MAX_BLOCKS:
            _note_block(tcb, r, seg, left, right)
    return dsack_end


def _is_dsack(seg: Segment, left: i64, right: i64) -> bool:
    """RFC 2883 4: the first block lies below the cumulative acknowledgment, or within the second block."""
    if seq_lt(left, seg.ack):
        return seq_le(right, seg.ack)
    if len(seg.sack) < 2:
        return False
    outer_left, outer_right = seg.sack[1]
    return seq_le(outer_left, left) and seq_le(right, outer_right)


def _note_dsack(tcb: Tcb, r: Recovery, left: i64, right: i64) -> i64:
    runs = r.runs
    end = runs.position(right)
    if not (r.tlp_is_retrans and end == r.tlp_end):  # a probe takes no position on reordering
        widen_reordering_window(tcb, r)
    on_dsack(r, runs.position(left), end)
    return end


def _note_block(tcb: Tcb, r: Recovery, seg: Segment, left: i64, right: i64) -> None:
    """The peer holds [left, right)."""
    runs = r.runs
    i = runs.find(left)
    if not runs.flags(i) & SACKED:
        i = runs.split(left)
    elif runs.right(i) >= right:
        return  # nothing new
    while i < runs.count and runs.left(i) < right:
        if not runs.flags(i) & SACKED:
            if runs.right(i) > right:
                runs.split(right)
            _delivered(tcb, r, seg, i, runs.right(i), False)
            runs.sack(i)
            if tcb.rate is not None:
                tcb.rate.on_sacked(runs.right(i) & MASK)
        i += 1
    runs.join_sacked(left, right)


def _count_duplicate(tcb: Tcb, r: Recovery) -> None:
    """RFC 5681 3.2: another segment has left the network. After a time-out it had left it, unless it was sent since.

    A peer can repeat ACKs at will: no more count than segments were out when it last acknowledged something, or each
    would make us send another one.
    """
    if r.phase == TIMED_OUT and r.runs.nxt() <= r.recover:
        return
    room: i64 = r.dup_end - r.runs.una - tcb.smss - r.dup_bytes
    n = min(tcb.smss, room)
    r.dup_acks += 1
    if n > 0:
        r.dup_bytes += n
        r.delivered += n


# Detection without RACK


def _detector(tcb: Tcb) -> i64:
    if not tcb.sack_on:
        return _DUP_ACKS
    return _RACK if tcb.policy.rack else _COUNT


def _count_losses(tcb: Tcb, r: Recovery) -> i64:
    """IsLost (RFC 6675 4): three blocks, or more than two segments, were reported above. Once for each segment."""
    runs = r.runs
    before = runs.lost
    blocks: i64 = 0
    above: i64 = 0
    i = runs.count - 1
    while i >= 0:
        flags = runs.flags(i)
        if flags & SACKED:
            blocks += 1
            above += runs.right(i) - runs.left(i)
        elif not flags & (LOST | RETRANSMITTED) and (blocks >= DUP_THRESH or above > (DUP_THRESH - 1) * tcb.smss):
            runs.lose(i)
        i -= 1
    return runs.lost - before


# Phases


def _enter_recovery(tcb: Tcb, r: Recovery) -> None:
    """Fast recovery begins: RFC 6675 5 (4), RFC 6582 3.2 (2), RFC 6937 3."""
    flight: i64 = (tcb.snd_nxt - tcb.snd_una) & MASK
    r.phase = RECOVERY
    r.recover = r.runs.position(tcb.snd_nxt)
    r.recover_fs = flight
    r.prr_delivered = 0
    r.prr_out = 0
    r.tlp_end = NONE  # RFC 8985 7.1
    r.probe_due = False
    tcb.tlp_at = NEVER
    start_watching(tcb, r)
    tcb.stack.counters.fast_recoveries += 1
    on_congestion_event(tcb, LOSS, flight)


def _in_recovery(tcb: Tcb, r: Recovery, seg: Segment, acked: i64, duplicate: bool, sacked: bool) -> None:
    """Whether it was for nothing, whether it is over, and without SACK what is lost next."""
    if all_in_vain(r) or (acked > 0 and only_late(tcb, r, seg)):
        undo(tcb, r)
        return
    if r.phase == TIMED_OUT:
        frto_on_ack(tcb, r, acked > 0, duplicate, sacked)
        if r.phase == OPEN:
            return
    if r.runs.una >= r.recover:
        _leave_recovery(tcb, r)
    elif r.phase == RECOVERY and acked > 0 and not tcb.sack_on and not r.runs.flags(0) & LOST:
        r.runs.lose_first(tcb.smss)  # a partial acknowledgment (RFC 6582 3.2, step 3)


def _leave_recovery(tcb: Tcb, r: Recovery) -> None:
    """RecoveryPoint is acknowledged."""
    if r.phase == RECOVERY:
        leave_recovery(tcb)
    r.phase = OPEN
    forget_duplicates(r)
    r.frto = False
    r.frto_new_data = False
    narrow_reordering_window(r)


def _reduce_in_proportion(tcb: Tcb, r: Recovery, progress: bool) -> None:
    """RFC 6937 3.1: down to ssthresh as ACKs come in; below it, back up by slow start.

    ``progress``: SND.UNA has moved and nothing more was lost. Without it the growth is bounded by what has arrived
    (PRR-CRB), as Linux does.
    """
    in_flight = pipe(tcb, r)
    r.prr_delivered += r.delivered
    sndcnt: i64
    if in_flight > tcb.ssthresh:
        sndcnt = (r.prr_delivered * tcb.ssthresh + r.recover_fs - 1) // r.recover_fs - r.prr_out
    else:
        limit = r.prr_delivered - r.prr_out
        if progress:
            limit = max(limit, r.delivered) + tcb.smss
        sndcnt = min(tcb.ssthresh - in_flight, limit)
    if r.prr_out == 0:
        sndcnt = max(sndcnt, tcb.smss)  # the first retransmission leaves at once
    tcb.cwnd = in_flight + max(sndcnt, 0)
