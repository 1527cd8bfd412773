"""What a link does to the segments it carries: the same decisions for bare engines and for asyncio programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SECOND: Final = 1_000_000_000
HEADERS: Final = 28  # bytes of IPv4 and UDP header that a segment takes with it
DRAWS: Final = 6  # random numbers for each segment, used or not: one fault does not shift the dice of another


class Fate(StrEnum):
    """What the network did to a segment."""

    DELIVERED = "delivered"
    DUPLICATED = "duplicated"
    LOST = "lost"
    CORRUPTED = "corrupted"  # damaged, and dropped by the receiver's UDP checksum
    OVERFLOWED = "overflowed"  # the queue before a link with a rate was full
    DROPPED = "dropped"  # by a rule
    PARTITIONED = "partitioned"
    UNREACHABLE = "unreachable"  # there is no such host, or it is down
    REPLAYED = "replayed"  # an old duplicate, by `Network.replay`


@dataclass(slots=True)
class Lane:
    """What a link remembers of one direction between two hosts (instants in ns)."""

    idle_at: int = 0
    last_arrival: int = 0


@dataclass(slots=True, eq=False)
class Link:
    """What lies between two hosts. All of it may be changed while the network runs.

    Raises ValueError for what is no probability, duration, rate or size.

    Attributes:
        delay: seconds, one way.
        jitter: seconds; a share of it, drawn for each segment, is added to the delay. Alone it never reorders.
        rate: bits a second, IP and UDP headers included; 0 is no limit.
        queue: bytes that may wait before a link with a rate; what comes then is dropped (drop-tail).
        loss: the probability that a segment is lost.
        corrupt: ... that one that is not lost is damaged. The UDP checksum finds it out, so that is a loss too,
            counted apart.
        duplicate: ... that it arrives twice.
        reorder: ... that it is held back for up to four times ``delay + jitter``, so that later ones overtake it.
    """

    delay: float = 0.01
    jitter: float = 0.0
    rate: float = 0.0
    queue: int = 262_144
    loss: float = 0.0
    corrupt: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        for name in ("loss", "corrupt", "duplicate", "reorder"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: {getattr(self, name)} is not in [0, 1]")
        for name in ("delay", "jitter"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name}: {getattr(self, name)} is not a duration in seconds")
        if not self.rate >= 0.0:
            raise ValueError(f"rate: {self.rate} is not a number of bits a second")
        if not self.queue >= 0:
            raise ValueError(f"queue: {self.queue} is not a number of bytes")

    def carry(self, lane: Lane, size: int, now: int, draws: Sequence[float]) -> tuple[Fate, list[int]]:
        """Decide on a segment of ``size`` bytes handed over at ``now``: its fate, and when it arrives (ns), if at all.

        ``draws`` are ``DRAWS`` random numbers in [0, 1).
        """
        struck, doubled, *held = draws
        leaves = self._transmit(lane, size + HEADERS, now)
        if leaves is None:
            return Fate.OVERFLOWED, []
        if struck < self.loss:
            return Fate.LOST, []
        if struck < self.loss + (1.0 - self.loss) * self.corrupt:
            return Fate.CORRUPTED, []
        arrivals = [self._arrival(lane, leaves, held[0], held[1])]
        if doubled >= self.duplicate:
            return Fate.DELIVERED, arrivals
        arrivals.append(self._arrival(lane, leaves, held[2], held[3]))
        return Fate.DUPLICATED, arrivals

    def _transmit(self, lane: Lane, size: int, now: int) -> int | None:
        """When the last bit has left, behind everything that waits; None when the queue is full."""
        if not self.rate:
            return now
        begins = max(now, lane.idle_at)
        waiting = (begins - now) * self.rate / (8 * SECOND)
        if waiting > 0 and waiting + size > self.queue:
            return None
        lane.idle_at = begins + round(size * 8 * SECOND / self.rate)
        return lane.idle_at

    def _arrival(self, lane: Lane, leaves: int, reordered: float, share: float) -> int:
        if reordered < self.reorder:
            extra = self.jitter + share * 4 * (self.delay + self.jitter)
            return leaves + round((self.delay + extra) * SECOND)
        arrival = leaves + round((self.delay + share * self.jitter) * SECOND)
        lane.last_arrival = max(arrival, lane.last_arrival)
        return lane.last_arrival
