"""How many requests per second aiohttp's client gets from aiohttp's server, over utcp and over kernel TCP.

    python -m benchmarks.http --seconds 3 --in-flight 64 --json

Two processes, the same unmodified program over both: utcp comes in by the event loop (``utcp.new_event_loop``). A
hello world is fetched with a new connection for each request, and with connections that are kept alive. The two
take turns in several rounds; the figures are medians over the rounds, and ratios are of medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

from benchmarks.http_worker import HttpWorkload
from benchmarks.peers import Listening, kernel_counters, worker
from benchmarks.run import run_once
from benchmarks.teardown import at_least, header, median_of, seconds, seconds_or_0
from benchmarks.workload import Result, Workload

STACKS = ("utcp", "kernel")
MODES = {"new-connections": False, "keep-alive": True}


class HttpPeer:
    """Client and server over one kind of TCP."""

    def __init__(self, name: str) -> None:
        self.name = name

    def server(self, workload: Workload) -> list[str]:
        # The kernel's TIME-WAIT lasts for 60 s: one port could run out of pairs
        count = workload.ports if self.name == "kernel" else 1
        return worker(self.name, workload, "http_worker", serve_ports=count)

    def client(self, workload: Workload, listening: Listening) -> list[str]:
        return worker(self.name, workload, "http_worker", listening=listening)

    def system_counters(self) -> dict[str, int]:
        return kernel_counters() if self.name == "kernel" else {}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.http", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = HttpWorkload()
    add = parser.add_argument
    add("--mode", choices=("both", *MODES), default="both", help="default: both")
    add("--in-flight", type=at_least(1), default=default.in_flight, metavar="N", help="requests (%(default)s)")
    add("--seconds", type=seconds, default=default.seconds, metavar="S", help="measured per round (%(default)s)")
    add("--rounds", type=at_least(1), default=3, metavar="R", help="the two take turns so often (%(default)s)")
    add("--loop", choices=("uvloop", "asyncio"), default=default.loop)
    add("--msl", type=seconds_or_0, default=default.msl, metavar="S", help="of utcp (%(default)s)")
    add("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args(arguments)


def workload_of(options: argparse.Namespace, mode: str) -> HttpWorkload:
    return HttpWorkload(
        in_flight=options.in_flight,
        seconds=options.seconds,
        loop=options.loop,
        msl=options.msl,
        keep_alive=MODES[mode],
    )


async def measure(options: argparse.Namespace) -> dict[str, dict[str, list[Result]]]:
    """Results by mode and stack; the stacks in turns."""
    modes = list(MODES) if options.mode == "both" else [options.mode]
    results: dict[str, dict[str, list[Result]]] = {mode: {stack: [] for stack in STACKS} for mode in modes}
    for number in range(options.rounds):
        for mode in modes:
            for stack in STACKS:
                print(f"round {number + 1}/{options.rounds}: {mode}, {stack} ...", end=" ", file=sys.stderr, flush=True)
                result = await run_once(workload_of(options, mode), HttpPeer(stack))
                print(f"{result.rate:,.0f} requests/s", file=sys.stderr, flush=True)
                results[mode][stack].append(result)
    return results


def summary(options: argparse.Namespace, results: dict[str, dict[str, list[Result]]]) -> dict[str, Any]:
    whole: dict[str, Any] = {"header": header(), "rounds": options.rounds}
    for mode, by_stack in results.items():
        figures: dict[str, Any] = {stack: median_of(rounds) for stack, rounds in by_stack.items()}
        figures["ratio"] = figures["utcp"]["rate"] / figures["kernel"]["rate"]
        whole[mode] = {"workload": asdict(workload_of(options, mode)), **figures}
        whole["header"]["compiled"] = figures["utcp"]["client"]["compiled"]
    return whole


def print_table(whole: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    facts = whole["header"]
    table = Table(title=f"aiohttp hello world, utcp {'compiled' if facts['compiled'] else 'interpreted'}")
    for column in ("median of rounds", "utcp", "kernel", "ratio"):
        table.add_column(column, justify="left" if column == "median of rounds" else "right")
    for mode in MODES:
        if mode in whole:
            add_rows(table, mode, whole[mode])
    Console().print(table)
    print(f"Python {facts['python']}, {facts['system']}, {facts['cpus']} CPUs; client and server on one machine")


def add_rows(table: Any, mode: str, figures: dict[str, Any]) -> None:
    utcp, kernel = figures["utcp"], figures["kernel"]
    table.add_row(f"{mode}, requests/s", f"{utcp['rate']:,.0f}", f"{kernel['rate']:,.0f}", f"{figures['ratio']:.2f}")
    spreads = [f"{min(one['rates']):,.0f} to {max(one['rates']):,.0f}" for one in (utcp, kernel)]
    table.add_row("spread", *spreads)
    table.add_row(
        "p50, p99 of a request",
        *(f"{one['p50_us'] / 1000:,.1f}, {one['p99_us'] / 1000:,.1f} ms" for one in (utcp, kernel)),
    )
    table.add_row("CPU/request, both sides", *(f"{one['cpu_us_per_lifecycle']:,.0f} us" for one in (utcp, kernel)))
    table.add_row("segments/request", *(f"{one['segments_per_lifecycle']:.2f}" for one in (utcp, kernel)))
    table.add_row("errors, unfinished", *(f"{one['errors']}, {one['unfinished']}" for one in (utcp, kernel)))


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        results = asyncio.run(measure(options))
    except (RuntimeError, OSError) as error:
        print(f"http: {error}", file=sys.stderr)
        return 1
    whole = summary(options, results)
    if options.json:
        print(json.dumps(whole, indent=2))
    else:
        print_table(whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
