"""Teardown at scale: a million TIME-WAIT records, 100,000 connections that drain at once, a flood of forged SYNs.

    python -m benchmarks.timewait [records] [drain] [flood] [--records 1000000] [--connections 100000]
                                  [--rate 4000] [--json]

All three by default. Records: what one takes, what it costs to make, find and expire, how long expiring holds up the
loop. The table by itself first, the calls to be measured made from here (`benchmarks.micro_tables` says more). Then an
engine whose peers open connections that it closes, by real segments, until so many wait. Half of them end while the
clock goes on in milliseconds, the others all at once, as after a blocked event loop. The pauses are single calls of
``handle_timeout``. The kernel's figure is what its slab allocator says, for root only.

Drain and flood are in `benchmarks.pressure`. The drain goes twice: for its time, and for its memory. Times are
processor time.
"""

from __future__ import annotations

import argparse
import gc
import json
from pathlib import Path
from time import process_time_ns

from benchmarks.micro_tables import BATCH, MILLISECOND, START, Figures, measure_table
from benchmarks.pressure import measure_drain, measure_flood
from utcp.core import engine as engine_module
from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.core.listener import Listener
from utcp.core.states import State
from utcp.wire.segment import ACK, FIN, SYN, Segment

PORTS = 60_000  # of each peer
SECOND = 1_000_000_000
SPACING = 1000  # nanoseconds between two connections: a million a second
MSL = 30.0
SLABINFO = Path("/proc/slabinfo")


def measure_engine(count: int) -> Figures:
    """Make ``count`` records by whole connections and let them end."""
    engine = Engine(Config(msl=MSL, max_time_wait=count), isn=lambda *_: 0)
    listener = engine.listen(80)
    began = process_time_ns()
    for number in range(count):
        whole_connection(engine, listener, number, START + number * SPACING)
        if number % BATCH == 0:
            engine.handle_timeout(START + number * SPACING)
    figures: Figures = {"engine: a connection from SYN to record, ns": (process_time_ns() - began) / count}
    assert engine.states()[State.TIME_WAIT] == count
    settle(engine, START + count * SPACING + SECOND)
    first, middle = (START + number * SPACING + round(2 * MSL * SECOND) for number in (0, count // 2))
    in_steps, leaps = [], []
    for now in range(first, middle, MILLISECOND):
        in_steps.append(timed_timeout(engine, now))
    while engine.time_wait_count:
        leaps.append(timed_timeout(engine, middle + count * SPACING))
    figures["engine: expiry, ns per record"] = sum(in_steps + leaps) / count
    figures["engine: longest handle_timeout, in steps of 1 ms, ms"] = max(in_steps, default=0) / 1e6
    figures["engine: longest handle_timeout, all at once, ms"] = max(leaps) / 1e6
    return figures


def whole_connection(engine: Engine, listener: Listener, number: int, now: int) -> None:
    """A peer's SYN, its ACK, our close, its FIN."""
    path = engine.path("us", number // PORTS)
    port = 1024 + number % PORTS
    engine.receive(path, Segment(port, 80, 100, 0, SYN, 65535).to_bytes(), now)
    engine.transmit(now)
    engine.receive(path, Segment(port, 80, 101, 1, ACK, 65535).to_bytes(), now)
    conn = listener.accept()
    assert conn is not None
    conn.close(now)
    engine.ready()
    engine.ready_listeners()
    engine.transmit(now)
    engine.receive(path, Segment(port, 80, 101, 2, ACK | FIN, 65535).to_bytes(), now)
    engine.ready()
    engine.transmit(now)


def settle(engine: Engine, until: int) -> None:
    """Go through the deadlines that the connections had while they lived."""
    while (at := engine.next_timeout()) is not None and at < until:
        engine.handle_timeout(at)
    engine.handle_timeout(until)


def timed_timeout(engine: Engine, now: int) -> int:
    began = process_time_ns()
    engine.handle_timeout(now)
    return process_time_ns() - began


def kernel_record() -> Figures:
    """What Linux takes for a tcp_timewait_sock; the bucket of its port, where it has one to itself, comes on top."""
    try:
        rows = [line.split() for line in SLABINFO.read_text().splitlines()]
    except OSError:
        return {}
    sizes = [int(row[3]) for row in rows if row[0] == "tw_sock_TCP"]
    return {"kernel: bytes per record": max(sizes)} if sizes else {}


def measure_records(count: int) -> Figures:
    figures = measure_table(count)
    gc.collect()
    return figures | measure_engine(count) | kernel_record()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", choices=[[], "records", "drain", "flood"], help="default: all of them")
    parser.add_argument(
        "--records", type=int, default=1_000_000, metavar="N", help="live TIME-WAIT records (default: %(default)s)"
    )
    parser.add_argument(
        "--connections", type=int, default=100_000, metavar="N", help="that drain at once (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=int, default=4000, metavar="N", help="forged SYNs a second (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    if min(options.records, options.connections, options.rate) < 2:
        parser.error("--records, --connections, --rate: at least 2")
    parts = options.parts or ["records", "drain", "flood"]
    compiled = not str(engine_module.__file__).endswith(".py")
    figures: Figures = {}
    if "records" in parts:
        gc.disable()  # the lists of integers made here are none of the tables' business
        try:
            figures |= measure_records(options.records)
        finally:
            gc.enable()
    if "drain" in parts:
        figures |= measure_drain(options.connections)
        figures |= measure_drain(options.connections, memory=True)
    if "flood" in parts:
        figures |= measure_flood(options.rate)
    if options.json:
        print(json.dumps({"compiled": compiled, "records": options.records, **figures}))
        return
    print("compiled" if compiled else "interpreted")
    for name, value in figures.items():
        print(f"{name:55} {value:14,.2f}")


if __name__ == "__main__":
    main()
