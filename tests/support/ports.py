"""Ports that are free, and stay so until the test takes them."""

from __future__ import annotations

import random
import socket
from typing import Final

# Below those that systems give to whoever asks for any (Linux from 32768 on, macOS from 49152): between our look at a
# port and our use of it no other process comes upon it
LOOKED_AT: Final = range(10_000, 32_768)


def free_port(kind: int, host: str = "127.0.0.1") -> int:
    """A port of ``host`` where nobody is, of ``socket.SOCK_STREAM`` or ``socket.SOCK_DGRAM``."""
    for port in random.SystemRandom().sample(LOOKED_AT, 100):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("a hundred ports, and none is free")
