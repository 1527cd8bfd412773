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
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.contests import AWAITED, NOT_TCP, Contender, Contest, contests
from benchmarks.peers import ROOT
from benchmarks.results import print_tables, write_results
from benchmarks.run import run_once
from benchmarks.teardown import at_least, header, median_of, seconds
from benchmarks.workload import Result, Workload

TEARDOWN = "teardown"
PACKAGES = ("asyncio-utcp", "uvloop", "aioquic", "qh3", "pyenet", "aiortc")
MODULE = (
    "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), None, '__main__', True)"
)
QUICK_MSL = 0.3  # seconds; all TIME-WAIT records are waited for at the end of each run
MAX_TW_BUCKETS = Path("/proc/sys/net/ipv4/tcp_max_tw_buckets")

# The other programs, by part: (module, arguments, arguments in a hurry)
PROGRAMS: dict[str, tuple[str, list[str], list[str]]] = {
    "throughput": ("throughput", ["--rounds", "5"], ["--rounds", "1", "--seconds", "0.3"]),
    "latency": ("latency", ["--rounds", "5"], ["--rounds", "1", "--seconds", "0.3"]),
    "time-wait": ("timewait", ["records"], ["records", "--records", "20000"]),
    "live": ("live", [], ["--live", "0", "2000"]),
}
PARTS = (*PROGRAMS, TEARDOWN)


@dataclass
class Record:
    """What has been measured, in memory and, if wanted, in a file."""

    path: Path | None
    entries: dict[str, Any] = field(default_factory=dict)

    def load(self, plan: dict[str, Any]) -> None:
        """Begin, or go on with what an earlier run left. Raises ValueError if that was another plan."""
        if self.path is None or not self.path.exists() or not self.path.stat().st_size:
            self.keep("plan", plan)
            return
        lines = self.path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # cut short, with the run that wrote it
            self.path.write_text("".join(lines[:-1]))
            lines.pop()
        for entry in map(json.loads, lines):
            self.entries[entry["key"]] = entry["value"]
        if self.entries.get("plan") != plan:
            raise ValueError(f"{self.path} is of a run with other options: {self.entries.get('plan')}")

    def keep(self, key: str, value: Any) -> None:
        self.entries[key] = value
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({"key": key, "value": value}) + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="two contests, one short round: whether all works, not how fast")
    add("--only", action="append", choices=PARTS, help="this part alone; may be given several times")
    add("--rounds", type=at_least(1), metavar="R", help="of teardown (5; quick: 1)")
    add("--seconds", type=seconds, metavar="S", help="measured per round and contender (2; quick: 0.3)")
    add("--minutes", type=seconds, metavar="M", help="nothing is begun after so many (120; quick: 2)")
    add("--resume", type=Path, metavar="FILE", help="keep every measurement there, and go on with what is there")
    add("--write", action="store_true", help="write benchmarks/RESULTS.md and its plots (needs matplotlib)")
    add("--json", action="store_true", help="one JSON object instead of the tables")
    options = parser.parse_args(arguments)
    options.only = options.only or list(PARTS)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.3 if options.quick else 2.0)
    options.minutes = options.minutes or (2.0 if options.quick else 120.0)
    return options


def run_program(part: str, quick: bool, within: float) -> dict[str, Any]:
    """One of the other programs, as it is installed. RuntimeError when it fails or takes longer than ``within`` s."""
    module, full, short = PROGRAMS[part]
    command = [
        sys.executable,
        "-P",
        "-c",
        MODULE,
        str(ROOT),
        f"benchmarks.{module}",
        "--json",
        *(short if quick else full),
    ]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=within, check=True)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not finished within {within:.0f} s") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"ended with status {error.returncode}") from None
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


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
    for part in PROGRAMS:
        if part in options.only and part not in record.entries:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                left += 1
                continue
            tell(part)
            try:
                record.keep(part, run_program(part, options.quick, remaining))
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
        if not result.rate:  # no figure could be trusted
            record.keep(key, {"failed": "nothing was completed in the interval"})
            tell(f"FAILED: {key}: nothing was completed in the interval")
            continue
        record.keep(key, result.as_dict())
        tell(f"round {number + 1}/{options.rounds}: {contest.name}: {contender.name}: {result.rate:,.0f}/s")
    return left


def summary(options: argparse.Namespace, record: Record, left: int) -> dict[str, Any]:
    """All figures as one object."""
    skipped: dict[str, str] = {}
    failed = [
        f"{part}: {record.entries[part]['failed']}" for part in PROGRAMS if "failed" in record.entries.get(part, {})
    ]
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
        "header": {**header(), "versions": versions(), "kernel_max_time_wait": max_time_wait(), **installed(tables)},
        "quick": options.quick,
        "rounds": options.rounds,
        "contests": tables,
        "parts": {part: record.entries[part] for part in PROGRAMS if part in options.only and part in record.entries},
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


def installed(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """What utcp's processes said of themselves."""
    for table in tables:
        for row in table["rows"]:
            if "compiled" in row["client"] and not row["workload"]["interpreted"]:
                return {name: row["client"][name] for name in ("compiled", "receive_buffer", "gc")}
    return {}


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def max_time_wait() -> int | None:
    try:
        return int(MAX_TW_BUCKETS.read_text())
    except OSError:
        return None


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    record = Record(options.resume)
    plan = {name: getattr(options, name) for name in ("quick", "rounds", "seconds")}
    try:
        record.load(plan)
    except (ValueError, OSError) as error:
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
    return 1 if whole["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
