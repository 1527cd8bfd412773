"""How much a connection holds for its reader: dynamic right-sizing (Fisk and Feng, 2001), as Linux's
tcp_rcv_space_adjust.

What the reader took within a round trip is what the path carries, or half of what it will carry in the next one. The
buffer, and the window with it, is kept larger than both, from ``initial_receive_buffer`` to ``max_receive_buffer``. It
never shrinks, and so the window does not either (RFC 9293 3.8.6, SHLD-14). A ``receive_buffer`` that is set is neither
larger nor smaller than that.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from utcp.core.stack import MILLISECOND
from utcp.core.tcb import Tcb, short_of_memory
from utcp.wire.segment import Segment
from utcp.wire.seq import MASK, seq_ge, seq_sub

MAX_WINDOW: Final = 65_535
_UNKNOWN: Final = -1
_INITIAL_WINDOW: Final = 10  # segments: what a sender begins with (RFC 6928)
_CUSHION: Final = 16  # segments, beside twice of what was read


@final
class RightSizing:
    """The round trip, and the reading, of a connection that receives in bulk."""

    __slots__ = ("echo", "read_at", "read_from", "rtt", "space", "turn_at", "turn_end")

    def __init__(self, now: i64, rtt: i64, read_from: i64, space: i64, turn_end: i64) -> None:
        self.rtt: i64 = rtt  # ns, as the receiver sees it; negative: unknown
        self.echo: i64 = _UNKNOWN  # the last TSecr that was looked at
        self.turn_at: i64 = now  # when the window began to be filled whose right edge is turn_end
        self.turn_end: i64 = turn_end
        self.read_at: i64 = now  # when the reading began to be measured, and from which sequence number on
        self.read_from: i64 = read_from
        self.space: i64 = space  # bytes: the most that was read within a round trip


def on_data(tcb: Tcb, seg: Segment) -> None:
    """``seg`` has brought data in sequence, and RCV.NXT has moved."""
    if tcb.policy.receive_buffer >= 0 or 4 * tcb.bytes_in < tcb.rcv_buf:
        return  # a fixed buffer, or no bulk transfer as yet
    sizing = tcb.sizing
    if sizing is None:
        space = max(min(_INITIAL_WINDOW * tcb.rcv_mss, tcb.rcv_buf >> 1), 1)
        tcb.sizing = RightSizing(tcb.stack.now, tcb.srtt, _read_up_to(tcb), space, tcb.rcv_adv)
        return
    if seq_ge(tcb.rcv_nxt, sizing.turn_end):
        # A whole window has come since it was offered: that takes a round trip, or longer if the sender is slow
        turn: i64 = tcb.stack.now - sizing.turn_at
        if sizing.rtt < 0 or turn < sizing.rtt:
            sizing.rtt = turn
        sizing.turn_at = tcb.stack.now
        sizing.turn_end = tcb.rcv_adv
    if tcb.ts_on and seg.ts and seg.ts_ecr != sizing.echo and seg.data_len >= tcb.rcv_mss:
        sizing.echo = seg.ts_ecr
        elapsed: i64 = (tcb.stack.ts_now(tcb.ts_offset) - seg.ts_ecr) & MASK
        if elapsed < 0x7FFFFFFF:
            behind = _unread(tcb) > seg.data_len  # the segment itself waits already
            _take_echo(sizing, max(elapsed, 1) * MILLISECOND, behind)


def _take_echo(sizing: RightSizing, sample: i64, behind: bool) -> None:
    """Since we sent what this full segment answers. A sender that had nothing to say makes it too long, so a longer
    time counts for little, and for nothing while the reader is ``behind`` (Linux)."""
    if sizing.rtt < 0 or sample < sizing.rtt:
        sizing.rtt = sample
    elif not behind:
        sizing.rtt += (sample - sizing.rtt) >> 3


def on_read(tcb: Tcb) -> None:
    """The user has read: once in a round trip, see how much that was."""
    sizing = tcb.sizing
    if sizing is None or sizing.rtt < 0 or tcb.stack.now - sizing.read_at < sizing.rtt:
        return
    up_to = _read_up_to(tcb)
    copied: i64 = seq_sub(up_to, sizing.read_from)
    if copied > sizing.space:
        _grow(tcb, copied, sizing.space)
        sizing.space = copied
    sizing.read_from = up_to
    sizing.read_at = tcb.stack.now


def _grow(tcb: Tcb, copied: i64, space: i64) -> None:
    """Twice of what was read covers a loss, which holds up a round trip; as much more as it was more than before covers
    a sender whose window doubles: what we say now is for the round trip after this one."""
    if short_of_memory(tcb):
        return
    limit = tcb.policy.max_receive_buffer
    wanted = 2 * copied + _CUSHION * tcb.rcv_mss
    wanted = min(wanted, limit)
    wanted += 2 * (wanted * (copied - space) // space)
    wanted = min(min(wanted, limit), MAX_WINDOW << tcb.rcv_wscale)  # noqa: PLW3301 - mypyc compiles min of two to a comparison
    tcb.rcv_buf = max(tcb.rcv_buf, wanted)


def follow_policy(tcb: Tcb) -> None:
    """The option ``receive_buffer`` or ``max_receive_buffer`` has changed. What was promised is kept (SHLD-14)."""
    policy = tcb.policy
    if policy.receive_buffer >= 0:
        tcb.rcv_buf = policy.receive_buffer
        tcb.sizing = None
    else:
        tcb.rcv_buf = min(max(tcb.rcv_buf, policy.first_receive_buffer), policy.max_receive_buffer)


def _read_up_to(tcb: Tcb) -> i64:
    """The sequence number of the byte that the reader takes next."""
    return (tcb.rcv_nxt - _unread(tcb)) & MASK


def _unread(tcb: Tcb) -> i64:
    queue = tcb.receive_queue
    return 0 if queue is None else queue.size
