"""The datagram seam: batches, local addresses, errors."""

from __future__ import annotations

import errno
import platform
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from utcp.aio import datagrams, icmp
from utcp.aio.addresses import Address
from utcp.aio.datagrams import (
    LINUX,
    MAX_QUESTIONS,
    MAX_ROUTES,
    MAX_SEND_SEGMENTS,
    MIN_LINK_MTU,
    ROUTE_LASTS,
    Received,
    UdpSocket,
)
from utcp.aio.routes import Route
from utcp.core.paths import PathError

HOST = "127.0.0.1"
IP_RECVTTL, IP_RECVTOS = 12, 13
pytestmark = pytest.mark.skipif(not LINUX, reason="SKIPPED: batching and error queues are Linux's")


@pytest.fixture
def sockets() -> Iterator[tuple[UdpSocket, UdpSocket]]:
    ends = UdpSocket.bind(socket.AF_INET, (HOST, 0)), UdpSocket.bind(socket.AF_INET, (HOST, 0))
    yield ends
    for end in ends:
        end.close()


def receive(end: UdpSocket) -> Received:
    select.select([end._sock], [], [], 5)
    received = end.receive()
    assert received is not None
    return received


def test_a_train_arrives_as_one_buffer(sockets: tuple[UdpSocket, UdpSocket]) -> None:
    ours, theirs = sockets
    payload = bytes(range(100)) * 9 + b"tail"
    assert ours.send(payload, 100, ours.local, theirs.local) == len(payload)
    assert receive(theirs) == Received(payload, 100, theirs.local, ours.local)
    assert theirs.receive() is None
    assert ours.stats()["send_calls"] == 1


def test_single_segments_of_any_size(sockets: tuple[UdpSocket, UdpSocket]) -> None:
    ours, theirs = sockets
    for size in (1, 20, 1200, 65_507):
        assert ours.send(bytes(size), size, ours.local, theirs.local) == size
        assert receive(theirs) == Received(bytes(size), 0, theirs.local, ours.local)


def test_long_trains_are_split(sockets: tuple[UdpSocket, UdpSocket]) -> None:
    ours, theirs = sockets
    for size, count in ((20, 1000), (30_000, 5), (1400, 100)):
        payload = b"".join(number.to_bytes(4, "big") + bytes(size - 4) for number in range(count))
        assert ours.send(payload, size, ours.local, theirs.local) == len(payload)
        numbers: list[int] = []
        while len(numbers) < count:
            data = receive(theirs).data
            numbers += [int.from_bytes(data[start : start + 4], "big") for start in range(0, len(data), size)]
        assert numbers == list(range(count))


def test_without_gso_and_gro() -> None:
    ours = UdpSocket.bind(socket.AF_INET, (HOST, 0), gso=False)
    theirs = UdpSocket.bind(socket.AF_INET, (HOST, 0))
    ours.send(bytes(300), 100, ours.local, theirs.local)
    assert [receive(theirs).data for _ in range(3)] == [bytes(100)] * 3
    ours.close()
    theirs.close()
    ours = UdpSocket.bind(socket.AF_INET, (HOST, 0))
    theirs = UdpSocket.bind(socket.AF_INET, (HOST, 0), gro=False)
    ours.send(bytes(300), 100, ours.local, theirs.local)
    assert [receive(theirs).data for _ in range(3)] == [bytes(100)] * 3
    ours.close()
    theirs.close()


class Kernel:
    """A socket whose kernel takes fewer segments a send, or none at once."""

    def __init__(self, inner: socket.socket, most: int, refusal: int) -> None:
        self.inner = inner
        self.most = most
        self.refusal = refusal
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def sendmsg(self, buffers: list[bytes], ancillary: list[Any], flags: int, address: Any) -> int:
        size = next((int.from_bytes(value, "little") for _, kind, value in ancillary if kind == 103), 0)
        if size:
            self.batches.append(len(buffers[0]) // size)
            if self.batches[-1] > self.most:
                raise OSError(self.refusal, "refused")
        return self.inner.sendmsg(buffers, ancillary, flags, address)


@pytest.mark.parametrize(
    ("refusal", "most", "batches"),
    [
        (errno.EINVAL, 64, [128, 64, 64, 64, 64]),  # learnt by halving
        (errno.EIO, 0, [128]),  # the device cannot: one by one from now on
    ],
)
def test_learning_what_the_kernel_takes(
    sockets: tuple[UdpSocket, UdpSocket], refusal: int, most: int, batches: list[int]
) -> None:
    ours, theirs = sockets
    kernel = Kernel(ours._sock, most, refusal)
    ours._sock = kernel  # type: ignore[assignment]
    payload = bytes(20) * MAX_SEND_SEGMENTS
    for _ in range(2):
        assert ours.send(payload, 20, ours.local, theirs.local) == len(payload)
        total = 0
        while total < len(payload):
            total += len(receive(theirs).data)
    assert kernel.batches == batches


def test_a_segment_that_is_too_large_for_the_path_is_reported() -> None:
    ours = UdpSocket.bind(socket.AF_INET, (HOST, 0))
    theirs = UdpSocket.bind(socket.AF_INET, (HOST, 0))

    class Small(Kernel):
        def sendto(self, data: bytes, address: Any) -> int:
            if len(data) > 1000:
                raise OSError(errno.EMSGSIZE, "too long")
            return self.inner.sendto(data, address)

    ours._sock = Small(ours._sock, 0, errno.EINVAL)  # type: ignore[assignment]
    assert ours.send(bytes(2400), 1200, ours.local, theirs.local) == 2400
    reports = ours.reports()
    assert {report[:3] for report in reports} == {(PathError.MESSAGE_TOO_LONG, ours.local, theirs.local)}
    assert reports[0].mtu >= 65_535
    assert ours.stats()["send_calls"] == 3  # once as a batch, and once for each segment
    # Batching was not at fault
    assert ours._gso_limits == {}
    ours.close()
    theirs.close()


def test_a_congested_socket_takes_less(sockets: tuple[UdpSocket, UdpSocket]) -> None:
    ours, theirs = sockets

    class Full(Kernel):
        def sendmsg(self, *args: Any) -> int:
            self.batches.append(0)
            if len(self.batches) > 2:
                raise BlockingIOError
            return self.inner.sendmsg(*args)

    ours._sock = Full(ours._sock, 0, 0)  # type: ignore[assignment]
    payload = bytes(20) * MAX_SEND_SEGMENTS * 3
    assert ours.send(payload, 20, ours.local, theirs.local) == 20 * MAX_SEND_SEGMENTS * 2


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOBUFS, errno.ECONNREFUSED])
def test_a_datagram_that_the_system_refuses_is_lost(sockets: tuple[UdpSocket, UdpSocket], number: int) -> None:
    ours, theirs = sockets

    class Firewall(Kernel):
        def sendto(self, data: bytes, address: Any) -> int:
            raise OSError(number, "refused")

    ours._sock = Firewall(ours._sock, 0, 0)  # type: ignore[assignment]
    assert ours.send(bytes(20), 20, ours.local, theirs.local) == 20
    assert ours.stats()["send_failures"] == 1
    assert ours.reports() == []


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.9"), (socket.AF_INET6, "::1")])
def test_wildcard_sockets_tell_and_use_local_addresses(family: int, host: str) -> None:
    wildcard = "0.0.0.0" if family == socket.AF_INET else "::"
    ours, theirs = UdpSocket.bind(family, (wildcard, 0)), UdpSocket.bind(family, (wildcard, 0))
    target = (host, theirs.local[1])
    local = ours.route(target)
    assert local[0] == (HOST if family == socket.AF_INET else "::1")
    ours.send(bytes(300), 100, local, target)
    received = receive(theirs)
    assert received == Received(bytes(300), 100, target, local)
    theirs.send(b"answer", 6, received.local, received.peer)
    assert receive(ours) == Received(b"answer", 0, local, target)
    assert ours.mtu(local, target) >= 65_535
    ours.close()
    theirs.close()


def test_what_else_a_socket_of_the_users_says_is_no_address() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", 0))
    for option in (IP_RECVTTL, IP_RECVTOS):
        sock.setsockopt(socket.IPPROTO_IP, option, 1)
    theirs, ours = UdpSocket(sock), UdpSocket.bind(socket.AF_INET, ("0.0.0.0", 0))
    target = ("127.0.0.9", theirs.local[1])
    local = ours.route(target)
    ours.send(b"x", 1, local, target)
    assert receive(theirs) == Received(b"x", 0, target, local)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("host", [HOST, "::1"])
@pytest.mark.parametrize("wildcard", [False, True])
def test_icmp_errors_are_reported_with_their_path(host: str, wildcard: bool) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        closed = sock.getsockname()[:2]
    bind_to = ("::" if family == socket.AF_INET6 else "0.0.0.0") if wildcard else host
    ours = UdpSocket.bind(family, (bind_to, 0))
    ours.send(b"what it was", 11, (host, ours.local[1]), closed)
    select.select([ours._sock], [], [], 5)
    (report,) = ours.reports()
    assert report == (PathError.PORT_UNREACHABLE, (host, ours.local[1]), closed, 0, b"what it ")
    assert ours.receive() is None
    ours.close()


def test_the_link_s_mtu_is_the_system_s_word_within_bounds(sockets: tuple[UdpSocket, UdpSocket]) -> None:
    """What forged ICMP can make of a route is not believed, and a flood of strangers is not asked about one by one."""
    ours, _ = sockets
    ours._routes[("10.0.0.1",)] = (Route(HOST, 552), inf)
    assert ours.link_mtu(ours.local, ("10.0.0.1", 1)) == MIN_LINK_MTU
    lo = ours.mtu(ours.local, ours.local)
    begun = time.monotonic()
    found = [ours.link_mtu(ours.local, (f"127.1.{n >> 8}.{n & 255}", 1)) for n in range(2 * MAX_QUESTIONS)]
    if time.monotonic() - begun < 1:
        assert MAX_QUESTIONS <= found.count(lo) < 2 * MAX_QUESTIONS
    assert set(found) <= {0, lo}
    ours.route(("127.2.0.1", 1))  # whom we want to talk to
    assert ours.link_mtu(ours.local, ("127.2.0.1", 1)) == lo


class System:
    """Counts the questions about routes, and has a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.asked: list[str] = []
        self.mtu = 1500
        monkeypatch.setattr(datagrams, "find_route", self._find_route)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def _find_route(self, family: int, peer: Address, local: Address | None) -> Route:
        self.asked.append(peer[0])
        return Route(HOST, self.mtu)


def strangers(n: int, first: int = 0) -> list[Address]:
    return [(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 1) for i in range(first, first + n)]


def test_routes_that_have_expired_together_are_asked_for_little_by_little(
    sockets: tuple[UdpSocket, UdpSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is not asked about has no other answer than before, nor an old one."""
    ours, system = sockets[0], System(monkeypatch)
    peers = strangers(3 * MAX_QUESTIONS)
    for peer in peers:
        ours.route(peer)
    assert [ours.link_mtu(ours.local, peer) for peer in peers] == [1500] * len(peers)
    assert len(system.asked) == len(peers)
    system.now += ROUTE_LASTS
    system.asked.clear()
    system.mtu = 1400
    for second in (1, 2, 3):
        found = [ours.link_mtu(ours.local, peer) for peer in peers]
        assert len(system.asked) == second * MAX_QUESTIONS
        assert found == [1400] * second * MAX_QUESTIONS + [0] * (3 - second) * MAX_QUESTIONS
        system.now += 1


def test_no_more_routes_are_remembered_than_that_and_the_oldest_goes_first(
    sockets: tuple[UdpSocket, UdpSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, system = sockets[0], System(monkeypatch)
    first, second, *others = strangers(MAX_ROUTES)
    for peer in (first, second, *others):
        ours.route(peer)
        system.now += 1 / 1024  # which is exact
    system.now += ROUTE_LASTS - MAX_ROUTES / 1024
    ours.route(first)  # has expired: now it is the youngest
    system.asked.clear()
    ours.route(("11.0.0.1", 1))
    for peer in (first, *others):
        ours.route(peer)
    assert system.asked == ["11.0.0.1"]
    ours.route(second)
    assert system.asked == ["11.0.0.1", second[0]]
    assert len(ours._routes) == MAX_ROUTES


def test_a_route_is_asked_for_anew_after_a_while(sockets: tuple[UdpSocket, UdpSocket]) -> None:
    ours, theirs = sockets
    ours._routes[(HOST,)] = (Route(HOST, 1300), inf)
    assert ours.mtu(ours.local, theirs.local) == 1300
    ours._routes[(HOST,)] = (Route(HOST, 1300), time.monotonic())
    assert ours.mtu(ours.local, theirs.local) > 65_000


def test_an_unreachable_network_is_reported() -> None:
    ours = UdpSocket.bind(socket.AF_INET, (HOST, 0))
    peer = ("198.51.100.1", 9)
    with pytest.raises(OSError):
        ours.route(peer)
    assert ours.mtu(ours.local, peer) == 0
    ours.close()


def queued(origin: int, icmp_type: int, code: int, info: int = 0, number: int = 0) -> list[tuple[int, int, bytes]]:
    return [
        (socket.IPPROTO_IP, icmp.IP_RECVERR, icmp.SOCK_EXTENDED_ERR.pack(number, origin, icmp_type, code, 0, info, 0))
    ]


@pytest.mark.parametrize(
    ("ancillary", "expected"),
    [
        (queued(icmp.ORIGIN_ICMP, 3, 3), (PathError.PORT_UNREACHABLE, 0, "")),
        (queued(icmp.ORIGIN_ICMP, 3, 1), (PathError.HOST_UNREACHABLE, 0, "")),
        (queued(icmp.ORIGIN_ICMP, 3, 4, 1400), (PathError.PACKET_TOO_BIG, 1400, "")),
        (queued(icmp.ORIGIN_ICMP, 3, 13), (PathError.ADMIN_PROHIBITED, 0, "")),
        (queued(icmp.ORIGIN_ICMP, 11, 0), (PathError.TTL_EXCEEDED, 0, "")),
        (queued(icmp.ORIGIN_ICMP, 4, 0), None),  # source quench: MUST be ignored (RFC 9293 MUST-55)
        (queued(icmp.ORIGIN_ICMP6, 1, 4), (PathError.PORT_UNREACHABLE, 0, "")),
        (queued(icmp.ORIGIN_ICMP6, 2, 0, 1280), (PathError.PACKET_TOO_BIG, 1280, "")),
        (queued(icmp.ORIGIN_LOCAL, 0, 0, 1500, errno.EMSGSIZE), (PathError.MESSAGE_TOO_LONG, 1500, "")),
        ([], None),
    ],
)
def test_what_the_error_queue_says(ancillary: list[tuple[int, int, bytes]], expected: Any) -> None:
    assert icmp.parse(ancillary) == expected


def test_broadcast_and_multicast_are_discarded() -> None:
    """RFC 9293 3.9.2.3 (MUST-57)."""
    ours = UdpSocket.bind(socket.AF_INET, ("0.0.0.0", 0))
    me = socket.inet_aton("127.0.0.1")
    assert ours._local_address(socket.IPPROTO_IP, 8, bytes(4) + me + me, None) == (HOST, ours.local[1])
    everybody = socket.inet_aton("255.255.255.255")
    assert ours._local_address(socket.IPPROTO_IP, 8, bytes(4) + me + everybody, ours.local) is None
    group = socket.inet_pton(socket.AF_INET6, "ff02::1")
    assert ours._local_address(socket.IPPROTO_IPV6, 50, group + bytes(4), ours.local) is None
    ours.close()


CHURN = """
import resource, socket
from utcp.aio.datagrams import UdpSocket

def faults_of_churn():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        trains = [bytearray(65_000) for _ in range(8)]
        del trains
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of_churn()
before = faults_of_churn()
UdpSocket.bind(socket.AF_INET, ("127.0.0.1", 0)).close()
faults_of_churn()
print(before, faults_of_churn())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="SKIPPED: how glibc gives memory back")
def test_memory_of_trains_is_not_given_back_each_time() -> None:
    """Page faults of 800 buffers that come and go: without a socket each of them asks the system for its pages."""
    done = subprocess.run([sys.executable, "-c", CHURN], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 800
    assert after < 100
