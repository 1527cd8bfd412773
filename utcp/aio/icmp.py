"""What Linux's error queue (IP_RECVERR) says, in the engine's words."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from utcp.core.paths import PathError

IP_PKTINFO: Final = 8
IP_RECVERR: Final = 11
IPV6_RECVERR: Final = 25
IPV6_PKTINFO: Final = 50

SOCK_EXTENDED_ERR: Final = struct.Struct("=IBBBBII")  # errno, origin, type, code, pad, info, data
ORIGIN_LOCAL: Final = 1
ORIGIN_ICMP: Final = 2
ORIGIN_ICMP6: Final = 3

# (type, code) -> meaning: RFC 792, RFC 1122 3.2.2.1, RFC 1812 5.2.7.1. Who writes one takes the first of its meaning
ICMP_CODES: Final = {
    (3, 0): PathError.NET_UNREACHABLE,
    (3, 1): PathError.HOST_UNREACHABLE,
    (3, 3): PathError.PORT_UNREACHABLE,
    (3, 2): PathError.PORT_UNREACHABLE,  # protocol unreachable: no UDP there at all
    (3, 4): PathError.PACKET_TOO_BIG,
    (3, 5): PathError.HOST_UNREACHABLE,
    (3, 6): PathError.NET_UNREACHABLE,
    (3, 7): PathError.HOST_UNREACHABLE,
    (3, 13): PathError.ADMIN_PROHIBITED,
    (3, 9): PathError.ADMIN_PROHIBITED,
    (3, 10): PathError.ADMIN_PROHIBITED,
    (3, 11): PathError.NET_UNREACHABLE,
    (3, 12): PathError.HOST_UNREACHABLE,
    (11, 0): PathError.TTL_EXCEEDED,
}
# RFC 4443 3
ICMPV6_CODES: Final = {
    (1, 0): PathError.NET_UNREACHABLE,
    (1, 1): PathError.ADMIN_PROHIBITED,
    (1, 3): PathError.HOST_UNREACHABLE,  # address unreachable
    (1, 2): PathError.HOST_UNREACHABLE,  # beyond the scope of the source address
    (1, 4): PathError.PORT_UNREACHABLE,
    (1, 5): PathError.ADMIN_PROHIBITED,
    (1, 6): PathError.NET_UNREACHABLE,
    (2, 0): PathError.PACKET_TOO_BIG,
    (3, 0): PathError.TTL_EXCEEDED,
    (4, 1): PathError.PORT_UNREACHABLE,  # next header unknown: no UDP there at all
}
_LOCAL: Final = {
    errno.EHOSTUNREACH: PathError.HOST_UNREACHABLE,
    errno.ENETUNREACH: PathError.NET_UNREACHABLE,
    errno.ENETDOWN: PathError.NET_UNREACHABLE,
    errno.EMSGSIZE: PathError.MESSAGE_TOO_LONG,
    errno.EACCES: PathError.ADMIN_PROHIBITED,
}


def kind_of_errno(number: int) -> PathError | None:
    """What a failed send means for its path, None if nothing."""
    return _LOCAL.get(number)


def parse(ancillary: list[tuple[int, int, bytes]]) -> tuple[PathError, int, str] | None:
    """(kind, MTU or 0, the local host it was sent to or "") of one queued error; None if it means nothing."""
    kind: PathError | None = None
    mtu = 0
    host = ""
    for level, option, value in ancillary:
        if (level, option) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
            number, origin, icmp_type, code, _, info, _ = SOCK_EXTENDED_ERR.unpack_from(value)
            if origin == ORIGIN_ICMP:
                kind = ICMP_CODES.get((icmp_type, code))
            elif origin == ORIGIN_ICMP6:
                kind = ICMPV6_CODES.get((icmp_type, code))
            elif origin == ORIGIN_LOCAL:
                kind = _LOCAL.get(number)
            mtu = info if kind in (PathError.PACKET_TOO_BIG, PathError.MESSAGE_TOO_LONG) else 0
        elif level == socket.IPPROTO_IP and option == IP_PKTINFO:
            host = socket.inet_ntoa(value[8:12])
        elif level == socket.IPPROTO_IPV6 and option == IPV6_PKTINFO:
            host = socket.inet_ntop(socket.AF_INET6, value[:16])
    return (kind, mtu, host) if kind is not None else None
