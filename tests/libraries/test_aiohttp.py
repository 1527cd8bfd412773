"""aiohttp's client and server, as they come, over utcp: the ending .utcp is all they are told."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from functools import partial
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import utcp
from libraries.apps import BODY, HELLO, hello, session, site
from libraries.carried import HOST, NAME, Carried, kernel_refuses
from support.patience import PATIENCE


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for start in range(0, len(BODY), 100_000):
        await response.write(BODY[start : start + 100_000])
    return response


async def echo_messages(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    async for message in websocket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await websocket.send_str(message.data.upper())
        elif message.type is aiohttp.WSMsgType.BINARY:
            await websocket.send_bytes(message.data)
    return websocket


async def test_requests_on_one_connection(carried: Carried) -> None:
    async with site() as url, session() as client:
        for _ in range(5):
            async with client.get(url) as response:
                assert (response.status, await response.text()) == (200, HELLO)
        assert carried.connections == 1
        assert carried.bytes > 5 * len(HELLO)


@pytest.mark.parametrize("base", ["asyncio", "uvloop"])
def test_a_host_by_its_address(base: Literal["asyncio", "uvloop"]) -> None:
    """URLs as ever, and no resolver, whichever is installed."""

    async def main() -> None:
        carried = Carried()
        async with site() as url, aiohttp.ClientSession() as client, client.get(url.replace(NAME, HOST)) as response:
            assert await response.text() == HELLO
            assert carried.connections == 1

    with asyncio.Runner(loop_factory=partial(utcp.new_event_loop, {HOST}, base=base)) as runner:
        runner.run(main())


async def test_a_connection_for_each_request(carried: Carried) -> None:
    async with site() as url, session(force_close=True) as client:
        for number in range(5):
            async with client.get(url) as response:
                assert await response.text() == HELLO
            assert carried.connections == number + 1


async def test_requests_at_the_same_time(carried: Carried) -> None:
    async def fetch() -> str:
        async with client.get(url) as response:
            return await response.text()

    async with site() as url, session() as client:
        assert await asyncio.gather(*[fetch() for _ in range(50)]) == [HELLO] * 50
        assert 1 < carried.connections <= 50


async def test_large_bodies_both_ways(carried: Carried) -> None:
    async with site(web.get("/stream", stream)) as url, session() as client:
        async with client.post(f"{url}/echo", data=io.BytesIO(BODY)) as response:
            assert await response.read() == BODY
        async with client.get(f"{url}/stream") as response:
            assert await response.read() == BODY
        assert carried.bytes > 3 * len(BODY)


async def test_a_file(carried: Carried, tmp_path: Path) -> None:
    """FileResponse sends by ``loop.sendfile``."""
    path = tmp_path / "body"
    path.write_bytes(BODY)

    async def send_file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    async with site(web.get("/file", send_file)) as url, session() as client:
        async with client.get(f"{url}/file") as response:
            assert await response.read() == BODY
        async with client.get(f"{url}/file", headers={"Range": "bytes=1000000-1000999"}) as response:
            assert (response.status, await response.read()) == (206, BODY[1_000_000:1_001_000])
        assert carried.connections == 1
        assert carried.bytes > len(BODY)


async def test_websocket(carried: Carried) -> None:
    async with site(web.get("/ws", echo_messages)) as url, session() as client:
        async with client.ws_connect(f"{url}/ws", max_msg_size=0) as websocket:
            await websocket.send_str("hello")
            assert await websocket.receive_str() == "HELLO"
            await websocket.send_bytes(BODY[:1_000_000])
            assert await websocket.receive_bytes() == BODY[:1_000_000]
            await websocket.ping()
        assert websocket.close_code == aiohttp.WSCloseCode.OK
        assert carried.bytes > 2_000_000


async def test_https(carried: Carried, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, tmp_path: Path) -> None:
    """The certificate is for 127.0.0.1: ``.utcp`` only says how to get there."""
    path = tmp_path / "body"
    path.write_bytes(BODY)

    async def send_file(request: web.Request) -> web.FileResponse:
        assert request.secure
        return web.FileResponse(path)

    async with site(web.get("/file", send_file), tls=server_tls) as url, session(ssl=client_tls) as client:
        for _ in range(2):
            async with client.get(url) as response:
                assert await response.text() == HELLO
        async with client.get(f"{url}/file") as response:
            assert await response.read() == BODY
        assert carried.connections == 1
        assert carried.bytes > len(BODY)


async def test_https_without_the_right_authority(server_tls: ssl.SSLContext) -> None:
    async with site(tls=server_tls) as url, session() as client:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await client.get(url)


async def test_a_server_that_is_not_there(udp_socket: socket.socket) -> None:
    port = udp_socket.getsockname()[1]
    udp_socket.close()
    async with session() as client:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await client.get(f"http://{NAME}:{port}/")
    assert isinstance(caught.value.os_error, ConnectionRefusedError)


async def test_a_name_that_nobody_knows() -> None:
    async with session() as client:
        with pytest.raises(aiohttp.ClientConnectorDNSError):
            await client.get("http://no-such-host.invalid.utcp/")


async def test_a_server_that_dies_in_the_middle() -> None:
    async def die(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"so far")
        assert isinstance(request.transport, utcp.Transport)
        await request.transport.drained()
        request.transport.abort()
        return response

    async with site(web.get("/die", die)) as url, session() as client:
        response = await client.get(f"{url}/die")
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_client_that_gives_up_cancels_the_handler() -> None:
    begun, gone = (asyncio.get_running_loop().create_future() for _ in range(2))

    async def sleep(request: web.Request) -> web.Response:
        begun.set_result(None)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            gone.set_result(None)
            raise
        raise AssertionError

    async with site(web.get("/sleep", sleep), handler_cancellation=True) as url, session() as client:
        asking = asyncio.ensure_future(client.get(f"{url}/sleep"))
        await begun
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(gone, PATIENCE)


async def test_a_local_address() -> None:
    async def port_of(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.Response(text=str(request.transport.get_extra_info("peername")))

    async with site(web.get("/port", port_of)) as url, session(local_addr=("127.0.0.2", 0)) as client:
        response = await client.get(f"{url}/port")
        assert (await response.text()).startswith("('127.0.0.2', ")


async def test_a_name_with_an_address_that_nobody_serves(carried: Carried) -> None:
    """aiohttp connects a socket first, which always succeeds here; when the connection then fails it tries the next."""

    class Two(aiohttp.ThreadedResolver):
        async def resolve(self, host: str, *args: Any, **kwargs: Any) -> Any:
            (found,) = await super().resolve(host, *args, **kwargs)
            return [found | {"host": "127.0.0.2.utcp"}, found]

    async with site() as url, aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Two())) as client:
        async with client.get(url) as response:
            assert await response.text() == HELLO
        assert carried.connections == 1


async def test_their_test_server_on_a_udp_socket(carried: Carried) -> None:
    """What binds its socket itself takes a UDP one."""

    def bind(host: str, port: int, family: socket.AddressFamily) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((host, port))
        return sock

    app = web.Application()
    app.add_routes([web.get("/", hello)])
    async with TestServer(app, socket_factory=bind) as server, session() as client:
        assert server.port is not None and kernel_refuses(server.port)
        async with client.get(f"http://{NAME}:{server.port}/") as response:
            assert await response.text() == HELLO
        assert carried.connections == 1


async def test_options_reach_the_connection() -> None:
    """aiohttp turns TCP_NODELAY and SO_KEEPALIVE on, by the transport's socket."""
    seen: list[Any] = []

    async def look(request: web.Request) -> web.Response:
        seen.append(request.transport)
        return web.Response()

    async with site(web.get("/look", look)) as url, session() as client:
        await (await client.get(f"{url}/look")).read()
        (transport,) = seen
        assert isinstance(transport, utcp.Transport)
        assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
