"""Certificates for tests of TLS, from an authority that lives as long as the tests do."""

from __future__ import annotations

import datetime
import ssl
from typing import Final, final

import trustme

NAME: Final = "server.example"  # what the server's certificate is for


@final
class Certificates:
    """Contexts for both sides."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self._stranger = trustme.CA()
        self._server = self.authority.issue_cert(NAME)
        self._client = self.authority.issue_cert("client@example.org")
        self._stranger_s = self._stranger.issue_cert("stranger@example.org")
        now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017  # also what trustme compares with
        self._expired = self.authority.issue_cert(NAME, not_after=now - datetime.timedelta(days=1))

    def server(
        self,
        *,
        expired: bool = False,
        wants_client: bool = False,
        version: ssl.TLSVersion | None = None,
        alpn: list[str] | None = None,
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (self._expired if expired else self._server).configure_cert(context)
        if wants_client:
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return _tuned(context, version, alpn)

    def client(
        self,
        *,
        trusting: bool = True,
        certificate: str | None = None,
        version: ssl.TLSVersion | None = None,
        alpn: list[str] | None = None,
    ) -> ssl.SSLContext:
        """``certificate``: "good", "stranger" or None."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        (self.authority if trusting else self._stranger).configure_trust(context)
        if certificate is not None:
            (self._client if certificate == "good" else self._stranger_s).configure_cert(context)
        return _tuned(context, version, alpn)


def _tuned(context: ssl.SSLContext, version: ssl.TLSVersion | None, alpn: list[str] | None) -> ssl.SSLContext:
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    return context
