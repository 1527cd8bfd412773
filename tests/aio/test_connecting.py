"""create_connection: addresses, refusals, time-outs, and its arguments."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

import utcp
from aio.protocols import HOST, Accepted, Echo, Recorder, serving, transport_of
from support.names import resolve_to
from support.patience import PATIENCE, UNHURRIED, until
from utcp.aio import connecting
from utcp.aio.addresses import Address
from utcp.aio.attempt import TooLateError
from utcp.aio.datagrams import UdpSocket
from utcp.aio.hosts import OperatingSystem

AT_ONCE = utcp.Config(rto_initial=60.0)  # with a first answer or with none


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A UDP port behind which nobody ever answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        yield sock.getsockname()[1]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A UDP port where nobody listens, and nobody can meanwhile: who is connected hears its peer alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.connect((HOST, 9))
        yield sock.getsockname()[1]


async def test_a_closed_udp_port_refuses_at_once(closed_port: int) -> None:
    text = re.escape(f"Connect call failed ('{HOST}', {closed_port})")
    for _ in range(3):
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ConnectionRefusedError, match=text):
                await utcp.open_connection(HOST, closed_port, config=AT_ONCE)


async def test_the_socket_still_works_after_an_icmp_error(closed_port: int) -> None:
    """Event loops differ in what they do with a descriptor that reports an error."""
    async with serving(Echo) as port:
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await utcp.open_connection(HOST, closed_port)
            reader, writer = await utcp.open_connection(HOST, port)
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            writer.transport.abort()


async def test_an_innocent_send_is_repeated(closed_port: int) -> None:
    """The error of one peer is reported by the next send to another, which must not be lost by it."""
    config = utcp.Config(**UNHURRIED)
    async with (
        serving(Echo, config=config) as port,
        await utcp.Endpoint.create(("0.0.0.0", 0), config=config) as endpoint,
    ):
        for _ in range(5):
            doomed = asyncio.ensure_future(endpoint.create_connection(Recorder, HOST, closed_port))
            _, client = await endpoint.create_connection(Recorder, HOST, port)
            client.transport.write(b"x")
            await client.received(1)
            with pytest.raises(ConnectionRefusedError):
                await doomed
            client.transport.close()
            await client.lost
        assert endpoint.stats().counters.retransmissions == 0


class Slow(UdpSocket):
    """Sending takes longer than anything may take."""

    def send(self, payload: bytes, segment_size: int, local: Address, peer: Address, ecn: int = 0) -> int:
        sent = super().send(payload, segment_size, local, peer, ecn)
        time.sleep(0.2)
        return sent


async def test_an_icmp_error_that_waits_is_heard_before_a_deadline_that_passed(closed_port: int) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))
    async with utcp.Endpoint(Slow(sock)) as endpoint:
        with pytest.raises(ConnectionRefusedError):
            await endpoint.create_connection(Recorder, HOST, closed_port, connect_timeout=0.1)


async def test_a_closed_tcp_port_refuses_by_reset() -> None:
    async with serving(Echo) as port:
        with pytest.raises(ConnectionRefusedError, match=r"Connect call failed \('127.0.0.1', 7\)"):
            await utcp.open_connection(HOST, 7, udp_port=port)


async def test_nobody_answers(silent_port: int) -> None:
    async with await utcp.Endpoint.create((HOST, 0), config=utcp.Config(rto_initial=0.1)) as endpoint:
        with pytest.raises(TimeoutError, match=r"Connect call failed .*: .*no answer to \d SYNs?") as caught:
            await endpoint.create_connection(Recorder, HOST, silent_port, connect_timeout=0.3)
        assert caught.value.errno == errno.ETIMEDOUT
        assert f"no answer to {endpoint.stats().counters.segments_out} SYN" in str(caught.value)


async def test_cancelling_a_connection_attempt(silent_port: int) -> None:
    async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
        attempt = asyncio.ensure_future(endpoint.create_connection(Recorder, HOST, silent_port))
        await until(lambda: endpoint.stats().states == {utcp.State.SYN_SENT: 1})
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await until(lambda: endpoint.stats().states == {})


async def test_a_timeout_around_a_connection_attempt(silent_port: int) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await utcp.open_connection(HOST, silent_port)


async def test_localhost() -> None:
    accepted = Accepted()
    server = await utcp.create_server(accepted, "localhost", 0)
    async with server:
        port = server.sockets[0].port
        transport, _ = await utcp.create_connection(Recorder, "localhost", port, family=server.sockets[0].family)
        assert transport.get_extra_info("peername") == server.sockets[0].getsockname()
        transport.close()
        transport_of(await accepted.get()).close()


async def test_an_unknown_host() -> None:
    with pytest.raises(socket.gaierror):
        await utcp.open_connection("no.such.host.invalid", 9)


async def test_ipv6() -> None:
    accepted = Accepted()
    server = await utcp.create_server(accepted, "::1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        assert address[0] == "::1"
        transport, _ = await utcp.create_connection(Recorder, "::1", address[1])
        theirs = await accepted.get()
        assert transport.get_extra_info("peername") == address
        assert transport_of(theirs).get_extra_info("peername") == transport.get_extra_info("sockname")
        transport.write(bytes(300_000))
        await theirs.received(300_000)
        transport.close()
        await theirs.lost
        with pytest.raises(ConnectionRefusedError):
            await utcp.create_connection(Recorder, "::1", 7, udp_port=address[1])
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        sock.connect(("::1", 9))
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ConnectionRefusedError):
                await utcp.create_connection(Recorder, "::1", sock.getsockname()[1], config=AT_ONCE)


async def test_several_addresses_the_first_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Echo) as port:
        resolve_to(monkeypatch, ["127.0.0.2", "127.0.0.1"], port)
        transport, _ = await utcp.create_connection(Recorder, "many.example", port)
        assert transport.get_extra_info("peername") == (HOST, port)
        transport.abort()


async def test_several_addresses_none_answers(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    resolve_to(monkeypatch, ["127.0.0.2", "127.0.0.1"], closed_port)
    with pytest.raises(OSError, match=r"Multiple exceptions: .*127\.0\.0\.2.*, .*127\.0\.0\.1"):
        await utcp.create_connection(Recorder, "many.example", closed_port)
    with pytest.raises(ExceptionGroup) as caught:
        await utcp.create_connection(Recorder, "many.example", closed_port, all_errors=True)
    assert len(caught.value.exceptions) == 2


async def test_happy_eyeballs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Echo) as port:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.2", port))
            resolve_to(monkeypatch, ["127.0.0.2", "127.0.0.1"], port)
            async with asyncio.timeout(PATIENCE):
                transport, client = await utcp.create_connection(
                    Recorder, "many.example", port, happy_eyeballs_delay=0.05
                )
            assert transport.get_extra_info("peername") == (HOST, port)
            transport.write(b"x")
            assert await client.received(1) == b"x"
            transport.abort()
            await client.lost


async def test_happy_eyeballs_goes_on_when_an_attempt_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Echo) as port:
        resolve_to(monkeypatch, ["127.0.0.2", "127.0.0.1"], port)
        async with asyncio.timeout(PATIENCE):
            transport, _ = await utcp.create_connection(Recorder, "many.example", port, happy_eyeballs_delay=60)
        transport.abort()


async def test_of_two_attempts_that_succeed_one_makes_the_protocol() -> None:
    made: list[Recorder] = []

    def factory() -> Recorder:
        made.append(Recorder())
        return made[-1]

    async with serving(Echo) as port, await utcp.Endpoint.create((HOST, 0)) as endpoint:
        first_come = connecting._for_the_first(factory)
        waiters: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        transports = [endpoint.connect(first_come, (HOST, port), waiter=waiter) for waiter in waiters]
        await asyncio.wait(waiters)
        assert await waiters[0] is made[0]
        assert isinstance(waiters[1].exception(), TooLateError)
        assert len(made) == 1
        assert [transport.is_closing() for transport in transports] == [False, True]
        assert (await transports[1].closed()).reason == "aborted"


async def test_local_addr() -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        transport, _ = await utcp.create_connection(Recorder, HOST, port, local_addr=("127.0.0.3", 4321))
        assert transport.get_extra_info("sockname") == ("127.0.0.3", 4321)
        assert transport_of(await accepted.get()).get_extra_info("peername") == ("127.0.0.3", 4321)
        with pytest.raises(OSError, match=r"error while attempting to bind on address \('127.0.0.3', 4321\)") as caught:
            await utcp.create_connection(Recorder, HOST, port, local_addr=("127.0.0.3", 4321))
        assert caught.value.errno == errno.EADDRINUSE
        transport.abort()


def test_a_local_address_is_tried_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    class Probe(socket.socket):
        def bind(self, address: Any) -> None:
            tried.append(address)
            super().bind(address)

    class Host(OperatingSystem):
        _local_until: ClassVar[dict[tuple[int, Any], int]] = {}
        now = 0

        def clock(self) -> int:
            return self.now

    monkeypatch.setattr(socket, "socket", Probe)
    host = Host()
    for host.now in (0, 499_999_999, 500_000_000, 999_999_999):
        host.check_local(socket.AF_INET, ("127.0.0.3", 0))
    assert tried == [("127.0.0.3", 0)] * 2
    for _ in range(2):  # what is not ours is tried each time
        with pytest.raises(OSError, match="assign"):
            host.check_local(socket.AF_INET, ("192.0.2.1", 0))
    assert len(tried) == 4


async def test_local_addr_that_is_not_ours() -> None:
    with pytest.raises(OSError, match=r"error while attempting to bind on address \('192.0.2.1', 0\)") as caught:
        await utcp.create_connection(Recorder, HOST, 9, local_addr=("192.0.2.1", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_clients_share_a_socket() -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        transports = [(await utcp.create_connection(Recorder, HOST, port))[0] for _ in range(5)]
        assert len({transport.get_extra_info("udp_sockname") for transport in transports}) == 1
        assert len({transport.get_extra_info("sockname") for transport in transports}) == 5
        for transport in transports:
            transport.abort()


async def test_a_socket_of_one_s_own() -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((HOST, 0))
        name = sock.getsockname()
        transport, client = await utcp.create_connection(Recorder, HOST, port, sock=sock)
        assert transport.get_extra_info("udp_sockname") == name
        transport_of(await accepted.get()).close()
        await client.lost
        await transport.closed()
        await until(lambda: sock.fileno() == -1)  # nobody needs it any more

        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((HOST, port))
        transport, client = await utcp.create_connection(Recorder, sock=sock)
        transport.abort()
        await client.lost


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({}, "host and port was not specified and no sock specified"),
        ({"host": HOST, "port": 1, "server_hostname": "x"}, "server_hostname is only meaningful with ssl"),
        ({"host": HOST, "port": 1, "ssl_handshake_timeout": 1.0}, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"host": HOST, "port": 1, "ssl_shutdown_timeout": 1.0}, "ssl_shutdown_timeout is only meaningful with ssl"),
        ({"port": 1, "ssl": True}, "You must set server_hostname when using ssl without a host"),
        ({"host": HOST, "port": 65536}, "port"),
        ({"host": HOST, "port": 1, "connect_timeout": -1.0}, "connect_timeout"),
    ],
)
async def test_arguments_that_make_no_sense(kwargs: dict[str, Any], error: str) -> None:
    with pytest.raises((ValueError, OverflowError), match=error):
        await utcp.create_connection(Recorder, **kwargs)


async def test_a_stream_socket_is_refused() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock,
        pytest.raises(ValueError, match="A bound UDP socket was expected"),
    ):
        await utcp.create_connection(Recorder, HOST, 9, sock=sock)
