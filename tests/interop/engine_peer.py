"""An engine on a plain UDP socket, in real time, driven by a thread; tests call it from theirs and block."""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeVar

from utcp.core.config import Config
from utcp.core.connection import SHUT_RD, SHUT_WR, Connection
from utcp.core.engine import Engine
from utcp.core.listener import Listener
from utcp.core.observer import Observer
from utcp.core.states import EOF, READABLE, State
from utcp.gateway import Endpoint
from utcp.gateway.udp import UdpSocket
from utcp.wire.segment import Segment

WAIT_S: Final = 10.0

T = TypeVar("T")


class UtcpConnection:
    """One connection of an EnginePeer. Methods may be called from any thread."""

    def __init__(self, peer: EnginePeer, core: Connection) -> None:
        self.peer = peer
        self.core = core
        self.reads = True  # whether the driver reads whatever arrives
        self.closes_at_eof = False  # whether it closes as soon as the peer has
        self.received = bytearray()

    @property
    def state(self) -> State:
        with self.peer.lock:
            return self.core.state

    @property
    def error(self) -> Exception | None:
        return self.core.error

    def send(self, data: bytes) -> None:
        self.peer.call(lambda now: self.core.send(data, now))

    def send_urgent(self, data: bytes) -> None:
        self.peer.call(lambda now: self.core.send_urgent(data, now))

    def shutdown(self) -> None:
        """Half-close: our FIN behind the data."""
        self.peer.call(lambda now: self.core.shutdown(SHUT_WR, now))

    def stop_reading(self) -> None:
        self.peer.call(lambda now: self.core.shutdown(SHUT_RD, now))

    def close(self) -> None:
        self.peer.call(self.core.close)

    def abort(self) -> None:
        self.peer.call(self.core.abort)

    def set_option(self, name: str, value: object) -> None:
        self.peer.call(lambda now: self.core.set_option(name, value, now))

    def resume_reading(self) -> None:
        """Read what has arrived, and from now on what arrives."""
        self.reads = True
        self.peer.call(lambda now: self.drain())

    def drain(self) -> None:
        """For the driver, with the lock held."""
        if self.reads:
            self.received += self.core.receive()

    def wait(self, predicate: Callable[[], object], what: str, timeout: float = WAIT_S) -> None:
        self.peer.wait(
            predicate, lambda: f"{what}; {self.core!r}, {self.core.error!r}, {len(self.received)} bytes", timeout
        )

    def wait_for(self, *states: State) -> None:
        self.wait(lambda: self.core.state in states, f"waiting for {' or '.join(map(str, states))}")

    def wait_received(self, size: int, timeout: float = WAIT_S) -> bytes:
        self.wait(lambda: len(self.received) >= size, f"waiting for {size} bytes", timeout)
        return bytes(self.received)

    def wait_eof(self, timeout: float = WAIT_S) -> bytes:
        """Everything up to the peer's FIN."""
        self.wait(lambda: self.core.at_eof, "waiting for the end of the file", timeout)
        return bytes(self.received)

    def wait_closed(self, timeout: float = WAIT_S) -> None:
        self.wait(lambda: self.core.closed, "waiting for the end of the teardown", timeout)


class History(Observer):
    """What an engine did: the states of every connection, and the timers that fired."""

    def __init__(self) -> None:
        self.states: dict[tuple[int, int], list[State]] = {}
        self.timers: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        self.states.setdefault((local_port, remote_port), []).append(new)

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.timers[name] += 1

    def drop(self, now: int, path: int, segment: bytes, reason: str) -> None:
        self.drops[reason] += 1


class EnginePeer:
    """Drives one engine: sockets and clock for it, blocking calls for the test."""

    def __init__(self, gateway: Endpoint, config: Config | None = None, *, mtu: int = 1500, link_mtu: int = 0) -> None:
        """``link_mtu``: what paths carry, up to that, is searched for; else it is ``mtu``."""
        self._udp = UdpSocket(Endpoint("::1" if ":" in gateway.host else "127.0.0.1", 0))
        self.endpoint = self._udp.address
        self.history = History()
        self.engine = Engine(config, mtu=0 if link_mtu else mtu, link_mtu=link_mtu, observer=self.history)
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._gateway = gateway
        self._connections: dict[int, UtcpConnection] = {}
        self._listeners: dict[int, Listener] = {}
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._closing = False
        self._thread = threading.Thread(target=self._drive, name="engine")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._closing = True
        self._wake.send(b"\0")
        self._thread.join()
        # Or the kernel would go on repeating its FINs to a host that is no more, and the next test's rules would
        # take the first of them for one of its own
        self.call(self._abort)
        self._udp.close()
        self._wake.close()
        self._woken.close()

    def connect(self, port: int, local_port: int = 0, config: Config | None = None) -> UtcpConnection:
        """Begin an active open to the kernel's TCP port."""

        def connect(now: int) -> UtcpConnection:
            path = self.engine.path(self.endpoint, self._gateway)
            return self._adopt(self.engine.connect(path, port, now, local_port=local_port, config=config))

        return self.call(connect)

    def listen(self, port: int, backlog: int = 128) -> None:
        self._listeners[port] = self.call(lambda now: self.engine.listen(port, now, backlog))

    def accept(self, port: int) -> UtcpConnection:
        """The next connection to that port, waited for."""
        accepted: list[Connection | None] = []

        def accept() -> bool:
            accepted[:] = [self._listeners[port].accept()]
            return accepted[0] is not None

        self.wait(accept, lambda: f"waiting for a connection to port {port}; {self.engine.states()}")
        (core,) = accepted
        assert core is not None
        with self.lock:
            connection = self._adopt(core)
            connection.drain()
        return connection

    def find(self, local_port: int, remote_port: int) -> UtcpConnection:
        """A connection of the engine's that nobody has accepted, waited for."""

        def find() -> Connection | None:
            path = self.engine.path(self.endpoint, self._gateway)
            return self.engine.connection(path, local_port, remote_port)

        self.wait(find, lambda: f"waiting for a connection {local_port}>{remote_port}; {self.engine.states()}")
        with self.lock:
            core = find()
            assert core is not None
            return self._adopt(core)

    def inject(self, segment: Segment) -> None:
        """Send a segment that the engine knows nothing of."""
        self._udp.send(segment.to_bytes(), self._gateway)

    def call(self, function: Callable[[int], T]) -> T:
        """Call the engine with the lock held, then send what follows from it."""
        with self.lock:
            result = function(time.monotonic_ns())
            self._pump()
            self._wake_up()
            return result

    def wait(self, predicate: Callable[[], object], what: Callable[[], str], timeout: float = WAIT_S) -> None:
        """Block until the predicate holds. It is asked with the lock held, after every step of the driver and also
        in between: it may be about something else."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not predicate():
                if time.monotonic() > deadline:
                    raise AssertionError(f"timed out {what()}")
                self._changed.wait(0.02)

    def _adopt(self, core: Connection) -> UtcpConnection:
        connection = core.context if isinstance(core.context, UtcpConnection) else UtcpConnection(self, core)
        core.context = connection
        return connection

    def _abort(self, now: int) -> None:
        for core in list(self.engine.connections()):
            core.abort(now)

    def _wake_up(self) -> None:
        try:
            self._wake.send(b"\0")
        except BlockingIOError:  # awake already
            pass

    def _drive(self) -> None:
        while not self._closing:
            with self.lock:
                at = self.engine.next_timeout()
            timeout = None if at is None else max(0.0, (at - time.monotonic_ns()) / 1e9)
            readable, _, _ = select.select([self._udp.fileno(), self._woken.fileno()], [], [], timeout)
            if self._woken.fileno() in readable:
                self._woken.recv(4096)
            with self.lock:
                self._receive()
                self.engine.handle_timeout(time.monotonic_ns())
                self._pump()
                self._changed.notify_all()

    def _receive(self) -> None:
        for _ in range(256):
            try:
                data, sender, ecn = self._udp.receive()
            except BlockingIOError:
                break
            path = self.engine.path(self.endpoint, sender)
            self.engine.receive(path, data, time.monotonic_ns(), 0, ecn)
        for endpoint, error, segment in self._udp.errors():
            path = self.engine.path(self.endpoint, endpoint)
            self.engine.path_error(path, error.kind, time.monotonic_ns(), error.mtu, segment[:8])

    def _pump(self) -> None:
        for core in self.engine.ready():
            bits, connection = core.take_ready(), core.context
            if bits & READABLE and isinstance(connection, UtcpConnection):
                connection.drain()
            if bits & EOF and isinstance(connection, UtcpConnection) and connection.closes_at_eof:
                core.close(time.monotonic_ns())
        self.engine.ready_listeners()
        for train in self.engine.transmit(time.monotonic_ns()):
            _, peer = self.engine.path_addresses(train.path)
            assert isinstance(peer, Endpoint)
            for datagram in train.datagrams():
                self._send(datagram, peer, train.ecn)

    def _send(self, datagram: bytes, peer: Endpoint, ecn: int) -> None:
        try:
            self._udp.send(datagram, peer, ecn)
        except OSError as exc:
            # Lost, as far as TCP is concerned; a path's error arrives by the error queue
            if exc.errno not in (errno.ECONNREFUSED, errno.EMSGSIZE, errno.EAGAIN, errno.ENOBUFS):
                raise
