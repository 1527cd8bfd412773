"""The websockets package, client and server, as it comes, over utcp."""

from __future__ import annotations

import socket
import ssl

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

import utcp
from libraries.carried import HOST, NAME, Carried, kernel_refuses

MESSAGE = bytes(range(256)) * 4096  # 1 MiB


async def echo(websocket: ServerConnection) -> None:
    async for message in websocket:
        await websocket.send(message)


async def hang_up(websocket: ServerConnection) -> None:
    await websocket.close(4321, "enough")


async def drop(websocket: ServerConnection) -> None:
    assert isinstance(websocket.transport, utcp.Transport)
    await websocket.transport.drained()
    websocket.transport.abort()


async def test_messages_both_ways(carried: Carried) -> None:
    async with serve(echo, NAME, 0, max_size=None, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        assert kernel_refuses(port)
        async with connect(f"ws://{NAME}:{port}", max_size=None, compression=None) as websocket:
            assert websocket.remote_address == (HOST, port)
            assert isinstance(websocket.transport, utcp.Transport)
            for message in ("hello", MESSAGE, "", b""):
                await websocket.send(message)
                assert await websocket.recv() == message
            await (await websocket.ping())
        assert (websocket.close_code, carried.connections) == (1000, 1)
        assert carried.bytes > 2 * len(MESSAGE)


async def test_wss(carried: Carried, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serve(echo, NAME, 0, ssl=server_tls, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"wss://{NAME}:{port}", ssl=client_tls, max_size=None) as websocket:
            await websocket.send(MESSAGE)
            assert await websocket.recv() == MESSAGE
            assert websocket.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert carried.connections == 1


async def test_many_messages_with_compression(carried: Carried) -> None:
    async with serve(echo, NAME, 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://{NAME}:{port}") as websocket:
            for number in range(500):
                await websocket.send(f"message {number}")
            assert [await websocket.recv() for _ in range(500)] == [f"message {number}" for number in range(500)]
        assert carried.bytes > 500


async def test_the_server_closes() -> None:
    async with serve(hang_up, NAME, 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://{NAME}:{port}") as websocket:
            with pytest.raises(ConnectionClosedError) as caught:
                await websocket.recv()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4321, "enough")


async def test_the_connection_breaks() -> None:
    async with serve(drop, NAME, 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://{NAME}:{port}") as websocket:
            with pytest.raises(ConnectionClosedError) as caught:
                await websocket.recv()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_the_end_of_the_server_closes_its_connections() -> None:
    server = await serve(echo, NAME, 0)
    port = next(iter(server.sockets)).getsockname()[1]
    websocket = await connect(f"ws://{NAME}:{port}")
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionClosedOK):
        await websocket.recv()
    assert websocket.close_code == 1001
    with pytest.raises(ConnectionRefusedError):
        await connect(f"ws://{NAME}:{port}")


async def test_a_udp_socket_as_sock(udp_socket: socket.socket, carried: Carried) -> None:
    port = udp_socket.getsockname()[1]
    async with serve(echo, sock=udp_socket), connect(f"ws://{NAME}:{port}") as websocket:
        await websocket.send("hello")
        assert await websocket.recv() == "hello"
        assert carried.connections == 1
