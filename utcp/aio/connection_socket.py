"""What a drop-in loop's transports give as their ``socket``: enough of one for libraries that look for it.

A connection has no socket of its own here. Libraries ask one for its addresses, set options on it, and poll it to learn
whether an idle connection is still good.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from utcp.aio.transport import Transport

# Socket options that are fields of a connection's Config: (level, name) to (field, unit in seconds)
_OPTIONS: Final = {
    (socket.SOL_SOCKET, "SO_KEEPALIVE"): ("keepalive", None),
    (socket.SOL_SOCKET, "SO_RCVBUF"): ("receive_buffer", None),
    (socket.SOL_SOCKET, "SO_SNDBUF"): ("send_buffer", None),
    (socket.IPPROTO_TCP, "TCP_NODELAY"): ("nodelay", None),
    (socket.IPPROTO_TCP, "TCP_MAXSEG"): ("max_segment_size", None),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE"): ("keepalive_idle", 1.0),
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE"): ("keepalive_idle", 1.0),  # the same on macOS
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL"): ("keepalive_interval", 1.0),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT"): ("keepalive_count", None),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"): ("user_timeout", 0.001),
}
_FIELDS: Final = {
    (level, getattr(socket, name)): field for (level, name), field in _OPTIONS.items() if hasattr(socket, name)
}
_SWITCHES: Final = ("keepalive", "nodelay")
_NONE: Final = ("user_timeout", "max_segment_size")  # None where a socket option says 0


class ConnectionSocket:
    """Stands for the socket of a connection, as ``asyncio.trsock.TransportSocket`` does for a kernel one."""

    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._conn = transport._channel.conn
        self._pipe: tuple[int, int] | None = None
        self._full = False

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.getsockname()[0] else socket.AF_INET

    def getsockname(self) -> tuple[str, int]:
        """(host, TCP port)."""
        address: tuple[str, int] = self._transport.get_extra_info("sockname")
        return address

    def getpeername(self) -> tuple[str, int]:
        """(host, TCP port)."""
        address: tuple[str, int] = self._transport.get_extra_info("peername")
        return address

    def fileno(self) -> int:
        """A descriptor to poll without waiting: readable if there are bytes to read, an end of file or an error,
        as of this call; -1 once the connection is closed. It is nothing to wait for: ask again."""
        if self._transport.is_closing():
            return -1
        if self._pipe is None:
            self._pipe = os.pipe()
            weakref.finalize(self, _close, *self._pipe)
        reading, writing = self._pipe
        conn = self._conn
        readable = conn.readable_bytes > 0 or conn.fin_received or conn.closed
        if readable and not self._full:
            os.write(writing, b"!")
        elif self._full and not readable:
            os.read(reading, 1)
        self._full = readable
        return reading

    def setsockopt(self, level: int, optname: int, value: int | bytes, optlen: int | None = None) -> None:
        """Set what utcp has a counterpart for: SO_KEEPALIVE, SO_LINGER, SO_RCVBUF, SO_SNDBUF, TCP_NODELAY, TCP_MAXSEG,
        TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT. OSError ENOPROTOOPT for others."""
        if (level, optname) == (socket.SOL_SOCKET, socket.SO_LINGER):
            on, seconds = struct.unpack("ii", value)  # type: ignore[arg-type]
            self._set("linger", float(seconds) if on else None)
            return
        field, unit = _field(level, optname)
        number = value if isinstance(value, int) else int.from_bytes(value, "little")
        new: object = number
        if field in _SWITCHES:
            new = bool(number)
        elif field in _NONE and not number:
            new = None
        elif unit is not None:
            new = number * unit
        self._set(field, new)

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> int | bytes:
        """What ``setsockopt`` sets; SO_ERROR (0: errors come by ``connection_lost``) and SO_TYPE."""
        if level == socket.SOL_SOCKET and optname in (socket.SO_ERROR, socket.SO_TYPE):
            return 0 if optname == socket.SO_ERROR else int(self.type)
        config = self._conn.policy.config
        if (level, optname) == (socket.SOL_SOCKET, socket.SO_LINGER):
            return struct.pack("ii", config.linger is not None, round(config.linger or 0))
        field, unit = _field(level, optname)
        if field == "receive_buffer":
            return int(self._conn.rcv_buf)  # as it is now: it grows until it is set
        value: Any = getattr(config, field) or 0
        return round(value / unit) if unit is not None else int(value)

    def gettimeout(self) -> float:
        return 0.0

    def setblocking(self, flag: bool) -> None:
        """Raises ValueError for True: as asyncio's, it never blocks."""
        if flag:
            raise ValueError("setblocking(): transport sockets cannot be blocking")

    def __repr__(self) -> str:
        return f"<utcp.ConnectionSocket {self.getsockname()} -> {self.getpeername()}>"

    def _set(self, field: str, value: object) -> None:
        if value == getattr(self._conn.policy.config, field):
            return  # asyncio's libraries all turn Nagle's algorithm off, and off it is
        try:
            self._transport.set_option(field, value)
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from None


def _field(level: int, optname: int) -> tuple[str, float | None]:
    try:
        return _FIELDS[level, optname]
    except KeyError:
        raise OSError(errno.ENOPROTOOPT, f"utcp has no socket option {optname} of level {level}") from None


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
