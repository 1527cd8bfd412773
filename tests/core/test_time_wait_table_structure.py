"""The TIME-WAIT table looked at from inside: where each record lies, what chains, queues and heap say about it.

`test_time_wait_table` holds the table against a dictionary, as its users see it. Here every structure is held against
a plain model of what its docstring promises, with the figures written out: they are what memory and time depend on.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from librt.vecs import append, vec
from mypy_extensions import i32, i64

from utcp.core.interpreted_time_wait import PACKED as TimeWaitTable
from utcp.core.time_wait_table import _Buckets, _Expiry, _Queue, _Records, _sift, odd_number

PAGE = 1024  # records
REFILL = 768
WORDS = 6
GROUP = 4096  # buckets
NOBODY = 0xFFFFFFF
PAGE_BYTES = 48 * PAGE + 40
GROUP_BYTES = 4 * GROUP + 40


def key_of(number: int) -> int:
    return 1 << 32 | number << 16 | 9000


def insert(table: TimeWaitTable, number: int, now: int = 0, duration: int = 100) -> None:
    table.insert(key_of(number), number, 2 * number, number & 0xFFFF, number & 1 == 1, 3 * number, 5, now, duration)


# --- What holds after every call ---


def audit(table: TimeWaitTable) -> None:
    """Every record is in one place, one chain and one queue, and all that is said of these is true."""
    live = audit_records(table._records)
    assert len(table) == len(live)
    audit_buckets(table, live)
    audit_expiry(table, live)
    assert table.memory() == memory_of(table)


def audit_records(records: _Records) -> set[int]:
    """The numbers of those that live, as the pages have them."""
    live: set[int] = set()
    candidates = []
    for number, page in enumerate(records.pages):
        assert len(page) in (0, WORDS * PAGE)
        here = {number * PAGE + at for at in range(len(page) // WORDS) if page[at * WORDS] != -1}
        assert records._live[number] == len(here)
        assert (len(page) == 0) == (not here and number != records._filling), "a page without a record is given back"
        live |= here
        if number != records._filling and len(here) <= REFILL:
            candidates.append(number)
    assert records.count == len(live)
    assert sorted(records._refill) == candidates
    assert sorted(records.keys()) == sorted(records.get(record, 0) for record in live)
    return live


def audit_buckets(table: TimeWaitTable, live: set[int]) -> None:
    buckets = table._buckets
    size, count = buckets._size, len(live)
    assert size >= max(GROUP, 2 * count)
    assert size <= max(GROUP, 3 * (count + 1))  # the one that goes is still counted when buckets are merged
    assert len(buckets._groups) == -(-size // GROUP)
    assert buckets._mask == (1 << int(size - 1).bit_length()) - 1
    chained = []
    for bucket in range(size):
        record = int(buckets._groups[bucket // GROUP][bucket % GROUP])
        while record != NOBODY:
            assert buckets._bucket(table._records.get(record, 0)) == bucket
            chained.append(record)
            record = table._records.get(record, 1) >> 35
    assert sorted(chained) == sorted(live)
    assert all(first == NOBODY for bucket, first in enumerate(buckets._groups[-1]) if bucket >= size % GROUP > 0)


def audit_expiry(table: TimeWaitTable, live: set[int]) -> None:
    expiry, records = table._expiry, table._records
    queued = []
    for number, queue in enumerate(expiry._queues):
        assert queue.number == number
        before, record = NOBODY, queue.first
        if record == NOBODY:
            assert (queue.last, queue.place) == (NOBODY, -1)
            assert queue in expiry._unused
            continue
        assert expiry._by_duration[queue.duration] is queue
        assert expiry._heap[queue.place] is queue
        assert queue.expires_at == records.get(record, 3)
        while record != NOBODY:
            assert records.get(record, 2) >> 32 == before
            assert before == NOBODY or records.get(before, 3) <= records.get(record, 3)
            assert expiry.queue_of(record) is queue
            queued.append(record)
            before, record = record, records.get(record, 2) & 0xFFFFFFFF
        assert queue.last == before
    assert sorted(queued) == sorted(live)
    assert len(expiry._by_duration) == len(expiry._heap) == len(expiry._queues) - len(expiry._unused)
    audit_heap(expiry._heap)


def audit_heap(heap: list[_Queue]) -> None:
    for place, queue in enumerate(heap):
        assert queue.place == place
        assert place == 0 or heap[(place - 1) // 2].expires_at <= queue.expires_at


def memory_of(table: TimeWaitTable) -> int:
    """What `memory` should say, from the arrays themselves."""
    records = table._records
    lists = 4 * len(records._live) + 4 * len(records._refill)
    pages = sum(8 * len(page) + 40 for page in records.pages)
    return lists + pages + sum(4 * len(group) + 40 for group in table._buckets._groups)


def test_all_structures_agree_in_a_long_life() -> None:
    """Waves of records come and go, to several pages and twice as many groups; the whole is looked at often."""
    rng = random.Random(8)
    table = TimeWaitTable(8)
    audit(table)
    alive: list[int] = []
    fresh = iter(range(100_000))
    now = 0
    for wave, target in enumerate([1, 2, 900, 5, 4400, 2200, 2900, 1600, 3100, 300, 0, 3]):
        while len(alive) != target:
            now += rng.randrange(3)
            if len(alive) < target:
                alive.append(next(fresh))
                insert(table, alive[-1], now - rng.randrange(4), rng.choice([100, 100, 30, rng.randrange(2000)]))
            else:
                number = alive.pop(rng.randrange(len(alive)) if wave & 1 else 0)
                table.remove(table.find(key_of(number)))
            if alive and rng.randrange(8) == 0:
                table.restart(table.find(key_of(rng.choice(alive))), now)
            if rng.randrange(1000) == 0 or len(alive) < 8:
                audit(table)
        audit(table)
        assert sorted(table.keys()) == sorted(map(key_of, alive))
    table.clear()
    audit(table)


# --- Records ---


class Pages:
    """The model of `_Records`: sets of the places taken."""

    def __init__(self) -> None:
        self.pages: list[set[int]] = [set()]
        self.filling, self.cursor = 0, 0
        self.refill: list[int] = []

    def take(self) -> int:
        while True:
            at = next((at for at in range(self.cursor, PAGE) if at not in self.pages[self.filling]), PAGE)
            self.cursor = at + 1
            if at < PAGE:
                self.pages[self.filling].add(at)
                return self.filling * PAGE + at
            self.next_page()

    def next_page(self) -> None:
        if len(self.pages[self.filling]) <= REFILL:
            self.refill.append(self.filling)
        self.cursor = 0
        if not self.refill:
            self.refill.append(len(self.pages))
            self.pages.append(set())
        self.filling = self.refill.pop()

    def give_back(self, record: int) -> None:
        number, at = divmod(record, PAGE)
        self.pages[number].remove(at)
        if number != self.filling and len(self.pages[number]) == REFILL:
            self.refill.append(number)


def test_records_lie_where_the_model_has_them() -> None:
    rng = random.Random(9)
    records, model = _Records(), Pages()
    taken: list[int] = []
    for target in [3000, 2000, 2600, 900, 3500, 3100, 4200, 10, 2050]:
        while len(taken) != target:
            if len(taken) < target:
                record = records.take()
                assert record == model.take()
                records.fill(record, len(taken), 0, 0, 0)
                taken.append(record)
            else:
                record = taken.pop(rng.randrange(len(taken)) if target & 1 else -1)
                records.give_back(record)
                model.give_back(record)
        assert list(records._refill) == model.refill
        assert records._filling == model.filling
        assert audit_records(records) == set(taken)


def test_a_record_is_six_words_and_a_page_a_thousand_of_them() -> None:
    records = _Records()
    assert records.memory() == 4 + PAGE_BYTES
    for number in range(PAGE):
        assert records.take() == number
        records.fill(number, number, 0, 0, 0)
    assert len(records.pages) == 1
    assert records.take() == PAGE
    assert len(records.pages) == 2
    assert records.memory() == 2 * (4 + PAGE_BYTES)


def test_a_full_page_is_filled_again_once_a_quarter_of_it_is_free() -> None:
    records = _Records()
    for number in range(PAGE + 1):
        records.fill(records.take(), number, 0, 0, 0)
    for number in range(PAGE - REFILL - 1):
        records.give_back(number)
    assert list(records._refill) == []
    records.give_back(1000)
    assert list(records._refill) == [0]
    assert records.memory() == 2 * (4 + PAGE_BYTES) + 4
    records.give_back(1001)
    assert list(records._refill) == [0]  # and once only
    for number in range(PAGE - 1):
        records.fill(records.take(), number, 0, 0, 0)
    assert records.take() == 0


@pytest.mark.parametrize(("free", "number"), [(PAGE - REFILL - 1, PAGE), (PAGE - REFILL, 0), (PAGE - REFILL + 1, 0)])
def test_the_page_that_is_being_filled_goes_round_again_if_a_quarter_of_it_is_free(free: int, number: int) -> None:
    records = _Records()
    for record in range(PAGE):
        records.fill(records.take(), record, 0, 0, 0)
    for record in range(free):
        records.give_back(record)
    assert records.take() == number


def test_a_page_that_is_being_filled_is_kept_when_it_is_empty() -> None:
    records = _Records()
    records.fill(records.take(), 5, 0, 0, 0)
    records.give_back(0)
    assert len(records.pages[0]) == WORDS * PAGE
    assert list(records._refill) == []
    assert records.take() == 1  # in turn


def test_what_a_page_held_does_not_come_back_with_it() -> None:
    records = _Records()
    for number in range(PAGE + 1):
        records.fill(records.take(), number, 0, 0, 0)
    for number in range(PAGE):
        records.give_back(number)
    assert len(records.pages[0]) == 0
    assert records.keys() == [PAGE]
    for number in range(PAGE - 1):
        records.fill(records.take(), number, 0, 0, 0)
    assert records.take() == 0
    assert len(records.pages[0]) == WORDS * PAGE


@pytest.mark.parametrize("words", [(1, 2, 3, 4), (-1, -(1 << 63), (1 << 63) - 1, 1 << 62)], ids=["small", "extreme"])
def test_words_of_neighbours_are_their_own(words: tuple[int, int, int, int]) -> None:
    records = _Records()
    for _ in range(PAGE + 3):
        records.take()
    for record in (0, 1, 2, PAGE - 1, PAGE, PAGE + 1):
        records.fill(record, 7, 7, 7, 7)
        records.set(record, 2, 70)
        records.set(record, 3, 71)
    for record in (1, PAGE):
        records.fill(record, *words)
    for record in (0, 1, 2, PAGE - 1, PAGE, PAGE + 1):
        key, seqs, stamps, misc = words if record in (1, PAGE) else (7, 7, 7, 7)
        assert [records.get(record, word) for word in range(WORDS)] == [key, misc, 70, 71, seqs, stamps]


def test_there_are_as_many_records_as_28_bits_can_number() -> None:
    """And one page less, for the last number means nobody."""
    most = (1 << 18) - 1
    records = _Records()
    pages, live = records.pages, records._live
    while len(pages) < most - 1:
        pages, live = append(pages, vec[i64]()), append(live, i32(PAGE))
    records.pages, records._live = pages, live
    records._cursor, records._live[0] = PAGE, i32(PAGE)
    last = records.take()
    assert last == (most - 1) * PAGE
    assert last + PAGE - 1 < NOBODY
    records._cursor, records._live[most - 1] = PAGE, i32(PAGE)
    with pytest.raises(OverflowError, match="too many TIME-WAIT records"):
        records.take()


# --- Buckets ---


def test_the_hash_is_two_multiplications_by_secret_numbers() -> None:
    """The lower half of each product is dropped, and what is in the upper half is brought down."""
    buckets = _Buckets(_Records(), 1234567)
    rng = random.Random(10)
    first, second = (stir(1234567) >> 1) | 1, (stir(1234568) >> 1) | 1
    for _ in range(200):
        key = rng.getrandbits(63)
        mixed = (key ^ (key * first >> 32)) & 0xFFFFFFFF
        mixed ^= mixed >> 16
        assert buckets._bucket(key) == (mixed * second >> 32) & 4095


def test_a_bucket_that_is_not_split_off_yet_is_its_parent() -> None:
    buckets = _Buckets(_Records(), 1)
    buckets._mask, size = 8191, 5000
    wide = [buckets_at(buckets, key, 8192) for key in range(20_000)]
    for key, bucket in enumerate(wide):
        assert buckets_at(buckets, key, size) == (bucket if bucket < size else bucket - 4096)
    assert size in wide


def buckets_at(buckets: _Buckets, key: int, size: int) -> int:
    buckets._size = size
    return buckets._bucket(key)


# What splitmix64 makes of it: the first three of the seed 1234567, as its authors publish them
SPLITMIX64 = [6457827717110365317, 3203168211198807973, 9817491932198370423]
GAMMA = 0x9E3779B97F4A7C15


def stir(seed: int) -> int:
    """splitmix64 (Steele, Lea, Flood 2014), its first number."""
    z = (seed + GAMMA) % (1 << 64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> shift)) * factor % (1 << 64)
    return z ^ (z >> 31)


def test_odd_numbers_are_those_of_splitmix64() -> None:
    assert [stir(1234567 + n * GAMMA) for n in range(3)] == SPLITMIX64
    for n, number in enumerate(SPLITMIX64):
        assert odd_number(1234567 + n * GAMMA) == number >> 1 | 1
    for seed in (0, 1, -1, 1 << 63, (1 << 64) - 1, 0x123456789ABCDEF0):
        assert odd_number(seed) == stir(seed) >> 1 | 1


def test_buckets_are_split_and_merged_one_at_a_time() -> None:
    """They are twice the records or more; and when records go, not more than three times as many."""
    table = TimeWaitTable(1)
    for number in range(4097):
        insert(table, number)
        assert table._buckets._size == max(GROUP, 2 * (number + 1))
    assert table._buckets.memory() == 3 * GROUP_BYTES
    assert table._buckets._mask == 16_383
    for number in range(4097):
        table.remove(table.find(key_of(number)))
        assert table._buckets._size == min(8194, max(GROUP, 3 * (4097 - number)))
    assert table._buckets._size == GROUP
    assert table._buckets._mask == GROUP - 1
    assert table._buckets.memory() == GROUP_BYTES


def test_no_bucket_is_without_its_records_when_split_and_merged_again_and_again() -> None:
    table = TimeWaitTable(3)
    for number in range(4200):
        insert(table, number)
    for size in (8400, 8193, 8192, 8191, 4097, 4096, 4097, 8192, 8193, 8194):
        while table._buckets._size < size:
            table._buckets._split()
        while table._buckets._size > size:
            table._buckets._merge()
        assert all(table.snd_nxt(table.find(key_of(number))) == number for number in range(4200))
        filled = Counter(table._buckets._bucket(key_of(number)) for number in range(4200))
        assert max(filled) < size
        assert len(filled) > size * 0.38  # as chance has it


# --- Expiry ---


def test_a_duration_has_a_queue_while_it_has_records() -> None:
    expiry = _Expiry(_Records())
    first = expiry.queue(100)
    assert (first.number, first.duration, first.first, first.last, first.place) == (0, 100, NOBODY, NOBODY, -1)
    assert expiry.queue(100) is first
    assert expiry.queue(200).number == 1
    expiry.release(first)
    assert expiry.queue(300) is first
    assert first.duration == 300
    assert expiry.queue(100).number == 2


def test_a_queue_that_was_given_up_is_not_used_unseen() -> None:
    """It is remembered as the last one that was asked for."""
    table = TimeWaitTable(1)
    for _ in range(2):
        for number in range(3):
            insert(table, number)
            audit(table)
        for number in range(3):
            table.remove(table.find(key_of(number)))
            audit(table)
    insert(table, 1)
    insert(table, 2, duration=50)
    insert(table, 3)
    audit(table)


def test_a_queue_s_number_has_18_bits() -> None:
    """And what lies beside it in the word, the window and the chain, does not touch it."""
    table = TimeWaitTable(1)
    for duration in range(1, 1 << 18):
        table._expiry.queue(duration)
    table.insert(5, 1, 2, 0xFFFF, True, 3, 4, 0, 1 << 40)
    record = table.find(5)
    assert table._expiry.queue_of(record).number == (1 << 18) - 1
    assert (table.rcv_wnd(record), table.ts_on(record)) == (0xFFFF, True)
    assert table._records.get(record, 1) == NOBODY << 35 | ((1 << 18) - 1) << 17 | 1 << 16 | 0xFFFF


def test_records_of_one_key_after_the_other_use_one_queue_and_one_place() -> None:
    table = TimeWaitTable(1)
    for number in range(3000):
        insert(table, 7, duration=number)
    assert len(table._expiry._queues) == 1
    assert len(table) == 1
    assert table._records.count == 1
    audit(table)


def test_records_that_are_due_together_keep_their_order_also_when_the_clock_goes_back() -> None:
    table = TimeWaitTable(1)
    for number, now in enumerate([10, 10, 5, 10, 5, 3, 7]):
        insert(table, number, now)
        audit(table)
    got = [table.pop_oldest() for _ in range(7)]
    assert got == [key_of(number) for number in (5, 2, 4, 6, 0, 1, 3)]


def queue_at(expires_at: int) -> Any:
    queue = _Queue(0)
    queue.expires_at = expires_at
    return queue


def test_the_heap_finds_the_place_of_whatever_moves() -> None:
    """Every size up to 20, every place in it, to every rank."""
    for size in range(1, 21):
        for place in range(size):
            for expires_at in range(-1, 2 * size, 2):
                heap = [queue_at(2 * number) for number in range(size)]
                for number, queue in enumerate(heap):
                    queue.place = number
                moved = heap[place]
                moved.expires_at = expires_at
                _sift(heap, moved)
                assert len({id(queue) for queue in heap}) == size
                audit_heap(heap)


def test_what_is_in_its_place_is_not_moved_for_an_equal_one() -> None:
    heap = [queue_at(5) for _ in range(6)]
    before = list(heap)
    for place, queue in enumerate(heap):
        queue.place = place
    for queue in before:
        _sift(heap, queue)
        assert heap == before


def test_a_queue_that_ends_leaves_the_heap_whole() -> None:
    """Each of up to twelve durations in turn loses its only record, first, last or in between."""
    for size in range(1, 13):
        for gone in range(size):
            table = TimeWaitTable(1)
            for number in range(size):
                insert(table, number, duration=1000 - 7 * (number * 5 % size))
            table.remove(table.find(key_of(gone)))
            audit(table)
            left = sorted(1000 - 7 * (number * 5 % size) for number in range(size) if number != gone)
            assert table.next_deadline() == (left[0] if left else -1)


# --- The whole ---


def test_memory_of_a_table() -> None:
    table = TimeWaitTable(1)
    assert table.memory() == 4 + PAGE_BYTES + GROUP_BYTES
    for number in range(2049):
        insert(table, number)
    assert table.memory() == 3 * (4 + PAGE_BYTES) + 2 * GROUP_BYTES


def test_the_last_record_of_many_takes_all_with_it() -> None:
    """What grows with the number of pages is given back; a table of one page is left as it is."""
    table = TimeWaitTable(1)
    insert(table, 1)
    table.remove(table.find(key_of(1)))
    assert table._records._cursor == 1
    for number in range(PAGE):
        insert(table, number)
    assert len(table._records.pages) == 2
    for number in range(PAGE):
        table.remove(table.find(key_of(number)))
    assert len(table._records.pages) == 1
    assert table._records._cursor == 0
    audit(table)
