"""A seeded network of hosts in virtual time.

With engines and applications that are functions:

```python
net = Network(seed=7, delay=0.01, loss=0.3)
client, server = net.host("client"), net.host("server")
server.listen(80, accept=lambda connection: on_server_ready)
connection = client.connect(server, 80, on_client_ready)
net.run_until(lambda: connection.closed)
```

With asyncio programs, see ``utcp.sim.run``.

What happens to a segment (never to a train of them: fate strikes singly) is drawn from one `random.Random(seed)`,
so a seed reproduces a failure exactly. Nothing sleeps: time jumps from event to event.
"""

from __future__ import annotations

import heapq
import ipaddress
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from utcp.aio.addresses import Address, is_loopback
from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.core.observer import Observer
from utcp.sim.host import Host
from utcp.sim.link import DRAWS, SECOND, Fate, Lane, Link
from utcp.wire.segment import Segment, decode

if TYPE_CHECKING:
    from utcp.sim.loop import SimLoop

_WITHIN_A_HOST = Link(delay=0.0)


@dataclass(frozen=True, slots=True)
class Packet:
    """One segment handed to the network: when (ns), from which host to which, its bytes, and what became of it.

    ``source`` and ``destination`` are the UDP addresses (host, port) of an asyncio program's segment; segments
    between bare engines have none.
    """

    sent_at: int
    src: str
    dst: str
    payload: bytes
    fate: Fate
    source: Address | None = None
    destination: Address | None = None

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


class Network(Link):
    """Hosts, and what lies between any two of them that have no link of their own: the network is that link itself.

    ``start`` is the first instant (ns). ``check`` is called with the engine of a host after each step of a bare
    engine (say, to assert invariants). ``record=False`` keeps no trace of the segments, only their counts.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: float = 0.01,
        jitter: float = 0.0,
        rate: float = 0.0,
        queue: int = 262_144,
        loss: float = 0.0,
        corrupt: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        start: int = 0,
        record: bool = True,
        check: Callable[[Engine], None] | None = None,
    ) -> None:
        super().__init__(delay, jitter, rate, queue, loss, corrupt, duplicate, reorder)
        self.seed = seed
        self.check = check
        self.now = start
        """The instant it is everywhere, in nanoseconds."""
        self.hosts: dict[str, Host] = {}
        self.trace: list[Packet] = []
        """Every segment sent, in order."""
        self.counts: Counter[Fate] = Counter()
        """How many segments met which fate."""
        self.loop: SimLoop | None = None
        """The event loop of asyncio programs, while `run` runs."""
        self._record = record
        self._random = random.Random(seed)
        self._events: list[tuple[int, int, Callable[[], None]]] = []  # a heap: (instant, serial, what happens)
        self._serial = 0
        self._links: dict[tuple[str, str], Link] = {}
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._addresses: dict[str, Host] = {}
        self._drop_rules: list[_DropRule] = []
        self._partitions: set[frozenset[str]] = set()

    # --- hosts and links -----------------------------------------------------------------------------------

    def host(
        self,
        name: str,
        config: Config | None = None,
        *,
        address: str | None = None,
        mtu: int = 1500,
        observer: Observer | None = None,
        isn: Callable[[int, int, int], int] | None = None,
    ) -> Host:
        """A new host. ``name`` is what programs on any host may connect to, and so is ``address``, an IPv4 or
        IPv6 address (10.0.0.1, 10.0.0.2 ... by default). ``config``, ``observer`` and ``isn`` are those of its bare
        engine (see docs/engine.md).

        All its secrets follow from the seed and the name. Raises ValueError when the name or the address is taken
        or no address.
        """
        if name in self.hosts:
            raise ValueError(f"there is a host {name!r} already")
        own = self._free_address() if address is None else str(ipaddress.ip_address(address))
        if own in self._addresses or is_loopback(own):
            raise ValueError(f"the address {own} is taken")
        host = Host(self, name, own, config, mtu, observer, isn)
        self.hosts[name] = self._addresses[own] = host
        return host

    def _free_address(self) -> str:
        numbers = itertools.count(int(ipaddress.IPv4Address("10.0.0.1")))
        return next(text for number in numbers if (text := str(ipaddress.IPv4Address(number))) not in self._addresses)

    def link(self, one: Host, other: Host, *, one_way: bool = False, **changes: Any) -> Link:
        """Give these two a link of their own: the network's present values, but for ``changes`` (fields of `Link`).

        It holds in both directions, or with ``one_way`` from ``one`` to ``other``. Raises ValueError as `Link`
        does, TypeError for what is no field of it.
        """
        values = {name: getattr(self, name) for name in Link.__dataclass_fields__}
        link = Link(**{**values, **changes})
        self._links[one.name, other.name] = link
        if not one_way:
            self._links[other.name, one.name] = link
        return link

    # --- time ----------------------------------------------------------------------------------------------

    def step(self, limit: int | None = None) -> bool:
        """Do what comes next: what the hosts have pending, then one arrival or one host's timers, at its instant.
        False, with nothing done, when nothing will ever happen again, or not until the instant ``limit`` (ns)."""
        acted = self._pump_pending()
        next_at = self.next_event()
        if next_at is None or (limit is not None and next_at > limit):
            return acted
        self.now = max(self.now, next_at)
        if self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()
        else:
            self._handle_timeouts()
        return True

    def run_until(self, goal: int | Callable[[], bool], *, limit: float = 86_400.0) -> bool:
        """Step until the instant ``goal`` (ns), or until ``goal()`` is true. A condition is given up, and False
        returned, when nothing is left to happen or ``limit`` seconds from now have passed."""
        deadline = goal if isinstance(goal, int) else self.now + round(limit * SECOND)
        while isinstance(goal, int) or not goal():
            if not self.step(deadline):
                self.now = max(self.now, deadline) if isinstance(goal, int) else self.now
                return isinstance(goal, int)
        return True

    def run_for(self, seconds: float) -> None:
        """Let that much time pass."""
        self.run_until(self.now + round(seconds * SECOND))

    def run_to_the_end(self, *, limit: float = 86_400.0) -> bool:
        """Step until nothing is left to happen, neither segment nor timer. False when ``limit`` seconds passed."""
        self.run_until(lambda: False, limit=limit)
        return self.next_event() is None

    def next_event(self) -> int | None:
        """When the next segment arrives or the next timer of a bare engine fires (ns), or None. Pending output
        does not count."""
        instants = [at for engine in self._engines() if (at := engine.next_timeout()) is not None]
        if self._events:
            instants.append(self._events[0][0])
        return min(instants, default=None)

    # --- faults --------------------------------------------------------------------------------------------

    def drop(self, matches: Callable[[Packet], bool], count: int = -1) -> None:
        """Drop segments for which ``matches(packet)`` holds: the first ``count`` of them, or all."""
        self._drop_rules.append(_DropRule(matches, count))

    def partition(self, one: Host, other: Host) -> None:
        """Nothing gets through between these two until they are healed; what is under way is lost too."""
        self._partitions.add(frozenset((one.name, other.name)))

    def heal(self, *pair: Host) -> None:
        """End the partition between two hosts, or without arguments all of them."""
        if pair:
            self._partitions.discard(frozenset(host.name for host in pair))
        else:
            self._partitions.clear()

    def replay(self, packet: Packet, after: float = 0.0) -> None:
        """Deliver a copy of a segment seen earlier, ``after`` seconds from now: an old duplicate."""
        self._at(self.now + round(after * SECOND), partial(self._replay, packet))

    # --- segments ------------------------------------------------------------------------------------------

    def send(self, src: str, dst: str, payload: bytes) -> None:
        """Hand the network one segment of a bare engine; it meets its fate."""
        self._carry(Packet(self.now, src, dst, payload, Fate.DELIVERED), self._links.get((src, dst), self))

    def send_datagram(self, host: Host, source: Address, destination: Address, payload: bytes) -> None:
        """Hand the network one datagram of a socket on ``host``; it meets its fate."""
        to = host if is_loopback(destination[0]) else self._addresses.get(destination[0])
        dst = to.name if to is not None else str(destination[0])
        packet = Packet(self.now, host.name, dst, payload, Fate.DELIVERED, source, destination)
        within = _WITHIN_A_HOST if to is host else self
        self._carry(packet, self._links.get((host.name, dst), within))

    def refuse(self, packet: Packet) -> None:
        """Nobody has the UDP port that a segment came to: tell its sender, as ICMP would."""
        link = _WITHIN_A_HOST if packet.src == packet.dst else self._links.get((packet.dst, packet.src), self)
        self._at(self.now + round(link.delay * SECOND), partial(self._report, packet))

    def ladder(self, last: int = 100) -> str:
        """The last segments sent, one a line: what a failed test prints."""
        return "\n".join([f"seed {self.seed}", *map(str, self.trace[-last:])])

    def _carry(self, packet: Packet, link: Link) -> None:
        draws = [self._random.random() for _ in range(DRAWS)]
        arrivals: list[int] = []
        host = self.hosts.get(packet.dst)
        if host is None or not host.up:
            fate = Fate.UNREACHABLE
        elif self._partitioned(packet):
            fate = Fate.PARTITIONED
        elif self._drops(packet):
            fate = Fate.DROPPED
        else:
            lane = self._lanes.setdefault((packet.src, packet.dst), Lane())
            fate, arrivals = link.carry(lane, len(packet.payload), self.now, draws)
        packet = packet if fate is Fate.DELIVERED else replace(packet, fate=fate)
        self._note(packet)
        for arrival in arrivals:
            self._at(arrival, partial(self._deliver, packet))

    def _note(self, packet: Packet) -> None:
        self.counts[packet.fate] += 1
        if self._record:
            self.trace.append(packet)

    def _drops(self, packet: Packet) -> bool:
        for rule in self._drop_rules:
            if rule.left != 0 and rule.matches(packet):
                rule.left -= 1
                return True
        return False

    def _partitioned(self, packet: Packet) -> bool:
        return frozenset((packet.src, packet.dst)) in self._partitions

    # --- events --------------------------------------------------------------------------------------------

    def _at(self, instant: int, event: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (instant, self._serial, event))

    def _deliver(self, packet: Packet) -> None:
        host = self.hosts.get(packet.dst)
        if host is None or not host.up or self._partitioned(packet):
            return
        if packet.destination is not None:
            host.deliver(packet)
            return
        engine = host.engine
        engine.receive(engine.path(packet.dst, packet.src), packet.payload, self.now)
        self._after_step(host)

    def _replay(self, packet: Packet) -> None:
        packet = replace(packet, sent_at=self.now, fate=Fate.REPLAYED)
        self._note(packet)
        self._deliver(packet)

    def _report(self, packet: Packet) -> None:
        host = self.hosts.get(packet.src)
        if host is not None and host.up and not self._partitioned(packet):
            host.refused(packet)

    def _engines(self) -> list[Engine]:
        return [host.engine for host in self.hosts.values() if host.has_engine]

    def _handle_timeouts(self) -> None:
        for host in self.hosts.values():
            if not host.has_engine:
                continue
            deadline = host.engine.next_timeout()
            if deadline is not None and deadline <= self.now:
                host.engine.handle_timeout(self.now)
                self._after_step(host)

    def _pump_pending(self) -> bool:
        """Send what user calls made since the last step have left to be sent."""
        pending = [host for host in self.hosts.values() if host.has_engine and host.engine.pending()]
        for host in pending:
            self._after_step(host)
        return bool(pending)

    def _after_step(self, host: Host) -> None:
        host.pump()
        if self.check is not None:
            self.check(host.engine)
