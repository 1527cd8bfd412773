"""The scoreboard against a model that has an entry for each segment, step by step; its runs, and what they cost."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from utcp.core.scoreboard import LOST, RETRANSMITTED, SACKED, Scoreboard
from utcp.wire.seq import MASK

SIZE = 10
START = 2**32 - 1000  # the numbers wrap


@dataclass
class Segment:
    left: int
    right: int
    at: int
    flags: int = 0


class Both:
    """A scoreboard and the model, to which everything happens alike. Blocks begin and end with segments."""

    def __init__(self) -> None:
        self.runs = Scoreboard(START, START, 0, SIZE)
        self.segments: list[Segment] = []
        self.una = START
        self.nxt = START
        self.high_rxt = START
        self.now = 0

    def send(self, count: int, short: int = 0) -> None:
        """So many full segments, and one of ``short`` bytes."""
        for n in [SIZE] * count + [short] * (short > 0):
            self.segments.append(Segment(self.nxt, self.nxt + n, self.now))
            self.nxt += n
            self.runs.sent(self.nxt, self.now, SIZE)

    def send_again(self, i: int) -> None:
        segment = self.segments[i]
        segment.flags, segment.at = RETRANSMITTED, self.now
        self.high_rxt = max(self.high_rxt, segment.right)
        self.runs.sent_again(segment.left, segment.right, self.now)

    def report(self, first: int, last: int) -> None:
        """The peer holds the segments from ``first`` to ``last``: as utcp.core.recovery does it."""
        runs, left, right = self.runs, self.segments[first].left, self.segments[last].right
        for segment in self.segments[first : last + 1]:
            segment.flags = SACKED
        i = runs.find(left)
        if not runs.flags(i) & SACKED:
            i = runs.split(left)
        while i < runs.count and runs.left(i) < right:
            if not runs.flags(i) & SACKED:
                if runs.right(i) > right:
                    runs.split(right)
                runs.sack(i)
            i += 1
        runs.join_sacked(left, right)
        # What the peer holds is one run, which left when its last segment did
        while first > 0 and self.segments[first - 1].flags & SACKED:
            first -= 1
        while last + 1 < len(self.segments) and self.segments[last + 1].flags & SACKED:
            last += 1
        for segment in self.segments[first:last]:
            segment.at = self.segments[last].at

    def lose(self, i: int) -> None:
        """The whole run that the segment is of."""
        k = self.runs.find(self.segments[i].left)
        for segment in self.segments:
            if self.runs.left(k) <= segment.left < self.runs.right(k):
                segment.flags |= LOST
        self.runs.lose(k)

    def lose_first(self) -> None:
        first = self.segments[0]
        fresh = 0 if first.flags & LOST else first.right - first.left
        first.flags |= LOST
        assert self.runs.lose_first(SIZE) == fresh

    def lose_all(self) -> None:
        for segment in self.segments:
            if not segment.flags & SACKED:
                segment.flags |= LOST
        self.runs.lose_all()

    def find_all(self) -> None:
        for segment in self.segments:
            segment.flags &= ~LOST
        self.runs.find_all()

    def distrust(self) -> None:
        for segment in self.segments:
            if segment.flags & SACKED:
                segment.flags = 0
        self.runs.distrust(SIZE)

    def acknowledge(self, count: int) -> None:
        """So many segments, and what the peer had reported right behind them."""
        while count < len(self.segments) and self.segments[count].flags & SACKED:
            count += 1
        if count:
            self.una = self.segments[count - 1].right
            del self.segments[:count]
            self.runs.acknowledged(self.una)

    def check(self) -> None:
        runs = self.runs
        assert (runs.una, runs.nxt(), runs.high_rxt) == (self.una, self.nxt, self.high_rxt)
        edges = [runs.left(i) for i in range(runs.count)]
        assert edges == sorted(set(edges))
        assert [runs.right(i) for i in range(runs.count)] == [*edges[1:], *[self.nxt] * bool(edges)]
        assert set(edges) <= {segment.left for segment in self.segments}
        for segment in self.segments:
            i = runs.find(segment.left)
            assert runs.find(segment.right - 1) == i
            assert runs.flags(i) == segment.flags
            assert runs.sent_at(i) == segment.at
            assert runs.position(segment.left & MASK) == segment.left
        assert runs.find(self.nxt) == runs.count
        self._check_totals()
        self._check_queries()

    def _bytes(self, which: int, but: int = 0) -> int:
        return sum(s.right - s.left for s in self.segments if s.flags & which and not s.flags & but)

    def _check_totals(self) -> None:
        runs = self.runs
        assert (runs.sacked, runs.lost) == (self._bytes(SACKED), self._bytes(LOST))
        assert runs.resent == self._bytes(RETRANSMITTED, but=LOST)
        sacked = [bool(segment.flags & SACKED) for segment in self.segments]
        assert runs.sacked_segments == sum(sacked)
        assert runs.blocks == sum(b and not a for a, b in zip([False, *sacked], sacked, strict=False))

    def _check_queries(self) -> None:
        runs = self.runs
        i = runs.next_lost(0)
        lost = [segment for segment in self.segments if segment.flags & LOST]
        assert i == (runs.find(lost[0].left) if lost else runs.count)
        if lost:
            beyond = next((s.left for s in self.segments if s.left > lost[0].left and not s.flags & LOST), self.nxt)
            for limit in (lost[0].left + 1, beyond - 1, beyond, beyond + 1):
                assert runs.lost_until(i, limit) == min(beyond, limit)
        third = (self.nxt - self.una) // 3
        left, right = self.una + third, self.nxt - third
        within = (min(s.right, right) - max(s.left, left) for s in lost)
        assert runs.lost_within(left, right) == sum(max(n, 0) for n in within)
        if self.segments and not self.segments[-1].flags & SACKED:
            assert runs.last_segment() == self.segments[-1].left
        first = self.segments[0] if self.segments else Segment(0, 0, 0)
        assert first.flags & SACKED or runs.first_segment() == first.right - first.left


@pytest.mark.parametrize("seed", range(40))
def test_against_the_model(seed: int) -> None:
    """Of what the peer has reported the segments' sizes are forgotten: it reneges only where all are full."""
    dice = random.Random(seed)
    both = Both()
    for _ in range(250):
        step(both, dice, reneges=seed % 2 == 0)
        both.check()


def step(both: Both, dice: random.Random, *, reneges: bool) -> None:
    n = len(both.segments)
    both.now += dice.choice([0, 0, 1])
    missing = [i for i in range(n) if not both.segments[i].flags & SACKED]
    what = dice.random()
    if what < 0.35 or not missing:
        both.send(dice.randrange(1, 4), 0 if reneges else dice.choice([0, 0, 0, 1, 4]))
    elif what < 0.55:
        first = dice.choice(missing)
        both.report(first, min(first + dice.randrange(3), n - 1))
    elif what < 0.65:
        both.lose(dice.choice(missing))
    elif what < 0.8:
        both.send_again(dice.choice(missing))
    elif what < 0.92:
        both.acknowledge(dice.randrange(n + 1))
    elif what < 0.94 and not both.segments[0].flags & SACKED:
        both.lose_first()
    elif what < 0.96:
        both.lose_all()
    elif what < 0.98:
        both.find_all()
    elif reneges:
        both.distrust()


def test_a_train_is_one_run_and_so_is_one_sent_again() -> None:
    both = Both()
    both.send(5)
    both.send(3)
    assert both.runs.count == 1
    both.now += 1
    both.send(2)
    assert both.runs.count == 2
    both.lose_all()
    both.now += 1
    for i in range(4):
        both.send_again(i)
        both.check()
    assert [both.runs.right(i) - START for i in range(both.runs.count)] == [40, 80, 100]


def test_what_left_before_it_was_made_and_a_larger_segment_after_it() -> None:
    runs = Scoreboard(START, START + 34, 5, SIZE)
    assert (runs.count, runs.nxt(), runs.sent_at(0), runs.last_segment()) == (1, START + 34, 5, START + 30)
    runs.sent(START + 54, 5, SIZE)
    assert (runs.count, runs.last_segment()) == (2, START + 34)
    assert Scoreboard(START, START, 5, SIZE).count == 0


def test_what_is_acknowledged_is_not_kept() -> None:
    """A record for each instant, a thousand of them: no more than a few hundred words stay behind."""
    both = Both()
    for _ in range(1000):
        both.now += 1
        both.send(1)
        if len(both.segments) > 8:
            both.acknowledge(1)
        both.check()
        assert len(both.runs._words) < 500


def test_larger_segments_than_now_fit_are_lost() -> None:
    both = Both()
    both.send(3)
    both.send(0, 4)
    both.now += 1
    both.send(0, 6)
    both.report(1, 1)
    assert both.runs.lose_larger(10) == 0
    assert both.runs.lose_larger(6) == 24  # with the short one of their run
    assert both.runs.lose_larger(6) == 0
    assert both.runs.lose_larger(5) == 6
