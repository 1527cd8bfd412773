"""Mutation check of the closing, TIME-WAIT, RST and timer code, or of loss recovery: is there a test for every line?

    python -m tests.mutation                         # every fault, all tests; picks up where it was stopped
    python -m tests.mutation --group recovery        # the same for loss recovery
    python -m tests.mutation --quick 100             # a first look: what 100 tests that reach a fault do not notice
    python -m tests.mutation --only closing.py --sample 20 --seed 1

What it is good for, and what it found: docs/mutation.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import utcp

from .equivalent import equivalents
from .faults import GROUPS, ROOT, TARGETS, Fault, all_faults, functions_of
from .runner import Verdict, run

TESTS: Final = ["tests/core", "tests/sim", "tests/exhaustive"]
STATE: Final = ROOT / ".mutation" / "results.jsonl"


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if utcp.__compiled__:
        print("the engine is compiled, and faults are put into Python: run it on a source tree", file=sys.stderr)
        return 2
    everything = all_faults()
    known, stale = equivalents(everything)
    for text in stale:
        print(f"stale in equivalent.txt, no such fault:\n{text}\n", file=sys.stderr)
    files = options.only or GROUPS[options.group]
    faults = [fault for fault in everything if fault.file in files]
    if options.sample is not None:
        chosen = random.Random(options.seed).sample(range(len(faults)), min(options.sample, len(faults)))
        faults = [faults[number] for number in sorted(chosen)]
    if options.list:
        for fault in faults:
            print(_shown(fault), end="\n\n")
        print(f"{len(faults)} faults")
        return 1 if stale else 0
    results = _Results(options.state, options.quick, options.tests)
    todo = [fault for fault in faults if fault.key not in known and not results.has(fault)]
    print(f"{len(faults)} faults, {len(todo)} to be tried", flush=True)
    os.chdir(ROOT)
    if todo:
        os.environ["CI"] = "1"  # hypothesis: the same examples every time
        failure = run(options.tests, todo, options.jobs, options.quick, results.add)
        if failure:
            print(failure, file=sys.stderr)
            return 2
    return _report(faults, known, results) or (1 if stale else 0)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--group", choices=list(GROUPS), default="teardown", help="of these files; %(default)s")
    parser.add_argument("--only", metavar="FILE", action="append", choices=list(TARGETS), help="faults of this file")
    parser.add_argument("--sample", metavar="N", type=int, help="so many of them, chosen by --seed")
    parser.add_argument("--seed", metavar="S", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="print the faults, try none")
    parser.add_argument("--quick", metavar="N", type=int, help="only the first N quick tests that reach a fault decide")
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--tests", metavar="PATH", nargs="+", default=TESTS, help="default: %(default)s")
    parser.add_argument("--state", metavar="FILE", type=Path, default=STATE, help="what is known; delete to start anew")
    return parser.parse_args(arguments)


class _Results:
    """Verdicts, kept in a file as they come. A kill counts while its function is the same, a survival its tests too."""

    def __init__(self, path: Path, quick: int | None, tests: list[str]) -> None:
        self._path = path
        self._sources = {
            (file, name): hashlib.sha256(text.encode()).hexdigest()[:16]
            for file in TARGETS
            for name, text in functions_of(file).items()
        }
        self._tests = f"{'all' if quick is None else quick} {_digest(tests)}"
        self._known: dict[str, tuple[str, str]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                if entry["outcome"] != "survived" or entry["tests"] == self._tests:
                    self._known[entry["source"] + entry["fault"]] = entry["outcome"], entry["test"]
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path == STATE:
                (path.parent / ".gitignore").write_text("*\n")

    def has(self, fault: Fault) -> bool:
        return self._key(fault) in self._known

    def outcome(self, fault: Fault) -> str:
        return self._known[self._key(fault)][0]

    def add(self, verdict: Verdict) -> None:
        self._known[self._key(verdict.fault)] = verdict.outcome, verdict.test
        entry = {
            "fault": verdict.fault.key,
            "source": self._source(verdict.fault),
            "tests": self._tests,
            "outcome": verdict.outcome,
            "test": verdict.test,
        }
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if verdict.outcome == "survived":
            print(f"SURVIVED {_shown(verdict.fault)}", flush=True)

    def _key(self, fault: Fault) -> str:
        return self._source(fault) + fault.key

    def _source(self, fault: Fault) -> str:
        return self._sources.get((fault.file, fault.function), "module")


def _digest(tests: list[str]) -> str:
    """Of the tests' own source, and of what they share."""
    digest = hashlib.sha256(" ".join(tests).encode())
    for name in [*tests, "tests/support"]:
        path = ROOT / name.split("::")[0]
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _shown(fault: Fault) -> str:
    return f"{fault.place} {fault.key.removeprefix(fault.file).lstrip()}"


def _report(faults: list[Fault], known: dict[str, str], results: _Results) -> int:
    """A line for each file, and every survivor again."""
    print(f"\n{'file':20} faults  killed  hung  equivalent  survived")
    total: Counter[str] = Counter()
    survivors: list[Fault] = []
    for file in TARGETS:
        count: Counter[str] = Counter()
        for fault in faults:
            if fault.file == file:
                outcome = "equivalent" if fault.key in known else results.outcome(fault)
                count[outcome] += 1
                count["faults"] += 1
                if outcome == "survived":
                    survivors.append(fault)
        total += count
        if count:
            print(_row(file, count))
    print(_row("all", total))
    for fault in survivors:
        print(f"\nSURVIVED {_shown(fault)}")
    return 1 if survivors else 0


def _row(file: str, count: Counter[str]) -> str:
    return (
        f"{file:20} {count['faults']:6}  {count['killed']:6}  {count['timeout']:4}  "
        f"{count['equivalent']:10}  {count['survived']:8}"
    )


if __name__ == "__main__":
    sys.exit(main())
