"""The one seam between an endpoint and the network: send a batch of segments, receive a buffer of them.

``UdpSocket`` is the real thing. Whatever else has these methods (a simulated network, a wrapper that loses
datagrams) can take its place: ``Endpoint(datagrams)``.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from mypy_extensions import i64, mypyc_attr

from utcp.aio import icmp
from utcp.aio.addresses import Address, is_loopback
from utcp.aio.routes import Route, find_route
from utcp.core.paths import PathError

LINUX: Final = sys.platform == "linux"

# Constants that the socket module does not have
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_RECVERR: Final = 11
IPV6_MTU_DISCOVER: Final = 23
IPV6_RECVERR: Final = 25
IPV6_RECVPKTINFO: Final = 49
IPV6_PKTINFO: Final = 50
PMTUDISC_PROBE: Final = 3  # DF, and what ICMP has told the kernel of the path is for us to judge
MSG_ERRQUEUE: Final = 0x2000

MAX_DATAGRAM: Final = 65_536  # no UDP datagram, and no GRO train, is larger
MAX_SEND_BYTES: Final = 65_487  # what fits in a datagram over IPv4 and over IPv6
MAX_SEND_SEGMENTS: Final = 128  # UDP_MAX_SEGMENTS of current kernels; older ones have 64
SOCKET_BUFFER: Final = 8 << 20  # the default one holds 256 small datagrams
MEMORY_KEPT: Final = 1 << 20  # bytes, see keep_freed_memory
MAX_ROUTES: Final = 4096  # remembered
ROUTE_LASTS: Final = 60.0  # seconds: the system's answer changes with the network, and with what ICMP tells it
MAX_QUESTIONS: Final = 256  # a second, about hosts from which a datagram came: each costs half as much as a handshake
# Less is what forged ICMP can make of a route; a link that really takes less refuses what is larger, and says so
MIN_LINK_MTU: Final = 1280
QUOTE_SIZE: Final = 8  # bytes of a segment that tell which it was
MAX_RETRIES: Final = 8  # sends that report somebody else's error, in a row

# Where the ECN field of a datagram that has come is; Linux and macOS call it by different names
ECN_DATA: Final = frozenset(
    {
        (socket.IPPROTO_IP, socket.IP_TOS),
        (socket.IPPROTO_IP, socket.IP_RECVTOS),
        (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
    }
)

NO_ANCILLARY: Final[list[tuple[int, int, bytes]]] = []

# The outcomes of one system call
SENT: Final = 0
BLOCKED: Final = 1
SPLIT: Final = 2


class Received(NamedTuple):
    """A buffer of one or more segments from one peer; ``segment_size`` 0: one segment. ``ecn``: the ECN field of their
    IP headers (RFC 3168 5), 0 unless ``report_ecn`` was called."""

    data: bytes
    segment_size: int
    local: Address
    peer: Address
    ecn: int = 0


# The same as compiled code passes it, without an object for each; ``NOTHING`` as its segment size: nothing was there
Taken: TypeAlias = tuple[bytes, i64, Address, Address, i64]
NOTHING: Final = -1


class PathReport(NamedTuple):
    """What ICMP or the system said about a path; ``mtu`` in bytes, 0 if it named none.

    ``quote``: the first bytes of the segment that it is about, as far as ICMP repeats them.
    """

    kind: PathError
    local: Address
    peer: Address
    mtu: int = 0
    quote: bytes = b""


class Datagrams(Protocol):
    """What an endpoint asks of its network. Nothing here raises but ``route`` and ``attach``."""

    @property
    def family(self) -> int:
        """``socket.AF_INET`` or ``AF_INET6``."""

    @property
    def local(self) -> Address:
        """The address bound to; its host may be the wildcard."""

    def attach(self, loop: asyncio.AbstractEventLoop, readable: Callable[[], None]) -> None:
        """From now on call ``readable`` in ``loop`` whenever ``receive`` or ``reports`` may have something."""

    def rearm(self) -> None:
        """Ask for ``readable`` anew: some event loops stop asking after an error."""

    def wait_writable(self, writable: Callable[[], None] | None) -> None:
        """Call ``writable`` when the network takes datagrams again; None: no more."""

    def receive(self) -> Received | None:
        """The next buffer, None if there is nothing now."""

    def report_ecn(self) -> None:
        """From now on ``receive`` shall tell the ECN field."""

    def send(self, payload: bytes, segment_size: int, local: Address, peer: Address, ecn: int = 0) -> int:
        """Send ``payload`` as segments of ``segment_size`` bytes (the last may be shorter), from ``local``, with the
        ECN field ``ecn`` in their IP headers.

        Returns how many bytes were taken: fewer than all means that the network is congested. A segment that
        the system refuses counts as taken, it is lost.
        """

    @property
    def has_reports(self) -> bool:
        """Whether ``reports`` is known to have something."""

    def reports(self) -> list[PathReport]:
        """Errors that have come in since the last call."""

    def route(self, peer: Address) -> Address:
        """The local address from which datagrams to ``peer`` leave. Raises OSError when there is no route."""

    def mtu(self, local: Address, peer: Address) -> int:
        """The path MTU in bytes where it can be trusted, else 0."""

    def link_mtu(self, local: Address, peer: Address) -> int:
        """The MTU in bytes of the link that leads to ``peer``; 0 if the system does not say, or would fragment."""

    def stats(self) -> dict[str, int]:
        """Numbers for ``Endpoint.stats``."""

    def close(self) -> None:
        """Let go of the network; safe to call twice."""

    def abandon(self) -> None:
        """The same in a forked child, where the event loop is the parent's."""


@mypyc_attr(allow_interpreted_subclasses=True)
class UdpSocket:
    """A UDP socket with batching (GSO, GRO), local addresses (IP_PKTINFO), ICMP errors (IP_RECVERR) and ECN (IP_TOS).

    Each of these is used where the system has it; ``gso=False`` and ``gro=False`` forbid the batching, so that
    every segment is a datagram of its own for captures and middleboxes.
    """

    __slots__ = (
        "_ancillary_size",
        "_ecn",
        "_gso",
        "_gso_limits",
        "_loop",
        "_questions",
        "_questions_until",
        "_readable",
        "_receive_buffer",
        "_receive_calls",
        "_recvmsg",
        "_refused_above",
        "_reports",
        "_routes",
        "_send_buffer",
        "_send_calls",
        "_send_failures",
        "_sock",
        "_sources",
        "_whole",
        "_wildcard",
        "family",
        "local",
    )

    def __init__(self, sock: socket.socket, *, gso: bool = True, gro: bool = True) -> None:
        """Take over ``sock``, a bound UDP socket, and its closing."""
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_DGRAM:
            raise ValueError(f"A bound UDP socket was expected, got {sock!r}")
        sock.setblocking(False)
        self._sock = sock
        self._recvmsg = sock.recvmsg
        self.family: int = sock.family
        self.local: Address = sock.getsockname()[:2]
        self._wildcard = self.local[0] in ("0.0.0.0", "::")
        # Any: compiled code checks results, and uvloop's remove_reader returns None where asyncio's returns a bool
        self._loop: Any = None
        self._readable: Callable[[], None] | None = None
        self._whole = False  # datagrams are never fragmented (DF)
        self._gso = gso and LINUX
        self._gso_limits: dict[str, int] = {}  # segments a send, by peer host, where less than the maximum
        self._sources: dict[str, list[tuple[int, int, bytes]]] = {}  # ancillary data by local host
        self._routes: dict[Address, tuple[Route, float]] = {}  # ... and until when
        self._questions = 0  # about strangers, in the second that ends at ``_questions_until``
        self._questions_until = 0.0
        self._reports: list[PathReport] = []
        self._refused_above = 0  # bytes of packet: what the link takes, when it last refused one
        self._send_calls = self._receive_calls = self._send_failures = 0
        self._ancillary_size = 0
        self._ecn = False  # fields of datagrams are reported
        self._set_options(gro)
        keep_freed_memory()

    @classmethod
    def bind(
        cls, family: int, address: Address, *, reuse_port: bool = False, gso: bool = True, gro: bool = True
    ) -> UdpSocket:
        """A new socket. Raises OSError naming the address when it cannot be bound."""
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if reuse_port:
                if not hasattr(socket, "SO_REUSEPORT"):
                    raise ValueError("reuse_port not supported by socket module")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(address)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise OSError(error.errno, f"error while attempting to bind on address {address!r}: {reason}") from None
            return cls(sock, gso=gso, gro=gro)
        except BaseException:
            sock.close()
            raise

    def attach(self, loop: asyncio.AbstractEventLoop, readable: Callable[[], None]) -> None:
        try:
            loop.add_reader(self._sock.fileno(), readable)
        except NotImplementedError:
            raise NotImplementedError(
                f"utcp needs an event loop with add_reader(), which {type(loop).__name__} does not have: "
                "on Windows use asyncio.SelectorEventLoop"
            ) from None
        self._loop = loop
        self._readable = readable

    def rearm(self) -> None:
        if self._loop is not None and self._readable is not None and self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def wait_writable(self, writable: Callable[[], None] | None) -> None:
        if self._loop is None:
            return
        if writable is None:
            self._loop.remove_writer(self._sock.fileno())
        else:
            self._loop.add_writer(self._sock.fileno(), writable)

    def receive(self) -> Received | None:
        data, segment_size, local, peer, ecn = self.take()
        return None if segment_size == NOTHING else Received(data, segment_size, local, peer, ecn)

    def take(self) -> Taken:
        """As ``receive``; the pump calls it, but of a subclass ``receive``."""
        for _ in range(MAX_RETRIES):
            try:
                data, ancillary, _, peer = self._recvmsg(MAX_DATAGRAM, self._ancillary_size)
            except BlockingIOError:
                break
            except OSError:
                self._drain_errors()  # an ICMP error that is waiting; the next call works
                continue
            self._receive_calls += 1
            segment_size: i64 = 0
            ecn: i64 = 0
            local: Address | None = self.local
            for level, kind, value in ancillary:
                if level == SOL_UDP and kind == UDP_GRO:
                    segment_size = int.from_bytes(value[:4], sys.byteorder)
                elif self._ecn and (level, kind) in ECN_DATA:
                    ecn = int.from_bytes(value, sys.byteorder) & 3  # a byte by IPv4, an int by IPv6
                else:
                    local = self._local_address(level, kind, value, local)
            if local is None:
                continue
            if len(peer) != 2:
                peer = peer if peer[3] else peer[:2]
            return data, segment_size, local, peer, ecn
        return b"", NOTHING, self.local, self.local, 0

    def report_ecn(self) -> None:
        if self._ecn:
            return
        self._ecn = True
        if self.family == socket.AF_INET:
            self._enable(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        else:
            self._enable(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        self._ancillary_size += socket.CMSG_SPACE(4)

    def send(self, payload: bytes, segment_size: int, local: Address, peer: Address, ecn: int = 0) -> int:
        size = len(payload)
        if 0 < size <= segment_size:
            return 0 if self._send_one(payload, 0, local, peer, ecn) == BLOCKED else size
        sent = 0
        while sent < size:
            count = -(-(size - sent) // segment_size)
            if count > 1:
                count = min(count, self._batch_limit(segment_size, peer[0]))
            step = min(count * segment_size, size - sent)
            part = payload if step == size else payload[sent : sent + step]
            outcome = self._send_one(part, segment_size if count > 1 else 0, local, peer, ecn)
            if outcome == BLOCKED:
                break
            if outcome == SENT:
                sent += step
        return sent

    @property
    def has_reports(self) -> bool:
        return bool(self._reports)

    def reports(self) -> list[PathReport]:
        self._drain_errors()
        found = self._reports
        if found:
            self._reports = []
        return found

    def route(self, peer: Address) -> Address:
        host = self._route(peer).local
        return (host, self.local[1]) if self._wildcard else self.local

    def mtu(self, local: Address, peer: Address) -> int:
        if peer[0] != local[0] and not is_loopback(peer[0]):
            return 0
        return self._known_mtu(peer)

    def link_mtu(self, local: Address, peer: Address) -> int:
        if not self._whole or (self._remembered(_host(peer)) is None and not self._may_ask()):
            return 0
        mtu = self._known_mtu(peer)
        return max(mtu, MIN_LINK_MTU) if mtu > 0 else 0

    def stats(self) -> dict[str, int]:
        return {
            "send_calls": self._send_calls,
            "send_failures": self._send_failures,
            "receive_calls": self._receive_calls,
            "receive_buffer": self._receive_buffer,
            "send_buffer": self._send_buffer,
        }

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()

    def abandon(self) -> None:
        self._loop = None
        self._sock.close()

    # Setting up

    def _set_options(self, gro: bool) -> None:
        self._receive_buffer = self._enlarge(socket.SO_RCVBUF, SO_RCVBUFFORCE)
        self._send_buffer = self._enlarge(socket.SO_SNDBUF, SO_SNDBUFFORCE)
        if not LINUX:
            self._wildcard = False
            return
        self._gso = self._gso and self._enable(SOL_UDP, UDP_SEGMENT, 0)
        if gro and self._enable(SOL_UDP, UDP_GRO, 1):
            self._ancillary_size += socket.CMSG_SPACE(4)
        if self.family == socket.AF_INET:
            self._enable(socket.IPPROTO_IP, IP_RECVERR, 1)
            self._whole = self._enable(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
            local_option = (socket.IPPROTO_IP, IP_PKTINFO)
        else:
            self._enable(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            self._whole = self._enable(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
            local_option = (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO)
        if self._wildcard:
            self._wildcard = self._enable(*local_option, 1)
            self._ancillary_size += socket.CMSG_SPACE(20)

    def _enable(self, level: int, option: int, value: int) -> bool:
        try:
            self._sock.setsockopt(level, option, value)
        except OSError:
            return False
        return True

    def _enlarge(self, option: int, force: int) -> int:
        """Ask for a large buffer, returning what was granted; the privileged option may exceed the system's maximum."""
        size = SOCKET_BUFFER
        if not (LINUX and self._enable(socket.SOL_SOCKET, force, size)):
            while size > 1 << 17 and not self._enable(socket.SOL_SOCKET, option, size):
                size //= 2
        return self._sock.getsockopt(socket.SOL_SOCKET, option)

    # The way to a peer

    def _route(self, peer: Address) -> Route:
        host = _host(peer)
        route = self._remembered(host)
        if route is None:
            route = find_route(self.family, peer, None if self._wildcard else self.local)
            self._routes.pop(host, None)  # the oldest shall be the first
            if len(self._routes) >= MAX_ROUTES:
                del self._routes[next(iter(self._routes))]
            self._routes[host] = (route, time.monotonic() + ROUTE_LASTS)
        return route

    def _remembered(self, host: Address) -> Route | None:
        """The system's answer, unless it is too old."""
        known = self._routes.get(host)
        return known[0] if known is not None and time.monotonic() < known[1] else None

    def _may_ask(self) -> bool:
        """Whether the system shall be asked for the way to somebody who has sent us a datagram."""
        now = time.monotonic()
        if now >= self._questions_until:
            self._questions_until = now + 1.0
            self._questions = 0
        self._questions += 1
        return self._questions <= MAX_QUESTIONS

    def _known_mtu(self, peer: Address) -> int:
        try:
            return self._route(peer).mtu
        except OSError:
            return 0

    # Receiving

    def _local_address(self, level: int, kind: int, value: bytes, otherwise: Address | None) -> Address | None:
        """The address that was asked, from IP_PKTINFO; None for one that is not ours alone. ``otherwise`` if it is
        something else that is said (a socket of the user's own may have been asked for more).

        RFC 9293 3.9.2.3 (MUST-57): segments to broadcast and multicast addresses are discarded.
        """
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            if value[4:8] != value[8:12]:  # the address that the system would answer from is another one
                return None
            return (socket.inet_ntoa(value[8:12]), self.local[1])
        if level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            if value[0] == 0xFF:
                return None
            return (socket.inet_ntop(socket.AF_INET6, value[:16]), self.local[1])
        return otherwise

    # Sending

    def _batch_limit(self, segment_size: int, host: str) -> int:
        """How many segments of this size one send may take, at least 1."""
        if not self._gso:
            return 1
        limit = self._gso_limits.get(host, MAX_SEND_SEGMENTS) if self._gso_limits else MAX_SEND_SEGMENTS
        return max(1, min(limit, MAX_SEND_BYTES // segment_size))

    def _send_one(self, data: bytes, batch_size: int, local: Address, peer: Address, ecn: int) -> int:
        """One system call, again when it reports somebody else's error. ``batch_size`` 0: a single datagram."""
        ancillary = self._source(local[0]) if self._wildcard else NO_ANCILLARY
        if batch_size:
            ancillary = [*ancillary, (SOL_UDP, UDP_SEGMENT, struct.pack("=H", batch_size))]
        if ecn:
            ancillary = [*ancillary, _ecn_data(self.family, ecn)]
        failure = 0
        for _ in range(MAX_RETRIES):
            self._send_calls += 1
            try:
                if ancillary:
                    self._sock.sendmsg([data], ancillary, 0, peer)
                else:
                    self._sock.sendto(data, peer)
                return SENT
            except BlockingIOError:
                return BLOCKED
            except OSError as error:
                failure = error.errno or 0
            if self._drain_errors():
                continue
            if batch_size and failure in (errno.EINVAL, errno.EIO, errno.EMSGSIZE):
                self._lower_batch_limit(failure, len(data) // batch_size, peer[0])
                return SPLIT
            break  # the error is this datagram's own
        self._send_failed(failure, local, peer)
        return SENT

    def _lower_batch_limit(self, failure: int, count: int, host: str) -> None:
        """Too many segments for this kernel (EINVAL), too large ones, or a device that cannot batch (EIO)."""
        self._gso_limits[host] = 1 if failure == errno.EIO else max(1, count // 2)

    def _send_failed(self, failure: int, local: Address, peer: Address) -> None:
        """The system refused a datagram. Full queues (ENOBUFS) and firewalls (EPERM) are losses like others."""
        self._send_failures += 1
        self._routes.pop(_host(peer), None)
        if failure == errno.EMSGSIZE:
            self._gso_limits.pop(peer[0], None)  # it was the size, not the count
            self._reports.append(
                PathReport(PathError.MESSAGE_TOO_LONG, local, peer, self._refused_above or self._known_mtu(peer))
            )
        elif (kind := icmp.kind_of_errno(failure)) is not None:
            self._reports.append(PathReport(kind, local, peer))

    def _source(self, host: str) -> list[tuple[int, int, bytes]]:
        """Ancillary data that makes a datagram leave from ``host``."""
        source = self._sources.get(host)
        if source is None:
            if self.family == socket.AF_INET:
                source = [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + socket.inet_aton(host) + bytes(4))]
            else:
                packed = socket.inet_pton(socket.AF_INET6, host) + bytes(4)
                source = [(socket.IPPROTO_IPV6, IPV6_PKTINFO, packed)]
            self._sources[host] = source
        return source

    # Errors

    def _drain_errors(self) -> bool:
        """Read the error queue; whether there was anything in it but this system's own refusal of a datagram."""
        found = False
        while LINUX:
            try:
                quote, ancillary, _, peer = self._recvmsg(QUOTE_SIZE, 512, MSG_ERRQUEUE)
            except OSError:
                break
            report = icmp.parse(ancillary)
            if report is not None and report[0] is PathError.MESSAGE_TOO_LONG:
                self._refused_above = report[1]
                continue
            found = True
            if report is not None:
                kind, mtu, host = report
                if len(peer) != 2:
                    peer = peer if peer[3] else peer[:2]
                local = (host, self.local[1]) if host and self._wildcard else self.local
                self._reports.append(PathReport(kind, local, peer, mtu, quote))
        return found


def _ecn_data(family: int, ecn: int) -> tuple[int, int, bytes]:
    """Ancillary data that puts ``ecn`` into the IP header."""
    value = struct.pack("=i", ecn)
    if family == socket.AF_INET:
        return (socket.IPPROTO_IP, socket.IP_TOS, value)
    return (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, value)


def keep_freed_memory() -> None:
    """Have the C library keep the memory of buffers as large as a train, which come and go thousands of times a second.

    glibc returns free memory above 128 KiB to the system, which clears each page anew for the next buffer: in bulk
    that took six times as long as everything else. It learns from the first larger block that it gets back, and from
    then on keeps twice that much (mallopt(3), M_MMAP_THRESHOLD) unless the environment says what it is to keep.
    """
    bytes(MEMORY_KEPT)


def _host(peer: Address) -> Address:
    """An address without its port."""
    return (peer[0], *peer[3:])
