"""Explicit congestion notification (RFC 3168): a router marks what it would have dropped, the receiver echoes that,
the sender reduces its window as for a loss, but by less (RFC 8511).

A connection that asks for it or has agreed on it has an ``Ecn``; all others have None, and pay a comparison.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from utcp.core.congestion.control import ECN
from utcp.core.congestion.window import algorithm_window, on_congestion_event
from utcp.core.deadlines import start_retransmission_timer
from utcp.core.policy import ECN_OFF
from utcp.core.stack import NEVER
from utcp.core.states import LISTEN
from utcp.core.tcb import Tcb
from utcp.wire.segment import ACK, CWR, ECE, Segment
from utcp.wire.seq import seq_gt

# The ECN field of the IP header (RFC 3168 5)
NOT_ECT: Final = 0
ECT_1: Final = 1
ECT_0: Final = 2
CE: Final = 3

_NONE: Final = -1


@final
class Ecn:
    """What a connection remembers for ECN."""

    __slots__ = (
        "ce_in",
        "cwr_due",
        "echo",
        "echoed",
        "held_until",
        "kind",
        "may_mark",
        "recover",
        "reductions",
    )

    def __init__(self) -> None:
        self.may_mark: bool = True  # our data may say that it is capable: no SYN of ours was without (6.1.1)

        # As receiver (6.1.3)
        self.echo: bool = False  # congestion was experienced: all we send says ECE, until CWR comes
        self.ce_in: i64 = 0  # segments that said so

        # As sender (6.1.2)
        self.cwr_due: bool = False  # the window was reduced: the next new data says CWR
        self.recover: i64 = _NONE  # SND.NXT then, until something beyond it is acknowledged
        self.kind: i64 = ECN  # ... of congestion event
        self.echoed: bool = False  # the peer has said ECE since: the path was congested, whatever became of the loss
        self.held_until: i64 = -NEVER  # no new data before: the window could not be reduced any more
        self.reductions: i64 = 0  # because of ECE

    def syn_flags(self, retransmission: bool, reply: bool) -> i64:
        """ECE and CWR of our SYN, or if it is a ``reply`` SYN-ACK (6.1.1).

        A SYN that has to be sent again is sent without, for there are middleboxes that drop the other kind (6.1.1.1;
        as Linux, tcp_ecn_fallback).
        """
        if reply:
            return ECE if self.may_mark else 0
        if retransmission:
            self.may_mark = False
        return ECE | CWR if self.may_mark else 0

    def flags(self, new_data: bool) -> i64:
        """ECE and CWR of a segment that is no SYN and no RST."""
        found: i64 = 0
        if self.echo:
            found = ECE
        if new_data and self.cwr_due:
            self.cwr_due = False
            found |= CWR  # never on what is sent again: if it is lost, that is another reduction
        return found

    def reduced(self, una: i64) -> bool:
        """Whether the window that was reduced last is still being acknowledged: there is one reduction for it."""
        if self.recover != _NONE and seq_gt(una, self.recover):
            self.recover = _NONE
        return self.recover != _NONE

    def covers(self, una: i64) -> bool:
        """Whether a loss now is part of what ECN has told, and the window has been reduced for."""
        return self.kind == ECN and self.reduced(una)

    def on_reduction(self, kind: i64, nxt: i64) -> None:
        """The window is reduced, for whatever reason."""
        self.kind = kind
        self.echoed = kind == ECN
        self.on_time_out(nxt)

    def on_time_out(self, nxt: i64) -> None:
        """... or has become one segment, in what it was reduced for already."""
        self.recover = nxt
        self.cwr_due = self.may_mark

    def on_undo(self) -> None:
        """It was not, after all."""
        self.recover = _NONE
        self.cwr_due = False


def agree_on_ecn(tcb: Tcb, seg: Segment) -> None:
    """Section 6.1.1, of the peer's SYN or SYN-ACK: ECN is used if it is an ECN-setup one, and ours is.

    A SYN-ACK with CWR is none: its sender reflects what it does not know (6.1.1.2).
    """
    setup: i64 = ECE if seg.flags & ACK else ECE | CWR
    if seg.flags & (ECE | CWR) != setup:
        tcb.ecn = None
    elif tcb.st == LISTEN and tcb.policy.ecn != ECN_OFF:
        use_ecn(tcb)


def use_ecn(tcb: Tcb) -> None:
    tcb.ecn = Ecn()
    tcb.stack.uses_ecn = True


def note_marks(tcb: Tcb, ecn: Ecn, seg: Segment) -> None:
    """Section 6.1.3, of an acceptable segment: CE on data is echoed until CWR.

    Either is acknowledged at once, as by Linux: the peer's window may be so small that it waits for the ACK.
    """
    if seg.flags & CWR:
        ecn.echo = False
        if seg.data_len > 0:
            tcb.ack_now = True
    if tcb.stack.ecn == CE and seg.data_len > 0:
        ecn.ce_in += 1
        if not ecn.echo:
            ecn.echo = True
            tcb.ack_now = True


def on_echo(tcb: Tcb, flight: i64) -> None:
    """Section 6.1.2, of an ACK with ECE: the window is reduced, once for each window of data.

    ``flight``: SND.NXT - SND.UNA before it. What it said of losses has been looked at: a loss is the same event.
    """
    ecn = tcb.ecn
    if ecn is None or not ecn.may_mark or flight == 0:
        tcb.stack.counters.ecn_ignored += 1  # nothing of ours can have been marked
        return
    if ecn.reduced(tcb.snd_una):
        ecn.echoed = True
        return
    ecn.reductions += 1
    tcb.stack.counters.ecn_reductions += 1
    control = tcb.congestion
    window = tcb.cwnd if control is None else algorithm_window(tcb, control)
    if window < 2 * tcb.smss:
        # One segment is the least: instead, the next one waits until the retransmission timer would run out
        ecn.on_reduction(ECN, tcb.snd_nxt)
        ecn.held_until = tcb.stack.now + tcb.rto
        if tcb.rtx_at != NEVER:
            start_retransmission_timer(tcb)
        return
    before = tcb.cwnd
    on_congestion_event(tcb, ECN, flight)
    tcb.cwnd = min(tcb.cwnd, before)  # fast recovery may let less leave (RFC 6937)
