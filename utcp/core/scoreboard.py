"""What the peer's SACK blocks say it holds (RFC 2018, RFC 6675 3): retransmission passes over it."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from utcp.wire.seq import seq_ge, seq_gt, seq_le, seq_lt, seq_max, seq_sub

MAX_RANGES: Final = 256  # a peer that reports more holes than this is not believed about the rest


@final
class Scoreboard:
    """Disjoint ranges [left, right) of sequence numbers above SND.UNA, in order."""

    def __init__(self) -> None:
        self._left: list[int] = []
        self._right: list[int] = []

    def __len__(self) -> int:
        return len(self._left)

    def add(self, left: i64, right: i64) -> None:
        """One block, already known to lie within what was sent."""
        i = 0
        n = len(self._left)
        while i < n and seq_lt(self._right[i], left):
            i += 1
        if i == n or seq_lt(right, self._left[i]):
            if n < MAX_RANGES:
                self._left.insert(i, left)
                self._right.insert(i, right)
            return
        if seq_lt(left, self._left[i]):
            self._left[i] = left
        end = seq_max(right, self._right[i])
        while i + 1 < len(self._left) and seq_le(self._left[i + 1], end):
            end = seq_max(end, self._right.pop(i + 1))
            self._left.pop(i + 1)
        self._right[i] = end

    def advance(self, una: i64) -> None:
        """SND.UNA moved. If that shows the peer to have dropped what it had reported, nothing of it is believed."""
        while self._left and seq_le(self._right[0], una):
            self._left.pop(0)
            self._right.pop(0)
        if self._left and seq_le(self._left[0], una):
            self.clear()  # it asks for what it said it had: reneging (RFC 2018 8)

    def clear(self) -> None:
        self._left.clear()
        self._right.clear()

    def skip(self, seq: i64) -> i64:
        """The first number from ``seq`` on that the peer has not reported."""
        for i in range(len(self._left)):
            if seq_gt(self._left[i], seq):
                break
            if seq_gt(self._right[i], seq):
                return self._right[i]
        return seq

    def hole(self, seq: i64, n: i64) -> i64:
        """How many of the ``n`` numbers from ``seq`` on come before the next reported one."""
        for left in self._left:
            if seq_ge(left, seq):
                return min(n, seq_sub(left, seq))
        return n

    def below(self, una: i64, end: i64) -> i64:
        """How many numbers in [una, end) are reported."""
        total: i64 = 0
        for i in range(len(self._left)):
            if seq_ge(self._left[i], end):
                break
            right: i64 = self._right[i]
            total += seq_sub(end if seq_gt(right, end) else right, self._left[i])
        return total
