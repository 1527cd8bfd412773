"""Web applications to fetch from."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from aiohttp import web

from libraries.carried import HOST, NAME, kernel_refuses

BODY: Final = bytes(range(256)) * 4096  # 1 MiB
HELLO: Final = f"hello {HOST}"


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"hello {request.remote}")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


def session(**kwargs: Any) -> aiohttp.ClientSession:
    """aiohttp's client; ``kwargs`` are its connector's. Where aiodns is installed it has to be told to ask the loop."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver(), **kwargs))


@asynccontextmanager
async def site(*routes: web.RouteDef, tls: ssl.SSLContext | None = None, **kwargs: Any) -> AsyncIterator[str]:
    """aiohttp's server with these routes beside / and /echo, given by its URL; ``kwargs`` are AppRunner's."""
    app = web.Application(client_max_size=2 * len(BODY))
    app.add_routes([web.get("/", hello), web.post("/echo", echo), *routes])
    runner = web.AppRunner(app, **kwargs)
    await runner.setup()
    try:
        await web.TCPSite(runner, NAME, 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
        assert kernel_refuses(port)
        yield f"{'https' if tls else 'http'}://{NAME}:{port}"
    finally:
        await runner.cleanup()
