"""Servers: TCP ports listened on, at one or more UDP addresses."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from utcp.aio.addresses import resolve
from utcp.aio.datagrams import Datagrams, UdpSocket
from utcp.aio.endpoint import Endpoint
from utcp.aio.hosts import host_of
from utcp.aio.loops import endpoints_of
from utcp.aio.transport import ProtocolFactory
from utcp.core.config import Config
from utcp.core.listener import Listener

if TYPE_CHECKING:
    import ssl as ssl_module

    from utcp.aio.transport import Transport


class ServerSocket:
    """What ``Server.sockets`` holds for each address: where the server listens, and what it would be in the kernel."""

    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, endpoint: Endpoint, port: int) -> None:
        self.endpoint = endpoint
        self.family = socket.AddressFamily(endpoint.family)
        self.port = port

    def getsockname(self) -> tuple[str, int]:
        """(host, TCP port)."""
        return (self.endpoint.local_addr[0], self.port)

    @property
    def udp_port(self) -> int:
        """The UDP port that the segments come to."""
        port: int = self.endpoint.local_addr[1]
        return port

    def __repr__(self) -> str:
        return f"<utcp.ServerSocket {self.getsockname()} udp_port={self.udp_port}>"


class Server(asyncio.AbstractServer):
    """As ``asyncio.Server`` of Python 3.13. ``wait_closed`` waits for connections, never for TIME-WAIT records."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol_factory: ProtocolFactory,
        sockets: list[ServerSocket],
        backlog: int,
        config: Config | None,
    ) -> None:
        self.protocol_factory = protocol_factory
        self.context = contextvars.copy_context()
        self._loop = loop
        self._sockets: list[ServerSocket] | None = sockets
        self._backlog = backlog
        self._config = config
        self._listeners: list[tuple[Endpoint, Listener]] = []
        self.clients: dict[Transport, None] = {}  # in the order of their coming; connections put themselves in and out
        self._serving_forever: asyncio.Future[None] | None = None
        self._waiters: list[asyncio.Future[None]] | None = []

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} sockets={self.sockets!r}>"

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return bool(self._listeners)

    @property
    def sockets(self) -> tuple[ServerSocket, ...]:
        """Where it listens; empty once closed."""
        return tuple(self._sockets or ())

    def close(self) -> None:
        """Stop listening at once: what has not been accepted is reset, accepted connections go on."""
        sockets, self._sockets = self._sockets, None
        if sockets is None:
            return
        for endpoint, listener in self._listeners:
            endpoint.stop_listening(listener)
        self._listeners.clear()
        for one in sockets:
            one.endpoint.release(one.port)
        if self._serving_forever is not None and not self._serving_forever.done():
            self._serving_forever.cancel()
            self._serving_forever = None
        self.on_no_clients()

    def close_clients(self) -> None:
        """Close all accepted connections gracefully."""
        for transport in self.clients.copy():
            transport.close()

    def abort_clients(self) -> None:
        """Reset all accepted connections."""
        for transport in self.clients.copy():
            transport.abort()

    async def start_serving(self) -> None:
        """Accept connections from now on; does nothing if it does already. Raises RuntimeError once closed."""
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        if self._listeners:
            return
        for one in self._sockets:
            listener = one.endpoint.listen(one.port, self, self._backlog, self._config)
            self._listeners.append((one.endpoint, listener))

    async def serve_forever(self) -> None:
        """Accept connections until cancelled; then the server is closed."""
        if self._serving_forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        await self.start_serving()
        self._serving_forever = self._loop.create_future()
        try:
            await self._serving_forever
        except asyncio.CancelledError:
            try:
                self.close()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever = None

    async def wait_closed(self) -> None:
        """Wait until the server is closed and ``connection_lost`` has been called for all its connections."""
        if self._waiters is None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()

    def on_no_clients(self) -> None:
        """Called when the last connection is lost, and by ``close``."""
        if self._sockets is not None or self.clients or self._waiters is None:
            return
        waiters, self._waiters = self._waiters, None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


async def create_server(
    protocol_factory: ProtocolFactory,
    host: str | Iterable[str | None] | None = None,
    port: int | str | None = None,
    *,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    sock: socket.socket | None = None,
    backlog: int = 100,
    ssl: ssl_module.SSLContext | None = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    udp_port: int | None = None,
    config: Config | None = None,
    endpoint: Endpoint | None = None,
) -> Server:
    """As ``loop.create_server``, for TCP connections inside UDP.

    ``port`` is the TCP port, and the UDP port too unless ``udp_port`` names another; 0 or None lets the system
    choose the UDP port and uses the same number. Servers of one process on the same UDP address share its
    socket. ``sock`` is a bound UDP socket, ``endpoint`` an Endpoint to serve on. ``reuse_address`` has no effect:
    TIME-WAIT never stands in a listener's way here. ``reuse_port`` spreads UDP sources over processes.
    ``keep_alive`` is the config's ``keepalive`` for the accepted connections. ``backlog`` bounds the handshakes in
    progress, and is raised to 4096 where it is lower: nothing waits to be accepted here.

    Raises OSError (EADDRINUSE) naming the address, as asyncio does.
    """
    if ssl is not None:
        from utcp.aio import tls

        protocol_factory = tls.server(ssl, ssl_handshake_timeout, ssl_shutdown_timeout).under(protocol_factory)
    elif ssl_handshake_timeout is not None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    elif ssl_shutdown_timeout is not None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")
    loop = asyncio.get_running_loop()
    tcp_port = port if isinstance(port, int) else 0
    if isinstance(port, str) and (endpoint is not None or sock is not None):
        tcp_port = (await resolve(loop, None, port))[0].port  # the name of a service
    if endpoint is not None:
        if sock is not None:
            raise ValueError("sock and endpoint can not be specified at the same time")
        await _check_host(loop, host, endpoint)
        endpoints = [endpoint]
    elif sock is not None:
        if host is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        endpoints = [_own_endpoint(UdpSocket(sock), config)]
    elif host is None and port is None:
        raise ValueError("Neither host/port nor sock were specified")
    else:
        hosts = [host or None] if isinstance(host, str) or host is None else [one or None for one in host]
        found = await asyncio.gather(*[resolve(loop, one, port, family=family, flags=flags) for one in hosts])
        addresses = list(dict.fromkeys(address for several in found for address in several))
        tcp_port = addresses[0].port
        endpoints = []
        try:
            for address in addresses:
                where = address.at(address.port if udp_port is None else udp_port)
                endpoints.append(_shared_endpoint(loop, address.family, where, bool(reuse_port), config))
        except BaseException:
            for one in endpoints:
                one.retire()
            raise
    if keep_alive is not None:
        config = replace(config or endpoints[0].engine.config, keepalive=bool(keep_alive))
    try:
        server = _reserve(loop, protocol_factory, endpoints, tcp_port, backlog, config)
    finally:
        if endpoint is None:
            for one in endpoints:
                one.retire()
    if start_serving:
        try:
            await server.start_serving()
        except BaseException:
            server.close()
            raise
    return server


async def _check_host(loop: asyncio.AbstractEventLoop, host: object, endpoint: Endpoint) -> None:
    """A host may be given beside an endpoint, but no other one than the endpoint's."""
    own = endpoint.local_addr[0]
    if isinstance(host, str) and host and host != own:
        found = await resolve(loop, host, 0, family=endpoint.family)
        if own not in {address.host for address in found}:
            raise ValueError(f"host {host!r} is not the endpoint's, which is {own!r}")


def _own_endpoint(datagrams: Datagrams, config: Config | None) -> Endpoint:
    try:
        return Endpoint(datagrams, config=config)
    except BaseException:
        datagrams.close()
        raise


def _shared_endpoint(
    loop: asyncio.AbstractEventLoop, family: int, where: tuple[Any, ...], reuse_port: bool, config: Config | None
) -> Endpoint:
    """The loop's endpoint on a UDP address, made if there is none."""
    shared = endpoints_of(loop).servers
    host = host_of(loop)
    endpoint = shared.get((host, where))
    if endpoint is None or endpoint.is_closing():
        endpoint = _own_endpoint(host.bind(family, where, reuse_port=reuse_port), config)
        shared[host, endpoint.local_addr] = endpoint
    return endpoint


def _reserve(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: ProtocolFactory,
    endpoints: list[Endpoint],
    port: int,
    backlog: int,
    config: Config | None,
) -> Server:
    """A server that has its port on each endpoint, or on none."""
    sockets: list[ServerSocket] = []
    server = Server(loop, protocol_factory, sockets, backlog, config)
    try:
        for endpoint in endpoints:
            tcp_port = port or endpoint.local_addr[1]
            endpoint.reserve(tcp_port, server)
            sockets.append(ServerSocket(endpoint, tcp_port))
    except BaseException:
        for one in sockets:
            one.endpoint.release(one.port)
        raise
    return server
