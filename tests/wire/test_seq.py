"""Sequence number arithmetic (RFC 9293 3.4), against plain definitions on the circle of 2**32 numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utcp.wire import seq as s

NUMBERS = st.integers(0, 0xFFFFFFFF)
NEAR = st.integers(1, 0x7FFFFFFF)


@given(NUMBERS, NEAR)
def test_a_number_is_before_what_lies_less_than_half_the_circle_ahead(x: int, distance: int) -> None:
    y = (x + distance) % 2**32
    assert s.seq_lt(x, y) and s.seq_le(x, y)
    assert s.seq_gt(y, x) and s.seq_ge(y, x)
    assert not s.seq_lt(y, x) and not s.seq_le(y, x)
    assert not s.seq_gt(x, y) and not s.seq_ge(x, y)
    assert s.seq_sub(y, x) == distance
    assert s.seq_sub(x, y) == -distance
    assert s.seq_max(x, y) == s.seq_max(y, x) == y


@given(NUMBERS)
def test_a_number_equals_itself(x: int) -> None:
    assert s.seq_le(x, x) and s.seq_ge(x, x)
    assert not s.seq_lt(x, x) and not s.seq_gt(x, x)
    assert s.seq_sub(x, x) == 0
    assert s.seq_max(x, x) == x


@given(NUMBERS, st.integers(-(2**31), 2**31))
def test_add_wraps_both_ways(x: int, n: int) -> None:
    assert s.seq_add(x, n) == (x + n) % 2**32


@given(NUMBERS, NUMBERS, st.integers(0, 2**30))
def test_window_membership(x: int, start: int, length: int) -> None:
    assert s.seq_in(x, start, length) == ((x - start) % 2**32 < length)


@pytest.mark.parametrize(
    ("x", "start", "length", "inside"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF, 1, True),
        (0, 0xFFFFFFFF, 1, False),
        (0, 0xFFFFFFFF, 2, True),
        (0xFFFFFFFE, 0xFFFFFFFF, 2, False),
        (7, 7, 0, False),
    ],
)
def test_window_membership_at_the_wrap(x: int, start: int, length: int, inside: bool) -> None:
    assert s.seq_in(x, start, length) is inside
