"""IP packets around segments: headers, checksums, the MSS option. Pure functions, no I/O.

A segment in a utcp datagram has 0 in its checksum field and no IP header of its own; the same segment on a TUN
device has both. Nothing else differs (RFC 9293 3.1).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from utcp.wire.segment import HEADER_SIZE, OPT_EOL, OPT_MSS, OPT_NOP, SYN

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

UDP_HEADER_SIZE: Final = 8

_IPV6_FRAGMENT: Final = 44
_DONT_FRAGMENT: Final = 0x4000
_FRAGMENT_BITS: Final = 0x3FFF  # more fragments, and the offset
_TTL: Final = 64

_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")


class BadPacket(ValueError):
    """The bytes are no packet that a gateway passes on. ``reason`` is the key under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Packet(NamedTuple):
    """An IP packet taken apart. Addresses are packed (4 or 16 bytes); ``ecn`` is the two bits of RFC 3168."""

    src: bytes
    dst: bytes
    protocol: int
    ecn: int
    payload: bytes


def parse(packet: bytes) -> Packet:
    """Take an unfragmented IPv4 or IPv6 packet apart. Raises BadPacket. IP options are skipped."""
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _parse_ipv4(packet)
    if version == 6:
        return _parse_ipv6(packet)
    raise BadPacket("not-ip")


def _parse_ipv4(packet: bytes) -> Packet:
    if len(packet) < _IPV4.size:
        raise BadPacket("short-packet")
    version_ihl, tos, total, _, fragment, _, protocol, _, src, dst = _IPV4.unpack_from(packet)
    header_size = (version_ihl & 15) * 4
    if header_size < _IPV4.size or not header_size <= total <= len(packet):
        raise BadPacket("bad-length")
    if fragment & _FRAGMENT_BITS:
        raise BadPacket("fragment")
    return Packet(src, dst, protocol, tos & 3, packet[header_size:total])


def _parse_ipv6(packet: bytes) -> Packet:
    if len(packet) < _IPV6.size:
        raise BadPacket("short-packet")
    word, size, protocol, _, src, dst = _IPV6.unpack_from(packet)
    if _IPV6.size + size > len(packet):
        raise BadPacket("bad-length")
    if protocol == _IPV6_FRAGMENT:
        raise BadPacket("fragment")
    return Packet(src, dst, protocol, word >> 20 & 3, packet[_IPV6.size : _IPV6.size + size])


class IpHeader:
    """The header from one address to another (both packed, of one family), put before any number of payloads."""

    def __init__(self, src: bytes, dst: bytes, protocol: int = TCP) -> None:
        self.src = src
        self.dst = dst
        self.protocol = protocol
        self.size: int = ip_header_size(src)
        # Everything in the sum but the length and ECN, which differ from packet to packet
        self._sum = ones_sum(self._fields(0, 0, 0)) if len(src) == 4 else 0

    def packet(self, payload: bytes, ecn: int = 0) -> bytes:
        """The header, its checksum right, and ``payload`` after it. Don't Fragment is always set."""
        if len(self.src) == 16:
            return _IPV6.pack(6 << 28 | ecn << 20, len(payload), self.protocol, _TTL, self.src, self.dst) + payload
        total = _IPV4.size + len(payload)
        return self._fields(ecn, total, fold(self._sum + ecn + total)) + payload

    def _fields(self, ecn: int, total: int, checksum: int) -> bytes:
        # An identification of 0: a packet that may not be fragmented needs none (RFC 6864 4.1)
        return _IPV4.pack(0x45, ecn, total, 0, _DONT_FRAGMENT, _TTL, self.protocol, checksum, self.src, self.dst)


def ip_header_size(address: bytes) -> int:
    """Size of an IP header without options, by the length of a packed address."""
    return _IPV4.size if len(address) == 4 else _IPV6.size


def ones_sum(data: bytes) -> int:
    """The sum of all 16-bit words modulo 2**16 - 1, an odd last byte padded with a zero (RFC 1071).

    2**16 is 1 in that ring, so the sum is the whole string as one number, modulo 0xFFFF: a single division.
    """
    value = int.from_bytes(data, "big")
    return (value << 8 if len(data) & 1 else value) % 0xFFFF


def fold(total: int) -> int:
    """The checksum field for words that add up to ``total``, which were not all zero (RFC 1071)."""
    return 0xFFFF - (total % 0xFFFF or 0xFFFF)


def pseudo_sum(src: bytes, dst: bytes, protocol: int = TCP) -> int:
    """The pseudo-header's sum without the length; the same in both directions (RFC 9293 3.1, RFC 8200 8.1)."""
    return ones_sum(src + dst) + protocol


def set_tcp_checksum(segment: bytes, pseudo: int) -> bytes:
    """The segment with a right checksum. What its checksum field held is not looked at."""
    total = pseudo + len(segment) + ones_sum(segment) - int.from_bytes(segment[16:18], "big")
    return segment[:16] + fold(total).to_bytes(2, "big") + segment[18:]


def tcp_checksum_ok(segment: bytes, pseudo: int) -> bool:
    return (pseudo + len(segment) + ones_sum(segment)) % 0xFFFF == 0


def clear_tcp_checksum(segment: bytes) -> bytes:
    """The segment as it travels in a datagram: checksum field 0."""
    return segment[:16] + b"\0\0" + segment[18:]


def clamp_mss(segment: bytes, limit: int) -> bytes:
    """The segment, its MSS option lowered to ``limit`` bytes if it is a SYN that offers more.

    The path carries 8 bytes (and perhaps a bigger IP header) that neither end's TCP knows of. A SYN without the
    option is left alone: it stands for 536 or 1220 (RFC 9293 3.7.1, MUST-15).
    """
    if not segment[13] & SYN:
        return segment
    at = _find_mss(segment)
    if at == 0 or int.from_bytes(segment[at : at + 2], "big") <= limit:
        return segment
    return segment[:at] + limit.to_bytes(2, "big") + segment[at + 2 :]


def _find_mss(segment: bytes) -> int:
    """Where the MSS option's value is; 0 if there is none, or the options are broken (the far end's business)."""
    at, end = HEADER_SIZE, min((segment[12] >> 4) * 4, len(segment))
    while at + 4 <= end and segment[at] != OPT_EOL:
        kind, size = segment[at], segment[at + 1]
        if kind == OPT_NOP:
            at += 1
        elif kind == OPT_MSS and size == 4:
            return at + 2
        elif size < 2:
            return 0
        else:
            at += size
    return 0
