"""One process of aiortc's SCTP, in Python, without the DTLS that it is made for. Told like worker.py.

All associations share a UDP socket; four bytes before each packet say whose it is. An association is set up by the
four-way handshake of RFC 9260 and ends by ABORT, the only end that aiortc has.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from typing import Any

from benchmarks.stacks import HOST, KernelStack
from benchmarks.worker import Client, Tally, at_interval, drive, facts, open_stdin, run_job, say
from benchmarks.workload import Workload

SCTP_PORT = 5000


class Unencrypted:
    """What aiortc takes for DTLS."""

    state = "connected"

    def __init__(self, role: str, number: int, send: Callable[[bytes], None]) -> None:
        self._role = role
        self._prefix = number.to_bytes(4, "big")
        self._send = send
        self._receiver: Any = None

    def _register_data_receiver(self, receiver: Any) -> None:
        self._receiver = receiver

    def _unregister_data_receiver(self, receiver: Any) -> None:
        self._receiver = None

    async def _send_data(self, data: bytes) -> None:
        self._send(self._prefix + data)

    async def hear(self, data: bytes) -> None:
        if self._receiver is not None:
            await self._receiver._handle_data(data)


class SctpStack(KernelStack, asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self._library: Any = import_module("aiortc.rtcsctptransport")
        self.lowers: dict[int, Unencrypted] = {}
        self.accept: Callable[[int, Any], Unencrypted] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, peer: Any) -> None:
        number = int.from_bytes(data[:4], "big")
        lower = self.lowers.get(number)
        if lower is None:
            if self.accept is None:
                return
            lower = self.accept(number, peer)
        self._tasks.add(task := asyncio.ensure_future(lower.hear(data[4:])))
        task.add_done_callback(self._tasks.discard)

    def association(self, lower: Unencrypted, number: int, on_state: Callable[[Any], None]) -> Any:
        self.lowers[number] = lower
        association = self._library.RTCSctpTransport(lower)
        set_state = association._set_state

        def tell(state: Any) -> None:
            set_state(state)
            on_state(state.name)

        association._set_state = tell
        return association

    def facts(self) -> dict[str, Any]:
        return {"version": version("aiortc")}


class SctpClient(Client):
    _number = 0

    async def protocol_lifecycle(self, port: int) -> Exception | None:
        stack: Any = self.stack
        self._number = number = self._number + 1
        established: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_state(state: str) -> None:
            if state == "ESTABLISHED" and not established.done():
                established.set_result(None)

        lower = Unencrypted("client", number, stack.transport.sendto)
        association = stack.association(lower, number, on_state)
        await association.start(None, SCTP_PORT)
        await established
        await association.stop()
        del stack.lowers[number]
        return None


async def connect(stack: SctpStack, workload: Workload, ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: stack, remote_addr=(HOST, ports[0]))
    await drive(SctpClient(stack, workload, ports))


async def serve(stack: SctpStack) -> None:
    tally = Tally(stack)

    def accept(number: int, peer: Any) -> Unencrypted:
        def on_state(state: str) -> None:
            if state == "CLOSED" and stack.lowers.pop(number, None) is not None:
                tally.done += 1

        lower = Unencrypted("server", number, lambda data: stack.transport.sendto(data, peer))
        association = stack.association(lower, number, on_state)
        # start() would send an INIT of its own, as WebRTC has it; this side waits for the client's
        association._RTCSctpTransport__started = True
        association._remote_port = SCTP_PORT
        association._data_channel_id = 1
        lower._register_data_receiver(association)
        return lower

    stack.accept = accept
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: stack, (HOST, 0))
    say({"ports": [stack.transport.get_extra_info("sockname")[1]]})
    stdin = await open_stdin()
    await at_interval(stdin, tally)
    await stdin.read()
    say(asdict(tally.report(0, facts(stack))))


async def work(job: dict[str, Any]) -> None:
    stack = SctpStack()
    if "listening" in job:
        await connect(stack, Workload(**job["workload"]), job["listening"]["ports"])
    else:
        await serve(stack)


def main() -> None:
    job = json.loads(sys.argv[1])
    run_job(work(job), job)
