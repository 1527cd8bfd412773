"""What a capture of utcp's client shows of each lifecycle: whether it is complete, and how many segments it took.

    python -m benchmarks.captured FILE

Complete is, by the segments alone and whatever the engine says of itself: the three-way handshake, every byte of both
directions from SYN to FIN seen and acknowledged, and nothing reset. The file is one of ``benchmarks.teardown --pcap``:
pcapng, a TCP packet over IPv4 for each segment, however many of them travelled in one datagram.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ENHANCED_PACKET = 6
FIN, SYN, RST, ACK = 1, 2, 4, 16
MODULUS = 1 << 32


class Packet(NamedTuple):
    source: tuple[bytes, int]  # address, port
    target: tuple[bytes, int]
    seq: int
    ack: int
    flags: int
    size: int  # bytes of payload


@dataclass
class Direction:
    """What one end sent."""

    iss: int | None = None
    fin: int | None = None  # the number of its FIN, from the SYN's
    acknowledged: int = 0  # by the other end, from the SYN's
    spans: set[tuple[int, int]] = field(default_factory=set)  # payload: first byte and the one behind, from the SYN's

    def is_complete(self) -> bool:
        if self.iss is None or self.fin is None or self.acknowledged != self.fin + 1:
            return False
        reached = 1
        for first, behind in sorted(self.spans):
            if first > reached:
                return False
            reached = max(reached, behind)
        return reached == self.fin


@dataclass
class Lifecycle:
    client: Direction = field(default_factory=Direction)
    server: Direction = field(default_factory=Direction)
    segments: int = 0
    reset: bool = False

    def is_complete(self) -> bool:
        return not self.reset and self.client.is_complete() and self.server.is_complete()

    def from_client(self, packet: Packet) -> bool:
        """Of a packet that may be: where both ends have the same address and port, the numbers tell whose it is."""
        if packet.source != packet.target:
            return True
        if packet.flags & SYN:
            return not packet.flags & ACK
        if self.client.iss is None or self.server.iss is None:
            return self.client.iss is not None
        return (packet.seq - self.client.iss) % MODULUS < (packet.seq - self.server.iss) % MODULUS

    def take(self, packet: Packet, sender: Direction, receiver: Direction) -> None:
        self.segments += 1
        if packet.flags & RST and not self.is_complete():  # afterwards it answers the ACK of a FIN that came twice
            self.reset = True
        if packet.flags & SYN:
            sender.iss = packet.seq
        if packet.flags & ACK and receiver.iss is not None:
            receiver.acknowledged = max(receiver.acknowledged, (packet.ack - receiver.iss) % MODULUS)
        if sender.iss is None:
            return
        first = (packet.seq - sender.iss) % MODULUS + (1 if packet.flags & SYN else 0)
        if packet.size:
            sender.spans.add((first, first + packet.size))
        if packet.flags & FIN:
            sender.fin = first + packet.size


@dataclass(frozen=True)
class Captured:
    """The account of a whole capture."""

    lifecycles: int
    complete: int
    segments_per_lifecycle: float  # of the complete ones; as the client saw them, both directions
    fewest: int
    most: int
    strangers: int  # segments of no connection that the capture saw begin

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.complete:,} of {self.lifecycles:,} lifecycles complete, {self.segments_per_lifecycle:.2f} segments "
            f"each ({self.fewest} to {self.most}), {self.strangers:,} segments of no lifecycle"
        )


def read(path: str | Path) -> Captured:
    """Raises OSError, and ValueError for what is no capture of ours."""
    ended: list[Lifecycle] = []
    living: dict[tuple[tuple[bytes, int], tuple[bytes, int]], Lifecycle] = {}  # by client and server
    strangers = 0
    for packet in packets(Path(path).read_bytes()):
        there, back = (packet.source, packet.target), (packet.target, packet.source)
        if packet.flags & (SYN | ACK) == SYN:
            known = living.get(there)
            if known is None or known.client.iss != packet.seq:  # else the SYN is sent again
                if known is not None:
                    ended.append(known)
                living[there] = Lifecycle()
        if (lifecycle := living.get(there)) is not None and lifecycle.from_client(packet):
            lifecycle.take(packet, lifecycle.client, lifecycle.server)
        elif (lifecycle := living.get(back)) is not None:
            lifecycle.take(packet, lifecycle.server, lifecycle.client)
        else:
            strangers += 1
    ended += living.values()
    sizes = [lifecycle.segments for lifecycle in ended if lifecycle.is_complete()]
    return Captured(
        lifecycles=len(ended),
        complete=len(sizes),
        segments_per_lifecycle=sum(sizes) / max(len(sizes), 1),
        fewest=min(sizes, default=0),
        most=max(sizes, default=0),
        strangers=strangers,
    )


def packets(data: bytes) -> Iterator[Packet]:
    """The TCP packets of a pcapng file in this machine's byte order."""
    place = 0
    while place < len(data):
        if place + 12 > len(data):
            raise ValueError("the capture is cut short")
        kind, length = struct.unpack_from("=II", data, place)
        if length < 12 or place + length > len(data):
            raise ValueError("the capture is cut short, or is none")
        if kind == ENHANCED_PACKET:
            (size,) = struct.unpack_from("=I", data, place + 20)
            yield tcp_packet(data[place + 28 : place + 28 + size])
        place += length


def tcp_packet(packet: bytes) -> Packet:
    if packet[0] >> 4 != 4:
        raise ValueError("only captures over IPv4 are read")
    at = (packet[0] & 15) * 4
    source, target, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", packet, at)
    size = len(packet) - at - (offset >> 4) * 4
    return Packet((packet[12:16], source), (packet[16:20], target), seq, ack, flags, size)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        captured = read(sys.argv[1])
    except (OSError, ValueError) as error:
        print(f"captured: {sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    print(captured)
    return 0 if captured.lifecycles == captured.complete else 1


if __name__ == "__main__":
    sys.exit(main())
