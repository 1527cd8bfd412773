"""RST and the challenge ACK: RFC 9293 3.5.2, 3.5.3, 3.10.7 and RFC 5961."""

from __future__ import annotations

import errno
from hashlib import blake2b
from typing import Final

from mypy_extensions import i64

from utcp.core.dsack import note_old
from utcp.core.output import send_reset
from utcp.core.paths import Path
from utcp.core.stack import Stack
from utcp.core.states import CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, LAST_ACK, SYN_RECEIVED
from utcp.core.tcb import Tcb
from utcp.core.teardown import REFUSED, REPLACED, RESET, enter_closed
from utcp.wire.segment import ACK, FIN, HEADER_SIZE, RST, SYN, Segment, write_header
from utcp.wire.seq import MASK

_SECOND: Final = 1_000_000_000
# RFC 9293 3.10.5: the states in which an ABORT sends a RST
RESET_ON_ABORT: Final = (
    (1 << SYN_RECEIVED) | (1 << ESTABLISHED) | (1 << FIN_WAIT_1) | (1 << FIN_WAIT_2) | (1 << CLOSE_WAIT)
)


def answer_with_reset(stack: Stack, route: Path, seg: Segment) -> None:
    """A segment that belongs to no connection (RFC 9293 3.5.2 group 1, 3.10.7.1)."""
    if seg.flags & RST:
        return
    if seg.flags & ACK:
        _write_reset(stack, route, seg, seg.ack, 0, RST)
    else:
        _write_reset(stack, route, seg, 0, (seg.seq + seg.len) & MASK, RST | ACK)


def refuse_ack(stack: Stack, route: Path, seg: Segment) -> None:
    """An ACK of something never sent, before we are synchronised: <SEQ=SEG.ACK><CTL=RST> (3.5.2 group 2)."""
    if not seg.flags & RST:
        _write_reset(stack, route, seg, seg.ack, 0, RST)


def _write_reset(stack: Stack, route: Path, seg: Segment, seq: i64, ack: i64, flags: i64) -> None:
    train = stack.trains.board(route, HEADER_SIZE, 0, -1)
    write_header(train.writer, seg.dst_port, seg.src_port, seq, ack, flags, 0, HEADER_SIZE, 0)
    stack.counters.segments_out += 1
    stack.counters.resets_out += 1
    if stack.observer is not None:
        stack.observer.segment_out(stack.now, route.index, train.payload()[-HEADER_SIZE:], False)


def check_rst(tcb: Tcb, seg: Segment) -> bool:
    """RFC 9293 3.10.7.4, second: the RST bit, on an acceptable segment. Returns whether to go on."""
    if not seg.flags & RST:
        return True
    tcb.stack.counters.resets_in += 1
    if tcb.policy.rfc5961_rst and seg.seq != tcb.rcv_nxt:
        # RFC 5961 3.2: in the window but not exactly next: the peer shall prove itself
        challenge(tcb, seg)
        return False
    on_reset(tcb)
    return False


def on_reset(tcb: Tcb) -> None:
    """A valid RST ends the connection (RFC 9293 3.10.7.4, second)."""
    tcb.reset_received = True
    if tcb.st == SYN_RECEIVED:
        # MUST-11: what began with a passive OPEN goes back to LISTEN silently, an active one was refused
        if tcb.passive:
            enter_closed(tcb, RESET, None)
        else:
            enter_closed(tcb, REFUSED, refused())
    elif tcb.st in (CLOSING, LAST_ACK) and not unacknowledged_data(tcb):
        # All that is missing is the ACK of our FIN
        enter_closed(tcb, RESET, None)
    else:
        enter_closed(tcb, RESET, ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))


def unacknowledged_data(tcb: Tcb) -> bool:
    queue = tcb.send_queue
    return queue is not None and queue.size > 0


def refused() -> ConnectionRefusedError:
    return ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def check_syn(tcb: Tcb, seg: Segment) -> bool:
    """RFC 9293 3.10.7.4, fourth: a SYN on a synchronized connection. Returns whether to go on."""
    if not seg.flags & SYN:
        return True
    if tcb.st == SYN_RECEIVED and tcb.passive and seg.seq != tcb.irs:
        # Back to LISTEN; the peer has begun anew and will repeat its SYN
        enter_closed(tcb, REPLACED, None)
        return False
    if tcb.policy.rfc5961_syn:
        challenge(tcb, seg)  # RFC 5961 4.2, whatever the sequence number
        return False
    send_reset(tcb)
    enter_closed(tcb, RESET, ConnectionResetError(errno.ECONNRESET, "Connection reset: SYN in the window"))
    return False


def challenge(tcb: Tcb, seg: Segment) -> None:
    """A challenge ACK for a RST, a SYN or an impossible ACK (RFC 5961), within the limits of its section 7.

    Answers to segments with data or FIN are never suppressed: a FIN repeated every 200 ms wants its ACK.
    """
    stack = tcb.stack
    if seg.data_len == 0 and not seg.flags & FIN:
        if not _within_interval(tcb) or not within_challenge_limit(stack):
            stack.counters.challenge_acks_suppressed += 1
            return
        tcb.challenged_at = stack.now
    stack.counters.challenge_acks += 1
    tcb.ack_now = True


def answer_unacceptable(tcb: Tcb, seg: Segment) -> None:
    """The ACK that RFC 9293 3.10.7.4, first, sends for a segment outside the window.

    Limited per connection, against loops of ACKs (Linux's tcp_invalid_ratelimit), not per engine: one peer must
    not silence the answers to other peers' window probes.
    """
    note_old(tcb, seg)
    if seg.data_len == 0 and not seg.flags & FIN:
        if not _within_interval(tcb):
            tcb.stack.counters.old_segments_unanswered += 1
            return
        tcb.challenged_at = tcb.stack.now
    tcb.ack_now = True


def _within_interval(tcb: Tcb) -> bool:
    return tcb.stack.now - tcb.challenged_at >= tcb.policy.challenge_ack_interval


def within_challenge_limit(stack: Stack) -> bool:
    """The engine's budget a second. It varies, so that it cannot be used as a side channel (CVE-2016-5696)."""
    limit = stack.policy.challenge_ack_limit
    if stack.now - stack.challenge_window_at >= _SECOND:
        stack.challenge_window_at = stack.now
        noise = blake2b(int(stack.now).to_bytes(16, "big", signed=True), key=stack.secret[:64], digest_size=4).digest()
        half = limit // 2
        stack.challenge_budget = half + int.from_bytes(noise, "big") % (limit - half + 1)
    if stack.challenge_budget <= 0:
        return False
    stack.challenge_budget -= 1
    return True
