"""Ephemeral TCP ports from a shuffled ring (RFC 6056).

The ring hands out the port that has rested longest, so that a search almost never meets one in TIME-WAIT, and
its order is secret.
"""

from __future__ import annotations

from hashlib import shake_256
from typing import Final, final

from librt.strings import read_i32_be
from librt.vecs import vec
from mypy_extensions import i32, i64

FIRST_EPHEMERAL: Final = 1024  # RFC 6056 3.2: the whole range but the well-known ports
LAST_EPHEMERAL: Final = 65_535
_BLOCK: Final = 4096  # random bytes made at a time: a call of hashlib costs as much as a connection's whole handshake
EPHEMERAL_PORTS: Final = LAST_EPHEMERAL - FIRST_EPHEMERAL + 1


@final
class PortRing:
    """Shuffled as it is used, one port at a time, so that nobody waits for it: Fisher-Yates in its first round."""

    def __init__(self, secret: bytes) -> None:
        self._secret: bytes = secret
        self._ring: vec[i32] = vec[i32]()
        self._next: i64 = 0
        self._shuffled: bool = False
        self._block: bytes = b""
        self._used: i64 = 0
        self._blocks: i64 = 0

    def next_port(self) -> i64:
        """The next candidate; the caller checks that it is free."""
        if len(self._ring) == 0:
            self._ring = vec[i32](range(FIRST_EPHEMERAL, LAST_EPHEMERAL + 1))
        ring = self._ring
        i = self._next
        port: int = ring[i]  # not i64(...), which is slow where it is interpreted
        if not self._shuffled:
            j: i64 = i + self._random() % (EPHEMERAL_PORTS - i)
            port = ring[j]
            ring[j] = ring[i]
            ring[i] = port
        self._next += 1
        if self._next == EPHEMERAL_PORTS:
            self._next = 0
            self._shuffled = True
        return port

    def _random(self) -> i64:
        """32 bits of a secret stream; for a range of 16 bits the bias is below 2**-16."""
        if self._used == len(self._block):
            what = b"utcp ports" + int(self._blocks).to_bytes(8, "big") + self._secret
            self._block = shake_256(what).digest(_BLOCK)
            self._blocks += 1
            self._used = 0
        word: int = read_i32_be(self._block, self._used)
        self._used += 4
        return word & 0xFFFFFFFF
