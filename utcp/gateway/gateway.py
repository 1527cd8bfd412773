"""The gateway: segments between utcp's datagrams and a TUN device, one header for another.

It keeps no connection: what a segment says is between the two ends, so that a kernel socket is the end-to-end peer
of a utcp endpoint. Segments are forwarded unchanged but for the checksum, and the MSS option of a SYN.
"""

from __future__ import annotations

import errno
import heapq
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Protocol

from utcp.aio.icmp import kind_of_errno
from utcp.core.ecn import CE, ECT_0, ECT_1
from utcp.core.paths import PathError
from utcp.gateway.icmp import IcmpError, mtu_across, parse_error, tcp_error
from utcp.gateway.impair import PASS, Direction, Impair, Mark
from utcp.gateway.packets import (
    ICMP,
    ICMPV6,
    TCP,
    BadPacket,
    Packet,
    clamp_mss,
    clear_tcp_checksum,
    parse,
    set_tcp_checksum,
    tcp_checksum_ok,
)
from utcp.gateway.routes import Endpoint, KernelAddress, Route, RoutingTable, UnknownAddress
from utcp.gateway.udp import RawIcmp, UdpSocket
from utcp.wire.segment import HEADER_SIZE

# (wall clock in ns, source, destination, segment, comments, direction as pcapng has it: unknown, ECN field)
Capture = Callable[[int, str, str, bytes, list[str] | None, int, int], object]

# How many packets one socket or device may bring before the others have their turn
_BATCH: Final = 64
# Ports and sequence number: what a kernel looks at in the segment an ICMP error quotes (RFC 792)
_QUOTE_NEEDED: Final = 8


class PacketDevice(Protocol):
    """Where IP packets come from and go to: a ``Tun``, or something like it. Never blocks."""

    mtu: int

    def fileno(self) -> int: ...
    def read(self) -> bytes: ...
    def write(self, packet: bytes) -> None: ...
    def close(self) -> None: ...


@dataclass
class Counters:
    """What a gateway did. ``drops`` counts by reason, ``icmp`` the errors passed on, by direction and kind.

    ``impaired`` counts what was decided about segments; as marked only those that were forwarded so.
    """

    segments_to_kernel: int = 0
    segments_to_utcp: int = 0
    bytes_to_kernel: int = 0  # segments with their TCP headers
    bytes_to_utcp: int = 0
    mss_clamped: int = 0
    impaired: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    icmp: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, object]:
        """The counters by name, as JSON can hold them."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}


class Gateway:
    """Translates between ``tun`` and one UDP socket for each kernel address, from ``run`` until ``stop``.

    ``utcp`` are endpoints that the kernel can connect to from the start, in the order of their host addresses.
    ``mtu`` is the path MTU towards utcp in bytes; ``impair`` decides about every segment (``impair.Impair``), ``mark``
    about every one that is ECN-capable (``impair.Mark``); ``capture`` is told every segment that crosses the device,
    such as ``trace.PcapngWriter.write``.

    Raises OSError naming the address when a UDP socket cannot be bound. The device is closed by ``close``, and
    when this constructor fails.
    """

    def __init__(
        self,
        tun: PacketDevice,
        kernel: Sequence[KernelAddress],
        utcp: Sequence[Endpoint] = (),
        *,
        mtu: int = 1500,
        impair: Impair | None = None,
        mark: Mark | None = None,
        capture: Capture | None = None,
    ) -> None:
        self.counters = Counters()
        self.mtu = mtu
        self._tun = tun
        self._impair = impair
        self._mark = mark
        self._capture = capture
        self._sockets: list[UdpSocket] = []
        self._icmp = RawIcmp()
        self._held: list[tuple[int, int, Direction, Route, bytes, int, bool]] = []
        self._serial = count()
        self._stopping = False
        self._wake_read, self._wake_write = socket.socketpair()
        try:
            self._sockets.extend(UdpSocket(k.udp) for k in kernel)
            # Port 0 has become a number
            bound = [KernelAddress(k.interface, s.address) for k, s in zip(kernel, self._sockets, strict=True)]
            self.routes = RoutingTable(bound, utcp)
        except BaseException:
            self.close()
            raise

    @property
    def kernel(self) -> list[KernelAddress]:
        """The kernel addresses with the UDP endpoints that stand for them."""
        return self.routes.kernel

    @property
    def tells_utcp_of_errors(self) -> bool:
        """Whether ICMP errors can be passed on to utcp hosts (CAP_NET_RAW)."""
        return self._icmp.available

    def run(self) -> None:
        """Forward until ``stop`` is called. May be run in a thread of its own."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._tun, selectors.EVENT_READ, self._read_tun)
            selector.register(self._wake_read, selectors.EVENT_READ, lambda: None)
            for index, udp in enumerate(self._sockets):
                selector.register(udp, selectors.EVENT_READ, lambda index=index: self._read_udp(index))
            while not self._stopping:
                for key, _ in selector.select(self._timeout()):
                    key.data()
                self._release()

    def stop(self) -> None:
        """End ``run``. May be called from any thread and from a signal handler."""
        self._stopping = True
        self._wake_write.send(b"\0")

    def close(self) -> None:
        """Close the sockets and the device. Segments that an impairment holds back are lost."""
        self._tun.close()
        self._icmp.close()
        self._wake_read.close()
        self._wake_write.close()
        for udp in self._sockets:
            udp.close()

    # From the kernel to utcp

    def _read_tun(self) -> None:
        for _ in range(_BATCH):
            try:
                packet = self._tun.read()
            except BlockingIOError:
                return
            try:
                self._from_kernel(packet)
            except BadPacket as bad:
                self.counters.drops[bad.reason] += 1

    def _from_kernel(self, data: bytes) -> None:
        packet = parse(data)
        if packet.protocol in (ICMP, ICMPV6):
            self._error_from_kernel(packet)
            return
        if packet.protocol != TCP:
            raise BadPacket("not-tcp")
        if len(packet.payload) < HEADER_SIZE:
            raise BadPacket("short-segment")
        try:
            route = self.routes.from_kernel(packet.src, packet.dst)
        except UnknownAddress as unknown:
            # As a router does that knows no such host: the kernel's connect() fails at once
            self._tell_kernel(IcmpError(PathError.HOST_UNREACHABLE), packet.src, packet.dst, packet.payload)
            raise BadPacket(unknown.reason) from None
        if not tcp_checksum_ok(packet.payload, route.pseudo):
            raise BadPacket("bad-checksum")
        limit = route.segment_limit(self.mtu, self._tun.mtu)
        if len(packet.payload) > limit:
            too_big = IcmpError(PathError.PACKET_TOO_BIG, limit + route.outer_header)
            self._pass_error_to_kernel(too_big, route, packet.payload)
            raise BadPacket("too-big")
        segment = self._clamp(packet.payload, limit)
        self._forward(Direction.TO_UTCP, route, clear_tcp_checksum(segment), packet.ecn)

    def _send_to_utcp(self, route: Route, segment: bytes, ecn: int) -> bool:
        udp = self._sockets[route.kernel]
        try:
            udp.send(segment, route.endpoint, ecn)
        except OSError as exc:
            self.counters.drops[_error_name("udp", exc)] += 1
            mtu = self._drain_errors(route.kernel)
            kind = kind_of_errno(exc.errno or 0)
            if kind is PathError.MESSAGE_TOO_LONG:
                kind = PathError.PACKET_TOO_BIG  # our link is a part of the kernel's path
            if kind is not None:
                self._pass_error_to_kernel(IcmpError(kind, mtu), route, segment)
            return False
        self.counters.segments_to_utcp += 1
        self.counters.bytes_to_utcp += len(segment)
        return True

    # From utcp to the kernel

    def _read_udp(self, index: int) -> None:
        self._drain_errors(index)
        for _ in range(_BATCH):
            try:
                segment, sender, ecn = self._sockets[index].receive()
            except BlockingIOError:
                return
            try:
                self._from_utcp(index, segment, sender, ecn)
            except (BadPacket, UnknownAddress) as bad:
                self.counters.drops[bad.reason] += 1

    def _from_utcp(self, index: int, segment: bytes, sender: Endpoint, ecn: int) -> None:
        if len(segment) < HEADER_SIZE:
            raise BadPacket("short-segment")
        route = self.routes.from_utcp(index, sender)
        limit = route.segment_limit(self.mtu, self._tun.mtu)
        if len(segment) > limit:
            too_big = IcmpError(PathError.PACKET_TOO_BIG, limit + route.outer_header)
            self._tell_utcp(too_big, route, segment)
            raise BadPacket("too-big")
        self._forward(Direction.TO_KERNEL, route, self._clamp(segment, limit), ecn)

    def _send_to_kernel(self, route: Route, segment: bytes, ecn: int) -> bool:
        packet = route.to_kernel.packet(set_tcp_checksum(segment, route.pseudo), ecn)
        try:
            self._tun.write(packet)
        except OSError as exc:
            self.counters.drops[_error_name("tun", exc)] += 1
            return False
        if self._capture is not None:
            self._capture(time.time_ns(), route.host, route.kernel_host, segment, None, 0, ecn)
        self.counters.segments_to_kernel += 1
        self.counters.bytes_to_kernel += len(segment)
        return True

    # Both ways

    def _clamp(self, segment: bytes, limit: int) -> bytes:
        clamped = clamp_mss(segment, limit - HEADER_SIZE)
        if clamped is not segment:
            self.counters.mss_clamped += 1
        return clamped

    def _forward(self, direction: Direction, route: Route, segment: bytes, ecn: int) -> None:
        now = time.monotonic_ns()
        delays = PASS if self._impair is None else self._impair(direction, segment, now)
        if delays is not PASS:
            self._count_impaired(direction, delays)
        marked = self._mark is not None and ecn in (ECT_1, ECT_0) and self._mark(direction, segment)
        if marked and delays:
            ecn = CE
        if self._capture is not None and direction is Direction.TO_UTCP:
            comments = None if delays else ["lost in the gateway"]
            self._capture(time.time_ns(), route.kernel_host, route.host, segment, comments, 0, ecn)
        for delay in delays:
            if delay == 0:
                self._send(direction, route, segment, ecn, marked)
            else:
                heapq.heappush(self._held, (now + delay, next(self._serial), direction, route, segment, ecn, marked))

    def _count_impaired(self, direction: Direction, delays: Sequence[int]) -> None:
        if not delays:
            self.counters.impaired[f"{direction.value} lost"] += 1
        if len(delays) > 1:
            self.counters.impaired[f"{direction.value} duplicated"] += 1
        if any(delays):
            self.counters.impaired[f"{direction.value} delayed"] += 1

    def _send(self, direction: Direction, route: Route, segment: bytes, ecn: int, marked: bool) -> None:
        send = self._send_to_kernel if direction is Direction.TO_KERNEL else self._send_to_utcp
        if send(route, segment, ecn) and marked:
            self.counters.impaired[f"{direction.value} marked"] += 1

    def _timeout(self) -> float | None:
        """Seconds until the first segment that is held back has to leave."""
        return max(0.0, (self._held[0][0] - time.monotonic_ns()) / 1e9) if self._held else None

    def _release(self) -> None:
        now = time.monotonic_ns()
        while self._held and self._held[0][0] <= now:
            _, _, direction, route, segment, ecn, marked = heapq.heappop(self._held)
            self._send(direction, route, segment, ecn, marked)

    # ICMP

    def _error_from_kernel(self, packet: Packet) -> None:
        """An error about a segment of utcp's that the gateway had put on the device: pass it on."""
        quote = parse_error(packet)
        if quote is None or quote.protocol != TCP:
            raise BadPacket("not-tcp")
        try:
            route = self.routes.from_kernel(quote.dst, quote.src)
        except UnknownAddress:
            raise BadPacket("icmp-unknown") from None
        error = mtu_across(quote.error, route.inner_header, route.outer_header)
        self._tell_utcp(error, route, quote.payload)

    def _tell_utcp(self, error: IcmpError, route: Route, segment: bytes) -> None:
        gateway = self.kernel[route.kernel].udp
        if self._icmp.send(error, route.endpoint, gateway, segment):
            self.counters.icmp[f"to-utcp {error.kind}"] += 1
        else:
            self.counters.drops["icmp-to-utcp-not-possible"] += 1

    def _drain_errors(self, index: int) -> int:
        """Pass on what ICMP said about our datagrams. Returns the path MTU a local error told of, else 0."""
        mtu = 0
        for endpoint, error, segment in self._sockets[index].errors():
            if not segment:
                mtu = error.mtu  # local: the send call that failed knows its segment
            elif len(segment) < _QUOTE_NEEDED or endpoint not in self.routes.hosts:
                self.counters.drops["icmp-short-quote"] += 1
            else:
                self._pass_error_to_kernel(error, self.routes.from_utcp(index, endpoint), segment)
        return mtu

    def _pass_error_to_kernel(self, error: IcmpError, route: Route, segment: bytes) -> None:
        error = mtu_across(error, route.outer_header, route.inner_header)
        self._tell_kernel(error, route.kernel_packed, route.host_packed, segment)

    def _tell_kernel(self, error: IcmpError, src: bytes, dst: bytes, segment: bytes) -> None:
        try:
            self._tun.write(tcp_error(error, src, dst, segment))
        except OSError:
            self.counters.drops["icmp-to-kernel-not-possible"] += 1
        else:
            self.counters.icmp[f"to-kernel {error.kind}"] += 1


def _error_name(where: str, exc: OSError) -> str:
    """The key under which a failed write is counted, such as ``udp-EAGAIN``."""
    return f"{where}-{errno.errorcode.get(exc.errno or 0, 'error')}"
