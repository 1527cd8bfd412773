"""The proof that a library's bytes went over utcp, and not over the kernel's TCP."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from utcp.aio.loops import endpoints_of

HOST: Final = "127.0.0.1"
NAME: Final = "127.0.0.1.utcp"


class Carried:
    """What the engines of the running loop have counted, both sides of each connection included."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    @property
    def bytes(self) -> int:
        """Received in order, by any engine."""
        return sum(endpoint.engine.counters.bytes_in for endpoint in endpoints_of(self._loop).endpoints)

    @property
    def connections(self) -> int:
        """Accepted by servers."""
        return sum(endpoint.engine.counters.passive_opens for endpoint in endpoints_of(self._loop).endpoints)

    @property
    def resets(self) -> int:
        return sum(endpoint.engine.counters.resets_out for endpoint in endpoints_of(self._loop).endpoints)


def kernel_refuses(port: int) -> bool:
    """Whether nobody listens on this port for the kernel's TCP."""
    with socket.socket() as probe:
        try:
            probe.connect((HOST, port))
        except ConnectionRefusedError:
            return True
    return False
