"""What looking into an engine costs: nanoseconds per event for each observer, and instructions where nobody looks.

    python -m benchmarks.trace [--lifecycles 2000] [--rounds 5] [--instructions] [--json]

Two engines in one process, virtual time: connect, half-close, end of file, close, 64 connections at a time. Times are
processor time, of the rounds the best; what an event costs is the difference to the same lifecycles without observer.
Whether the engine is compiled depends on what is installed; the output says so.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time_ns
from typing import Any

import utcp
from utcp.core.config import Config
from utcp.core.connection import SHUT_WR
from utcp.core.engine import Engine
from utcp.core.observer import Observer
from utcp.core.states import CLOSED_BIT, CONNECTED, EOF, State

CLIENT, SERVER = ("10.0.0.1", 5000), ("10.0.0.2", 6000)
PORT = 9000
BATCH = 64  # connections at a time
MILLISECOND = 1_000_000
SECRET = bytes(range(32))
INSTRUCTION_SIZES = (256, 1280)  # lifecycles; what both runs have in common, start-up above all, cancels out

MakeObserver = Callable[[Engine], Observer | None]


class Pair:
    """Two engines that exchange their trains, a millisecond a step."""

    def __init__(self, observe: MakeObserver) -> None:
        config = Config(msl=1.0)
        self.now = 0
        self.client = Engine(config, secret=SECRET)
        self.server = Engine(config, secret=SECRET[::-1])
        for engine in (self.client, self.server):
            engine.observer = observe(engine)
        self._to_server = self.client.path(CLIENT, SERVER)
        self._to_client = self.server.path(SERVER, CLIENT)
        self._listener = self.server.listen(PORT)

    def lifecycles(self, count: int) -> None:
        """Open and close so many connections, rounded up to whole batches."""
        for _ in range(-(-count // BATCH)):
            self._batch()

    def _batch(self) -> None:
        for _ in range(BATCH):
            self.client.connect(self._to_server, PORT, self.now)
        closed = 0
        while closed < 2 * BATCH:
            self._carry(self.client, self.server, self._to_client)
            closed += self._serve()
            self._carry(self.server, self.client, self._to_server)
            closed += self._attend()
            self.now += MILLISECOND
            self.client.handle_timeout(self.now)
            self.server.handle_timeout(self.now)

    def _carry(self, sender: Engine, receiver: Engine, path: int) -> None:
        for train in sender.transmit(self.now):
            receiver.receive(path, train.payload(), self.now, train.segment_size)

    def _serve(self) -> int:
        """The server's application: the client's FIN closes. Returns how many connections have ended."""
        while self._listener.accept() is not None:
            pass
        self.server.ready_listeners()
        closed = 0
        for conn in self.server.ready():
            bits = conn.take_ready()
            if bits & EOF:
                conn.close(self.now)
            if bits & CLOSED_BIT:
                closed += 1
        return closed

    def _attend(self) -> int:
        """The client's: half-close, wait for the server's FIN, close."""
        closed = 0
        for conn in self.client.ready():
            bits = conn.take_ready()
            if bits & CONNECTED:
                conn.shutdown(SHUT_WR, self.now)
            if bits & EOF:
                conn.close(self.now)
            if bits & CLOSED_BIT:
                closed += 1
        return closed


class Counting(Observer):
    """Counts events."""

    def __init__(self) -> None:
        self.events = 0

    def segment_in(self, now: int, path: int, segment: bytes) -> None:
        self.events += 1

    def segment_out(self, now: int, path: int, segment: bytes, retransmission: bool) -> None:
        self.events += 1

    def drop(self, now: int, path: int, segment: bytes, reason: str) -> None:
        self.events += 1

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        self.events += 1

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.events += 1

    def user_call(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.events += 1

    def closed(self, now: int, path: int, local_port: int, remote_port: int, reason: str) -> None:
        self.events += 1


def observers() -> dict[str, MakeObserver]:
    """What to measure: each makes an observer that writes to memory."""
    import structlog

    from utcp.trace import JsonLinesObserver, PcapngObserver, StructlogObserver

    def log(engine: Engine) -> Observer:
        logger = structlog.wrap_logger(
            structlog.PrintLogger(io.StringIO()), processors=[structlog.processors.KeyValueRenderer()]
        )
        observer = StructlogObserver(logger)
        observer.addresses = engine.path_addresses
        return observer

    return {
        "counting": lambda engine: Counting(),
        "pcapng": lambda engine: PcapngObserver(io.BytesIO(), engine.path_addresses),
        "JSON lines": lambda engine: JsonLinesObserver(io.BytesIO()),
        "structlog": log,
    }


def nobody(engine: Engine) -> None:
    """Makes no observer."""


def time_of(observe: MakeObserver, lifecycles: int) -> int:
    """Nanoseconds of processor time, once warm."""
    pair = Pair(observe)
    pair.lifecycles(BATCH)
    gc.collect()
    began = process_time_ns()
    pair.lifecycles(lifecycles)
    return process_time_ns() - began


def events_of(lifecycles: int) -> int:
    counting = Counting()
    pair = Pair(lambda engine: counting)
    pair.lifecycles(lifecycles)
    return counting.events


def measure(lifecycles: int, rounds: int) -> dict[str, Any]:
    """Every observer in turn, ``rounds`` times."""
    kinds = {"nobody": nobody, **observers()}
    best: dict[str, int] = {}
    for _ in range(rounds):
        for name, observe in kinds.items():
            took = time_of(observe, lifecycles)
            best[name] = min(best.get(name, took), took)
    alone = best.pop("nobody")
    events = events_of(lifecycles)
    return {
        "compiled": utcp.__compiled__,
        "lifecycles": lifecycles,
        "events_per_lifecycle": events / lifecycles,
        "us_per_lifecycle": alone / lifecycles / 1000,
        "ns_per_event": {name: (took - alone) / events for name, took in best.items()},
    }


def instructions() -> float:
    """Instructions per lifecycle with nobody looking, as callgrind counts them. RuntimeError without valgrind."""
    small, large = INSTRUCTION_SIZES
    return (count_instructions(large) - count_instructions(small)) / (large - small)


def count_instructions(lifecycles: int) -> int:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError("counting instructions needs valgrind, and there is none")
    command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-P", "-c", ALONE]
    # The installed utcp comes first on the module path, the tree with the benchmarks last
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [*command, root, str(lifecycles)],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or collected is None:
        raise RuntimeError(f"valgrind: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no output'}")
    return int(collected[1])


ALONE = """
import sys
sys.path.append(sys.argv[1])
from benchmarks.trace import Pair, nobody
Pair(nobody).lifecycles(int(sys.argv[2]))
"""


def print_table(figures: dict[str, Any]) -> None:
    print(f"{'compiled' if figures['compiled'] else 'interpreted'}, {figures['lifecycles']:,} lifecycles of both ends")
    print(f"{'events per lifecycle':34} {figures['events_per_lifecycle']:12,.1f}")
    print(f"{'nobody looks, us per lifecycle':34} {figures['us_per_lifecycle']:12,.1f}")
    for name, cost in figures["ns_per_event"].items():
        print(f"{name + ', ns per event':34} {cost:12,.0f}")
    if "instructions_per_lifecycle" in figures:
        print(f"{'nobody looks, instructions':34} {figures['instructions_per_lifecycle']:12,.0f}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--lifecycles", type=int, default=2000, metavar="N", help="in each round (default: %(default)s)")
    add("--rounds", type=int, default=5, metavar="R", help="the best one counts (default: %(default)s)")
    add("--instructions", action="store_true", help="also count instructions per lifecycle, by valgrind on itself")
    add("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args(arguments)
    if options.lifecycles < 1 or options.rounds < 1:
        parser.error("--lifecycles and --rounds are at least 1")
    options.lifecycles = -(-options.lifecycles // BATCH) * BATCH
    figures = measure(options.lifecycles, options.rounds)
    if options.instructions:
        try:
            figures["instructions_per_lifecycle"] = instructions()
        except RuntimeError as error:
            print(f"trace: {error}", file=sys.stderr)
            return 1
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        print_table(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
