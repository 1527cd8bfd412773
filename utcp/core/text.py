"""RFC 9293 3.10.7.4, seventh: the segment text. In order it goes to the user, out of order it waits."""

from __future__ import annotations

from mypy_extensions import i64

from utcp.core.buffers import ReceiveQueue
from utcp.core.closing import abort, on_fin
from utcp.core.deadlines import unacked_data
from utcp.core.dsack import note_held, note_old
from utcp.core.ecn import note_marks
from utcp.core.reassembly import Reassembly
from utcp.core.receive_buffer import on_data
from utcp.core.stack import NEVER
from utcp.core.states import READABLE, RECEIVING
from utcp.core.tcb import Tcb, count_held, mark_ready, short_of_memory
from utcp.core.teardown import UNREAD_DATA
from utcp.wire.segment import FIN, Segment
from utcp.wire.seq import MASK, seq_sub


def process_text(tcb: Tcb, seg: Segment) -> None:
    """The seventh and eighth step: data, then FIN. In the other states the peer has already said it is done."""
    ecn = tcb.ecn
    if ecn is not None:
        note_marks(tcb, ecn, seg)
    if not (RECEIVING >> tcb.st) & 1 or (seg.data_len == 0 and not seg.flags & FIN):
        return
    seq: i64 = seg.seq
    start: i64 = seg.data_start
    n: i64 = seg.data_len
    fin = seg.flags & FIN != 0
    # Trim to the window: first what we have, then what we did not ask for
    if seq != tcb.rcv_nxt:
        old: i64 = seq_sub(tcb.rcv_nxt, seq)
        if old > 0:
            note_old(tcb, seg)
            tcb.ack_now = True
            seq = tcb.rcv_nxt
            start += old
            n -= old
    room: i64 = seq_sub(tcb.rcv_adv, seq)
    if n > room:
        n = max(room, 0)
        fin = False
        tcb.ack_now = True
    if n > 0:
        if short_of_memory(tcb) and _find_no_room(tcb, seq == tcb.rcv_nxt, n):
            return
        _take_data(tcb, seg, seq, seg.buf[start : start + n])
        if tcb.done:
            return
        count_held(tcb)
    if fin:
        tcb.fin_known = True
        tcb.fin_at = (seq + n) & MASK
        if tcb.fin_at != tcb.rcv_nxt and n == 0:
            tcb.dup_acks_due += 1  # a hole before the FIN
    if tcb.fin_known and tcb.rcv_nxt == tcb.fin_at:
        on_fin(tcb)


def _find_no_room(tcb: Tcb, in_sequence: bool, n: i64) -> bool:
    """All connections together hold what they may, and this one what it may then: two segments.

    Out of order, data is dropped as if it was lost. What is next is refused by a closed window (as by Linux from 6.6
    on): a sender that hears nothing gives up after R2, one that is told to wait does not (MUST-37). What waits behind a
    hole does not count against what fills it, or the hole would stay.
    """
    held = tcb.held
    if in_sequence:
        queue = tcb.receive_queue
        held = 0 if queue is None else queue.size
        if held == 0:
            return False
    if held + n <= 2 * tcb.rmss:
        return False
    tcb.stack.counters.memory_drops += 1
    if in_sequence:
        tcb.no_room = True
        tcb.ack_now = True
    return True


def _take_data(tcb: Tcb, seg: Segment, seq: i64, data: bytes) -> None:
    tcb.bytes_in += len(data)
    tcb.stack.counters.bytes_in += len(data)
    tcb.rcv_mss = max(tcb.rcv_mss, len(data))
    if tcb.orphan and not tcb.lingering and _refuse_data(tcb, len(data)):
        return
    if seq != tcb.rcv_nxt:
        held = tcb.reassembly
        if held is None:
            held = Reassembly(tcb.rcv_buf)
            tcb.reassembly = held
        else:
            note_held(tcb, seq, len(data))
        held.add(seq, data, tcb.rcv_nxt)
        tcb.dup_acks_due += 1
        return
    _deliver(tcb, data)
    on_data(tcb, seg)
    held = tcb.reassembly
    if held is not None:
        # A hole is filled, or part of it: say so at once (RFC 5681 4.2)
        tcb.ack_now = True
        more = held.pop(tcb.rcv_nxt)
        if more:
            _deliver(tcb, more)
        if held.held == 0:
            tcb.reassembly = None
    _owe_ack(tcb, len(data))


def _deliver(tcb: Tcb, data: bytes) -> None:
    tcb.rcv_nxt = (tcb.rcv_nxt + len(data)) & MASK
    if tcb.shut_rd:
        tcb.discarded += len(data)
        return
    queue = tcb.receive_queue
    if queue is None:
        queue = ReceiveQueue()
        tcb.receive_queue = queue
    queue.append(data)
    mark_ready(tcb, READABLE)


def _owe_ack(tcb: Tcb, n: i64) -> None:
    """Delayed ACK (MUST-40, SHLD-18, SHLD-19): at the second full segment, or after the delay."""
    tcb.unacked_in += n
    if tcb.unacked_in >= 2 * tcb.rcv_mss or tcb.policy.delayed_ack == 0:
        tcb.ack_now = True
    elif tcb.delack_at == NEVER:
        tcb.delack_at = tcb.stack.now + tcb.policy.delayed_ack


def _refuse_data(tcb: Tcb, n: i64) -> bool:
    """Data for a user who has closed: RST, so that the peer learns of the loss (RFC 1122 4.2.2.13).

    While flushing, our own bytes come first: the data is acknowledged and discarded, and the RST takes the
    FIN's place. Returns whether the connection is gone.
    """
    if tcb.flushing and unacked_data(tcb) > 0:
        tcb.reset_when_flushed = True
        tcb.fin_queued = tcb.fin_sent
        return False
    tcb.discarded += n
    abort(tcb, UNREAD_DATA, None)
    return True
