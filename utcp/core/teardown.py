"""The end of a connection on this side: its TCB leaves the engine, its user is told why."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.deadlines import disarm
from utcp.core.output import send_ack
from utcp.core.stack import NEVER, Stack
from utcp.core.states import CLOSED, CLOSED_BIT, SYN_RECEIVED, SYN_SENT, TIME_WAIT
from utcp.core.tcb import Tcb, mark_ready
from utcp.core.trains import NOBODY
from utcp.core.transition import set_state

# Why a connection ended: what observers and CloseInfo say
GRACEFUL: Final = "graceful"
RESET: Final = "reset-by-peer"
ABORTED: Final = "aborted"
REFUSED: Final = "refused"
TIMED_OUT: Final = "timed-out"
UNREAD_DATA: Final = "unread-data"  # closed by the user with data unread: RST (SHLD-3)
LINGER_EXPIRED: Final = "linger-expired"  # SO_LINGER's time, or that of a lingering close
REPLACED: Final = "replaced"  # in SYN-RECEIVED, by a new SYN of the peer
TOO_MANY_ORPHANS: Final = "too-many-orphans"
NOT_ACCEPTED: Final = "not-accepted"  # its listener closed first
CLOSED_EARLY: Final = "closed-before-established"
FIN_WAIT_2_EXPIRED: Final = "fin-wait-2-expired"
ENDPOINT_CLOSED: Final = "endpoint-closed"  # its socket went first, by the user's will; data and FIN were acknowledged


def enter_closed(tcb: Tcb, reason: str, error: Exception | None) -> None:
    """Delete the TCB; enter CLOSED. ``error`` is what the user gets to see, None for an end that lost nothing."""
    if tcb.st in (SYN_SENT, SYN_RECEIVED):
        tcb.stack.counters.failed_opens += 1
        if tcb.listener is not None:
            tcb.listener.embryonic -= 1
            tcb.stack.half_open -= 1
    set_state(tcb, CLOSED)
    _release(tcb)
    _finish(tcb, reason, error)


def enter_time_wait(tcb: Tcb) -> None:
    """Delete the TCB, leaving a record of it for 2MSL (MUST-13)."""
    stack = tcb.stack
    set_state(tcb, TIME_WAIT)
    if tcb.ack_now:
        send_ack(tcb)  # at once: the record below must know the last timestamp we used
    _release(tcb)
    wnd: i64 = ((tcb.rcv_adv - tcb.rcv_nxt) & 0xFFFFFFFF) >> tcb.rcv_wscale
    stack.time_wait.insert(
        tcb.key,
        tcb.snd_nxt,
        tcb.rcv_nxt,
        wnd,
        tcb.ts_on,
        tcb.ts_recent,
        stack.ts_now(tcb.ts_offset),
        stack.now,
        2 * tcb.policy.msl,
    )
    tcb.route.users += 1
    _finish(tcb, GRACEFUL, None)
    evict_time_wait(stack, stack.policy.max_time_wait)


def evict_time_wait(stack: Stack, limit: i64) -> None:
    """Keep the table below its cap: the record that would expire first goes first."""
    while len(stack.time_wait) > limit:
        stack.counters.time_wait_evicted += 1
        time_wait_ended(stack, stack.time_wait.pop_oldest())


def time_wait_ended(stack: Stack, key: i64) -> None:
    """A TIME-WAIT record has been removed: the connection is CLOSED."""
    path = stack.paths.get(key >> 32)
    if path is not None:
        path.users -= 1
    if stack.observer is not None:
        stack.tell_state_change(key, TIME_WAIT, CLOSED)


def adopt(tcb: Tcb) -> None:
    """Put a new TCB into the engine's table."""
    tcb.stack.connections.add(tcb)
    tcb.route.users += 1


def become_orphan(tcb: Tcb) -> bool:
    """The user has let go. False if there are too many orphans: then this one, the newest, must be reset (Linux
    tcp_max_orphans)."""
    tcb.orphan = True
    tcb.stack.orphans += 1
    return tcb.stack.orphans <= tcb.stack.policy.max_orphans


def _release(tcb: Tcb) -> None:
    stack = tcb.stack
    stack.connections.remove(tcb)
    tcb.slot = NOBODY
    tcb.armed_at = NEVER
    disarm(tcb)
    tcb.route.users -= 1
    if tcb.orphan:
        stack.orphans -= 1
    stack.held -= tcb.held
    tcb.held = 0
    tcb.reassembly = None
    tcb.recovery = None
    tcb.dup_acks_due = 0


def _finish(tcb: Tcb, reason: str, error: Exception | None) -> None:
    tcb.done = True
    tcb.ended_at = tcb.stack.now
    tcb.reason = reason
    tcb.error = error
    if tcb.stack.observer is not None:
        tcb.stack.tell_closed(tcb.key, reason)
    if tcb.syn_acked or not tcb.passive:  # else no user has heard of it
        mark_ready(tcb, CLOSED_BIT)
