"""TLS over utcp: what the ``ssl`` arguments mean, and the upgrade of a connection that is there.

Records are in ``tls_records``, what a connection goes through in ``tls_layer``, the transport that a program gets in
``tls_transport``.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from asyncio import constants
from collections.abc import Callable
from typing import Any, NamedTuple

from utcp.aio.tls_layer import TlsLayer
from utcp.aio.tls_transport import TlsTransport
from utcp.aio.transport import ProtocolFactory, Transport


class Tls(NamedTuple):
    """One side of TLS: the context and what goes with it. Times are in seconds."""

    context: ssl_module.SSLContext
    server_side: bool
    server_hostname: str | None
    handshake_timeout: float
    shutdown_timeout: float

    @classmethod
    def of(
        cls,
        context: ssl_module.SSLContext,
        server_side: bool,
        server_hostname: str | None,
        handshake_timeout: float | None,
        shutdown_timeout: float | None,
    ) -> Tls:
        """With asyncio's defaults for None. Raises ValueError or SSLError for what could never make a handshake."""
        name = None if server_side else server_hostname or None
        if context.check_hostname and not server_side and name is None:
            raise ValueError("check_hostname requires server_hostname")
        tls = cls(
            context,
            server_side,
            name,
            _positive("ssl_handshake_timeout", handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT),
            _positive("ssl_shutdown_timeout", shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT),
        )
        tls.wrap(ssl_module.MemoryBIO(), ssl_module.MemoryBIO())
        return tls

    def wrap(self, incoming: ssl_module.MemoryBIO, outgoing: ssl_module.MemoryBIO) -> ssl_module.SSLObject:
        return self.context.wrap_bio(
            incoming, outgoing, server_side=self.server_side, server_hostname=self.server_hostname
        )

    def under(self, protocol_factory: ProtocolFactory) -> Callable[[], TlsLayer]:
        """A factory of protocols for a transport, with TLS between it and what ``protocol_factory`` makes."""
        return lambda: TlsLayer(self, protocol_factory())


def client(
    ssl: bool | ssl_module.SSLContext,
    host: str | None,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> Tls:
    """What ``create_connection`` is asked for. ``ssl=True`` means the default context."""
    if server_hostname is None:
        if not host:
            raise ValueError("You must set server_hostname when using ssl without a host")
        server_hostname = host
    if isinstance(ssl, bool):
        context = ssl_module.create_default_context()
        if not server_hostname:
            context.check_hostname = False
    elif isinstance(ssl, ssl_module.SSLContext):
        context = ssl
    else:
        raise TypeError(f"ssl argument must be an SSLContext, a bool or None, got {ssl!r}")
    return Tls.of(context, False, server_hostname, handshake_timeout, shutdown_timeout)


def server(ssl: object, handshake_timeout: float | None, shutdown_timeout: float | None) -> Tls:
    """What ``create_server`` is asked for."""
    if not isinstance(ssl, ssl_module.SSLContext):
        raise TypeError("ssl argument must be an SSLContext or None")
    return Tls.of(ssl, True, None, handshake_timeout, shutdown_timeout)


async def start_tls(
    transport: Transport,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl_module.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> TlsTransport:
    """As ``loop.start_tls``: upgrade a connection, and return the transport that ``protocol`` is to use from now on.

    What a StreamReader of the connection holds unread is TLS's: the peer may have begun its handshake already, and
    what came in the clear must not pass for what came under TLS. Over a transport that has TLS it adds another.

    Raises TypeError for what is no utcp transport, SSLError and ConnectionError when the handshake fails; the
    connection is closed then, and ``protocol.connection_lost`` called with the same error.
    """
    if not isinstance(sslcontext, ssl_module.SSLContext):
        raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
    if not isinstance(transport, Transport):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    tls = Tls.of(sslcontext, server_side, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
    if transport.is_closing():
        raise ConnectionAbortedError("start_tls() on a transport that is closing")
    if transport.eof_written:
        raise RuntimeError("Cannot call start_tls() after write_eof()")
    layer = TlsLayer(tls, protocol, upgrade=True)
    transport.set_protocol(layer)
    layer.records.feed(_unread(protocol))
    layer.connection_made(transport)
    transport.resume_reading()
    await layer.secured()
    return layer.transport


def _positive(name: str, seconds: float | None, default: float) -> float:
    if seconds is None:
        return default
    if not seconds > 0:
        raise ValueError(f"{name} should be a positive number, got {seconds}")
    return seconds


def _unread(protocol: object) -> bytes:
    """Take what a StreamReader holds."""
    reader: Any = getattr(protocol, "_stream_reader", None)  # ours and asyncio's StreamReaderProtocol have it
    if reader is None:
        return b""
    data = bytes(reader._buffer)
    reader._buffer.clear()
    reader._maybe_resume_transport()
    return data
