"""A scripted utcp peer: sends and receives single segments over a UDP socket. The test is its TCP."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Final, Self

from utcp.gateway import Endpoint
from utcp.wire.segment import ACK, FIN, SYN, Segment, decode

WAIT_S: Final = 3.0

_IP_RECVERR: Final = (socket.IPPROTO_IP, 11)
_IPV6_RECVERR: Final = (socket.IPPROTO_IPV6, 25)


class Peer:
    """One connection's worth of sequence numbers, advanced by hand through ``send`` and ``receive``."""

    def __init__(self, gateway: Endpoint, port: int) -> None:
        family = socket.AF_INET6 if ":" in gateway.host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(("::1" if ":" in gateway.host else "127.0.0.1", 0))
        self.socket.settimeout(WAIT_S)
        self.socket.setsockopt(*(_IPV6_RECVERR if family == socket.AF_INET6 else _IP_RECVERR), 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.endpoint = Endpoint(*self.socket.getsockname()[:2])
        self.gateway = gateway
        self.port = port
        self.remote_port = 0
        self.snd_nxt = 1000
        self.rcv_nxt = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.socket.close()

    def send(self, flags: int, data: bytes = b"", *, mss: int = 0) -> bytes:
        """Send the next segment and count it. Returns it as it was sent."""
        seg = Segment(self.port, self.remote_port, self.snd_nxt, self.rcv_nxt, flags, 65535, data, mss=mss)
        datagram = seg.to_bytes()
        self.socket.sendto(datagram, self.gateway)
        self.snd_nxt += seg.len
        return datagram

    def receive(self) -> Segment:
        """The next segment; in-order data, SYN and FIN advance RCV.NXT."""
        datagram, sender = self.socket.recvfrom(65535)
        assert sender[:2] == self.gateway
        assert datagram[16:18] == b"\0\0"  # the checksum is left to UDP
        seg = decode(datagram)
        if seg.flags & SYN:
            self.remote_port, self.rcv_nxt = seg.src_port, seg.seq
        if seg.seq == self.rcv_nxt:
            self.rcv_nxt += seg.len
        return seg

    def connect(self, port: int, *, mss: int = 0) -> Segment:
        """The three-way handshake as its active side. Returns the SYN-ACK."""
        self.remote_port = port
        self.send(SYN, mss=mss)
        answer = self.receive()
        assert answer.flags == SYN | ACK
        self.send(ACK)
        return answer

    def accept(self, *, mss: int = 0) -> Segment:
        """The three-way handshake as its passive side. Returns the SYN."""
        syn = self.receive()
        assert syn.flags & SYN and not syn.flags & ACK
        self.send(SYN | ACK, mss=mss)
        assert self.receive().flags == ACK
        return syn

    def receive_data(self, size: int) -> bytes:
        """In-order data of that size, each segment acknowledged."""
        data = b""
        while len(data) < size:
            expected = self.rcv_nxt
            seg = self.receive()
            if seg.data_len and seg.seq == expected:
                data += seg.data
            self.send(ACK)
        return data

    def close_passively(self) -> None:
        """Answer the kernel's FIN with ours, and wait for the acknowledgment."""
        self.send(FIN | ACK)
        while self.receive().ack != self.snd_nxt:
            pass

    def receive_error(self) -> tuple[int, int, bytes]:
        """What ICMP said about one of our datagrams: (errno, MTU, the head of the segment)."""
        payload, ancillary, _, _ = self.socket.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
        number, _, _, _, _, mtu, _ = struct.unpack_from("=IBBBBII", ancillary[0][2])
        return number, mtu, payload
