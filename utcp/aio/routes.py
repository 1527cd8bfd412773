"""What the system knows of the way to a peer: the address we would send from, and the MTU."""

from __future__ import annotations

import socket
import sys
from typing import Final, NamedTuple

from utcp.aio.addresses import Address

IP_MTU: Final = 14
IPV6_MTU: Final = 24
DISCARD_PORT: Final = 9


class Route(NamedTuple):
    """``local`` is a host; ``mtu`` is in bytes, 0 if the system does not say."""

    local: str
    mtu: int


def find_route(family: int, peer: Address, local: Address | None = None) -> Route:
    """Ask by connecting a throw-away UDP socket, which sends nothing.

    Raises OSError when nothing leads there, or not from ``local``.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        if local is not None:
            probe.bind((local[0], 0))
        probe.connect((peer[0], peer[1] or DISCARD_PORT, *peer[2:]))
        mtu = 0
        if sys.platform == "linux":
            if family == socket.AF_INET:
                mtu = probe.getsockopt(socket.IPPROTO_IP, IP_MTU)
            else:
                mtu = probe.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
        return Route(probe.getsockname()[0], mtu)
