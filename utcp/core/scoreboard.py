"""The scoreboard: what is in flight, when it left, and what is known of its fate (RFC 6675 3, RFC 8985 5.2).

What left at one instant and fared alike is one record, a run, however many segments that was: a train costs one
record, and an ACK for a whole train touches one.
"""

from __future__ import annotations

from typing import Final, final

from librt.vecs import append, extend, vec
from mypy_extensions import i64

from utcp.wire.seq import MASK, seq_sub

# What a run may be. One that is LOST waits to be sent again, and is neither once it was.
SACKED: Final = 1
LOST: Final = 2
RETRANSMITTED: Final = 4
_FLAGS: Final = 7

# A peer that reports every other byte shall not make us hold a record for each: with this many blocks known, others are
# not believed
MAX_BLOCKS: Final = 1_024

_WORDS: Final = 3  # of a run: right edge, when it left, size << 3 | flags
_RIGHT: Final = 0
_SENT_AT: Final = 1
_MARK: Final = 2
_COMPACT: Final = 192  # words that may be wasted in front


@final
class Scoreboard:
    """The runs that make up [SND.UNA, SND.NXT), in order, by their index from 0 to ``count``.

    Edges are *positions*: sequence numbers that do not wrap; the low 32 bits of one are the number itself.
    """

    def __init__(self, una: i64, nxt: i64, sent_at: i64, size: i64) -> None:
        """All of [una, nxt), if that is anything, left at ``sent_at`` in segments of ``size``."""
        self.sacked: i64 = 0  # bytes
        self.sacked_segments: i64 = 0
        self.blocks: i64 = 0  # runs that are SACKED
        self.lost: i64 = 0  # bytes that wait to be sent again
        self.resent: i64 = 0  # bytes sent again, neither acknowledged nor lost since
        self.high_rxt: i64 = una  # nothing from here on was sent again (RFC 6675 2)
        self.una: i64 = una
        self.count: i64 = 0
        self._head: i64 = 0  # words in front that are no longer in use
        self._words: vec[i64] = vec[i64]()
        if nxt != una:
            self.sent(nxt, sent_at, size)

    # Looking

    def position(self, seq: i64) -> i64:
        """The position of a sequence number within 2**31 of SND.UNA."""
        return self.una + seq_sub(seq, self.una & MASK)

    def left(self, i: i64) -> i64:
        return self.una if i == 0 else self._words[self._head + _WORDS * (i - 1)]

    def right(self, i: i64) -> i64:
        return self._words[self._head + _WORDS * i]

    def sent_at(self, i: i64) -> i64:
        """When it last left."""
        return self._words[self._head + _WORDS * i + _SENT_AT]

    def flags(self, i: i64) -> i64:
        return self._words[self._head + _WORDS * i + _MARK] & _FLAGS

    def nxt(self) -> i64:
        return self.left(self.count)

    def find(self, position: i64) -> i64:
        """Index of the run that holds ``position``; ``count`` if none does."""
        lo: i64 = 0
        hi = self.count
        while lo < hi:
            middle = (lo + hi) >> 1
            if self.right(middle) <= position:
                lo = middle + 1
            else:
                hi = middle
        return lo

    def next_lost(self, i: i64) -> i64:
        """Index of the first run from ``i`` on that waits to be sent again; ``count`` if none does."""
        while i < self.count and not self.flags(i) & LOST:
            i += 1
        return i

    def lost_until(self, i: i64, limit: i64) -> i64:
        """How far what is lost goes on from the run ``i``, no further than ``limit``."""
        while i + 1 < self.count and self.right(i) < limit and self.flags(i + 1) & LOST:
            i += 1
        return min(self.right(i), limit)

    def lost_within(self, left: i64, right: i64) -> i64:
        """Bytes of [left, right) that wait to be sent again."""
        n: i64 = 0
        i = self.find(left)
        while i < self.count and self.left(i) < right:
            if self.flags(i) & LOST:
                n += min(self.right(i), right) - max(self.left(i), left)
            i += 1
        return n

    def last_segment(self) -> i64:
        """Left edge of the segment with the highest sequence numbers (there must be one)."""
        i = self.count - 1
        left = self.left(i)
        if self.flags(i) & SACKED:
            return left
        n = self.right(i) - left
        size = self._size(i)
        return left + (n - 1) // size * size

    def first_segment(self) -> i64:
        """Bytes of the segment with the lowest sequence numbers; 0 if there is none."""
        return 0 if self.count == 0 else self._longest(0)

    # Sending

    def sent(self, nxt: i64, now: i64, size: i64) -> None:
        """New data up to ``nxt`` leaves, in segments of ``size``."""
        last = self.count - 1
        if last >= 0:
            left = self.left(last)
            right = self.right(last)
            size = max(size, nxt - right)
            joins = self.sent_at(last) == now and self._size(last) == size and (right - left) % size == 0
            if joins and self.flags(last) == 0:
                self._words[self._head + _WORDS * last + _RIGHT] = nxt
                return
        self.count += 1
        self._words = append(append(append(self._words, nxt), now), size << 3)

    def sent_again(self, left: i64, right: i64, now: i64) -> None:
        """One segment, [left, right), leaves once more; both within what is in flight."""
        self.high_rxt = max(self.high_rxt, right)
        first = self.split(left)
        last = self.split(right)
        self._merge(first, last, now, ((right - left) << 3) | RETRANSMITTED)
        if first > 0 and self._alike(first - 1, first):
            before = first - 1
            self._merge(before, first + 1, now, self._words[self._head + _WORDS * before + _MARK])

    # The peer's acknowledgments

    def acknowledged(self, una: i64) -> None:
        """SND.UNA moves to ``una``, up to which every run has been looked at."""
        gone = self.find(una)
        i: i64 = 0
        while i <= gone and i < self.count:
            self._forget(i)
            i += 1
        self.una = una
        self._head += _WORDS * gone
        self.count -= gone
        if self.count > 0:
            self._note(0)
        if self._head > _COMPACT and 2 * self._head > len(self._words):
            self._words = self._words[self._head :]
            self._head = 0

    def sack(self, i: i64) -> None:
        """The peer holds the run ``i``."""
        left = self.left(i)
        segments = (self.right(i) - left + self._size(i) - 1) // self._size(i)
        self._forget(i)
        self._mark(i, (segments << 3) | SACKED)
        self._note(i)

    def join_sacked(self, left: i64, right: i64) -> None:
        """Make [left, right), all reported by the peer, and what touches it and was reported too, one run."""
        first = self.find(left)
        last = self.find(right - 1)
        if first > 0 and self.flags(first - 1) & SACKED:
            first -= 1
        if last + 1 < self.count and self.flags(last + 1) & SACKED:
            last += 1
        if first == last:
            return
        segments: i64 = 0
        i = first
        while i <= last:
            segments += self._size(i)
            i += 1
        self._merge(first, last + 1, self.sent_at(last), (segments << 3) | SACKED)

    def distrust(self, size: i64) -> None:
        """Nothing of what the peer has reported is believed any more: it counts as in flight again."""
        i: i64 = 0
        while i < self.count:
            if self.flags(i) & SACKED:
                self._forget(i)
                self._mark(i, size << 3)
                self._note(i)
            i += 1

    # Verdicts

    def lose(self, i: i64) -> None:
        """The run ``i`` must be sent again."""
        self._forget(i)
        self._mark(i, self._words[self._head + _WORDS * i + _MARK] | LOST)
        self._note(i)

    def lose_first(self, size: i64) -> i64:
        """The first segment, of up to ``size``, must be sent again; returns how many bytes that are."""
        before = self.lost
        self.split(min(self.una + min(self._size(0), size), self.right(0)))
        self.lose(0)
        return self.lost - before

    def lose_larger(self, size: i64) -> i64:
        """Segments of more than ``size`` bytes must be sent again; returns how many bytes that are."""
        before = self.lost
        i: i64 = 0
        while i < self.count:
            if not self.flags(i) & (SACKED | LOST) and self._longest(i) > size:
                self.lose(i)
            i += 1
        return self.lost - before

    def lose_all(self) -> None:
        """Everything that the peer has not reported must be sent again."""
        i: i64 = 0
        while i < self.count:
            if not self.flags(i) & SACKED:
                self.lose(i)
            i += 1

    def find_all(self) -> None:
        """Nothing is lost after all."""
        i: i64 = 0
        while i < self.count:
            if self.flags(i) & LOST:
                self._forget(i)
                self._mark(i, self._words[self._head + _WORDS * i + _MARK] & ~LOST)
                self._note(i)
            i += 1

    # Within

    def split(self, position: i64) -> i64:
        """See to it that a run begins at ``position``, which is in flight or SND.NXT; returns its index."""
        i = self.find(position)
        if i == self.count or self.left(i) == position:
            return i
        k = self._head + _WORDS * i
        words = self._words
        cut = vec[i64]([position, words[k + _SENT_AT], words[k + _MARK]])
        self._words = extend(extend(words[:k], cut), words[k:])
        self.count += 1
        return i + 1

    def _size(self, i: i64) -> i64:
        """Bytes of each of its segments but the last, which may be shorter; if SACKED, how many segments it was."""
        return self._words[self._head + _WORDS * i + _MARK] >> 3

    def _longest(self, i: i64) -> i64:
        """Bytes of the longest segment of a run that is not SACKED."""
        return min(self._size(i), self.right(i) - self.left(i))

    def _mark(self, i: i64, mark: i64) -> None:
        self._words[self._head + _WORDS * i + _MARK] = mark

    def _put(self, i: i64, right: i64, sent_at: i64, mark: i64) -> None:
        k = self._head + _WORDS * i
        self._words[k + _RIGHT] = right
        self._words[k + _SENT_AT] = sent_at
        self._words[k + _MARK] = mark

    def _alike(self, i: i64, j: i64) -> bool:
        """Whether the run ``j`` goes on where ``i`` ends, as if they had been one from the start."""
        size = self._size(i)
        return (
            self.sent_at(i) == self.sent_at(j)
            and self.flags(i) == RETRANSMITTED
            and (self.right(i) - self.left(i)) % size == 0
            and self._size(j) <= size
        )

    def _merge(self, first: i64, end: i64, sent_at: i64, mark: i64) -> None:
        """The runs from ``first`` to before ``end`` become one."""
        i = first
        while i < end:
            self._forget(i)
            i += 1
        self._put(first, self.right(end - 1), sent_at, mark)
        if end > first + 1:
            k = self._head + _WORDS * (first + 1)
            m = self._head + _WORDS * end
            self._words = extend(self._words[:k], self._words[m:])
            self.count -= end - first - 1
        self._note(first)

    def _note(self, i: i64) -> None:
        self._tally(i, 1)

    def _forget(self, i: i64) -> None:
        self._tally(i, -1)

    def _tally(self, i: i64, sign: i64) -> None:
        """Add the run to the totals, or take it from them."""
        flags = self.flags(i)
        if flags == 0:
            return
        n = sign * (self.right(i) - self.left(i))
        if flags & SACKED:
            self.sacked += n
            self.sacked_segments += sign * self._size(i)
            self.blocks += sign
        elif flags & LOST:
            self.lost += n
        else:
            self.resent += n
