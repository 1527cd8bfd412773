"""What ``import utcp`` and its first use cost: milliseconds, beside asyncio and a bare interpreter.

    python -m benchmarks.imports [--runs 40] [--json]

Each run is a new process; the kinds take turns, and of each kind's runs the fastest counts: whatever else the machine
does makes a run longer, never shorter. It is processor time, user and system, which on an idle machine is the time one
waits: of the import statement alone, and of the whole process, which also starts and clears up behind itself. Byte code
is there before, as it is after an installation, in a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import utcp

PROGRAMS: Final = {
    "nothing": "pass",
    "asyncio": "import asyncio",
    "utcp": "import utcp",
    "its first use": "import utcp; utcp.open_connection",  # asyncio among it
}
TIMED: Final = "from time import process_time_ns as now; began = now(); {}; print(now() - began)"


def measure(runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds for each of PROGRAMS: of the ``statement``, and of the whole ``process``."""
    best = {name: {"statement": float("inf"), "process": float("inf")} for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(Path(utcp.__file__).parents[1]),
            "PYTHONPYCACHEPREFIX": cache,
        }
        for _ in range(1 + runs):  # the first writes the byte code
            for name, program in PROGRAMS.items():
                command = [sys.executable, "-c", TIMED.format(program)]
                began = children_ms()
                done = subprocess.run(command, env=environment, cwd=cache, capture_output=True, check=True)
                took = {"statement": int(done.stdout) / 1e6, "process": children_ms() - began}
                best[name] = {kind: min(best[name][kind], took[kind]) for kind in took}
    return best


def children_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description="What `import utcp` costs.")
    parser.add_argument("--runs", type=int, default=40, help="of each kind (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    args = parser.parse_args(arguments)
    if args.runs < 1:
        parser.error("--runs must be positive")
    best = measure(args.runs)
    best["less asyncio"] = {kind: best["its first use"][kind] - best["asyncio"][kind] for kind in best["asyncio"]}
    if args.json:
        print(json.dumps({"compiled": utcp.__compiled__, "runs": args.runs, "milliseconds": best}))
        return 0
    print(f"{'compiled' if utcp.__compiled__ else 'interpreted'}, the fastest of {args.runs} runs each, milliseconds")
    print(f"{'import of':14} {'statement':>10} {'process':>10}")
    for name, took in best.items():
        print(f"{name:14} {took['statement']:10.1f} {took['process']:10.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
