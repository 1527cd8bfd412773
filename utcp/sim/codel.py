"""CoDel (RFC 8289): a queue that drops, or marks, what has waited too long for too long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isqrt
from typing import Final, Generic, TypeVar

TARGET: Final = 5_000_000  # ns of waiting that are acceptable (RFC 8289 4.3)
INTERVAL: Final = 100_000_000  # ns, a round trip of the worst usual kind (RFC 8289 4.2)
MTU: Final = 1500  # bytes: a queue of no more than that is not what makes a segment wait (RFC 8289 5.4)

T = TypeVar("T")


@dataclass(slots=True)
class Waiting(Generic[T]):
    """What waits: ``item`` of ``size`` bytes, since ``since`` (ns)."""

    item: T
    size: int
    since: int


@dataclass(slots=True)
class Taken(Generic[T]):
    """What ``Codel.take`` found: the next to leave, if any, whether it is to be marked, and what was dropped first."""

    item: T | None = None
    size: int = 0
    marked: bool = False
    dropped: list[T] = field(default_factory=list)


class Codel(Generic[T]):
    """The pseudocode of RFC 8289 5, in integers; ``can_mark`` says whether an item's sender speaks ECN."""

    def __init__(self, can_mark: Callable[[T], bool]) -> None:
        self._can_mark = can_mark
        self.size = 0
        """Bytes that wait."""
        self._waiting: deque[Waiting[T]] = deque()
        self._first_above_time = 0
        self._drop_next = 0
        self._count = 0
        self._last_count = 0
        self._dropping = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: T, size: int, now: int) -> None:
        self._waiting.append(Waiting(item, size, now))
        self.size += size

    def take(self, now: int, ecn: bool) -> Taken[T]:
        """The next to leave at ``now``; with ``ecn`` a mark stands for a drop where it can."""
        found: Taken[T] = Taken()
        one, too_long = self._dequeue(now)
        if self._dropping:
            if not too_long:
                self._dropping = False
            while one is not None and self._dropping and now >= self._drop_next:
                self._count += 1
                if self._strike(one, found, ecn):
                    self._drop_next = _control_law(self._drop_next, self._count)
                    break
                one, too_long = self._dequeue(now)
                if too_long:
                    self._drop_next = _control_law(self._drop_next, self._count)
                else:
                    self._dropping = False
        elif too_long and one is not None:
            if not self._strike(one, found, ecn):
                one, _ = self._dequeue(now)
            self._dropping = True
            # If it was dropping not long ago, go on at about that rate
            delta = self._count - self._last_count
            self._count = delta if delta > 1 and now - self._drop_next < 16 * INTERVAL else 1
            self._drop_next = _control_law(now, self._count)
            self._last_count = self._count
        if one is not None:
            found.item, found.size = one.item, one.size
        return found

    def _strike(self, one: Waiting[T], found: Taken[T], ecn: bool) -> bool:
        """Mark it, which lets it go on (true), or drop it."""
        if ecn and self._can_mark(one.item):
            found.marked = True
            return True
        found.dropped.append(one.item)
        return False

    def _dequeue(self, now: int) -> tuple[Waiting[T] | None, bool]:
        """The next one, and whether all have waited too long for an interval."""
        if not self._waiting:
            self._first_above_time = 0
            return None, False
        one = self._waiting.popleft()
        self.size -= one.size
        if now - one.since < TARGET or self.size <= MTU:
            self._first_above_time = 0
            return one, False
        if self._first_above_time == 0:
            self._first_above_time = now + INTERVAL
            return one, False
        return one, now >= self._first_above_time


def _control_law(instant: int, count: int) -> int:
    """``instant + INTERVAL / sqrt(count)``, the same on every machine."""
    return instant + INTERVAL * 1_000_000 // isqrt(count * 10**12)
