"""TLS without a transport: what arrives goes in, what is to be sent comes out. OpenSSL does it, by the ssl module."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from utcp.aio.tls import Tls

RECORD: Final = 16 * 1024  # bytes of application data in a record, at most
NOT_YET: Final = (ssl.SSLWantReadError, ssl.SSLSyscallError)


@final
class TlsRecords:
    """One connection's TLS. What ``outgoing`` returns is to be sent after every other call."""

    def __init__(self, tls: Tls) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = tls.wrap(self._incoming, self._outgoing)
        self.handshaken = False
        self.peer_ended = False  # nothing more will come: close_notify, or the transport's end
        self.failure: ssl.SSLError | None = None  # in place of close_notify
        self.extra: dict[str, Any] = {"sslcontext": tls.context}
        """asyncio's extras: the context, and all the others once the handshake is done."""

    @property
    def version(self) -> str | None:
        """As ``TLSv1.3``; None until it is agreed."""
        return self._object.version()

    def feed(self, data: bytes) -> None:
        """Take what has arrived. What comes after close_notify is ignored (RFC 8446 6.1)."""
        if not self.peer_ended:
            self._incoming.write(data)

    def outgoing(self) -> bytes:
        """What is to be sent: records, alerts, and what TLS answers by itself."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is done. Raises SSLError when it has failed: the peer is to have the
        alert."""
        tls = self._object
        try:
            tls.do_handshake()
        except NOT_YET:
            return False
        self.handshaken = True
        self.extra.update(
            peercert=tls.getpeercert(), cipher=tls.cipher(), compression=tls.compression(), ssl_object=tls
        )
        return True

    def decrypt(self) -> list[bytes]:
        """All there is, up to the peer's close_notify or to a failure."""
        read = self._object.read
        plain: list[bytes] = []
        try:
            while not self.peer_ended:
                data = read(RECORD)
                if data:
                    plain.append(data)
                else:
                    self.peer_ended = True
        except NOT_YET:
            pass
        except ssl.SSLZeroReturnError:  # close_notify, after our own
            self.peer_ended = True
        except ssl.SSLError as error:
            self.peer_ended = True
            self.failure = error
        return plain

    def encrypt(self, data: memoryview) -> None:
        """Raises SSLError when TLS has failed, or negotiates anew, as versions before 1.3 may."""
        sent = 0
        while sent < len(data):
            sent += self._object.write(data[sent:])

    def notify(self) -> None:
        """close_notify: nothing of ours follows. All that has arrived must be decrypted, OpenSSL stumbles over it."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the peer's own is still to come; or TLS has failed, and there is nothing more to say
