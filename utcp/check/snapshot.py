"""Freezing a world, so that several futures can start from it: pickled, without the large empty tables.

The compiled engine's objects cannot be pickled: there a world is made again by replaying its schedule.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable
from typing import Any

from librt.vecs import vec
from mypy_extensions import i32, i64

import utcp
from utcp.check.world import World
from utcp.core.config import Config
from utcp.core.policy import Policy
from utcp.core.ports import PortRing
from utcp.core.stack import NEVER
from utcp.core.time_wait_table import TimeWaitTable
from utcp.core.timers import TimerWheel

CAN_FREEZE = not utcp.__compiled__


def freeze(world: World) -> bytes:
    """Everything that distinguishes ``world``, as bytes; it is not usable any more."""
    waiting = [_lift(end.engine.stack) for end in world.ends]
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, -1)
    pickler.dispatch_table = _REDUCERS
    pickler.dump((world.__dict__, waiting))
    return buffer.getvalue()


def thaw(frozen: bytes, kind: type[World]) -> World:
    """The world again, as a new object of class ``kind``."""
    state, waiting = pickle.loads(frozen)
    world = kind.__new__(kind)
    world.__dict__.update(state)
    for end, (armed, records) in zip(world.ends, waiting, strict=True):
        stack: Any = end.engine.stack
        stack.wheel = _wheels.pop() if _wheels else TimerWheel()
        for at, slot in armed:
            stack.wheel.insert(at, slot)
        stack.time_wait = _tables.pop() if _tables else TimeWaitTable(0)
        for record in records:
            stack.time_wait.insert(*record)
    return world


# Used again, for making one costs more than all the rest. A wheel that stands at the end of time is as good as a
# new one: what is late it keeps in order.
_wheels: list[TimerWheel] = []
_tables: list[TimeWaitTable] = []

_Record = tuple[int, int, int, int, bool, int, int, int, int]


def _lift(stack: Any) -> tuple[list[tuple[int, int]], list[_Record]]:
    """Take the timer wheel and the TIME-WAIT table out; what is in them, as their ``insert`` takes it."""
    connections = stack.connections
    armed = [
        (connections.armed[slot] if tcb is None else tcb.armed_at, slot) for slot, tcb in enumerate(connections.slots)
    ]
    table: TimeWaitTable = stack.time_wait
    duration = 2 * stack.policy.msl
    records = []
    for key in table.keys() if len(table) else ():
        r = table.find(key)
        at = table.expires_at(r) - duration
        stamps = table.ts_on(r), table.ts_recent(r), table.ts_last(r)
        records.append((key, table.snd_nxt(r), table.rcv_nxt(r), table.rcv_wnd(r), *stamps, at, duration))
    if records:
        table.clear()
    stack.wheel.collect(NEVER)
    _wheels.append(stack.wheel)
    _tables.append(table)
    stack.wheel = stack.time_wait = None
    return armed, records


_shared: dict[int, Config | Policy] = {}


def _share(one: Config | Policy) -> tuple[Callable[[int], Config | Policy], tuple[int]]:
    """What never changes is not copied."""
    _shared[id(one)] = one
    return _shared_one, (id(one),)


def _shared_one(number: int) -> Config | Policy:
    return _shared[number]


def _i32s(numbers: list[int]) -> vec[i32]:
    return vec[i32](numbers)


def _i64s(numbers: list[int]) -> vec[i64]:
    return vec[i64](numbers)


_REDUCERS: dict[type, Callable[[Any], Any]] = {
    **copyreg.dispatch_table,
    Config: _share,
    Policy: _share,
    PortRing: lambda ring: (PortRing, (ring._secret,)),
    vec[i32]: lambda numbers: (_i32s, (list(numbers),)),
    vec[i64]: lambda numbers: (_i64s, (list(numbers),)),
}
