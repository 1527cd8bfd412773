"""What ``import utcp`` costs: milliseconds, beside a bare interpreter and asyncio, which it cannot do without.

    python -m benchmarks.imports [--runs 40] [--json]

Each run is a new process; the kinds take turns, and of each kind's runs the fastest counts: whatever else the machine
does makes a run longer, never shorter. Byte code is there before, as it is after an installation, in a folder of its
own. What utcp adds is the difference to asyncio's time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import utcp

PROGRAMS: Final = {"interpreter": "pass", "asyncio": "import asyncio", "utcp": "import utcp"}


def measure(runs: int) -> dict[str, float]:
    """Milliseconds of wall-clock time for each of PROGRAMS."""
    best = dict.fromkeys(PROGRAMS, float("inf"))
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(Path(utcp.__file__).parents[1]),
            "PYTHONPYCACHEPREFIX": cache,
        }
        for _ in range(1 + runs):  # the first writes the byte code
            for name, program in PROGRAMS.items():
                began = perf_counter_ns()
                subprocess.run([sys.executable, "-c", program], env=environment, cwd=cache, check=True)
                best[name] = min(best[name], (perf_counter_ns() - began) / 1e6)
    return best


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description="What `import utcp` costs.")
    parser.add_argument("--runs", type=int, default=40, help="of each kind (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    args = parser.parse_args(arguments)
    if args.runs < 1:
        parser.error("--runs must be positive")
    best = measure(args.runs)
    figures = {
        "interpreter_ms": best["interpreter"],
        "asyncio_ms": best["asyncio"] - best["interpreter"],
        "utcp_ms": best["utcp"] - best["asyncio"],
        "import_utcp_ms": best["utcp"] - best["interpreter"],
    }
    if args.json:
        print(json.dumps({"compiled": utcp.__compiled__, "runs": args.runs, **figures}))
        return 0
    print(f"{'compiled' if utcp.__compiled__ else 'interpreted'}, the fastest of {args.runs} runs each")
    print(f"{figures['interpreter_ms']:8.1f} ms  python -c pass")
    print(f"{figures['import_utcp_ms']:8.1f} ms  more for import utcp; of these")
    print(f"{figures['asyncio_ms']:8.1f} ms  asyncio")
    print(f"{figures['utcp_ms']:8.1f} ms  utcp itself")
    return 0


if __name__ == "__main__":
    sys.exit(main())
