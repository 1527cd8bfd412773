"""What ``benchmarks.throughput`` and ``benchmarks.latency`` have in common: peers in turns, medians, ratios."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from benchmarks.peers import Listening, kernel_counters, worker
from benchmarks.run import run_once
from benchmarks.teardown import at_least, header, median_of, seconds
from benchmarks.transfer_worker import TransferWorkload
from benchmarks.workload import Result, Workload

STACKS = ("utcp", "kernel", "aioquic")
MAX_SIZE = 1 << 24


class TransferPeer:
    """Both ends over one stack."""

    def __init__(self, name: str) -> None:
        self.name = name

    def server(self, workload: Workload) -> list[str]:
        return worker(self.name, workload, "transfer_worker", serve_ports=workload.ports)

    def client(self, workload: Workload, listening: Listening) -> list[str]:
        return worker(self.name, workload, "transfer_worker", listening=listening)

    def system_counters(self) -> dict[str, int]:
        return kernel_counters() if self.name == "kernel" else {}


@dataclass(frozen=True)
class Benchmark:
    """One of the two programs. ``figure`` is a peer's figure in ``unit``; ``rows`` are the table's."""

    name: str
    doc: str
    kind: Literal["bulk", "request"]
    size: int
    figure: Callable[[dict[str, Any]], float]
    unit: str
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]]

    def parse(self, arguments: list[str] | None = None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks.{self.name}",
            description=self.doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        default = TransferWorkload()
        add = parser.add_argument
        add("--peer", choices=("all", *STACKS), default="all", help="default: all")
        add("--connections", type=at_least(1), default=default.in_flight, metavar="N", help="at once (%(default)s)")
        add("--size", type=at_least(1), default=self.size, metavar="BYTES", help="of a write (%(default)s)")
        add("--seconds", type=seconds, default=default.seconds, metavar="S", help="measured per round (%(default)s)")
        add("--rounds", type=at_least(1), default=3, metavar="R", help="the peers take turns so often (%(default)s)")
        add("--loop", choices=("uvloop", "asyncio"), default=default.loop)
        add("--unbatched", action="store_true", help="utcp without UDP GSO and GRO")
        add("--json", action="store_true", help="one JSON object instead of the table")
        options = parser.parse_args(arguments)
        if options.size > MAX_SIZE:
            parser.error(f"argument --size: {options.size} is more than {MAX_SIZE} bytes")
        return options

    def workload(self, options: argparse.Namespace) -> TransferWorkload:
        return TransferWorkload(
            kind=self.kind,
            in_flight=options.connections,
            payload=options.size,
            seconds=options.seconds,
            loop=options.loop,
            batched=not options.unbatched,
        )

    async def measure(self, options: argparse.Namespace) -> dict[str, list[Result]]:
        """Every round by every peer, in turns."""
        peers = available(STACKS if options.peer == "all" else (options.peer,))
        rounds: dict[str, list[Result]] = {peer: [] for peer in peers}
        for number in range(options.rounds):
            for peer in peers:
                print(f"round {number + 1}/{options.rounds}: {peer} ...", end=" ", file=sys.stderr, flush=True)
                result = await run_once(self.workload(options), TransferPeer(peer))
                print(f"{self.figure(result.as_dict()):,.2f} {self.unit}", file=sys.stderr, flush=True)
                rounds[peer].append(result)
        return rounds

    def summary(self, options: argparse.Namespace, rounds: dict[str, list[Result]]) -> dict[str, Any]:
        """The medians of the rounds; ``ratios`` are of utcp's figure to the others'."""
        peers = {peer: median_of(results) for peer, results in rounds.items()}
        for peer, figures in peers.items():
            figures["figure"] = self.figure(figures)
            figures["figures"] = [self.figure(result.as_dict()) for result in rounds[peer]]
        whole: dict[str, Any] = {
            "header": header(),
            "workload": self.workload(options).as_dict(),
            "rounds": options.rounds,
            "unit": self.unit,
            "skipped": [peer for peer in STACKS if options.peer in ("all", peer) and peer not in peers],
            **peers,
            "ratios": {},
        }
        if "utcp" in peers:
            whole["header"]["compiled"] = peers["utcp"]["client"]["compiled"]
            others = [peer for peer in peers if peer != "utcp" and peers[peer]["figure"]]
            ours = peers["utcp"]["figure"]
            whole["ratios"] = {f"utcp/{peer}": ours / peers[peer]["figure"] for peer in others}
        return whole

    def print_table(self, whole: dict[str, Any]) -> None:
        from rich.console import Console
        from rich.table import Table

        facts, workload = whole["header"], whole["workload"]
        peers = [peer for peer in STACKS if peer in whole]
        console = Console()
        console.print(
            f"{workload['in_flight']} connections, {workload['payload']:,} bytes, {workload['loop']}, "
            f"{whole['rounds']} rounds of {workload['seconds']:g} s; Python {facts['python']}, {facts['system']}, "
            f"{facts['cpus']} CPUs",
            highlight=False,
        )
        table = Table()
        table.add_column("median of rounds")
        for peer in peers:
            table.add_column(peer, justify="right")
        table.add_row(self.unit, *(f"{whole[peer]['figure']:,.2f}" for peer in peers))
        spreads = [whole[peer]["figures"] for peer in peers]
        table.add_row("spread", *(f"{min(spread):,.2f} to {max(spread):,.2f}" for spread in spreads))
        for label, show in self.rows:
            table.add_row(label, *(show(whole[peer]) for peer in peers))
        console.print(table)
        for name, ratio in whole["ratios"].items():
            console.print(f"{name}: {ratio:.2f}", highlight=False)
        if "utcp" in peers:
            mode = "compiled" if facts["compiled"] else "interpreted"
            console.print(f"utcp: {mode}, {'batched' if workload['batched'] else 'unbatched'}", highlight=False)

    def main(self, arguments: list[str] | None = None) -> int:
        options = self.parse(arguments)
        try:
            rounds = asyncio.run(self.measure(options))
        except (RuntimeError, OSError) as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            return 1
        whole = self.summary(options, rounds)
        if options.json:
            print(json.dumps(whole, indent=2))
        else:
            self.print_table(whole)
        return 0


def available(peers: tuple[str, ...]) -> list[str]:
    """Those that can be measured here. RuntimeError if none can."""
    found = [peer for peer in peers if peer != "aioquic" or find_spec("aioquic") is not None]
    if len(found) < len(peers):
        print("SKIPPED: aioquic is not installed: pip install '.[bench]'", file=sys.stderr)
    if not found:
        raise RuntimeError("nothing is left to measure")
    return found
