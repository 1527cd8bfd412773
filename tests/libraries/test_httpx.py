"""httpx, as it comes, over utcp: by httpcore and anyio, which resolve names themselves and poll idle sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl

import httpx
import pytest

import utcp
from libraries.apps import BODY, HELLO, site
from libraries.carried import NAME, Carried
from support.patience import until
from utcp.aio.loops import endpoints_of


async def test_requests_on_one_connection(carried: Carried) -> None:
    async with site() as url, httpx.AsyncClient() as client:
        for _ in range(5):
            response = await client.get(url)
            assert (response.status_code, response.text) == (200, HELLO)
        assert carried.connections == 1


async def test_a_body_both_ways(carried: Carried) -> None:
    async with site() as url, httpx.AsyncClient() as client:
        response = await client.post(f"{url}/echo", content=BODY)
        assert response.content == BODY
        assert carried.bytes > 2 * len(BODY)


async def test_a_stream(carried: Carried) -> None:
    async with site() as url, httpx.AsyncClient() as client:
        async with client.stream("POST", f"{url}/echo", content=BODY) as response:
            assert b"".join([part async for part in response.aiter_bytes()]) == BODY
        assert carried.bytes > 2 * len(BODY)


def established() -> int:
    """Ends of connections that neither side has closed."""
    endpoints = endpoints_of(asyncio.get_running_loop()).endpoints
    return sum(endpoint.stats().states.get(utcp.State.ESTABLISHED, 0) for endpoint in endpoints)


async def test_an_idle_connection_that_the_server_closed_is_not_used_again(carried: Carried) -> None:
    """httpcore polls the transport's socket before it takes a connection from its pool."""
    async with site(keepalive_timeout=0.05) as url, httpx.AsyncClient() as client:
        assert (await client.get(url)).text == HELLO
        await until(lambda: established() == 0)
        assert (await client.get(url)).text == HELLO
        assert carried.connections == 2


async def test_https(carried: Carried, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """httpx does TLS itself, and asks for the name in the URL unless told of another."""
    async with site(tls=server_tls) as url, httpx.AsyncClient(verify=client_tls) as client:
        for _ in range(2):
            response = await client.get(url, extensions={"sni_hostname": "localhost"})
            assert response.text == HELLO
        assert carried.connections == 1
    async with site(tls=server_tls) as url, httpx.AsyncClient(verify=client_tls) as client:
        with pytest.raises(httpx.ConnectError, match=f"certificate is not valid for '{NAME}'"):
            await client.get(url)


async def test_a_server_that_is_not_there(udp_socket: socket.socket) -> None:
    port = udp_socket.getsockname()[1]
    udp_socket.close()
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://{NAME}:{port}/")


async def test_socket_options(carried: Carried) -> None:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    transport = httpx.AsyncHTTPTransport(socket_options=options)
    async with site() as url, httpx.AsyncClient(transport=transport) as client:
        assert (await client.get(url)).text == HELLO
        assert carried.connections == 1
