"""The timer wheel: every pending deadline of an engine, in packed integers.

Entries are never cancelled. At a million short connections a second each leaves one behind that nobody wants any
more, and the caller recognises it by its own state when it comes due; so insertion has to be cheap above all.

Time is divided into ticks of 2**20 ns, about a millisecond. Ticks to come lie in a hierarchical wheel: level 0 has a
bucket for each of the next 31 ticks, level 1 one for each of the next 31 stretches of 32 ticks, and so on through all
63 bits, so that no deadline is beyond the horizon. A bucket is not in order; it is dealt out to the levels below when
its stretch of time begins. The present tick is in order, so that deadlines are exact to the nanosecond. Bits say
which buckets are occupied, so an empty hour costs nothing.
"""

from __future__ import annotations

from typing import Final, final

from librt.vecs import append, vec
from mypy_extensions import i64

_TICK_BITS: Final = 20
_DIGIT_BITS: Final = 5  # of a tick number, per level
_WIDTH: Final = 32  # buckets per level
_DIGIT: Final = 31  # mask
_LEVELS: Final = 9  # 20 + 9 * 5 bits are more than an instant has
_ALL: Final = 0xFFFFFFFF  # a bit per bucket of a level
_NEVER: Final = 0x7FFFFFFFFFFFFFFF
_FIRST_CAPACITY: Final = 14  # words of a bucket that gets its first entry


@final
class TimerWheel:
    """Deadlines (ns, any instant from 0 to 2**63 - 2) with the connection slot each belongs to.

    After ``collect`` the entries that came due are in ``due_deadlines`` and ``due_slots``, side by side.
    """

    def __init__(self) -> None:
        self.due_deadlines: vec[i64] = vec[i64]()
        self.due_slots: vec[i64] = vec[i64]()
        self._count: i64 = 0
        self._next: i64 = _NEVER  # the earliest deadline
        self._tick: i64 = 0  # the present tick
        self._present: _Present = _Present()  # its entries, and what was already late when it was inserted
        # By level * 32 + digit: deadline, slot, deadline, slot, ...
        self._buckets: vec[vec[i64]] = vec[vec[i64]]([vec[i64]() for _ in range(_LEVELS * _WIDTH)])
        self._earliest: vec[i64] = vec[i64]([_NEVER] * (_LEVELS * _WIDTH))
        self._occupied: vec[i64] = vec[i64]([0] * _LEVELS)  # a bit per bucket

    def __len__(self) -> int:
        return self._count

    def next_deadline(self) -> i64:
        """The earliest deadline, -1 when there is none."""
        if self._count == 0:
            return -1
        return self._next

    def memory(self) -> int:
        """Bytes of packed numbers held: two for each entry, and the tables of buckets."""
        return 8 * (2 * self._count + 2 * len(self.due_slots)) + 16 * _LEVELS * _WIDTH

    def insert(self, deadline: i64, slot: i64) -> None:
        """Add an entry; ``deadline`` may have passed already."""
        self._count += 1
        self._next = min(self._next, deadline)
        self._put(deadline, slot)

    def collect(self, now: i64) -> i64:
        """Move every entry with deadline <= now to ``due_*``, earliest first; returns how many."""
        if len(self.due_slots) > 0:
            self.due_deadlines = vec[i64]()
            self.due_slots = vec[i64]()
        while self._next <= now:
            self._turn_to(self._next >> _TICK_BITS)
            self._take_due(now)
            self._next = self._find_next()
        self._turn_to(now >> _TICK_BITS)  # so that entries to come are put by their distance from now
        due: i64 = len(self.due_slots)
        self._count -= due
        return due

    def _put(self, deadline: i64, slot: i64) -> None:
        there = deadline >> _TICK_BITS
        here = self._tick
        if there <= here:
            self._present.add(deadline, slot)
            return
        level: i64 = 0
        while there - here >= _WIDTH:
            there >>= _DIGIT_BITS
            here >>= _DIGIT_BITS
            level += 1
        digit = there & _DIGIT
        bucket = level * _WIDTH + digit
        entries = self._buckets[bucket]
        if len(entries) == 0:
            self._occupied[level] |= 1 << digit
            self._buckets[bucket] = vec[i64]([deadline, slot], capacity=_FIRST_CAPACITY)
        else:
            self._buckets[bucket] = append(append(entries, deadline), slot)
        self._earliest[bucket] = min(self._earliest[bucket], deadline)

    def _turn_to(self, tick: i64) -> None:
        """Make ``tick`` the present one. If that is a step ahead, nothing is left before it.

        On each level where a new stretch of time begins, its bucket is dealt out.
        """
        here = self._tick
        if tick <= here:
            return
        self._tick = tick
        level: i64 = 0
        while tick > here:
            digit = tick & _DIGIT
            if self._occupied[level] >> digit & 1:
                entries = self._empty(level, digit)
                i: i64
                if level == 0:
                    self._present.start(entries)
                else:
                    for i in range(0, len(entries), 2):
                        self._put(entries[i], entries[i + 1])
            tick >>= _DIGIT_BITS
            here >>= _DIGIT_BITS
            level += 1

    def _empty(self, level: i64, digit: i64) -> vec[i64]:
        bucket = level * _WIDTH + digit
        entries = self._buckets[bucket]
        self._buckets[bucket] = vec[i64]()
        self._earliest[bucket] = _NEVER
        self._occupied[level] ^= 1 << digit
        return entries

    def _take_due(self, now: i64) -> None:
        present = self._present
        deadlines = self.due_deadlines
        slots = self.due_slots
        while present.next_deadline() <= now:
            present.pop()
            deadlines = append(deadlines, present.deadline)
            slots = append(slots, present.slot)
        self.due_deadlines = deadlines
        self.due_slots = slots

    def _find_next(self) -> i64:
        """The present is earlier than the wheel; on a level the buckets follow each other, round from the present."""
        earliest = self._present.next_deadline()
        if earliest != _NEVER:
            return earliest
        here = self._tick
        level: i64
        for level in range(_LEVELS):
            occupied = self._occupied[level]
            if occupied != 0:
                turn = here & _DIGIT
                ahead = ((occupied >> turn) | (occupied << (_WIDTH - turn))) & _ALL
                first: int = ahead & -ahead
                digit = (turn + first.bit_length() - 1) & _DIGIT
                earliest = min(earliest, self._earliest[level * _WIDTH + digit])
            here >>= _DIGIT_BITS
        return earliest


@final
class _Present:
    """The entries of one tick, in order, as (deadline, slot) pairs.

    They tend to come in order, because most timers run for the same time. Those that do are a plain run,
    the others a binary heap beside it.
    """

    def __init__(self) -> None:
        self.deadline: i64 = 0  # what ``pop`` took
        self.slot: i64 = 0
        self._run: vec[i64] = vec[i64]()
        self._first: i64 = 0  # the pairs in use of the run, in words: [first, end)
        self._end: i64 = 0
        self._heap: vec[i64] = vec[i64]()
        self._size: i64 = 0  # the pairs in use of the heap

    def next_deadline(self) -> i64:
        earliest: i64 = _NEVER
        if self._first < self._end:
            earliest = self._run[self._first]
        if self._size > 0:
            earliest = min(earliest, self._heap[0])
        return earliest

    def start(self, entries: vec[i64]) -> None:
        """Begin with ``entries``, in any order; nothing was left."""
        self._run = entries
        self._first = 0
        end: i64 = 0
        latest = entries[0]
        i: i64
        for i in range(0, len(entries), 2):
            deadline = entries[i]
            if deadline >= latest:
                latest = deadline
                entries[end] = deadline
                entries[end + 1] = entries[i + 1]
                end += 2
            else:
                self._push(deadline, entries[i + 1])
        self._end = end

    def add(self, deadline: i64, slot: i64) -> None:
        end = self._end
        if end == 0:
            self._run = vec[i64]([deadline, slot], capacity=_FIRST_CAPACITY)
            self._end = 2
        elif end == len(self._run) and deadline >= self._run[end - 2]:
            self._run = append(append(self._run, deadline), slot)
            self._end = end + 2
        else:
            self._push(deadline, slot)

    def pop(self) -> None:
        first = self._first
        if self._size > 0 and (first == self._end or self._heap[0] < self._run[first]):
            self._pop_heap()
            return
        self.deadline = self._run[first]
        self.slot = self._run[first + 1]
        self._first = first + 2
        if self._first == self._end:
            self._run = vec[i64]()
            self._first = self._end = 0

    def _push(self, deadline: i64, slot: i64) -> None:
        place = self._size
        self._size += 1
        if 2 * place == len(self._heap):
            self._heap = append(append(self._heap, deadline), slot)
        heap = self._heap
        while place > 0 and heap[2 * ((place - 1) >> 1)] > deadline:
            parent = (place - 1) >> 1
            heap[2 * place] = heap[2 * parent]
            heap[2 * place + 1] = heap[2 * parent + 1]
            place = parent
        heap[2 * place] = deadline
        heap[2 * place + 1] = slot

    def _pop_heap(self) -> None:
        heap = self._heap
        self.deadline = heap[0]
        self.slot = heap[1]
        size = self._size - 1
        self._size = size
        if size == 0:
            self._heap = vec[i64]()
            return
        # Put the last pair into the first place, then let it sink.
        deadline = heap[2 * size]
        slot = heap[2 * size + 1]
        place: i64 = 0
        child: i64 = 1
        while child < size:
            if child + 1 < size and heap[2 * child + 2] < heap[2 * child]:
                child += 1
            if heap[2 * child] >= deadline:
                break
            heap[2 * place] = heap[2 * child]
            heap[2 * place + 1] = heap[2 * child + 1]
            place = child
            child = 2 * place + 1
        heap[2 * place] = deadline
        heap[2 * place + 1] = slot
