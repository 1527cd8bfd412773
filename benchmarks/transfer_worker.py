"""One process of ``benchmarks.throughput`` or ``benchmarks.latency``: who sends, or who receives or answers."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.stacks import Stack, make_stack
from benchmarks.worker import Client, Tally, attend, drive, run_job
from benchmarks.workload import Workload


@dataclass(frozen=True, kw_only=True)
class TransferWorkload(Workload):
    """``in_flight`` connections that stay open; a "lifecycle" is a byte in bulk, or a request and its answer.

    ``payload`` is the size of a write, or of a request and of its answer.
    """

    kind: Literal["bulk", "request"] = "bulk"
    in_flight: int = 1
    payload: int = 65_536
    ports: int = 1


class Receiver(asyncio.Protocol):
    """A server's end: takes what comes, or sends it back."""

    def __init__(self, tally: Tally, workload: TransferWorkload) -> None:
        self._tally = tally
        self._answers = workload.kind == "request"
        self._size = workload.payload
        self._missing = self._size  # bytes of the present request

    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._answers:
            self._tally.done += len(data)
            return
        self._transport.write(data)
        self._missing -= len(data)
        if self._missing == 0:
            self._missing = self._size
            self._tally.done += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._tally.fail(exc)


class Sender(asyncio.Protocol):
    """A client's end in bulk: writes whenever it may."""

    def __init__(self, client: TransferClient) -> None:
        self._client = client
        self._paused = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._write()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write()

    def _write(self) -> None:
        client = self._client
        data, tally = client.data, client.tally
        while not self._paused:
            if client.stopping:
                # Not in resume_writing itself: asyncio's selector transport would lose the connection twice
                asyncio.get_running_loop().call_soon(self._transport.close)
                return
            self._transport.write(data)
            tally.done += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.on_lost(exc)


class Requester(asyncio.Protocol):
    """A client's end of requests: one at a time."""

    def __init__(self, client: TransferClient) -> None:
        self._client = client
        self._missing = 0  # bytes of the present answer

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing > 0:
            return
        tally = self._client.tally
        tally.latencies_ns.append(time.monotonic_ns() - self._asked_at)
        tally.done += 1
        if self._client.stopping:
            self._transport.close()
        else:
            self._ask()

    def _ask(self) -> None:
        self._missing = len(self._client.data)
        self._asked_at = time.monotonic_ns()
        self._transport.write(self._client.data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.on_lost(exc)


class TransferClient(Client):
    """Opens the connections, which then do their work until ``stopping``."""

    def __init__(self, stack: Stack, workload: TransferWorkload, ports: list[int]) -> None:
        super().__init__(stack, workload, ports)
        self._protocol = Sender if workload.kind == "bulk" else Requester

    def anything_measured(self) -> bool:
        return self.tally.anything_done() if self._protocol is Sender else super().anything_measured()

    def start(self) -> list[asyncio.Task[None]]:
        self.live = self.workload.in_flight
        return [asyncio.ensure_future(self._open()) for _ in range(self.live)]

    async def _open(self) -> None:
        await self.stack.create_connection(lambda: self._protocol(self), self.next_port())

    def on_lost(self, error: Exception | None) -> None:
        self.live -= 1
        if error is not None:
            self.tally.fail(error)


async def work(job: dict[str, Any]) -> None:
    stack = make_stack(job["stack"])
    workload = TransferWorkload(**job["workload"])
    if "listening" in job:
        await stack.open(workload, job["listening"])
        await drive(TransferClient(stack, workload, job["listening"]["ports"]))
    else:
        tally = Tally(stack)
        await attend(stack, tally, await stack.serve(workload, job["serve_ports"], lambda: Receiver(tally, workload)))
    await stack.close()


def main() -> None:
    job = json.loads(sys.argv[1])
    run_job(work(job), job)
