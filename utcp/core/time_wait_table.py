"""TIME-WAIT (RFC 9293 3.3.2, MUST-13) as packed integers: what is left of a connection for 2MSL.

A record is six 64-bit words, and three structures hold it, each below with its own class:

- ``_Records``: pages of 1024 records. A page without a live record is given back; one that is at least a quarter free
  is filled again before a new page is made.
- ``_Buckets``: a hash table to find a record by its key. Collisions are chained through the records. It grows and
  shrinks by linear hashing: one bucket at a time is split or merged, so that no single call pays for all of it.
- ``_Expiry``: records of one 2MSL expire in the order in which it was started, so each duration has a queue, doubly
  linked through the records. The few queues are a binary heap by what is first in each.

A live record costs 48 bytes, its share of the buckets another 8, up to 12 while the table shrinks.
"""

from __future__ import annotations

from typing import Final, final

from librt.vecs import append, pop, vec
from mypy_extensions import i32, i64

from utcp.wire.seq import MASK

# The words of a record, 64 bits each. What a search reads comes first, to lie in one line of the processor's cache.
_WORDS: Final = 6
_KEY: Final = 0  # -1: free
_MISC: Final = 1  # from the top: 28 bits, the next record of its bucket; 18 queue; 1 timestamps on; 16 window
_LINKS: Final = 2  # the records before (upper half) and after it in its queue
_EXPIRES: Final = 3
_SEQS: Final = 4  # SND.NXT above RCV.NXT
_STAMPS: Final = 5  # TS.Recent above our last TSval

_FREE: Final = -1
_NONE: Final = 0xFFFFFFF  # no record: their numbers have 28 bits
_CHAIN_SHIFT: Final = 35
_BELOW_CHAIN: Final = 0x7FFFFFFFF
_QUEUE_SHIFT: Final = 17
_MAX_QUEUES: Final = 1 << 18
_TS_ON: Final = 1 << 16

_PAGE_BITS: Final = 10
_PAGE: Final = 1024  # records
_REFILL: Final = 768  # a page with as many live records or fewer is filled again

_GROUP_BITS: Final = 12
_GROUP: Final = 4096  # buckets allocated together; the table never has fewer

_OVERHEAD: Final = 40  # bytes beside each page and group: the header of its array, the reference to it


@final
class TimeWaitTable:
    """TIME-WAIT records by key, and in the order in which they expire.

    A key is ``path << 32 | local_port << 16 | remote_port``. Instants and durations are nanoseconds. A handle, which
    is what ``find`` returns, is good until the table changes next; ``update`` does not count as a change. ``seed`` is
    a secret: without it nobody can choose ports that collide in the hash table.
    """

    def __init__(self, seed: int) -> None:
        self._seed: int = seed
        self._records: _Records = _Records()
        self._buckets: _Buckets = _Buckets(self._records, seed)
        self._expiry: _Expiry = _Expiry(self._records)

    def __len__(self) -> int:
        return self._records.count

    def insert(
        self,
        key: i64,
        snd_nxt: i64,
        rcv_nxt: i64,
        rcv_wnd: i64,
        ts_on: bool,
        ts_recent: i64,
        ts_last: i64,
        now: i64,
        duration: i64,
    ) -> None:
        """Start 2MSL, which is ``duration``, for a connection; an older record of the same key is replaced.

        ``rcv_wnd`` is the 16-bit field as sent on the wire, ``ts_last`` the last TSval sent.
        Raises OverflowError at 2**28 records, and at 2**18 different durations at a time.
        """
        old = self.find(key)
        if old >= 0:
            self.remove(old)
        queue = self._expiry.queue(duration)
        record = self._records.take()
        misc = (queue.number << _QUEUE_SHIFT) | (rcv_wnd & 0xFFFF)
        if ts_on:
            misc |= _TS_ON
        self._records.fill(record, key, _pair(snd_nxt, rcv_nxt), _pair(ts_recent, ts_last), misc)
        self._expiry.add(queue, record, now)
        self._buckets.add(record)

    def find(self, key: i64) -> i64:
        """The handle of a key's record, -1 if there is none."""
        return self._buckets.find(key)

    def snd_nxt(self, record: i64) -> i64:
        return (self._records.get(record, _SEQS) >> 32) & MASK

    def rcv_nxt(self, record: i64) -> i64:
        return self._records.get(record, _SEQS) & MASK

    def rcv_wnd(self, record: i64) -> i64:
        return self._records.get(record, _MISC) & 0xFFFF

    def ts_on(self, record: i64) -> bool:
        return self._records.get(record, _MISC) & _TS_ON != 0

    def ts_recent(self, record: i64) -> i64:
        return (self._records.get(record, _STAMPS) >> 32) & MASK

    def ts_last(self, record: i64) -> i64:
        return self._records.get(record, _STAMPS) & MASK

    def expires_at(self, record: i64) -> i64:
        return self._records.get(record, _EXPIRES)

    def update(self, record: i64, ts_recent: i64, ts_last: i64) -> None:
        self._records.set(record, _STAMPS, _pair(ts_recent, ts_last))

    def restart(self, record: i64, now: i64) -> None:
        """Start 2MSL anew, of the same duration (RFC 9293 3.10.7.4, eighth)."""
        queue = self._expiry.queue_of(record)
        self._expiry.discard(queue, record)
        self._expiry.add(queue, record, now)

    def remove(self, record: i64) -> None:
        self._buckets.discard(record)
        queue = self._expiry.queue_of(record)
        self._expiry.discard(queue, record)
        self._expiry.release(queue)
        self._records.give_back(record)
        if self._records.count == 0 and len(self._records.pages) > 1:
            self.clear()  # which gives back what has grown with the number of pages

    def next_deadline(self) -> i64:
        """When the next record expires, -1 when there is none."""
        return self._expiry.next_deadline()

    def pop_expired(self, now: i64) -> i64:
        """Remove one record with expires_at <= now, the one that expired first; its key, -1 if there is none."""
        if self._records.count == 0 or self._expiry.next_deadline() > now:
            return -1
        return self.pop_oldest()

    def pop_oldest(self) -> i64:
        """Remove the record that would expire first; its key, -1 when there is none."""
        if self._records.count == 0:
            return -1
        record = self._expiry.first()
        key = self._records.get(record, _KEY)
        self.remove(record)
        return key

    def keys(self) -> list[int]:
        """The keys of all records, in no particular order."""
        return self._records.keys()

    def clear(self) -> None:
        self._records = _Records()
        self._buckets = _Buckets(self._records, self._seed)
        self._expiry = _Expiry(self._records)

    def memory(self) -> i64:
        """Bytes held by the packed arrays."""
        return self._records.memory() + self._buckets.memory()


def _pair(upper: i64, lower: i64) -> i64:
    """Two 32-bit numbers in one signed 64-bit word."""
    return ((((upper & MASK) ^ 0x80000000) - 0x80000000) << 32) | (lower & MASK)


@final
class _Records:
    """The records, by number. New ones go to one page, to its free places in turn, until there are none left."""

    def __init__(self) -> None:
        self.count: i64 = 0
        self.pages: vec[vec[i64]] = vec[vec[i64]]([_empty_page()])
        self._live: vec[i32] = vec[i32]([0])  # records in each page
        self._filling: i64 = 0  # the page for new records
        self._cursor: i64 = 0  # where in it to look for a free place
        # All other pages with _REFILL live records or fewer. Those that have none are empty vectors.
        self._refill: vec[i32] = vec[i32]()

    def get(self, record: i64, word: i64) -> i64:
        return self.pages[record >> _PAGE_BITS][(record & (_PAGE - 1)) * _WORDS + word]

    def set(self, record: i64, word: i64, value: i64) -> None:
        self.pages[record >> _PAGE_BITS][(record & (_PAGE - 1)) * _WORDS + word] = value

    def fill(self, record: i64, key: i64, seqs: i64, stamps: i64, misc: i64) -> None:
        page = self.pages[record >> _PAGE_BITS]
        at = (record & (_PAGE - 1)) * _WORDS
        page[at] = key
        page[at + _SEQS] = seqs
        page[at + _STAMPS] = stamps
        page[at + _MISC] = misc

    def take(self) -> i64:
        """A free record, to be given its key next."""
        page = self.pages[self._filling]
        while self._cursor == _PAGE or page[self._cursor * _WORDS] != _FREE:
            if self._cursor == _PAGE:
                self._next_page()
                page = self.pages[self._filling]
            else:
                self._cursor += 1
        record = (self._filling << _PAGE_BITS) | self._cursor
        self._cursor += 1
        self._live[self._filling] += 1
        self.count += 1
        return record

    def give_back(self, record: i64) -> None:
        self.set(record, _KEY, _FREE)
        self.count -= 1
        number = record >> _PAGE_BITS
        self._live[number] -= 1
        live = self._live[number]
        if number != self._filling:
            if live == _REFILL:
                self._refill = append(self._refill, i32(number))
            elif live == 0:
                self.pages[number] = vec[i64]()

    def keys(self) -> list[int]:
        found: list[int] = []
        for page in self.pages:
            at: i64
            for at in range(0, len(page), _WORDS):
                if page[at] != _FREE:
                    found.append(page[at])
        return found

    def memory(self) -> i64:
        held: i64 = 4 * (len(self._live) + len(self._refill))
        for page in self.pages:
            held += 8 * len(page) + _OVERHEAD
        return held

    def _next_page(self) -> None:
        if self._live[self._filling] <= _REFILL:
            self._refill = append(self._refill, i32(self._filling))
        self._cursor = 0
        if len(self._refill) > 0:
            self._refill, number = pop(self._refill)
            self._filling = i64(number)
            if len(self.pages[self._filling]) == 0:
                self.pages[self._filling] = _empty_page()
            return
        if len(self.pages) == _NONE >> _PAGE_BITS:
            raise OverflowError("too many TIME-WAIT records")
        self._filling = len(self.pages)
        self.pages = append(self.pages, _empty_page())
        self._live = append(self._live, i32(0))


def _empty_page() -> vec[i64]:
    return vec[i64]([_FREE] * (_PAGE * _WORDS))


@final
class _Buckets:
    """Records by key. Buckets are numbered; the last ones are those that were split off most recently."""

    def __init__(self, records: _Records, seed: int) -> None:
        self._records: _Records = records
        self._multiplier: i64 = odd_number(seed)
        self._multiplier_2: i64 = odd_number(seed + 1)
        self._groups: vec[vec[i32]] = vec[vec[i32]]([_empty_group()])  # the first record of each bucket
        self._size: i64 = _GROUP  # buckets
        self._mask: i64 = _GROUP - 1  # all ones, at least _size - 1

    def find(self, key: i64) -> i64:
        bucket = self._bucket(key)
        first: int = self._groups[bucket >> _GROUP_BITS][bucket & (_GROUP - 1)]  # ``_first``, without the call
        record: i64 = first
        while record != _NONE:
            if self._records.get(record, _KEY) == key:
                return record
            record = self._after(record)
        return -1

    def add(self, record: i64) -> None:
        self._chain(record)
        # Half full: a record looked at in vain is not in the processor's cache, and costs more than all of this.
        while self._size < 2 * self._records.count:
            self._split()

    def discard(self, record: i64) -> None:
        bucket = self._bucket(self._records.get(record, _KEY))
        before = self._first(bucket)
        if before == record:
            self._set_first(bucket, self._after(record))
        else:
            while self._after(before) != record:
                before = self._after(before)
            self._set_after(before, self._after(record))
        while self._size > 3 * self._records.count and self._size > _GROUP:
            self._merge()

    def memory(self) -> i64:
        return len(self._groups) * (4 * _GROUP + _OVERHEAD)

    def _bucket(self, key: i64) -> i64:
        # Two multiplications by secret numbers, of which the upper half of 64 bits counts: the first spreads all of
        # the key over 32 bits, the second makes of these bits of which the lowest are as good as any.
        mixed = (key ^ (key * self._multiplier >> 32)) & MASK
        mixed ^= mixed >> 16
        bucket = (mixed * self._multiplier_2 >> 32) & self._mask
        if bucket >= self._size:
            bucket &= self._mask >> 1  # not split off yet
        return bucket

    def _split(self) -> None:
        """One bucket more: it gets its share of an older one's records."""
        new = self._size
        if new > self._mask:
            self._mask = 2 * self._mask + 1
        if new & (_GROUP - 1) == 0:
            self._groups = append(self._groups, _empty_group())
        record = self._detach(new & (self._mask >> 1))
        self._size = new + 1
        self._chain_all(record)

    def _merge(self) -> None:
        """One bucket less: its records go back to the one it was split off from."""
        last = self._size - 1
        record = self._detach(last)
        if last & (_GROUP - 1) == 0:
            self._groups, _ = pop(self._groups)
        if last == (self._mask >> 1) + 1:
            self._mask >>= 1
        self._size = last
        self._chain_all(record)

    def _detach(self, bucket: i64) -> i64:
        record = self._first(bucket)
        self._set_first(bucket, _NONE)
        return record

    def _chain_all(self, record: i64) -> None:
        while record != _NONE:
            after = self._after(record)
            self._chain(record)
            record = after

    def _chain(self, record: i64) -> None:
        bucket = self._bucket(self._records.get(record, _KEY))
        self._set_after(record, self._first(bucket))
        self._set_first(bucket, record)

    def _first(self, bucket: i64) -> i64:
        record: int = self._groups[bucket >> _GROUP_BITS][bucket & (_GROUP - 1)]  # interpreted, i64(...) is slow
        return record

    def _set_first(self, bucket: i64, record: i64) -> None:
        number: int = record
        self._groups[bucket >> _GROUP_BITS][bucket & (_GROUP - 1)] = number

    def _after(self, record: i64) -> i64:
        return self._records.get(record, _MISC) >> _CHAIN_SHIFT

    def _set_after(self, record: i64, after: i64) -> None:
        misc = self._records.get(record, _MISC) & _BELOW_CHAIN
        self._records.set(record, _MISC, (after << _CHAIN_SHIFT) | misc)


def _empty_group() -> vec[i32]:
    return vec[i32]([i32(_NONE)] * _GROUP)


def odd_number(seed: int) -> int:
    """63 pseudo-random bits of which the last is set (splitmix64)."""
    mask = 0xFFFFFFFFFFFFFFFF
    z = (seed + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 1) | 1


@final
class _Queue:
    """The records of one duration, by expiry."""

    def __init__(self, number: i64) -> None:
        self.number: i64 = number
        self.duration: i64 = 0
        self.first: i64 = _NONE
        self.last: i64 = _NONE
        self.expires_at: i64 = 0  # that of its first record
        self.place: i64 = -1  # in the heap, -1 while there is no record


@final
class _Expiry:
    """Records by when they expire."""

    def __init__(self, records: _Records) -> None:
        self._records: _Records = records
        self._queues: list[_Queue] = []  # by number
        self._unused: list[_Queue] = []
        self._by_duration: dict[int, _Queue] = {}
        self._last: _Queue | None = None  # that was asked for: mostly the next one too
        self._heap: list[_Queue] = []  # those with records, by their ``expires_at``

    def next_deadline(self) -> i64:
        if len(self._heap) == 0:
            return -1
        return self._heap[0].expires_at

    def first(self) -> i64:
        """The record that expires first; there is one."""
        return self._heap[0].first

    def queue(self, duration: i64) -> _Queue:
        """The queue of a duration, for a record to be added next."""
        queue = self._last
        if queue is not None and queue.duration == duration and queue.first != _NONE:
            return queue
        queue = self._by_duration.get(duration)
        if queue is not None:
            self._last = queue
            return queue
        if self._unused:
            queue = self._unused.pop()
        elif len(self._queues) < _MAX_QUEUES:
            queue = _Queue(len(self._queues))
            self._queues.append(queue)
        else:
            raise OverflowError(f"more than {_MAX_QUEUES} different TIME-WAIT durations at a time")
        queue.duration = duration
        self._by_duration[duration] = queue
        return queue

    def queue_of(self, record: i64) -> _Queue:
        return self._queues[(self._records.get(record, _MISC) >> _QUEUE_SHIFT) & (_MAX_QUEUES - 1)]

    def add(self, queue: _Queue, record: i64, now: i64) -> None:
        """Put a record at the end of a queue, or before records that expire later because ``now`` has gone back."""
        expires_at = now + queue.duration
        self._records.set(record, _EXPIRES, expires_at)
        before = queue.last
        after: i64 = _NONE
        while before != _NONE and self._records.get(before, _EXPIRES) > expires_at:
            after = before
            before = self._records.get(before, _LINKS) >> 32
        self._link(queue, before, record)
        self._link(queue, record, after)
        if before == _NONE:
            self._update_heap(queue)

    def discard(self, queue: _Queue, record: i64) -> None:
        links = self._records.get(record, _LINKS)
        before = links >> 32
        self._link(queue, before, links & MASK)
        if before == _NONE:
            self._update_heap(queue)

    def release(self, queue: _Queue) -> None:
        """Give up a queue if it has no records any more."""
        if queue.first == _NONE:
            del self._by_duration[queue.duration]
            self._unused.append(queue)

    def _link(self, queue: _Queue, before: i64, after: i64) -> None:
        """Make two records neighbours; _NONE stands for the end of the queue on that side."""
        records = self._records
        if before == _NONE:
            queue.first = after
        else:
            records.set(before, _LINKS, (records.get(before, _LINKS) & ~MASK) | after)
        if after == _NONE:
            queue.last = before
        else:
            records.set(after, _LINKS, (before << 32) | (records.get(after, _LINKS) & MASK))

    def _update_heap(self, queue: _Queue) -> None:
        """The first record of ``queue`` is another one, or there is none: move it to its place, or take it out."""
        heap = self._heap
        if queue.first != _NONE:
            queue.expires_at = self._records.get(queue.first, _EXPIRES)
            if queue.place < 0:
                queue.place = len(heap)
                heap.append(queue)
            _sift(heap, queue)
        else:
            last = heap.pop()
            if last is not queue:
                last.place = queue.place
                _sift(heap, last)
            queue.place = -1


def _sift(heap: list[_Queue], queue: _Queue) -> None:
    """Move a queue up or down from ``queue.place`` to where it belongs."""
    place = queue.place
    size: i64 = len(heap)
    while place > 0:
        parent = (place - 1) >> 1
        if heap[parent].expires_at <= queue.expires_at:
            break
        heap[place] = heap[parent]
        heap[place].place = place
        place = parent
    while True:
        child = 2 * place + 1
        if child + 1 < size and heap[child + 1].expires_at < heap[child].expires_at:
            child += 1
        if child >= size or heap[child].expires_at >= queue.expires_at:
            break
        heap[place] = heap[child]
        heap[place].place = place
        place = child
    heap[place] = queue
    queue.place = place


if hasattr(TimeWaitTable.find, "__code__"):
    # Interpreted. What packed numbers save, computing with them costs many times over
    import utcp.core.interpreted_time_wait  # noqa: F401  (puts its own in place of ours)
