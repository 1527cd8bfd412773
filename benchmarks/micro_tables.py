"""What the engine's timer wheel and TIME-WAIT table cost: nanoseconds per operation, bytes per record, pauses.

    python -m benchmarks.micro_tables [--records 1000000] [--rounds 3] [--json]

Times are processor time, and of the rounds the best: also of the longest pauses, because one that lies in the tables
comes in every round. All include the interpreter's call from here (first line, for comparison), which a compiled
engine does not pay. Whether the tables are compiled depends on what is installed; the output says so.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from time import process_time_ns

from utcp.core import time_wait_table, timers
from utcp.core.time_wait_table import TimeWaitTable
from utcp.core.timers import TimerWheel

MILLISECOND = 1_000_000
START = 10**15  # what a monotonic clock may say
MSL2 = 60_000 * MILLISECOND
BATCH = 1000  # operations between two looks at the clock

Figures = dict[str, float]


def elapsed(calls: Iterable[object]) -> int:
    """Nanoseconds to go through an iterator, such as a ``map`` of the calls to be measured."""
    began = process_time_ns()
    deque(calls, maxlen=0)
    return process_time_ns() - began


def measure_call(count: int) -> Figures:
    return {"an empty call, ns": elapsed(map(int.bit_length, range(count))) / count}


def measure_wheel(count: int) -> Figures:
    """A million entries a second, due after 40, 200 (most) and 1000 ms, collected every millisecond: 1000 at a time."""
    timeouts = [random.Random(1).choice([40, 200, 200, 200, 1000]) * MILLISECOND for _ in range(BATCH)]
    wheel = TimerWheel()
    now = START
    wheel.collect(now)
    inserting = collecting = worst = 0
    collected = 0
    for first in range(0, count + 1000 * BATCH, BATCH):  # and another second, for the last to come due
        if first < count:
            deadlines = [now + 1000 * i + timeouts[i] for i in range(BATCH)]
            inserting += elapsed(map(wheel.insert, deadlines, range(BATCH)))
        now += MILLISECOND
        began = process_time_ns()
        collected += wheel.collect(now)
        took = process_time_ns() - began
        collecting += took
        worst = max(worst, took)
    return {
        "wheel: insert, ns": inserting / count,
        "wheel: collect, ns per entry": collecting / collected,
        "wheel: longest collect, ms": worst / 1e6,
    }


def measure_table(count: int) -> Figures:
    rng = random.Random(1)
    keys = [rng.randrange(4) << 32 | ports for ports in rng.sample(range(1 << 32), count)]
    # The same in another order, and keys that are not there: new integers, so that they themselves lie in order.
    shuffled = [key ^ 0 for key in rng.sample(keys, count)]
    absent = [key | 1 << 40 for key in shuffled]
    later = [key | 1 << 41 for key in keys]
    table = TimeWaitTable(rng.getrandbits(63))
    starts = range(START, START + 1000 * count, 1000)  # a million a second
    again = range(starts.stop, starts.stop + count)
    figures: Figures = {
        "table: insert, growing from nothing, ns": insert_all(table, keys, starts) / count,
        "table: bytes per record": int(table.memory()) / count,
        "table: find, ns": elapsed(map(table.find, shuffled)) / count,
        "table: find in vain, ns": elapsed(map(table.find, absent)) / count,
        "table: find + restart 2MSL, ns": elapsed(map(table.restart, map(table.find, keys), again)) / count,
    }
    now = again.start + MSL2
    popping = inserting = worst = 0
    for first in range(0, count, BATCH):  # as many come as go
        now += BATCH
        took = pop_batch(table, now)
        popping += took
        worst = max(worst, took)
        inserting += insert_all(table, later[first : first + BATCH], repeat(now))
    figures["table: insert, full, ns"] = inserting / count
    figures["table: expire, full, ns"] = popping / count
    popping = 0
    while len(table):
        took = pop_batch(table, now + MSL2)
        popping += took
        worst = max(worst, took)
    figures["table: expire, shrinking to nothing, ns"] = popping / count
    figures[f"table: longest batch of {BATCH} expiries, ms"] = worst / 1e6
    figures["table: bytes afterwards"] = int(table.memory())
    return figures


def insert_all(table: TimeWaitTable, keys: list[int], starts: Iterable[int]) -> int:
    fields = (repeat(1), repeat(2), repeat(3), repeat(True), repeat(4), repeat(5))
    return elapsed(map(table.insert, keys, *fields, starts, repeat(MSL2)))


def pop_batch(table: TimeWaitTable, now: int) -> int:
    return elapsed(map(table.pop_expired, repeat(now, BATCH)))


def best(measure: Callable[[int], Figures], count: int, rounds: int) -> Figures:
    found: Figures = {}
    for _ in range(rounds):
        gc.collect()
        for name, value in measure(count).items():
            found[name] = min(found.get(name, value), value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--records", type=int, default=1_000_000, metavar="N", help="live records (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="repetitions (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    gc.disable()  # the lists of integers made here are none of the tables' business
    compiled = all(not str(module.__file__).endswith(".py") for module in (timers, time_wait_table))
    figures: Figures = {}
    for measure in (measure_call, measure_wheel, measure_table):
        figures |= best(measure, options.records, options.rounds)
    if options.json:
        print(json.dumps({"compiled": compiled, "records": options.records, **figures}))
        return
    print(f"{'compiled' if compiled else 'interpreted'}, {options.records:,} records")
    for name, value in figures.items():
        print(f"{name:45} {value:12,.1f}")


if __name__ == "__main__":
    main()
