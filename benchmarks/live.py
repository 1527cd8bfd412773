"""What a lifecycle costs beside many live connections and TIME-WAIT records, and what memory an idle one takes.

    python -m benchmarks.live [--live 0 1000 10000 100000] [--kind idle time-wait] [--json]

Two engines hand each other their segments in memory: connect, accept, half-close, end of file, close, ``BATCH`` at a
time. Before that, so many connections have been opened and stay idle, or so many have ended and are TIME-WAIT
records of the client's engine. Rounds beside them take turns with rounds of two engines that have nothing else to do,
so that both have the same noise; times are processor time, and of the rounds the best: noise only adds. Memory is
what the process grew by, both ends of a connection together.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import sys
from socket import SHUT_WR
from time import process_time_ns
from typing import Any

import utcp
from benchmarks.pressure import BATCH as OPENED_AT_ONCE
from benchmarks.pressure import PER_PEER, SECOND, Pair, open_all, resident_bytes
from utcp.core.config import Config
from utcp.core.states import State

BATCH = 64  # lifecycles at a time
LIFECYCLES = 2048  # of a round
ROUNDS = 5
MSL = 600.0  # seconds: no record may expire while there is still something to measure
KINDS = ("idle", "time-wait")
WARM_UP = 256


def measure(kind: str, live: int) -> dict[str, Any]:
    """One row: the cost of a lifecycle beside ``live`` connections or records."""
    gc.collect()
    before = resident_bytes()
    config = Config(msl=MSL, max_time_wait=2 * live + 100_000, max_connections=2 * live + 10_000)
    pair = Pair(config, live // PER_PEER + 2)
    if kind == "idle":
        open_all(pair, live)
        pair.accept()
    else:
        for first in range(0, live, OPENED_AT_ONCE):
            lifecycles(pair, first // PER_PEER, min(OPENED_AT_ONCE, live - first))
    gc.collect()
    grown = resident_bytes() - before
    path = live // PER_PEER + 1  # one that has all its ports
    idle_pair = Pair(config, 1)
    lifecycles(pair, path, WARM_UP)
    lifecycles(idle_pair, 0, WARM_UP)
    held = pair.client.states().get(State.ESTABLISHED if kind == "idle" else State.TIME_WAIT, 0)
    assert held >= live, held
    rounds = [(timed_round(pair, path), timed_round(idle_pair, 0)) for _ in range(ROUNDS)]
    beside, alone = (min(times) / 1000 / LIFECYCLES for times in zip(*rounds, strict=True))
    return {
        "kind": kind,
        "live": live,
        "us per lifecycle": beside,
        "us beside none": alone,
        "ratio": beside / alone,
        "bytes each": grown / live if live else None,
    }


def timed_round(pair: Pair, path: int) -> int:
    began = process_time_ns()
    for _ in range(0, LIFECYCLES, BATCH):
        lifecycles(pair, path, BATCH)
    return process_time_ns() - began


def lifecycles(pair: Pair, path: int, count: int) -> None:
    """From SYN to CLOSED on the server and a TIME-WAIT record on the client, both told of everything."""
    clients = [pair.client.connect(pair.out[path], 80, pair.now) for _ in range(count)]
    pair.exchange()
    servers = pair.accept()
    assert len(servers) == count
    for conn in clients:
        conn.shutdown(SHUT_WR, pair.now)
    pair.exchange()
    for conn in servers:
        conn.close(pair.now)
    pair.exchange()
    for conn in clients:
        conn.close(pair.now)
    pair.exchange()
    assert all(conn.closed and conn.error is None for conn in clients + servers)
    pair.now += SECOND // 1000
    pair.client.handle_timeout(pair.now)
    pair.server.handle_timeout(pair.now)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--live", type=int, nargs="+", default=[0, 1000, 10_000, 100_000], metavar="N")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="default: both")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    if min(options.live) < 0:
        parser.error("argument --live: less than 0")
    jobs = [(kind, live) for kind in options.kind for live in options.live]
    # A process for each: what one row frees would be the next one's for nothing
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.starmap(measure, jobs, chunksize=1)
    if options.json:
        print(json.dumps({"compiled": utcp.__compiled__, "rows": rows}, indent=2))
        return 0
    print("compiled" if utcp.__compiled__ else "interpreted")
    print(f"{'':10} {'live':>10} {'us/lifecycle':>13} {'beside none':>12} {'ratio':>6} {'bytes each':>11}")
    for row in rows:
        size = "-" if row["bytes each"] is None else f"{row['bytes each']:,.0f}"
        times = f"{row['us per lifecycle']:13.1f} {row['us beside none']:12.1f} {row['ratio']:6.2f}"
        print(f"{row['kind']:10} {row['live']:10,} {times} {size:>11}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
