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
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from utcp.aio.addresses import Address, is_loopback
from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.core.observer import Observer
from utcp.sim.host import Host
from utcp.sim.link import DRAWS, HEADERS, SECOND, Fate, Lane, Link
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
    ecn: int = 0
    """The ECN field: 0 not capable, 1 or 2 capable, 3 congestion experienced (RFC 3168 5)."""

    @property
    def can_mark(self) -> bool:
        """Whether a router may say congestion by the ECN field."""
        return self.ecn != 0

    @property
    def segment(self) -> Segment:
        """The payload, decoded. Raises ValueError when it is no segment."""
        return decode(self.payload)

    def __str__(self) -> str:
        fate = "" if self.fate is Fate.DELIVERED else f"  ({self.fate})"
        return f"{self.sent_at / SECOND:12.6f}  {self.src} -> {self.dst}  {self.segment!r}{fate}"


@dataclass(slots=True)
class Flow:
    """What became of the segments from one TCP port of one host to one of another."""

    fates: Counter[Fate] = field(default_factory=Counter)
    bytes: int = 0
    """Delivered, TCP headers included."""
    marked: int = 0
    """Delivered with congestion experienced."""
    delay: int = 0
    """Nanoseconds from sending to arrival, of all that were delivered together."""
    max_delay: int = 0


@dataclass(frozen=True, slots=True)
class Router:
    """Where links meet. Made by `Network.router`."""

    name: str


@dataclass(slots=True)
class _Journey:
    """A segment on its way over the links of its route."""

    packet: Packet
    hops: list[tuple[Lane, Link]]
    number: int  # in the trace, -1 if there is none
    at: int = 0  # which hop it is at
    draws: list[float] = field(default_factory=list)  # the dice of that hop

    @property
    def can_mark(self) -> bool:
        return self.packet.can_mark


@dataclass(slots=True)
class _DropRule:
    matches: Callable[[Packet], bool]
    left: int  # how many more it may drop; below 0: no limit


class Network(Link):
    """Hosts, and what lies between any two of them that have no link of their own: the network is that link itself.

    ``start`` is the first instant (ns). ``check`` is called with the engine of a host after each step of a bare
    engine (say, to assert invariants). ``record=False`` keeps no trace of the segments, only their counts. ``link`` are
    further fields of `Link`.
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
        **link: Any,
    ) -> None:
        super().__init__(delay, jitter, rate, queue, loss, corrupt, duplicate, reorder, **link)
        self.seed = seed
        self.check = check
        self.now = start
        """The instant it is everywhere, in nanoseconds."""
        self.hosts: dict[str, Host] = {}
        self.trace: list[Packet] = []
        """Every segment sent, in order."""
        self.counts: Counter[Fate] = Counter()
        """How many segments met which fate."""
        self.flows: dict[tuple[str, int, str, int], Flow] = {}
        """By (host, TCP port, peer, its TCP port), for each direction, once `watch_flows` is called."""
        self.loop: SimLoop | None = None
        """The event loop of asyncio programs, while `run` runs."""
        self._record = record
        self._random = random.Random(seed)
        self._events: list[tuple[int, int, Callable[[], None]]] = []  # a heap: (instant, serial, what happens)
        self._serial = 0
        self._watching = False
        self._routers: dict[str, Router] = {}
        self._routes: dict[tuple[str, str], list[tuple[str, str]]] = {}
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
        discover_mtu: bool = False,
        observer: Observer | None = None,
        isn: Callable[[int, int, int], int] | None = None,
    ) -> Host:
        """A new host. ``name`` is what programs on any host may connect to, and so is ``address``, an IPv4 or
        IPv6 address (10.0.0.1, 10.0.0.2 ... by default). ``config``, ``observer`` and ``isn`` are those of its bare
        engine (see docs/engine.md). It takes ``mtu`` bytes for what all paths carry; with ``discover_mtu`` that is its
        own link's, and what paths carry it finds out.

        All its secrets follow from the seed and the name. Raises ValueError when the name or the address is taken
        or no address.
        """
        self._check_name(name)
        own = self._free_address() if address is None else str(ipaddress.ip_address(address))
        if own in self._addresses or is_loopback(own):
            raise ValueError(f"the address {own} is taken")
        host = Host(self, name, own, config, mtu, discover_mtu, observer, isn)
        self.hosts[name] = self._addresses[own] = host
        return host

    def _free_address(self) -> str:
        numbers = itertools.count(int(ipaddress.IPv4Address("10.0.0.1")))
        return next(text for number in numbers if (text := str(ipaddress.IPv4Address(number))) not in self._addresses)

    def router(self, name: str) -> Router:
        """Something that links meet at. Two hosts without a link of their own are connected by the shortest way over
        routers, if there is one: whatever goes over a link there shares its rate and its queue. Raises ValueError when
        the name is taken."""
        self._check_name(name)
        router = Router(name)
        self._routers[name] = router
        return router

    def _check_name(self, name: str) -> None:
        for kind, taken in (("host", self.hosts), ("router", self._routers)):
            if name in taken:
                raise ValueError(f"there is a {kind} {name!r} already")

    def link(self, one: Host | Router, other: Host | Router, *, one_way: bool = False, **changes: Any) -> Link:
        """Give these two a link of their own: the network's present values, but for ``changes`` (fields of `Link`).

        It holds in both directions, or with ``one_way`` from ``one`` to ``other``. Raises ValueError as `Link`
        does, TypeError for what is no field of it.
        """
        self._routes.clear()
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

    def send(self, src: str, dst: str, payload: bytes, ecn: int = 0) -> None:
        """Hand the network one segment of a bare engine; it meets its fate."""
        self._carry(Packet(self.now, src, dst, payload, Fate.DELIVERED, ecn=ecn), self)

    def send_datagram(self, host: Host, source: Address, destination: Address, payload: bytes, ecn: int = 0) -> None:
        """Hand the network one datagram of a socket on ``host``; it meets its fate."""
        to = host if is_loopback(destination[0]) else self._addresses.get(destination[0])
        dst = to.name if to is not None else str(destination[0])
        packet = Packet(self.now, host.name, dst, payload, Fate.DELIVERED, source, destination, ecn)
        self._carry(packet, _WITHIN_A_HOST if to is host else self)

    def refuse(self, packet: Packet) -> None:
        """Nobody has the UDP port that a segment came to: tell its sender, as ICMP would."""
        hops = self._hops(packet.dst, packet.src, _WITHIN_A_HOST if packet.src == packet.dst else self)
        delay = sum(round(link.delay * SECOND) for _, link in hops)
        self._at(self.now + delay, partial(self._report, packet))

    def watch_flows(self) -> None:
        """From now on keep ``flows``."""
        self._watching = True

    def ladder(self, last: int = 100) -> str:
        """The last segments sent, one a line: what a failed test prints."""
        return "\n".join([f"seed {self.seed}", *map(str, self.trace[-last:])])

    def _carry(self, packet: Packet, otherwise: Link) -> None:
        """Send it on its way, over ``otherwise`` where there is no link, nor a route, of its own."""
        host = self.hosts.get(packet.dst)
        fate = Fate.DELIVERED
        if host is None or not host.up:
            fate = Fate.UNREACHABLE
        elif self._partitioned(packet):
            fate = Fate.PARTITIONED
        elif self._drops(packet):
            fate = Fate.DROPPED
        self.counts[Fate.DELIVERED] += 1
        if self._record:
            self.trace.append(packet)
        journey = _Journey(packet, self._hops(packet.src, packet.dst, otherwise), len(self.trace) - 1)
        self._hop(journey, fate)

    def _hop(self, journey: _Journey, fate: Fate = Fate.DELIVERED) -> None:
        """It is handed to the next link of its route, unless it has met its ``fate``."""
        journey.draws = [self._random.random() for _ in range(DRAWS)]
        arrivals: list[int] = []
        lane, link = journey.hops[journey.at]
        size = len(journey.packet.payload)
        if fate is Fate.DELIVERED and link.aqm and link.rate and not link.is_too_big(size):
            if link.has_room(lane, size + HEADERS):
                lane.codel.put(journey, size + HEADERS, self.now)
                if not lane.serving:
                    self._serve(lane, link)
                return
            fate = Fate.OVERFLOWED
        elif fate is Fate.DELIVERED:
            fate, arrivals = link.carry(lane, size, self.now, journey.draws)
            if fate is Fate.TOO_BIG and link.packet_too_big:
                self._complain(journey, link.mtu)
        self._go_on(journey, fate, arrivals)

    def _complain(self, journey: _Journey, mtu: int) -> None:
        """A router cannot pass it on: tell its sender so."""
        delay = sum(round(link.delay * SECOND) for _, link in journey.hops[: journey.at])
        self._at(self.now + delay, partial(self._report_too_big, journey.packet, mtu))

    def _serve(self, lane: Lane, link: Link) -> None:
        """Let the next of those that wait leave, as CoDel says."""
        taken = lane.codel.take(self.now, link.ecn)
        for dropped in taken.dropped:
            self._go_on(dropped, Fate.CODEL, [])
        journey: _Journey | None = taken.item
        lane.serving = journey is not None
        if journey is None:
            return
        if taken.marked:
            journey.packet = replace(journey.packet, ecn=3)
        leaves = self.now + link.time_of(taken.size)
        self._at(leaves, partial(self._serve, lane, link))
        fate, arrivals = link.strike(lane, leaves, journey.draws)
        self._go_on(journey, fate, arrivals)

    def _go_on(self, journey: _Journey, fate: Fate, arrivals: list[int]) -> None:
        """It has left a link: what became of it there, and when it is at the link's other end."""
        if fate is not Fate.DELIVERED:
            self._amend(journey, fate)
        journey.at += 1
        last = journey.at == len(journey.hops)
        if self._watching and (last or not arrivals):
            self._count(journey.packet, arrivals)
        for arrival in arrivals:
            if last:
                self._at(arrival, partial(self._deliver, journey.packet))
            else:
                self._at(arrival, partial(self._hop, replace(journey)))

    def _amend(self, journey: _Journey, fate: Fate) -> None:
        """Its fate has turned out to be another one."""
        before = journey.packet.fate
        self.counts[before] -= 1
        if not self.counts[before]:
            del self.counts[before]
        self.counts[fate] += 1
        journey.packet = replace(journey.packet, fate=fate)
        if self._record:
            self.trace[journey.number] = journey.packet

    def _count(self, packet: Packet, arrivals: list[int]) -> None:
        ports = packet.payload[:4]
        key = (packet.src, int.from_bytes(ports[:2], "big"), packet.dst, int.from_bytes(ports[2:], "big"))
        flow = self.flows.setdefault(key, Flow())
        flow.fates[packet.fate] += 1
        for arrival in arrivals:
            flow.bytes += len(packet.payload)
            flow.marked += packet.ecn == 3
            flow.delay += arrival - packet.sent_at
            flow.max_delay = max(flow.max_delay, arrival - packet.sent_at)

    def _hops(self, src: str, dst: str, otherwise: Link) -> list[tuple[Lane, Link]]:
        """The links from one host to another, in order."""
        route = self._routes.get((src, dst))
        if route is None:
            route = self._routes[src, dst] = self._find_route(src, dst)
        return [(self._lanes.setdefault(hop, Lane()), self._links.get(hop, otherwise)) for hop in route]

    def _find_route(self, src: str, dst: str) -> list[tuple[str, str]]:
        """The fewest links over routers, the first made if there are several ways; else the one between the two."""
        if (src, dst) in self._links or src == dst:
            return [(src, dst)]
        came_from: dict[str, str] = {src: src}
        reached = deque([src])
        while reached and dst not in came_from:
            here = reached.popleft()
            for one, other in self._links:
                if one == here and other not in came_from and (other in self._routers or other == dst):
                    came_from[other] = here
                    reached.append(other)
        if dst not in came_from:
            return [(src, dst)]
        route = []
        while dst != src:
            route.append((came_from[dst], dst))
            dst = came_from[dst]
        return route[::-1]

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
        engine.receive(engine.path(packet.dst, packet.src), packet.payload, self.now, ecn=packet.ecn)
        self._after_step(host)

    def _replay(self, packet: Packet) -> None:
        packet = replace(packet, sent_at=self.now, fate=Fate.REPLAYED)
        self._note(packet)
        self._deliver(packet)

    def _report(self, packet: Packet) -> None:
        host = self.hosts.get(packet.src)
        if host is not None and host.up and not self._partitioned(packet):
            host.refused(packet)

    def _report_too_big(self, packet: Packet, mtu: int) -> None:
        host = self.hosts.get(packet.src)
        if host is not None and host.up and not self._partitioned(packet):
            host.too_big(packet, mtu)

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
