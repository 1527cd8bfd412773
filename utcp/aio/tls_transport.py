"""A connection under TLS as asyncio sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from utcp.aio.close_info import CloseInfo
from utcp.aio.transport import Transport

if TYPE_CHECKING:
    from utcp.aio.tls_layer import TlsLayer


class TlsTransport(Transport):
    """TLS over a TCP connection inside UDP: what is written is encrypted, what arrives is decrypted.

    Everything about TCP is that of the connection underneath: ``state``, ``info``, ``set_option``; ``drained`` waits
    until the peer's TCP has acknowledged every record, and buffer sizes and limits count encrypted bytes.
    """

    __slots__ = ("_below", "layer")

    def __init__(self, layer: TlsLayer, below: Transport) -> None:
        # To the channel, the transport is the one below
        self._channel = below._channel
        self._below = below
        self.layer = layer

    def __repr__(self) -> str:
        version = self.layer.records.version or "handshake"
        return f"<utcp.TlsTransport {version} over {self._below!r}>"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Those of asyncio: ``sslcontext``, ``ssl_object``, ``peercert``, ``cipher``, ``compression``; for the rest
        see ``Transport``."""
        extra = self.layer.records.extra
        if name in extra:
            return extra[name]
        return super().get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.layer.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self.layer.protocol
        return protocol

    def is_closing(self) -> bool:
        return self.layer.is_closing

    def is_reading(self) -> bool:
        return self.layer.reading and not self.is_closing()

    def pause_reading(self) -> None:
        """Leave arriving bytes where they are; what is decrypted already waits here."""
        self.layer.pause_reading()

    def resume_reading(self) -> None:
        self.layer.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and queue bytes. Dropped after ``close``; RuntimeError after ``write_eof``."""
        if self._channel.size_to_write(data) > 0:
            self.layer.write(data)

    def can_write_eof(self) -> bool:
        """Whether one direction can be closed alone: by TLS 1.3 (RFC 8446 6.1), not by older versions."""
        return self.layer.can_half_close

    def write_eof(self) -> None:
        """Half-close: close_notify and our FIN follow what was written; reading goes on.

        Raises NotImplementedError below TLS 1.3, where a close_notify ends both directions (RFC 5246 7.2.1).
        """
        if not self.layer.can_half_close:
            raise NotImplementedError("TLS before version 1.3 has no half-close")
        self.layer.write_eof()

    def close(self) -> None:
        """Send and have acknowledged what was written, then close_notify and FIN; what arrives meanwhile is discarded.

        ``connection_lost(None)`` follows when our FIN is acknowledged. It does not wait for the peer's close_notify;
        a peer that has not closed after ``ssl_shutdown_timeout`` is reset.
        """
        self._channel.close()  # by way of the layer, the outermost one if there are several

    def abort(self) -> None:
        """Reset the connection, without close_notify; what was not yet sent is lost."""
        self.layer.abort()

    def write_urgent(self, data: bytes | bytearray | memoryview) -> None:
        """Raises NotImplementedError: TCP's urgent pointer says nothing about what is inside TLS records."""
        raise NotImplementedError("there is no urgent data under TLS")

    async def closed(self) -> CloseInfo:
        """As ``Transport.closed``. The reason is ``truncated`` if the peer's FIN came without its close_notify:
        then nobody can know whether the end of what it wrote was cut off (RFC 8446 6.1). What a close discards
        is not decrypted: ``unread_bytes`` counts it with what TLS adds, but not the peer's close_notify alone."""
        info = await super().closed()
        if info.reason != "graceful":
            return info
        unread = 0 if info.unread_bytes == self.layer.notified else info.unread_bytes
        return info._replace(reason="truncated" if self.layer.truncated else info.reason, unread_bytes=unread)

    def take_unread(self) -> bytes:
        return self.layer.take_unread()
