"""Trains: segments for one path, all of one length, that leave in one system call (UDP GSO).

The kernel's price is per datagram it is handed, not per segment, so whatever is due for one peer in a tick is
bucketed by length, and by ECN field, of which a system call takes one. Segments of one connection never overtake each
other: a segment may join an open train only if that train leaves no earlier than the one that took the connection's
previous segment.
"""

from __future__ import annotations

from typing import Final, final

from librt.strings import BytesWriter
from mypy_extensions import i64

from utcp.core.paths import Path

MAX_TRAIN_SEGMENTS: Final = 128  # UDP_MAX_SEGMENTS of current kernels
MAX_TRAIN_BYTES: Final = 65_507  # an IPv4 datagram's largest payload
NOBODY: Final = -1
MAX_OPEN_TRAINS: Final = 8  # for one path: as many different lengths are looked at for each segment


@final
class Train:
    """``count`` segments of ``segment_size`` bytes each (the last may be shorter) for ``path``."""

    __slots__ = (
        "count",
        "ecn",
        "limit",
        "owner",
        "path",
        "route",
        "segment_size",
        "serial",
        "writer",
    )

    def __init__(self, route: Path, segment_size: i64, serial: i64, owner: i64, ecn: i64, limit: i64) -> None:
        self.route: Path = route
        self.path: i64 = route.index
        self.segment_size: i64 = segment_size
        self.serial: i64 = serial
        self.owner: i64 = owner  # the one connection (slot) whose segments these are, or NOBODY
        self.count: i64 = 0
        self.limit: i64 = limit  # of ``count``
        self.ecn: i64 = ecn  # the field of their IP headers (RFC 3168 5)
        self.writer: BytesWriter = BytesWriter()

    def payload(self) -> bytes:
        """All segments, one after the other."""
        return self.writer.getvalue()

    def datagrams(self) -> list[bytes]:
        """One entry per segment: for simulation, tests and systems without GSO."""
        payload = self.writer.getvalue()
        if self.count == 1:
            return [payload]
        size = self.segment_size
        return [payload[i : i + size] for i in range(0, len(payload), size)]

    def __repr__(self) -> str:
        return f"<Train path={self.path} {self.count}x{self.segment_size}>"


@final
class Trains:
    """The trains being formed since the last ``take``."""

    def __init__(self) -> None:
        self.trains: list[Train] = []
        self.serial: i64 = 0
        self.max_segments: i64 = MAX_TRAIN_SEGMENTS

    def board(self, route: Path, size: i64, after: i64, owner: i64, ecn: i64 = 0) -> Train:
        """The train that takes a segment of ``size`` bytes whose connection last used train number ``after``.

        The caller writes exactly ``size`` bytes to its ``writer``.
        """
        for open_train in route.trains:
            train: Train = open_train
            if train.serial < after or train.ecn != ecn:
                continue
            if train.segment_size == size:
                break
            if size < train.segment_size and train.owner == owner:
                # A connection's short last segment may close its own train
                train.count += 1
                route.trains.remove(train)
                return train
        else:
            train = self._open(route, size, owner, ecn)
        train.count += 1
        if train.owner != owner:
            train.owner = NOBODY
        if train.count >= train.limit:
            route.trains.remove(train)
        return train

    def _open(self, route: Path, size: i64, owner: i64, ecn: i64) -> Train:
        self.serial += 1
        limit: i64 = min(self.max_segments, MAX_TRAIN_BYTES // size)
        train = Train(route, size, self.serial, owner, ecn, limit)
        self.trains.append(train)
        route.trains.append(train)
        if len(route.trains) > MAX_OPEN_TRAINS:
            del route.trains[0]
        return train

    def take(self) -> list[Train]:
        """Hand out the trains formed so far, in the order in which they must leave."""
        trains = self.trains
        for train in trains:
            train.route.trains = []
        self.trains = []
        return trains

    def segments(self) -> i64:
        """How many wait to leave."""
        waiting: i64 = 0
        for train in self.trains:
            waiting += train.count
        return waiting
