"""The parts of a comparison that are programs of their own: what each is run with, and what of its output is kept."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import ROOT

RUN = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), None, '__main__', True)"
FILE = "{file}"  # stands for a name in a folder that goes away
CAPTURE = ["--peer", "utcp", "--rounds", "1", "--pcap", FILE]


@dataclass(frozen=True)
class Part:
    """``full`` and ``quick`` are the arguments of the module; of what it prints ``key`` is kept, or all."""

    module: str
    full: list[str]
    quick: list[str]
    title: str
    note: str  # what is not like for like, or has to be known
    key: str = ""


PARTS = {
    "throughput": Part(
        "throughput",
        ["--rounds", "5"],
        ["--rounds", "1", "--seconds", "0.3"],
        title="Throughput",
        note="one connection, one way, protocols on uvloop; aioquic encrypts, the others do not",
    ),
    "latency": Part(
        "latency",
        ["--rounds", "5"],
        ["--rounds", "1", "--seconds", "0.3"],
        title="Latency",
        note="64 bytes there and back, one request at a time; aioquic encrypts, the others do not",
    ),
    "time-wait": Part(
        "timewait",
        ["records"],
        ["records", "--records", "20000"],
        title="TIME-WAIT: memory and time",
        note="the engine alone; the kernel's record is without the bucket of its port",
    ),
    "live": Part(
        "live",
        ["--live", "0", "1000", "10000", "100000", "1000000"],
        ["--live", "0", "2000"],
        title="Beside idle connections and TIME-WAIT records",
        note="a lifecycle beside so many idle connections or TIME-WAIT records; both ends' engines, processor time",
    ),
    "idle": Part(
        "idle",
        [],
        ["--connections", "500"],
        title="Memory of idle connections",
        note="both ends of a connection and asyncio's objects, on uvloop; beside them what the kernel takes",
    ),
    "capture": Part(
        "teardown",
        [*CAPTURE, "--seconds", "1"],
        [*CAPTURE, "--seconds", "0.3", "--msl", "0.3"],
        key="capture",
        title="A capture, checked",
        note="a batched run, 512 in flight, as the observer of utcp's client saw it (benchmarks.captured)",
    ),
}


def run_part(name: str, quick: bool, within: float) -> dict[str, Any]:
    """Run the program with the installed utcp. RuntimeError when it fails or takes longer than ``within`` seconds."""
    part = PARTS[name]
    with tempfile.TemporaryDirectory(prefix="utcp-bench-") as folder:
        arguments = [
            str(Path(folder, "file")) if argument == FILE else argument
            for argument in (part.quick if quick else part.full)
        ]
        command = [sys.executable, "-P", "-c", RUN, str(ROOT), f"benchmarks.{part.module}", "--json", *arguments]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=within, check=True)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"not finished within {within:.0f} s") from None
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"ended with status {error.returncode}") from None
    figures: dict[str, Any] = json.loads(done.stdout)
    if part.key:
        figures = figures[part.key]
    if name == "capture" and not 0 < figures["lifecycles"] == figures["complete"]:
        raise RuntimeError(f"{figures['complete']:,} of {figures['lifecycles']:,} lifecycles are complete")
    return figures
