"""Who is who: every utcp UDP endpoint is an IP host, every kernel address is a UDP endpoint.

The kernel has one or more addresses on the TUN device; for each the gateway holds a UDP socket, and a datagram to
that socket is a packet to that address. Each utcp endpoint (UDP address and port) is a host number; host 2 is
10.99.0.2 to a kernel at 10.99.0.1/16 and fd99::2 to one at fd99::1/64. TCP ports are never changed, so that any
number of connections needs no state beyond the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import Final, NamedTuple

from utcp.gateway.icmp import header_sizes
from utcp.gateway.packets import IpHeader, pseudo_sum
from utcp.wire.segment import HEADER_SIZE

# An IP packet counts its bytes in 16 bits, header included or not (RFC 791 3.1, RFC 8200 3)
_MAX_PACKET: Final = 65535


class Endpoint(NamedTuple):
    """An IP address (text, as the socket module writes it) and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class KernelAddress(NamedTuple):
    """An address of the kernel's on the TUN device with its network, and the UDP endpoint that stands for it."""

    interface: IPv4Interface | IPv6Interface
    udp: Endpoint

    def __str__(self) -> str:
        return f"{self.interface}={self.udp}"


class UnknownAddress(Exception):
    """A packet from or to an address that stands for nobody. ``reason`` is the key under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One kernel address and one utcp endpoint: everything that translating a segment between them needs."""

    kernel: int  # index of the kernel address, and of its UDP socket
    endpoint: Endpoint
    host: str  # the address under which the kernel knows the endpoint
    kernel_host: str
    host_packed: bytes
    kernel_packed: bytes
    to_kernel: IpHeader
    pseudo: int  # pseudo-header sum, the same both ways
    inner_header: int  # bytes before the segment in a TCP packet
    outer_header: int  # bytes before the segment in a datagram

    def segment_limit(self, path_mtu: int, device_mtu: int) -> int:
        """The longest segment, header included, that fits both a datagram and a TCP packet."""
        outer, inner = min(path_mtu, _MAX_PACKET), min(device_mtu, _MAX_PACKET)
        return max(min(outer - self.outer_header, inner - self.inner_header), HEADER_SIZE)


class RoutingTable:
    """Finds the route of a packet; learns utcp endpoints as they appear.

    ``utcp`` endpoints get the host numbers 2, 3, ... in their order (those that are kernel addresses are passed
    over), others the next ones as they send for the first time. A number is never taken back: the kernel may hold
    a connection to it for ever. The smallest network therefore bounds how many endpoints there can be; ValueError
    when it has no room for ``utcp``.
    """

    def __init__(self, kernel: Sequence[KernelAddress], utcp: Sequence[Endpoint] = ()) -> None:
        self.kernel: list[KernelAddress] = list(kernel)
        self.hosts: dict[Endpoint, int] = {}
        self._endpoints: dict[int, Endpoint] = {}
        self._routes: dict[tuple[int, Endpoint], Route] = {}
        self._by_addresses: dict[bytes, Route] = {}
        taken = {int(k.interface.ip) - int(k.interface.network.network_address) for k in kernel}
        # The last address of an IPv4 network is its broadcast address
        end = min(k.interface.network.num_addresses for k in kernel) - 1
        self._numbers = (n for n in range(2, end) if n not in taken)
        for endpoint in utcp:
            try:
                self.add(endpoint)
            except UnknownAddress:
                raise ValueError(f"the kernel's network has no address left for {endpoint}") from None

    def add(self, endpoint: Endpoint) -> int:
        """The endpoint's host number, a new one if it has none. Raises UnknownAddress when they are used up."""
        number = self.hosts.get(endpoint)
        if number is None:
            number = next(self._numbers, None)
            if number is None:
                raise UnknownAddress("no-free-address")
            self.hosts[endpoint] = number
            self._endpoints[number] = endpoint
        return number

    def host_address(self, endpoint: Endpoint, kernel: int = 0) -> str:
        """The address under which the kernel, at its address of that index, reaches a utcp endpoint."""
        return str(self._host_address(self.add(endpoint), kernel))

    def from_utcp(self, kernel: int, endpoint: Endpoint) -> Route:
        """The route of a datagram that came to the kernel address' socket. Raises UnknownAddress."""
        route = self._routes.get((kernel, endpoint))
        return route if route is not None else self._make(kernel, endpoint)

    def from_kernel(self, src: bytes, dst: bytes) -> Route:
        """The route of a packet by its packed addresses. Raises UnknownAddress."""
        route = self._by_addresses.get(src + dst)
        return route if route is not None else self._learn(src, dst)

    def _learn(self, src: bytes, dst: bytes) -> Route:
        source, destination = ip_address(src), ip_address(dst)
        for index, kernel in enumerate(self.kernel):
            if source == kernel.interface.ip and destination in kernel.interface.network:
                number = int(destination) - int(kernel.interface.network.network_address)
                endpoint = self._endpoints.get(number)
                # An IPv4 socket has no way to an IPv6 endpoint
                if endpoint is None or (":" in endpoint.host) != (":" in kernel.udp.host):
                    raise UnknownAddress("unknown-host")
                return self.from_utcp(index, endpoint)
        raise UnknownAddress("unknown-kernel-address")

    def _make(self, index: int, endpoint: Endpoint) -> Route:
        host = self._host_address(self.add(endpoint), index)
        kernel = self.kernel[index].interface.ip
        inner, outer = header_sizes(kernel.packed, ip_address(endpoint.host.partition("%")[0]).packed)
        route = Route(
            kernel=index,
            endpoint=endpoint,
            host=str(host),
            kernel_host=str(kernel),
            host_packed=host.packed,
            kernel_packed=kernel.packed,
            to_kernel=IpHeader(host.packed, kernel.packed),
            pseudo=pseudo_sum(host.packed, kernel.packed),
            inner_header=inner,
            outer_header=outer,
        )
        self._routes[index, endpoint] = route
        self._by_addresses[kernel.packed + host.packed] = route
        return route

    def _host_address(self, number: int, kernel: int) -> IPv4Address | IPv6Address:
        return self.kernel[kernel].interface.network.network_address + number
