"""A seeded network of engines in virtual time.

```python
net = Network(seed=7, delay=0.01, loss=0.3)
client, server = net.host("client"), net.host("server")
server.listen(80, accept=lambda connection: on_server_ready)
connection = client.connect(server, 80, on_client_ready)
net.run_until(lambda: connection.closed)
```

What happens to a segment (never to a train of them: fate strikes singly) is drawn from one `random.Random(seed)`,
so a seed reproduces a failure exactly. Nothing sleeps: time jumps from event to event. An application is a
function called with its connection and the readiness bits that are new, as a driver of real sockets would do it.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine
from utcp.core.listener import Listener
from utcp.core.observer import Observer
from utcp.wire.segment import Segment, decode

SECOND = 1_000_000_000

App = Callable[[Connection, int], None]
"""Called with a connection and its new readiness bits (see docs/engine.md)."""


class Fate(StrEnum):
    """What the network did to a segment."""

    DELIVERED = "delivered"
    DUPLICATED = "duplicated"
    LOST = "lost"
    DROPPED = "dropped"  # by a rule
    PARTITIONED = "partitioned"


@dataclass(frozen=True, slots=True)
class Packet:
    """One segment handed to the network: when (ns), from which host to which, its bytes, and what became of it."""

    sent_at: int
    src: str
    dst: str
    payload: bytes
    fate: Fate

    @property
    def segment(self) -> Segment:
        """The payload, decoded. Raises ValueError when it is no segment."""
        return decode(self.payload)

    def __str__(self) -> str:
        fate = "" if self.fate is Fate.DELIVERED else f"  ({self.fate})"
        return f"{self.sent_at / SECOND:12.6f}  {self.src} -> {self.dst}  {self.segment!r}{fate}"


@dataclass(slots=True)
class _DropRule:
    matches: Callable[[Packet], bool]
    left: int  # how many more it may drop; below 0: no limit


class Host:
    """An engine in the network, and the applications on it. Made by `Network.host`."""

    def __init__(self, network: Network, name: str, engine: Engine) -> None:
        self.network = network
        self.name = name
        self.engine = engine
        self._accept: dict[Listener, Callable[[Connection], App | None]] = {}

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

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
                    network.send(str(local), str(peer), datagram)
            if not ready and not trains:
                return

    def _accept_from(self, listener: Listener) -> None:
        connection = listener.accept()
        while connection is not None:
            connection.context = self._accept[listener](connection)
            connection = listener.accept()


class Network:
    """Hosts, and what lies between any two of them: the same in each direction.

    Times are in seconds: ``delay`` one way, plus a share of ``jitter`` drawn for each segment, which alone never
    reorders. ``loss``, ``duplicate`` and ``reorder`` are probabilities for each segment; a reordered segment is
    held back for up to four times ``delay + jitter`` more, so that later ones overtake it.
    ``check`` is called with the engine of a host after each of its steps (say, to assert invariants).
    All of these may be changed while the network runs. Raises ValueError for what is no probability or duration.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: float = 0.01,
        jitter: float = 0.0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        start: int = 0,
        check: Callable[[Engine], None] | None = None,
    ) -> None:
        for name, value in (("loss", loss), ("duplicate", duplicate), ("reorder", reorder)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}: {value} is not in [0, 1]")
        for name, value in (("delay", delay), ("jitter", jitter)):
            if not value >= 0.0:
                raise ValueError(f"{name}: {value} is not a duration in seconds")
        self.seed = seed
        self.delay = delay
        self.jitter = jitter
        self.loss = loss
        self.duplicate = duplicate
        self.reorder = reorder
        self.check = check
        self.now = start
        """The instant it is everywhere, in nanoseconds."""
        self.hosts: dict[str, Host] = {}
        self.trace: list[Packet] = []
        """Every segment sent, in order."""
        self._random = random.Random(seed)
        self._in_flight: list[tuple[int, int, str, str, bytes]] = []  # a heap: (arrival, serial, src, dst, payload)
        self._serial = 0
        self._last_arrival: dict[tuple[str, str], int] = {}
        self._drop_rules: list[_DropRule] = []
        self._partitions: set[frozenset[str]] = set()

    # --- hosts ---------------------------------------------------------------------------------------------

    def host(
        self, name: str, config: Config | None = None, *, mtu: int = 1500, observer: Observer | None = None
    ) -> Host:
        """A new host. Its engine's secret follows from the seed and the name. Raises ValueError when the name is
        taken."""
        if name in self.hosts:
            raise ValueError(f"there is a host {name!r} already")
        secret = hashlib.blake2b(f"{self.seed} {name}".encode(), digest_size=32).digest()
        host = Host(self, name, Engine(config, secret=secret, mtu=mtu, observer=observer))
        self.hosts[name] = host
        return host

    # --- time ----------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Do what comes next: what the hosts have pending, then one arrival or one host's timers, at its instant.
        False, with nothing done, when nothing will ever happen again."""
        acted = self._pump_pending()
        next_at = self.next_event()
        if next_at is None:
            return acted
        self.now = max(self.now, next_at)
        if self._in_flight and self._in_flight[0][0] <= self.now:
            self._deliver()
        else:
            self._handle_timeouts()
        return True

    def run_until(self, goal: int | Callable[[], bool], *, limit: float = 86_400.0) -> bool:
        """Step until the instant ``goal`` (ns), or until ``goal()`` is true. A condition is given up, and False
        returned, when nothing is left to happen or ``limit`` seconds from now have passed."""
        deadline = goal if isinstance(goal, int) else self.now + round(limit * SECOND)
        while isinstance(goal, int) or not goal():
            self._pump_pending()
            next_at = self.next_event()
            if next_at is None or next_at > deadline:
                self.now = max(self.now, deadline) if isinstance(goal, int) else self.now
                return isinstance(goal, int)
            self.step()
        return True

    def run_for(self, seconds: float) -> None:
        """Let that much time pass."""
        self.run_until(self.now + round(seconds * SECOND))

    def run_to_the_end(self, *, limit: float = 86_400.0) -> bool:
        """Step until nothing is left to happen, neither segment nor timer. False when ``limit`` seconds passed."""
        self.run_until(lambda: False, limit=limit)
        return self.next_event() is None

    def next_event(self) -> int | None:
        """When the next segment arrives or the next timer fires (ns), or None. Pending output does not count."""
        instants = [at for host in self.hosts.values() if (at := host.engine.next_timeout()) is not None]
        if self._in_flight:
            instants.append(self._in_flight[0][0])
        return min(instants, default=None)

    # --- faults --------------------------------------------------------------------------------------------

    def drop(self, matches: Callable[[Packet], bool], count: int = -1) -> None:
        """Drop segments for which ``matches(packet)`` holds: the first ``count`` of them, or all."""
        self._drop_rules.append(_DropRule(matches, count))

    def partition(self, one: Host, other: Host) -> None:
        """Nothing gets through between these two until they are healed; what is under way is lost too."""
        self._partitions.add(frozenset((one.name, other.name)))

    def heal(self, one: Host, other: Host) -> None:
        """End a partition."""
        self._partitions.discard(frozenset((one.name, other.name)))

    # --- segments ------------------------------------------------------------------------------------------

    def send(self, src: str, dst: str, payload: bytes) -> None:
        """Hand the network one datagram; it meets its fate."""
        lost, doubled, *held = (self._random.random() for _ in range(6))
        packet = Packet(self.now, src, dst, payload, Fate.DELIVERED)
        fate = Fate.DELIVERED
        if frozenset((src, dst)) in self._partitions:
            fate = Fate.PARTITIONED
        elif self._drops(packet):
            fate = Fate.DROPPED
        elif lost < self.loss:
            fate = Fate.LOST
        elif doubled < self.duplicate:
            fate = Fate.DUPLICATED
        self.trace.append(Packet(self.now, src, dst, payload, fate))
        if fate in (Fate.DELIVERED, Fate.DUPLICATED):
            self._schedule(src, dst, payload, held[0], held[1])
        if fate is Fate.DUPLICATED:
            self._schedule(src, dst, payload, held[2], held[3])

    def ladder(self, last: int = 100) -> str:
        """The last segments sent, one a line: what a failed test prints."""
        return "\n".join([f"seed {self.seed}", *map(str, self.trace[-last:])])

    def _drops(self, packet: Packet) -> bool:
        for rule in self._drop_rules:
            if rule.left != 0 and rule.matches(packet):
                rule.left -= 1
                return True
        return False

    def _schedule(self, src: str, dst: str, payload: bytes, reordered: float, share: float) -> None:
        """Put a segment on its way; ``reordered`` and ``share`` are drawn from [0, 1)."""
        if reordered < self.reorder:
            extra = self.jitter + share * 4 * (self.delay + self.jitter)
            arrival = self.now + round((self.delay + extra) * SECOND)
        else:
            arrival = self.now + round((self.delay + share * self.jitter) * SECOND)
            arrival = max(arrival, self._last_arrival.get((src, dst), 0))
            self._last_arrival[src, dst] = arrival
        self._serial += 1
        heapq.heappush(self._in_flight, (arrival, self._serial, src, dst, payload))

    def _deliver(self) -> None:
        _, _, src, dst, payload = heapq.heappop(self._in_flight)
        host = self.hosts.get(dst)
        if host is None or frozenset((src, dst)) in self._partitions:
            return
        host.engine.receive(host.engine.path(dst, src), payload, self.now)
        self._after_step(host)

    def _handle_timeouts(self) -> None:
        for host in self.hosts.values():
            deadline = host.engine.next_timeout()
            if deadline is not None and deadline <= self.now:
                host.engine.handle_timeout(self.now)
                self._after_step(host)

    def _pump_pending(self) -> bool:
        """Send what user calls made since the last step have left to be sent."""
        pending = [host for host in self.hosts.values() if host.engine.pending()]
        for host in pending:
            self._after_step(host)
        return bool(pending)

    def _after_step(self, host: Host) -> None:
        host.pump()
        if self.check is not None:
            self.check(host.engine)
