"""One process of ``benchmarks.http``: aiohttp's server or its client, over utcp or over the kernel's TCP."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web

import utcp
from benchmarks.stacks import BACKLOG, HOST, KernelStack, Listening, Stack
from benchmarks.worker import Client, Tally, at_interval, drive, facts, open_stdin, say
from benchmarks.workload import Workload
from utcp.aio.loops import endpoints_of

HELLO = b"Hello, world!\n"


@dataclass(frozen=True, kw_only=True)
class HttpWorkload(Workload):
    """Requests for a few bytes; a "lifecycle" is a request. ``in_flight`` of them wait for their answers."""

    in_flight: int = 64
    keep_alive: bool = True  # False: a connection for each request
    ports: int = 8  # of the kernel's server; utcp's has one


class UtcpLoopStack(KernelStack):
    """asyncio's own API in a loop that takes this host by utcp: the same program as over the kernel's TCP."""

    def counters(self) -> dict[str, int]:
        names = (
            "segments_out",
            "retransmissions",
            "resets_out",
            "established",
            "time_wait_reused",
            "time_wait_evicted",
        )
        engines = [endpoint.engine for endpoint in endpoints_of(asyncio.get_running_loop()).endpoints]
        return {name: sum(getattr(engine.counters, name) for engine in engines) for name in names}

    def time_wait(self) -> int:
        return sum(endpoint.engine.time_wait_count for endpoint in endpoints_of(asyncio.get_running_loop()).endpoints)

    def facts(self) -> dict[str, Any]:
        return {"compiled": utcp.__compiled__}


class HttpClient(Client):
    """Requests instead of bare lifecycles."""

    def __init__(self, session: aiohttp.ClientSession, stack: Stack, workload: Workload, ports: list[int]) -> None:
        super().__init__(stack, workload, ports)
        self._session = session

    def start(self) -> list[asyncio.Task[None]]:
        self.live = self.workload.in_flight
        return [asyncio.ensure_future(self.repeat(self.request)) for _ in range(self.live)]

    async def request(self, port: int) -> Exception | None:
        try:
            async with self._session.get(f"http://{HOST}:{port}/") as response:
                if await response.read() != HELLO:
                    return ValueError("another body")
        except aiohttp.ClientError as error:
            return error
        return None


async def serve(stack: Stack, count: int) -> None:
    """The server: ``count`` ports, one answer."""
    tally = Tally(stack)

    async def hello(request: web.Request) -> web.Response:
        tally.done += 1
        return web.Response(body=HELLO)

    app = web.Application()
    app.add_routes([web.get("/", hello)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for _ in range(count):
        await web.TCPSite(runner, HOST, 0, backlog=BACKLOG).start()
    say({"ports": [address[1] for address in runner.addresses]})
    stdin = await open_stdin()
    await at_interval(stdin, tally)
    time_wait = stack.time_wait()
    await stdin.read()
    await runner.cleanup()
    say(asdict(tally.report(0, {"time_wait": time_wait, **facts(stack)})))


async def fetch(stack: Stack, workload: HttpWorkload, listening: Listening) -> None:
    """The client."""
    connector = aiohttp.TCPConnector(limit=0, force_close=not workload.keep_alive)
    async with aiohttp.ClientSession(connector=connector) as session:
        await drive(HttpClient(session, stack, workload, listening["ports"]))


def loop_factory(stack: str, workload: Workload) -> Callable[[], asyncio.AbstractEventLoop]:
    if stack == "utcp":
        return partial(utcp.new_event_loop, {HOST}, base=workload.loop, config=utcp.Config(msl=workload.msl))
    if workload.loop == "asyncio":
        return asyncio.SelectorEventLoop
    import uvloop

    return uvloop.new_event_loop


def main() -> None:
    job = json.loads(sys.argv[1])
    workload = HttpWorkload(**job["workload"])
    stack = UtcpLoopStack() if job["stack"] == "utcp" else KernelStack()
    work = fetch(stack, workload, job["listening"]) if "listening" in job else serve(stack, job["serve_ports"])
    with asyncio.Runner(loop_factory=loop_factory(job["stack"], workload)) as runner:
        runner.run(work)
