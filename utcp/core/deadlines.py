"""Deadlines: independent ones per connection, one entry per connection in the engine's timer wheel.

An entry is never cancelled. It counts only while ``tcb.armed_at`` says so; any other is stale and skipped. One that a
connection leaves behind counts for the next one in its slot: connections of a few milliseconds hardly need timers.
What happens when a deadline has passed is in ``utcp.core.timeouts``.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.recovery_state import OPEN, may_probe
from utcp.core.stack import NEVER
from utcp.core.states import SYN_RECEIVED, SYN_SENT
from utcp.core.tcb import Tcb
from utcp.core.user_timeout import patience_with

# How long a sender waits for a larger window before it fills a small one (RFC 9293 3.8.6.2.1: 0.1 to 1 s)
SWS_OVERRIDE: Final = 200_000_000
# Tail loss probes: what a peer may delay the ACK of a lone segment by (RFC 8985 7.2, TLP.max_ack_delay), and what
# the two ends may be late by (as Linux's TCP_TIMEOUT_MIN)
MAX_ACK_DELAY: Final = 200_000_000
PROBE_SLACK: Final = 2_000_000


def earliest_deadline(tcb: Tcb, at: i64 = NEVER) -> i64:
    """``at``, if no deadline is before that."""
    if tcb.rtx_at < at:  # no min(): it is called for each segment, and nine more calls are much, interpreted
        at = tcb.rtx_at
    if tcb.tlp_at < at:
        at = tcb.tlp_at
    if tcb.reo_at < at:
        at = tcb.reo_at
    if tcb.persist_at < at:
        at = tcb.persist_at
    if tcb.delack_at < at:
        at = tcb.delack_at
    if tcb.pace_at < at:
        at = tcb.pace_at
    if tcb.fin_wait_2_at < at:
        at = tcb.fin_wait_2_at
    if tcb.linger_at < at:
        at = tcb.linger_at
    if tcb.keepalive_at < at:
        at = tcb.keepalive_at
    return at


def arm(tcb: Tcb, at: i64) -> None:
    """Have the wheel wake the connection at ``at``, its earliest deadline, if the engine holds it still."""
    if tcb.slot >= 0:
        tcb.armed_at = at
        tcb.stack.wheel.insert(at, tcb.slot)


def disarm(tcb: Tcb) -> None:
    tcb.rtx_at = NEVER
    tcb.tlp_at = NEVER
    tcb.reo_at = NEVER
    tcb.persist_at = NEVER
    tcb.delack_at = NEVER
    tcb.pace_at = NEVER
    tcb.fin_wait_2_at = NEVER
    tcb.linger_at = NEVER
    tcb.keepalive_at = NEVER


def give_up_at(tcb: Tcb) -> i64:
    """When to stop waiting for the peer to acknowledge something (R2; RFC 9293 3.8.3, MUST-20, MUST-23)."""
    policy = tcb.policy
    if tcb.st in (SYN_SENT, SYN_RECEIVED):
        patience = policy.syn_r2
        limit = policy.syn_ack_timeout if tcb.passive else policy.connect_timeout
        if 0 <= limit < patience:
            patience = limit
        return tcb.opened_at + patience
    at = tcb.progress_at + patience_with(tcb)
    if tcb.orphan:
        at = min(at, max(tcb.progress_at, tcb.let_go_at) + _orphan_patience(tcb))
    return at


def count_patience_from_close(tcb: Tcb) -> None:
    """The user's close begins the time that an orphan has; for what is in flight R2 goes on all the same."""
    tcb.let_go_at = tcb.stack.now
    if tcb.snd_una == tcb.snd_nxt:
        tcb.progress_at = tcb.stack.now


def _orphan_patience(tcb: Tcb) -> i64:
    policy = tcb.policy
    return policy.close_timeout if tcb.flushing and unacked_data(tcb) > 0 else policy.orphan_timeout


def start_retransmission_timer(tcb: Tcb) -> None:
    """RFC 6298 5.1: now + RTO, or the moment to give up if that comes first."""
    at = tcb.stack.now + tcb.rto
    give_up = give_up_at(tcb)
    tcb.rtx_at = at if at < give_up else give_up


def start_probe_timer(tcb: Tcb) -> None:
    """The PTO (RFC 8985 7.2): sooner than the RTO, if nothing else is at work on what is in flight."""
    tcb.tlp_at = NEVER
    if not tcb.sack_on or not tcb.policy.tlp or tcb.snd_una == tcb.snd_nxt:
        return
    r = tcb.recovery
    if r is not None and (r.phase != OPEN or r.runs.sacked > 0 or not may_probe(r)):
        return
    pto: i64 = 1_000_000_000
    if tcb.srtt >= 0:
        pto = 2 * tcb.srtt + PROBE_SLACK
        if ((tcb.snd_nxt - tcb.snd_una) & 0xFFFFFFFF) <= tcb.smss:
            pto += MAX_ACK_DELAY
    at = tcb.stack.now + pto
    tcb.tlp_at = at if at < tcb.rtx_at else tcb.rtx_at


def unacked_data(tcb: Tcb) -> i64:
    """Bytes written and not yet acknowledged, sent or not."""
    queue = tcb.send_queue
    return 0 if queue is None else queue.size
