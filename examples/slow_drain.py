"""A long drain: the client has sent its FIN, the server still has megabytes to deliver, and the client reads slowly.

Every half second each side shows, in the words of `ss`, its state, Recv-Q (arrived, not read) and Send-Q (written, not
acknowledged); then what is in flight and SND.WND, the peer's window. The server is in CLOSE-WAIT while it has to
wait before it can write on, and in LAST-ACK from its close() until the last byte and its FIN are acknowledged.

    python examples/slow_drain.py                        # both sides in one process
    python examples/slow_drain.py server                 # or each in a terminal of its own
    python examples/slow_drain.py client --rate 100000
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress

import utcp
import utcp.trace

CHUNK = 65_536
STEP = 0.05  # seconds between two reads of the slow reader
# A small buffer at the reader, so that the queue stays with the writer; segments as on an Ethernet
CONFIG = utcp.Config(receive_buffer=65_536, max_segment_size=1_400)
BEGAN = time.monotonic()


def say(side: str, text: str) -> None:
    print(f"{time.monotonic() - BEGAN:6.2f} s  {side:6}  {text}", flush=True)


async def watch(side: str, transport: utcp.Transport, interval: float) -> None:
    """Show the connection until its teardown is complete."""
    ended = asyncio.ensure_future(transport.closed())
    while not ended.done():
        now = transport.info()
        queues = f"Recv-Q {now.unread_bytes:>9,}  Send-Q {now.unacked_bytes:>9,}"
        say(side, f"{now.state!s:11} {queues}  in flight {now.bytes_in_flight:>7,}  window {now.snd_wnd:>7,}")
        await asyncio.wait([ended], timeout=interval)
    say(side, str(transport.state))


def body_of(size: int) -> bytes:
    return (b"0123456789abcde\n" * (size // 16 + 1))[:size]


async def deliver(writer: utcp.StreamWriter, size: int) -> None:
    body = memoryview(body_of(size))
    for start in range(0, size, CHUNK):
        writer.write(body[start : start + CHUNK])
        await writer.drain()  # CLOSE-WAIT: the peer has said it all, we have not
    writer.close()  # LAST-ACK: the FIN queues behind what is left


async def ask(host: str, port: int, size: int, rate: int, interval: float) -> None:
    """The client: one question, then FIN, then nothing but reading."""
    reader, writer = await utcp.open_connection(host, port, config=CONFIG, limit=CHUNK // 4)
    writer.write(size.to_bytes(8))
    writer.write_eof()
    watching = asyncio.ensure_future(watch("client", writer.transport, interval))
    digest, received = hashlib.sha256(), 0
    while data := await reader.read(max(int(rate * STEP), 1)):
        digest.update(data)
        received += len(data)
        await asyncio.sleep(len(data) / rate)
    writer.close()
    await watching
    info = await writer.transport.closed()
    say("client", f"{received:,} bytes read; {info}")
    if info.reason != "graceful" or digest.digest() != hashlib.sha256(body_of(size)).digest():
        raise ValueError(f"{received:,} of {size:,} bytes came, or others: {info}")


@asynccontextmanager
async def serving(host: str, port: int, interval: float, pcap: str | None) -> AsyncIterator[utcp.Server]:
    async def answer(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        request = await reader.read()  # up to the client's FIN
        delivering = deliver(writer, int.from_bytes(request))
        await asyncio.gather(watch("server", writer.transport, interval), delivering, return_exceptions=True)
        say("server", str(await writer.transport.closed()))

    async with await utcp.Endpoint.create(local_addr=(host, port)) as endpoint:
        with utcp.trace.capture(endpoint, pcap) if pcap else nullcontext():
            async with await utcp.start_server(answer, endpoint=endpoint, config=CONFIG) as server:
                yield server


async def serve(host: str, port: int, interval: float, pcap: str | None) -> None:
    async with serving(host, port, interval, pcap) as server:
        say("server", f"listening on {host}, UDP and TCP port {server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


async def both(host: str, size: int, rate: int, interval: float, pcap: str | None) -> None:
    async with serving(host, 0, interval, pcap) as server:
        await ask(host, server.sockets[0].getsockname()[1], size, rate, interval)


def main() -> None:
    parser = argparse.ArgumentParser(description="A server drains against a slow reader, after the client's FIN.")
    parser.add_argument("role", nargs="?", default="both", choices=["both", "server", "client"])
    parser.add_argument("--host", default="127.0.0.1", help="the server's address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9003, help="its UDP and TCP port (default: %(default)s)")
    parser.add_argument("--size", type=int, default=2_000_000, metavar="BYTES", help="to drain (default: %(default)s)")
    parser.add_argument(
        "--rate", type=int, default=400_000, metavar="BYTES", help="read in a second (default: %(default)s)"
    )
    parser.add_argument(
        "--interval", type=float, default=0.5, metavar="SECONDS", help="between two looks (default: %(default)s)"
    )
    parser.add_argument("--pcap", metavar="FILE.pcapng", help="write the server's side as a capture for Wireshark")
    args = parser.parse_args()
    if args.pcap and args.role == "client":
        parser.error("--pcap is the server's")
    if args.size < 0 or args.rate < 1 or args.interval <= 0:
        parser.error("--size is at least 0, --rate at least 1, --interval more than 0")
    try:
        with suppress(KeyboardInterrupt):
            match args.role:
                case "server":
                    asyncio.run(serve(args.host, args.port, args.interval, args.pcap))
                case "client":
                    asyncio.run(ask(args.host, args.port, args.size, args.rate, args.interval))
                case "both":
                    asyncio.run(both(args.host, args.size, args.rate, args.interval, args.pcap))
    except (OSError, ValueError) as exc:
        sys.exit(f"slow_drain: {exc}")


if __name__ == "__main__":
    main()
