"""The round-trip time estimator and the RTO's value (RFC 6298). Its deadline lives with the other deadlines.

One sample a round trip, as RFC 6298's alpha and beta expect: with one for each ACK, as timestamps would allow, the
estimator would forget within a round trip what the last ones were like (RFC 7323 4.2, appendix G).
"""

from __future__ import annotations

from mypy_extensions import i64

from utcp.core.stack import MILLISECOND, NEVER
from utcp.core.tcb import Tcb
from utcp.wire.segment import Segment
from utcp.wire.seq import MASK, seq_ge, seq_le, seq_lt


def on_rtt_sample(tcb: Tcb, rtt: i64) -> None:
    """Take one measurement, in nanoseconds (RFC 6298 2.2, 2.3); the RTO comes out of its back-off (5)."""
    tcb.rtt_at = NEVER
    tcb.rtt_round = tcb.snd_nxt
    if tcb.srtt < 0:
        tcb.srtt = rtt
        tcb.rttvar = rtt >> 1
    else:
        delta: i64 = tcb.srtt - rtt
        if delta < 0:
            delta = -delta
        tcb.rttvar += (delta - tcb.rttvar) >> 2
        tcb.srtt += (rtt - tcb.srtt) >> 3
    policy = tcb.policy
    rto: i64 = tcb.srtt + 4 * tcb.rttvar
    if rto < policy.rto_min:
        rto = policy.rto_min
    tcb.rto = rto if rto < policy.rto_max else policy.rto_max
    if tcb.recovery is not None:
        tcb.recovery.tlp_measured = True  # RFC 8985 7.3


def time_segment(tcb: Tcb, end: i64) -> None:
    """Start timing the segment that ends before ``end``, unless one is being timed already."""
    if tcb.rtt_at == NEVER:
        tcb.rtt_at = tcb.stack.now
        tcb.rtt_seq = end


def measure(tcb: Tcb, seg: Segment) -> None:
    """Take a sample from an ACK of new data, if it gives one.

    A timed segment is exact to the nanosecond and never a retransmitted one (Karn, MUST-18). Where it cannot
    serve, the timestamp echo can (RFC 7323 4.1), whatever was retransmitted, if it acknowledges something that was sent
    after the last sample; but an echo from before the last time-out is no echo of what was sent again, and says how
    long we waited, not how long the path is. Less than a tick of the clock counts as one.
    """
    if tcb.rtt_at != NEVER and (seg.ack == tcb.rtt_seq or seq_ge(seg.ack, tcb.rtt_seq)):
        sample: i64 = tcb.stack.now - tcb.rtt_at
        if sample < tcb.min_rtt:
            tcb.min_rtt = sample
        on_rtt_sample(tcb, sample)
        return
    if tcb.rtt_at != NEVER or not tcb.ts_on or not seg.ts or seg.ts_ecr == 0:
        return
    if seq_le(seg.ack, tcb.rtt_round) or seq_lt(seg.ts_ecr, tcb.rtx_ts):
        return
    elapsed: i64 = (tcb.stack.ts_now(tcb.ts_offset) - seg.ts_ecr) & MASK
    if elapsed < 0x7FFFFFFF:
        on_rtt_sample(tcb, max(elapsed, 1) * MILLISECOND)


def on_delivered(tcb: Tcb, left: i64, right: i64) -> None:
    """The peer has reported [left, right) by SACK, which was sent once: is the timed segment among it?

    Its cumulative acknowledgment may wait for a hole before it to be filled, and says nothing of the path then.
    """
    if tcb.rtt_at != NEVER and seq_lt(left & MASK, tcb.rtt_seq) and seq_le(tcb.rtt_seq, right & MASK):
        on_rtt_sample(tcb, tcb.stack.now - tcb.rtt_at)


def back_off(tcb: Tcb) -> None:
    """Double the RTO (RFC 6298 5.5); a retransmitted segment is no longer timed (Karn).

    The first echo of what is sent from now on is a sample, though one was taken in this round trip before, unless new
    data is being timed by then, whose ACK is one: it ends the back-off (RFC 6298 5; so does Linux).
    """
    tcb.rtx_count += 1
    tcb.rtt_at = NEVER
    tcb.rtt_round = tcb.snd_una
    tcb.rtx_ts = tcb.stack.ts_now(tcb.ts_offset)
    tcb.rto = min(tcb.rto * 2, tcb.policy.rto_max)
