"""A client of echo_server.py: sends words, half-closes, and prints what comes back."""

from __future__ import annotations

import argparse
import asyncio
import sys

import utcp


async def talk(host: str, port: int, message: bytes) -> None:
    reader, writer = await utcp.open_connection(host, port)
    writer.write(message)
    writer.write_eof()  # FIN: nothing more from here; reading goes on
    print(f"{writer.transport.state}: everything is said, waiting for the echo")

    print((await reader.read()).decode())  # up to the server's FIN

    writer.close()
    await writer.wait_closed()
    print(f"{writer.transport.state}: closed, and every byte was acknowledged")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Have a utcp echo server say something.")
    parser.add_argument("--host", default="127.0.0.1", help="the server's address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="its UDP and TCP port (default: %(default)s)")
    parser.add_argument("words", nargs="*", default=["hello"], help="what to say (default: hello)")
    args = parser.parse_args()
    try:
        asyncio.run(talk(args.host, args.port, " ".join(args.words).encode()))
    except OSError as exc:
        sys.exit(f"{args.host}:{args.port}: {exc}")
