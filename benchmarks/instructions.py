"""What one lifecycle costs in machine instructions: a figure that the noise of a busy machine does not touch.

    python -m benchmarks.instructions                 # all cases, beside the committed figures
    python -m benchmarks.instructions --check         # fails if one has grown by more than the tolerance
    python -m benchmarks.instructions --update        # writes benchmarks/instructions.json
    python -m benchmarks.instructions --profile direct   # where they go, function by function

Valgrind's callgrind counts what a process executes outside of the kernel. Each case runs twice, for different
numbers of rounds, and the difference is what counts, so that starting Python does not. Both ends run in one
process, over two sockets. The figures hold for compiled utcp on one kind of processor, compiler and Python;
that is why the tolerance is wide.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import utcp
from benchmarks.peers import ROOT
from benchmarks.trace import BATCH, PORT, Pair, nobody
from benchmarks.workload import Workload
from utcp.aio.hosts import OperatingSystem
from utcp.core.config import Config
from utcp.core.engine import Engine

COMMITTED = Path(__file__).with_suffix(".json")
TOLERANCE = 0.1  # how much a figure may grow
IN_FLIGHT = 512

BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from benchmarks.instructions import run_case; run_case()"


# The cases


def engine_lifecycles(count: int) -> None:
    """Two engines and nothing between them."""
    Pair(nobody).lifecycles(count)


def engine_segments(count: int) -> None:
    """Full segments one way over one connection between two engines, and the acknowledgments that they cause."""
    config = Config(nodelay=True)
    client, server = Engine(config, secret=bytes(32)), Engine(config, secret=bytes(32))
    to_server, to_client = client.path("client", "server"), server.path("server", "client")
    listener = server.listen(PORT)
    conn = client.connect(to_server, PORT, 0)
    now = 0

    def exchange() -> None:
        nonlocal now
        now += 1_000_000
        for sender, receiver, path in ((client, server, to_client), (server, client, to_server)):
            for train in sender.transmit(now):
                receiver.receive(path, train.payload(), now, train.segment_size)
            sender.handle_timeout(now)

    while (reader := listener.accept()) is None:
        exchange()
    data = bytes(conn.smss * BATCH)
    for _ in range(count // BATCH):
        conn.send(data, now)
        while conn.unacked_bytes:
            exchange()
            reader.receive()


def aio_lifecycles(**how: Any) -> Callable[[int], None]:
    """Lifecycles of benchmarks.teardown, both ends in this process."""

    async def live(count: int) -> None:
        from benchmarks.utcp_stack import UtcpStack
        from benchmarks.worker import Client, EchoServer, Tally, stream_echo

        class Counting(Client):
            def complete(self, started: int, error: BaseException | None) -> None:
                # In full, not by super(): that alone would be a hundredth of a lifecycle
                if error is not None:
                    self.tally.fail(error)
                self.tally.done += 1
                self.stopping = self.tally.done >= count

        loop: Any = asyncio.get_running_loop()
        loop.utcp_host = SlowHost()
        workload = Workload(**{"in_flight": IN_FLIGHT, "msl": 0.05, **how})
        there, here = UtcpStack(), UtcpStack()
        tally = EchoServer.tally = Tally(there)
        if workload.api == "protocol":
            listening = await there.serve(workload, 11, EchoServer)
        else:
            listening = await there.serve_streams(workload, 11, stream_echo(tally))
        await here.open(workload, listening)
        client = Counting(here, workload, listening["ports"])
        _tasks = client.start()  # held: the garbage collector takes a task that waits and that nobody holds
        while client.live:  # noqa: ASYNC110 - as benchmarks.worker: telling would cost each lifecycle something
            await asyncio.sleep(0.5)
        assert not client.tally.failed, client.tally.failed
        os._exit(0)  # nor does the end count

    def run(count: int) -> None:
        import uvloop

        uvloop.run(live(count))

    return run


def aio_requests(count: int) -> None:
    """Requests of 64 bytes and their answers over one connection, one at a time, both ends in this process."""

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    class Asking(Answering):
        left = count

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(bytes(64))

        def data_received(self, data: bytes) -> None:
            self.left -= 1
            if self.left == 0:
                os._exit(0)  # the end does not count
            self.transport.write(data)

    async def exchange() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.utcp_host = SlowHost()
        server = await utcp.create_server(Answering, "127.0.0.1", 0)
        async with await utcp.Endpoint.create(("127.0.0.1", 0)) as endpoint:
            await endpoint.create_connection(Asking, *server.sockets[0].getsockname()[:2])
            await loop.create_future()

    import uvloop

    uvloop.run(exchange())


class SlowHost(OperatingSystem):
    """Its clock advances by 20 us each time it is looked at: under callgrind all else takes 50 times too long."""

    def __init__(self) -> None:
        self.clock = functools.partial(next, itertools.count(10**9, 20_000))  # about as dear as time.monotonic_ns


class Case(NamedTuple):
    what: str
    run: Callable[[int], None]
    rounds: tuple[int, int]  # of the shorter and of the longer run


CASES = {
    "engine": Case("lifecycle in the engine, both ends", engine_lifecycles, (640, 3200)),
    "segment": Case("data segment in the engine, both ends", engine_segments, (640, 3200)),
    "direct": Case("lifecycle by Endpoint.connect, both ends", aio_lifecycles(connect="direct"), (1024, 4096)),
    "await": Case("lifecycle by create_connection, both ends", aio_lifecycles(), (1024, 4096)),
    "streams": Case("lifecycle over streams, both ends", aio_lifecycles(api="streams"), (1024, 4096)),
    "unbatched": Case(
        "the same as direct, without GSO and GRO", aio_lifecycles(connect="direct", batched=False), (1024, 3072)
    ),
    "request": Case("a request of 64 bytes and its answer, both ends", aio_requests, (500, 2000)),
    "alone": Case("the same as await, 1 in flight", aio_lifecycles(in_flight=1, msl=60.0), (500, 2000)),
}


def run_case() -> None:
    """In a process of its own: case, rounds."""
    CASES[sys.argv[1]].run(int(sys.argv[2]))


# Counting


def command(name: str, rounds: int) -> list[str]:
    """As benchmarks.peers: the installed utcp counts, not the source tree that is the current folder."""
    return [sys.executable, "-P", "-c", BOOT, str(ROOT), name, str(rounds)]


def count(name: str) -> int:
    """Instructions a round."""
    case = CASES[name]
    few, many = (callgrind(name, rounds, os.devnull) for rounds in case.rounds)
    return round((many - few) / (case.rounds[1] - case.rounds[0]))


def callgrind(name: str, rounds: int, output: str) -> int:
    """Instructions in all. RuntimeError if the process failed."""
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", *command(name, rounds)],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return int(found[1])


def profile(name: str) -> None:
    """Print what callgrind_annotate makes of the longer run."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "callgrind.out")
        callgrind(name, CASES[name].rounds[1], output)
        subprocess.run(["callgrind_annotate", output], check=True)


# Figures


def facts() -> dict[str, Any]:
    """What figures hold for: with other facts they differ by more than the tolerance."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "compiled": utcp.__compiled__,
    }


def grown(figures: dict[str, int], committed: dict[str, int]) -> list[str]:
    """The cases that cost more than the tolerance allows."""
    return [name for name, now in figures.items() if name in committed and now > committed[name] * (1 + TOLERANCE)]


def print_table(figures: dict[str, int], committed: dict[str, int]) -> None:
    for name, now in figures.items():
        before = committed.get(name)
        change = f"{now / before - 1:+7.1%} against {before:,}" if before else "nothing committed"
        print(f"{name:10} {now:10,}  {change:30} {CASES[name].what}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--case", choices=CASES, action="append", help="only this one; may be repeated")
    add("--profile", choices=CASES, metavar="CASE", help="print callgrind's account of one case")
    add(
        "--check",
        action="store_true",
        help=f"exit 1 if one is more than {TOLERANCE * 100:.0f} %% above the committed figure",
    )
    add("--update", action="store_true", help="make these the committed figures")
    add("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if shutil.which("valgrind") is None:
        print("instructions: SKIPPED: valgrind is not installed, and nothing was counted", file=sys.stderr)
        return 0
    if options.profile:
        profile(options.profile)
        return 0
    try:
        figures = {name: count(name) for name in options.case or CASES}
    except RuntimeError as error:
        print(f"instructions: {error}", file=sys.stderr)
        return 1
    kept = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {"instructions": {}}
    if options.json:
        print(json.dumps({**facts(), "instructions": figures}, indent=2))
    else:
        print_table(figures, kept["instructions"])
    if options.update:
        whole = {**facts(), "instructions": {**kept["instructions"], **figures}}
        COMMITTED.write_text(json.dumps(whole, indent=2) + "\n")
        return 0
    return check(figures, kept) if options.check else 0


def check(figures: dict[str, int], kept: dict[str, Any]) -> int:
    here = facts()
    if here != {name: kept[name] for name in here}:
        print(f"instructions: SKIPPED: the committed figures are not of {here}", file=sys.stderr)
        return 0
    worse = grown(figures, kept["instructions"])
    if worse:
        print(f"instructions: more than {TOLERANCE:.0%} above the committed: {', '.join(worse)}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
