"""A small web site over utcp, by aiohttp as it comes: the event loop takes hosts that end in .utcp, and nothing else in
the program knows of utcp. Needs aiohttp (pip install aiohttp).

    python examples/http_server.py                             # serves, fetches a page from itself, ends
    python examples/http_server.py server --directory ~/www    # serves until Ctrl-C
    python examples/http_server.py get http://127.0.0.1.utcp:8000/files/

In your own program: asyncio.Runner(loop_factory=utcp.new_event_loop), then aiohttp, httpx, websockets ... as ever.
curl and browsers, which know only the kernel's TCP, reach it through `utcp gateway`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import cast

import utcp

try:
    import aiohttp
    from aiohttp import web
except ImportError:
    sys.exit("http_server: needs aiohttp (pip install aiohttp)")


async def index(request: web.Request) -> web.Response:
    """What this connection looks like from here."""
    transport = cast(utcp.Transport, request.transport)
    info = transport.info()
    lines = [
        "Hello over utcp!",
        f"You are {transport.get_extra_info('peername')}, by UDP from {transport.get_extra_info('udp_peername')}.",
        f"The connection is {info.state}, its RTO {info.rto:g} s, its MSS {info.snd_mss:,} bytes.",
        "Files are in /files/.",
    ]
    return web.Response(text="\n".join(lines) + "\n")


def site(directory: Path) -> web.Application:
    app = web.Application()
    app.add_routes([web.get("/", index), web.static("/files", directory, show_index=True)])
    return app


async def get(url: str) -> int:
    """Print what is there; the exit code."""
    connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())  # the loop's, though aiodns may be installed
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        sys.stdout.buffer.write(await response.read())
        return 0 if response.ok else 1


async def both(app: web.Application, host: str, port: int) -> int:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    try:
        return await get(f"http://{host}:{runner.addresses[0][1]}/")
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small web site over utcp, by aiohttp.")
    parser.add_argument("role", nargs="?", default="both", choices=["both", "server", "get"])
    parser.add_argument("url", nargs="?", help="what to get (default: / of the server on --host and --port)")
    parser.add_argument("--host", default="127.0.0.1.utcp", help="address to serve on (default: %(default)s)")
    parser.add_argument("--port", type=int, help="UDP and TCP port (default: 8000, both: any)")
    parser.add_argument("--directory", type=Path, default=Path(), help="served as /files (default: this one)")
    args = parser.parse_args()
    if args.url and args.role != "get":
        parser.error("a URL is to get")
    port = args.port if args.port is not None else 0 if args.role == "both" else 8000
    try:
        match args.role:
            case "server":
                web.run_app(site(args.directory), host=args.host, port=port, loop=utcp.new_event_loop())
            case "get":
                with asyncio.Runner(loop_factory=utcp.new_event_loop) as runner:
                    sys.exit(runner.run(get(args.url or f"http://{args.host}:{port}/")))
            case "both":
                with asyncio.Runner(loop_factory=utcp.new_event_loop) as runner:
                    sys.exit(runner.run(both(site(args.directory), args.host, port)))
    except (OSError, ValueError, aiohttp.ClientError) as exc:
        sys.exit(f"http_server: {exc}")
