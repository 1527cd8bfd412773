"""What gets sent next: the only place where a connection's segments are built.

The steps that process input set intents on the TCB; ``output`` looks at them once before the trains leave, so
that one segment answers for all the input of a tick (RFC 9293 MUST-58, MUST-59).
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.congestion.window import restart_after_idle
from utcp.core.deadlines import SWS_OVERRIDE, arm, start_retransmission_timer
from utcp.core.pacing import charge, train_allowance, unpaced_flight
from utcp.core.rtt import time_segment
from utcp.core.stack import NEVER
from utcp.core.states import (
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    LAST_ACK,
    RECEIVING,
    SENT,
    SYN_RECEIVED,
)
from utcp.core.tcb import Tcb, mark_ready, queued_bytes, short_of_memory
from utcp.core.trains import Train
from utcp.core.urgent import urgent_pointer
from utcp.core.user_timeout import advertised_timeout
from utcp.wire.segment import (
    ACK,
    FIN,
    HEADER_SIZE,
    PSH,
    RST,
    SYN,
    URG,
    USER_TIMEOUT_SIZE,
    syn_options_size,
    write_header,
    write_sack,
    write_syn_options,
    write_timestamps,
    write_user_timeout,
)
from utcp.wire.seq import MASK, seq_ge, seq_gt, seq_lt, seq_sub

MAX_WINDOW: Final = 65_535
# States in which data and FIN are sent or sent again
SENDING: Final = (1 << ESTABLISHED) | (1 << CLOSE_WAIT) | (1 << FIN_WAIT_1) | (1 << CLOSING) | (1 << LAST_ACK)


def output(tcb: Tcb) -> None:
    """Send what the connection's intents, queue and windows call for, and arm its timer."""
    tcb.dirty = False
    if tcb.st == CLOSED:
        return
    if tcb.syn_due:
        send_syn(tcb)
    elif (SENDING >> tcb.st) & 1:
        if tcb.rtx_nxt != tcb.rtx_end:
            _retransmit(tcb)
        if not tcb.fin_sent:
            _send_new(tcb)
    if tcb.window_update:
        _consider_window_update(tcb)
    if tcb.dup_acks_due > 0:
        # One for each out-of-order segment: the peer counts them (RFC 5681 4.2)
        while tcb.dup_acks_due > 0:
            tcb.dup_acks_due -= 1
            send_ack(tcb)
    elif tcb.ack_now:
        send_ack(tcb)
    arm(tcb)


# Segments


def send_syn(tcb: Tcb) -> None:
    """SYN, or SYN-ACK in SYN-RECEIVED; the first one or one more."""
    stack = tcb.stack
    tcb.syn_due = False
    tcb.syn_count += 1
    flags: i64 = SYN
    ack: i64 = 0
    wnd: i64 = min(tcb.policy.receive_buffer, MAX_WINDOW)  # never scaled (RFC 7323 2.2)
    if tcb.st == SYN_RECEIVED:
        flags |= ACK
        ack = tcb.rcv_nxt
        tcb.rcv_adv = (tcb.rcv_nxt + wnd) & MASK
        _acknowledged(tcb)
    retransmission = tcb.snd_nxt != tcb.iss
    tcb.snd_nxt = (tcb.iss + 1) & MASK
    wscale: i64 = tcb.rcv_wscale if tcb.wscale_on else -1
    header_size: i64 = HEADER_SIZE + syn_options_size(wscale, tcb.sack_on, tcb.ts_on)
    say_timeout = tcb.policy.user_timeout_option
    if say_timeout:
        header_size += USER_TIMEOUT_SIZE
    train = _board(tcb, header_size, retransmission)
    w = train.writer
    write_header(w, tcb.local_port, tcb.remote_port, tcb.iss, ack, flags, wnd, header_size, 0)
    write_syn_options(w, tcb.rmss, wscale, tcb.sack_on, tcb.ts_on, stack.ts_now(tcb.ts_offset), tcb.ts_recent)
    if say_timeout:
        write_user_timeout(w, advertised_timeout(tcb))
        tcb.user_timeout_due = True  # RFC 5482 3: in the next segment too
    if stack.observer is not None:
        _tell(tcb, train, header_size, retransmission)
    if retransmission:
        tcb.rtt_at = NEVER  # Karn (MUST-18)
    else:
        time_segment(tcb, tcb.snd_nxt)
    start_retransmission_timer(tcb)


def send_ack(tcb: Tcb) -> None:
    """A bare ACK: <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>."""
    _emit(tcb, tcb.snd_nxt, ACK, 0, 0, False)


def send_probe(tcb: Tcb) -> None:
    """A window probe: below the window, so that the peer must answer it (RFC 9293 3.8.6.1; Linux's form)."""
    owed = tcb.ack_now or tcb.delack_at != NEVER
    edge = tcb.rcv_adv
    _emit(tcb, (tcb.snd_una - 1) & MASK, ACK, 0, 0, False)
    if owed or tcb.rcv_adv != edge:
        # The peer answers it, but need not look at an old segment's ACK and window: say them again
        tcb.ack_now = True


def send_reset(tcb: Tcb) -> None:
    """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=RST,ACK> on a connection of ours (RFC 9293 3.10.5)."""
    tcb.stack.counters.resets_out += 1
    _emit(tcb, tcb.snd_nxt, RST | ACK, 0, 0, False)


def _emit(tcb: Tcb, seq: i64, flags: i64, offset: i64, n: i64, retransmission: bool) -> None:
    """One segment with ``n`` bytes from ``offset`` of the send queue. Every one carries our ACK and window."""
    stack = tcb.stack
    blocks = _sack_blocks(tcb)
    header_size: i64 = HEADER_SIZE
    if tcb.ts_on:
        header_size += 12
    if blocks is not None:
        header_size += _sack_size(blocks)
    say_timeout = tcb.user_timeout_due and blocks is None and n + USER_TIMEOUT_SIZE <= tcb.smss
    if say_timeout:
        header_size += USER_TIMEOUT_SIZE
    urg = urgent_pointer(tcb, seq)
    if urg > 0:
        flags |= URG
    wnd = _advertise(tcb)
    train = _board(tcb, header_size + n, retransmission)
    w = train.writer
    write_header(w, tcb.local_port, tcb.remote_port, seq, tcb.rcv_nxt, flags, wnd, header_size, urg)
    if tcb.ts_on:
        write_timestamps(w, stack.ts_now(tcb.ts_offset), tcb.ts_recent)
    if blocks is not None:
        write_sack(w, blocks)
    if say_timeout:
        write_user_timeout(w, advertised_timeout(tcb))
        tcb.user_timeout_due = False
    if n > 0:
        queue = tcb.send_queue
        assert queue is not None
        w.write(queue.slice(offset, n))
        tcb.bytes_out += n
        stack.counters.bytes_out += n
    _acknowledged(tcb)
    if stack.observer is not None:
        _tell(tcb, train, header_size + n, retransmission)


def _board(tcb: Tcb, size: i64, retransmission: bool) -> Train:
    stack = tcb.stack
    train = stack.trains.board(tcb.route, size, tcb.train_serial, tcb.slot)
    tcb.train_serial = train.serial
    tcb.segments_out += 1
    stack.counters.segments_out += 1
    if retransmission:
        tcb.retransmissions += 1
        stack.counters.retransmissions += 1
    return train


def _tell(tcb: Tcb, train: Train, size: i64, retransmission: bool) -> None:
    observer = tcb.stack.observer
    if observer is not None:
        observer.segment_out(tcb.stack.now, tcb.path, train.payload()[-size:], retransmission)


def _acknowledged(tcb: Tcb) -> None:
    """A segment that carries our ACK has been built: nothing is owed any more."""
    tcb.ack_now = False
    tcb.unacked_in = 0
    tcb.delack_at = NEVER
    tcb.last_ack_sent = tcb.rcv_nxt


# New data and FIN


def _send_new(tcb: Tcb) -> None:
    """Send from the queue, then the FIN behind it, as windows, Nagle and silly-window avoidance allow."""
    unsent = queued_bytes(tcb)
    if unsent == 0 and not tcb.fin_queued:
        return
    mss = _segment_room(tcb)
    flight: i64 = (tcb.snd_nxt - tcb.snd_una) & MASK
    lost: i64 = (tcb.rtx_end - tcb.rtx_nxt) & MASK
    idle = flight == 0
    if idle:
        restart_after_idle(tcb)
    unpaced = unpaced_flight(tcb)
    allowance: i64 = 0  # bytes of a train that may still leave now
    train: i64 = 0  # ... and that have left
    tcb.pace_at = NEVER
    data_sent = False
    while True:
        room = min(tcb.snd_wnd - flight, tcb.cwnd - flight + lost)
        n = min(min(unsent, mss), room)  # noqa: PLW3301 - mypyc compiles min of two to a comparison
        # The FIN too takes a sequence number, and so a byte of the windows
        if n <= 0 and (unsent > 0 or room <= 0):
            break
        if n < mss and unsent > 0 and not _may_send_short(tcb, n, unsent, flight):
            break
        if flight + n > unpaced:
            if n > allowance:
                charge(tcb, train)
                train = 0
                allowance = train_allowance(tcb, mss)
                if n > allowance:
                    tcb.pace_at = tcb.paced_until
                    break
            allowance -= n
            train += n
        fin = tcb.fin_queued and n == unsent and room > n
        flags: i64 = ACK
        if n > 0 and n == unsent:
            flags |= PSH  # RFC 9293 3.9.1.2 (MUST-61): the last of what the user gave us
        if fin:
            flags |= FIN
        _emit(tcb, tcb.snd_nxt, flags, flight, n, False)
        flight += n
        unsent -= n
        data_sent = data_sent or n > 0
        if fin:
            flight += 1
            tcb.fin_sent = True
        tcb.snd_nxt = (tcb.snd_una + flight) & MASK
        time_segment(tcb, tcb.snd_nxt)
        if unsent == 0 and (fin or not tcb.fin_queued):
            break
    tcb.push_now = False
    if data_sent:
        mark_ready(tcb, SENT)
        _note_departure(tcb, flight, idle, unsent)
        if train > 0:
            charge(tcb, train)
    if flight == 0:
        _watch_window(tcb)
        return
    tcb.sent_at = tcb.stack.now
    tcb.persist_at = NEVER
    if idle:
        tcb.progress_at = tcb.stack.now
        tcb.rtx_count = 0
    if tcb.rtx_at == NEVER:
        start_retransmission_timer(tcb)


def _note_departure(tcb: Tcb, flight: i64, idle: bool, unsent: i64) -> None:
    """What delivery-rate samples need of the new data that has just left."""
    rate = tcb.rate
    if rate is not None:
        rate.on_sent(tcb.snd_nxt, idle, tcb.stack.now)
        if unsent == 0 and flight + tcb.smss <= tcb.cwnd:
            rate.on_app_limited(flight)


def _watch_window(tcb: Tcb) -> None:
    """Nothing may leave, and nothing in flight will open the window: probe it (MUST-35), or fill it if small."""
    if tcb.persist_at != NEVER:
        return
    tcb.progress_at = tcb.stack.now
    tcb.rtx_count = 0
    tcb.persist_at = tcb.stack.now + (SWS_OVERRIDE if tcb.snd_wnd > 0 else tcb.rto)


def _may_send_short(tcb: Tcb, n: i64, unsent: i64, flight: i64) -> bool:
    """Whether a segment below the full size may leave (SWS avoidance, RFC 9293 3.8.6.2.1; Nagle, 3.7.4)."""
    if n == unsent and (flight == 0 or tcb.policy.nodelay or tcb.fin_queued):
        return True
    return tcb.push_now or 2 * n >= tcb.max_snd_wnd


def _segment_room(tcb: Tcb) -> i64:
    """Data bytes in a full segment, with the SACK option that it will carry taken off."""
    blocks = _sack_blocks(tcb)
    return tcb.smss if blocks is None else max(tcb.smss - _sack_size(blocks), 1)


def _retransmit(tcb: Tcb) -> None:
    """Send again from RTX.NXT on what is believed lost, as far as the congestion window allows.

    Go-back-N, but for what the peer has reported to hold.
    """
    mss = _segment_room(tcb)
    data_end: i64 = tcb.snd_nxt
    if tcb.fin_sent and not tcb.fin_acked:
        data_end = (tcb.snd_nxt - 1) & MASK
    board = tcb.scoreboard
    while seq_lt(tcb.rtx_nxt, tcb.rtx_end):
        if board is not None:
            tcb.rtx_nxt = board.skip(tcb.rtx_nxt)
            if seq_ge(tcb.rtx_nxt, tcb.rtx_end):
                tcb.rtx_nxt = tcb.rtx_end
                break
        in_flight: i64 = ((tcb.snd_nxt - tcb.snd_una) & MASK) - ((tcb.rtx_end - tcb.rtx_nxt) & MASK)
        if board is not None:
            in_flight -= board.below(tcb.snd_una, tcb.rtx_nxt)
        if in_flight > 0 and in_flight + mss > tcb.cwnd:
            break
        n = min(mss, seq_sub(data_end, tcb.rtx_nxt))
        if board is not None:
            n = board.hole(tcb.rtx_nxt, n)
        end: i64 = (tcb.rtx_nxt + n) & MASK
        flags: i64 = ACK
        if end == data_end:
            if n > 0 and queued_bytes(tcb) == 0:
                flags |= PSH
            if tcb.fin_sent:
                flags |= FIN
        _emit(tcb, tcb.rtx_nxt, flags, (tcb.rtx_nxt - tcb.snd_una) & MASK, n, True)
        if flags & FIN:
            end = (end + 1) & MASK
        tcb.rtx_nxt = end
        if tcb.rate is not None:
            tcb.rate.on_retransmitted(end)
        if seq_gt(end, tcb.rtx_end):
            tcb.rtx_end = end
    if tcb.rtx_at == NEVER:
        start_retransmission_timer(tcb)


# Our receive window, and what we say about what we hold


def _advertise(tcb: Tcb) -> i64:
    """The window field, after moving its right edge as far as silly-window avoidance lets it (3.8.6.2.2)."""
    current: i64 = seq_sub(tcb.rcv_adv, tcb.rcv_nxt)
    current = max(current, 0)
    window = current
    if (RECEIVING >> tcb.st) & 1:
        room = _receive_room(tcb)
        if room - _as_told(tcb, current) >= _update_step(tcb):
            window = min(room, MAX_WINDOW << tcb.rcv_wscale)
    field: i64 = window >> tcb.rcv_wscale
    if (field << tcb.rcv_wscale) < current and ((field + 1) << tcb.rcv_wscale) <= _receive_room(tcb):
        # Rounding should not move the right edge left (SHLD-14); where the buffer is full it must, by less than
        # the scale's unit (RFC 7323 2.4), and what was promised is still accepted
        field += 1
    edge: i64 = (tcb.rcv_nxt + (field << tcb.rcv_wscale)) & MASK
    if seq_gt(edge, tcb.rcv_adv):
        tcb.rcv_adv = edge
    return min(field, MAX_WINDOW)


def _receive_room(tcb: Tcb) -> i64:
    queue = tcb.receive_queue
    # Never less than the smallest window that the scale can express
    buffer = max(tcb.policy.receive_buffer, 1 << tcb.rcv_wscale)
    if short_of_memory(tcb):
        buffer = min(buffer, 2 * tcb.rmss)
    return buffer - (0 if queue is None else queue.size)


def _as_told(tcb: Tcb, window: i64) -> i64:
    """What the peer knows of a window: the scale rounds it down."""
    return (window >> tcb.rcv_wscale) << tcb.rcv_wscale


def _update_step(tcb: Tcb) -> i64:
    """Openings smaller than this are not worth telling (RFC 9293 3.8.6.2.2, with Fr = 1/2)."""
    return max(min(tcb.policy.receive_buffer // 2, tcb.rmss), 1)


def _consider_window_update(tcb: Tcb) -> None:
    """The user has read: tell the peer if that opened the window by enough."""
    tcb.window_update = False
    if not (RECEIVING >> tcb.st) & 1:
        return
    current = _as_told(tcb, seq_sub(tcb.rcv_adv, tcb.rcv_nxt))
    room = min(_receive_room(tcb), MAX_WINDOW << tcb.rcv_wscale)
    if room - current >= _update_step(tcb) and (current < tcb.rmss or room - current >= tcb.policy.receive_buffer // 4):
        tcb.ack_now = True


def _sack_blocks(tcb: Tcb) -> list[tuple[int, int]] | None:
    """RFC 2018 4: three blocks fit beside timestamps, four without. None when there is nothing to report."""
    held = tcb.reassembly
    if held is None or not tcb.sack_on:
        return None
    blocks = held.sack_blocks(3 if tcb.ts_on else 4)
    if tcb.fin_known:
        # The FIN has a number too: reported, it need not be sent again (as Linux does)
        beyond: int = (tcb.fin_at + 1) & MASK
        blocks = [(left, beyond if right == tcb.fin_at else right) for left, right in blocks]
    return blocks


def _sack_size(blocks: list[tuple[int, int]]) -> i64:
    return 4 + 8 * len(blocks)
