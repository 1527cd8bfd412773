"""The table of TIME-WAIT records for Python that is interpreted: dicts of byte strings.

There the packed table of ``utcp.core.time_wait_table``, written for a compiler, took a seventh of the time of a client
that tears connections down. A record here is four times as large. When it is imported this table is put in the packed
one's place. Both do the same, but for the order of records of different durations that expire in the same instant, and
numbers must be in their range. A clock that goes back is expensive: all records of that duration are sorted.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush, heapreplace
from struct import Struct
from typing import Final, TypeAlias, final

from utcp.core import time_wait_table

PACKED: TypeAlias = time_wait_table.TimeWaitTable  # what is replaced

# Expiry, SND.NXT, RCV.NXT, window, whether timestamps are on, TS.Recent, last TSval
_RECORD: Final = Struct("<qIIHBII")
_EXPIRY: Final = Struct("<q")


@final
class DictTimeWait:
    """As ``TimeWaitTable``; a handle is the key itself. No seed: of a key, remote port and path are for strangers to
    choose, and no more than a few of the numbers that they can make collide in a dict."""

    def __init__(self, seed: int) -> None:
        self._durations: dict[int, int] = {}  # by key
        self._queues: dict[int, OrderedDict[int, bytes]] = {}  # by duration: records by key, the first to expire first
        self._heap: list[tuple[int, int]] = []  # for each queue when its first expires, or earlier; and its duration
        self._latest = 0  # when a 2MSL was last started

    def __len__(self) -> int:
        return len(self._durations)

    def insert(
        self,
        key: int,
        snd_nxt: int,
        rcv_nxt: int,
        rcv_wnd: int,
        ts_on: bool,
        ts_recent: int,
        ts_last: int,
        now: int,
        duration: int,
    ) -> None:
        if key in self._durations:
            self.remove(key)
        expires_at = now + duration
        queue = self._queues.get(duration)
        if queue is None:
            queue = self._queues[duration] = OrderedDict()
            heappush(self._heap, (expires_at, duration))
        self._durations[key] = duration
        queue[key] = _RECORD.pack(expires_at, snd_nxt, rcv_nxt, rcv_wnd & 0xFFFF, ts_on, ts_recent, ts_last)
        self._started(queue, now)

    def find(self, key: int) -> int:
        return key if key in self._durations else -1

    def snd_nxt(self, record: int) -> int:
        return self._read(record)[1]

    def rcv_nxt(self, record: int) -> int:
        return self._read(record)[2]

    def rcv_wnd(self, record: int) -> int:
        return self._read(record)[3]

    def ts_on(self, record: int) -> bool:
        return self._read(record)[4] != 0

    def ts_recent(self, record: int) -> int:
        return self._read(record)[5]

    def ts_last(self, record: int) -> int:
        return self._read(record)[6]

    def expires_at(self, record: int) -> int:
        return self._read(record)[0]

    def update(self, record: int, ts_recent: int, ts_last: int) -> None:
        self._queue_of(record)[record] = _RECORD.pack(*self._read(record)[:5], ts_recent, ts_last)

    def restart(self, record: int, now: int) -> None:
        duration = self._durations[record]
        queue = self._queues[duration]
        queue[record] = _EXPIRY.pack(now + duration) + queue[record][_EXPIRY.size :]
        queue.move_to_end(record)
        self._started(queue, now)

    def remove(self, record: int) -> None:
        del self._queues[self._durations.pop(record)][record]
        if not self._durations:
            self.clear()

    def next_deadline(self) -> int:
        heap = self._heap
        while heap:
            at, duration = heap[0]
            queue = self._queues[duration]
            if not queue:
                heappop(heap)
                del self._queues[duration]
                continue
            expires_at = _first_expiry(queue)
            if expires_at == at:
                return at
            heapreplace(heap, (expires_at, duration))
        return -1

    def pop_expired(self, now: int) -> int:
        return self._pop() if 0 <= self.next_deadline() <= now else -1

    def pop_oldest(self) -> int:
        return self._pop() if self.next_deadline() >= 0 else -1

    def _pop(self) -> int:
        """The first to expire, which ``next_deadline`` has put on top of the heap."""
        key, _ = self._queues[self._heap[0][1]].popitem(last=False)
        del self._durations[key]
        if not self._durations:
            self.clear()
        return key

    def keys(self) -> list[int]:
        return list(self._durations)

    def clear(self) -> None:
        self._durations.clear()
        self._queues.clear()
        self._heap.clear()
        self._latest = 0

    def memory(self) -> int:
        """Bytes held by the dicts and what is in them."""
        held: list[object] = [self._durations, self._queues, self._heap, *self._heap, *self._queues.values()]
        for queue in self._queues.values():
            held += [*queue.keys(), *queue.values()]
        return sum(one.__sizeof__() for one in held)

    def _queue_of(self, record: int) -> OrderedDict[int, bytes]:
        return self._queues[self._durations[record]]

    def _read(self, record: int) -> tuple[int, ...]:
        return _RECORD.unpack(self._queue_of(record)[record])

    def _started(self, queue: OrderedDict[int, bytes], now: int) -> None:
        """The last of ``queue`` has begun its 2MSL: it belongs there, unless the clock has gone back."""
        if now >= self._latest:
            self._latest = now
            return
        for key in sorted(queue, key=lambda key: self._read(key)[0]):
            queue.move_to_end(key)
        self._queues = {duration: queue for duration, queue in self._queues.items() if queue}
        self._heap = sorted((_first_expiry(queue), duration) for duration, queue in self._queues.items())


def _first_expiry(queue: OrderedDict[int, bytes]) -> int:
    expires_at: int
    (expires_at,) = _EXPIRY.unpack_from(next(iter(queue.values())))
    return expires_at


if hasattr(PACKED.find, "__code__"):  # else it is compiled. Here, so that either module may be imported first
    vars(time_wait_table)["TimeWaitTable"] = DictTimeWait
