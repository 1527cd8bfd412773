"""The host that a program runs on: where its sockets, its clock and its secrets come from.

That is the operating system, unless the event loop says otherwise: a loop with an attribute ``utcp_host`` (as the
simulated one of ``utcp.sim``) names another.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol

from utcp.aio.addresses import Address
from utcp.aio.alarm import Alarm, system_alarm
from utcp.aio.datagrams import Datagrams, UdpSocket


class Host(Protocol):
    """What endpoints ask of the host they are on."""

    @property
    def clock(self) -> Callable[[], int]:
        """Gives monotonic nanoseconds."""

    def alarm(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
        """What calls ``ring`` at the times by this host's clock for which it is set."""

    def engine_secret(self) -> bytes | None:
        """The secret of a new engine; None: a random one."""

    def bind(
        self, family: int, address: Address, *, reuse_port: bool = False, gso: bool = True, gro: bool = True
    ) -> Datagrams:
        """A new UDP socket. Raises OSError naming the address when it cannot be bound."""

    def check_local(self, family: int, address: Address) -> None:
        """Raise OSError if ``address`` is none of this host's."""


LOCAL_LASTS: Final = 500_000_000  # nanoseconds for which an address found to be local counts as that
MAX_LOCAL: Final = 4096  # remembered


class OperatingSystem:
    clock = staticmethod(time.monotonic_ns)
    alarm = staticmethod(system_alarm)
    bind = staticmethod(UdpSocket.bind)
    _local_until: ClassVar[dict[tuple[int, Address], int]] = {}

    def engine_secret(self) -> bytes | None:
        return None

    def check_local(self, family: int, address: Address) -> None:
        now = self.clock()
        if self._local_until.get((family, address), now) > now:
            return
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
        if len(self._local_until) >= MAX_LOCAL:
            self._local_until.clear()
        self._local_until[family, address] = now + LOCAL_LASTS


_OPERATING_SYSTEM: Final = OperatingSystem()


def host_of(loop: asyncio.AbstractEventLoop) -> Host:
    """The host of whatever runs in ``loop`` now."""
    host: Any = getattr(loop, "utcp_host", _OPERATING_SYSTEM)
    checked: Host = host
    return checked
