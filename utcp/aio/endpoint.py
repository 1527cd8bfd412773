"""A UDP socket and all the connections over it, in one event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from utcp.aio import loops
from utcp.aio.addresses import Address, literal, normal, resolve
from utcp.aio.attempt import attempt
from utcp.aio.datagrams import Datagrams, UdpSocket
from utcp.aio.hosts import host_of
from utcp.aio.pump import Pump
from utcp.aio.transport import ProtocolFactory, Transport
from utcp.core.config import Config
from utcp.core.counters import Counters
from utcp.core.engine import Engine
from utcp.core.listener import Listener
from utcp.core.observer import Observer
from utcp.core.states import State
from utcp.core.teardown import ENDPOINT_CLOSED, enter_closed

if TYPE_CHECKING:
    from utcp.aio.server import Server

# How long a closing endpoint that discards its TIME-WAIT records lets peers answer its FINs
LAST_GRACE: Final = 0.1
# A kernel's backlog counts connections that wait for accept(), which never wait here. The engine's counts handshakes
# in progress too, and those come by the hundred in one datagram.
MIN_BACKLOG: Final = 4096

TimeWait = Literal["linger", "discard"]


class EndpointStats(NamedTuple):
    """What an endpoint counted since it began.

    Attributes:
        counters: the engine's.
        states: connections now, by state; TIME-WAIT records included.
        memory: bytes received and not yet read, in order or not (``max_memory`` is their bound).
        wakeups: turns of the event loop that the socket or a deadline asked for.
        congestions: how often the network took no more for a while.
        datagrams: the network's own numbers: system calls, failures, granted buffer sizes in bytes.
    """

    counters: Counters
    states: dict[State, int]
    memory: int
    wakeups: int
    congestions: int
    datagrams: dict[str, int]


class Endpoint:
    """Any number of connections over one UDP socket.

    ``create_connection`` and ``create_server`` make endpoints as they need them. Make one to own the socket, to
    connect without awaiting, or to set what holds for all connections::

        async with await utcp.Endpoint.create(("127.0.0.1", 0)) as endpoint:
            transport, protocol = await endpoint.create_connection(Client, "127.0.0.1", 9000)
    """

    shutdown_timeout: float = 5.0
    """Seconds for which closing, and the end of the event loop, wait until data and FINs are acknowledged."""

    def __init__(
        self,
        datagrams: Datagrams,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        config: Config | None = None,
        observer: Observer | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """Connections over ``datagrams``, in ``loop`` (the running one by default).

        ``config`` holds for all of them, except that Nagle's algorithm is off, as in asyncio
        (``transport.set_option("nodelay", False)`` turns it on). ``clock`` gives monotonic nanoseconds,
        by default of the host.
        """
        self.loop = loop if loop is not None else asyncio.get_running_loop()
        self.host = host_of(self.loop)
        self._datagrams = datagrams
        secret = self.host.engine_secret()
        self.engine = Engine(
            without_nagle(config or Config()),
            secret=secret,
            mtu=datagrams.mtu,
            link_mtu=datagrams.link_mtu,
            observer=observer,
        )
        self._pump = Pump(self.loop, datagrams, self.engine, clock or self.host.clock, self.host.alarm)
        self._servers: dict[int, Server] = {}  # by TCP port
        self._configs: tuple[Config, Config] | None = None
        self._retiring = False
        self._closing = False
        self._lingering = False
        self._closed_waiters: list[asyncio.Future[None]] = []
        self._shutdown_timer: asyncio.TimerHandle | None = None
        loops.register(self)

    @classmethod
    async def create(
        cls,
        local_addr: tuple[str, int] | None = None,
        *,
        sock: socket.socket | None = None,
        family: int = 0,
        config: Config | None = None,
        observer: Observer | None = None,
        reuse_port: bool = False,
        gso: bool = True,
        gro: bool = True,
    ) -> Self:
        """A new endpoint on ``local_addr`` (host, UDP port; 0: the system chooses), or on ``sock``, a bound UDP socket.

        Without either: any port of all local addresses, IPv4 unless ``family`` says otherwise. ``gso=False`` and
        ``gro=False`` put every segment into a datagram of its own. Raises OSError naming the address when it
        cannot be bound, and ``socket.gaierror`` for a host that is unknown.
        """
        if sock is not None and local_addr is not None:
            raise ValueError("local_addr and sock can not be specified at the same time")
        if sock is not None:
            datagrams: Datagrams = UdpSocket(sock, gso=gso, gro=gro)
        else:
            host, port = local_addr or ("::" if family == socket.AF_INET6 else "0.0.0.0", 0)
            loop = asyncio.get_running_loop()
            address = (await resolve(loop, host or None, port, family=family, flags=socket.AI_PASSIVE))[0]
            datagrams = host_of(loop).bind(
                address.family, address.at(address.port), reuse_port=reuse_port, gso=gso, gro=gro
            )
        try:
            return cls(datagrams, config=config, observer=observer)
        except BaseException:
            datagrams.close()
            raise

    # Connections

    def connect(
        self,
        protocol_factory: ProtocolFactory,
        peer_addr: Address,
        port: int | None = None,
        *,
        local_addr: Address | None = None,
        config: Config | None = None,
        waiter: asyncio.Future[Any] | None = None,
    ) -> Transport:
        """Begin to connect to TCP port ``port`` (default: the UDP port) at ``peer_addr``, without awaiting.

        ``peer_addr`` is (literal host, UDP port). The protocol is made when the outcome is known, and told of it
        by ``connection_made`` or by ``connection_lost`` with the error. What is written before that follows the
        handshake. ``local_addr``: (literal host or "", TCP port or 0) to connect from.

        ``waiter``, if given, is a future that gets the protocol or the error; then a connection that fails makes no
        protocol.

        Raises OSError when there is no route or no free port, ValueError for an address that is none,
        RuntimeError when the endpoint is closed.
        """
        if self._closing:
            raise RuntimeError("Endpoint is closed")
        if port is None:
            port = peer_addr[1]
        local = None
        local_port = 0
        if local_addr is not None:
            local_port = local_addr[1]
            if local_addr[0]:
                local = self._own(normal(local_addr)[0])
        if config is not None:
            config = self._without_nagle(config)
        return self._pump.connect(protocol_factory, peer_addr, port, local, local_port, config, waiter)

    def _own(self, host: str) -> Address:
        """Our UDP address on a local host of the user's choice."""
        bound, udp_port = self.local_addr[:2]
        if host != bound and bound not in ("0.0.0.0", "::"):
            raise OSError(errno.EADDRNOTAVAIL, f"{host!r} is not the endpoint's address, which is {bound!r}")
        return (host, udp_port)

    async def create_connection(
        self,
        protocol_factory: ProtocolFactory,
        host: str | None = None,
        port: int | None = None,
        *,
        udp_port: int | None = None,
        **kwargs: Any,
    ) -> tuple[Transport, Any]:
        """``utcp.create_connection`` from this endpoint."""
        known = None if kwargs else literal(host, port, self.family)
        if known is None:
            from utcp.aio.connecting import create_connection

            return await create_connection(protocol_factory, host, port, udp_port=udp_port, endpoint=self, **kwargs)
        # Nothing to look up, to choose or to race, as mostly: without the detours it costs half
        where = known.at(known.port if udp_port is None else udp_port)
        outcome = await attempt(self, protocol_factory, where, known.port, None, None)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    async def create_server(
        self, protocol_factory: ProtocolFactory, host: str | None = None, port: int | None = None, **kwargs: Any
    ) -> Server:
        """``utcp.create_server`` on this endpoint. ``port`` is the TCP port, by default the UDP port's number."""
        from utcp.aio.server import create_server

        return await create_server(protocol_factory, host, port, endpoint=self, **kwargs)

    # What it knows

    @property
    def local_addr(self) -> Address:
        """(host, UDP port) of the socket; the host may be the wildcard."""
        return self._datagrams.local

    @property
    def family(self) -> int:
        """``socket.AF_INET`` or ``AF_INET6``."""
        return self._datagrams.family

    def stats(self) -> EndpointStats:
        """Counters, states and system calls."""
        pump = self._pump
        return EndpointStats(
            counters=self.engine.counters,
            states=self.engine.states(),
            memory=self.engine.memory,
            wakeups=pump.wakeups,
            congestions=pump.congestions,
            datagrams=self._datagrams.stats(),
        )

    def set_option(self, name: str, value: object) -> None:
        """Change one Config field (``"msl"``, ``"max_connections"``, ...) while connections live.

        It holds for what begins after it, and for every living connection as far as ``transport.set_option`` has
        the field. TIME-WAIT records that exist keep their time. Raises ValueError or TypeError as `Config` does,
        with nothing changed.
        """
        self.engine.set_option(name, value, self._pump.clock())
        self._pump.touch()

    def is_closing(self) -> bool:
        return self._closing

    def __repr__(self) -> str:
        word = "closed" if not self._pump.open else "closing" if self._closing else f"{self._pump.channels} open"
        return f"<utcp.Endpoint {self.local_addr} {word}>"

    # The end

    def close(self, time_wait: TimeWait = "discard") -> None:
        """Close all servers and connections gracefully, then the socket; returns at once, see ``aclose``."""
        if time_wait not in ("linger", "discard"):
            raise ValueError(f"time_wait: {time_wait!r} is not 'linger' or 'discard'")
        if self._closing:
            return
        self._closing = True
        for server in list(self._servers.values()):
            server.close()
        for conn in self.engine.connections():
            if conn.context is not None:
                conn.context.close()
        self._shutdown_timer = self.loop.call_later(self.shutdown_timeout, self._give_up, time_wait)
        self._pump.when(lambda: self._pump.channels == 0, lambda: self._linger(time_wait))

    async def aclose(self, time_wait: TimeWait = "discard") -> None:
        """Close all servers and connections gracefully, wait for that, then close the socket.

        What has not been acknowledged after ``shutdown_timeout`` seconds is reset. ``time_wait="linger"`` goes on
        until every TIME-WAIT record has expired (2MSL: 60 s by default). ``"discard"`` gives the records up: a
        peer that misses our last ACK finds nobody to repeat it, and ends in LAST-ACK by time-out with nothing
        lost; and the ports may be used again while old segments are on their way.

        Cancelling it leaves the closing to go on.
        """
        self.close(time_wait)
        if self._pump.open:
            waiter = self.loop.create_future()
            self._closed_waiters.append(waiter)
            await waiter

    def abort(self) -> None:
        """Reset every connection and close the socket, now."""
        if not self._pump.open:
            return
        self._closing = True
        for server in list(self._servers.values()):
            server.close()
        self._abort_connections()
        self._close_socket()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def retire(self) -> None:
        """Close the socket as soon as no server, no connection and no TIME-WAIT record needs it."""
        if not self._retiring:
            self._retiring = True
            self._pump.when(lambda: not self.in_use, self._close_socket)

    @property
    def in_use(self) -> bool:
        """Whether a server, a connection or a TIME-WAIT record needs the socket."""
        engine = self.engine
        return (
            bool(self._servers)
            or self._pump.channels > 0
            or engine.connection_count() > 0
            or engine.time_wait_count > 0
        )

    @property
    def is_open(self) -> bool:
        """Whether there is still a socket."""
        return self._pump.open

    def unclosed(self, *, owned: bool) -> Iterator[tuple[str, object]]:
        """What nobody has closed, and what it is called; ``owned``: the endpoint itself is a program's to close."""
        if self._closing:
            return
        for server in dict.fromkeys(self._servers.values()):
            yield "server", server
        for conn in self.engine.connections():
            channel = conn.context
            if channel is not None and channel.connected and not channel.closing:
                yield "transport", channel.transport
        if owned and not self._retiring:
            yield "endpoint", self

    def abandon(self) -> None:
        """In a forked child: close our copy of the socket and touch nothing that the parent shares."""
        self._closing = True
        self._pump.abandon()

    def _give_up(self, time_wait: TimeWait) -> None:
        """The time for an orderly end is over."""
        self._abort_connections()
        self._linger(time_wait)

    def _linger(self, time_wait: TimeWait) -> None:
        """All data and FINs are acknowledged. The peers' FINs and TIME-WAIT may be left."""
        if self._lingering:
            return
        self._lingering = True
        if self._shutdown_timer is not None:
            self._shutdown_timer.cancel()
        engine = self.engine
        if time_wait == "linger":
            self._pump.when(lambda: engine.connection_count() + engine.time_wait_count == 0, self._close_socket)
        else:
            self._pump.when(lambda: engine.connection_count() == 0, self._close_socket)
            self._shutdown_timer = self.loop.call_later(LAST_GRACE, self._close_socket)

    def _abort_connections(self) -> None:
        for conn in self.engine.connections():
            if conn.context is not None:
                conn.context.abort(None)
            conn.abort(self._pump.clock())
        self._pump.flush()

    def _close_socket(self) -> None:
        if not self._pump.open:
            return
        self._closing = True
        if self._shutdown_timer is not None:
            self._shutdown_timer.cancel()
        self._pump.close()
        for conn in list(self.engine.connections()):
            enter_closed(conn, ENDPOINT_CLOSED, None)  # whoever waits for the peer's FIN is told that it will not come
        self._pump.schedule()
        loops.unregister(self)
        for waiter in self._closed_waiters:
            if not waiter.done():
                waiter.set_result(None)

    # For servers

    def reserve(self, port: int, server: Server) -> None:
        """Make TCP port ``port`` a server's own. Raises OSError EADDRINUSE naming the address."""
        if port in self._servers:
            address = (self.local_addr[0], port)
            raise OSError(
                errno.EADDRINUSE,
                f"error while attempting to bind on address {address!r}: address already in use",
            )
        self._servers[port] = server

    def release(self, port: int) -> None:
        """The server of ``port`` is closed."""
        self._servers.pop(port, None)
        self._pump.schedule()

    def listen(self, port: int, server: Server, backlog: int, config: Config | None) -> Listener:
        """Accept connections for ``server``."""
        own = None if config is None else self._without_nagle(config)
        listener = self.engine.listen(port, self._pump.clock(), max(backlog, MIN_BACKLOG), own)
        listener.context = server
        return listener

    def stop_listening(self, listener: Listener) -> None:
        listener.close(self._pump.clock())
        self._pump.touch()

    def _without_nagle(self, config: Config) -> Config:
        if self._configs is None or self._configs[0] is not config:
            self._configs = (config, without_nagle(config))
        return self._configs[1]


def without_nagle(config: Config) -> Config:
    return config if config.nodelay else replace(config, nodelay=True)
