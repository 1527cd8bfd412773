"""ICMP errors, IPv4 and IPv6 alike: read them, and write the one that the other side has to see.

An error about a packet that crossed the gateway quotes that packet as it looked where the error arose. The sender
knows it in its other form, so the gateway quotes it anew: a TCP packet for a kernel socket (which looks at ports and
sequence number, RFC 5927 4.1), a UDP datagram for a utcp socket (which the system finds by ports, and which then
hands the quoted TCP header to utcp).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from utcp.aio.icmp import ICMP_CODES, ICMPV6_CODES
from utcp.core.paths import PathError
from utcp.gateway.packets import (
    ICMP,
    ICMPV6,
    UDP,
    UDP_HEADER_SIZE,
    IpHeader,
    Packet,
    fold,
    ip_header_size,
    ones_sum,
    pseudo_sum,
)

# An error quotes as much as fits into the smallest packet every host accepts (RFC 1812 4.3.2.3, RFC 4443 3.1)
_QUOTE_LIMIT: Final = {4: 576 - 28, 16: 1280 - 48}
_ICMP: Final = struct.Struct("!BBHI")
_UDP: Final = struct.Struct("!HHHH")


class IcmpError(NamedTuple):
    """An error and, for PACKET_TOO_BIG, the largest IP packet in bytes that fits (0: the router did not say)."""

    kind: PathError
    mtu: int = 0


class Quote(NamedTuple):
    """What an ICMP error says: the error, and the head of the packet it is about (addresses packed)."""

    error: IcmpError
    src: bytes
    dst: bytes
    protocol: int
    payload: bytes


def parse_error(packet: Packet) -> Quote | None:
    """What an ICMP packet reports about another packet; None when it is no error, or quotes too little to tell."""
    v6 = packet.protocol == ICMPV6
    data = packet.payload
    if len(data) < _ICMP.size:
        return None
    type_, code, _, rest = _ICMP.unpack_from(data)
    kind = (ICMPV6_CODES if v6 else ICMP_CODES).get((type_, code))
    total = ones_sum(data) + (pseudo_sum(packet.src, packet.dst, ICMPV6) + len(data) if v6 else 0)
    if kind is None or total % 0xFFFF:
        return None
    mtu = 0
    if kind is PathError.PACKET_TOO_BIG:
        mtu = rest if v6 else rest & 0xFFFF  # RFC 4443 3.2, RFC 1191 4
    return _quote(IcmpError(kind, mtu), data[_ICMP.size :])


def _quote(error: IcmpError, head: bytes) -> Quote | None:
    """The quoted packet is cut short, so that its lengths are not to be checked as ``packets.parse`` does."""
    version = head[0] >> 4 if head else 0
    size = (head[0] & 15) * 4 if version == 4 else 40
    if version not in (4, 6) or size < 20 or len(head) < size:
        return None
    if version == 4:
        return Quote(error, head[12:16], head[16:20], head[9], head[size:])
    return Quote(error, head[8:24], head[24:40], head[6], head[size:])


def tcp_error(error: IcmpError, src: bytes, dst: bytes, segment: bytes) -> bytes:
    """The IP packet that tells ``src`` that its ``segment`` to ``dst`` met ``error``, as ``dst`` would say it."""
    quoted = IpHeader(src, dst).packet(segment)
    message = icmp_message(error, quoted, v6=len(src) == 16)
    if len(src) == 4:
        return IpHeader(dst, src, ICMP).packet(message)
    total = pseudo_sum(dst, src, ICMPV6) + len(message) + ones_sum(message)
    return IpHeader(dst, src, ICMPV6).packet(message[:2] + fold(total).to_bytes(2, "big") + message[4:])


def udp_error(error: IcmpError, src: bytes, src_port: int, dst: bytes, dst_port: int, payload: bytes) -> bytes:
    """The ICMP message (for a raw socket) about a datagram from ``src`` to ``dst`` that held ``payload``."""
    header = _UDP.pack(src_port, dst_port, UDP_HEADER_SIZE + len(payload), 0)
    return icmp_message(error, IpHeader(src, dst, UDP).packet(header + payload), v6=len(src) == 16)


def icmp_message(error: IcmpError, quoted: bytes, *, v6: bool) -> bytes:
    """An ICMP error message. ICMPv6's checksum is left 0: it covers addresses, and a raw socket fills it in."""
    codes = ICMPV6_CODES if v6 else ICMP_CODES
    type_, code = next(key for key, kind in codes.items() if kind is error.kind)
    message = _ICMP.pack(type_, code, 0, error.mtu) + quoted[: _QUOTE_LIMIT[16 if v6 else 4]]
    if v6:
        return message
    return message[:2] + fold(ones_sum(message)).to_bytes(2, "big") + message[4:]


def mtu_across(error: IcmpError, header_here: int, header_there: int) -> IcmpError:
    """The error as the other side must hear it: its packets carry a header that differs in size."""
    if error.kind is not PathError.PACKET_TOO_BIG or error.mtu == 0:
        return error
    return IcmpError(error.kind, max(error.mtu - header_here + header_there, 0))


def header_sizes(inner: bytes, outer: bytes) -> tuple[int, int]:
    """Bytes before the segment in a TCP packet, and in a datagram: (IP), (IP and UDP), by packed addresses."""
    return ip_header_size(inner), ip_header_size(outer) + UDP_HEADER_SIZE
