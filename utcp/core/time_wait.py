"""TIME-WAIT: what its compact records do with segments (RFC 9293 3.10.7.4; RFC 1337; RFC 6191; MUST-13, MAY-2).

Deviation in form: this comes before the sequence check of 3.10.7.4, on a record instead of a TCB, because a
repeated FIN, which that check would only acknowledge, must also restart the 2MSL wait.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.isn import timestamp_offset
from utcp.core.paths import Path
from utcp.core.reset import answer_with_reset, within_challenge_limit
from utcp.core.stack import Stack, connection_key
from utcp.core.teardown import time_wait_ended
from utcp.wire.segment import ACK, FIN, HEADER_SIZE, RST, SYN, Segment, write_header
from utcp.wire.seq import MASK, seq_gt, seq_lt

HANDLED: Final = -1


def time_wait_arrives(stack: Stack, route: Path, record: i64, seg: Segment) -> i64:
    """A segment for a record. Returns HANDLED, or the old SND.NXT if its SYN opens a new incarnation.

    In that case the record is gone and the SYN goes on to the listener.
    """
    key = connection_key(route.index, seg.dst_port, seg.src_port)
    if seg.flags & RST:
        # RFC 1337 3, fix F1: a RST must not assassinate TIME-WAIT
        if not stack.policy.rfc1337 and seg.seq == stack.time_wait.rcv_nxt(record):
            _remove(stack, record, key)
        return HANDLED
    if seg.flags & SYN:
        return _syn_arrives(stack, route, record, key, seg)
    if seg.flags & ACK:
        _ack_arrives(stack, route, record, key, seg)
    return HANDLED


def _syn_arrives(stack: Stack, route: Path, record: i64, key: i64, seg: Segment) -> i64:
    """A new incarnation, if the SYN shows that it is no old duplicate and somebody listens."""
    listener = stack.listeners.get(seg.dst_port)
    policy = stack.policy if listener is None else listener.policy
    if seg.flags & FIN and policy.drop_syn_fin:
        return HANDLED
    if seg.flags & ACK or not _opens_anew(stack, record, seg, policy.timestamps):
        _acknowledge(stack, route, record, seg)  # a challenge (RFC 5961 4.2; RFC 6191 would be silent)
        return HANDLED
    if listener is None:
        answer_with_reset(stack, route, seg)
        return HANDLED
    if stack.crowded():
        stack.counters.connections_refused += 1
        return HANDLED
    if listener.full():
        stack.counters.accept_overflows += 1
        return HANDLED
    return take_over(stack, record, key)


def _ack_arrives(stack: Stack, route: Path, record: i64, key: i64, seg: Segment) -> None:
    """A repeated FIN is acknowledged and restarts 2MSL; anything else that is old is acknowledged."""
    table = stack.time_wait
    if seg.seq == table.rcv_nxt(record) and seg.len == 0:
        return  # an acceptable ACK: nothing to say, nothing to do
    repeated_fin = seg.flags & FIN and (seg.seq + seg.len) & MASK == table.rcv_nxt(record)
    if repeated_fin and not _old_by_timestamp(stack, record, seg):
        if seg.ts and table.ts_on(record):
            table.update(record, seg.ts_val, stack.ts_now(timestamp_offset(route, seg.dst_port, seg.src_port)))
        table.restart(record, stack.now)
        stack.counters.time_wait_restarted += 1
        record = table.find(key)
    _acknowledge(stack, route, record, seg)


def _opens_anew(stack: Stack, record: i64, seg: Segment, timestamps: bool) -> bool:
    """Whether a SYN may take over a pair in TIME-WAIT (RFC 6191 2, MAY-2).

    Timestamps count only if the new incarnation would use them: only then does PAWS protect it.
    """
    table = stack.time_wait
    higher_seq = seq_gt(seg.seq, table.rcv_nxt(record))
    if seg.ts and timestamps:
        if not table.ts_on(record):
            return True  # RFC 6191: the old one had no timestamps, the new one has
        if seg.ts_val == table.ts_recent(record):
            return higher_seq
        return seq_gt(seg.ts_val, table.ts_recent(record))
    return higher_seq


def _old_by_timestamp(stack: Stack, record: i64, seg: Segment) -> bool:
    """PAWS (RFC 7323 5): a FIN from an earlier incarnation must not prolong the wait."""
    table = stack.time_wait
    return table.ts_on(record) and (not seg.ts or seq_lt(seg.ts_val, table.ts_recent(record)))


def _acknowledge(stack: Stack, route: Path, record: i64, seg: Segment) -> None:
    """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK> from the record; to a bare ACK or SYN within limits (RFC 5961 7)."""
    if seg.data_len == 0 and not seg.flags & FIN and not within_challenge_limit(stack):
        stack.counters.challenge_acks_suppressed += 1
        return
    table = stack.time_wait
    ts = table.ts_on(record)
    size: i64 = HEADER_SIZE + (12 if ts else 0)
    train = stack.trains.board(route, size, 0, -1)
    w = train.writer
    snd_nxt = table.snd_nxt(record)
    rcv_nxt = table.rcv_nxt(record)
    ts_recent = table.ts_recent(record)
    ts_val: i64 = 0
    if ts:
        ts_val = stack.ts_now(timestamp_offset(route, seg.dst_port, seg.src_port))
        table.update(record, ts_recent, ts_val)
    wnd = table.rcv_wnd(record)
    write_header(w, seg.dst_port, seg.src_port, snd_nxt, rcv_nxt, ACK, wnd, size, 0, ts, ts_val, ts_recent)
    stack.counters.segments_out += 1
    if stack.observer is not None:
        stack.observer.segment_out(stack.now, route.index, train.payload()[-size:], False)


def reusable_locally(
    stack: Stack, route: Path, record: i64, local_port: i64, remote_port: i64, timestamps: bool
) -> bool:
    """Whether our own connect, with ``timestamps`` on, may take over a pair in TIME-WAIT.

    Deviation, as Linux's tcp_tw_reuse: RFC 9293 speaks of the remote side only (MAY-2), but once our timestamp
    clock has advanced, PAWS at the peer tells the incarnations apart.
    """
    table = stack.time_wait
    if not stack.policy.time_wait_reuse or not timestamps or not table.ts_on(record):
        return False
    return seq_gt(stack.ts_now(timestamp_offset(route, local_port, remote_port)), table.ts_last(record))


def take_over(stack: Stack, record: i64, key: i64) -> i64:
    """Remove a record for a new incarnation; returns its SND.NXT, above which the new ISN must lie (MAY-2)."""
    old_snd_nxt = stack.time_wait.snd_nxt(record)
    _remove(stack, record, key)
    stack.counters.time_wait_reused += 1
    return old_snd_nxt


def _remove(stack: Stack, record: i64, key: i64) -> None:
    stack.time_wait.remove(record)
    time_wait_ended(stack, key)


def expire_time_wait(stack: Stack, limit: i64) -> bool:
    """Delete up to ``limit`` records whose 2MSL have passed. Returns whether more are due."""
    table = stack.time_wait
    done: i64 = 0
    while done < limit:
        key = table.pop_expired(stack.now)
        if key < 0:
            return False
        if stack.observer is not None:
            stack.tell_timer(key, "2msl")
        time_wait_ended(stack, key)
        done += 1
    return True
