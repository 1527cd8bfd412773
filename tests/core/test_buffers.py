"""The byte queues against plain byte strings: order, counts, what is copied and what is not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utcp.core.buffers import COALESCE, ReceiveQueue, SendQueue

SIZES = st.one_of(st.integers(0, 40), st.integers(0, 3 * COALESCE))
STEPS = st.lists(st.tuples(st.sampled_from(["write", "slice", "next", "ack"]), SIZES, SIZES), max_size=60)


def pattern(start: int, n: int) -> bytes:
    """``n`` bytes of a stream in which every position differs from its neighbourhood."""
    return bytes([(i * 7 + (i >> 8)) & 0xFF for i in range(start, start + n)])


@settings(deadline=None)
@given(STEPS)
def test_send_queue_is_a_byte_string(steps: list[tuple[str, int, int]]) -> None:
    queue = SendQueue()
    model = b""
    written = following = 0
    for step, a, b in steps:
        if step == "write":
            data = pattern(written, a)
            written += a
            queue.write(data)
            model += data
        elif step == "slice":
            offset = a % (len(model) + 1)
            assert queue.slice(offset, b) == model[offset : offset + b]
        elif step == "next":  # the usual, sequential access
            assert queue.slice(following, b) == model[following : following + b]
            following = min(following + b, len(model))
        else:
            n = min(a, len(model))
            queue.ack(n)
            model = model[n:]
            following = max(0, following - n)
        assert queue.size == len(model)
    assert queue.slice(0, len(model)) == model


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["append", "take", "peek", "clear"]), SIZES), max_size=60))
def test_receive_queue_is_a_byte_string(steps: list[tuple[str, int]]) -> None:
    queue = ReceiveQueue()
    model = b""
    appended = 0
    for step, n in steps:
        if step == "append":
            data = pattern(appended, n)
            appended += n
            queue.append(data)
            model += data
        elif step == "take":
            assert queue.take(n) == model[:n]
            model = model[n:]
        elif step == "peek":
            assert queue.peek(n) == model[:n]
        elif n % 4 == 0:  # seldom, or nothing ever piles up
            assert queue.clear() == len(model)
            model = b""
        assert queue.size == len(model)
    assert queue.peek() == model
    assert queue.take() == model
    assert queue.size == 0


def test_bytes_go_through_uncopied() -> None:
    first, second = pattern(0, 60_000), pattern(60_000, 50_000)
    queue = SendQueue()
    queue.write(first)
    queue.write(second)
    assert queue.slice(0, 60_000) is first
    assert queue.slice(60_000, 90_000) is second
    queue.ack(60_000)
    assert queue.slice(0, 50_000) is second

    received = ReceiveQueue()
    received.append(first)
    assert received.peek(60_000) is first
    assert received.take() is first
    received.append(first)
    received.append(second)
    assert received.take(60_000) is first
    assert received.take(60_000) is second


@pytest.mark.parametrize("size", [10, 10_000])
def test_mutable_input_is_copied(size: int) -> None:
    queue = SendQueue()
    changing = bytearray(b"a" * size)
    queue.write(changing)
    queue.write(memoryview(changing))
    changing[:] = b"b" * size
    data = queue.slice(0, 2 * size)
    assert type(data) is bytes
    assert data == b"a" * (2 * size)


def test_a_memoryview_of_larger_items_counts_bytes() -> None:
    queue = SendQueue()
    queue.write(memoryview(b"abcdefgh").cast("H")[1:3])
    queue.write(memoryview(b"a1b2c3")[::2])
    assert queue.size == 7
    assert queue.slice(0, 7) == b"cdefabc"


def test_slices_stop_at_the_end() -> None:
    queue = SendQueue()
    assert queue.slice(0, 10) == b""
    queue.write(b"abc")
    assert queue.slice(2, 10) == b"c"
    assert queue.slice(3, 10) == b""
    assert queue.slice(4, 10) == b""
    assert queue.slice(0, 0) == b""


def test_more_than_was_queued_cannot_be_acknowledged() -> None:
    queue = SendQueue()
    queue.write(b"abc")
    with pytest.raises(AssertionError):
        queue.ack(4)
    assert queue.size == 3


@pytest.mark.parametrize("size", [1, 100, 700])
def test_small_writes_share_chunks(size: int) -> None:
    count = 200_000 // size
    queue, received = SendQueue(), ReceiveQueue()
    for i in range(count):
        piece = pattern(i * size, size)
        queue.write(piece)
        received.append(piece)
    for chunks in (queue._chunks, received._chunks):
        assert all(len(a) + len(b) > COALESCE for a, b in itertools.pairwise(chunks))
    assert queue.slice(0, count * size) == pattern(0, count * size) == received.take()


def test_small_writes_go_on_behind_what_was_sent() -> None:
    """Segments leave and are acknowledged while small writes still grow the last chunk."""
    queue = SendQueue()
    stream = pattern(0, 30_000)
    sent = acked = 0
    for i in range(0, len(stream), 100):
        queue.write(stream[i : i + 100])
        if i % 300 == 0:
            segment = queue.slice(sent - acked, 130)
            assert segment == stream[sent : sent + 130][: i + 100 - sent]
            sent += len(segment)
        if i % 700 == 0:
            queue.ack(sent - acked - 50 if sent - acked > 50 else 0)
            acked = i + 100 - queue.size
    assert queue.slice(0, queue.size) == stream[acked:]


def test_ten_megabytes_in_flight() -> None:
    """Sequential sending, retransmission from the front and a slice from the middle, interleaved."""
    block = pattern(0, 65_536)
    queue = SendQueue()
    for _ in range(160):
        queue.write(block)
    total = 160 * 65_536
    doubled = block + block
    for offset in range(0, total - 65_536, 48_000):
        for at in (offset, 0, total // 2):
            inside = at % 65_536
            assert queue.slice(at, 1400) == doubled[inside : inside + 1400]
    while queue.size:
        queue.ack(min(48_000, queue.size))
    assert queue.slice(0, 1) == b""


def test_acknowledged_and_read_chunks_are_let_go() -> None:
    queue, received = SendQueue(), ReceiveQueue()
    block = pattern(0, COALESCE)
    for _ in range(100):
        queue.write(block)
        received.append(block)
    for _ in range(40):
        queue.ack(COALESCE)
        received.take(COALESCE)
    for chunks in (queue._chunks, received._chunks):
        assert sum(map(len, chunks)) == 60 * COALESCE
    for _ in range(59):
        queue.ack(COALESCE)
        received.take(COALESCE)
        assert len(queue._chunks) == len(queue._starts) <= 2 * queue.size // COALESCE
        assert len(received._chunks) <= 2 * received.size // COALESCE
    assert queue.slice(0, COALESCE) == received.take() == block
