"""SEGMENT ARRIVES: RFC 9293 3.10.7, state by state, step by step."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.acks import acknowledge_syn, check_ack, process_ack
from utcp.core.ecn import agree_on_ecn
from utcp.core.handshake import accept_options, start_receiving
from utcp.core.listener import COOKIE, NO_OLD_INCARNATION, listen_arrives
from utcp.core.paths import Path
from utcp.core.reset import answer_unacceptable, answer_with_reset, challenge, check_rst, check_syn, refuse_ack, refused
from utcp.core.stack import Stack, drop
from utcp.core.states import SYN_RECEIVED, SYN_SENT
from utcp.core.tcb import Tcb, mark_dirty
from utcp.core.teardown import REFUSED, enter_closed
from utcp.core.text import process_text
from utcp.core.time_wait import HANDLED, time_wait_arrives
from utcp.core.transition import set_state
from utcp.core.urgent import check_urg
from utcp.core.user_timeout import on_user_timeout_option
from utcp.wire.segment import ACK, FIN, OK, PARSE_ERRORS, RST, SYN, URG, Segment, parse
from utcp.wire.seq import MASK, seq_ge, seq_le, seq_lt, seq_sub

# RFC 7323 5.5: a TS.Recent older than 24 days says nothing
_TS_RECENT_MAX_AGE: Final = 24 * 86_400 * 1_000_000_000
_ACK_RST_SYN: Final = ACK | RST | SYN
_RST_SYN: Final = RST | SYN
# How far below RCV.NXT a segment may end whose ACK is still worth looking at (RFC 9293 A.2)
_RECENT: Final = 65_535


def segment_arrives(stack: Stack, route: Path, buf: bytes, start: i64, end: i64) -> None:
    """One segment, ``buf[start:end]``, from the network. Never raises: what is wrong is counted and dropped."""
    seg = stack.seg
    stack.counters.segments_in += 1
    if stack.observer is not None:
        if stack.ecn != 0:
            stack.observer.ecn_field(stack.now, route.index, stack.ecn)
        stack.observer.segment_in(stack.now, route.index, buf[start:end])
    error = parse(seg, buf, start, end)
    if error != OK:
        seg.buf = buf
        drop(stack, seg, start, end, route.index, PARSE_ERRORS[error])
        return
    if seg.src_port == 0 or seg.dst_port == 0:
        drop(stack, seg, start, end, route.index, "port-zero")
        return
    key = (route.index << 32) | (seg.dst_port << 16) | seg.src_port  # connection_key, without the call
    tcb = stack.connections.get(key)
    if tcb is not None:
        tcb.segments_in += 1
        if route.soft_error:
            route.soft_error = ""  # whatever it was, it has passed
        reason = _connection_arrives(tcb, seg)
        if not tcb.dirty and not tcb.done:
            mark_dirty(tcb)
    else:
        reason = _no_connection_arrives(stack, route, key, seg)
    if reason:
        drop(stack, seg, start, end, route.index, reason)


def _no_connection_arrives(stack: Stack, route: Path, key: i64, seg: Segment) -> str:
    """TIME-WAIT, LISTEN or CLOSED."""
    old_snd_nxt: i64 = NO_OLD_INCARNATION
    record = stack.time_wait.find(key)
    if record >= 0:
        old_snd_nxt = time_wait_arrives(stack, route, record, seg)
        if old_snd_nxt == HANDLED:
            return ""
    listener = stack.listeners.get(seg.dst_port)
    if listener is not None:
        reason = listen_arrives(stack, route, listener, seg, old_snd_nxt)
        if reason != COOKIE:
            return reason
        tcb = stack.connections.get(key)
        assert tcb is not None
        mark_dirty(tcb)
        return _connection_arrives(tcb, seg)
    if not seg.flags & _ACK_RST_SYN:
        return "no-flags"
    answer_with_reset(stack, route, seg)
    return "closed-port"


def _connection_arrives(tcb: Tcb, seg: Segment) -> str:
    """Returns why the segment had no effect at all, "" if it had some."""
    if tcb.st == SYN_SENT:
        return _syn_sent_arrives(tcb, seg)
    flags = seg.flags
    if not flags & _ACK_RST_SYN:
        return "no-flags"
    if flags & SYN and tcb.st == SYN_RECEIVED and seg.seq == tcb.irs and not flags & RST:
        _syn_again(tcb, seg)
        return ""
    # RFC 9293 3.10.7.4 (the third step, security, does not apply: no compartments here)
    if tcb.ts_on and not _check_timestamp(tcb, seg):
        return "paws" if seg.ts else "no-timestamp"
    if not _check_sequence(tcb, seg):  # first
        return _out_of_window(tcb, seg)
    if flags & _RST_SYN:
        if not check_rst(tcb, seg):  # second
            return ""
        if not check_syn(tcb, seg):  # fourth
            return "syn-on-synchronized"
    if not flags & ACK:
        return "no-ack"
    if not check_ack(tcb, seg):  # fifth
        return ""
    _keep_timestamp(tcb, seg)
    if seg.user_timeout >= 0:
        on_user_timeout_option(tcb, seg)
    if flags & URG:
        check_urg(tcb, seg)  # sixth
    process_text(tcb, seg)  # seventh and eighth
    return ""


# SYN-SENT: RFC 9293 3.10.7.3


def _syn_sent_arrives(tcb: Tcb, seg: Segment) -> str:
    stack = tcb.stack
    acceptable_ack = False
    if seg.flags & ACK:  # first
        if seg.ack != tcb.snd_nxt or seg.ack == tcb.iss:  # ISS < SEG.ACK =< SND.NXT, which is ISS + 1 at most
            refuse_ack(stack, tcb.route, seg)
            return "syn-sent-bad-ack"
        acceptable_ack = True
    if seg.flags & RST:  # second
        if not acceptable_ack:
            return "syn-sent-rst"
        stack.counters.resets_in += 1
        tcb.reset_received = True
        enter_closed(tcb, REFUSED, refused())
        return ""
    if not seg.flags & SYN:  # fourth, fifth
        return "syn-sent-no-syn"
    if seg.flags & FIN and tcb.policy.drop_syn_fin:
        return "syn-fin"
    accept_options(tcb, seg)
    if seg.user_timeout >= 0:
        on_user_timeout_option(tcb, seg)
    start_receiving(tcb, seg)
    if acceptable_ack:
        acknowledge_syn(tcb, seg)
        tcb.ack_now = True
        tcb.ack_can_wait = True
        # Data with a SYN-ACK is left to be sent again, as in LISTEN; a FIN with it is not processed
    else:
        set_state(tcb, SYN_RECEIVED)  # simultaneous open (MUST-10)
        tcb.syn_due = True
    return ""


# The other states: RFC 9293 3.10.7.4


def _syn_again(tcb: Tcb, seg: Segment) -> None:
    """The peer's SYN once more, while we are in SYN-RECEIVED: below the window by its number."""
    if tcb.ecn is not None:
        agree_on_ecn(tcb, seg)  # it may have given up ECN (RFC 3168 6.1.1.1)
    if seg.flags & ACK:
        # Simultaneous open (RFC 9293 figure 7, line 6; A.2): it acknowledges our SYN
        tcb.ack_now = True
        check_ack(tcb, seg)
    else:
        # Deviation: our SYN-ACK again helps the peer, the bare ACK of the first step would not
        if tcb.ts_on and seg.ts and seq_ge(seg.ts_val, tcb.ts_recent):
            tcb.ts_recent = seg.ts_val  # else the peer would take all the time since its first SYN for a round trip
        tcb.syn_lost = True
        tcb.syn_due = True


def _check_timestamp(tcb: Tcb, seg: Segment) -> bool:
    """PAWS (RFC 7323 5.3 R1). Returns whether to go on."""
    if seg.flags & RST:
        return True
    if not seg.ts:
        # RFC 7323 3.2: a non-RST segment without the option is silently dropped; but a SYN gets its challenge
        return seg.flags & SYN != 0
    if (
        seg.ts_val != tcb.ts_recent
        and seq_lt(seg.ts_val, tcb.ts_recent)
        and tcb.stack.now - tcb.ts_recent_at < _TS_RECENT_MAX_AGE
    ):
        answer_unacceptable(tcb, seg)
        return False
    return True


def _check_sequence(tcb: Tcb, seg: Segment) -> bool:
    """First: RFC 9293 3.10.7.4, table 6, on the window that we have advertised. Returns whether to go on."""
    if seg.seq == tcb.rcv_nxt:
        # Into a closed window too: its ACK, RST, URG and FIN are valid (MUST-66), data will be trimmed away
        return True
    offset: i64 = seq_sub(seg.seq, tcb.rcv_nxt)
    window: i64 = seq_sub(tcb.rcv_adv, tcb.rcv_nxt)
    if offset > 0:
        return offset < window
    last: i64 = offset + seg.len - 1
    return last >= 0 and window > 0


def _out_of_window(tcb: Tcb, seg: Segment) -> str:
    """Not acceptable: <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, unless it is a RST."""
    if seg.flags & RST:
        return "out-of-window"
    if seg.flags & SYN:
        challenge(tcb, seg)
        return "syn-on-synchronized"
    answer_unacceptable(tcb, seg)
    if not _recent(tcb, seg):
        return "out-of-window"
    # RFC 9293 A.2: old in sequence, yet it may carry a new ACK (crossing FINs, probes into a closed window)
    _keep_timestamp(tcb, seg)
    process_ack(tcb, seg)
    return ""


def _keep_timestamp(tcb: Tcb, seg: Segment) -> None:
    """RFC 7323 4.3 (2), of a segment whose ACK is good; PAWS has seen that TS.Recent is no newer, or outdated.

    Deviation: also of a segment that was sent again because our ACK was lost, as Linux does. Echoing the first
    one's timestamp would make the peer take all the time since for one round trip.
    """
    if tcb.ts_on and seg.ts and (seg.seq == tcb.last_ack_sent or seq_le(seg.seq, tcb.last_ack_sent)):
        tcb.ts_recent = seg.ts_val
        tcb.ts_recent_at = tcb.stack.now


def _recent(tcb: Tcb, seg: Segment) -> bool:
    """A segment that ends at or a little before RCV.NXT, with an ACK that RFC 5961 5.2 would accept."""
    if seg.flags & SYN or not seg.flags & ACK or tcb.st == SYN_RECEIVED:
        return False
    behind: i64 = seq_sub(tcb.rcv_nxt, (seg.seq + seg.len) & MASK)
    return 0 <= behind <= _RECENT and seq_ge(seg.ack, tcb.snd_una) and seq_le(seg.ack, tcb.snd_nxt)
