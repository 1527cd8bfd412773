"""The gateway between real UDP sockets and a device made of a socket pair: no privileges needed."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface

import pytest

from gateway.peer import Peer
from utcp.core.paths import PathError
from utcp.gateway import Direction, Endpoint, Gateway, KernelAddress, Rules
from utcp.gateway.icmp import IcmpError, parse_error, tcp_error
from utcp.gateway.packets import IpHeader, Packet, parse, pseudo_sum, set_tcp_checksum
from utcp.wire.segment import ACK, SYN, Segment, decode

KERNEL = ip_address("10.99.0.1").packed
HOST = ip_address("10.99.0.2").packed
PSEUDO = pseudo_sum(KERNEL, HOST)
INTERFACE = ip_interface("10.99.0.1/16")


class FakeDevice:
    """A device whose kernel is the test: it sends and receives packets at the other end."""

    mtu = 1492

    def __init__(self) -> None:
        self._socket, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self.kernel.settimeout(3)
        self.refuses: set[bytes] = set()  # data of segments

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        return self._socket.recv(65535)

    def write(self, packet: bytes) -> None:
        if self.refuses and decode(parse(packet).payload).data in self.refuses:
            raise OSError(errno.EINVAL, "refused")
        self._socket.send(packet)

    def close(self) -> None:
        self._socket.close()
        self.kernel.close()

    def emit(self, segment: Segment, ecn: int = 0, dst: bytes = HOST) -> bytes:
        checked = set_tcp_checksum(segment.to_bytes(), pseudo_sum(KERNEL, dst))
        packet = IpHeader(KERNEL, dst).packet(checked, ecn)
        self.kernel.send(packet)
        return packet

    def take(self) -> Packet:
        return parse(self.kernel.recv(65535))


class Setup:
    """A running gateway, its device, its rules and one utcp peer, host 10.99.0.2."""

    def __init__(self) -> None:
        self.device = FakeDevice()
        self.rules = Rules()
        self.captured: list[tuple[str, str, bytes, list[str] | None]] = []
        self.fields: list[int] = []  # of ECN, in the order of ``captured``
        kernel = [KernelAddress(INTERFACE, Endpoint("127.0.0.1", 0))]
        self.marked: set[bytes] = set()  # data of segments that a congested router marks
        self.gateway = Gateway(self.device, kernel, impair=self.rules, mark=self._mark, capture=self._capture)
        self.peer = Peer(self.gateway.kernel[0].udp, 7)
        assert self.gateway.routes.host_address(self.peer.endpoint) == "10.99.0.2"
        self._thread = threading.Thread(target=self.gateway.run)
        self._thread.start()

    def _mark(self, direction: Direction, segment: bytes) -> bool:
        return decode(segment).data in self.marked

    def _capture(
        self,
        time_ns: int,
        src: str,
        dst: str,
        segment: bytes,
        comments: list[str] | None,
        direction: int,
        ecn: int,
    ) -> None:
        self.captured.append((src, dst, segment, comments))
        self.fields.append(ecn)

    def close(self) -> None:
        self.gateway.stop()
        self._thread.join()
        self.gateway.close()
        self.peer.socket.close()

    def drops(self, n: int) -> dict[str, int]:
        """What the gateway has dropped once it has handled everything, ``n`` packets in all."""
        self.device.emit(Segment(80, 7, flags=ACK))
        assert self.peer.receive().src_port == 80
        assert sum(self.gateway.counters.drops.values()) == n
        return dict(self.gateway.counters.drops)


@pytest.fixture
def setup() -> Iterator[Setup]:
    s = Setup()
    yield s
    s.close()


def test_a_segment_to_the_kernel_gets_a_header_and_a_checksum(setup: Setup) -> None:
    sent = setup.peer.send(SYN, mss=1000)
    packet = setup.device.take()
    assert packet[:4] == (HOST, KERNEL, 6, 0)
    assert packet.payload == set_tcp_checksum(sent, PSEUDO)


def test_a_segment_to_utcp_loses_both(setup: Setup) -> None:
    segment = Segment(80, 7, 1, 2, ACK, 3, b"data", ts_val=9, sack=[(5, 6)])
    setup.device.emit(segment)
    assert setup.peer.socket.recv(100) == segment.to_bytes()


def test_ecn_bits_cross_both_ways(setup: Setup) -> None:
    setup.peer.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 2)
    setup.peer.send(ACK)
    assert setup.device.take().ecn == 2
    setup.peer.socket.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS
    setup.device.emit(Segment(80, 7), ecn=3)
    _, ancillary, _, _ = setup.peer.socket.recvmsg(100, 100)
    assert ancillary[0][2] == b"\x03"


def test_marks_both_ways(setup: Setup) -> None:
    """Only what is ECN-capable is marked; what crosses the device is captured with its field."""
    setup.marked = {b"marked"}
    for tos in (0, 2, 1):
        setup.peer.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        setup.peer.send(ACK, b"marked")
        assert setup.device.take().ecn == (3 if tos else 0)
        setup.peer.send(ACK, b"not")
        assert setup.device.take().ecn == tos
    setup.peer.socket.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS
    for ecn in (0, 2):
        setup.device.emit(Segment(80, 7, data=b"marked"), ecn=ecn)
        _, ancillary, _, _ = setup.peer.socket.recvmsg(100, 100)
        assert ancillary[0][2] == (b"\x03" if ecn else b"\0")
    assert setup.fields == [0, 0, 3, 2, 3, 1, 0, 3]
    assert setup.drops(0) == {}
    assert setup.gateway.counters.impaired == {"to-kernel marked": 2, "to-utcp marked": 1}


def test_only_what_is_forwarded_marked_counts_as_marked(setup: Setup) -> None:
    setup.marked = {b"lost", b"twice", b"late", b"refused"}
    setup.rules.add(Direction.TO_KERNEL, lambda seg: seg.data == b"lost")
    setup.rules.add(Direction.TO_KERNEL, lambda seg: seg.data == b"twice", delays=(0, 0))
    setup.rules.add(Direction.TO_KERNEL, lambda seg: seg.data == b"late", delays=(1_000_000,))
    setup.peer.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 2)
    setup.peer.send(ACK, b"lost")
    setup.peer.send(ACK, b"late")
    assert setup.device.take().ecn == 3
    setup.peer.send(ACK, b"twice")
    assert [setup.device.take().ecn for _ in range(2)] == [3, 3]
    setup.device.refuses.add(b"refused")
    setup.peer.send(ACK, b"refused")
    setup.peer.send(ACK, b"last")
    assert setup.device.take().ecn == 2
    assert setup.gateway.counters.drops == {"tun-EINVAL": 1}
    assert setup.gateway.counters.impaired == {
        "to-kernel lost": 1,
        "to-kernel delayed": 1,
        "to-kernel duplicated": 1,
        "to-kernel marked": 3,
    }


def test_what_is_lost_is_captured_as_it_came(setup: Setup) -> None:
    setup.marked = {b"lost"}
    setup.rules.add(Direction.TO_UTCP, lambda seg: seg.data == b"lost")
    setup.device.emit(Segment(80, 7, data=b"lost"), ecn=2)
    assert setup.drops(0) == {}
    assert (setup.captured[0][3], setup.fields[0]) == (["lost in the gateway"], 2)
    assert setup.gateway.counters.impaired == {"to-utcp lost": 1}


def test_mss_is_clamped_both_ways(setup: Setup) -> None:
    setup.peer.send(SYN, mss=1460)
    assert decode(setup.device.take().payload).mss == 1452  # 1500 - 20 - 8 - 20
    setup.device.emit(Segment(80, 7, flags=SYN, mss=9000))
    assert setup.peer.receive().mss == 1452
    assert setup.gateway.counters.mss_clamped == 2


def test_what_is_no_good_is_counted_and_dropped(setup: Setup) -> None:
    device, header = setup.device, IpHeader(KERNEL, HOST)
    segment = set_tcp_checksum(Segment(80, 7, flags=ACK, data=b"x").to_bytes(), PSEUDO)
    device.kernel.send(header.packet(segment[:-1] + b"y"))
    device.kernel.send(IpHeader(KERNEL, HOST, 17).packet(bytes(8)))
    device.kernel.send(header.packet(segment[:19]))
    fragment = bytearray(header.packet(segment))
    fragment[6] = 0x20
    device.kernel.send(bytes(fragment))
    device.kernel.send(b"\0")
    setup.peer.socket.sendto(b"short", setup.gateway.kernel[0].udp)
    setup.peer.socket.sendto(b"", setup.gateway.kernel[0].udp)
    setup.peer.send(ACK)
    device.take()  # the peer's datagrams have been handled
    assert setup.drops(7) == {"bad-checksum": 1, "not-tcp": 1, "short-segment": 3, "fragment": 1, "not-ip": 1}


def test_a_host_nobody_has_is_unreachable(setup: Setup) -> None:
    nobody = ip_address("10.99.0.77").packed
    packet = setup.device.emit(Segment(80, 7, 5, flags=SYN), dst=nobody)
    answer = setup.device.take()
    assert (answer.src, answer.dst) == (nobody, KERNEL)
    quote = parse_error(answer)
    assert quote is not None and quote.error == IcmpError(PathError.HOST_UNREACHABLE)
    assert quote.payload == packet[20:]
    assert setup.drops(1) == {"unknown-host": 1}


def test_an_unreachable_utcp_port_is_told_to_the_kernel(setup: Setup) -> None:
    segment = Segment(80, 7, 5, flags=SYN).to_bytes()
    setup.device.emit(decode(segment))
    setup.peer.receive()
    setup.peer.socket.close()
    setup.device.emit(decode(segment))
    quote = parse_error(setup.device.take())
    assert quote is not None and quote.error == IcmpError(PathError.PORT_UNREACHABLE)
    assert (quote.src, quote.dst, quote.payload) == (KERNEL, HOST, segment)
    with Peer(setup.gateway.kernel[0].udp, 8) as other:
        other.send(ACK)
        setup.device.take()  # the gateway has gone on, and counted
    assert setup.gateway.counters.icmp == {"to-kernel port unreachable": 1}


def test_one_endpoints_error_costs_no_other_endpoint_a_segment(setup: Setup) -> None:
    with Peer(setup.gateway.kernel[0].udp, 8) as other:
        other.send(ACK)
        setup.device.take()
        setup.peer.socket.close()
        for _ in range(20):
            setup.device.emit(Segment(80, 7))
            setup.device.emit(Segment(80, 8), dst=ip_address("10.99.0.3").packed)
        assert [other.receive().dst_port for _ in range(20)] == [8] * 20
        # Told once at least: the system limits the rate at which it sends ICMP errors. The gateway reads them when it
        # has sent what it had to send, which may be later than the last of those datagrams arrives here
        quote = parse_error(setup.device.take())
        assert quote is not None and quote.error == IcmpError(PathError.PORT_UNREACHABLE)


def test_too_long_for_the_path_is_told_to_the_kernel(setup: Setup) -> None:
    setup.device.emit(Segment(80, 7, data=bytes(1452)))
    assert setup.peer.receive().data_len == 1452
    setup.gateway.mtu = 1400
    setup.device.emit(Segment(80, 7, data=bytes(1353)))
    quote = parse_error(setup.device.take())
    assert quote is not None and quote.error == IcmpError(PathError.PACKET_TOO_BIG, 1392)
    setup.device.emit(Segment(80, 7, data=bytes(1352)))  # 1392 with both headers
    assert setup.peer.receive().data_len == 1352
    assert setup.drops(1) == {"too-big": 1}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="raw ICMP sockets need root")
def test_an_error_from_the_kernels_side_reaches_the_utcp_socket(setup: Setup) -> None:
    sent = setup.peer.send(ACK, b"data")
    packet = setup.device.take()
    assert packet.payload[-4:] == b"data"
    error = tcp_error(IcmpError(PathError.PORT_UNREACHABLE), HOST, KERNEL, packet.payload)
    setup.device.kernel.send(error)
    number, _, payload = setup.peer.receive_error()
    assert number == 111  # ECONNREFUSED
    assert payload == packet.payload
    assert payload[:16] == sent[:16]
    assert setup.drops(0) == {}
    assert setup.gateway.counters.icmp == {"to-utcp port unreachable": 1}


def test_an_error_about_a_stranger_is_dropped(setup: Setup) -> None:
    nobody = ip_address("10.99.0.77").packed
    setup.device.kernel.send(tcp_error(IcmpError(PathError.PORT_UNREACHABLE), nobody, KERNEL, bytes(20)))
    assert setup.drops(1) == {"icmp-unknown": 1}


def test_impairments_lose_double_and_delay(setup: Setup) -> None:
    setup.rules.add(Direction.TO_KERNEL, lambda seg: seg.data == b"lost")
    setup.rules.add(Direction.TO_KERNEL, lambda seg: seg.data == b"twice", delays=(0, 0))
    setup.rules.add(Direction.TO_KERNEL, lambda seg: seg.data == b"late", delays=(30_000_000,))
    for data in (b"lost", b"twice", b"late", b"last"):
        setup.peer.send(ACK, data)
    assert [decode(setup.device.take().payload).data for _ in range(4)] == [b"twice", b"twice", b"last", b"late"]
    assert setup.gateway.counters.impaired == {
        "to-kernel lost": 1,
        "to-kernel duplicated": 1,
        "to-kernel delayed": 1,
    }


def test_capture_sees_what_crosses_the_device(setup: Setup) -> None:
    setup.rules.add(Direction.TO_UTCP, lambda seg: seg.data == b"lost")
    setup.rules.add(Direction.TO_KERNEL, lambda seg: seg.data == b"lost")
    lost, back = Segment(80, 7, data=b"lost"), Segment(80, 7, data=b"back")
    setup.peer.send(ACK, b"lost")
    there = setup.peer.send(ACK, b"there")
    setup.device.take()
    setup.device.emit(lost)
    setup.device.emit(back)
    setup.peer.receive()
    assert setup.captured == [
        ("10.99.0.2", "10.99.0.1", there, None),
        ("10.99.0.1", "10.99.0.2", lost.to_bytes(), ["lost in the gateway"]),
        ("10.99.0.1", "10.99.0.2", back.to_bytes(), None),
    ]


def test_a_udp_port_in_use_is_named_and_the_device_closed() -> None:
    device = FakeDevice()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = Endpoint(*taken.getsockname())
        with pytest.raises(OSError, match=rf"cannot bind UDP 127\.0\.0\.1:{address.port}: Address already in use"):
            Gateway(device, [KernelAddress(INTERFACE, address)])
    assert device.fileno() == -1
