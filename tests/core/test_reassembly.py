"""Out-of-order data against a naive array of bytes, across the wrap of the sequence space."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utcp.core.buffers import COALESCE
from utcp.core.reassembly import MAX_RANGES, MIN_RANGES, RANGE_COST, Reassembly
from utcp.wire.seq import MASK, seq_add

WRAP = 1 << 32
BUFFER = MAX_RANGES * RANGE_COST
STARTS = st.sampled_from([0, 1000, WRAP - 1, WRAP - 30, WRAP - 3000, (1 << 31) - 10])


class Model:
    """A byte or None for each sequence number from ``start`` on; ``next`` is the offset of RCV.NXT."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.next = 0
        self.bytes: list[int | None] = []

    @property
    def rcv_nxt(self) -> int:
        return seq_add(self.start, self.next)

    @property
    def held(self) -> int:
        return sum(byte is not None for byte in self.bytes[self.next :])

    def add(self, offset: int, data: bytes) -> None:
        self.bytes += [None] * (offset + len(data) - len(self.bytes))
        for i, byte in enumerate(data, offset):
            if i >= self.next and self.bytes[i] is None:
                self.bytes[i] = byte

    def pop(self) -> bytes:
        data = bytearray()
        for byte in self.bytes[self.next :]:
            if byte is None:
                break
            data.append(byte)
        self.next += len(data)
        return bytes(data)

    def ranges(self) -> set[tuple[int, int]]:
        """Every contiguous range beyond RCV.NXT, as sequence numbers."""
        found = set()
        left = self.next
        for held, group in itertools.groupby(self.bytes[self.next :], lambda byte: byte is not None):
            right = left + len(list(group))
            if held:
                found.add((seq_add(self.start, left), seq_add(self.start, right)))
            left = right
        return found


def inside(seq: int, block: tuple[int, int]) -> bool:
    return (seq - block[0]) & MASK < (block[1] - block[0]) & MASK


OFFSETS = st.one_of(st.integers(-10, 60), st.integers(-10, 6000))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "add", "pop", "advance"]),
        OFFSETS,
        st.integers(0, 40),
        st.sampled_from([1, 1, 60]),
    ),
    max_size=50,
)


@settings(deadline=None)
@given(STARTS, STEPS)
def test_reassembly_is_an_array_of_bytes(start: int, steps: list[tuple[str, int, int, int]]) -> None:
    queue, model = Reassembly(BUFFER), Model(start)
    for count, (step, offset, n, factor) in enumerate(steps):
        if step == "add":
            at = max(0, model.next + offset)
            data = bytes([count + 1]) * (n * factor)  # every segment tells its own story: those held must win
            before = model.held
            model.add(at, data)
            assert queue.add(seq_add(start, at), data, model.rcv_nxt) == model.held - before
            if data and at >= model.next:
                assert inside(seq_add(start, at), queue.sack_blocks(1)[0])  # RFC 2018 section 4 (1)
        elif step == "pop":
            rcv_nxt = model.rcv_nxt
            assert queue.pop(rcv_nxt) == model.pop()
        else:  # bytes in order went to the reader without passing by here, over some of what is held
            model.next += n
            rcv_nxt = model.rcv_nxt
            assert queue.pop(rcv_nxt) == model.pop()
        assert queue.held == model.held
        blocks = queue.sack_blocks(1000)
        assert len(set(blocks)) == len(blocks)
        assert set(blocks) == model.ranges()


@settings(deadline=None)
@given(STARTS, st.integers(0, 1 << 30), st.integers(1, 700))
def test_any_order_and_overlap_gives_the_stream(start: int, seed: int, size: int) -> None:
    source = random.Random(seed)
    stream = source.randbytes(40 * size)
    segments = [(at, stream[at : at + size + source.randrange(size)]) for at in range(0, len(stream), size)]
    segments += source.sample(segments, len(segments) // 3)
    source.shuffle(segments)
    queue = Reassembly(BUFFER)
    read = b""
    for at, data in segments:
        rcv_nxt = seq_add(start, len(read))
        queue.add(seq_add(start, at), data, rcv_nxt)
        read += queue.pop(rcv_nxt)
        for held in queue._ranges:
            assert all(len(a) + len(b) > COALESCE for a, b in itertools.pairwise(held.chunks))
    assert read == stream
    assert queue.held == 0
    assert queue.sack_blocks(4) == []


def test_held_bytes_win_and_only_missing_pieces_are_stored() -> None:
    queue = Reassembly(BUFFER)
    assert queue.add(102, b"CD", 100) == 2
    assert queue.add(106, b"GH", 100) == 2
    assert queue.add(101, b"bcdefghi", 100) == 4
    assert queue.held == 8
    assert queue.sack_blocks(4) == [(101, 109)]
    assert queue.pop(100) == b""
    assert queue.pop(101) == b"bCDefGHi"


def test_a_segment_is_returned_uncopied() -> None:
    queue = Reassembly(BUFFER)
    data = bytes(1400)
    queue.add(2400, data, 1000)
    assert queue.pop(2400) is data


def test_bytes_before_rcv_nxt_are_discarded() -> None:
    queue = Reassembly(BUFFER)
    assert queue.add(90, b"x" * 10, 100) == 0
    assert queue.add(95, b"oldernew", 100) == 3
    assert queue.pop(100) == b"new"
    queue.add(110, b"abc", 103)
    queue.add(120, b"defgh", 103)
    queue.add(130, b"i", 103)
    assert queue.pop(122) == b"fgh"
    assert queue.held == 1
    assert queue.sack_blocks(4) == [(130, 131)]


def test_sequence_numbers_wrap() -> None:
    queue = Reassembly(BUFFER)
    nxt = WRAP - 10
    queue.add(4, b"wxyz", nxt)
    queue.add(WRAP - 4, b"01234567", nxt)
    assert queue.sack_blocks(4) == [(WRAP - 4, 8)]
    assert queue.pop(WRAP - 4) == b"01234567wxyz"
    assert queue.add(20, b"later", 8) == 5
    assert queue.sack_blocks(4) == [(20, 25)]


def test_sack_blocks_come_most_recently_received_first() -> None:
    queue = Reassembly(BUFFER)
    for seq in (100, 200, 300, 400, 500):
        queue.add(seq, b"0123456789", 0)
    assert queue.sack_blocks(3) == [(500, 510), (400, 410), (300, 310)]
    queue.add(200, b"0123456789", 0)  # a duplicate: its range is reported first all the same
    assert queue.sack_blocks(3) == [(200, 210), (500, 510), (400, 410)]
    queue.add(110, bytes(90), 0)  # closes the hole between 100 and 200
    assert queue.sack_blocks(3) == [(100, 210), (500, 510), (400, 410)]
    assert queue.sack_blocks(0) == []


def test_forgotten_ranges_fill_free_blocks_lowest_first() -> None:
    queue = Reassembly(BUFFER)
    for i in range(20):
        queue.add(100 + 10 * i, b"x", 0)
    queue.add(211, bytes(100), 0)  # the ranges from 210 on become one: of those remembered, it alone is left
    assert queue.sack_blocks(4) == [(210, 311), (100, 101), (110, 111), (120, 121)]


def test_an_endless_row_of_holes_is_bounded() -> None:
    """One byte, one hole, one byte ...: ranges beyond the bound are dropped, the others stay and can grow."""
    queue = Reassembly(BUFFER)
    for i in range(MAX_RANGES):
        assert queue.add(2 * i + 2, b"x", 1) == 1
    assert queue.add(2 * MAX_RANGES + 2, b"x", 1) == 0
    assert queue.held == MAX_RANGES
    assert queue.add(3, b"y", 1) == 1  # joins two ranges
    assert queue.add(2 * MAX_RANGES + 2, b"x", 1) == 1


@pytest.mark.parametrize(
    ("buffer", "ranges"), [(1, MIN_RANGES), (100 * RANGE_COST, 100), (BUFFER, MAX_RANGES), (1 << 30, MAX_RANGES)]
)
def test_a_range_costs_a_part_of_the_buffer_however_small_it_is(buffer: int, ranges: int) -> None:
    queue = Reassembly(buffer)
    for i in range(ranges + 5):
        queue.add(2 * i + 2, b"x", 1)
    assert (queue.held, queue.cost()) == (ranges, ranges * RANGE_COST)
    queue.add(1_000_000, b"x" * 1000, 1)
    assert queue.held == ranges


@pytest.mark.parametrize("reverse", [False, True])
def test_filling_every_hole_gives_one_compact_range(reverse: bool) -> None:
    queue = Reassembly(BUFFER)
    stream = random.Random(5).randbytes(2 * MAX_RANGES)
    evens = range(0, len(stream), 2)
    for at in reversed(evens) if reverse else evens:
        queue.add(10 + at, stream[at : at + 1], 9)
    odds = [at + 1 for at in evens]
    random.Random(6).shuffle(odds)
    for at in odds:
        queue.add(10 + at, stream[at : at + 1], 9)
    assert queue.sack_blocks(4) == [(10, 10 + len(stream))]
    assert len(queue._ranges[0].chunks) <= 2 * len(stream) // COALESCE + 1
    assert queue.pop(10) == stream


def test_one_segment_over_every_hole() -> None:
    queue = Reassembly(BUFFER)
    for at in range(0, 20_000, 2):
        queue.add(at + 5, b"x", 4)
    assert queue.add(5, b"y" * 20_000, 4) == 10_000
    assert queue.pop(5) == b"xy" * 10_000
