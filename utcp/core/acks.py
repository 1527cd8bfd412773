"""RFC 9293 3.10.7.4, fifth: the ACK field. What is acknowledged leaves the queue; the send window moves."""

from __future__ import annotations

from mypy_extensions import i64

from utcp.core.closing import on_fin_acked, on_flushed
from utcp.core.congestion.window import on_acked, start_algorithm
from utcp.core.deadlines import SWS_OVERRIDE, start_probe_timer, start_retransmission_timer
from utcp.core.ecn import on_echo
from utcp.core.handshake import establish
from utcp.core.recovery import let_go, on_ack
from utcp.core.recovery_state import open_scoreboard
from utcp.core.reset import challenge, refuse_ack
from utcp.core.rtt import measure
from utcp.core.stack import NEVER
from utcp.core.states import ACKED, SYN_RECEIVED
from utcp.core.tcb import Tcb, mark_ready
from utcp.wire.segment import ECE, SYN, Segment
from utcp.wire.seq import MASK, seq_ge, seq_le, seq_lt, seq_sub


def check_ack(tcb: Tcb, seg: Segment) -> bool:
    """The fifth step. Returns whether to go on."""
    if tcb.st == SYN_RECEIVED:
        if not (seq_lt(tcb.snd_una, seg.ack) and seq_le(seg.ack, tcb.snd_nxt)):
            refuse_ack(tcb.stack, tcb.route, seg)
            return False
        acknowledge_syn(tcb, seg)
    elif seg.ack != tcb.snd_nxt and not _plausible(tcb, seg):
        challenge(tcb, seg)
        return False
    return process_ack(tcb, seg)


def _plausible(tcb: Tcb, seg: Segment) -> bool:
    """RFC 5961 5.2 (MAY-12): SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT."""
    behind: i64 = seq_sub(tcb.snd_una, seg.ack)
    if behind > 0:
        return behind <= tcb.max_snd_wnd
    return seq_le(seg.ack, tcb.snd_nxt)


def acknowledge_syn(tcb: Tcb, seg: Segment) -> None:
    """Our SYN is acknowledged: ESTABLISHED, with the window of this very segment."""
    tcb.syn_acked = True
    tcb.snd_una = (tcb.iss + 1) & MASK
    tcb.rtt_round = tcb.snd_una
    if not tcb.syn_lost:
        measure(tcb, seg)
    tcb.rtt_at = NEVER
    _set_window(tcb, seg)
    listener = tcb.listener
    establish(tcb)
    if listener is not None:
        listener.on_established(tcb)


def process_ack(tcb: Tcb, seg: Segment) -> bool:
    """SEG.ACK on a synchronized connection, already found plausible. Returns whether to go on."""
    tcb.heard_at = tcb.stack.now
    tcb.keepalive_probes = 0
    flight: i64 = (tcb.snd_nxt - tcb.snd_una) & MASK
    acked: i64 = (seg.ack - tcb.snd_una) & MASK
    if acked > flight:
        acked = -1  # an old one
    duplicate = acked == 0 and flight > 0 and _duplicate(tcb, seg)
    if flight > 0 and (seg.sack if tcb.sack_on else duplicate):
        open_scoreboard(tcb)
    if acked > 0:
        fin_acked = _advance(tcb, seg, acked, flight)
        _update_window(tcb, seg)
        if tcb.reset_when_flushed:
            on_flushed(tcb)
            if tcb.done:
                return False
        if fin_acked:
            return on_fin_acked(tcb)
        return True
    r = tcb.recovery
    if r is not None:
        on_ack(tcb, r, seg, 0, flight, duplicate)
        if flight == 0:
            let_go(tcb, r)
        elif r.runs.sacked > 0:
            tcb.tlp_at = NEVER  # RFC 8985 7.2: RACK is at work
    if acked == 0:
        if seg.flags & ECE:
            on_echo(tcb, flight)
        _update_window(tcb, seg)
        if (tcb.persist_at != NEVER or tcb.snd_wnd == 0) and not tcb.orphan:
            # The peer lives, its window may stay closed as long as it likes (MUST-37), also around what is in
            # flight (SHLD-17); an orphan has less time
            tcb.progress_at = tcb.stack.now
    return True


def _duplicate(tcb: Tcb, seg: Segment) -> bool:
    """RFC 5681 2, (b) to (e), of an ACK of nothing new while something is in flight.

    One that repeats a closed window says that, and not that something was lost.
    """
    return seg.len == 0 and tcb.snd_wnd > 0 and seg.wnd << tcb.snd_wscale == tcb.snd_wnd


def _advance(tcb: Tcb, seg: Segment, acked: i64, flight: i64) -> bool:
    """SND.UNA <- SEG.ACK. Returns whether that acknowledged our FIN."""
    fin_acked = tcb.fin_sent and not tcb.fin_acked and seg.ack == tcb.snd_nxt
    data = acked - 1 if fin_acked else acked
    if data > 0 and tcb.congestion is None:
        start_algorithm(tcb)
    tcb.snd_una = seg.ack
    queue = tcb.send_queue
    if queue is not None and data > 0:
        queue.ack(data)
        if queue.size == 0:
            mark_ready(tcb, ACKED)
    measure(tcb, seg)
    r = tcb.recovery
    if r is not None:
        on_ack(tcb, r, seg, acked, flight, False)
    elif data > 0:
        on_acked(tcb, data, data, 0, flight, False, False)
    if seg.flags & ECE and data > 0:
        on_echo(tcb, flight)
    tcb.progress_at = tcb.stack.now
    tcb.rtx_count = 0
    # RFC 6298 5.2, 5.3
    if acked == flight:
        tcb.rtx_at = NEVER
        tcb.tlp_at = NEVER
        if r is not None:
            let_go(tcb, r)
    else:
        start_retransmission_timer(tcb)
        start_probe_timer(tcb)
    return fin_acked


def _update_window(tcb: Tcb, seg: Segment) -> None:
    """RFC 9293 3.10.7.4: unless the segment is older than the one the window was last taken from."""
    if tcb.snd_wl1 == seg.seq:
        if seq_ge(seg.ack, tcb.snd_wl2):
            _set_window(tcb, seg)
    elif seq_lt(tcb.snd_wl1, seg.seq):
        _set_window(tcb, seg)


def _set_window(tcb: Tcb, seg: Segment) -> None:
    wnd = seg.wnd
    if not seg.flags & SYN:
        wnd <<= tcb.snd_wscale  # RFC 7323 2.2
    tcb.snd_wnd = wnd
    tcb.snd_wl1 = seg.seq
    tcb.snd_wl2 = seg.ack
    if wnd > tcb.max_snd_wnd:
        tcb.max_snd_wnd = wnd
    if wnd > 0 and tcb.persist_at != NEVER:
        # Open again, if only a little: no more probes, the override of 3.8.6.2.1 instead
        tcb.rtx_count = 0
        tcb.persist_at = min(tcb.persist_at, tcb.stack.now + SWS_OVERRIDE)
