"""One side of ``utcp demo``: an ordinary asyncio program on utcp streams, in a process of its own.

It tells the demo everything on standard output, a record a line: what its engine's observer sees, and in between

- ``listening`` with ``address``: where the server is;
- ``note`` with ``text``: what the program is about to do;
- ``exchanged``: with ``--close both``, that it has everything and waits for the instant to close;
- ``result``: bytes and digests each way, how the connection ended, the engine's counters.

Lines on standard input are JSON, too: the server's address for the client, the instant at which to close. Its end
is the sign to leave, whatever goes on: no process outlives the demo.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import socket
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from typing import Any, Final

import utcp
from utcp.cli.lossy import LossySocket
from utcp.core.states import State
from utcp.trace.jsonlines import JsonLinesObserver
from utcp.trace.records import Record

UPLOAD: Final = 5_000  # bytes from the client while both sides are open
ANSWER: Final = 3_000  # bytes from the server meanwhile
DRAIN_WRITES: Final = 4
DRAIN_PAUSE: Final = 0.1  # seconds between these writes, so that one can watch

HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Plan:
    """What the two processes do: the demo's options, and the role of one of them."""

    role: str  # client or server
    close: str  # who closes first: client, server or both
    msl: float
    loss: float
    seed: int
    drain: int
    loop: str
    ecn: bool = False

    @property
    def size(self) -> int:
        """How many bytes this side sends while both are open."""
        return UPLOAD if self.role == "client" else ANSWER

    @property
    def peer_size(self) -> int:
        return ANSWER if self.role == "client" else UPLOAD


def main() -> None:
    """Play the side that the command line's JSON describes."""
    plan = Plan(**json.loads(sys.argv[1]))
    factory = None
    if plan.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            runner.run(_Side(plan).run())
        except Exception:  # an error of ours: say so, and do not stay to close gracefully
            traceback.print_exc()
            os._exit(1)


class _Reporter(JsonLinesObserver):
    """Writes each record at once, and knows when the connection has reached CLOSED."""

    def __init__(self) -> None:
        super().__init__(sys.stdout.buffer, raw=True)
        self.gone = asyncio.Event()

    def write(self, record: Record) -> None:
        super().write(record)
        self.flush()

    def say(self, event: str, **fields: Any) -> None:
        self.write({"t": time.monotonic_ns(), "event": event, **fields})

    def lost(self, event: str, segment: bytes) -> None:
        self.write(self.segment_record(time.monotonic_ns(), event, 0, segment))

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        super().state_change(now, path, local_port, remote_port, old, new)
        if new == State.CLOSED:
            self.gone.set()


class _Side:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._reporter = _Reporter()
        self._orders: asyncio.Queue[Any] = asyncio.Queue()
        self._finished = False
        self._sent = hashlib.sha256()
        self._sent_bytes = 0
        self._received = hashlib.sha256()
        self._received_bytes = 0
        self._random = random.Random(f"{plan.seed} {plan.role} data")

    async def run(self) -> None:
        """The whole life of this process."""
        plan = self._plan
        listening = asyncio.create_task(self._listen_to_orders())
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((HOST, 0))
        network = LossySocket(sock, loss=plan.loss, seed=f"{plan.seed} {plan.role}", lost=self._reporter.lost)
        config = utcp.Config(msl=plan.msl, ecn=plan.ecn or "passive")
        self._endpoint = utcp.Endpoint(network, config=config, observer=self._reporter)
        result: dict[str, Any]
        try:
            if plan.role == "server":
                result = await self._serve()
            else:
                result = await self._connect()
        except OSError as exc:
            result = {"error": f"{type(exc).__name__}: {exc}"}
        self._finished = True
        self._reporter.say("result", **result, **self._totals(), counters=self._endpoint.engine.counters.as_dict())
        # Stay, to answer what the other side may still send, until the demo says that it has finished, too.
        await listening
        self._endpoint.abort()

    async def _listen_to_orders(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            self._orders.put_nowait(json.loads(line))
        if not self._finished:
            os._exit(1)  # the demo is gone: nobody is left to tell anything
        pipe.close()

    async def _serve(self) -> dict[str, Any]:
        accepted: asyncio.Future[tuple[utcp.StreamReader, utcp.StreamWriter]] = asyncio.Future()

        def accept(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            accepted.set_result((reader, writer))

        address = self._endpoint.local_addr
        async with await utcp.start_server(accept, *address, endpoint=self._endpoint):
            self._reporter.say("listening", address=address)
            return await self._live(*await accepted)

    async def _connect(self) -> dict[str, Any]:
        host, port = await self._orders.get()
        return await self._live(*await utcp.open_connection(host, port, endpoint=self._endpoint))

    async def _live(self, reader: utcp.StreamReader, writer: utcp.StreamWriter) -> dict[str, Any]:
        """The connection's life, from the handshake to CLOSED."""
        plan = self._plan
        await self._send(writer, plan.size)
        if plan.close == "both":
            await self._close_together(reader, writer)
        elif plan.close == plan.role:
            await self._close_first(reader, writer)
        else:
            await self._close_second(reader, writer)
        writer.close()
        info = await writer.transport.closed()
        await self._reporter.gone.wait()
        return {"reason": info.reason, "last_ack_missing": info.last_ack_missing, "unread_bytes": info.unread_bytes}

    async def _close_first(self, reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        self._note_received(await reader.readexactly(self._plan.peer_size))
        writer.write_eof()
        await self._receive_to_the_end(reader)

    async def _close_second(self, reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        await self._receive_to_the_end(reader)
        left = self._plan.drain
        if left:
            self._say(writer, f"has seen the FIN, and drains its last {left:,} bytes")
        for writes in range(min(DRAIN_WRITES, left), 0, -1):
            await asyncio.sleep(DRAIN_PAUSE)
            await self._send(writer, size := left // writes)
            left -= size
        if self._plan.drain:
            await asyncio.sleep(DRAIN_PAUSE)

    async def _close_together(self, reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        """Both half-close at one instant, each too busy just before it to see the other's FIN."""
        plan = self._plan
        if plan.role == "server":
            await self._send(writer, plan.drain)
        expected = plan.peer_size + (plan.drain if plan.role == "client" else 0)
        self._note_received(await reader.readexactly(expected))
        self._reporter.say("exchanged")
        close_at = await self._orders.get()
        time.sleep(max(close_at - time.monotonic_ns(), 0) / 1e9)  # noqa: ASYNC251 - busy is what it has to be
        writer.write_eof()
        await self._receive_to_the_end(reader)

    async def _send(self, writer: utcp.StreamWriter, size: int) -> None:
        while size > 0:
            data = self._random.randbytes(min(size, 65_536))
            self._sent.update(data)
            self._sent_bytes += len(data)
            size -= len(data)
            writer.write(data)
            await writer.drain()

    async def _receive_to_the_end(self, reader: utcp.StreamReader) -> None:
        while data := await reader.read(65_536):
            self._note_received(data)

    def _note_received(self, data: bytes) -> None:
        self._received.update(data)
        self._received_bytes += len(data)

    def _say(self, writer: utcp.StreamWriter, text: str) -> None:
        local, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        self._reporter.say("note", path=0, local_port=local[1], remote_port=peer[1], text=text)

    def _totals(self) -> dict[str, Any]:
        return {
            "sent": {"bytes": self._sent_bytes, "sha256": self._sent.hexdigest()},
            "received": {"bytes": self._received_bytes, "sha256": self._received.hexdigest()},
        }


def plan_json(plan: Plan) -> str:
    """A plan as the command line takes it."""
    return json.dumps(asdict(plan))


if __name__ == "__main__":
    main()
