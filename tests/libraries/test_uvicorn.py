"""uvicorn, as it comes, over utcp: ``--host 127.0.0.1.utcp --loop utcp:new_event_loop`` is all it is told."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import uvicorn

import utcp
from libraries.apps import session
from libraries.carried import NAME, Carried, kernel_refuses
from support.patience import PATIENCE

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


async def app(scope: Any, receive: Receive, send: Send) -> None:
    """An ASGI application: counts what a request brings, echoes a WebSocket's messages."""
    if scope["type"] == "http":
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        body = f"{scope['method']} {scope['path']} {size} bytes from {scope['client'][0]}".encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    elif scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})


@asynccontextmanager
async def running(sockets: list[socket.socket] | None = None, **kwargs: Any) -> AsyncIterator[int]:
    """A server in this loop, given by its port."""
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, ws="websockets-sansio", **kwargs)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets))
    try:
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_requests(carried: Carried, http: str) -> None:
    async with running(host=NAME, http=http) as port, httpx.AsyncClient() as client:
        assert kernel_refuses(port)
        assert (await client.get(f"http://{NAME}:{port}/a")).text == "GET /a 0 bytes from 127.0.0.1"
        response = await client.post(f"http://{NAME}:{port}/b", content=bytes(1_000_000))
        assert response.text == "POST /b 1000000 bytes from 127.0.0.1"
        assert carried.connections == 1
        assert carried.bytes > 1_000_000


async def test_https(
    carried: Carried, certificate: trustme.LeafCert, client_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    path = tmp_path / "key-and-certificate.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    async with running(host=NAME, ssl_certfile=path) as port, session() as client:
        async with client.get(f"https://{NAME}:{port}/s", ssl=client_tls) as response:
            assert await response.text() == "GET /s 0 bytes from 127.0.0.1"
        assert carried.connections == 1


async def test_a_udp_socket(carried: Carried, udp_socket: socket.socket) -> None:
    async with running([udp_socket]) as port, httpx.AsyncClient() as client:
        assert port == udp_socket.getsockname()[1]
        assert (await client.get(f"http://{NAME}:{port}/u")).text == "GET /u 0 bytes from 127.0.0.1"
        assert carried.connections == 1


async def test_a_websocket(carried: Carried) -> None:
    async with running(host=NAME) as port, session() as client:
        async with client.ws_connect(f"http://{NAME}:{port}/") as websocket:
            await websocket.send_str("hello")
            assert await websocket.receive_str() == "HELLO"
        assert carried.connections == 1


PROGRAM = [sys.executable, "-m", "uvicorn", "libraries.test_uvicorn:app", "--host", NAME, "--port", "0"]
OPTIONS = ["--loop", "utcp:new_event_loop", "--lifespan", "off", "--no-use-colors"]


async def test_its_command_line() -> None:
    paths = [str(Path(utcp.__file__).parents[1]), str(Path(__file__).parents[1])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = await asyncio.create_subprocess_exec(*PROGRAM, *OPTIONS, env=env, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        said = await asyncio.wait_for(process.stderr.readuntil(b"Press CTRL+C"), PATIENCE)
        (port,) = re.findall(rb"running on http://127\.0\.0\.1\.utcp:(\d+)", said)
        async with httpx.AsyncClient() as client:
            response = await client.get(f"http://{NAME}:{int(port)}/c")
            assert response.text == "GET /c 0 bytes from 127.0.0.1"
        process.send_signal(signal.SIGINT)
        said = await asyncio.wait_for(process.stderr.read(), PATIENCE)
        assert b"Finished server process" in said
        assert b"Traceback" not in said
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
