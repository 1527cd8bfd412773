"""One process of aioquic or qh3: QUIC connections over UDP, each with its TLS 1.3 handshake. Told like worker.py."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import tempfile
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.stacks import HOST, KernelStack
from benchmarks.worker import Client, Tally, at_interval, drive, facts, open_stdin, run_job, say
from benchmarks.workload import Workload

ALPN = ["bench"]


class QuicStack(KernelStack):
    """The library called ``name``; qh3 began as a fork of aioquic and has its modules."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asyncio: Any = import_module(f"{name}.asyncio")
        self.events: Any = import_module(f"{name}.quic.events")
        self.configuration: Any = import_module(f"{name}.quic.configuration")

    def config(self, **fields: Any) -> Any:
        return self.configuration.QuicConfiguration(alpn_protocols=ALPN, **fields)

    def facts(self) -> dict[str, Any]:
        return {"version": version(self.name)}


class QuicClient(Client):
    """Handshake, a stream for the echo if there is one, CONNECTION_CLOSE, and what QUIC waits for after it."""

    async def protocol_lifecycle(self, port: int) -> Exception | None:
        stack: Any = self.stack
        config = stack.config(is_client=True, verify_mode=ssl.CERT_NONE, server_name="localhost")
        async with stack.asyncio.connect(HOST, port, configuration=config) as connection:
            if self.data:
                reader, writer = await connection.create_stream()
                writer.write(self.data)
                writer.write_eof()
                if len(await reader.read()) != len(self.data):
                    return EOFError("the echo was cut short")
        return None


async def serve(stack: QuicStack, tally: Tally) -> None:
    config = stack.config(is_client=False)
    load_certificate(config)

    class Connection(stack.asyncio.QuicConnectionProtocol):  # type: ignore[name-defined,misc]
        def quic_event_received(self, event: Any) -> None:
            super().quic_event_received(event)
            if isinstance(event, stack.events.ConnectionTerminated):
                tally.done += 1

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.write_eof()

    tasks: set[asyncio.Task[None]] = set()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task := asyncio.ensure_future(echo(reader, writer)))
        task.add_done_callback(tasks.discard)

    server = await stack.asyncio.serve(HOST, 0, configuration=config, create_protocol=Connection, stream_handler=handle)
    say({"ports": [server._transport.get_extra_info("sockname")[1]]})
    stdin = await open_stdin()
    await at_interval(stdin, tally)
    await stdin.read()
    say(asdict(tally.report(0, facts(stack))))


def load_certificate(config: Any) -> None:
    """One made for the occasion."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
        chain.write_bytes(certificate.cert_chain_pems[0].bytes() + authority.cert_pem.bytes())
        certificate.private_key_pem.write_to_path(str(key))
        config.load_cert_chain(chain, key)


async def work(job: dict[str, Any]) -> None:
    stack = QuicStack(job["stack"])
    if "listening" in job:
        await drive(QuicClient(stack, Workload(**job["workload"]), job["listening"]["ports"]))
    else:
        await serve(stack, Tally(stack))


def main() -> None:
    job = json.loads(sys.argv[1])
    run_job(work(job), job)
