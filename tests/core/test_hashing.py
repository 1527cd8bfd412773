"""The keyed hash against an independent implementation from the algorithm's definition."""

from __future__ import annotations

import random

import pytest

import utcp
from utcp.core.hashing import half_sip_hash, keyed_hash


def reference(key: bytes, message: bytes) -> bytes:
    """HalfSipHash-1-3, 64 bits of output, over any message, as its authors write it (little-endian words)."""

    k0, k1 = int.from_bytes(key[:4], "little"), int.from_bytes(key[4:], "little")
    v0, v1, v2, v3 = k0, k1 ^ 0xEE, 0x6C796765 ^ k0, 0x74656462 ^ k1

    def rotl(x: int, b: int) -> int:
        return (x << b | x >> 32 - b) & 0xFFFFFFFF

    def rounds(n: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(n):
            v0 = (v0 + v1) % 2**32
            v1 = rotl(v1, 5) ^ v0
            v0 = rotl(v0, 16)
            v2 = (v2 + v3) % 2**32
            v3 = rotl(v3, 8) ^ v2
            v0 = (v0 + v3) % 2**32
            v3 = rotl(v3, 7) ^ v0
            v2 = (v2 + v1) % 2**32
            v1 = rotl(v1, 13) ^ v2
            v2 = rotl(v2, 16)

    whole = len(message) // 4 * 4
    words = [int.from_bytes(message[i : i + 4], "little") for i in range(0, whole, 4)]
    words.append(len(message) % 256 << 24 | int.from_bytes(message[whole:], "little"))
    for word in words:
        v3 ^= word
        rounds(1)
        v0 ^= word
    v2 ^= 0xEE
    rounds(3)
    low = v1 ^ v3
    v1 ^= 0xDD
    rounds(3)
    return low.to_bytes(4, "little") + (v1 ^ v3).to_bytes(4, "little")


@pytest.mark.parametrize("seed", range(50))
def test_against_the_definition(seed: int) -> None:
    rng = random.Random(seed)
    k0, k1, word = (rng.getrandbits(32) for _ in range(3))
    key = k0.to_bytes(4, "little") + k1.to_bytes(4, "little")
    expected = int.from_bytes(reference(key, word.to_bytes(4, "little")), "little") & 0x7FFFFFFFFFFFFFFF
    assert half_sip_hash(k0, k1, word) == expected


def test_every_bit_depends_on_every_bit() -> None:
    flips = [int(half_sip_hash(1, 2, 3) ^ half_sip_hash(1, 2, 3 ^ 1 << bit)) for bit in range(32)]
    assert all(16 <= flip.bit_count() <= 48 for flip in flips)


KEYS = [bytes(range(start, start + 16)) for start in range(32)]


def keyed(key: bytes, word: int) -> int:
    return int(keyed_hash(key, int.from_bytes(key[:4], "big"), int.from_bytes(key[4:8], "big"), word))


def test_the_keyed_hash_of_this_build() -> None:
    expected = half_sip_hash(0x00010203, 0x04050607, 80)
    assert (keyed(KEYS[0], 80) == expected) is utcp.__compiled__


def test_the_keyed_hash_depends_on_every_bit_of_the_word_and_on_the_key() -> None:
    found = {keyed(KEYS[0], 1 << bit) for bit in range(32)} | {keyed(key, 0) for key in KEYS}
    assert len(found) == 64
    assert all(0 <= value < 1 << 63 for value in found)
    assert any(value >= 1 << 62 for value in found)
    assert any(value & 1 for value in found)
    assert keyed(KEYS[1], 7) == keyed(KEYS[1], 7)
