"""Half-close at work: the client uploads and says so with its FIN; the server, which could not begin before it had
seen the end, answers with a digest and a large body. No length, no marker: the end of a stream is its end.

    python examples/half_close.py                          # both sides in one process
    python examples/half_close.py server                   # or each in a terminal of its own
    python examples/half_close.py client --upload 5000000
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress

import utcp
import utcp.trace

BODY = os.urandom(1_000_000)


async def answer(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
    """The server's side of a connection."""
    digest = hashlib.sha256()
    while data := await reader.read(65_536):
        digest.update(data)
    print(f"server {writer.transport.state}: the upload is complete, answering")
    writer.write(digest.digest() + BODY)
    writer.close()  # returns at once; the FIN leaves behind the last byte
    await writer.wait_closed()
    print(f"server {writer.transport.state}: the client has acknowledged everything")


async def upload(host: str, port: int, size: int) -> None:
    """The client."""
    data = os.urandom(size)
    reader, writer = await utcp.open_connection(host, port)
    writer.write(data)
    writer.write_eof()
    print(f"client {writer.transport.state}: {size:,} bytes written, and half-closed")
    digest = await reader.readexactly(32)
    body = await reader.read()
    print(f"client {writer.transport.state}: digest and {len(body):,} bytes received")
    writer.close()
    await writer.wait_closed()
    if digest != hashlib.sha256(data).digest():
        raise ValueError("the server digested something else")


@asynccontextmanager
async def serving(host: str, port: int, pcap: str | None) -> AsyncIterator[utcp.Server]:
    async with await utcp.Endpoint.create(local_addr=(host, port)) as endpoint:
        with utcp.trace.capture(endpoint, pcap) if pcap else nullcontext():
            async with await utcp.start_server(answer, endpoint=endpoint) as server:
                yield server


async def serve(host: str, port: int, pcap: str | None) -> None:
    async with serving(host, port, pcap) as server:
        print(f"server listening on {host}, UDP and TCP port {server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


async def both(host: str, size: int, pcap: str | None) -> None:
    async with serving(host, 0, pcap) as server:
        await upload(host, server.sockets[0].getsockname()[1], size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Upload, half-close, receive a digest and a large body.")
    parser.add_argument("role", nargs="?", default="both", choices=["both", "server", "client"])
    parser.add_argument("--host", default="127.0.0.1", help="the server's address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9001, help="its UDP and TCP port (default: %(default)s)")
    parser.add_argument("--upload", type=int, default=1_000_000, metavar="BYTES", help="default: %(default)s")
    parser.add_argument("--pcap", metavar="FILE.pcapng", help="write the server's side as a capture for Wireshark")
    args = parser.parse_args()
    if args.pcap and args.role == "client":
        parser.error("--pcap is the server's")
    try:
        with suppress(KeyboardInterrupt):
            match args.role:
                case "server":
                    asyncio.run(serve(args.host, args.port, args.pcap))
                case "client":
                    asyncio.run(upload(args.host, args.port, args.upload))
                case "both":
                    asyncio.run(both(args.host, args.upload, args.pcap))
    except (OSError, ValueError) as exc:
        sys.exit(f"half_close: {exc}")
