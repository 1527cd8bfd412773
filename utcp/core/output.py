"""What gets sent next: the only place where a connection's segments are built.

The steps that process input set intents on the TCB; ``output`` looks at them once before the trains leave, so
that one segment answers for all the input of a tick (RFC 9293 MUST-58, MUST-59).
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.congestion.window import restart_after_idle
from utcp.core.deadlines import SWS_OVERRIDE, arm, earliest_deadline, start_probe_timer, start_retransmission_timer
from utcp.core.ecn import ECT_0, NOT_ECT, Ecn
from utcp.core.handshake import TIMESTAMPS_SIZE, set_smss
from utcp.core.pacing import FREE, charge, train_allowance, unpaced_flight
from utcp.core.path_mtu import HOLD, on_probe_sent, probe_size
from utcp.core.receive_window import advertise, consider_window_update, sack_blocks, sack_size, syn_window
from utcp.core.recovery_state import OPEN, Recovery, open_scoreboard, pipe
from utcp.core.rtt import time_segment
from utcp.core.spurious import give_up_frto, on_sent_again
from utcp.core.stack import NEVER
from utcp.core.states import (
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    LAST_ACK,
    SENT,
    SYN_RECEIVED,
)
from utcp.core.tcb import Tcb, mark_ready, queued_bytes
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
    write_user_timeout,
)
from utcp.wire.seq import MASK

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
        if tcb.plpmtu != tcb.route.max_payload:
            set_smss(tcb)
        r = tcb.recovery
        if r is not None:
            _recover(tcb, r)
        elif not tcb.fin_sent:
            _send_new(tcb)
    if tcb.window_update:
        consider_window_update(tcb)
    if tcb.dup_acks_due > 0:
        # One for each out-of-order segment: the peer counts them (RFC 5681 4.2)
        while tcb.dup_acks_due > 0:
            tcb.dup_acks_due -= 1
            send_ack(tcb)
    elif tcb.ack_now:
        if tcb.ack_can_wait:
            tcb.stack.acks_could_wait = True
        if tcb.ack_can_wait and tcb.stack.patient:
            _hold_ack(tcb)
        else:
            send_ack(tcb)
    at = earliest_deadline(tcb, tcb.armed_at)
    if at < tcb.armed_at:
        arm(tcb, at)


def _recover(tcb: Tcb, r: Recovery) -> None:
    """What is lost, a loss probe or new data, while the scoreboard says what is in flight."""
    if r.runs.lost > 0 and not r.frto_new_data:
        _retransmit(tcb, r)
    if r.probe_due:
        _send_loss_probe(tcb, r)
    elif not tcb.fin_sent:
        _send_new(tcb)
    if r.frto_new_data and _nothing_to_try(tcb, r):
        give_up_frto(r)
        _retransmit(tcb, r)


def _hold_ack(tcb: Tcb) -> None:
    """Until another segment carries it, or the driver has no more patience."""
    if not tcb.ack_held:
        tcb.ack_held = True
        tcb.stack.held_acks.append(tcb)


# Segments


def send_syn(tcb: Tcb) -> None:
    """SYN, or SYN-ACK in SYN-RECEIVED; the first one or one more."""
    stack = tcb.stack
    tcb.syn_due = False
    tcb.syn_count += 1
    flags: i64 = SYN
    ack: i64 = 0
    wnd = syn_window(tcb)
    if tcb.st == SYN_RECEIVED:
        flags |= ACK
        ack = tcb.rcv_nxt
    if wnd > (tcb.rcv_adv - tcb.rcv_nxt) & MASK:  # RCV.NXT is 0 until the peer's SYN comes
        tcb.rcv_adv = (tcb.rcv_nxt + wnd) & MASK
    retransmission = tcb.snd_nxt != tcb.iss
    if tcb.ecn is not None:
        flags |= tcb.ecn.syn_flags(retransmission, tcb.st == SYN_RECEIVED)
    tcb.snd_nxt = (tcb.iss + 1) & MASK
    wscale: i64 = -1
    if tcb.wscale_on:
        wscale = tcb.rcv_wscale
    header_size: i64 = HEADER_SIZE + syn_options_size(wscale, tcb.sack_on, tcb.ts_on)
    say_timeout = tcb.policy.user_timeout_option
    if say_timeout:
        header_size += USER_TIMEOUT_SIZE
    train = _board(tcb, header_size, retransmission, NOT_ECT)
    w = train.writer
    write_header(w, tcb.local_port, tcb.remote_port, tcb.iss, ack, flags, wnd, header_size, 0)
    ts_val = stack.ts_now(tcb.ts_offset)
    write_syn_options(w, tcb.rmss, wscale, tcb.sack_on, tcb.ts_on, ts_val, tcb.ts_recent)
    if say_timeout:
        write_user_timeout(w, advertised_timeout(tcb))
        tcb.user_timeout_due = True  # RFC 5482 3: in the next segment too
    if stack.observer is not None:
        _tell(tcb, train, header_size, retransmission)
    if retransmission:
        tcb.rtt_at = NEVER  # Karn (MUST-18)
    else:
        tcb.rtx_ts = ts_val
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
    if tcb.ack_held:
        send_ack(tcb)  # first: to the peer we may still be in the handshake, and its user be told of nothing
    tcb.stack.counters.resets_out += 1
    _emit(tcb, tcb.snd_nxt, RST | ACK, 0, 0, False)


def _emit(tcb: Tcb, seq: i64, flags: i64, offset: i64, n: i64, retransmission: bool) -> None:
    """One segment with ``n`` bytes from ``offset`` of the send queue. Every one carries our ACK and window."""
    stack = tcb.stack
    blocks = sack_blocks(tcb)
    ts_on = tcb.ts_on
    ts_val: i64 = 0
    header_size: i64 = HEADER_SIZE
    if ts_on:
        header_size += TIMESTAMPS_SIZE
        ts_val = stack.ts_now(tcb.ts_offset)
    if blocks is not None:
        header_size += sack_size(blocks)
    say_timeout = tcb.user_timeout_due and blocks is None and n + USER_TIMEOUT_SIZE <= tcb.smss
    if say_timeout:
        header_size += USER_TIMEOUT_SIZE
    urg: i64 = 0
    if tcb.urgent_out:
        urg = urgent_pointer(tcb, seq)
        if urg > 0:
            flags |= URG
    wnd = advertise(tcb)
    codepoint: i64 = NOT_ECT  # as 6.1.4 to 6.1.6 want it for all but new data
    ecn = tcb.ecn
    if ecn is not None and not flags & RST:
        new_data = n > 0 and not retransmission
        flags |= ecn.flags(new_data)
        if new_data and ecn.may_mark:
            codepoint = ECT_0
    train = _board(tcb, header_size + n, retransmission, codepoint)
    w = train.writer
    ts_ecr = tcb.ts_recent
    write_header(
        w, tcb.local_port, tcb.remote_port, seq, tcb.rcv_nxt, flags, wnd, header_size, urg, ts_on, ts_val, ts_ecr
    )
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
    if stack.observer is not None:
        _tell(tcb, train, header_size + n, retransmission)


def _board(tcb: Tcb, size: i64, retransmission: bool, ecn: i64) -> Train:
    """The train for one more segment, which carries our ACK: nothing is owed any more."""
    stack = tcb.stack
    tcb.ack_now = False
    tcb.ack_can_wait = False
    tcb.ack_held = False
    tcb.unacked_in = 0
    tcb.delack_at = NEVER
    tcb.dsack = None
    tcb.last_ack_sent = tcb.rcv_nxt
    train = stack.trains.board(tcb.route, size, tcb.train_serial, tcb.slot, ecn)
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
        if train.ecn != NOT_ECT:
            observer.ecn_field(tcb.stack.now, tcb.path, train.ecn)
        observer.segment_out(tcb.stack.now, tcb.path, train.payload()[-size:], retransmission)


# New data and FIN


def _send_new(tcb: Tcb, extra: i64 = 0) -> None:
    """Send from the queue, then the FIN behind it, as windows, Nagle and silly-window avoidance allow.

    ``extra``: bytes by which the congestion window may be exceeded.
    """
    unsent = queued_bytes(tcb)
    if unsent == 0 and not tcb.fin_queued:
        return
    mss = _segment_room(tcb)
    flight: i64 = (tcb.snd_nxt - tcb.snd_una) & MASK
    if unsent > 0 and tcb.ecn is not None and _held_by_ecn(tcb, tcb.ecn, flight):
        return
    idle = flight == 0
    if idle and tcb.congestion is not None:
        restart_after_idle(tcb)
    r = tcb.recovery
    outside: i64 = 0  # of what is in flight no longer in the network
    if r is not None:
        outside = flight - pipe(tcb, r)
    before = tcb.snd_nxt
    buffer = tcb.policy.send_buffer  # what is sent is kept until it is acknowledged
    unpaced: i64 = FREE
    if tcb.congestion is not None:
        unpaced = unpaced_flight(tcb)
    allowance: i64 = 0  # bytes of a train that may still leave now
    train: i64 = 0  # ... and that have left
    data_sent = False
    if unsent > mss and tcb.route.discovers and extra == 0:
        n: i64 = probe_size(tcb, unsent, mss, flight, min(tcb.snd_wnd, buffer))
        if n == HOLD:
            return
        if n > 0:
            r = _send_mtu_probe(tcb, n, flight)
            data_sent = True
            flight += n
            unsent -= n
            if flight > unpaced:
                train = n
    tcb.pace_at = NEVER
    while True:
        room = tcb.cwnd + extra + outside
        if tcb.snd_wnd < room:
            room = tcb.snd_wnd
        if buffer < room:
            room = buffer
        room -= flight
        n = unsent
        if mss < n:
            n = mss
        if room < n:
            n = room
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
        if r is None and not idle and tcb.sack_on:
            r = open_scoreboard(tcb)  # what is in flight left at another instant
        _emit(tcb, tcb.snd_nxt, flags, flight, n, False)
        flight += n
        unsent -= n
        data_sent = data_sent or n > 0
        if fin:
            flight += 1
            tcb.fin_sent = True
        tcb.snd_nxt = (tcb.snd_una + flight) & MASK
        time_segment(tcb, tcb.snd_nxt)
        if r is not None:
            r.runs.sent(r.runs.position(tcb.snd_nxt), tcb.stack.now, mss)
            r.prr_out += n
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
    tcb.persist_at = NEVER
    if idle:
        tcb.progress_at = tcb.stack.now
        tcb.rtx_count = 0
    if tcb.rtx_at == NEVER:
        start_retransmission_timer(tcb)
    if tcb.snd_nxt != before:
        tcb.sent_at = tcb.stack.now
        start_probe_timer(tcb)


def _held_by_ecn(tcb: Tcb, ecn: Ecn, flight: i64) -> bool:
    """RFC 3168 6.1.2: a window of one segment is not reduced further, the next one waits for an RTO instead."""
    if tcb.stack.now >= ecn.held_until:
        return False
    if flight == 0:
        tcb.persist_at = ecn.held_until
    return True


def _send_mtu_probe(tcb: Tcb, n: i64, flight: i64) -> Recovery:
    """One segment, larger than the others, to see whether the path carries it (RFC 4821 10.1, without overlap)."""
    r = open_scoreboard(tcb)
    left = r.runs.nxt()
    _emit(tcb, tcb.snd_nxt, ACK, flight, n, False)
    tcb.snd_nxt = (tcb.snd_nxt + n) & MASK
    time_segment(tcb, tcb.snd_nxt)
    r.runs.sent(left + n, tcb.stack.now, n)
    on_probe_sent(tcb, r, left, n)
    return r


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
    """Whether a segment below the full size may leave (SWS avoidance, RFC 9293 3.8.6.2.1; Nagle, 3.7.4).

    A send buffer that is smaller than the peer's window counts as the window.
    """
    if n == unsent and (flight == 0 or tcb.policy.nodelay or tcb.fin_queued):
        return True
    return tcb.push_now or 2 * n >= min(tcb.max_snd_wnd, tcb.policy.send_buffer)


def _segment_room(tcb: Tcb) -> i64:
    """Data bytes in a full segment, with the SACK option that it will carry taken off."""
    blocks = sack_blocks(tcb)
    return tcb.smss if blocks is None else max(tcb.smss - sack_size(blocks), 1)


# What was sent before


def _retransmit(tcb: Tcb, r: Recovery) -> None:
    """Send again what is lost, lowest numbers first, as far as the congestion window allows (RFC 6675 5 (C))."""
    mss = _segment_room(tcb)
    runs = r.runs
    i = runs.next_lost(0)
    while i < runs.count:
        left = runs.left(i)
        right = runs.lost_until(i, left + mss + 1)
        n = min(mss, right - left)
        in_flight = pipe(tcb, r)
        if in_flight > 0 and in_flight + n > tcb.cwnd:
            break
        _send_again(tcb, r, left, right)
        i = runs.next_lost(runs.find(left))
    if tcb.rtx_at == NEVER:
        start_retransmission_timer(tcb)


def _nothing_to_try(tcb: Tcb, r: Recovery) -> bool:
    """RFC 5682 2.1, step 2b: Nagle or the peer's window holds back what could be sent in place of what is lost."""
    return r.runs.nxt() == r.recover and tcb.pace_at == NEVER and pipe(tcb, r) + tcb.smss <= tcb.cwnd


def _send_again(tcb: Tcb, r: Recovery, left: i64, right: i64) -> None:
    """One segment from the position ``left`` on, with as much of what comes before ``right`` as fits."""
    mss = _segment_room(tcb)
    runs = r.runs
    nxt = runs.nxt()
    data_end = nxt - 1 if tcb.fin_sent else nxt
    end = min(min(right, data_end), left + mss)  # noqa: PLW3301 - mypyc compiles min of two to a comparison
    n = end - left
    flags: i64 = ACK
    if end == data_end:
        if n > 0 and queued_bytes(tcb) == 0:
            flags |= PSH
        if right == nxt and tcb.fin_sent:
            flags |= FIN
            end = nxt
    if left == runs.una:
        start_retransmission_timer(tcb)  # RFC 6675 5: the timer watches over the first segment's new transmission
    _emit(tcb, left & MASK, flags, left - runs.una, n, True)
    on_sent_again(tcb, r, end - left)
    runs.sent_again(left, end, tcb.stack.now)
    r.prr_out += end - left
    tcb.rtt_at = NEVER  # Karn (MUST-18)
    if tcb.rate is not None:
        tcb.rate.on_retransmitted(end & MASK)


def _send_loss_probe(tcb: Tcb, r: Recovery) -> None:
    """TLP_send_probe (RFC 8985 7.3): new data if there is any and the peer's window takes it, else the last segment."""
    r.probe_due = False
    if tcb.snd_una == tcb.snd_nxt or r.phase != OPEN:
        return
    before = tcb.snd_nxt
    if not tcb.fin_sent:
        tcb.push_now = True
        _send_new(tcb, tcb.smss)
    r.tlp_is_retrans = tcb.snd_nxt == before
    if r.tlp_is_retrans:
        left = r.runs.last_segment()
        r.tlp_first_at = r.runs.sent_at(r.runs.find(left))
        _send_again(tcb, r, left, r.runs.nxt())
    r.tlp_end = r.runs.nxt()
    r.tlp_measured = False
    tcb.tlp_at = NEVER
    tcb.stack.counters.loss_probes += 1
    start_retransmission_timer(tcb)
