"""Socket addresses as utcp spells them, and name resolution as asyncio does it."""

from __future__ import annotations

import asyncio
import functools
import itertools
import socket
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

# (host, UDP port); for a link-local IPv6 address (host, UDP port, 0, scope id). Hosts are literals.
Address = tuple[Any, ...]


class Resolved(NamedTuple):
    """One address that a name stands for: where to connect to, or what to listen on."""

    family: int
    host: str
    port: int
    scope: int

    def at(self, udp_port: int) -> Address:
        """The UDP address on this host."""
        return (self.host, udp_port, 0, self.scope) if self.scope else (self.host, udp_port)


def literal_family(host: str) -> int:
    """AF_INET or AF_INET6 if ``host`` is an address of that family, else 0."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family
    return 0


@functools.lru_cache(maxsize=4096)
def normal(address: Address) -> Address:
    """An address as ``getsockname`` or ``recvmsg`` spell it: a text for an address, no needless zeros.

    Raises ValueError when the host is not a literal address.
    """
    host = address[0]
    family = literal_family(host)
    if not family:
        raise ValueError(f"{host!r} is not an IPv4 or IPv6 address")
    host = socket.inet_ntop(family, socket.inet_pton(family, host))
    if len(address) == 4 and address[3]:
        return (host, address[1], 0, address[3])
    return (host, address[1])


def is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


@functools.lru_cache(maxsize=4096)
def literal(host: object, port: object, family: int = 0) -> Resolved | None:
    """The address that ``host`` spells out, None if it is a name or an address of another family."""
    if not isinstance(host, str) or not isinstance(port, int):
        return None
    own_family = literal_family(host)
    if not own_family or family not in (0, own_family):
        return None
    return Resolved(own_family, normal((host, port))[0], port, 0)


async def resolve(
    loop: asyncio.AbstractEventLoop, host: str | None, port: int | str | None, *, family: int = 0, flags: int = 0
) -> list[Resolved]:
    """All addresses of ``host``, without asking anybody when it is a literal. Raises ``socket.gaierror``."""
    known = literal(host, port, family)
    if known is not None:
        return [known]
    # A loop of utcp.new_event_loop marks the addresses of what goes by utcp: here they are wanted as they are
    getaddrinfo: Any = getattr(loop, "utcp_getaddrinfo", loop.getaddrinfo)
    infos = await getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=flags)
    if not infos:
        raise OSError("getaddrinfo() returned empty list")
    found = []
    for info_family, _, _, _, sockaddr in infos:
        if info_family in (socket.AF_INET, socket.AF_INET6):
            scope = int(sockaddr[3]) if len(sockaddr) == 4 else 0
            found.append(Resolved(info_family, str(sockaddr[0]).partition("%")[0], int(sockaddr[1]), scope))
    return list(dict.fromkeys(found))


def interleave(addresses: Iterable[Resolved], first_count: int = 1) -> list[Resolved]:
    """Alternate the families, ``first_count`` of the first one leading (RFC 8305 4)."""
    by_family: defaultdict[int, list[Resolved]] = defaultdict(list)
    for address in addresses:
        by_family[address.family].append(address)
    families = list(by_family.values())
    if not families:
        return []
    lead, families[0] = families[0][: first_count - 1], families[0][first_count - 1 :]
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*families))
    return lead + [address for address in rounds if address is not None]
