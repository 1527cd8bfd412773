"""Goodput and completion time over simulated paths, how fairly flows share a bottleneck, what ECN's marks are worth.

    python -m benchmarks.netsim            everything, as Markdown
    python -m benchmarks.netsim --quick    a few rows, in seconds
    python -m benchmarks.netsim --check    everything (or with --quick a few rows) against the committed netsim.json
    python -m benchmarks.netsim --write    netsim.json and netsim.md anew

Engines talk to each other in virtual time, so that the figures are those of any machine, to the digit: a change in
them is a change of the engine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path as File
from typing import Any

from benchmarks.netsim_runs import ALGORITHMS, EVERY, MANAGED, PATHS, QUICK, SHARINGS, Run

SEED = 1
TABLE = File(__file__).with_name("netsim.json")
MARKDOWN = TABLE.with_suffix(".md")

Figures = dict[str, dict[str, Any]]  # by the name of the run


def measure(runs: Sequence[Run]) -> Figures:
    """Each run is a world of its own: as many at a time as there are processors."""
    figures = {}
    with ProcessPoolExecutor() as pool:
        for run, found in zip(runs, pool.map(run_one, runs), strict=True):
            print(f"{run.name}: {found}", file=sys.stderr, flush=True)
            figures[run.name] = found
    return figures


def run_one(run: Run) -> dict[str, Any]:
    return run.run(SEED)


def differences(figures: Figures, committed: Figures) -> list[str]:
    """A line for each run whose figures are not the committed ones."""
    return [
        f"{name}: {found}, and the table has {committed.get(name)}"
        for name, found in figures.items()
        if found != committed.get(name)
    ]


def markdown(figures: Figures) -> str:
    lines = [
        "# Simulated paths",
        "",
        "Written by `python -m benchmarks.netsim --write`; the figures follow from the seed, to the digit.",
        "One connection, random loss of segments in both directions, a drop-tail queue of one bandwidth-delay product",
        "(30,000 bytes at least). Goodput in Mbit/s of data, in the second half of 10 s (6 s at 100 Mbit/s), and the",
        "seconds from the SYN until 1,000,000 bytes have arrived (-: they had not).",
        "",
        "| path | loss | " + " | ".join(f"{one}, Mbit/s | {one}, s" for one in ALGORITHMS) + " |",
        "|---|---" + "|---:|---:" * len(ALGORITHMS) + "|",
    ]
    for path in PATHS[:: len(ALGORITHMS)]:
        found = [figures.get(f"{one}{path.name.removeprefix(path.algorithm)}") for one in ALGORITHMS]
        if all(found):
            cells = [cell for one in found if one for cell in (mbit(one["goodput"]), seconds(one["completion_us"]))]
            lines.append(f"| {path.mbit} Mbit/s, {path.rtt_ms} ms | {path.loss:.1%} | " + " | ".join(cells) + " |")
    shared = [run for run in SHARINGS if run.name in figures]
    if shared:
        one = shared[0]
        lines += [
            "",
            f"Equal flows over one bottleneck of {one.mbit} Mbit/s, {one.rtt_ms} ms; Jain's index of the second "
            f"half of {one.seconds} s.",
            "",
            "| flows | " + " | ".join(f"{one}, Jain | {one}, Mbit/s in all" for one in ALGORITHMS) + " |",
            "|---:" + "|---:|---:" * len(ALGORITHMS) + "|",
        ]
        for run in shared[:: len(ALGORITHMS)]:
            found = [figures[f"{name}, {run.flows} flows"] for name in ALGORITHMS]
            cells = [cell for one in found if one for cell in (f"{one['jain'] / 1e6:.4f}", mbit(one["goodput"]))]
            lines.append(f"| {run.flows} | " + " | ".join(cells) + " |")
    managed = [run for run in MANAGED if run.name in figures]
    if managed:
        first = managed[0]
        lines += [
            "",
            f"One connection over {first.mbit} Mbit/s, {first.rtt_ms} ms, with CoDel before the link: by drops, and "
            f"with ECN by marks. The second half of {first.seconds} s; the wait is the mean one in the queue.",
            "",
            "| | Mbit/s | segments sent again | wait, ms |",
            "|---|---:|---:|---:|",
        ]
        for one_run in managed:
            row = figures[one_run.name]
            wait = f"{row['wait_us'] / 1000:.1f}"
            lines.append(f"| {one_run.name} | {mbit(row['goodput'])} | {row['retransmissions']} | {wait} |")
    return "\n".join(lines) + "\n"


def mbit(bits: int) -> str:
    return f"{bits / 1e6:.2f}"


def seconds(microseconds: int | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1e6:.3f}"


def plot(figures: Figures, file: str) -> None:
    """Goodput against loss, a panel for each path. RuntimeError without matplotlib."""
    try:
        library: Any = import_module("matplotlib.figure")
    except ImportError:
        raise RuntimeError("--plot needs matplotlib: pip install '.[plot]'") from None
    paths = sorted({(path.mbit, path.rtt_ms) for path in PATHS if path.name in figures})
    figure = library.Figure(figsize=(4 * len(paths), 4), layout="constrained")
    for panel, (rate, rtt) in zip(figure.subplots(1, len(paths), squeeze=False)[0], paths, strict=True):
        for algorithm in ALGORITHMS:
            rows = [
                path
                for path in PATHS
                if (path.algorithm, path.mbit, path.rtt_ms) == (algorithm, rate, rtt) and path.name in figures
            ]
            goodputs = [figures[path.name]["goodput"] / 1e6 for path in rows]
            panel.plot([100 * path.loss for path in rows], goodputs, marker="o", label=algorithm)
        panel.set(title=f"{rate} Mbit/s, {rtt} ms", xlabel="loss, %", ylabel="goodput, Mbit/s", ylim=(0, 1.05 * rate))
        panel.legend()
    figure.savefig(file)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.netsim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a few rows only")
    add("--json", action="store_true", help="the figures as JSON")
    add("--plot", metavar="FILE", help="goodput against loss, in a format of matplotlib's by the file's ending")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--check", action="store_true", help="exit status 1 if anything differs from the committed table")
    ends.add_argument("--write", action="store_true", help="write the committed table anew")
    options = parser.parse_args(arguments)
    if options.quick and options.write:
        parser.error("argument --write: the table has all rows, and --quick a few")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    figures = measure(QUICK if options.quick else EVERY)
    try:
        if options.plot is not None:
            plot(figures, options.plot)
        if options.write:
            TABLE.write_text(json.dumps(figures, indent=1) + "\n")
            MARKDOWN.write_text(markdown(figures))
        changed = differences(figures, json.loads(TABLE.read_text())) if options.check else []
    except (RuntimeError, OSError, ValueError) as error:
        print(f"netsim: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=1) if options.json else markdown(figures))
    for line in changed:
        print(line, file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
