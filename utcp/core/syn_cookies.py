"""SYN cookies (RFC 4987 3.6): with the backlog full of half-open connections, the handshake goes on without state.

The SYN-ACK's sequence number is a keyed hash of the connection, the peer's ISN and a slow counter, with an index
of the peer's MSS; window scale, SACK-permitted and ECN travel in the low bits of its timestamp, as in Linux. The ACK
that comes back proves the peer's address and says all that is needed to make the connection.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, final

from librt.vecs import vec
from mypy_extensions import i64

from utcp.core.isn import timestamp_offset
from utcp.core.paths import Path
from utcp.core.policy import ECN_OFF
from utcp.core.receive_window import syn_window
from utcp.core.stack import Stack
from utcp.core.tcb import Tcb
from utcp.wire.segment import (
    ACK,
    CWR,
    ECE,
    HEADER_SIZE,
    SYN,
    Segment,
    syn_options_size,
    write_header,
    write_syn_options,
)
from utcp.wire.seq import MASK, seq_gt

PERIOD: Final = 64_000_000_000  # a cookie is good for one to two of these
MAX_USED: Final = 1 << 20  # in one period
_MSS: Final = vec[i64]([216, 536, 1160, 1180, 1220, 1440, 8900, 65_000])
_NO_WSCALE: Final = 15
_SACK_BIT: Final = 16
_ECN_BIT: Final = 32
_OPTION_BITS: Final = 0x3F


@final
class SynCookies:
    """A listener's cookies: for how long they are out, and which have been used."""

    def __init__(self) -> None:
        self.out_until: i64 = -1
        self._period: i64 = 0
        # A second ACK with the same cookie must not open a second connection; by the period of their use
        self._used: set[int] = set()
        self._used_before: set[int] = set()

    def outstanding(self, now: i64) -> bool:
        """Whether an ACK may carry a cookie of ours."""
        return now < self.out_until

    def sent(self, now: i64) -> None:
        self.out_until = now + 2 * PERIOD

    def use(self, key: i64, cookie: i64, now: i64) -> bool:
        """Take note of a good cookie. False if it was used before, or too many are to be remembered."""
        period = now // PERIOD
        if period != self._period:
            self._used_before = self._used if period == self._period + 1 else set()
            self._used = set()
            self._period = period
        mark = (int(key) << 32) | int(cookie)
        if mark in self._used or mark in self._used_before or len(self._used) >= MAX_USED:
            return False
        self._used.add(mark)
        return True


def answer_with_cookie(stack: Stack, route: Path, seg: Segment, offer: Tcb) -> None:
    """A SYN-ACK that leaves nothing behind; ``offer`` has the options that a connection of this listener offers."""
    index = _mss_index(seg.mss)
    cookie = _cookie(stack, route, seg.dst_port, seg.src_port, seg.seq, stack.now // PERIOD, index)
    ts = offer.ts_on and seg.ts
    # Without timestamps nothing but the MSS can be remembered
    sack = ts and offer.sack_on and seg.sack_permitted
    ecn = ts and offer.policy.ecn != ECN_OFF and seg.flags & (ECE | CWR) == ECE | CWR
    ts_val: i64 = 0
    wscale: i64 = -1
    if ts:
        ts_val = _timestamp(stack, route, seg, ecn)
        wscale = offer.rcv_wscale if offer.wscale_on and seg.wscale >= 0 else -1
    flags: i64 = SYN | ACK | ECE if ecn else SYN | ACK
    size: i64 = HEADER_SIZE + syn_options_size(wscale, sack, ts)
    train = stack.trains.board(route, size, 0, -1)
    w = train.writer
    ack: i64 = (seg.seq + 1) & MASK
    window = syn_window(offer)
    write_header(w, seg.dst_port, seg.src_port, cookie, ack, flags, window, size, 0)
    write_syn_options(w, offer.rmss, wscale, sack, ts, ts_val, seg.ts_val)
    stack.counters.segments_out += 1
    stack.counters.syn_cookies_sent += 1
    if stack.observer is not None:
        stack.observer.segment_out(stack.now, route.index, train.payload()[-size:], False)


def syn_of_cookie(stack: Stack, route: Path, seg: Segment) -> Segment | None:
    """The SYN that an ACK with a good cookie answers for, rebuilt; None if the cookie is not ours."""
    cookie: i64 = (seg.ack - 1) & MASK
    irs: i64 = (seg.seq - 1) & MASK
    index: i64 = (cookie >> 24) & 7
    period: i64 = stack.now // PERIOD
    if (cookie >> 27) != (period & 31):
        period -= 1
    if _cookie(stack, route, seg.dst_port, seg.src_port, irs, period, index) != cookie:
        return None
    options: i64 = _NO_WSCALE
    if seg.ts:
        options = (seg.ts_ecr - _clock_offset(stack, route, seg)) & _OPTION_BITS
    wscale: i64 = options & 15
    flags: i64 = SYN
    if options & _ECN_BIT:
        flags |= ECE | CWR
    return Segment(
        seg.src_port,
        seg.dst_port,
        irs,
        0,
        flags,
        seg.wnd,
        mss=_MSS[index],
        wscale=-1 if wscale == _NO_WSCALE else wscale,
        sack_permitted=options & _SACK_BIT != 0,
        ts_val=seg.ts_val if seg.ts else -1,
    )


def _cookie(stack: Stack, route: Path, local_port: i64, remote_port: i64, irs: i64, period: i64, index: i64) -> i64:
    """5 bits of the period, 3 of the MSS, 24 of a hash over everything: a number an outsider cannot guess."""
    what = b"%d %d %d %d %d" % (int(local_port), int(remote_port), int(irs), int(period), int(index))
    digest = blake2b(route.key + what, key=stack.secret[:64], person=b"utcp SYN cookie", digest_size=3).digest()
    return ((period & 31) << 27) | (index << 24) | int.from_bytes(digest, "big")


def _mss_index(mss: i64) -> i64:
    index: i64 = len(_MSS) - 1
    wanted: i64 = mss if mss > 0 else 536
    while index > 0 and _MSS[index] > wanted:
        index -= 1
    return index


def _timestamp(stack: Stack, route: Path, seg: Segment, ecn: bool) -> i64:
    """Our timestamp, a little in the past, with the peer's options in its low bits."""
    offset = _clock_offset(stack, route, seg)
    options: i64 = min(seg.wscale, 14) if seg.wscale >= 0 else _NO_WSCALE
    if seg.sack_permitted:
        options |= _SACK_BIT
    if ecn:
        options |= _ECN_BIT
    now = stack.ts_now(offset)
    clock: i64 = (now - offset) & MASK
    value: i64 = (clock & ~_OPTION_BITS) | options
    if seq_gt(value, clock):
        value -= _OPTION_BITS + 1
    return (value + offset) & MASK


def _clock_offset(stack: Stack, route: Path, seg: Segment) -> i64:
    """An injected timestamp clock has none."""
    return 0 if stack.timestamp_clock is not None else timestamp_offset(route, seg.dst_port, seg.src_port)
