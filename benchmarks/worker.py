"""One process of a measurement: a server or a client, over any stack. peers.py says what it reads and writes."""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.stacks import Handler, Stack, make_stack
from benchmarks.workload import Report, Workload

SAMPLE_EVERY = 8  # lifecycles whose duration is kept: taking the time twice is not free
SOMETHING_WITHIN = 10.0  # seconds that the measured interval goes on for while nothing is completed in it
FINISH_WITHIN = 5.0  # seconds for the last lifecycles, once no more are begun
TIME_WAIT_WITHIN = 5.0  # a longer 2MSL is not waited out at the end


class Tally:
    """What this process has completed, and what it had when the measured interval began and ended."""

    def __init__(self, stack: Stack) -> None:
        self.done = 0
        self.failed: dict[str, int] = {}
        self.latencies_ns: list[int] = []
        self._stack = stack
        asyncio.get_running_loop().set_exception_handler(self.handle_exception)
        self._marks: list[tuple[float, int, float, dict[str, int]]] = []

    async def measure(self, begin: float, end: float, measured: Callable[[], bool]) -> None:
        """Mark the interval. Where nothing is ``measured`` by its end it lasts longer, until there is something."""
        await sleep_until(begin)
        self.latencies_ns.clear()
        self.mark()
        await sleep_until(end)
        await until(measured, SOMETHING_WITHIN)
        self.mark()

    def anything_done(self) -> bool:
        """Since the interval began."""
        return self.done > self._marks[0][1]

    def mark(self) -> None:
        self._marks.append((time.monotonic(), self.done, cpu_seconds(), self._stack.counters()))

    def fail(self, error: object) -> None:
        name = type(error).__name__
        self.failed[name] = self.failed.get(name, 0) + 1

    def handle_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler: the first of a kind is shown, all are counted."""
        error = context.get("exception")
        if type(error).__name__ not in self.failed:
            loop.default_exception_handler(context)
        self.fail(error)

    def report(self, unfinished: int, facts: dict[str, Any]) -> Report:
        (t0, done0, cpu0, counters0), (t1, done1, cpu1, counters1) = self._marks
        ordered = sorted(self.latencies_ns)
        return Report(
            lifecycles=done1 - done0,
            interval=t1 - t0,
            cpu_seconds=cpu1 - cpu0,
            peak_rss=peak_rss(),
            errors=sum(self.failed.values()),
            unfinished=unfinished,
            latencies_us=[percentile(ordered, 0.5) / 1000, percentile(ordered, 0.99) / 1000] if ordered else [],
            counters={name: counters1[name] - before for name, before in counters0.items()},
            facts={"failed": self.failed, **facts},
        )


class EchoServer(asyncio.Protocol):
    """Echoes; the peer's FIN closes (that is asyncio's default)."""

    tally: Tally

    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.tally.done += 1
        if exc is not None:
            self.tally.fail(exc)


async def serve(stack: Stack, workload: Workload, count: int) -> None:
    tally = EchoServer.tally = Tally(stack)

    if workload.api == "protocol":
        listening = await stack.serve(workload, count, EchoServer)
    else:
        listening = await stack.serve_streams(workload, count, stream_echo(tally))
    await attend(stack, tally, listening)


async def attend(stack: Stack, tally: Tally, listening: dict[str, Any]) -> None:
    """Have the server do its work, and report."""
    say(listening)
    stdin = await open_stdin()
    await at_interval(stdin, tally)
    time_wait = stack.time_wait()
    await stdin.read()
    say(asdict(tally.report(0, {"time_wait": time_wait, **facts(stack)})))


def stream_echo(tally: Tally) -> Handler:
    """EchoServer for streams."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()
            await writer.wait_closed()
        except OSError as error:
            tally.fail(error)
        tally.done += 1

    return handle


class Client:
    """Keeps ``in_flight`` lifecycles going, and begins no more once ``stopping``."""

    def __init__(self, stack: Stack, workload: Workload, ports: list[int]) -> None:
        self.stack = stack
        self.workload = workload
        self.ports = ports
        self.data = bytes(workload.payload)
        self.tally = Tally(stack)
        self.live = 0
        self.stopping = False
        self._turn = 0

    def next_port(self) -> int:
        """The server's ports in turn."""
        self._turn += 1
        return self.ports[self._turn % len(self.ports)]

    def sample_time(self) -> int:
        """Now, in nanoseconds, for a lifecycle whose duration is kept; 0 for the others."""
        return 0 if self._turn % SAMPLE_EVERY else time.monotonic_ns()

    def anything_measured(self) -> bool:
        """Whether something was completed in the measured interval, and how long it took is known."""
        return self.tally.anything_done() and bool(self.tally.latencies_ns)

    def complete(self, started: int, error: BaseException | None) -> None:
        if error is not None:
            self.tally.fail(error)
            return
        self.tally.done += 1
        if started and not self.stopping:
            self.tally.latencies_ns.append(time.monotonic_ns() - started)

    def start(self) -> list[asyncio.Task[None]]:
        """Begin the lifecycles. The tasks that go on with them are to be kept."""
        self.live = self.workload.in_flight
        ClientProtocol.client = self
        if self.workload.connect == "direct":
            for _ in range(self.live):
                self.connect_directly()
            return []
        lifecycle = self.protocol_lifecycle if self.workload.api == "protocol" else self.streams_lifecycle
        return [asyncio.ensure_future(self.repeat(lifecycle)) for _ in range(self.live)]

    async def repeat(self, lifecycle: Callable[[int], Awaitable[Exception | None]]) -> None:
        while not self.stopping:
            port = self.next_port()
            started = self.sample_time()
            try:
                error = await lifecycle(port)
            except OSError as raised:
                error = raised
            self.complete(started, error)
        self.live -= 1

    async def protocol_lifecycle(self, port: int) -> Exception | None:
        protocol = await self.stack.create_connection(AwaitedClient, port)
        error: Exception | None = await protocol.lost
        return error

    async def streams_lifecycle(self, port: int) -> Exception | None:
        reader, writer = await self.stack.open_connection(port)
        if self.data:
            writer.write(self.data)
            await reader.readexactly(len(self.data))
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        return None

    def connect_directly(self) -> None:
        port = self.next_port()
        factory: Callable[[], DirectClient] = DirectClient
        if not self._turn % SAMPLE_EVERY:
            protocol = DirectClient()
            protocol.started = time.monotonic_ns()
            factory = lambda: protocol  # noqa: E731
        try:
            self.stack.connect(factory, port)
        except OSError as error:
            self.tally.fail(error)
            self.live -= 1


class ClientProtocol(asyncio.Protocol):
    """Connect, optional echo, half-close; the server's FIN closes."""

    client: Client
    transport: Any
    missing: int

    def connection_made(self, transport: Any) -> None:
        data = self.client.data
        if data:
            self.transport = transport
            self.missing = len(data)
            transport.write(data)
        else:
            transport.write_eof()

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if not self.missing:
            self.transport.write_eof()


class AwaitedClient(ClientProtocol):
    def __init__(self) -> None:
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


class DirectClient(ClientProtocol):
    started = 0  # unless its duration is kept

    def connection_lost(self, exc: Exception | None) -> None:
        client = self.client
        client.complete(self.started, exc)
        if client.stopping:
            client.live -= 1
        else:
            client.connect_directly()


async def connect(stack: Stack, workload: Workload, listening: dict[str, Any]) -> None:
    await stack.open(workload, listening)
    await drive(Client(stack, workload, listening["ports"]))


async def drive(client: Client) -> None:
    """Have the client do its work, and report."""
    stack, workload = client.stack, client.workload
    say({})
    stdin = await open_stdin()
    begin, end = map(float, (await stdin.readline()).split())
    tasks = client.start()
    await client.tally.measure(begin, end, client.anything_measured)
    time_wait = stack.time_wait()
    client.stopping = True
    await until(lambda: client.live == 0, FINISH_WITHIN)
    for task in tasks:
        task.cancel()  # of those that never finished
    left: dict[str, Any] = {"time_wait": time_wait}
    if time_wait and 2 * workload.msl <= TIME_WAIT_WITHIN:
        await until(lambda: stack.time_wait() == 0, 2 * workload.msl + 1)
        left["time_wait_after_2msl"] = stack.time_wait()
    say(asdict(client.tally.report(client.live, {**left, **facts(stack)})))


async def at_interval(stdin: asyncio.StreamReader, tally: Tally) -> None:
    begin, end = map(float, (await stdin.readline()).split())
    await tally.measure(begin, end, tally.anything_done)


async def sleep_until(instant: float) -> None:
    await asyncio.sleep(max(0.0, instant - time.monotonic()))


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for the condition, but not for ever. (Looking is cheap; telling would cost each lifecycle something.)"""
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def open_stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


def say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def facts(stack: Stack) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "gc": {"enabled": gc.isenabled(), "threshold": gc.get_threshold(), "frozen": gc.get_freeze_count()},
        **stack.facts(),
    }


def percentile(ordered: list[int], fraction: float) -> int:
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_rss() -> int:
    """Bytes. Linux's ru_maxrss survives exec, so that a child would answer for its parent: VmHWM does not."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, LookupError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


async def work(job: dict[str, Any]) -> None:
    stack = make_stack(job["stack"])
    workload = Workload(**job["workload"])
    if "listening" in job:
        await connect(stack, workload, job["listening"])
    else:
        await serve(stack, workload, job["serve_ports"])
    await stack.close()


def run_job(work: Coroutine[Any, Any, None], job: dict[str, Any]) -> None:
    """Run it on the workload's event loop."""
    if job["workload"]["loop"] == "uvloop":
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)


def main() -> None:
    job = json.loads(sys.argv[1])
    run_job(work(job), job)
