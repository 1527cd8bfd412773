"""Sequence number arithmetic, modulo 2**32 (RFC 9293 3.4).

Every comparison is made on the signed distance between two numbers, so that it holds across the wrap.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

MASK: Final = 0xFFFFFFFF


def seq_add(a: i64, b: i64) -> i64:
    """``a + b`` modulo 2**32; ``b`` may be negative."""
    return (a + b) & MASK


def seq_sub(a: i64, b: i64) -> i64:
    """Signed distance from ``b`` to ``a``, in [-2**31, 2**31)."""
    return ((a - b + 0x80000000) & MASK) - 0x80000000


def seq_lt(a: i64, b: i64) -> bool:
    return ((a - b) & MASK) > 0x7FFFFFFF


def seq_le(a: i64, b: i64) -> bool:
    return ((b - a) & MASK) < 0x80000000


def seq_gt(a: i64, b: i64) -> bool:
    return ((b - a) & MASK) > 0x7FFFFFFF


def seq_ge(a: i64, b: i64) -> bool:
    return ((a - b) & MASK) < 0x80000000


def seq_max(a: i64, b: i64) -> i64:
    return a if ((a - b) & MASK) < 0x80000000 else b


def seq_in(x: i64, start: i64, length: i64) -> bool:
    """Whether ``x`` lies in the window [start, start + length)."""
    return ((x - start) & MASK) < length
