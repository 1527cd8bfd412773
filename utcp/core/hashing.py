"""The keyed hash for what every connection needs: compiled, HalfSipHash-1-3 with 64 bits of output; else BLAKE2.

In compiled code HalfSipHash costs a twentieth of a call of hashlib, interpreted twenty times as much. Its key is
short, but it is a path's own, made from the engine's secret by BLAKE2 (utcp.core.paths): what one path shows of it
says nothing about another's.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Final

from mypy_extensions import i64

from utcp.wire.seq import MASK

_ROUNDS: Final = 8  # one for the word, one for its length, three for each half of the output
_LENGTH: Final = 4 << 24  # of the message


def keyed_hash(key: bytes, k0: i64, k1: i64, word: i64) -> i64:
    """63 bits, of one 32-bit ``word`` under ``key`` (16 to 32 bytes), of which k0 and k1 are the first words."""
    if _COMPILED:
        return half_sip_hash(k0, k1, word)
    message: int = word
    return int.from_bytes(blake2s(message.to_bytes(4, "big"), digest_size=8, key=key).digest(), "big") >> 1


def half_sip_hash(k0: i64, k1: i64, word: i64) -> i64:
    """63 bits, of one 32-bit ``word`` under the 64-bit key (k0, k1)."""
    v0 = k0
    v1 = k1 ^ 0xEE  # 64 bits of output
    v2: i64 = 0x6C796765 ^ k0
    v3: i64 = 0x74656462 ^ k1 ^ word
    low: i64 = 0
    turn: i64 = 0
    while turn < _ROUNDS:  # in place: as a function, four numbers in and out, a round costs twice as much
        if turn == 1:
            v0 ^= word
            v3 ^= _LENGTH
        elif turn == 2:
            v0 ^= _LENGTH
            v2 ^= 0xEE
        elif turn == 5:
            low = v1 ^ v3
            v1 ^= 0xDD
        v0 = (v0 + v1) & MASK
        v1 = ((v1 << 5) & MASK) | (v1 >> 27)
        v1 ^= v0
        v0 = ((v0 << 16) & MASK) | (v0 >> 16)
        v2 = (v2 + v3) & MASK
        v3 = ((v3 << 8) & MASK) | (v3 >> 24)
        v3 ^= v2
        v0 = (v0 + v3) & MASK
        v3 = ((v3 << 7) & MASK) | (v3 >> 25)
        v3 ^= v0
        v2 = (v2 + v1) & MASK
        v1 = ((v1 << 13) & MASK) | (v1 >> 19)
        v1 ^= v2
        v2 = ((v2 << 16) & MASK) | (v2 >> 16)
        turn += 1
    return (((v1 ^ v3) & 0x7FFFFFFF) << 32) | low


_COMPILED: Final = not hasattr(half_sip_hash, "__code__")
