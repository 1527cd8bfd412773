"""TLS: handshakes that succeed and that fail, records, upgrades, and the two ends of a connection."""

from __future__ import annotations

import asyncio
import functools
import gc
import ssl
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

import utcp
from contract.stacks import HOST, Stack, on_uvloop, port_of
from support.certificates import NAME, Certificates
from support.patience import PATIENCE, until
from support.recorder import Accepted, BufferedRecorder, Recorder, fill

VERSIONS: Final = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@asynccontextmanager
async def secure(
    stack: Stack,
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    *,
    client_factory: Callable[[], Any] = Recorder,
    server_factory: Callable[[], Any] = Recorder,
    **options: Any,
) -> AsyncIterator[tuple[Any, Any]]:
    """Two protocols connected by TLS, the client's and the server's; ``options`` are of both sides."""
    accepted = Accepted(server_factory)
    async with stack.serving(accepted, ssl=server, **options) as port:
        transport, protocol = await stack.create_connection(
            client_factory, HOST, port, ssl=client, server_hostname=NAME, **options
        )
        peer = await accepted.get()
        try:
            yield protocol, peer
        finally:
            transport.abort()
            peer.transport.abort()
            await asyncio.wait([protocol.lost, peer.lost], timeout=PATIENCE)


@pytest.fixture
def contexts(certificates: Certificates) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's, by default."""
    return certificates.server(), certificates.client()


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


# What a connection says of itself


async def test_extra_info(stack: Stack, contexts: Contexts) -> None:
    async with secure(stack, *contexts) as (client, server):
        get = client.transport.get_extra_info
        assert get("sslcontext") is contexts[1]
        assert server.transport.get_extra_info("sslcontext") is contexts[0]
        assert get("ssl_object").version() == "TLSv1.3"
        assert get("cipher") == get("ssl_object").cipher()
        assert get("compression") is None
        assert ("DNS", NAME) in get("peercert")["subjectAltName"]
        assert server.transport.get_extra_info("peercert") in (None, {})
        assert get("peername") == server.transport.get_extra_info("sockname")
        assert get("sockname") == server.transport.get_extra_info("peername")
        assert get("nonsense", 5) == 5
        assert client.transport.get_protocol() is client
        assert not client.transport.is_closing()
        assert client.transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (["other"], None), (None, None)]
)
async def test_alpn(stack: Stack, certificates: Certificates, offered: list[str] | None, chosen: str | None) -> None:
    server, client = certificates.server(alpn=["h2", "http/1.1"]), certificates.client(alpn=offered)
    async with secure(stack, server, client) as protocols:
        for one in protocols:
            assert one.transport.get_extra_info("ssl_object").selected_alpn_protocol() == chosen


# Data


@pytest.mark.parametrize("version", VERSIONS)
async def test_much_data_both_ways_with_flow_control(
    stack: Stack, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    size = 6_000_000
    first, second = bytes(range(250)) * (size // 250), bytes(range(200)) * (size // 200)
    server_context, client_context = certificates.server(version=version), certificates.client()
    async with secure(stack, server_context, client_context) as (client, server):
        server.transport.pause_reading()
        client.transport.write(first)
        server.transport.write(second)
        assert await client.received(size) == second
        assert not server.data
        server.transport.resume_reading()
        assert await server.received(size) == first


async def test_a_writer_waits_for_a_reader(stack: Stack, contexts: Contexts) -> None:
    async with secure(stack, *contexts) as (client, server):
        server.transport.pause_reading()
        assert not server.transport.is_reading()
        written = await fill(client.transport, client)
        if stack.is_utcp:  # asyncio's does not count what waits in the transport below
            assert client.transport.get_write_buffer_size() > 0
        server.transport.resume_reading()
        assert server.transport.is_reading()
        await client.resumed
        assert len(await server.received(written)) == written


@pytest.mark.parametrize("size", [7, 1000, 100_000])
async def test_a_buffer_of_any_size(stack: Stack, contexts: Contexts, size: int) -> None:
    data = bytes(range(256)) * 200
    factory = functools.partial(BufferedRecorder, size)
    async with secure(stack, *contexts, server_factory=factory) as (client, server):
        client.transport.write(data)
        client.transport.writelines([b"and", bytearray(b"the"), memoryview(b"rest")])
        assert await server.received(len(data) + 10) == data + b"andtherest"
        assert server.largest <= size


async def test_pausing_from_inside_data_received(stack: Stack, contexts: Contexts) -> None:
    class Pausing(BufferedRecorder):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    async with secure(stack, *contexts, server_factory=functools.partial(Pausing, 10)) as (client, server):
        client.transport.write(b"x" * 30)
        client.transport.close()
        for size in (10, 20, 30):
            await server.received(size)
            await asyncio.sleep(0.01)
            assert len(server.data) == size
            assert "eof" not in server.events
            server.transport.resume_reading()
            assert len(server.data) == size  # not from inside the call
        assert await server.lost is None
        assert server.events == ["made", "data", "eof", "lost"]


async def test_a_buffer_may_be_used_again_after_write(stack: Stack, contexts: Contexts) -> None:
    async with secure(stack, *contexts) as (client, server):
        buffer = bytearray(b"first")
        client.transport.write(buffer)
        if on_uvloop() and not stack.is_utcp:
            await asyncio.sleep(0)  # uvloop keeps the buffer until the turn's end
        buffer[:] = b"other"
        client.transport.write(buffer)
        assert await server.received(10) == b"firstother"


@pytest.mark.parametrize("data", ["text", 5, ["list"]])
async def test_writing_what_is_no_bytes(stack: Stack, contexts: Contexts, data: object) -> None:
    async with secure(stack, *contexts) as (client, _):
        with pytest.raises(TypeError):
            client.transport.write(data)
        assert not client.transport.is_closing()


# Handshakes that fail


async def failing(stack: Stack, server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[BaseException, Accepted]:
    """The error of a client whose handshake fails, and what the server made."""
    accepted = Accepted()
    async with stack.serving(accepted, ssl=server) as port:
        with pytest.raises(OSError) as caught:
            await stack.create_connection(Recorder, HOST, port, ssl=client, server_hostname=NAME)
        await asyncio.sleep(0.02)
    return caught.value, accepted


async def test_an_expired_certificate(stack: Stack, certificates: Certificates) -> None:
    error, accepted = await failing(stack, certificates.server(expired=True), certificates.client())
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "certificate has expired" in str(error)
    assert all(one.events == [] for one in accepted.all)


async def test_a_certificate_of_an_authority_unknown(stack: Stack, certificates: Certificates) -> None:
    error, accepted = await failing(stack, certificates.server(), certificates.client(trusting=False))
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "unable to get local issuer certificate" in str(error)
    assert all(one.events == [] for one in accepted.all)


async def test_another_host_s_certificate(stack: Stack, contexts: Contexts) -> None:
    async with stack.serving(Recorder, ssl=contexts[0]) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await stack.create_connection(Recorder, HOST, port, ssl=contexts[1], server_hostname="other.example")
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            await stack.create_connection(Recorder, HOST, port, ssl=contexts[1])  # the host is the name


async def test_the_default_context(stack: Stack, contexts: Contexts) -> None:
    async with stack.serving(Recorder, ssl=contexts[0]) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
            await stack.create_connection(Recorder, HOST, port, ssl=True, server_hostname=NAME)


async def test_no_version_in_common(stack: Stack, certificates: Certificates) -> None:
    error, _ = await failing(
        stack,
        certificates.server(version=ssl.TLSVersion.TLSv1_3),
        certificates.client(version=ssl.TLSVersion.TLSv1_2),
    )
    if stack.is_utcp:  # the server's alert arrives
        assert isinstance(error, ssl.SSLError)
        assert error.reason == "TLSV1_ALERT_PROTOCOL_VERSION"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_s_certificate(stack: Stack, certificates: Certificates, version: ssl.TLSVersion) -> None:
    server, client = certificates.server(wants_client=True, version=version), certificates.client(certificate="good")
    async with secure(stack, server, client) as (_, accepted):
        certificate = accepted.transport.get_extra_info("peercert")
        assert ("email", "client@example.org") in certificate["subjectAltName"]


@pytest.mark.parametrize("certificate", [None, "stranger"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_without_the_right_certificate(
    stack: Stack, certificates: Certificates, version: ssl.TLSVersion, certificate: str | None
) -> None:
    accepted = Accepted()
    server = certificates.server(wants_client=True, version=version)
    client = certificates.client(certificate=certificate)
    error: BaseException | None
    async with stack.serving(accepted, ssl=server) as port:
        try:
            _, protocol = await stack.create_connection(Recorder, HOST, port, ssl=client, server_hostname=NAME)
        except OSError as failure:
            assert version is ssl.TLSVersion.TLSv1_2
            error = failure
        else:  # by TLS 1.3 the client is done before the server has seen its certificate
            assert version is ssl.TLSVersion.TLSv1_3
            error = await protocol.lost
    if stack.is_utcp:  # the server's alert arrives
        assert isinstance(error, ssl.SSLError)
        expected: dict[tuple[str | None, ssl.TLSVersion], str] = {
            (None, ssl.TLSVersion.TLSv1_2): "SSLV3_ALERT_HANDSHAKE_FAILURE",
            (None, ssl.TLSVersion.TLSv1_3): "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        }
        assert error.reason == expected.get((certificate, version), "TLSV1_ALERT_UNKNOWN_CA")
    else:
        assert error is None or isinstance(error, ConnectionResetError)
    assert all(one.events == [] for one in accepted.all)


async def test_a_plain_client_of_a_tls_server(stack: Stack, contexts: Contexts) -> None:
    accepted = Accepted()
    async with stack.serving(accepted, ssl=contexts[0]) as port:
        transport, client = await stack.create_connection(Recorder, HOST, port)
        transport.write(b"GET / HTTP/1.1\r\n\r\n")
        await client.lost
        assert all(one.events == [] for one in accepted.all)


async def test_a_tls_client_of_a_plain_server(stack: Stack, contexts: Contexts) -> None:
    class Http(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    accepted = Accepted(Http)
    async with stack.serving(accepted) as port:
        with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
            await stack.create_connection(Recorder, HOST, port, ssl=contexts[1], server_hostname=NAME)
        await (await accepted.get()).lost


async def test_a_server_that_says_nothing(stack: Stack, contexts: Contexts) -> None:
    accepted = Accepted()
    async with stack.serving(accepted) as port:
        with pytest.raises(
            ConnectionAbortedError,
            match=r"SSL handshake is taking longer than 0\.05 seconds: aborting the connection",
        ):
            await stack.create_connection(
                Recorder, HOST, port, ssl=contexts[1], server_hostname=NAME, ssl_handshake_timeout=0.05
            )
        await (await accepted.get()).lost


async def test_a_client_that_says_nothing(stack: Stack, contexts: Contexts) -> None:
    accepted = Accepted()
    async with stack.serving(accepted, ssl=contexts[0], ssl_handshake_timeout=0.05) as port:
        _, client = await stack.create_connection(Recorder, HOST, port)
        await client.lost
        assert all(one.events == [] for one in accepted.all)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_the_server_leaves_in_mid_handshake(stack: Stack, contexts: Contexts, how: str) -> None:
    class Leaving(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if how == "fin":
                self.transport.close()
            else:
                stack.reset(self.transport)

    accepted = Accepted(Leaving)
    async with stack.serving(accepted) as port:
        with pytest.raises(ConnectionResetError):
            await stack.create_connection(Recorder, HOST, port, ssl=contexts[1], server_hostname=NAME)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_the_client_leaves_in_mid_handshake(stack: Stack, contexts: Contexts, how: str) -> None:
    accepted = Accepted()
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        contexts[1].wrap_bio(ssl.MemoryBIO(), hello, server_hostname=NAME).do_handshake()
    async with stack.serving(accepted, ssl=contexts[0]) as port:
        transport, client = await stack.create_connection(Recorder, HOST, port)
        transport.write(hello.read())
        await client.received(1)
        if how == "fin":
            transport.close()
        else:
            stack.reset(transport)
        assert await client.lost is None
        await asyncio.sleep(0.01)
        assert all(one.events == [] for one in accepted.all)


async def test_cancelled_in_mid_handshake(stack: Stack, contexts: Contexts) -> None:
    accepted = Accepted()
    made: list[weakref.ref[Any]] = []

    def factory() -> Recorder:
        protocol = Recorder()
        made.append(weakref.ref(protocol))
        return protocol

    async with stack.serving(accepted) as port:
        connecting = asyncio.ensure_future(
            stack.create_connection(factory, HOST, port, ssl=contexts[1], server_hostname=NAME)
        )
        server = await accepted.get()
        await server.received(100)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await server.lost
        del connecting
        if stack.is_utcp or not on_uvloop():
            assert len(made) == 1
            await until(lambda: gc.collect() >= 0 and made[0]() is None)  # nothing is left of it


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"server_hostname": "x"}, ValueError, "server_hostname is only meaningful with ssl"),
        ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
async def test_arguments_of_a_client(
    stack: Stack, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await stack.create_connection(Recorder, HOST, 9, **arguments)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # asyncio looks at them when it has connected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1])
async def test_timeouts_that_make_no_sense(stack: Stack, contexts: Contexts, name: str, value: float) -> None:
    async with stack.serving(Recorder) as port:
        with pytest.raises(ValueError, match=f"{name} should be a positive number, got {value}"):
            await stack.create_connection(Recorder, HOST, port, ssl=contexts[1], server_hostname=NAME, **{name: value})


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
        ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
async def test_arguments_of_a_server(
    stack: Stack, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await stack.create_server(Recorder, HOST, 0, **arguments)


# Upgrades


async def upgrade(stack: Stack, protocol: Any, context: object, **options: Any) -> Any:
    start_tls = utcp.start_tls if stack.is_utcp else asyncio.get_running_loop().start_tls
    return await start_tls(protocol.transport, protocol, context, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_upgrade_mid_stream(stack: Stack, certificates: Certificates, version: ssl.TLSVersion) -> None:
    async with stack.pair() as (client, server):
        client.transport.write(b"please")
        await server.received(6)
        plain = server.transport
        server.transport.write(b"begin")
        await client.received(5)
        server.transport, client.transport = await asyncio.gather(
            upgrade(stack, server, certificates.server(version=version), server_side=True),
            upgrade(stack, client, certificates.client(), server_hostname=NAME),
        )
        assert server.transport is not plain
        assert server.transport.get_protocol() is server
        assert client.transport.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
        client.transport.write(b"x" * 1_000_000)
        assert (await server.received(1_000_006))[6:] == b"x" * 1_000_000
        server.transport.write(b" secret")
        assert await client.received(12) == b"begin secret"
        client.transport.close()
        assert await client.lost is None
        assert await server.lost is None
        assert server.events == ["made", "data", "eof", "lost"]


async def test_an_upgrade_that_fails(stack: Stack, certificates: Certificates) -> None:
    async with stack.pair() as (client, server):
        upgrades = (
            upgrade(stack, server, certificates.server(), server_side=True),
            upgrade(stack, client, certificates.client(trusting=False), server_hostname=NAME),
        )
        results = await asyncio.gather(*upgrades, return_exceptions=True)
        assert isinstance(results[1], ssl.SSLCertVerificationError)
        assert isinstance(results[0], OSError)
        assert await client.lost is results[1]
        if stack.is_utcp:  # the client's alert arrives, and the protocol hears of it
            assert isinstance(results[0], ssl.SSLError)
            assert await server.lost is results[0]


async def test_an_upgrade_with_nonsense(stack: Stack, contexts: Contexts) -> None:
    async with stack.pair() as (client, _):
        with pytest.raises(TypeError, match=r"sslcontext is expected to be an instance of ssl\.SSLContext"):
            await upgrade(stack, client, None)
        client.transport.write(b"unharmed")
        transport, client.transport = client.transport, object()
        with pytest.raises(TypeError, match=r"is not supported by start_tls\(\)|object"):
            await upgrade(stack, client, contexts[1])
        client.transport = transport


async def test_an_upgrade_that_times_out(stack: Stack, contexts: Contexts) -> None:
    async with stack.pair() as (client, server):
        with pytest.raises(ConnectionAbortedError, match="SSL handshake is taking longer than"):
            await upgrade(stack, client, contexts[1], server_hostname=NAME, ssl_handshake_timeout=0.05)
        await server.lost


async def test_cancelling_an_upgrade(stack: Stack, contexts: Contexts) -> None:
    async with stack.pair() as (client, server):
        upgrading = asyncio.ensure_future(upgrade(stack, client, contexts[1], server_hostname=NAME))
        await server.received(100)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        await server.lost


async def test_an_upgrade_of_streams(stack: Stack, contexts: Contexts) -> None:
    async with stack.streams() as (reader, writer, server_reader, server_writer):
        writer.write(b"STARTTLS\n")
        assert await server_reader.readline() == b"STARTTLS\n"
        await asyncio.gather(server_writer.start_tls(contexts[0]), writer.start_tls(contexts[1], server_hostname=NAME))
        assert writer.get_extra_info("cipher") is not None
        writer.write(b"secret\n")
        assert await server_reader.readline() == b"secret\n"
        server_writer.write(b"answer\n")
        server_writer.close()
        assert await reader.read() == b"answer\n"
        writer.close()
        await writer.wait_closed()
        await server_writer.wait_closed()


async def test_a_handshake_that_begins_before_the_upgrade(stack: Stack, contexts: Contexts) -> None:
    if not stack.is_utcp:
        pytest.skip("lost to TLS in many versions of Python (gh-142352)")
    async with stack.streams() as (_, writer, server_reader, server_writer):
        upgrading = asyncio.ensure_future(writer.start_tls(contexts[1], server_hostname=NAME))
        await until(lambda: bool(server_reader._buffer))  # it has the ClientHello
        await server_writer.start_tls(contexts[0])
        await upgrading
        writer.write(b"secret\n")
        assert await server_reader.readline() == b"secret\n"


# Ends


@pytest.mark.parametrize("version", VERSIONS)
async def test_close(stack: Stack, certificates: Certificates, version: ssl.TLSVersion) -> None:
    async with secure(stack, certificates.server(version=version), certificates.client()) as (client, server):
        closed = asyncio.ensure_future(client.transport.closed()) if stack.is_utcp else None
        server.transport.write(b"first")
        await client.received(5)
        client.transport.write(b"last")
        client.transport.close()
        assert client.transport.is_closing()
        client.transport.write(b"dropped")
        client.transport.close()
        assert await server.lost is None
        assert await client.lost is None
        assert server.data == b"last"
        assert server.events == ["made", "data", "eof", "lost"]
        assert client.events in (["made", "data", "lost"], ["made", "data", "eof", "lost"])
        if closed is not None:
            info = await closed
            assert (info.reason, info.unread_bytes, info.unacked_bytes) == ("graceful", 0, 0)


async def test_close_sends_what_was_written(stack: Stack, contexts: Contexts) -> None:
    async with secure(stack, *contexts) as (client, server):
        client.transport.write(bytes(3_000_000))
        client.transport.close()
        assert await client.lost is None
        assert await server.lost is None
        assert len(server.data) == 3_000_000


async def test_closing_in_connection_made(stack: Stack, contexts: Contexts) -> None:
    class Short(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"and that was that")
            transport.close()

    async with secure(stack, *contexts, server_factory=Short) as (client, server):
        assert await client.lost is None
        assert await server.lost is None
        assert client.data == b"and that was that"


async def test_abort(stack: Stack, contexts: Contexts) -> None:
    async with secure(stack, *contexts) as (client, server):
        client.transport.abort()
        assert client.transport.is_closing()
        assert await client.lost is None
        error = await server.lost
        # The kernel sends a FIN, or a RST if something was left unread
        assert isinstance(error, ConnectionResetError) or (error is None and not stack.is_utcp)


async def test_a_reset_by_the_peer(stack: Stack, contexts: Contexts) -> None:
    async with secure(stack, *contexts) as (client, server):
        stack.reset(client.transport)
        assert isinstance(await server.lost, ConnectionResetError)
        assert server.events == ["made", "lost"]


async def test_an_exception_in_a_callback(stack: Stack, contexts: Contexts) -> None:
    class Raising(Recorder):
        def data_received(self, data: bytes) -> None:
            raise LookupError("in the callback")

    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with secure(stack, *contexts, server_factory=Raising) as (client, server):
        client.transport.write(b"x")
        assert isinstance(await server.lost, LookupError)
        await client.lost
    assert [type(context["exception"]) for context in reported] == [LookupError]


class ByHand(Recorder):
    """A TLS client that shakes hands and from then on does what the test says."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(keep_open=True)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.go_on()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.incoming.write(data)
        if not self.done.done():
            self.go_on()

    def go_on(self) -> None:
        try:
            self.tls.do_handshake()
            self.done.set_result(None)
        except ssl.SSLWantReadError:
            pass
        self.transport.write(self.outgoing.read())


@asynccontextmanager
async def with_a_peer_by_hand(
    stack: Stack, contexts: Contexts, **options: Any
) -> AsyncIterator[tuple[ByHand, Recorder]]:
    """A client that is TLS by hand, and the server's protocol."""
    accepted = Accepted()
    async with stack.serving(accepted, ssl=contexts[0], **options) as port:
        transport, client = await stack.create_connection(functools.partial(ByHand, contexts[1]), HOST, port)
        server = await accepted.get()
        await client.done
        yield client, server
        transport.abort()
        await client.lost


async def test_truncation(stack: Stack, contexts: Contexts) -> None:
    async with with_a_peer_by_hand(stack, contexts) as (client, server):
        closed = asyncio.ensure_future(server.transport.closed()) if stack.is_utcp else None
        client.tls.write(b"all of it?")
        client.transport.write(client.outgoing.read())
        client.transport.write_eof()  # without close_notify
        assert await server.lost is None
        assert server.data == b"all of it?"
        if stack.is_utcp or not on_uvloop():  # which does not call eof_received
            assert server.events == ["made", "data", "eof", "lost"]
        await asyncio.sleep(0.01)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.read()  # no close_notify in answer
        client.transport.close()
        if closed is not None:
            assert (await closed).reason == "truncated"


async def test_a_forged_record(stack: Stack, contexts: Contexts) -> None:
    async with with_a_peer_by_hand(stack, contexts) as (client, server):
        client.tls.write(b"genuine")
        client.transport.write(client.outgoing.read())
        await server.received(7)
        client.tls.write(b"genuine")
        record = bytearray(client.outgoing.read())
        record[-1] ^= 1
        client.transport.write(record)
        error = await server.lost
        assert isinstance(error, ssl.SSLError)
        assert error.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
        assert server.data == b"genuine"


async def test_a_peer_that_never_answers_close_notify(stack: Stack, contexts: Contexts) -> None:
    async with with_a_peer_by_hand(stack, contexts, ssl_shutdown_timeout=0.1) as (_, server):
        closed = asyncio.ensure_future(server.transport.closed()) if stack.is_utcp else None
        server.transport.close()
        error = await server.lost
        if closed is not None:
            info = await closed
            assert info.reason == "linger-expired"
            acknowledged = utcp.State.FIN_WAIT_2 in info.seconds_in  # by its TCP, and what it was for: in time
            assert error is None if acknowledged else isinstance(error, TimeoutError)
        else:
            assert isinstance(error, TimeoutError)
            assert str(error) == "SSL shutdown timed out"


async def test_a_peer_that_never_reads(stack: Stack, contexts: Contexts) -> None:
    async with with_a_peer_by_hand(stack, contexts, ssl_shutdown_timeout=0.1) as (client, server):
        client.transport.pause_reading()
        server.transport.write(bytes(30_000_000))  # more than any receive buffer takes
        server.transport.close()
        error = await server.lost
        assert isinstance(error, TimeoutError)
        assert str(error) == "SSL shutdown timed out"


async def test_a_peer_that_is_still_sending(stack: Stack, contexts: Contexts) -> None:
    async with secure(stack, *contexts) as (client, server):
        client.transport.write(bytes(1_000_000))
        server.transport.close()
        if stack.is_utcp:  # what arrives is discarded; both ends are orderly
            assert await server.lost is None
            assert await client.lost is None
        else:  # APPLICATION_DATA_AFTER_CLOSE_NOTIFY, if OpenSSL sees it in time
            assert isinstance(await server.lost, (ssl.SSLError, type(None)))


async def test_half_close(stack: Stack, contexts: Contexts) -> None:
    async with secure(
        stack,
        *contexts,
        client_factory=functools.partial(Recorder, keep_open=True),
        server_factory=functools.partial(Recorder, keep_open=True),
    ) as (client, server):
        assert client.transport.can_write_eof() is stack.is_utcp
        if not stack.is_utcp:
            with pytest.raises(NotImplementedError):
                client.transport.write_eof()
            return
        client.transport.write(b"question")
        client.transport.write_eof()
        client.transport.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            client.transport.write(b"more")
        await server.eof
        assert str(server.transport.state) == "CLOSE-WAIT"
        server.transport.write(b"a" * 500_000)
        assert await client.received(500_000) == b"a" * 500_000
        server.transport.close()
        await client.eof
        assert await server.lost is None
        client.transport.close()
        assert await client.lost is None
        assert server.events == ["made", "data", "eof", "lost"]
        assert client.events == ["made", "data", "eof", "lost"]


async def test_no_half_close_before_tls_1_3(
    stack: Stack, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    server_context = certificates.server(version=ssl.TLSVersion.TLSv1_2)
    factory = functools.partial(Recorder, keep_open=True)
    async with secure(stack, server_context, certificates.client(), server_factory=factory) as (client, server):
        assert not client.transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            client.transport.write_eof()
        client.transport.close()
        assert await client.lost is None
        assert await server.lost is None
    assert "returning true from eof_received() has no effect when using ssl" in caplog.text


# Streams


async def test_streams(stack: Stack, contexts: Contexts) -> None:
    async def shout(reader: Any, writer: Any) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    server = await stack.start_server(shout, HOST, 0, ssl=contexts[0])
    try:
        reader, writer = await stack.open_connection(HOST, port_of(server), ssl=contexts[1], server_hostname=NAME)
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.write(b"x" * 60_000 + b"\n")
        assert await reader.readline() == b"X" * 60_000 + b"\n"
        if stack.is_utcp:
            writer.write(b"last\n")
            writer.write_eof()
            assert await reader.read() == b"LAST\n"
        writer.close()
        await writer.wait_closed()
    finally:
        server.close()
        await server.wait_closed()
