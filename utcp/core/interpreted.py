"""The table of connections for Python that is interpreted: a dict.

There a look-up by a dict is one call into C, while the packed table of ``utcp.core.connection_table`` computes with
numbers of 128 bits. When it is imported this one is put in its place; slots are given out in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from utcp.core import connection_table

if TYPE_CHECKING:
    from utcp.core.tcb import Tcb

PACKED: Final = connection_table.ConnectionTable  # what is replaced


@final
class DictTable:
    """As ``ConnectionTable``. No seed: of a key, remote port and path are for strangers to choose, and no more than a
    few of the numbers that they can make collide in a dict."""

    def __init__(self, seed: int) -> None:
        self.slots: list[Tcb | None] = []
        self.armed: list[int] = []
        self._free_slots: list[int] = []
        self._by_key: dict[int, Tcb] = {}
        self.get: Callable[[int], Tcb | None] = self._by_key.get  # as a method it would be a call more for each segment

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: int) -> bool:
        return key in self._by_key

    def values(self) -> list[Tcb]:
        return [tcb for tcb in self.slots if tcb is not None]

    def add(self, tcb: Tcb) -> None:
        if self._free_slots:
            slot = self._free_slots.pop()
            self.slots[slot] = tcb
            tcb.armed_at = self.armed[slot]
        else:
            slot = len(self.slots)
            self.slots.append(tcb)
            self.armed.append(connection_table.NEVER)
        tcb.slot = slot
        self._by_key[tcb.key] = tcb

    def remove(self, tcb: Tcb) -> None:
        slot = tcb.slot
        self.slots[slot] = None
        self.armed[slot] = tcb.armed_at
        self._free_slots.append(slot)
        del self._by_key[tcb.key]


if hasattr(PACKED.get, "__code__"):  # else it is compiled. Here, so that either module may be imported first
    vars(connection_table)["ConnectionTable"] = DictTable
