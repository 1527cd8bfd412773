"""aioquic as a stack to measure: one bidirectional stream of a QUIC connection behind asyncio's Protocol.

aioquic queues without limit and tells nobody when what it queued has left, so the two ends here keep a window of
their own: the receiver says on a stream of its own, by a byte, that it has taken another ``CREDIT`` bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from functools import partial
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.stacks import HOST, Factory, Handler, Listening
from benchmarks.workload import Workload

CREDIT = 16_384  # bytes
WINDOW = 16 * CREDIT  # many times what aioquic sends in a round trip here
FLOW_CONTROL = 16 << 20  # bytes, QUIC's: never what limits


class QuicStream(QuicConnectionProtocol):
    """A QUIC connection; towards its protocol the transport of its one stream."""

    def __init__(self, factory: Factory, quic: QuicConnection, stream_handler: Any = None) -> None:
        super().__init__(quic, stream_handler)
        self._factory = factory
        self._user: Any = None
        self._stream = 0  # the first that a client opens
        self._credits: int | None = None  # the stream on which we say that we have taken data
        self._taken = 0  # bytes since the last credit
        self._given = 0  # bytes written and not yet credited
        self._paused = False

    # What a protocol asks of its transport

    def write(self, data: bytes) -> None:
        self._quic.send_stream_data(self._stream, data)
        self.transmit()
        self._given += len(data)
        if self._given > WINDOW and not self._paused:
            self._paused = True
            self._user.pause_writing()

    def close(self, error_code: int = 0, reason_phrase: str = "") -> None:
        super().close(error_code, reason_phrase)
        self._lose()

    # What aioquic tells

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self._user = self._factory()
            self._user.connection_made(self)
        elif isinstance(event, ConnectionTerminated):
            self._lose()
        elif isinstance(event, StreamDataReceived) and self._user is not None:
            if event.stream_id == self._stream:
                self._take(event.data)
            else:
                self._on_credit(len(event.data))

    def _take(self, data: bytes) -> None:
        self._taken += len(data)
        if self._taken >= CREDIT:
            if self._credits is None:
                self._credits = self._quic.get_next_available_stream_id(is_unidirectional=True)
            self._quic.send_stream_data(self._credits, bytes(self._taken // CREDIT))
            self._taken %= CREDIT
        self._user.data_received(data)

    def _on_credit(self, count: int) -> None:
        self._given -= count * CREDIT
        if self._paused and self._given <= WINDOW:
            self._paused = False
            self._user.resume_writing()

    def _lose(self) -> None:
        user, self._user = self._user, None
        if user is not None:
            user.connection_lost(None)


class QuicStack:
    """aioquic with its default settings, TLS 1.3 included, which it cannot do without."""

    def __init__(self) -> None:
        self._open = contextlib.AsyncExitStack()

    async def serve(self, workload: Workload, count: int, factory: Factory) -> Listening:
        settings = self._settings(is_client=False)
        settings.private_key, settings.certificate = self_signed()
        servers = [
            await serve(HOST, 0, configuration=settings, create_protocol=partial(QuicStream, factory))
            for _ in range(count)
        ]
        for server in servers:
            self._open.callback(server.close)
        transports: list[Any] = [server._transport for server in servers]  # nothing public tells the port
        return {"ports": [transport.get_extra_info("sockname")[1] for transport in transports]}

    async def serve_streams(self, workload: Workload, count: int, handler: Handler) -> Listening:
        raise NotImplementedError("aioquic is measured through protocols")

    async def open(self, workload: Workload, listening: Listening) -> None:
        self._configuration = self._settings(is_client=True)
        self._configuration.verify_mode = ssl.CERT_NONE

    async def create_connection(self, factory: Factory, port: int) -> Any:
        opening = connect(HOST, port, configuration=self._configuration, create_protocol=partial(QuicStream, factory))
        stream: Any = await self._open.enter_async_context(opening)
        return stream._user

    async def open_connection(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise NotImplementedError("aioquic is measured through protocols")

    def connect(self, factory: Factory, port: int) -> None:
        raise NotImplementedError("aioquic has no way to connect without awaiting")

    def counters(self) -> dict[str, int]:
        return {}

    def time_wait(self) -> int:
        return 0

    def facts(self) -> dict[str, Any]:
        import aioquic

        return {"aioquic": aioquic.__version__}

    async def close(self) -> None:
        await self._open.aclose()

    def _settings(self, is_client: bool) -> QuicConfiguration:
        return QuicConfiguration(
            is_client=is_client, alpn_protocols=["utcp-bench"], max_data=FLOW_CONTROL, max_stream_data=FLOW_CONTROL
        )


def self_signed() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A key and a certificate for this host."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    today = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
    )
    return key, builder.sign(key, hashes.SHA256())
