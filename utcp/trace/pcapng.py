"""Captures that Wireshark, tshark and tcptrace read: segments as raw IP/TCP packets in a pcapng file.

Every segment becomes the packet that TCP straight over IP would have sent: the path's addresses in the IP header,
the segment as it is, and a proper TCP checksum (which utcp leaves to UDP on the wire). Times are wall-clock
nanoseconds; comments say what the bytes cannot: state changes, timers, retransmissions, reasons of drops.
The file format is draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
import time
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from utcp.core.states import State
from utcp.trace.tracer import Output, PathAddresses, Target, Tracer, ports
from utcp.wire.segment import HEADER_SIZE

IPAddress: TypeAlias = IPv4Address | IPv6Address
Connection: TypeAlias = tuple[int, int, int]  # path, local port, remote port

LINKTYPE_RAW: Final = 101  # the packet begins with its IPv4 or IPv6 header
INBOUND: Final = 1  # epb_flags, bits 0 and 1
OUTBOUND: Final = 2

_TIMER_COMMENTS: Final = {"retransmit": "RTO fired", "2msl": "2MSL over"}
_ANY_PORTS: Final = (0, 0)  # what concerns a path, and is told by the next segment of whichever connection
_MAX_CAUSES: Final = 1024  # comments that wait for a connection's next segment: as many connections at most


class PcapngWriter:
    """Writes TCP segments to a pcapng file, one packet each. Not tied to an engine or a clock."""

    def __init__(self, target: Target) -> None:
        """``target``: a path, or a file open for writing bytes. Raises OSError when the path cannot be opened."""
        self._output = Output(target)
        self._stand_ins: dict[object, IPv4Address] = {}
        self._output.write(_section_header() + _interface_description())

    def write(
        self,
        time_ns: int,
        src: object,
        dst: object,
        segment: bytes,
        comments: list[str] | None = None,
        direction: int = 0,
        ecn: int = 0,
    ) -> None:
        """Append a segment sent from ``src`` to ``dst`` at ``time_ns``, nanoseconds since 1970.

        Addresses are tuples that begin with an IP address; whatever else they are, they get a documentation
        address (RFC 5737) of their own. ``direction``: INBOUND, OUTBOUND, or 0 for unknown. ``ecn``: the ECN field of
        the IP header (RFC 3168 5).
        """
        options = b"".join([_option(1, comment.encode()) for comment in comments or ()])
        if direction:
            options += _option(2, struct.pack("<I", direction))
        packet = ip_packet(*self._ip_pair(src, dst), segment, ecn)
        self._output.write(_enhanced_packet(time_ns, packet, options))

    @property
    def complete(self) -> bool:
        """Whether everything could be written; only ``close`` settles it."""
        return self._output.complete

    def flush(self) -> None:
        self._output.flush()

    def close(self) -> None:
        self._output.close()

    def _ip_pair(self, src: object, dst: object) -> tuple[IPAddress, IPAddress]:
        """Two IP addresses of one version, for a header."""
        a, b = _ip_address(src), _ip_address(dst)
        if a is not None and b is not None and a.version == b.version:
            return a, b
        return self._stand_in(src), self._stand_in(dst)

    def _stand_in(self, address: object) -> IPv4Address:
        return self._stand_ins.setdefault(address, IPv4Address("198.51.100.1") + len(self._stand_ins))


class PcapngObserver(Tracer):
    """Captures everything one engine sends and receives, with comments."""

    def __init__(self, target: Target, addresses: PathAddresses | None = None, clock_offset: int | None = None) -> None:
        """``addresses``: ``Engine.path_addresses`` (``capture`` fills it in). ``clock_offset``: nanoseconds from the
        engine's clock to wall-clock time; that of ``time.monotonic_ns`` by default.
        """
        self.addresses = addresses
        self._offset = time.time_ns() - time.monotonic_ns() if clock_offset is None else clock_offset
        self._writer = PcapngWriter(target)
        # The segment that came in last, held until everything it caused has been told.
        self._arrival: tuple[int, int, bytes] | None = None
        self._arrival_ecn = 0
        self._arrival_comments: list[str] = []
        # What happened without an arrival, by connection: for the comment of the segment it leads to.
        self._causes: dict[Connection, list[str]] = {}
        self._ecn = 0  # of the segment that is told of next

    def ecn_field(self, now: int, path: int, ecn: int) -> None:
        self._ecn = ecn

    def segment_in(self, now: int, path: int, segment: bytes) -> None:
        self._write_arrival()
        self._arrival = (now, path, segment)
        self._arrival_ecn, self._ecn = self._ecn, 0

    def segment_out(self, now: int, path: int, segment: bytes, retransmission: bool) -> None:
        self._write_arrival()
        comments = self._causes.pop((path, *_ANY_PORTS), []) + self._causes.pop((path, *ports(segment)), [])
        if retransmission:
            comments.append("retransmission")
        local, peer = self._ends(path)
        self._writer.write(self._offset + now, local, peer, segment, comments, OUTBOUND, self._ecn)
        self._ecn = 0

    def drop(self, now: int, path: int, segment: bytes, reason: str) -> None:
        self._arrival_comments.append(f"dropped: {reason}")

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        text = f"state {old} -> {new}"
        connection = (path, local_port, remote_port)
        if self._arrival is not None and connection == _receiver(*self._arrival[1:]):
            self._arrival_comments.append(text)
        elif old != State.TIME_WAIT:  # the end of TIME-WAIT leads to no segment
            self._cause(connection, text)

    def path_mtu(self, now: int, path: int, old: int, new: int) -> None:
        text = f"path MTU {old} -> {new}"
        if self._arrival is not None and self._arrival[:2] == (now, path):
            self._arrival_comments.append(text)
        else:
            self._cause((path, *_ANY_PORTS), text)

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self._write_arrival()
        if name != "2msl":
            self._cause((path, local_port, remote_port), _TIMER_COMMENTS.get(name, f"{name} timer fired"))

    def user_call(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self._write_arrival()

    def close(self) -> None:
        self._write_arrival()
        self._writer.close()

    def _write_arrival(self) -> None:
        if self._arrival is None:
            return
        now, path, segment = self._arrival
        local, peer = self._ends(path)
        comments, ecn = self._arrival_comments, self._arrival_ecn
        self._writer.write(self._offset + now, peer, local, segment, comments, INBOUND, ecn)
        self._arrival = None
        self._arrival_comments = []

    def _cause(self, connection: Connection, text: str) -> None:
        self._causes.setdefault(connection, []).append(text)
        if len(self._causes) > _MAX_CAUSES:
            del self._causes[next(iter(self._causes))]

    def _ends(self, path: int) -> tuple[object, object]:
        return ("local", "peer") if self.addresses is None else self.addresses(path)


def ip_packet(src: IPAddress, dst: IPAddress, segment: bytes, ecn: int = 0) -> bytes:
    """The segment behind an IPv4 or IPv6 header, its checksum filled in (RFC 9293 3.1, RFC 8200 8.1).

    ``ecn``: the ECN field of that header. A segment too short for a TCP header is left as it is: that is what arrived.
    """
    addresses = src.packed + dst.packed
    if len(segment) >= HEADER_SIZE:
        pseudo = addresses + struct.pack(">II", len(segment), 6)
        checksum = _checksum(pseudo + segment[:16] + b"\0\0" + segment[18:])
        segment = segment[:16] + checksum + segment[18:]
    if src.version == 6:
        return struct.pack(">IHBB", 6 << 28 | ecn << 20, len(segment), 6, 64) + addresses + segment
    # Version and header length, ECN, total length, "don't fragment", TTL 64, protocol 6 (RFC 791 3.1)
    header = struct.pack(">BBHHHBB", 0x45, ecn, 20 + len(segment), 0, 0x4000, 64, 6)
    return header + _checksum(header + addresses) + addresses + segment


def _receiver(path: int, segment: bytes) -> Connection:
    remote_port, local_port = ports(segment)
    return path, local_port, remote_port


def _checksum(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071): the one's complement sum of 16-bit words is the number modulo 65535."""
    number = int.from_bytes(data + b"\0" if len(data) % 2 else data, "big")
    return (-number % 0xFFFF).to_bytes(2, "big")


@lru_cache(maxsize=1024)
def _ip_address(address: object) -> IPAddress | None:
    host = address[0] if isinstance(address, tuple) and address else address
    try:
        return ip_address(str(host).partition("%")[0])  # without the scope of a link-local address
    except ValueError:
        return None


def _section_header() -> bytes:
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)  # byte order, version 1.0, section length not known
    return _block(0x0A0D0D0A, body + _option(4, b"utcp") + _END_OF_OPTIONS)


def _interface_description() -> bytes:
    body = struct.pack("<HHI", LINKTYPE_RAW, 0, 0)  # no limit to the length of packets
    return _block(1, body + _option(2, b"utcp") + _option(9, b"\x09") + _END_OF_OPTIONS)  # if_name, if_tsresol 10**-9


def _enhanced_packet(time_ns: int, packet: bytes, options: bytes) -> bytes:
    size = len(packet)
    body = struct.pack("<IIIII", 0, time_ns >> 32, time_ns & 0xFFFFFFFF, size, size) + _padded(packet)
    return _block(6, body + options + _END_OF_OPTIONS if options else body)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


_END_OF_OPTIONS: Final = struct.pack("<HH", 0, 0)
