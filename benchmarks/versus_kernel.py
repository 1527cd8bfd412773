"""Goodput over lossy paths, utcp's against that of the kernel's own Reno and CUBIC (Linux, as root).

    python -m benchmarks.versus_kernel            everything, as Markdown: some ten minutes
    python -m benchmarks.versus_kernel --quick    one short transfer by each
    python -m benchmarks.versus_kernel --write    versus_kernel.json and versus_kernel.md anew

Both send to a kernel through the same gateway, which delays, limits the rate, and loses the same segments of both: the
n-th one's fate is decided by the seed. A transfer is a network namespace of its own, in real time; the path is slow
enough that the machine matters little.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path as File
from statistics import median
from typing import Any

from benchmarks.versus_kernel_cell import Cell

TABLE = File(__file__).with_name("versus_kernel.json")
MARKDOWN = TABLE.with_suffix(".md")

STACKS = ("utcp", "kernel")
ALGORITHMS = ("reno", "cubic")
SIZES = {0.001: 24_000_000, 0.01: 8_000_000, 0.03: 4_000_000}  # bytes to send by the share that is lost
SEEDS = range(1, 6)
CELLS = [
    Cell(stack, algorithm, loss, seed, size)
    for seed in SEEDS
    for loss, size in SIZES.items()
    for algorithm in ALGORITHMS
    for stack in STACKS
]
QUICK = [replace(cell, size=3_000_000) for cell in CELLS if cell.seed == 3 and cell.loss == 0.01]

Figures = dict[str, dict[str, Any]]  # by the name of the row


def measure(cells: Sequence[Cell], jobs: int) -> Figures:
    """``jobs`` transfers at a time. RuntimeError says what went wrong in one."""
    found: dict[Cell, dict[str, Any]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for cell, result in zip(cells, pool.map(Cell.measure, cells), strict=True):
            print(f"{cell.stack}, {row_of(cell)}, seed {cell.seed}: {result}", file=sys.stderr, flush=True)
            found[cell] = result
    return {name: summary(found, name) for name in dict.fromkeys(map(row_of, cells))}


def row_of(cell: Cell) -> str:
    return f"{cell.algorithm}, {cell.loss:.1%}"


def summary(found: dict[Cell, dict[str, Any]], name: str) -> dict[str, Any]:
    """Medians over the seeds, by stack; ``ratios`` are utcp's goodput to the kernel's under the same losses."""
    ours, kernels = (
        [figures for cell, figures in found.items() if (row_of(cell), cell.stack) == (name, stack)] for stack in STACKS
    )
    ratios = [mine["goodput"] / theirs["goodput"] for mine, theirs in zip(ours, kernels, strict=True)]
    return {
        "utcp": {key: median(one[key] for one in ours) for key in ours[0]},
        "kernel": {key: median(one[key] for one in kernels) for key in kernels[0]},
        "ratio": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def markdown(figures: Figures) -> str:
    cell = CELLS[0]
    lines = [
        "# The kernel as yardstick",
        "",
        "Written by `python -m benchmarks.versus_kernel --write`. One connection to a Linux kernel through the",
        f"gateway, {cell.mbit:g} Mbit/s, {cell.rtt_ms:g} ms there and back, a drop-tail queue of one bandwidth-delay",
        "product, random loss of the sender's segments, the same ones of both senders. Goodput of all but the first",
        "quarter, the mean congestion window, and what was sent again: utcp, kernel; medians of "
        f"{len(SEEDS)} seeds. The ratio",
        "of goodputs under the same losses (lowest, highest) depends little on the machine.",
        "",
        "| algorithm, loss | utcp, Mbit/s | kernel, Mbit/s | ratio | window, segments | sent again | "
        "recoveries | time-outs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in figures.items():
        ours, kernels = row["utcp"], row["kernel"]
        both = [f"{ours[key]:g}, {kernels[key]:g}" for key in ("window", "retransmissions", "recoveries", "timeouts")]
        cells = [
            name,
            *(f"{one['goodput'] / 1e6:.2f}" for one in (ours, kernels)),
            f"{row['ratio']:.2f} ({min(row['ratios']):.2f}, {max(row['ratios']):.2f})",
            *both,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.versus_kernel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short transfer by each stack and algorithm")
    add("--jobs", type=int, default=1, metavar="N", help="transfers at a time (%(default)s)")
    add("--json", action="store_true", help="the figures as JSON")
    add("--write", action="store_true", help="write the committed table anew")
    options = parser.parse_args(arguments)
    if options.quick and options.write:
        parser.error("argument --write: the table has all rows, and --quick a few")
    if options.jobs < 1:
        parser.error(f"argument --jobs: {options.jobs} is less than 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        figures = measure(QUICK if options.quick else CELLS, options.jobs)
    except (RuntimeError, OSError) as error:
        print(f"versus_kernel: {error}", file=sys.stderr)
        return 1
    if options.write:
        TABLE.write_text(json.dumps(figures, indent=1) + "\n")
        MARKDOWN.write_text(markdown(figures))
    print(json.dumps(figures, indent=1) if options.json else markdown(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
