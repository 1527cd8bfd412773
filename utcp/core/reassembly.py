"""Out-of-order data beyond RCV.NXT, kept until the hole before it is filled (RFC 9293 3.10.7.4, SHLD-31).

The data is a sorted list of disjoint ranges, each with its bytes in chunks. Sequence numbers are unwrapped into
stream positions that only grow, so that ranges compare as plain integers across the wrap at 2**32.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from utcp.core.buffers import COALESCE
from utcp.wire.seq import MASK, seq_sub

# A peer that leaves a hole after every byte would make us hold a range per byte. So each costs this much of the receive
# buffer, which is what it takes in memory, however few bytes it has. A segment that would begin one more than fits is
# dropped as if it was lost: never acknowledged, it will be sent again.
RANGE_COST: Final = 512
MAX_RANGES: Final = 16_384
MIN_RANGES: Final = 8

# Ranges whose order of arrival is remembered for SACK: twice what fits into one segment.
_REMEMBERED: Final = 8


@final
class _Range:
    """The stream positions [left, right) and their bytes.

    Neighbouring chunks of up to COALESCE bytes together are joined, as in ``utcp.core.buffers``.
    """

    def __init__(self, left: i64, data: bytes) -> None:
        self.left = left
        self.right: i64 = left + len(data)
        self.chunks: list[bytes] = [data]

    def append(self, data: bytes) -> None:
        if len(self.chunks[-1]) + len(data) <= COALESCE:
            self.chunks[-1] += data
        else:
            self.chunks.append(data)
        self.right += len(data)

    def prepend(self, data: bytes) -> None:
        if len(self.chunks[0]) + len(data) <= COALESCE:
            self.chunks[0] = data + self.chunks[0]
        else:
            self.chunks.insert(0, data)
        self.left -= len(data)

    def absorb(self, follower: _Range) -> None:
        """Take over the bytes of a range that begins where this one ends."""
        self.append(follower.chunks[0])
        if len(follower.chunks) > 1:
            self.chunks.extend(follower.chunks[1:])
            self.right = follower.right


@final
class Reassembly:
    """Out-of-order data for a receive buffer of ``buffer`` bytes; ``held`` is how many there are."""

    def __init__(self, buffer: i64) -> None:
        self.held: i64 = 0
        self._limit: i64 = min(max(buffer // RANGE_COST, MIN_RANGES), MAX_RANGES)
        self._next: i64 = 0  # stream position of RCV.NXT; its low 32 bits are RCV.NXT itself
        self._ranges: list[_Range] = []  # by position; neither overlapping nor adjacent
        self._recent: list[_Range] = []  # the ranges that grew last or were repeated last, latest first

    def cost(self) -> i64:
        """Bytes of memory, about: those held, or what so many ranges take whatever is in them."""
        return max(self.held, RANGE_COST * len(self._ranges))

    def add(self, seq: i64, data: bytes, rcv_nxt: i64) -> i64:
        """Keep ``data``, already trimmed to the window; returns how many bytes of it were new.

        Bytes already held win over repeated ones. Old bytes before RCV.NXT are cut off.
        """
        self._advance(rcv_nxt)
        left = self._next + seq_sub(seq, rcv_nxt)
        right = left + len(data)
        if left < self._next:
            data = data[self._next - left :] if right > self._next else b""
            left = self._next
        if not data:
            return 0
        before = self.held
        ranges = self._ranges
        first = self._first_reaching(left)
        if first == len(ranges) or ranges[first].left > right:
            if len(ranges) >= self._limit:
                return 0
            ranges.insert(first, _Range(left, data))
            self.held += right - left
        else:
            self._merge(first, left, data)
        self._remember(ranges[first])
        return self.held - before

    def overlap(self, seq: i64, n: i64, rcv_nxt: i64) -> tuple[int, int] | None:
        """Of the ``n`` bytes from ``seq`` on the first contiguous ones that are held already, None if none is."""
        self._advance(rcv_nxt)
        left = self._next + seq_sub(seq, rcv_nxt)
        for index in range(self._first_reaching(left), len(self._ranges)):
            r = self._ranges[index]
            if r.left >= left + n:
                break
            if r.right > left:
                return int(max(left, r.left) & MASK), int(min(left + n, r.right) & MASK)
        return None

    def pop(self, rcv_nxt: i64) -> bytes:
        """Remove and return what is contiguous from RCV.NXT on; anything before it is discarded."""
        self._advance(rcv_nxt)
        ranges = self._ranges
        gone: i64 = 0
        data = b""
        while gone < len(ranges) and ranges[gone].left <= self._next:
            oldest = ranges[gone]
            gone += 1
            self.held -= oldest.right - oldest.left
            if oldest in self._recent:
                self._recent.remove(oldest)
            if oldest.right > self._next:
                data = oldest.chunks[0] if len(oldest.chunks) == 1 else b"".join(oldest.chunks)
                if oldest.left < self._next:
                    data = data[self._next - oldest.left :]
                break
        if gone:
            del ranges[:gone]
        return data

    def sack_blocks(self, limit: i64) -> list[tuple[int, int]]:
        """Up to ``limit`` (left edge, right edge), in the order of RFC 2018 section 4.

        First the range with the most recently received segment, then those before it. When fewer ranges are
        remembered than fit, the lowest of the others fill up.
        """
        blocks = [(int(r.left & MASK), int(r.right & MASK)) for r in self._recent[:limit]]
        index: i64 = 0
        while len(blocks) < limit and index < len(self._ranges):
            r = self._ranges[index]
            if r not in self._recent:
                blocks.append((int(r.left & MASK), int(r.right & MASK)))
            index += 1
        return blocks

    def _advance(self, rcv_nxt: i64) -> None:
        self._next += seq_sub(rcv_nxt, self._next & MASK)

    def _first_reaching(self, left: i64) -> i64:
        """Index of the first range that overlaps, touches or follows the position ``left``."""
        ranges = self._ranges
        lo: i64 = 0
        hi: i64 = len(ranges)
        if hi and ranges[hi - 1].right < left:  # beyond everything, as nearly always
            return hi
        while lo < hi:
            middle = (lo + hi) >> 1
            if ranges[middle].right < left:
                lo = middle + 1
            else:
                hi = middle
        return lo

    def _merge(self, first: i64, left: i64, data: bytes) -> None:
        """Fill the holes that ``data`` covers in and around the range ``first``, which it touches."""
        ranges = self._ranges
        right = left + len(data)
        grown = ranges[first]
        size = grown.right - grown.left
        if left < grown.left:
            grown.prepend(data[: grown.left - left])
        last = first + 1
        while last < len(ranges) and ranges[last].left <= right:
            follower = ranges[last]
            size += follower.right - follower.left
            grown.append(data[grown.right - left : follower.left - left])
            grown.absorb(follower)
            if follower in self._recent:
                self._recent.remove(follower)
            last += 1
        if right > grown.right:
            grown.append(data[grown.right - left :])
        del ranges[first + 1 : last]
        self.held += grown.right - grown.left - size

    def _remember(self, reported: _Range) -> None:
        recent = self._recent
        if recent and recent[0] is reported:
            return
        if reported in recent:
            recent.remove(reported)
        recent.insert(0, reported)
        del recent[_REMEMBERED:]
