"""Everything side by side in one run: utcp, kernel TCP from C and from asyncio, QUIC, SCTP, ENet.

    python -m benchmarks.compare --json [--quick] [--only teardown] [--minutes 60] [--resume FILE] [--write]

Whoever takes part in a contest of teardown does the same work (benchmarks/contests.py), one after the other, in
several rounds: the figures are medians over the rounds, the spread is their lowest and highest, and ratios are of
medians. Throughput, latency, and what TIME-WAIT records and idle connections cost come from the programs of their own.

The installed utcp is measured. If it is compiled, the interpreted lines run from the .py files that are installed
beside (benchmarks/interpreted.py), so that one run has both. What cannot take part is named, and so is what failed or
was not reached in time. With --resume every measurement is kept in a file as it is made: the same command again
goes on from there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.about import about
from benchmarks.contests import AWAITED, NOT_TCP, Contender, Contest, contests
from benchmarks.goals import verdicts
from benchmarks.parts import PARTS, run_part
from benchmarks.record import Record
from benchmarks.results import print_tables, write_results
from benchmarks.run import allow_files, run_once
from benchmarks.teardown import at_least, median_of, seconds
from benchmarks.workload import Result, Workload

TEARDOWN = "teardown"
QUICK_MSL = 0.3  # seconds; all TIME-WAIT records are waited for at the end of each run


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="three contests, one short round: whether all works, not how fast")
    add("--only", action="append", choices=(*PARTS, TEARDOWN), help="this part alone; may be given several times")
    add("--rounds", type=at_least(1), metavar="R", help="of teardown (5; quick: 1)")
    add("--seconds", type=seconds, metavar="S", help="measured per round and contender (2; quick: 0.3)")
    add("--minutes", type=seconds, metavar="M", help="nothing is begun after so many (120; quick: 2)")
    add("--resume", type=Path, metavar="FILE", help="keep every measurement there, and go on with what is there")
    add("--write", action="store_true", help="write benchmarks/RESULTS.md and its plots (needs matplotlib)")
    add("--json", action="store_true", help="one JSON object instead of the tables")
    options = parser.parse_args(arguments)
    options.only = options.only or [*PARTS, TEARDOWN]
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.3 if options.quick else 2.0)
    options.minutes = options.minutes or (2.0 if options.quick else 120.0)
    if options.write and find_spec("matplotlib") is None:
        parser.error("argument --write: the plots need matplotlib (pip install '.[bench]')")
    return options


def workload_of(options: argparse.Namespace, contest: Contest, contender: Contender) -> Workload:
    workload = contest.workload(contender, options.seconds)
    return replace(workload, msl=QUICK_MSL, warmup=0.2) if options.quick else workload


def turns(options: argparse.Namespace) -> Iterator[tuple[Contest, Contender, int]]:
    """All measurements in the order in which they are made: who competes, next to each other; each round, again."""
    for number in range(options.rounds):
        for contest in contests(quick=options.quick):
            for contender in contest.contenders:
                if not contender.missing():
                    yield contest, contender, number


def key_of(contest: Contest, contender: Contender, number: int) -> str:
    return f"{contest.name} | {contender.name} | {number}"


def measure(options: argparse.Namespace, record: Record) -> int:
    """Do what is not yet recorded, as far as the time goes. Returns how many measurements are left."""
    deadline = time.monotonic() + 60 * options.minutes
    left = 0
    for part in PARTS:
        if part in options.only and part not in record.entries:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                left += 1
                continue
            tell(part)
            try:
                record.keep(part, run_part(part, options.quick, remaining))
            except RuntimeError as error:
                record.keep(part, {"failed": str(error)})
                tell(f"FAILED: {part}: {error}")
    if TEARDOWN in options.only:
        left += asyncio.run(measure_teardown(options, record, deadline))
    return left


async def measure_teardown(options: argparse.Namespace, record: Record, deadline: float) -> int:
    left = 0
    for contest, contender, number in turns(options):
        key = key_of(contest, contender, number)
        if key in record.entries:
            continue
        if time.monotonic() > deadline:
            left += 1
            continue
        try:
            result = await run_once(workload_of(options, contest, contender), contender.machine())
        except (RuntimeError, OSError) as error:
            record.keep(key, {"failed": str(error)})
            tell(f"FAILED: {key}: {error}")
            continue
        if why := fault(contender, result):
            record.keep(key, {"failed": why})
            tell(f"FAILED: {key}: {why}")
            continue
        record.keep(key, result.as_dict())
        tell(f"round {number + 1}/{options.rounds}: {contest.name}: {contender.name}: {result.rate:,.0f}/s")
    return left


def fault(contender: Contender, result: Result) -> str:
    """Why a measurement does not count, or nothing. What others do wrong is in their line of the table."""
    if not result.rate:
        return "nothing was completed in the interval"
    if contender.peer != "utcp":
        return ""
    found = {
        "errors": result.errors,
        "unfinished lifecycles": result.unfinished,
        "pairs of ports reused": result.pairs_reused,
        "TIME-WAIT records after 2MSL": result.client.get("time_wait_after_2msl"),
    }
    return ", ".join(f"{count:,} {name}" for name, count in found.items() if count)


def summary(options: argparse.Namespace, record: Record, left: int) -> dict[str, Any]:
    """All figures as one object."""
    skipped: dict[str, str] = {}
    parts = {part: record.entries[part] for part in PARTS if part in options.only and part in record.entries}
    failed = [f"{part}: {figures['failed']}" for part, figures in parts.items() if "failed" in figures]
    tables = []
    for contest in contests(quick=options.quick) if TEARDOWN in options.only else ():
        rows: dict[str, dict[str, Any]] = {}
        for contender in contest.contenders:
            if why := contender.missing():
                skipped[contender.name] = why
                continue
            entries = [record.entries.get(key_of(contest, contender, number)) for number in range(options.rounds)]
            failed += [
                f"{contest.name}: {contender.name}: {one['failed']}" for one in entries if one and "failed" in one
            ]
            results = [Result(**one) for one in entries if one and "failed" not in one]
            if results:
                rows[contender.name] = {
                    "name": contender.name,
                    "note": contender.note,
                    "against": contender.against,
                    "workload": workload_of(options, contest, contender).as_dict(),
                    **median_of(results),
                    "kernel": totals(results),
                }
        add_ratios(rows)
        tables.append(
            {
                "name": contest.name,
                "in_flight": contest.in_flight,
                "payload": contest.payload,
                "rows": list(rows.values()),
            }
        )
    return {
        "header": about(tables, record.entries.get("load")),
        "quick": options.quick,
        "rounds": options.rounds,
        "goals": verdicts(tables, parts),
        "contests": tables,
        "parts": parts,
        "skipped": skipped,
        "failed": failed,
        "left_out": left,
    }


def add_ratios(rows: dict[str, dict[str, Any]]) -> None:
    """utcp's lines against their counterparts over kernel TCP; what is no TCP, against utcp's like of it."""
    ours = rows.get(AWAITED)
    others = {contender.name for contender in NOT_TCP}
    for name, row in rows.items():
        other = rows.get(row["against"])
        row["ratio"] = row["rate"] / other["rate"] if other else None
        row["utcp_ratio"] = ours["rate"] / row["rate"] if ours and name in others else None


def totals(results: list[Result]) -> dict[str, int]:
    """What the kernel counted where it did not keep up, in all rounds; {} where it had nothing to do."""
    names = ("time_wait_overflow", "listen_overflows")
    return {name: sum(one.counters[name] for one in results) for name in names if name in results[0].counters}


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    record = Record(options.resume)
    plan = {name: getattr(options, name) for name in ("quick", "rounds", "seconds")}
    try:
        record.load(plan)
        if TEARDOWN in options.only:
            allow_files(max(contest.in_flight for contest in contests(quick=options.quick)))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    for contender in {
        one.name: one for contest in contests(quick=options.quick) for one in contest.contenders
    }.values():
        if TEARDOWN in options.only and (why := contender.missing()):
            tell(f"SKIPPED: {contender.name}: {why}")
    whole = summary(options, record, measure(options, record))
    if options.json:
        print(json.dumps(whole, indent=2))
    else:
        print_tables(whole)
    if options.write:
        write_results(whole)
    return 1 if whole["failed"] or whole["left_out"] else 0


if __name__ == "__main__":
    sys.exit(main())
