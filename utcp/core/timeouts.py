"""What happens when a deadline has passed (RFC 9293 3.10.8 and the mechanisms' own RFCs)."""

from __future__ import annotations

import errno

from mypy_extensions import i64

from utcp.core.closing import abort, lost_data
from utcp.core.deadlines import give_up_at, start_retransmission_timer
from utcp.core.output import send_probe, send_reset
from utcp.core.path_mtu import suspect_black_hole
from utcp.core.recovery import enter_timeout, on_reordering_timeout
from utcp.core.recovery_state import may_probe, open_scoreboard
from utcp.core.rtt import back_off
from utcp.core.stack import NEVER
from utcp.core.states import SYN_RECEIVED, SYN_SENT
from utcp.core.tcb import Tcb, mark_dirty
from utcp.core.teardown import FIN_WAIT_2_EXPIRED, LINGER_EXPIRED, TIMED_OUT, enter_closed


def run_deadlines(tcb: Tcb) -> None:
    """Act on every deadline of the connection that has passed; ``output`` sends what is due then, and arms the rest."""
    stack = tcb.stack
    now = stack.now
    if tcb.delack_at <= now:
        stack.tell_timer(tcb.key, "delayed-ack")
        tcb.delack_at = NEVER
        tcb.ack_now = True
    if tcb.reo_at <= now:
        _on_reordering_timeout(tcb)
    if tcb.tlp_at <= now:
        _on_probe_timeout(tcb)
    if tcb.pace_at <= now:
        stack.tell_timer(tcb.key, "pacing")
        tcb.pace_at = NEVER
    if tcb.rtx_at <= now:
        _on_retransmission_timeout(tcb)
    if tcb.persist_at <= now:
        _on_persist_timeout(tcb)
    if tcb.linger_at <= now:
        stack.tell_timer(tcb.key, "linger")
        abort(tcb, LINGER_EXPIRED, lost_data(tcb, "the linger time is over"))
    if tcb.keepalive_at <= now:
        _on_keepalive(tcb)
    if tcb.fin_wait_2_at <= now:
        # Deviation: RFC 9293 3.6 knows no such timer; without it a peer that never closes would hold an
        # orphan for ever
        stack.tell_timer(tcb.key, "fin-wait-2")
        enter_closed(tcb, FIN_WAIT_2_EXPIRED, None)
    if not tcb.done:
        mark_dirty(tcb)


def _on_retransmission_timeout(tcb: Tcb) -> None:
    """RFC 6298 5.4 to 5.7."""
    stack = tcb.stack
    stack.tell_timer(tcb.key, "retransmit")
    if stack.now >= give_up_at(tcb):
        _give_up(tcb)
        return
    if tcb.st in (SYN_SENT, SYN_RECEIVED):
        tcb.syn_lost = True
        tcb.syn_due = True
        back_off(tcb)
    else:
        suspect_black_hole(tcb)
        enter_timeout(tcb)
        back_off(tcb)
        start_retransmission_timer(tcb)
    if tcb.rtx_count == tcb.policy.r1:
        stack.tell_timer(tcb.key, "r1")  # MUST-20 (a): the advice that this path may be dead


def _on_reordering_timeout(tcb: Tcb) -> None:
    """RFC 8985 6.2, step 5: what was late is lost."""
    tcb.stack.tell_timer(tcb.key, "reordering")
    tcb.reo_at = NEVER
    r = tcb.recovery
    if r is not None:
        on_reordering_timeout(tcb, r)


def _on_probe_timeout(tcb: Tcb) -> None:
    """The PTO: ask for an ACK by a tail loss probe, once for each flight (RFC 8985 7.3)."""
    stack = tcb.stack
    tcb.tlp_at = NEVER
    if stack.now >= give_up_at(tcb):
        return  # which is the retransmission timer's
    stack.tell_timer(tcb.key, "loss-probe")
    r = open_scoreboard(tcb)
    r.probe_due = may_probe(r)
    start_retransmission_timer(tcb)


def _on_persist_timeout(tcb: Tcb) -> None:
    """Probe a closed window; send into one that is merely small (RFC 9293 3.8.6.1, MUST-35, MUST-36)."""
    stack = tcb.stack
    stack.tell_timer(tcb.key, "persist")
    if tcb.snd_wnd > 0:
        tcb.push_now = True  # the override of 3.8.6.2.1: the window will not get larger by waiting
        tcb.persist_at = NEVER
        return
    if stack.now >= give_up_at(tcb):
        _give_up(tcb)
        return
    tcb.rtx_count += 1
    if tcb.progress_at > tcb.probed_at and not tcb.orphan:
        tcb.progress_at = stack.now  # the last probe was answered: patience begins with this one
    tcb.probed_at = stack.now
    send_probe(tcb)
    interval: i64 = min(tcb.rto << min(tcb.rtx_count, 16), tcb.policy.persist_max)
    tcb.persist_at = min(stack.now + interval, give_up_at(tcb))


def _on_keepalive(tcb: Tcb) -> None:
    """Probe an idle peer; give it up after several probes, never after one (RFC 9293 3.8.4, MUST-26, MUST-29)."""
    stack = tcb.stack
    policy = tcb.policy
    idle = stack.now - tcb.heard_at
    if tcb.snd_una != tcb.snd_nxt or tcb.persist_at != NEVER:
        tcb.keepalive_at = stack.now + policy.keepalive_idle  # not idle: other timers watch the peer
        return
    if idle < policy.keepalive_idle and tcb.keepalive_probes == 0:
        tcb.keepalive_at = tcb.heard_at + policy.keepalive_idle
        return
    stack.tell_timer(tcb.key, "keepalive")
    limit = policy.user_timeout
    dead = idle >= limit if limit >= 0 else tcb.keepalive_probes >= policy.keepalive_count
    if dead and tcb.keepalive_probes > 1:
        stack.counters.timeouts += 1
        send_reset(tcb)
        text = f"Connection timed out: {tcb.keepalive_probes} keepalive probes unanswered"
        enter_closed(tcb, TIMED_OUT, TimeoutError(errno.ETIMEDOUT, text))
        return
    tcb.keepalive_probes += 1
    send_probe(tcb)
    tcb.keepalive_at = stack.now + policy.keepalive_interval


def _give_up(tcb: Tcb) -> None:
    """R2 has passed (MUST-20 (b)): delete the connection, tell the user."""
    stack = tcb.stack
    stack.counters.timeouts += 1
    if tcb.st in (SYN_SENT, SYN_RECEIVED):
        tries = tcb.syn_count
        text = f"Connection timed out: no answer to {tries} SYN{'s' if tries != 1 else ''}"
    else:
        seconds = int(stack.now - tcb.progress_at) / 1e9
        text = f"Connection timed out: nothing acknowledged for {seconds:.3g} s, {tcb.rtx_count} retransmissions"
    if tcb.route.soft_error:
        text += f" (last error on the path: {tcb.route.soft_error})"
    if tcb.orphan and tcb.snd_wnd == 0 and tcb.persist_at != NEVER:
        send_reset(tcb)  # the peer lives: tell it (RFC 2525 2.17)
    enter_closed(tcb, TIMED_OUT, TimeoutError(errno.ETIMEDOUT, text))
