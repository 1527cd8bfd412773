"""The timer wheel against a naive list, at every scale of time."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from utcp.core.timers import TimerWheel

TICK = 1 << 20  # ns; the wheel's granularity, which nobody may notice
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
HOUR = 3600 * SECOND
YEAR = 365 * 24 * HOUR

STARTS = st.sampled_from([0, 1, TICK - 1, 10**15, 1_700_000_000 * SECOND, (1 << 62) - 1])
DISTANCES = st.one_of(
    st.integers(-SECOND, 2 * SECOND),
    st.integers(0, 3 * TICK),
    st.integers(0, 60).map(lambda bits: 1 << bits),
    st.integers(0, 60).map(lambda bits: (1 << bits) - 1),
    st.sampled_from([0, 40 * MILLISECOND, 200 * MILLISECOND, SECOND, 60 * SECOND, HOUR, 100 * YEAR]),
)


def due(wheel: TimerWheel, now: int) -> list[tuple[int, int]]:
    count = wheel.collect(now)
    assert len(wheel.due_deadlines) == len(wheel.due_slots) == count
    return list(zip(wheel.due_deadlines, wheel.due_slots, strict=True))


def filled(entries: list[tuple[int, int]]) -> TimerWheel:
    wheel = TimerWheel()
    for deadline, slot in entries:
        wheel.insert(deadline, slot)
    return wheel


def test_nothing_to_wait_for() -> None:
    wheel = TimerWheel()
    assert wheel.next_deadline() == -1
    assert due(wheel, 1 << 60) == []
    assert len(wheel) == 0


@pytest.mark.parametrize("start", [0, 10**15, (1 << 62) + 12345])
@pytest.mark.parametrize("distance", [1, TICK - 1, TICK, TICK + 1, 31 * TICK, 32 * TICK, SECOND, HOUR, 100 * YEAR])
def test_due_at_its_deadline_and_not_a_nanosecond_earlier(start: int, distance: int) -> None:
    wheel = TimerWheel()
    wheel.collect(start)
    wheel.insert(start + distance, 7)
    assert wheel.next_deadline() == start + distance
    assert due(wheel, start + distance - 1) == []
    assert wheel.next_deadline() == start + distance
    assert len(wheel) == 1
    assert due(wheel, start + distance) == [(start + distance, 7)]
    assert wheel.next_deadline() == -1
    assert len(wheel) == 0


@pytest.mark.parametrize("bits", range(1, 63))
def test_every_distance_has_a_place(bits: int) -> None:
    deadline = (1 << bits) - 1
    wheel = filled([(deadline, 1), (deadline + 1, 2), (deadline // 2, 3)])
    assert due(wheel, deadline) == [(deadline // 2, 3), (deadline, 1)]
    assert due(wheel, deadline + 1) == [(deadline + 1, 2)]


def test_the_last_instant() -> None:
    wheel = filled([((1 << 63) - 2, 1)])
    assert wheel.next_deadline() == (1 << 63) - 2
    assert due(wheel, (1 << 63) - 3) == []
    assert due(wheel, (1 << 63) - 2) == [((1 << 63) - 2, 1)]


def test_what_is_late_when_inserted_is_due_at_once() -> None:
    wheel = TimerWheel()
    wheel.collect(HOUR)
    wheel.insert(HOUR - 1, 1)
    wheel.insert(5, 2)
    wheel.insert(HOUR, 3)
    wheel.insert(HOUR + 1, 4)
    assert wheel.next_deadline() == 5
    assert due(wheel, HOUR) == [(5, 2), (HOUR - 1, 1), (HOUR, 3)]
    assert due(wheel, HOUR + 1) == [(HOUR + 1, 4)]


def test_an_earlier_deadline_moves_the_next_one() -> None:
    wheel = TimerWheel()
    for deadline in (HOUR, SECOND, 40 * MILLISECOND, 39 * MILLISECOND, 50 * MILLISECOND):
        wheel.insert(deadline, 0)
    assert wheel.next_deadline() == 39 * MILLISECOND
    wheel.collect(40 * MILLISECOND)
    assert wheel.next_deadline() == 50 * MILLISECOND
    wheel.insert(45 * MILLISECOND, 0)  # before one that was there first, after time has moved on
    assert wheel.next_deadline() == 45 * MILLISECOND


def test_entries_of_one_slot_are_independent() -> None:
    wheel = filled([(5, 1), (3, 1), (5, 1)])
    assert due(wheel, 4) == [(3, 1)]
    assert due(wheel, 5) == [(5, 1), (5, 1)]


def test_the_due_arrays_hold_the_last_batch_only() -> None:
    wheel = filled([(1, 1), (2, 2), (3, 3)])
    assert due(wheel, 1) == [(1, 1)]
    assert due(wheel, 2) == [(2, 2)]
    assert due(wheel, 2) == []


def test_order_within_a_tick() -> None:
    rng = random.Random(1)
    base = 77 * TICK
    entries = [(base + rng.randrange(TICK), slot) for slot in range(5000)]
    wheel = filled(entries)
    middle = base + TICK // 2
    assert [deadline for deadline, _ in due(wheel, middle)] == sorted(d for d, _ in entries if d <= middle)
    late = [(base + rng.randrange(TICK), slot) for slot in range(5000, 6000)]  # the tick has begun
    for deadline, slot in late:
        wheel.insert(deadline, slot)
    rest = [entry for entry in entries if entry[0] > middle] + late
    got = due(wheel, base + TICK)
    assert [deadline for deadline, _ in got] == sorted(deadline for deadline, _ in rest)
    assert sorted(got) == sorted(rest)


def test_interleaved_timeouts_of_different_length() -> None:
    """What a busy engine does: now + 200 ms, now + 40 ms, ... while time passes in small steps."""
    rng = random.Random(2)
    wheel = TimerWheel()
    now = 10**15
    waiting: list[tuple[int, int]] = []
    for slot in range(4000):
        deadline = now + rng.choice([40, 200, 200, 1000, 0]) * MILLISECOND
        wheel.insert(deadline, slot)
        waiting.append((deadline, slot))
        now += rng.randrange(200_000)
        if slot % 3 == 0:
            expected = sorted(entry for entry in waiting if entry[0] <= now)
            assert sorted(due(wheel, now)) == expected
            waiting = [entry for entry in waiting if entry[0] > now]
            assert wheel.next_deadline() == min(waiting)[0]
    assert len(wheel) == len(waiting)


def test_the_clock_jumps() -> None:
    """An empty century costs nothing: going through its 3 * 10**12 ticks would not end."""
    now = 12345
    wheel = TimerWheel()
    for distance in (SECOND, HOUR, YEAR, 100 * YEAR):
        for ahead in (distance, 3 * distance // 2, 2 * distance + 1):
            wheel.insert(now + ahead, ahead & 0xFFFF)
        assert wheel.next_deadline() == now + distance
        expected = [now + distance, now + 3 * distance // 2]
        assert [deadline for deadline, _ in due(wheel, now + 2 * distance)] == expected
        now += 2 * distance + 1
        assert len(due(wheel, now)) == 1


def test_inserts_long_after_the_last_collect() -> None:
    wheel = TimerWheel()
    wheel.collect(0)
    entries = [(HOUR + i * 7919, i) for i in range(1000)]
    for deadline, slot in reversed(entries):
        wheel.insert(deadline, slot)
    assert wheel.next_deadline() == HOUR
    assert due(wheel, HOUR + 500 * 7919) == entries[:501]
    assert due(wheel, 2 * HOUR) == entries[501:]


def test_a_clock_that_goes_back_makes_nothing_due() -> None:
    wheel = TimerWheel()
    wheel.collect(HOUR)
    wheel.insert(HOUR + SECOND, 1)
    assert due(wheel, SECOND) == []
    wheel.insert(2 * SECOND, 2)
    assert due(wheel, 2 * SECOND) == [(2 * SECOND, 2)]
    assert due(wheel, HOUR + SECOND) == [(HOUR + SECOND, 1)]


def test_memory_is_given_back() -> None:
    wheel = TimerWheel()
    now = 10**15
    wheel.collect(now)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for slot in range(20_000):
            wheel.insert(now + (slot % 50) * slot * 1000, slot)
        assert tracemalloc.get_traced_memory()[0] - before > 20_000 * 16
        assert wheel.collect(now + HOUR) == 20_000
        wheel.collect(now + HOUR)  # lets go of the last batch
        assert tracemalloc.get_traced_memory()[0] - before < 2000
    finally:
        tracemalloc.stop()


def test_standing_time_holds_no_memory() -> None:
    """Entries that are due at once, one after the other, while an entry of the same tick waits."""
    wheel = TimerWheel()
    now = 10 * TICK
    wheel.collect(now)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for slot in range(2000):
            wheel.insert(now, slot)
            assert due(wheel, now) == [(now, slot)]
            if slot == 1000:
                wheel.insert(now + 1, -1)
        assert tracemalloc.get_traced_memory()[0] - before < 8000  # of 32,000 that went through
        assert due(wheel, now + 1) == [(now + 1, -1)]
    finally:
        tracemalloc.stop()


@given(STARTS, st.lists(DISTANCES, max_size=50), st.lists(st.integers(0, 61).map(lambda bits: 1 << bits), max_size=8))
def test_everything_comes_exactly_once_and_in_order(start: int, distances: list[int], steps: list[int]) -> None:
    wheel = TimerWheel()
    wheel.collect(start)
    waiting = [(max(0, start + distance), slot) for slot, distance in enumerate(distances)]
    for deadline, slot in waiting:
        wheel.insert(deadline, slot)
    now = start
    for step in [0, *steps]:
        now = min(now + step, (1 << 63) - 2)
        got = due(wheel, now)
        assert [deadline for deadline, _ in got] == sorted(deadline for deadline, _ in waiting if deadline <= now)
        assert sorted(got) == sorted(entry for entry in waiting if entry[0] <= now)
        waiting = [entry for entry in waiting if entry[0] > now]
        assert len(wheel) == len(waiting)
        assert wheel.next_deadline() == min(waiting, default=(-1, 0))[0]


class WheelMachine(RuleBasedStateMachine):
    """Inserts and collects in any order, while the clock goes on in small steps and long jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.wheel = TimerWheel()
        self.waiting: list[tuple[int, int]] = []
        self.now = 10**15
        self.slots = 0

    @rule(distance=DISTANCES)
    def insert(self, distance: int) -> None:
        self.waiting.append((max(0, self.now + distance), self.slots))
        self.wheel.insert(*self.waiting[-1])
        self.slots += 1

    @rule(distances=st.lists(st.integers(0, 4 * TICK), max_size=40))
    def insert_many(self, distances: list[int]) -> None:
        for distance in distances:
            self.insert(distance)

    @rule(step=st.one_of(st.integers(0, 2 * TICK), st.integers(0, 3 * SECOND), st.sampled_from([HOUR, YEAR])))
    def pass_time(self, step: int) -> None:
        self.now += step

    @rule()
    def jump_to_the_next(self) -> None:
        self.now = max(self.now, self.wheel.next_deadline())

    @rule()
    def collect(self) -> None:
        got = due(self.wheel, self.now)
        assert [deadline for deadline, _ in got] == sorted(d for d, _ in self.waiting if d <= self.now)
        assert sorted(got) == sorted(entry for entry in self.waiting if entry[0] <= self.now)
        self.waiting = [entry for entry in self.waiting if entry[0] > self.now]

    @invariant()
    def agrees(self) -> None:
        assert len(self.wheel) == len(self.waiting)
        assert self.wheel.next_deadline() == min(self.waiting, default=(-1, 0))[0]


WheelMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestWheelMachine = WheelMachine.TestCase
