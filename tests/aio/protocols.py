"""Small servers to talk to, and connected pairs of recorders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import utcp
from support.patience import until
from support.recorder import Accepted, Recorder

__all__ = [
    "HOST",
    "Accepted",
    "Echo",
    "Handler",
    "Recorder",
    "pair",
    "serving",
    "serving_streams",
    "settled",
    "transport_of",
]

HOST = "127.0.0.1"


class Echo(asyncio.Protocol):
    """Sends back what it gets; closes when the peer has."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@asynccontextmanager
async def serving(factory: Callable[[], asyncio.BaseProtocol], **kwargs: Any) -> AsyncIterator[int]:
    """A server on a port of the system's choice, which it yields; all its connections end with it."""
    server = await utcp.create_server(factory, HOST, 0, **kwargs)
    try:
        yield server.sockets[0].port
    finally:
        server.close()
        server.abort_clients()
        await server.wait_closed()


@asynccontextmanager
async def pair(
    *, client_keeps_open: bool = False, server_keeps_open: bool = False, **kwargs: Any
) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """Two connected recorders: the client's and the server's."""
    accepted = Accepted(lambda: Recorder(keep_open=server_keeps_open))
    async with serving(accepted) as port:
        transport, client = await utcp.create_connection(
            lambda: Recorder(keep_open=client_keeps_open), HOST, port, **kwargs
        )
        try:
            yield client, await accepted.get()
        finally:
            transport.abort()


async def settled(endpoint: utcp.Endpoint) -> None:
    """Until no timer is left, those included that nobody waits for any more."""
    await until(lambda: endpoint.engine.next_timeout() is None)


def transport_of(recorder: Recorder) -> utcp.Transport:
    transport = recorder.transport
    assert isinstance(transport, utcp.Transport)
    return transport


Handler = Callable[[utcp.StreamReader, utcp.StreamWriter], Awaitable[None] | None]


@asynccontextmanager
async def serving_streams(handler: Handler, **kwargs: Any) -> AsyncIterator[int]:
    server = await utcp.start_server(handler, HOST, 0, **kwargs)
    try:
        yield server.sockets[0].port
    finally:
        server.close()
        server.abort_clients()
        await server.wait_closed()
