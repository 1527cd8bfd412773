"""What memory a connection takes that nobody uses at the moment, over utcp and over kernel TCP.

    python -m benchmarks.idle [--connections 5000] [--json]

One process has both ends of all connections, through asyncio (uvloop). The figures are what the process grew by, and
what the kernel's slabs grew by on the whole machine, each divided by the number of connections: both ends together,
with their transports and protocols, or readers, writers and the server's task. Nothing but the handshake was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import utcp
from benchmarks.pressure import resident_bytes
from benchmarks.run import allow_files
from benchmarks.stacks import Listening, Stack, make_stack
from benchmarks.teardown import at_least
from benchmarks.worker import until
from benchmarks.workload import Api, Workload

STACKS = ("kernel", "utcp")
APIS: tuple[Api, ...] = ("protocol", "streams")
AT_ONCE = 200  # connections being opened
WARM_UP = 50  # connections opened before, for what only the first ones bring
SETTLED_WITHIN = 20.0  # seconds
MEMINFO = Path("/proc/meminfo")


class Idle(asyncio.Protocol):
    """Keeps its transport."""

    kept: list[Any]  # of the process

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.kept.append(transport)


class Ends:
    """Connections of one API, both ends in this process, and what they have to be kept by."""

    def __init__(self, server: Stack, client: Stack, workload: Workload) -> None:
        self.kept: list[Any] = []  # transports; or readers with their writers
        self._handlers = 0  # of streams, running
        self._server, self._client, self._workload = server, client, workload
        self._ports: list[int] = []

    async def listen(self) -> None:
        Idle.kept = self.kept
        if self._workload.api == "protocol":
            listening: Listening = await self._server.serve(self._workload, 1, Idle)
        else:
            listening = await self._server.serve_streams(self._workload, 1, self._handle)
        self._ports = listening["ports"]
        await self._client.open(self._workload, listening)

    async def open(self, count: int) -> None:
        """So many, accepted as well."""
        wanted = len(self.kept) + 2 * count
        for first in range(0, count, AT_ONCE):
            await asyncio.gather(*(self._connect() for _ in range(min(AT_ONCE, count - first))))
        await settled(lambda: len(self.kept) == wanted, "accepted")

    async def abort(self) -> None:
        for one in self.kept:
            transport = one[1].transport if isinstance(one, tuple) else one
            transport.abort()
        await settled(lambda: self._handlers == 0, "aborted")

    async def _connect(self) -> None:
        if self._workload.api == "protocol":
            await self._client.create_connection(Idle, self._ports[0])
        else:
            reader, writer = await self._client.open_connection(self._ports[0])
            self.kept.append((reader, writer))

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.kept.append((reader, writer))
        self._handlers += 1
        try:
            await reader.read()
        except OSError:  # the other end was quicker to abort
            pass
        self._handlers -= 1


async def settled(condition: Callable[[], bool], what: str) -> None:
    """Raises RuntimeError if it does not come true."""
    await until(condition, SETTLED_WITHIN)
    if not condition():
        raise RuntimeError(f"not all connections were {what} within {SETTLED_WITHIN:g} s")


async def grow(stack: str, api: Api, count: int) -> dict[str, Any]:
    ends = Ends(make_stack(stack), make_stack(stack), Workload(api=api))
    await ends.listen()
    await ends.open(WARM_UP)
    gc.collect()
    before, slab = resident_bytes(), slab_bytes()
    await ends.open(count)
    gc.collect()
    resident, slabs = resident_bytes(), slab_bytes()
    await ends.abort()
    return {
        "stack": stack,
        "api": api,
        "connections": count,
        "process, bytes each": (resident - before) / count,
        "kernel, bytes each": None if slab is None or slabs is None else (slabs - slab) / count,
    }


def measure(stack: str, api: Api, count: int) -> dict[str, Any]:
    """One row, in a process of its own."""
    import uvloop

    allow_files(2 * (count + WARM_UP))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(grow(stack, api, count))


def slab_bytes() -> int | None:
    """What the kernel's objects take; None where it does not tell."""
    try:
        return int(MEMINFO.read_text().split("Slab:")[1].split()[0]) * 1024
    except (OSError, LookupError):
        return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.idle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=at_least(1), default=5000, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    jobs = [(stack, api, options.connections) for stack in STACKS for api in APIS]
    try:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            rows = pool.starmap(measure, jobs, chunksize=1)
    except (RuntimeError, OSError) as error:
        print(f"idle: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"compiled": utcp.__compiled__, "rows": rows}, indent=2))
        return 0
    print("compiled" if utcp.__compiled__ else "interpreted")
    for row in rows:
        kernels = "-" if row["kernel, bytes each"] is None else f"{row['kernel, bytes each']:,.0f}"
        print(
            f"{row['stack']:7} {row['api']:9} {row['connections']:8,} connections, "
            f"each {row['process, bytes each']:8,.0f} bytes of the process, {kernels:>7} of the kernel"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
