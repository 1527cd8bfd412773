"""The one place where a connection's state changes."""

from __future__ import annotations

from mypy_extensions import i64

from utcp.core.states import FIN_WAIT_1, LAST_ACK, SYN_SENT, TRANSITIONS, State
from utcp.core.tcb import Tcb


def set_state(tcb: Tcb, new: i64) -> None:
    """Go to state ``new``: along the edges of RFC 9293 Figure 5 only."""
    old = tcb.st
    if not (TRANSITIONS[old] >> new) & 1:
        raise RuntimeError(f"no transition leads from {State(old)} to {State(new)}")
    tcb.st = new
    stack = tcb.stack
    if new == SYN_SENT:
        tcb.route.connecting += 1
    elif old == SYN_SENT:
        tcb.route.connecting -= 1
    elif FIN_WAIT_1 <= new <= LAST_ACK:
        # Two of the closing states at most lead to TIME-WAIT or CLOSED, so two instants say how long each took
        if tcb.closing_states == 0:
            tcb.closing_at = stack.now
        else:
            tcb.half_closed_at = stack.now
        tcb.closing_states |= 1 << new
    if stack.observer is not None:
        stack.tell_state_change(tcb.key, old, new)
