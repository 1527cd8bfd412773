"""A host of the simulated network: applications on a bare engine, asyncio programs, crashes."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine
from utcp.core.listener import Listener
from utcp.core.observer import Observer
from utcp.core.paths import PathError
from utcp.sim.life import QUOTE_SIZE, Life, enter, leave

if TYPE_CHECKING:
    from utcp.sim.network import Network, Packet

T = TypeVar("T")

App = Callable[[Connection, int], None]
"""Called with a connection and its new readiness bits (see docs/engine.md)."""

Main = Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T]
"""An asyncio program: a coroutine, or a function that makes one."""


class Host:
    """A machine in the network. Made by `Network.host`.

    ``connect`` and ``listen`` are for applications on its bare engine, functions that are called as a driver of
    real sockets would do it. ``start`` and ``with host:`` are for asyncio programs: what runs there has its utcp
    sockets on this host.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        address: str,
        config: Config | None,
        mtu: int,
        discover_mtu: bool,
        observer: Observer | None,
        isn: Callable[[int, int, int], int] | None,
    ) -> None:
        self.network = network
        self.name = name
        self.address = address
        self.mtu = mtu
        self.discover_mtu = discover_mtu
        self.life = Life(self, 0)
        """From its start, or last restart, to its crash."""
        self._config = config
        self._observer = observer
        self._isn = isn
        self._engine: Engine | None = None
        self._accept: dict[Listener, Callable[[Connection], App | None]] = {}

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    @property
    def up(self) -> bool:
        """Whether it runs; it does from the beginning, until it crashes."""
        return self.life.alive

    def secret(self, purpose: str = "") -> bytes:
        """32 bytes that follow from the network's seed, this host's name and ``purpose``."""
        return blake2b(f"{self.network.seed} {self.name}{purpose}".encode(), digest_size=32).digest()

    # --- asyncio programs ----------------------------------------------------------------------------------

    def start(self, main: Main[T]) -> asyncio.Task[T]:
        """Run an asyncio program on this host, beside what runs already. Raises RuntimeError outside of `run`, and
        when the host is down."""
        loop = asyncio.get_running_loop()
        if not self.up:
            raise RuntimeError(f"host {self.name} is down")
        context = contextvars.copy_context()
        context.run(enter, self.life)
        coroutine = main() if callable(main) else main
        return loop.create_task(coroutine, context=context)

    def __enter__(self) -> Self:
        """Until the block ends, the sockets of this task, and of the tasks it starts, are on this host."""
        enter(self.life)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        leave()

    def crash(self) -> None:
        """The host is silent from now on, and forgets everything.

        Nothing that its programs still do reaches anybody: their connections end with an error, their tasks are
        cancelled. What is under way to it is lost.
        """
        life = self.life
        if not life.alive:
            return
        life.end()
        self._engine = None
        self._accept.clear()
        if self.network.loop is not None:
            self.network.loop.end_life(life)

    def restart(self, main: Main[T] | None = None) -> asyncio.Task[T] | None:
        """The host comes back (after a crash, if it was up), without memory of its connections, and runs ``main``."""
        self.crash()
        self.life = Life(self, self.life.number + 1)
        return None if main is None else self.start(main)

    def deliver(self, packet: Packet) -> None:
        """A segment for one of its sockets has arrived."""
        socket = self.life.socket_at(packet.destination)
        if socket is None:
            self.network.refuse(packet)
        else:
            socket.deliver(packet)

    def refused(self, packet: Packet) -> None:
        """A segment that one of its sockets sent came to a host where nobody has the UDP port."""
        socket = self.life.socket_at(packet.source)
        if socket is not None:
            socket.refused(packet)

    def too_big(self, packet: Packet, mtu: int) -> None:
        """A segment of its engine, or of one of its sockets, came to a link that takes packets of ``mtu`` bytes."""
        socket = self.life.socket_at(packet.source)
        if socket is not None:
            socket.too_big(packet, mtu)
        elif packet.source is None and self._engine is not None:
            path = self._engine.path(packet.src, packet.dst)
            quote = packet.payload[:QUOTE_SIZE]
            self._engine.path_error(path, PathError.PACKET_TOO_BIG, self.network.now, mtu, quote)
            self.pump()

    # --- applications on the bare engine -------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The bare engine, made when somebody asks for it."""
        if self._engine is None:
            secret = self.secret(f" {self.life.number}" if self.life.number else "")
            self._engine = Engine(
                self._config,
                secret=secret,
                isn=self._isn,
                mtu=0 if self.discover_mtu else self.mtu,
                link_mtu=self.mtu,
                observer=self._observer,
            )
        return self._engine

    @property
    def has_engine(self) -> bool:
        """Whether anybody has used the bare engine."""
        return self._engine is not None

    def path_to(self, peer: Host) -> int:
        """The engine's number for the path from here to ``peer``."""
        return self.engine.path(self.name, peer.name)

    def connect(
        self, peer: Host, port: int, app: App | None = None, *, local_port: int = 0, config: Config | None = None
    ) -> Connection:
        """Open a connection to a port of ``peer``; ``app`` is kept in ``connection.context``. Raises OSError
        as `Engine.connect` does."""
        now = self.network.now
        connection = self.engine.connect(self.path_to(peer), port, now, local_port=local_port, config=config)
        connection.context = app
        return connection

    def listen(
        self,
        port: int,
        accept: Callable[[Connection], App | None] = lambda _connection: None,
        *,
        backlog: int = 128,
        config: Config | None = None,
    ) -> Listener:
        """Listen on a port. Every accepted connection is given to ``accept``, which returns its application.
        Raises OSError as `Engine.listen` does."""
        listener = self.engine.listen(port, self.network.now, backlog, config)
        self._accept[listener] = accept
        return listener

    def pump(self) -> None:
        """Run the applications on what is ready and hand what is due to the network, until both have settled."""
        engine, network = self.engine, self.network
        while True:
            for listener in engine.ready_listeners():
                self._accept_from(listener)
            ready = engine.ready()
            for connection in ready:
                bits = connection.take_ready()
                if connection.context is not None:
                    connection.context(connection, bits)
            trains = engine.transmit(network.now)
            for train in trains:
                local, peer = engine.path_addresses(train.path)
                for datagram in train.datagrams():
                    network.send(str(local), str(peer), datagram, train.ecn)
            if not ready and not trains:
                return

    def _accept_from(self, listener: Listener) -> None:
        connection = listener.accept()
        while connection is not None:
            connection.context = self._accept[listener](connection)
            connection = listener.accept()
