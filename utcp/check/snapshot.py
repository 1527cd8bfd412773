"""Saving a world, so that several futures can start from it: what each of its objects holds, and putting that back.

The objects stay who they are, so it works on the compiled engine's too, which can be neither pickled nor copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from operator import attrgetter, is_not
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final

from librt.vecs import vec
from mypy_extensions import i32, i64

from utcp.check.scenarios import Scenario
from utcp.check.world import Flying, World
from utcp.core.config import Config
from utcp.core.congestion.control import Ack
from utcp.core.counters import Counters
from utcp.core.policy import Policy
from utcp.core.stack import NEVER, Stack
from utcp.core.time_wait_table import TimeWaitTable
from utcp.core.timers import TimerWheel
from utcp.core.trains import Train
from utcp.wire.segment import Segment

# What never changes, is filled anew before each use, has left the engine or only counts. The tables are saved with
# their stack, by what is in them; arrays with the object that has them.
_ATOMS: Final = (
    *(int, float, str, bytes, memoryview, type(None), type, Enum, BaseException, FunctionType, BuiltinFunctionType),
    *(Scenario, Flying, Config, Policy, Segment, Ack, Train, Counters),
    *(TimerWheel, TimeWaitTable, vec[i32], vec[i64]),
)


def save(world: World, before: Iterable[Part] = ()) -> Saved:
    """Everything that distinguishes ``world`` from what may become of it.

    ``before``: what was saved of the same world at another time. Of what has not changed there is one copy.
    """
    known = {id(part.one): part for part in before}
    saved: dict[int, Part] = {}
    waiting: list[Any] = [world]
    while waiting:
        one = waiting.pop()
        if id(one) in saved:
            continue
        part = known.get(id(one))
        if part is None or part.changed():
            part = _PARTS.get(type(one), Attributes)(one)
        saved[id(one)] = part
        waiting += part.inside
    return list(saved.values())


def restore(saved: Saved) -> None:
    """Make the world what it was when this was saved, as often as you like."""
    for part in saved:
        if part.changed():
            part.put_back()


class Part:
    """What one object holds."""

    __slots__ = ("held", "inside", "one")

    def __init__(self, one: Any, held: Any, values: Iterable[Any]) -> None:
        self.one, self.held = one, held
        self.inside = [value for value in values if not _is_atom(type(value))]

    def changed(self) -> bool:
        """Whether it holds something else by now; True if that cannot be told."""
        return True

    def put_back(self) -> None:
        raise NotImplementedError


Saved = list[Part]


def _is_atom(kind: type) -> bool:
    found = _atomic.get(kind)
    if found is None:
        found = _atomic[kind] = issubclass(kind, _ATOMS)
    return found


_atomic: dict[type, bool] = {}


class Attributes(Part):
    """An object's attributes, compiled, in slots or in its dict."""

    __slots__ = ("look", "names", "objects", "packed")

    def __init__(self, one: Any) -> None:
        kind = type(one), tuple(vars(one)) if hasattr(one, "__dict__") else ()
        self.names, self.look = _readers.get(kind) or _learn(*kind)
        held = self.look(one)
        super().__init__(one, held, held)
        self.objects = [i for i, value in enumerate(held) if not _is_atom(type(value))]
        # Arrays are changed in their place, and a copy takes it
        self.packed = [(name, held[i][:]) for i, name in enumerate(self.names) if type(held[i]) in (vec[i32], vec[i64])]

    def changed(self) -> bool:
        now, held = self.look(self.one), self.held
        return bool(self.packed) or now != held or any(now[i] is not held[i] for i in self.objects)

    def put_back(self) -> None:
        for name, value in zip(self.names, self.held, strict=True):
            setattr(self.one, name, value)
        for name, numbers in self.packed:
            setattr(self.one, name, numbers[:])


_Reader = tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]
_readers: dict[tuple[type, tuple[str, ...]], _Reader] = {}


def _learn(kind: type, in_dict: tuple[str, ...]) -> _Reader:
    """The names of an object's attributes, and a function that reads them all."""
    own = (vars(base) for base in kind.__mro__)
    slots = [name for base in own for name in (*base.get("__mypyc_attrs__", ()), *base.get("__slots__", ()))]
    names = tuple(dict.fromkeys(name for name in (*slots, *in_dict) if not name.startswith("__")))
    one_by_one = len(names) < 2  # attrgetter has a tuple only of several
    read = (lambda one: tuple(getattr(one, name) for name in names)) if one_by_one else attrgetter(*names)
    _readers[kind, in_dict] = names, read
    return names, read


class StackPart(Attributes):
    """With what is in the timer wheel and the TIME-WAIT table, as their ``insert`` takes it."""

    __slots__ = ("armed", "records")

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        connections, table, duration = stack.connections, stack.time_wait, 2 * stack.policy.msl
        self.armed = [
            (connections.armed[slot] if tcb is None else tcb.armed_at, slot)
            for slot, tcb in enumerate(connections.slots)
        ]
        self.records = []
        for key in table.keys() if len(table) else ():
            r = table.find(key)
            numbers = table.snd_nxt(r), table.rcv_nxt(r), table.rcv_wnd(r), table.ts_on(r), table.ts_recent(r)
            self.records.append((key, *numbers, table.ts_last(r), table.expires_at(r) - duration, duration))

    def changed(self) -> bool:
        return True

    def put_back(self) -> None:
        if super().changed():
            super().put_back()
        wheel, table = self.one.wheel, self.one.time_wait
        wheel.collect(NEVER)  # it then stands at the end of time, as good as new: what is late it keeps in order
        for at, slot in self.armed:
            wheel.insert(at, slot)
        if len(table):
            table.clear()
        for record in self.records:
            table.insert(*record)


class Sequence(Part):
    """What is in a list or a queue."""

    __slots__ = ()

    def __init__(self, one: Any) -> None:
        super().__init__(one, list(one), one)

    def changed(self) -> bool:
        return len(self.one) != len(self.held) or any(map(is_not, self.one, self.held))

    def put_back(self) -> None:
        self.one.clear()
        self.one.extend(self.held)


class Table(Part):
    """What is in a dict or a set."""

    __slots__ = ()

    def __init__(self, one: Any) -> None:
        super().__init__(one, one.copy(), one.values() if isinstance(one, dict) else one)

    def put_back(self) -> None:
        self.one.clear()
        self.one.update(self.held)


class Fixed(Part):
    """Always holds the same, which may change."""

    __slots__ = ()

    def __init__(self, one: Any) -> None:
        super().__init__(one, None, one if isinstance(one, tuple) else (one.__self__,))

    def changed(self) -> bool:
        return False


_PARTS: Final[dict[type, Callable[[Any], Part]]] = {
    Stack: StackPart,
    list: Sequence,
    deque: Sequence,
    dict: Table,
    set: Table,
    tuple: Fixed,
    MethodType: Fixed,
}
