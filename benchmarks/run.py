"""Run one workload by one peer, once: two processes, and what they and the system say about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import time
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.peers import Peer
from benchmarks.workload import Report, Result, Workload

READY_WITHIN = 20.0  # seconds to start, or to stop
SPARE_FILES = 100  # descriptors that are none of a connection's


async def run_once(workload: Workload, peer: Peer) -> Result:
    """Start server and client, measure one interval, stop both. RuntimeError if a process fails."""
    async with started(peer.server(workload)) as server:
        listening = await hear(server)
        async with started(peer.client(workload, listening)) as client:
            await hear(client)
            begin = time.monotonic() + workload.warmup
            end = begin + workload.seconds
            for process in (server, client):
                tell(process, f"{begin} {end}\n")
            await asyncio.sleep(workload.warmup)
            before = peer.system_counters()
            await asyncio.sleep(end - time.monotonic())
            after = peer.system_counters()
            client_report = report(await hear(client, workload.msl * 2))
        assert server.stdin is not None
        server.stdin.close()
        server_report = report(await hear(server))
    system = {name: after[name] - before[name] for name in before}
    if after:
        system["time_wait"] = after["time_wait"]
    return result(peer, client_report, server_report, system)


def allow_files(connections: int) -> None:
    """A descriptor for each in this process and those it starts. RuntimeError where the system allows less."""
    count = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and count > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
        except (ValueError, OSError):
            raise RuntimeError(f"{count:,} file descriptors are needed, {hard:,} allowed (ulimit -n)") from None


@contextlib.asynccontextmanager
async def started(command: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), READY_WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def tell(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode())


async def hear(process: asyncio.subprocess.Process, extra: float = 0.0) -> dict[str, Any]:
    """The next line of a process, an object."""
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), READY_WITHIN + extra)
    except TimeoutError:
        raise RuntimeError(f"a benchmark process has said nothing for {READY_WITHIN + extra:g} s") from None
    if not line:
        raise RuntimeError(f"a benchmark process ended early with status {await process.wait()}")
    message: dict[str, Any] = json.loads(line)
    return message


def report(message: dict[str, Any]) -> Report:
    return Report(**message)


def result(peer: Peer, client: Report, server: Report, system: dict[str, int]) -> Result:
    """Both ends' reports as one row. Where the system counts for a peer, its own processes do not."""
    own = {name: count + server.counters.get(name, 0) for name, count in client.counters.items()}
    counters = {**system, **own}
    lifecycles = max(client.lifecycles, 1)
    p50, p99 = client.latencies_us or (0.0, 0.0)
    time_wait = client.facts.pop("time_wait", 0) + server.facts.pop("time_wait", 0)
    return Result(
        peer=peer.name,
        rate=min(client.lifecycles / client.interval, server.lifecycles / server.interval),
        p50_us=p50,
        p99_us=p99,
        segments_per_lifecycle=counters.get("segments_out", 0) / lifecycles,
        retransmissions=counters.get("retransmissions", 0),
        time_wait=system.get("time_wait", time_wait),
        pairs_reused=counters.get("time_wait_reused"),
        cpu_us_per_lifecycle=(client.cpu_seconds + server.cpu_seconds) / lifecycles * 1e6,
        peak_rss_client=client.peak_rss,
        peak_rss_server=server.peak_rss,
        errors=client.errors + server.errors,
        unfinished=client.unfinished,
        counters=counters,
        client=client.facts,
        server=server.facts,
    )
