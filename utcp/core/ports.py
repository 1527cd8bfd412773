"""Ephemeral TCP ports from a shuffled ring (RFC 6056).

The ring hands out the port that has rested longest, so that a search almost never meets one in TIME-WAIT, and
its order is secret.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, final

from librt.vecs import append, vec
from mypy_extensions import i64

FIRST_EPHEMERAL: Final = 1024  # RFC 6056 3.2: the whole range but the well-known ports
LAST_EPHEMERAL: Final = 65_535
EPHEMERAL_PORTS: Final = LAST_EPHEMERAL - FIRST_EPHEMERAL + 1


@final
class PortRing:
    """Shuffled on first use: a pure server never pays for it."""

    def __init__(self, secret: bytes) -> None:
        self._secret: bytes = secret
        self._ring: vec[i64] = vec[i64]()
        self._next: i64 = 0

    def next_port(self) -> i64:
        if len(self._ring) == 0:
            self._shuffle()
        port: i64 = self._ring[self._next]
        self._next += 1
        if self._next == EPHEMERAL_PORTS:
            self._next = 0
        return port

    def _shuffle(self) -> None:
        """Fisher-Yates with numbers from a keyed hash in counter mode."""
        ring: vec[i64] = vec[i64]()
        port: i64 = FIRST_EPHEMERAL
        while port <= LAST_EPHEMERAL:
            ring = append(ring, port)
            port += 1
        block = b""
        used = 0
        counter = 0
        i: i64 = EPHEMERAL_PORTS - 1
        while i > 0:
            if used == len(block):
                block = blake2b(counter.to_bytes(8, "big"), key=self._secret[:64], person=b"utcp ports").digest()
                counter += 1
                used = 0
            # 32 random bits for a range of 16: a bias below 2**-16
            word: i64 = int.from_bytes(block[used : used + 4], "big")
            used += 4
            j: i64 = word % (i + 1)
            swap: i64 = ring[i]
            ring[i] = ring[j]
            ring[j] = swap
            i -= 1
        self._ring = ring
