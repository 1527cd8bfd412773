"""What we tell the peer of our side: the window that we offer (RFC 9293 3.8.6), what we hold beyond a hole (RFC 2018).

How large the buffer behind the window is: ``receive_buffer``.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.receive_buffer import MAX_WINDOW
from utcp.core.states import RECEIVING
from utcp.core.tcb import Tcb, short_of_memory
from utcp.wire.seq import MASK, seq_sub

_FARTHEST: Final = 0x7FFFFFFF  # a number that is farther ahead is behind


def syn_window(tcb: Tcb) -> i64:
    """What a SYN offers: its window is never scaled (RFC 7323 2.2)."""
    return tcb.rcv_buf if tcb.rcv_buf < MAX_WINDOW else MAX_WINDOW


def advertise(tcb: Tcb) -> i64:
    """The window field, after moving its right edge as far as silly-window avoidance lets it (3.8.6.2.2)."""
    rcv_nxt = tcb.rcv_nxt
    scale = tcb.rcv_wscale
    current: i64 = (tcb.rcv_adv - rcv_nxt) & MASK
    beyond = current > _FARTHEST  # is RCV.NXT, by what came into a closed window
    if beyond:
        current = 0
    if tcb.no_room:
        if not _has_room_again(tcb):
            return 0  # what was promised before is taken back, for there is no memory (SHLD-14)
        tcb.no_room = False
    field: i64 = current >> scale
    if (RECEIVING >> tcb.st) & 1:
        room = _receive_room(tcb)
        if room - (field << scale) >= _update_step(tcb):  # the peer knows of what the scale leaves of the window
            field = room >> scale
            if field > MAX_WINDOW:
                field = MAX_WINDOW
    told: i64 = field << scale
    if told < current and told + (1 << scale) <= _receive_room(tcb):
        # Rounding should not move the right edge left (SHLD-14); where the buffer is full it must, by less than
        # the scale's unit (RFC 7323 2.4), and what was promised is still accepted
        field += 1
        told = field << scale
    if told > current or beyond:
        tcb.rcv_adv = (rcv_nxt + told) & MASK
    return field if field < MAX_WINDOW else MAX_WINDOW


def _receive_room(tcb: Tcb) -> i64:
    """What is free of the buffer, which is never less than the smallest window that the scale can express."""
    room = tcb.rcv_buf
    unit: i64 = 1 << tcb.rcv_wscale
    if room < unit:
        room = unit
    if short_of_memory(tcb):
        room = min(room, 2 * tcb.rmss)
    queue = tcb.receive_queue
    return room if queue is None else room - queue.size


def _has_room_again(tcb: Tcb) -> bool:
    # A buffer that has been made smaller than a segment is room enough when it is empty
    queue = tcb.receive_queue
    return _receive_room(tcb) >= min(tcb.rcv_mss, tcb.rmss) or queue is None or queue.size == 0


def _as_told(tcb: Tcb, window: i64) -> i64:
    """What the peer knows of a window: the scale rounds it down."""
    return (window >> tcb.rcv_wscale) << tcb.rcv_wscale


def _update_step(tcb: Tcb) -> i64:
    """Openings smaller than this are not worth telling (RFC 9293 3.8.6.2.2, with Fr = 1/2)."""
    step = tcb.rcv_buf >> 1
    if tcb.rmss < step:
        step = tcb.rmss
    return step if step > 1 else 1


def consider_window_update(tcb: Tcb) -> None:
    """The user has read: tell the peer if that opened the window by enough."""
    tcb.window_update = False
    if not (RECEIVING >> tcb.st) & 1:
        return
    if tcb.no_room:
        tcb.ack_now = tcb.ack_now or _has_room_again(tcb)
        return
    current = _as_told(tcb, seq_sub(tcb.rcv_adv, tcb.rcv_nxt))
    room = min(_receive_room(tcb), MAX_WINDOW << tcb.rcv_wscale)
    if room - current >= _update_step(tcb) and (current < tcb.rmss or room - current >= tcb.rcv_buf // 4):
        tcb.ack_now = True


def sack_blocks(tcb: Tcb) -> list[tuple[int, int]] | None:
    """RFC 2018 4: three blocks fit beside timestamps, four without. None when there is nothing to report."""
    held = tcb.reassembly
    if held is None:
        return None if tcb.dsack is None else [tcb.dsack]
    if not tcb.sack_on:
        return None
    limit: i64 = 3 if tcb.ts_on else 4
    if tcb.dsack is not None:
        limit -= 1
    blocks = held.sack_blocks(limit)
    if tcb.fin_known:
        # The FIN has a number too: reported, it need not be sent again (as Linux does)
        beyond: int = (tcb.fin_at + 1) & MASK
        blocks = [(left, beyond if right == tcb.fin_at else right) for left, right in blocks]
    if tcb.dsack is not None:
        blocks.insert(0, tcb.dsack)  # RFC 2883 4: the first
    return blocks


def sack_size(blocks: list[tuple[int, int]]) -> i64:
    return 4 + 8 * len(blocks)
