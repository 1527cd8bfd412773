"""TLS over utcp: refused in so many words, never ignored, until it exists."""

from __future__ import annotations

from typing import Any, NoReturn


def not_implemented() -> NoReturn:
    raise NotImplementedError("TLS over utcp is not implemented yet")


async def start_tls(
    transport: Any,
    protocol: Any,
    sslcontext: Any,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> NoReturn:
    """The counterpart of ``loop.start_tls``. Raises NotImplementedError."""
    not_implemented()
