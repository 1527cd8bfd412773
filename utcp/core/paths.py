"""Paths: (local address, peer address) interned to small integers, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, final

from mypy_extensions import i64

from utcp.core.mtu_search import MtuSearch
from utcp.core.policy import Policy

if TYPE_CHECKING:
    from utcp.core.trains import Train

UDP_HEADER: Final = 8
IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40
# "1200-byte-safe": a UDP payload that every Internet path carries (RFC 9000 14, RFC 8899 BASE_PLPMTU)
BASE_PAYLOAD: Final = 1200
MAX_PAYLOAD: Final = 65_507
# What is never undercut on a router's word, or because nothing gets through (RFC 1122 3.3.3; RFC 8200 5)
MIN_MTU_IPV4: Final = 576
MIN_MTU_IPV6: Final = 1280
TCP_HEADER: Final = 20
# How long the number of a path that no connection and no TIME-WAIT record uses stays good
GRACE: Final = 1_000_000_000
SWEEP_AT: Final = 4096


class PathError(IntEnum):
    """What an ICMP message, or the local system, said about a path."""

    PORT_UNREACHABLE = 1
    HOST_UNREACHABLE = 2
    NET_UNREACHABLE = 3
    ADMIN_PROHIBITED = 4
    TTL_EXCEEDED = 5
    PACKET_TOO_BIG = 6
    MESSAGE_TOO_LONG = 7  # EMSGSIZE: not a router's word but the system's, about its own link

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@final
class Path:
    """One (local, peer) pair. ``max_payload`` is the largest UDP payload in bytes that it is believed to carry.

    That is RFC 8899's PLPMTU. ``base_payload`` is BASE_PLPMTU; ``link_payload`` is MAX_PLPMTU, what the link at this
    end takes.
    """

    __slots__ = (
        "base_payload",
        "connecting",
        "discovers",
        "index",
        "ipv6",
        "key",
        "key0",
        "key1",
        "link_payload",
        "local",
        "max_payload",
        "peer",
        "search",
        "soft_error",
        "trains",
        "used_at",
        "users",
    )

    def __init__(self, index: i64, local: object, peer: object, key: bytes) -> None:
        self.index: i64 = index
        self.local: object = local
        self.peer: object = peer
        self.ipv6: bool = is_ipv6(peer)
        self.key: bytes = key  # keys the connections' ISNs and timestamp offsets, these being its first words
        self.key0: i64 = int.from_bytes(key[:4], "big")
        self.key1: i64 = int.from_bytes(key[4:8], "big")
        self.max_payload: i64 = BASE_PAYLOAD
        self.base_payload: i64 = BASE_PAYLOAD
        self.link_payload: i64 = BASE_PAYLOAD
        self.discovers: bool = False  # whether what it carries is ours to find out
        self.search: MtuSearch | None = None  # once something large is to be sent
        self.users: i64 = 0  # connections and TIME-WAIT records
        self.connecting: i64 = 0  # connections in SYN-SENT
        self.used_at: i64 = 0
        self.soft_error: str = ""  # the last ICMP error, for the text of a time-out
        self.trains: list[Train] = []  # those still open, see utcp.core.trains


def is_ipv6(address: object) -> bool:
    return isinstance(address, tuple) and len(address) > 0 and isinstance(address[0], str) and ":" in address[0]


@final
class Paths:
    """All paths of an engine. A number is used again once nothing refers to it and its grace has passed."""

    def __init__(
        self,
        secret: bytes,
        policy: Policy,
        mtu: Callable[[Any, Any], int] | int | None,
        link_mtu: Callable[[Any, Any], int] | int | None,
    ) -> None:
        self.policy: Policy = policy
        self._secret: bytes = secret
        self._mtu: Callable[[Any, Any], int] | int | None = mtu
        self._link_mtu: Callable[[Any, Any], int] | int | None = link_mtu
        self._by_address: dict[tuple[object, object], Path] = {}
        self._free: list[int] = []
        self._sweep_at: i64 = SWEEP_AT
        self.paths: list[Path | None] = []
        self.released: i64 = 0

    def intern(self, local: object, peer: object, now: i64) -> Path:
        address = (local, peer)
        path = self._by_address.get(address)
        if path is None:
            path = self._add(local, peer, now)
            self._by_address[address] = path
        path.used_at = now
        return path

    def get(self, index: i64) -> Path | None:
        if index < 0 or index >= len(self.paths):
            return None
        return self.paths[index]

    def _add(self, local: object, peer: object, now: i64) -> Path:
        if len(self._by_address) >= self._sweep_at:
            self._sweep(now)
        index = self._free.pop() if self._free else len(self.paths)
        key = blake2b(repr((local, peer)).encode(), key=self._secret[:64], digest_size=16).digest()
        path = Path(index, local, peer, key)
        self._size(path)
        if index == len(self.paths):
            self.paths.append(path)
        else:
            self.paths[index] = path
        return path

    def _size(self, path: Path) -> None:
        """What it carries: known, to be searched for from ``base_mss`` on, or what every path does."""
        known = _ask(self._mtu, path)
        if known > 0:
            path.max_payload = path.base_payload = path.link_payload = payload_of_mtu(known, path.ipv6)
            return
        link = _ask(self._link_mtu, path)
        if link <= 0:
            return
        policy = self.policy
        path.link_payload = payload_of_mtu(link, path.ipv6)
        path.base_payload = min(policy.base_mss + TCP_HEADER, path.link_payload)
        path.max_payload = path.base_payload if policy.mtu_probing == 2 else path.link_payload
        path.discovers = policy.mtu_probing > 0

    def ask_again(self, path: Path) -> None:
        """What the link takes may have changed."""
        link = _ask(self._link_mtu, path)
        if link > 0:
            path.link_payload = max(payload_of_mtu(link, path.ipv6), path.max_payload)

    def _sweep(self, now: i64) -> None:
        """Forget idle paths: datagrams from forged sources must not fill the memory."""
        idle = [p for p in self._by_address.values() if p.users == 0 and not p.trains and now - p.used_at > GRACE]
        for path in idle:
            del self._by_address[(path.local, path.peer)]
            self.paths[path.index] = None
            self._free.append(path.index)
            self.released += 1
        self._sweep_at = max(SWEEP_AT, 2 * len(self._by_address))


def _ask(mtu: Callable[[Any, Any], int] | int | None, path: Path) -> i64:
    if mtu is None:
        return 0
    if isinstance(mtu, int):
        return mtu
    return mtu(path.local, path.peer)


def payload_of_mtu(mtu: i64, ipv6: bool) -> i64:
    """The UDP payload that fits in an IP packet of ``mtu`` bytes; never below what RFC 9293 3.7.1 can live with."""
    payload = mtu - (IPV6_HEADER if ipv6 else IPV4_HEADER) - UDP_HEADER
    return max(128, min(payload, MAX_PAYLOAD))


def mtu_of_payload(payload: i64, ipv6: bool) -> i64:
    return payload + (IPV6_HEADER if ipv6 else IPV4_HEADER) + UDP_HEADER


def minimum_payload(ipv6: bool) -> i64:
    return payload_of_mtu(MIN_MTU_IPV6 if ipv6 else MIN_MTU_IPV4, ipv6)
