"""The gateway's UDP sockets: datagrams with their ECN bits, and what ICMP says about those that were sent.

Linux only, like the gateway: the error queue (IP_RECVERR, ip(7)) tells which datagram met which error, and a raw
socket tells a utcp host's kernel about an error that arose on the TCP side.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from utcp.aio.icmp import IP_RECVERR, IPV6_RECVERR, parse
from utcp.gateway.icmp import IcmpError, udp_error
from utcp.gateway.routes import Endpoint

BUFFER_SIZE: Final = 8 << 20
MAX_DATAGRAM: Final = 65535

# Options the socket module has no names for (linux/in.h, linux/in6.h, asm/socket.h, linux/errqueue.h)
_IP_MTU_DISCOVER: Final = 10
_IP_RECVTOS: Final = 13
_IP_PMTUDISC_DO: Final = 2
_IPV6_MTU_DISCOVER: Final = 23
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33

_INT: Final = struct.Struct("=i")


class SendError(NamedTuple):
    """A datagram to ``endpoint`` met an error. ``payload`` is what the error quoted of it, perhaps nothing."""

    endpoint: Endpoint
    error: IcmpError
    payload: bytes


class UdpSocket:
    """A bound, non-blocking UDP socket. Raises OSError naming the address when it cannot be bound."""

    def __init__(self, address: Endpoint) -> None:
        self._v6 = ":" in address.host
        self._socket = socket.socket(socket.AF_INET6 if self._v6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._set_options()
            self._socket.bind(address)
        except OSError as exc:
            self._socket.close()
            raise OSError(exc.errno, f"cannot bind UDP {address}: {exc.strerror}") from None
        self.address = Endpoint(*self._socket.getsockname()[:2])

    def _set_options(self) -> None:
        s = self._socket
        s.setblocking(False)
        for option, forced in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
            try:
                s.setsockopt(socket.SOL_SOCKET, forced, BUFFER_SIZE)
            except PermissionError:
                s.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
        if self._v6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            s.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_DO)
        else:
            s.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)
            s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            s.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, Endpoint, int]:
        """The next datagram, its sender and ECN bits. Raises BlockingIOError when there is none."""
        while True:
            try:
                data, ancillary, _, sender = self._socket.recvmsg(MAX_DATAGRAM, 64)
                break
            except BlockingIOError:
                raise
            except OSError:  # an error about something sent before; it is on the error queue too
                continue
        ecn = 0
        for _, _, value in ancillary:  # TOS comes as a byte, the traffic class as an int
            ecn = (value[0] if len(value) == 1 else _INT.unpack(value)[0]) & 3
        return data, Endpoint(sender[0], sender[1]), ecn

    def send(self, data: bytes, to: Endpoint, ecn: int = 0) -> None:
        """Send one datagram. Raises OSError; one with EMSGSIZE when it is longer than the path's MTU allows."""
        try:
            self._send(data, to, ecn)
        except BlockingIOError:
            raise
        except OSError:
            # Most likely about an earlier datagram, perhaps to somebody else; the call has consumed it
            self._send(data, to, ecn)

    def _send(self, data: bytes, to: Endpoint, ecn: int) -> None:
        if ecn == 0:
            self._socket.sendto(data, to)
        elif self._v6:
            self._socket.sendmsg([data], [(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(ecn))], 0, to)
        else:
            self._socket.sendmsg([data], [(socket.IPPROTO_IP, socket.IP_TOS, _INT.pack(ecn))], 0, to)

    def errors(self) -> Iterator[SendError]:
        """Empty the error queue."""
        while True:
            try:
                payload, ancillary, _, to = self._socket.recvmsg(MAX_DATAGRAM, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            error = parse(ancillary)
            if error is not None and to:
                kind, mtu, _ = error
                yield SendError(Endpoint(to[0], to[1]), IcmpError(kind, mtu), payload)

    def close(self) -> None:
        self._socket.close()


class RawIcmp:
    """Sends ICMP errors to utcp hosts. ``available`` is false without CAP_NET_RAW; nothing is sent then."""

    def __init__(self) -> None:
        self._sockets: dict[bool, socket.socket] = {}
        for v6 in (False, True):
            try:
                self._sockets[v6] = _raw_socket(v6)
            except OSError:
                continue

    @property
    def available(self) -> bool:
        return bool(self._sockets)

    def send(self, error: IcmpError, src: Endpoint, dst: Endpoint, payload: bytes) -> bool:
        """Tell ``src``'s host that the datagram from there to ``dst`` with this payload met ``error``."""
        source, destination = ip_address(src.host.partition("%")[0]), ip_address(dst.host.partition("%")[0])
        raw = self._sockets.get(source.version == 6)
        if raw is None:
            return False
        message = udp_error(error, source.packed, src.port, destination.packed, dst.port, payload)
        try:
            raw.sendto(message, (src.host, 0))
        except OSError:
            return False
        return True

    def close(self) -> None:
        for raw in self._sockets.values():
            raw.close()


def _raw_socket(v6: bool) -> socket.socket:
    if v6:
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    else:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    # Never read from: the smallest buffer keeps what arrives from holding memory
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    raw.setblocking(False)
    return raw
