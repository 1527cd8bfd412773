"""Duplicates: what came twice is reported to the sender by the first SACK block of the next ACK (RFC 2883)."""

from __future__ import annotations

from mypy_extensions import i64

from utcp.core.tcb import Tcb
from utcp.wire.segment import Segment
from utcp.wire.seq import MASK, seq_le, seq_lt


def note_old(tcb: Tcb, seg: Segment) -> None:
    """Of ``seg`` everything below RCV.NXT is a duplicate, the FIN's number too."""
    end: i64 = (seg.seq + seg.len) & MASK
    if seg.len > 0 and seq_lt(seg.seq, tcb.rcv_nxt):
        _note(tcb, seg.seq, end if seq_le(end, tcb.rcv_nxt) else tcb.rcv_nxt)


def note_held(tcb: Tcb, seq: i64, n: i64) -> None:
    """Of the ``n`` bytes from ``seq`` on some may wait in the reassembly queue already."""
    held = tcb.reassembly
    if held is not None and tcb.sack_on:
        overlap = held.overlap(seq, n, tcb.rcv_nxt)
        if overlap is not None:
            _note(tcb, overlap[0], overlap[1])


def _note(tcb: Tcb, left: i64, right: i64) -> None:
    if not tcb.sack_on or not tcb.policy.dsack:
        return
    known = tcb.dsack
    if known is not None and known[1] == left:
        left = known[0]  # the train goes on
    tcb.dsack = (int(left), int(right))
