"""What a link does to the segments it carries: the same decisions for bare engines and for asyncio programs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, Literal

from utcp.sim.codel import Codel

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
    TOO_BIG = "too big"  # for the link's MTU
    CODEL = "codel"  # dropped by CoDel: the queue was too long for too long
    DROPPED = "dropped"  # by a rule
    PARTITIONED = "partitioned"
    UNREACHABLE = "unreachable"  # there is no such host, or it is down
    REPLAYED = "replayed"  # an old duplicate, by `Network.replay`


@dataclass(slots=True)
class Lane:
    """What a link remembers of one direction between two hosts (instants in ns)."""

    idle_at: int = 0
    last_arrival: int = 0
    bad: bool = False  # in a burst of losses
    leaving: deque[int] = field(default_factory=deque)  # when each of those that wait will have left
    codel: Codel[Any] = field(default_factory=lambda: Codel(attrgetter("can_mark")))
    serving: bool = False  # one of those that wait in ``codel`` is leaving


@dataclass(slots=True, eq=False)
class Link:
    """What lies between two hosts. All of it may be changed while the network runs.

    Raises ValueError for what is no probability, duration, rate or size.

    Attributes:
        delay: seconds, one way.
        jitter: seconds; a share of it, drawn for each segment, is added to the delay. Alone it never reorders.
        rate: bits a second, IP and UDP headers included; 0 is no limit.
        queue: bytes that may wait before a link with a rate; what comes then is dropped (drop-tail).
        queue_packets: how many segments may wait, the one that is leaving included; 0 is no limit of its own.
        aqm: "" or "codel": what has waited for more than 5 ms over 100 ms is dropped, ever sooner (RFC 8289).
        ecn: True, CoDel marks segments that are ECN-capable instead of dropping them (RFC 3168).
        mtu: bytes that an IP packet may have (with IPv4's header); larger ones are dropped. 0 is no limit.
        packet_too_big: True, their sender is told by ICMP; False, they vanish (a black hole).
        loss: the probability that a segment is lost, in the long run.
        loss_burst: 0, every segment alone; else losses come in bad periods of so many segments on average, at least 1,
            and there are none in between (Gilbert).
        loss_bad: the probability that a segment is lost in a bad period (Elliott).
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
    queue_packets: int = 0
    aqm: Literal["", "codel"] = ""
    ecn: bool = False
    loss_burst: float = 0.0
    loss_bad: float = 1.0
    mtu: int = 0
    packet_too_big: bool = False

    def __post_init__(self) -> None:
        for name in ("loss", "corrupt", "duplicate", "reorder", "loss_bad"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: {getattr(self, name)} is not in [0, 1]")
        for name in ("delay", "jitter"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name}: {getattr(self, name)} is not a duration in seconds")
        if not self.rate >= 0.0:
            raise ValueError(f"rate: {self.rate} is not a number of bits a second")
        if not self.queue >= 0:
            raise ValueError(f"queue: {self.queue} is not a number of bytes")
        if not self.mtu >= 0:
            raise ValueError(f"mtu: {self.mtu} is not a number of bytes")
        if not self.queue_packets >= 0:
            raise ValueError(f"queue_packets: {self.queue_packets} is not a number of segments")
        if self.aqm not in ("", "codel"):
            raise ValueError(f"aqm: {self.aqm!r} is neither '' nor 'codel'")
        if self.loss_burst != 0 and not self.loss_burst >= 1:
            raise ValueError(f"loss_burst: {self.loss_burst} is neither 0 nor a number of segments from 1 on")
        if self.loss_burst != 0 and not self.loss < self.loss_bad:
            raise ValueError(f"loss: {self.loss} is not below loss_bad: {self.loss_bad}")

    def carry(self, lane: Lane, size: int, now: int, draws: Sequence[float]) -> tuple[Fate, list[int]]:
        """Decide on a segment of ``size`` bytes handed over at ``now``: its fate, and when it arrives (ns), if at all.

        ``draws`` are ``DRAWS`` random numbers in [0, 1).
        """
        if self.is_too_big(size):
            return Fate.TOO_BIG, []
        leaves = self._transmit(lane, size + HEADERS, now)
        if leaves is None:
            return Fate.OVERFLOWED, []
        return self.strike(lane, leaves, draws)

    def strike(self, lane: Lane, leaves: int, draws: Sequence[float]) -> tuple[Fate, list[int]]:
        """Decide on a segment whose last bit leaves at ``leaves``."""
        struck, doubled, *held = draws
        lost = self.loss
        if self.loss_burst:
            struck = self._change_period(lane, struck)
            lost = self.loss_bad if lane.bad else 0.0
        if struck < lost:
            return Fate.LOST, []
        if struck < lost + (1.0 - lost) * self.corrupt:
            return Fate.CORRUPTED, []
        arrivals = [self._arrival(lane, leaves, held[0], held[1])]
        if doubled >= self.duplicate:
            return Fate.DELIVERED, arrivals
        arrivals.append(self._arrival(lane, leaves, held[2], held[3]))
        return Fate.DUPLICATED, arrivals

    def is_too_big(self, size: int) -> bool:
        """Whether a segment of ``size`` bytes does not fit."""
        return 0 < self.mtu < size + HEADERS

    def has_room(self, lane: Lane, size: int) -> bool:
        """Whether a segment may join those that wait for CoDel."""
        waiting = lane.codel
        if self.queue_packets and len(waiting) + lane.serving >= self.queue_packets:
            return False
        return not waiting or waiting.size + size <= self.queue

    def time_of(self, size: int) -> int:
        """How long it takes (ns) until the last bit has left."""
        return round(size * 8 * SECOND / self.rate)

    def _change_period(self, lane: Lane, struck: float) -> float:
        """From a good period to a bad one, or back; what is left of the random number is one in [0, 1) again."""
        share = self.loss / self.loss_bad  # of bad periods
        leave = 1.0 / self.loss_burst
        if not lane.bad:
            leave = min(1.0, leave * share / (1.0 - share))
        if struck < leave:
            lane.bad = not lane.bad
            return struck / leave
        return (struck - leave) / (1.0 - leave)

    def _transmit(self, lane: Lane, size: int, now: int) -> int | None:
        """When the last bit has left, behind everything that waits; None when the queue is full."""
        if not self.rate:
            return now
        begins = max(now, lane.idle_at)
        waiting = (begins - now) * self.rate / (8 * SECOND)
        if waiting > 0 and waiting + size > self.queue:
            return None
        if self.queue_packets:
            leaving = lane.leaving
            while leaving and leaving[0] <= now:
                leaving.popleft()
            if len(leaving) >= self.queue_packets:
                return None
            leaving.append(begins + self.time_of(size))
        lane.idle_at = begins + self.time_of(size)
        return lane.idle_at

    def _arrival(self, lane: Lane, leaves: int, reordered: float, share: float) -> int:
        if reordered < self.reorder:
            extra = self.jitter + share * 4 * (self.delay + self.jitter)
            return leaves + round((self.delay + extra) * SECOND)
        arrival = leaves + round((self.delay + share * self.jitter) * SECOND)
        lane.last_arrival = max(arrival, lane.last_arrival)
        return lane.last_arrival
