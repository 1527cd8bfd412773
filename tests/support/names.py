"""Names that stand for the addresses of a test's choice."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest


def resolve_to(monkeypatch: pytest.MonkeyPatch, hosts: list[str], port: int) -> None:
    """Have every name resolve to ``hosts``, in this order."""

    async def getaddrinfo(*args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
