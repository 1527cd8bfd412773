"""The TUN device: a network interface whose packets are read and written here (Linux).

It exists as long as it is open, so that nothing is left of it however the process ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from types import TracebackType
from typing import Final, Self

_TUN_PATH: Final = "/dev/net/tun"
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_TUN_EXCL: Final = 0x8000
_IFNAMSIZ: Final = 16
_SETTLE_S: Final = 2.0


class Tun:
    """A TUN device with addresses, up. ``read`` and ``write`` move one IP packet each and never block.

    Raises OSError with a text that says what to do: PermissionError, FileExistsError for a name that is taken,
    FileNotFoundError where the system has no TUN devices.
    """

    def __init__(self, name: str, interfaces: Sequence[IPv4Interface | IPv6Interface], mtu: int) -> None:
        self.name = name
        self.mtu = mtu
        self._fd = _open(name)
        try:
            _configure(name, interfaces, mtu)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes:
        """The next packet from the kernel. Raises BlockingIOError: there is none; OSError: the device is gone."""
        try:
            # One byte more than fits would show a packet longer than the MTU, which a TUN device does not emit
            return os.read(self._fd, self.mtu + 1)
        except OSError as exc:
            if exc.errno == errno.EBADFD:
                raise OSError(exc.errno, f"somebody has deleted the TUN device {self.name}") from None
            raise

    def write(self, packet: bytes) -> None:
        """Hand a packet to the kernel. Raises OSError when it is none, or there is no memory for it."""
        os.write(self._fd, packet)

    def close(self) -> None:
        """Close the device, which removes it. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def loopback_up() -> None:
    """Bring ``lo`` up: in a new network namespace it is down. Does nothing where that is not allowed."""
    try:
        with _Netlink() as netlink:
            netlink.bring_up(socket.if_nametoindex("lo"))
    except PermissionError:
        pass


def _open(name: str) -> int:
    if not 0 < len(name.encode()) < _IFNAMSIZ or "/" in name or any(c.isspace() for c in name):
        raise OSError(errno.EINVAL, f"{name!r} is no name for a network device (1 to 15 bytes, no space or slash)")
    try:
        fd = os.open(_TUN_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise PermissionError(errno.EACCES, f"no permission to open {_TUN_PATH}: become root") from None
    except OSError as exc:
        raise FileNotFoundError(exc.errno, f"{_TUN_PATH}: {exc.strerror}: this system has no TUN devices") from None
    try:
        # Exclusive: a device of that name, ours or another's, is never taken over
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as exc:
        os.close(fd)
        raise _creation_error(name, exc) from None
    return fd


def _creation_error(name: str, exc: OSError) -> OSError:
    if exc.errno == errno.EPERM:
        text = "a TUN device needs CAP_NET_ADMIN: become root, or use a namespace of your own (unshare -rn)"
        return PermissionError(errno.EPERM, text)
    if exc.errno in (errno.EBUSY, errno.EEXIST, errno.EINVAL) and name in (n for _, n in socket.if_nameindex()):
        return FileExistsError(errno.EEXIST, f"a network device {name} exists already: choose another --device")
    return OSError(exc.errno, f"cannot create the TUN device {name}: {exc.strerror}")


def _configure(name: str, interfaces: Sequence[IPv4Interface | IPv6Interface], mtu: int) -> None:
    index = socket.if_nametoindex(name)
    with _Netlink() as netlink:
        try:
            netlink.bring_up(index, mtu)
        except OSError as exc:
            raise OSError(exc.errno, f"cannot bring {name} up with an MTU of {mtu}: {exc.strerror}") from None
        for interface in interfaces:
            try:
                netlink.add_address(index, interface)
            except OSError as exc:
                raise OSError(exc.errno, f"cannot give {interface} to {name}: {exc.strerror}") from None
        # An IPv6 address takes packets some milliseconds after it was added
        deadline = time.monotonic() + _SETTLE_S
        while not all(netlink.is_local(interface.ip) for interface in interfaces) and time.monotonic() < deadline:
            time.sleep(0.001)


class _Netlink:
    """The three requests of rtnetlink(7) that a gateway needs."""

    _HEADER: Final = struct.Struct("=IHHII")
    _ROUTE: Final = struct.Struct("=8BI")
    _RTM_NEWLINK: Final = 16
    _RTM_NEWADDR: Final = 20
    _RTM_NEWROUTE: Final = 24
    _RTM_GETROUTE: Final = 26
    _RTA_DST: Final = 1
    _RTN_LOCAL: Final = 2
    _NLM_F_REQUEST: Final = 0x1
    _NLM_F_ACK: Final = 0x4
    _NLM_F_CREATE_EXCL: Final = 0x600
    _IFF_UP: Final = 1
    _IFLA_MTU: Final = 4
    _IFA_ADDRESS: Final = 1
    _IFA_LOCAL: Final = 2
    _IFA_F_NODAD: Final = 0x02

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def bring_up(self, index: int, mtu: int = 0) -> None:
        """Bring a link up, with an MTU unless that is 0."""
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, self._IFF_UP, self._IFF_UP)
        if mtu:
            body += self._attribute(self._IFLA_MTU, struct.pack("=I", mtu))
        self._request(self._RTM_NEWLINK, 0, body)

    def add_address(self, index: int, interface: IPv4Interface | IPv6Interface) -> None:
        v6 = interface.version == 6
        family = socket.AF_INET6 if v6 else socket.AF_INET
        # Nobody else can have the address, so that it need not be probed for before use
        flags = self._IFA_F_NODAD if v6 else 0
        body = struct.pack("=BBBBI", family, interface.network.prefixlen, flags, 0, index)
        body += self._attribute(self._IFA_LOCAL, interface.ip.packed)
        body += self._attribute(self._IFA_ADDRESS, interface.ip.packed)
        self._request(self._RTM_NEWADDR, self._NLM_F_CREATE_EXCL, body)

    def is_local(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether packets to the address stay here."""
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        body = self._ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        kind, answer = self._ask(self._RTM_GETROUTE, 0, body + self._attribute(self._RTA_DST, address.packed))
        return kind == self._RTM_NEWROUTE and self._ROUTE.unpack_from(answer)[7] == self._RTN_LOCAL

    @staticmethod
    def _attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value

    def _request(self, kind: int, flags: int, body: bytes) -> None:
        _, answer = self._ask(kind, flags | self._NLM_F_ACK, body)
        (error,) = struct.unpack_from("=i", answer)
        if error:
            raise OSError(-error, os.strerror(-error))

    def _ask(self, kind: int, flags: int, body: bytes) -> tuple[int, bytes]:
        """Send a request; returns the type and the body of the answer."""
        size = self._HEADER.size + len(body)
        self._socket.send(self._HEADER.pack(size, kind, flags | self._NLM_F_REQUEST, 1, 0) + body)
        answer = self._socket.recv(65536)
        return self._HEADER.unpack_from(answer)[1], answer[self._HEADER.size :]
