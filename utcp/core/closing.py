"""Closing: the FIN, ours and the peer's, from the user's CLOSE to TIME-WAIT or CLOSED (RFC 9293 3.6, 3.10.4)."""

from __future__ import annotations

import errno

from mypy_extensions import i64

from utcp.core.deadlines import count_patience_from_close, give_up_at, unacked_data
from utcp.core.output import send_reset
from utcp.core.reset import RESET_ON_ABORT
from utcp.core.stack import NEVER
from utcp.core.states import (
    CLOSE_WAIT,
    CLOSING,
    EOF,
    ESTABLISHED,
    FIN_ACKED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    SYN_SENT,
)
from utcp.core.tcb import Tcb, count_held, mark_dirty, mark_ready
from utcp.core.teardown import (
    ABORTED,
    CLOSED_EARLY,
    GRACEFUL,
    TOO_MANY_ORPHANS,
    UNREAD_DATA,
    become_orphan,
    enter_closed,
    enter_time_wait,
)
from utcp.core.transition import set_state
from utcp.wire.seq import MASK

# The user's side


def close_sending_side(tcb: Tcb) -> None:
    """Queue our FIN behind all data. The state changes now, not when the FIN leaves (RFC 9293 3.10.4)."""
    if tcb.fin_queued:
        return
    tcb.fin_queued = True
    if tcb.snd_una == tcb.snd_nxt:
        tcb.progress_at = tcb.stack.now
    # else R2 goes on: it is about the first segment in flight, not about the user's calls (RFC 9293 3.8.3)
    if tcb.st == ESTABLISHED:
        set_state(tcb, FIN_WAIT_1)
    elif tcb.st == CLOSE_WAIT:
        set_state(tcb, LAST_ACK)
    # SYN-SENT, SYN-RECEIVED: carried out when ESTABLISHED is reached
    mark_dirty(tcb)


def close(tcb: Tcb, flush: bool, lingering: i64 = -1) -> None:
    """The user's CLOSE: nothing more to send, and nothing more will be read.

    Unread data means RST instead of FIN, so that the peer learns of the loss (RFC 1122 4.2.2.13, SHLD-3): at
    once, or with ``flush`` only when what was written has been acknowledged.

    ``lingering`` nanoseconds, if not negative, are given to the whole of it instead, during which unread data is no
    reason for a RST: the peer may go on sending until it has read all of ours (RFC 9112 9.6).
    """
    if tcb.done or tcb.orphan:
        return
    if tcb.st == SYN_SENT:
        enter_closed(tcb, CLOSED_EARLY, None)
        return
    if tcb.policy.linger == 0 and lingering < 0:
        abort(tcb, ABORTED, None)
        return
    stop_reading(tcb)
    if not become_orphan(tcb):
        tcb.stack.counters.orphans_dropped += 1
        abort(tcb, TOO_MANY_ORPHANS, lost_data(tcb, "too many connections are being closed"))
        return
    if lingering >= 0:
        tcb.lingering = True
        tcb.linger_at = tcb.stack.now + lingering
    elif tcb.policy.linger > 0 and not tcb.fin_acked:
        tcb.linger_at = tcb.stack.now + tcb.policy.linger
    tcb.flushing = flush
    count_patience_from_close(tcb)
    if tcb.discarded > 0 and not tcb.lingering:
        reset_for_unread_data(tcb)
    else:
        close_sending_side(tcb)
    if tcb.st == FIN_WAIT_2 and not tcb.lingering:
        tcb.fin_wait_2_at = tcb.stack.now + tcb.policy.fin_timeout
    # An orphan's patience is shorter
    if tcb.rtx_at != NEVER:
        tcb.rtx_at = min(tcb.rtx_at, give_up_at(tcb))
    if tcb.persist_at != NEVER:
        tcb.persist_at = min(tcb.persist_at, give_up_at(tcb))
    mark_dirty(tcb)


def stop_reading(tcb: Tcb) -> None:
    """From now on arriving data is acknowledged and discarded; what lies unread is lost."""
    tcb.shut_rd = True
    tcb.window_update = True
    queue = tcb.receive_queue
    if queue is not None:
        tcb.discarded += queue.clear()
        count_held(tcb)


def reset_for_unread_data(tcb: Tcb) -> None:
    """RST in place of FIN; while flushing, only after the last byte of ours is acknowledged."""
    if tcb.flushing and unacked_data(tcb) > 0:
        tcb.reset_when_flushed = True
        tcb.fin_queued = tcb.fin_sent
        if tcb.st == ESTABLISHED:
            set_state(tcb, FIN_WAIT_1)
        elif tcb.st == CLOSE_WAIT:
            set_state(tcb, LAST_ACK)
        return
    abort(tcb, UNREAD_DATA, None)


def lost_data(tcb: Tcb, why: str) -> ConnectionAbortedError | None:
    """The error for an end that was not the user's and not the peer's; None if it lost nothing."""
    lost = unacked_data(tcb)
    if lost == 0:
        return None
    return ConnectionAbortedError(errno.ECONNABORTED, f"Connection aborted: {why}, {lost} bytes unacknowledged")


def abort(tcb: Tcb, reason: str, error: Exception | None) -> None:
    """The user's ABORT, or an end like it: RST where RFC 9293 3.10.5 has one, silence elsewhere."""
    if tcb.done:
        return
    if (RESET_ON_ABORT >> tcb.st) & 1 or (tcb.st in (CLOSING, LAST_ACK) and not _all_but_fin_acked(tcb)):
        send_reset(tcb)
    enter_closed(tcb, reason, error)


def _all_but_fin_acked(tcb: Tcb) -> bool:
    """The RFC has its FIN sent when it enters CLOSING and LAST-ACK; ours may still queue behind data."""
    return tcb.fin_sent and unacked_data(tcb) == 0


# The peer's acknowledgment of our FIN, and of everything before it


def on_flushed(tcb: Tcb) -> None:
    """More of our data is acknowledged; a reset may have waited for the last of it."""
    if tcb.reset_when_flushed and unacked_data(tcb) == 0:
        abort(tcb, UNREAD_DATA, None)


def on_fin_acked(tcb: Tcb) -> bool:
    """RFC 9293 3.10.7.4, fifth: our FIN is acknowledged. Returns whether the segment is to be looked at further."""
    tcb.fin_acked = True
    mark_ready(tcb, FIN_ACKED)
    if tcb.st == FIN_WAIT_1:
        set_state(tcb, FIN_WAIT_2)
        if tcb.lingering:
            return True  # until the peer's FIN, or the end of its time
        if tcb.orphan:
            # The peer may never close, and nobody is waiting for it any more
            tcb.fin_wait_2_at = tcb.stack.now + tcb.policy.fin_timeout
        tcb.linger_at = NEVER
        return True
    if tcb.st == CLOSING:
        enter_time_wait(tcb)
        return False
    if tcb.st == LAST_ACK:
        enter_closed(tcb, GRACEFUL, None)
        return False
    return True


# The peer's FIN


def on_fin(tcb: Tcb) -> None:
    """RFC 9293 3.10.7.4, eighth: RCV.NXT has reached the peer's FIN."""
    tcb.rcv_nxt = (tcb.rcv_nxt + 1) & MASK
    tcb.fin_received = True
    tcb.ack_now = True
    mark_ready(tcb, EOF)
    if tcb.st == ESTABLISHED:
        tcb.ack_can_wait = True
        set_state(tcb, CLOSE_WAIT)
    elif tcb.st == FIN_WAIT_1:
        # Had this segment acknowledged our FIN, the state would be FIN-WAIT-2 by now
        set_state(tcb, CLOSING)
    elif tcb.st == FIN_WAIT_2:
        enter_time_wait(tcb)
