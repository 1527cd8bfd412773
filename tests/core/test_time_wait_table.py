"""The TIME-WAIT table against a dictionary: records, order of expiry, memory.

It is packed where it is compiled, and made of dicts where it is interpreted: both do the same. The packed one is tested
here whichever is in use.
"""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from dataclasses import dataclass, replace
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import utcp
from utcp.core import time_wait_table
from utcp.core.interpreted_time_wait import PACKED as TimeWaitTable
from utcp.core.interpreted_time_wait import DictTimeWait

SECOND = 1_000_000_000
T0 = 10**15
MSL2 = 60 * SECOND

U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
PATHS = st.sampled_from([0, 1, 77, 0x7FFFFFFF])


@dataclass(frozen=True)
class Record:
    """What the table should hold of one connection."""

    snd_nxt: int = 1000
    rcv_nxt: int = 2000
    rcv_wnd: int = 500
    ts_on: bool = True
    ts_recent: int = 3000
    ts_last: int = 4000
    started_at: int = T0
    duration: int = MSL2

    @property
    def expires_at(self) -> int:
        return self.started_at + self.duration


Table: TypeAlias = TimeWaitTable | DictTimeWait
BOTH = pytest.mark.parametrize("table_type", [TimeWaitTable, DictTimeWait])
RECORDS = st.builds(Record, U32, U32, U16, st.booleans(), U32, U32)


def key_of(local_port: int, remote_port: int = 9000, path: int = 1) -> int:
    return path << 32 | local_port << 16 | remote_port


def insert(table: Table, key: int, record: Record) -> None:
    table.insert(
        key,
        record.snd_nxt,
        record.rcv_nxt,
        record.rcv_wnd,
        record.ts_on,
        record.ts_recent,
        record.ts_last,
        record.started_at,
        record.duration,
    )


def read(table: Table, key: int, duration: int) -> Record:
    """The record as the table has it; ``duration`` is not readable and taken for granted."""
    h = table.find(key)
    assert h >= 0
    return Record(
        table.snd_nxt(h),
        table.rcv_nxt(h),
        table.rcv_wnd(h),
        table.ts_on(h),
        table.ts_recent(h),
        table.ts_last(h),
        table.expires_at(h) - duration,
        duration,
    )


def drain(table: Table, now: int) -> list[int]:
    keys = []
    while (key := table.pop_expired(now)) != -1:
        keys.append(key)
    return keys


# --- Records ---


@BOTH
def test_an_empty_table(table_type: type[Table]) -> None:
    table = table_type(1)
    assert len(table) == 0
    assert table.find(key_of(1)) == -1
    assert table.next_deadline() == -1
    assert table.pop_expired(1 << 62) == -1
    assert table.pop_oldest() == -1
    assert table.keys() == []


@BOTH
@given(PATHS, U16, U16, RECORDS, st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_record_comes_back_as_it_was_put_in(
    table_type: type[Table], path: int, local: int, remote: int, record: Record, seed: int
) -> None:
    table = table_type(seed)
    key = key_of(local, remote, path)
    insert(table, key, record)
    assert len(table) == 1
    assert table.keys() == [key]
    assert read(table, key, MSL2) == record
    for other in (key ^ 1, key ^ 1 << 16, key ^ 1 << 32, key ^ 1 << 62):
        assert table.find(other) == -1


@BOTH
def test_the_window_has_16_bits(table_type: type[Table]) -> None:
    table = table_type(1)
    insert(table, 5, Record(rcv_wnd=0x1FFFF, ts_on=False))
    assert table.rcv_wnd(table.find(5)) == 0xFFFF
    assert not table.ts_on(table.find(5))


@BOTH
@given(RECORDS, U32, U32)
def test_update_sets_both_timestamps_and_nothing_else(
    table_type: type[Table], record: Record, ts_recent: int, ts_last: int
) -> None:
    table = table_type(1)
    insert(table, 5, record)
    table.update(table.find(5), ts_recent, ts_last)
    assert read(table, 5, MSL2) == replace(record, ts_recent=ts_recent, ts_last=ts_last)


@BOTH
def test_the_same_key_again_replaces_the_record(table_type: type[Table]) -> None:
    table = table_type(1)
    insert(table, 5, Record())
    insert(table, 6, Record())
    insert(table, 5, Record(snd_nxt=9, started_at=T0 + 10, duration=1))
    assert len(table) == 2
    assert sorted(table.keys()) == [5, 6]
    assert table.snd_nxt(table.find(5)) == 9
    assert drain(table, T0 + 11) == [5]
    assert drain(table, T0 + MSL2) == [6]


@BOTH
def test_remove(table_type: type[Table]) -> None:
    table = table_type(1)
    for port in range(10):
        insert(table, key_of(port), Record(started_at=T0 + port))
    for port in (0, 9, 5, 1):  # the first, the last, in between
        table.remove(table.find(key_of(port)))
        assert table.find(key_of(port)) == -1
    assert len(table) == 6
    assert table.next_deadline() == T0 + 2 + MSL2
    assert drain(table, T0 + 100 + MSL2) == [key_of(port) for port in (2, 3, 4, 6, 7, 8)]


@BOTH
def test_clear(table_type: type[Table]) -> None:
    table = table_type(1)
    start = table.memory()
    for port in range(5000):
        insert(table, key_of(port), Record(duration=port))
    table.clear()
    assert len(table) == 0
    assert table.keys() == []
    assert table.next_deadline() == -1
    assert table.find(key_of(1)) == -1
    assert table.memory() == start
    insert(table, key_of(1), Record())
    assert drain(table, T0 + MSL2) == [key_of(1)]


# --- Expiry ---


@BOTH
@pytest.mark.parametrize("start", [0, T0, 1 << 62])
@pytest.mark.parametrize("duration", [0, 1, MSL2, 4 * 3600 * SECOND])
def test_expires_at_its_time_and_not_a_nanosecond_earlier(table_type: type[Table], start: int, duration: int) -> None:
    table = table_type(1)
    insert(table, 5, Record(started_at=start, duration=duration))
    assert table.next_deadline() == start + duration
    assert table.pop_expired(start + duration - 1) == -1
    assert table.find(5) >= 0
    assert table.pop_expired(start + duration) == 5
    assert table.find(5) == -1
    assert table.next_deadline() == -1


@BOTH
def test_restart_starts_2msl_anew_with_the_records_own_duration(table_type: type[Table]) -> None:
    table = table_type(1)
    insert(table, 1, Record(duration=100))
    insert(table, 2, Record(duration=100))
    insert(table, 3, Record(duration=30))
    table.restart(table.find(1), T0 + 50)
    table.restart(table.find(3), T0 + 25)
    assert read(table, 1, 100) == Record(started_at=T0 + 50, duration=100)
    assert table.next_deadline() == T0 + 55
    assert drain(table, T0 + 54) == []
    assert drain(table, T0 + 55) == [3]
    assert drain(table, T0 + 149) == [2]
    assert drain(table, T0 + 150) == [1]


@BOTH
def test_restart_of_the_only_record(table_type: type[Table]) -> None:
    table = table_type(1)
    insert(table, 1, Record())
    for later in range(1, 5):
        table.restart(table.find(1), T0 + later)
        assert table.next_deadline() == T0 + later + MSL2
        assert len(table) == 1
    assert drain(table, T0 + 4 + MSL2) == [1]


@BOTH
def test_different_durations_expire_in_the_order_of_their_deadlines(table_type: type[Table]) -> None:
    """More durations than anybody has; each leaves nothing behind."""
    table = table_type(1)
    rng = random.Random(3)
    for _ in range(2):
        expires_at = {}
        for port in range(3000):
            duration = rng.randrange(10_000)
            insert(table, key_of(port), Record(started_at=T0 + port, duration=duration))
            expires_at[key_of(port)] = T0 + port + duration
        got = [table.pop_oldest() for _ in range(1000)] + drain(table, T0 + 20_000)
        assert sorted(got) == sorted(expires_at)
        assert [expires_at[key] for key in got] == sorted(expires_at.values())


@BOTH
def test_records_of_one_duration_expire_first_in_first_out(table_type: type[Table]) -> None:
    table = table_type(1)
    ports = random.Random(4).sample(range(65536), 500)
    for port in ports:  # all in the same instant
        insert(table, key_of(port), Record())
    assert drain(table, T0 + MSL2) == [key_of(port) for port in ports]


@BOTH
def test_a_clock_that_goes_back_does_not_hide_a_deadline(table_type: type[Table]) -> None:
    table = table_type(1)
    for key, started_at in enumerate([10, 20, 5, 15, 1, 30]):
        insert(table, key, Record(started_at=T0 + started_at))
    table.restart(table.find(1), T0 + 12)
    assert table.next_deadline() == T0 + 1 + MSL2
    assert drain(table, T0 + 12 + MSL2) == [4, 2, 0, 1]
    assert drain(table, T0 + 30 + MSL2) == [3, 5]


@BOTH
def test_pop_oldest_takes_what_would_expire_first(table_type: type[Table]) -> None:
    table = table_type(1)
    insert(table, 1, Record(duration=300))
    insert(table, 2, Record(duration=200))
    insert(table, 3, Record(started_at=T0 + 50, duration=200))
    assert [table.pop_oldest() for _ in range(4)] == [2, 3, 1, -1]


def test_too_many_durations_at_a_time() -> None:
    table = TimeWaitTable(1)
    for duration in range(1 << 18):
        table._expiry.queue(duration)
    with pytest.raises(OverflowError, match="262144 different TIME-WAIT durations"):
        insert(table, 1, Record(duration=1 << 18))
    insert(table, 1, Record(duration=5))
    assert drain(table, T0 + 5) == [1]


# --- Scale ---


def test_growing_and_shrinking_lose_nothing() -> None:
    table = TimeWaitTable(1)
    rng = random.Random(5)
    keys = [key_of(number & 0xFFFF, number >> 16) for number in rng.sample(range(1 << 32), 30_000)]
    for i, key in enumerate(keys):
        insert(table, key, Record(snd_nxt=i, started_at=T0 + i))
        if i % 1000 == 0:
            assert all(table.snd_nxt(table.find(keys[j])) == j for j in range(0, i, 97))
    assert sorted(table.keys()) == sorted(keys)
    assert max(Counter(table._buckets._bucket(key) for key in keys).values()) <= 10  # as many buckets as it takes
    for i, key in enumerate(keys):
        if i % 1000 == 0:
            assert all(table.snd_nxt(table.find(keys[j])) == j for j in range(i, len(keys), 97))
            assert table.find(keys[i - 1]) == -1 or i == 0
        assert table.pop_expired(T0 + i + MSL2) == key
    assert len(table) == 0


def filled(table: Table) -> int:
    """Put 10,000 records into the table; the bytes that they take."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000):
            insert(table, key_of(number), Record(started_at=T0 + number))
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_memory_per_record_and_back_to_the_start() -> None:
    table = TimeWaitTable(1)
    start = table.memory()
    assert start + filled(table) == pytest.approx(table.memory(), rel=0.02)  # it says what is true
    assert table.memory() < 60 * 10_000
    while len(table) > 3_000:  # memory goes as the records go
        assert table.pop_expired(T0 + MSL2 + 10_000) >= 0
        assert table.memory() < 64 * len(table) + 60_000
    drain(table, T0 + MSL2 + 10_000)
    assert table.memory() == start


@BOTH
def test_nothing_leaks(table_type: type[Table]) -> None:
    table = table_type(1)

    def live() -> None:
        for number in range(3000):
            insert(table, key_of(number), Record(started_at=T0 + number, duration=number % 50))
        drain(table, T0 + MSL2)

    tracemalloc.start()
    try:
        live()
        before = tracemalloc.get_traced_memory()[0]
        live()
        assert tracemalloc.get_traced_memory()[0] - before < 2000
    finally:
        tracemalloc.stop()


@BOTH
def test_restarting_again_and_again_takes_no_memory(table_type: type[Table]) -> None:
    """A peer that repeats its FIN all day must not make us keep anything for each of them."""
    table = table_type(1)
    for key in range(3):
        insert(table, key, Record())
    before = table.memory()
    for i in range(5000):
        table.restart(table.find(i % 3), T0 + i)
    assert table.memory() == before
    assert len(table) == 3


def test_coming_and_going_takes_no_memory() -> None:
    table = TimeWaitTable(1)
    insert(table, 0, Record(duration=1 << 60))
    held = set()
    for key in range(1, 8000):
        insert(table, key, Record())
        if key > 10:
            assert table.pop_expired(T0 + MSL2) == key - 10
        held.add(table.memory())
    assert max(held) - min(held) < 1024 * 50  # a second page, and never a third
    assert table.memory() in sorted(held)[:2]


def test_a_few_long_lived_records_do_not_hold_on_to_all_memory() -> None:
    """Of many records some are kept alive by repeated FINs, wherever they lie; the places of the others are reused."""
    table = TimeWaitTable(1)
    for wave in range(6):
        for number in range(4096):
            insert(table, key_of(number, wave), Record(started_at=T0 + wave))
        for number in range(4096):
            if number % 256:
                table.remove(table.find(key_of(number, wave)))
    assert len(table) == 6 * 16
    assert table.memory() < 6 * 1024 * 52  # about that of one wave, although there were six


@pytest.mark.parametrize("seed", [0, 1, -1, (1 << 63) - 1, 0x243F6A8885A308D3])
@pytest.mark.parametrize(("shift", "stride"), [(0, 1), (0, 4), (16, 1), (16, 256), (32, 1), (32, 0x10000)], ids=str)
def test_keys_that_differ_in_any_part_do_not_collide(seed: int, shift: int, stride: int) -> None:
    """As many keys as there are buckets, regular in one field."""
    table = TimeWaitTable(seed)
    keys = {key_of(80, 80) ^ (number * stride << shift) for number in range(4096)}
    filled = Counter(table._buckets._bucket(key) for key in keys)
    assert max(filled.values()) <= 11  # chance alone makes it 6 to 8
    assert len(filled) > 2300  # chance leaves 37 % empty, which makes it 2589


def test_the_seed_decides_what_collides() -> None:
    tables = [TimeWaitTable(seed) for seed in range(8)]
    for port in range(100):
        assert len({table._buckets._bucket(key_of(port)) for table in tables}) > 4


@BOTH
def test_a_long_random_life(table_type: type[Table]) -> None:
    """Against a dictionary, with enough records for several pages and many buckets."""
    rng = random.Random(6)
    table = table_type(6)
    model: dict[int, Record] = {}
    now = T0
    for round_ in range(12):
        for _ in range(1500):
            now += rng.randrange(40 * MSL2 // 12_000)
            key = key_of(rng.randrange(6000), path=round_ & 1)
            record = Record(snd_nxt=rng.getrandbits(32), started_at=now, duration=rng.choice([MSL2, MSL2, 0, SECOND]))
            insert(table, key, record)
            model[key] = record
            if rng.random() < 0.5:
                key = rng.choice(list(model)[-50:])
                table.restart(table.find(key), now)
                model[key] = replace(model[key], started_at=now)
            if rng.random() < 0.1:
                key = rng.choice(list(model)[-50:])
                table.remove(table.find(key))
                del model[key]
        assert table.next_deadline() == min(record.expires_at for record in model.values())
        for key in drain(table, now):
            assert model.pop(key).expires_at <= now
        assert sorted(table.keys()) == sorted(model)
        assert all(read(table, key, record.duration) == record for key, record in model.items())
        assert all(record.expires_at > now for record in model.values())
    while model:
        deadline = table.next_deadline()
        assert model.pop(table.pop_oldest()).expires_at == deadline
    assert table.memory() == table_type(6).memory()


class TableMachine(RuleBasedStateMachine):
    """Few keys and durations, all operations in any order, time in steps and jumps, now and then back."""

    table_type: type[Table] = TimeWaitTable
    KEYS = st.integers(0, 12).map(lambda number: key_of(number % 4, number // 4, number % 3))

    def __init__(self) -> None:
        super().__init__()
        self.table = self.table_type(7)
        self.model: dict[int, Record] = {}
        self.now = T0

    @rule(key=KEYS, record=RECORDS, duration=st.sampled_from([0, 1, 10, 10, 60 * SECOND]))
    def insert(self, key: int, record: Record, duration: int) -> None:
        self.model[key] = replace(record, started_at=self.now, duration=duration)
        insert(self.table, key, self.model[key])

    @rule(step=st.integers(-1, 12) | st.sampled_from([SECOND, 3600 * SECOND]))
    def pass_time(self, step: int) -> None:
        self.now += step

    @rule(key=KEYS)
    def restart(self, key: int) -> None:
        h = self.table.find(key)
        assert (h >= 0) == (key in self.model)
        if h >= 0:
            self.table.restart(h, self.now)
            self.model[key] = replace(self.model[key], started_at=self.now)

    @rule(key=KEYS, ts_recent=U32, ts_last=U32)
    def update(self, key: int, ts_recent: int, ts_last: int) -> None:
        if key in self.model:
            self.table.update(self.table.find(key), ts_recent, ts_last)
            self.model[key] = replace(self.model[key], ts_recent=ts_recent, ts_last=ts_last)

    @rule(key=KEYS)
    def remove(self, key: int) -> None:
        if self.model.pop(key, None):
            self.table.remove(self.table.find(key))

    @rule()
    def pop_expired(self) -> None:
        key = self.table.pop_expired(self.now)
        if key == -1:
            assert all(record.expires_at > self.now for record in self.model.values())
        else:
            self.check_first(key)
            assert self.model.pop(key).expires_at <= self.now

    @precondition(lambda self: self.model)
    @rule()
    def pop_oldest(self) -> None:
        key = self.table.pop_oldest()
        self.check_first(key)
        del self.model[key]

    @rule()
    def clear(self) -> None:
        self.table.clear()
        self.model.clear()

    def check_first(self, key: int) -> None:
        assert self.model[key].expires_at == min(record.expires_at for record in self.model.values())

    @invariant()
    def agrees(self) -> None:
        assert len(self.table) == len(self.model)
        assert sorted(self.table.keys()) == sorted(self.model)
        assert self.table.next_deadline() == min((record.expires_at for record in self.model.values()), default=-1)
        for key, record in self.model.items():
            assert read(self.table, key, record.duration) == record


class DictTableMachine(TableMachine):
    table_type = DictTimeWait


SETTINGS = settings(max_examples=100, stateful_step_count=50, deadline=None)
TableMachine.TestCase.settings = DictTableMachine.TestCase.settings = SETTINGS
TestTableMachine = TableMachine.TestCase
TestDictTableMachine = DictTableMachine.TestCase


# --- Which one ---


def test_which_one_is_in_use() -> None:
    assert time_wait_table.TimeWaitTable is (TimeWaitTable if utcp.__compiled__ else DictTimeWait)


def test_dicts_say_what_they_hold() -> None:
    table = DictTimeWait(1)
    assert filled(table) == pytest.approx(table.memory(), rel=0.02)
    assert table.memory() < 260 * 10_000


def test_a_duration_of_which_no_record_is_left() -> None:
    """It is forgotten when its time has come, and may come back before that, or after the clock has gone back."""
    table = DictTimeWait(1)
    insert(table, 1, Record())
    insert(table, 2, Record(duration=10))
    table.remove(2)
    assert table.next_deadline() == T0 + MSL2
    insert(table, 2, Record(duration=10))
    assert table.next_deadline() == T0 + 10
    table.remove(2)
    insert(table, 3, Record(started_at=T0 - 5))
    insert(table, 2, Record(duration=10))
    assert drain(table, T0 + 10) == [2]
    assert drain(table, T0 + MSL2) == [3, 1]
