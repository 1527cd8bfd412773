"""The live connections of an engine: by key, for every segment that arrives, and by slot, for timers and trains.

Keys lie in an open-addressed table of packed integers, at most half full. A dict would box the key of every segment
and compare objects: five times the instructions, where a lifecycle has ten look-ups and changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from librt.vecs import append, vec
from mypy_extensions import i32, i64

from utcp.core.time_wait_table import odd_number

if TYPE_CHECKING:
    from utcp.core.tcb import Tcb

_FREE: Final = -1
_FIRST_SIZE: Final = 64
NEVER: Final = 1 << 61  # utcp.core.stack's


@final
class ConnectionTable:
    """A key is ``path << 32 | local_port << 16 | remote_port``; a slot is a small number, used again.

    ``armed`` has, for each free slot, the deadline of the timer-wheel entry that its last connection left behind:
    the next one to have the slot need not insert an entry as long as that one wakes it early enough. ``seed`` is a
    secret: without it nobody can choose ports that collide.
    """

    def __init__(self, seed: int) -> None:
        self._multiplier: i64 = odd_number(seed)
        self.slots: list[Tcb | None] = []
        self.armed: vec[i64] = vec[i64]()
        self._free_slots: vec[i32] = vec[i32]()  # a stack with as many places as there are slots
        self._free_count: i64 = 0
        self._count: i64 = 0
        self._size: i64 = _FIRST_SIZE  # places, a power of two
        self._keys: vec[i64] = vec[i64]([_FREE] * _FIRST_SIZE)
        self._slot_of: vec[i32] = vec[i32]([i32(0)] * _FIRST_SIZE)  # by place

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: i64) -> bool:
        return self._keys[self._place(key)] == key

    def get(self, key: i64) -> Tcb | None:
        place = self._place(key)
        if self._keys[place] != key:
            return None
        return self.slots[self._slot_of[place]]

    def values(self) -> list[Tcb]:
        """All of them, by slot."""
        return [tcb for tcb in self.slots if tcb is not None]

    def add(self, tcb: Tcb) -> None:
        """Give a connection, whose key is not in the table, its slot."""
        slot: i64
        if self._free_count > 0:
            self._free_count -= 1
            free: int = self._free_slots[self._free_count]  # not i64(...), which is slow where it is interpreted
            slot = free
            self.slots[slot] = tcb
            tcb.armed_at = self.armed[slot]
        else:
            slot = len(self.slots)
            self.slots.append(tcb)
            self.armed = append(self.armed, NEVER)
            self._free_slots = append(self._free_slots, i32(0))
        tcb.slot = slot
        self._count += 1
        if 2 * self._count > self._size:
            self._resize(2 * self._size)
        self._put(tcb.key, slot)

    def remove(self, tcb: Tcb) -> None:
        slot = tcb.slot
        self.slots[slot] = None
        self.armed[slot] = tcb.armed_at
        free: int = slot
        self._free_slots[self._free_count] = free
        self._free_count += 1
        self._count -= 1
        self._discard(self._place(tcb.key))

    def _home(self, key: i64) -> i64:
        """Where the search for a key begins: bits of a product to which the ports and the path contribute."""
        return (key * self._multiplier >> 32) & (self._size - 1)

    def _place(self, key: i64) -> i64:
        """The place of a key, or the free one where it would be."""
        keys = self._keys
        last = self._size - 1
        place = (key * self._multiplier >> 32) & last  # its home
        found = keys[place]
        while found != key and found != _FREE:  # noqa: PLR1714 - a set or a tuple would be made of boxed numbers
            place = (place + 1) & last
            found = keys[place]
        return place

    def _put(self, key: i64, slot: i64) -> None:
        place = self._place(key)
        number: int = slot
        self._keys[place] = key
        self._slot_of[place] = number

    def _discard(self, gap: i64) -> None:
        """Free a place; those behind it move up, so that every search still ends where it should."""
        keys = self._keys
        last = self._size - 1
        place = gap
        while True:
            place = (place + 1) & last
            key = keys[place]
            if key == _FREE:
                break
            if ((place - self._home(key)) & last) >= ((place - gap) & last):
                keys[gap] = key
                self._slot_of[gap] = self._slot_of[place]
                gap = place
        keys[gap] = _FREE

    def _resize(self, size: i64) -> None:
        keys = self._keys
        slot_of = self._slot_of
        self._size = size
        self._keys = vec[i64]([_FREE] * int(size))
        self._slot_of = vec[i32]([i32(0)] * int(size))
        i: i64
        for i in range(len(keys)):
            if keys[i] != _FREE:
                self._put(keys[i], i64(slot_of[i]))


if hasattr(ConnectionTable.get, "__code__"):
    # Interpreted. What packed numbers save, computing with them costs many times over
    import utcp.core.interpreted  # noqa: F401  (puts its own in place of ours)
