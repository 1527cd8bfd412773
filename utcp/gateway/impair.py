"""What experiments do to segments on their way: seeded impairments, and rules about single segments.

An impairment is called once per segment and says when its copies go on: ``()`` loses it, ``(0,)`` lets it pass,
``(0, 0)`` doubles it, ``(5_000_000,)`` delays it by 5 ms. There is no corruption: the checksum of a damaged datagram
is wrong and it never reaches TCP, so that to both ends a corrupted segment is a lost one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from utcp.wire.segment import Segment, decode


class Direction(Enum):
    TO_KERNEL = "to-kernel"
    TO_UTCP = "to-utcp"


# (direction, segment, now in ns) -> how long each copy is held back, in ns
Impair = Callable[[Direction, bytes, int], Sequence[int]]

# (direction, segment) -> whether an ECN-capable segment is marked: congestion experienced (RFC 3168 5)
Mark = Callable[[Direction, bytes], bool]

PASS: Final = (0,)
LOSE: Final = ()

_SECOND: Final = 1_000_000_000
# How long a segment is held back so that later ones overtake it
_REORDER_HOLD: Final = 10_000_000


@dataclass(frozen=True, kw_only=True)
class LinkQuality:
    """One direction of a link. Probabilities are per segment; times are in seconds.

    ``delay`` plus up to ``jitter`` (evenly spread) holds every segment back, in order. A segment picked by
    ``reorder`` is held 10 ms longer and loses its place. ``rate`` is in bits per second, counting segments with
    their TCP headers; segments that would wait longer than ``queue`` for it are dropped. Raises ValueError naming
    the field and its bounds.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    rate: float = 0.0  # 0: unlimited
    queue: float = 0.1

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not in [0, 1]")
        for name in ("delay", "jitter", "queue"):
            if not 0 <= getattr(self, name) <= 3600:
                raise ValueError(f"{name}: {getattr(self, name)} is not in [0, 3600] (seconds)")
        if not (self.rate == 0 or 1 <= self.rate <= 1e12):
            raise ValueError(f"rate: {self.rate} is not 0 or in [1, 1e12] (bits per second)")


class Impairments:
    """Impairs both directions, each by a generator of its own: what happens to the n-th segment of a direction
    depends on the seed and n alone, whatever the other direction does."""

    def __init__(self, seed: int, *, to_kernel: LinkQuality, to_utcp: LinkQuality) -> None:
        self._links = {
            Direction.TO_KERNEL: _Link(to_kernel, random.Random(f"{seed} to-kernel")),
            Direction.TO_UTCP: _Link(to_utcp, random.Random(f"{seed} to-utcp")),
        }

    def __call__(self, direction: Direction, segment: bytes, now: int) -> Sequence[int]:
        return self._links[direction].decide(len(segment), now)


class Marks:
    """Marks ECN-capable segments with a probability for each direction, as a congested router does (RFC 3168 5)."""

    def __init__(self, seed: int, *, to_kernel: float, to_utcp: float) -> None:
        """Raises ValueError for what is no probability."""
        self._chances = {
            Direction.TO_KERNEL: (to_kernel, random.Random(f"{seed} mark to-kernel")),
            Direction.TO_UTCP: (to_utcp, random.Random(f"{seed} mark to-utcp")),
        }
        for probability in (to_kernel, to_utcp):
            if not 0 <= probability <= 1:
                raise ValueError(f"mark: {probability} is not in [0, 1]")

    def __call__(self, direction: Direction, segment: bytes) -> bool:
        probability, rng = self._chances[direction]
        return rng.random() < probability


class _Link:
    def __init__(self, quality: LinkQuality, rng: random.Random) -> None:
        self._quality = quality
        self._rng = rng
        self._idle_at = 0  # when the last queued bit will have been sent
        self._last_at = 0  # when the last segment that keeps its place arrives

    def decide(self, size: int, now: int) -> Sequence[int]:
        # Every segment takes the same draws, so that one decision never shifts those after it
        lost, doubled, late, jitter = (self._rng.random() for _ in range(4))
        q = self._quality
        if lost < q.loss:
            return LOSE
        departs_at = self._transmitted_at(size, now)
        if departs_at < 0:
            return LOSE
        at = max(departs_at + int((q.delay + q.jitter * jitter) * _SECOND), self._last_at)
        if late < q.reorder:
            at += _REORDER_HOLD
        else:
            self._last_at = at
        return (at - now,) * (2 if doubled < q.duplicate else 1)

    def _transmitted_at(self, size: int, now: int) -> int:
        """When the link has sent the segment; -1 if its queue is full."""
        if self._quality.rate == 0:
            return now
        starts_at = max(self._idle_at, now)
        if starts_at - now > self._quality.queue * _SECOND:
            return -1
        self._idle_at = starts_at + int(size * 8 * _SECOND / self._quality.rate)
        return self._idle_at


class Rule:
    """What happens to segments of one direction that a predicate picks. ``hits`` counts them."""

    def __init__(
        self, direction: Direction, predicate: Callable[[Segment], bool], delays: Sequence[int], times: int | None
    ) -> None:
        self.direction = direction
        self.delays = delays
        self.hits = 0
        self._predicate = predicate
        self._times = times
        self._active = True

    def lift(self) -> None:
        """End the rule."""
        self._active = False

    def applies(self, direction: Direction, segment: Segment) -> bool:
        if not self._active or direction is not self.direction or self.hits == self._times:
            return False
        if not self._predicate(segment):
            return False
        self.hits += 1
        return True


class Rules:
    """An impairment made of rules, the first that applies counts; whatever none picks goes to ``otherwise``.

    ``rules.add(Direction.TO_UTCP, lambda seg: bool(seg.flags & FIN))`` loses the kernel's first FIN. Rules may be
    added and lifted, and ``otherwise`` be set, from any thread while the gateway runs.
    """

    def __init__(self, otherwise: Impair | None = None) -> None:
        self.otherwise = otherwise
        self._rules: tuple[Rule, ...] = ()

    def add(
        self,
        direction: Direction,
        predicate: Callable[[Segment], bool],
        *,
        delays: Sequence[int] = LOSE,
        times: int | None = 1,
    ) -> Rule:
        """A new rule, for the next ``times`` segments picked (None: all of them)."""
        rule = Rule(direction, predicate, delays, times)
        self._rules = (*self._rules, rule)
        return rule

    def __call__(self, direction: Direction, segment: bytes, now: int) -> Sequence[int]:
        if self._rules:
            decoded = _decode(segment)
            for rule in self._rules:
                if decoded is not None and rule.applies(direction, decoded):
                    return rule.delays
        otherwise = self.otherwise
        return PASS if otherwise is None else otherwise(direction, segment, now)


def _decode(segment: bytes) -> Segment | None:
    try:
        return decode(segment)
    except ValueError:
        return None
