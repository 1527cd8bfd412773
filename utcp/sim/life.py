"""A host between its start and its crash, as asyncio programs on it see it: sockets, clock, secrets."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import itertools
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from utcp.aio.addresses import Address, is_loopback, literal_family
from utcp.aio.alarm import Alarm, LoopAlarm
from utcp.aio.datagrams import PathReport, Received
from utcp.core.paths import PathError

if TYPE_CHECKING:
    from utcp.sim.host import Host
    from utcp.sim.network import Packet

WILDCARDS: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
LOOPBACK_MTU: Final = 65_536
QUOTE_SIZE: Final = 28  # bytes of a segment that ICMP repeats
FIRST_EPHEMERAL: Final = 49_152

# The hosts that running code is on, the innermost ``with host:`` last. A tuple, because contexts are copied.
_lives: contextvars.ContextVar[tuple[Life, ...]] = contextvars.ContextVar("utcp_sim_lives", default=())


def enter(life: Life) -> None:
    """From now on, in this context, code runs on that host."""
    _lives.set((*_lives.get(), life))


def leave() -> None:
    """Undo the last ``enter``."""
    _lives.set(_lives.get()[:-1])


def current(context: contextvars.Context | None = None) -> Life | None:
    """Where the code in a context is, by default the running code."""
    lives = _lives.get() if context is None else context.get(_lives, ())
    return lives[-1] if lives else None


def family_of(address: str) -> socket.AddressFamily:
    return socket.AddressFamily(literal_family(address))


class Life:
    """What endpoints ask of the host they are on (``utcp.aio.hosts.Host``). It ends with a crash, for good."""

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self.number = number
        self.alive = True
        self._sockets: dict[Address, SimulatedSocket] = {}
        self._engines = itertools.count()
        self._ports = itertools.count(FIRST_EPHEMERAL)

    def __repr__(self) -> str:
        return f"<{'Life' if self.alive else 'Past life'} {self.number} of {self.host.name}>"

    def clock(self) -> int:
        return self.host.network.now

    def alarm(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
        return LoopAlarm(loop, ring)

    def engine_secret(self) -> bytes:
        return self.host.secret(f" {self.number} {next(self._engines)}")

    def bind(
        self, family: int, address: Address, *, reuse_port: bool = False, gso: bool = True, gro: bool = True
    ) -> SimulatedSocket:
        """A new UDP socket. ``reuse_port``, ``gso`` and ``gro`` have no effect here."""
        try:
            self.check_local(family, address)
            host, port = address[:2]
            if port == 0:
                port = next(self._ports)
                while self._taken((host, port)):
                    port = next(self._ports)
            elif self._taken((host, port)):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OSError(error.errno, f"error while attempting to bind on address {address!r}: {reason}") from None
        found = self._sockets[host, port] = SimulatedSocket(self, family, (host, port))
        return found

    def check_local(self, family: int, address: Address) -> None:
        """Raise OSError for an address of another host, and when the host has crashed."""
        if not self.alive:
            raise OSError(errno.ENETDOWN, f"host {self.host.name} has crashed")
        own = (WILDCARDS[socket.AddressFamily(family)], self.host.address)
        if address[0] not in own and not is_loopback(address[0]):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    def source(self, peer: Address) -> str:
        """The host address from which ``peer`` is reached. Raises OSError when it is of another family."""
        if is_loopback(peer[0]):
            return LOOPBACK[family_of(peer[0])]
        if family_of(self.host.address) != family_of(peer[0]):
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        return self.host.address

    def socket_at(self, address: Address | None) -> SimulatedSocket | None:
        """Who gets what comes to ``address``."""
        if address is None:
            return None
        return self._sockets.get(address) or self._sockets.get((WILDCARDS[family_of(address[0])], address[1]))

    def release(self, address: Address) -> None:
        self._sockets.pop(address, None)

    def end(self) -> None:
        """The crash."""
        self.alive = False
        self._sockets.clear()

    def _taken(self, address: Address) -> bool:
        """A wildcard address takes its port on all of them."""
        host, port = address
        wildcards = WILDCARDS.values()
        return any(
            port == other_port and (host == other or host in wildcards or other in wildcards)
            for other, other_port in self._sockets
        )


class SimulatedSocket:
    """``utcp.aio.datagrams.Datagrams`` over the simulated network: every segment is a datagram of its own."""

    def __init__(self, life: Life, family: int, local: Address) -> None:
        self.family = family
        self.local = local
        self._life = life
        self._received: deque[Received] = deque()
        self._reports: list[PathReport] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readable: Callable[[], None] | None = None
        self._context = contextvars.copy_context()
        self._waking = False
        self._sent = self._arrived = 0

    # What an endpoint asks of it

    def attach(self, loop: asyncio.AbstractEventLoop, readable: Callable[[], None]) -> None:
        self._loop = loop
        self._readable = readable
        self._context = contextvars.copy_context()

    def rearm(self) -> None:
        """Nothing to do: ``readable`` is called as long as there is something."""

    def wait_writable(self, writable: Callable[[], None] | None) -> None:
        """Never needed: ``send`` takes everything."""

    def receive(self) -> Received | None:
        return self._received.popleft() if self._received else None

    def report_ecn(self) -> None:
        """Nothing to do: it always does."""

    def send(self, payload: bytes, segment_size: int, local: Address, peer: Address, ecn: int = 0) -> int:
        if self._life.alive:
            for start in range(0, len(payload), segment_size):
                self._sent += 1
                self._life.host.network.send_datagram(
                    self._life.host, local, peer, payload[start : start + segment_size], ecn
                )
        return len(payload)

    @property
    def has_reports(self) -> bool:
        return bool(self._reports)

    def reports(self) -> list[PathReport]:
        found, self._reports = self._reports, []
        return found

    def route(self, peer: Address) -> Address:
        if self.local[0] not in WILDCARDS.values():
            return self.local
        return (self._life.source(peer), self.local[1])

    def mtu(self, local: Address, peer: Address) -> int:
        if local[0] == peer[0] or is_loopback(peer[0]):
            return LOOPBACK_MTU
        return 0 if self._life.host.discover_mtu else self._life.host.mtu

    def link_mtu(self, local: Address, peer: Address) -> int:
        return self._life.host.mtu

    def stats(self) -> dict[str, int]:
        return {"datagrams_sent": self._sent, "datagrams_received": self._arrived}

    def close(self) -> None:
        self._life.release(self.local)
        self._readable = None
        self._received.clear()

    def abandon(self) -> None:
        self.close()

    # From the network

    def deliver(self, packet: Packet) -> None:
        """A segment has arrived."""
        assert packet.source is not None and packet.destination is not None
        self._arrived += 1
        self._received.append(Received(packet.payload, 0, packet.destination, packet.source, packet.ecn))
        self._wake()

    def refused(self, packet: Packet) -> None:
        """One that we sent came to a port that nobody has."""
        assert packet.source is not None and packet.destination is not None
        self._reports.append(PathReport(PathError.PORT_UNREACHABLE, packet.source, packet.destination))
        self._wake()

    def too_big(self, packet: Packet, mtu: int) -> None:
        """One that we sent came to a link that takes only packets of ``mtu`` bytes."""
        assert packet.source is not None and packet.destination is not None
        quote = packet.payload[:QUOTE_SIZE]
        self._reports.append(PathReport(PathError.PACKET_TOO_BIG, packet.source, packet.destination, mtu, quote))
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None and not self._waking:
            self._waking = True
            self._loop.call_soon(self._tell, context=self._context)

    def _tell(self) -> None:
        self._waking = False
        if self._readable is not None and self._life.alive:
            self._readable()
            if self._received or self._reports:
                self._wake()
