"""An echo server: what a client sends comes back, until the client half-closes. Run it, and echo_client.py in
another terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import nullcontext, suppress

import utcp
import utcp.trace


async def echo(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
    peer = writer.get_extra_info("peername")
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()  # the client's FIN is here: ours follows the last byte
        await writer.wait_closed()
        print(f"{peer}: closed")
    except OSError as exc:
        print(f"{peer}: {exc}")


async def serve(host: str, port: int, pcap: str | None) -> None:
    async with await utcp.Endpoint.create(local_addr=(host, port)) as endpoint:
        with utcp.trace.capture(endpoint, pcap) if pcap else nullcontext():
            async with await utcp.start_server(echo, endpoint=endpoint) as server:
                print(f"echoing on {host}, UDP and TCP port {endpoint.local_addr[1]}", flush=True)
                await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Echo what utcp clients send.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="UDP and TCP port (default: %(default)s)")
    parser.add_argument("--pcap", metavar="FILE.pcapng", help="write a capture for Wireshark")
    args = parser.parse_args()
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(serve(args.host, args.port, args.pcap))
    except (OSError, ValueError) as exc:
        sys.exit(f"echo_server: {exc}")
