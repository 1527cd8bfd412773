"""The gateway in front of the kernel's TCP, in a network namespace of its own; the utcp side is scripted."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

import pytest

from gateway.peer import WAIT_S, Peer
from interop.namespace import ip, kernel_states, private_namespace, require_tun, sysctl, tcp_counters
from support.ports import free_port
from utcp.gateway import Endpoint, Gateway, KernelAddress, Tun
from utcp.gateway.packets import IpHeader, ip_header_size, pseudo_sum, set_tcp_checksum
from utcp.wire.segment import ACK, FIN, RST, SYN, Segment

MTU = 1500
K4 = ip_interface("10.99.0.1/16")
K6 = ip_interface("fd99::1/64")
# An address that is not on the device: packets for it are forwarded, or not, as a router does
BEYOND = ip_interface("10.98.0.1/16")
NARROW = ip_interface("10.97.0.1/32")


class Net:
    """A gateway on a device of the kernel's; scripted peers on either IP version."""

    def __init__(self) -> None:
        addresses: list[IPv4Interface | IPv6Interface] = [K4, K6]
        tun = Tun("utcp0", addresses, MTU - 8)
        ip("route add 10.98.0.0/16 dev utcp0")
        kernel = [
            KernelAddress(K4, Endpoint("127.0.0.1", 0)),
            KernelAddress(K6, Endpoint("::1", 0)),
            KernelAddress(BEYOND, Endpoint("127.0.0.1", 0)),
        ]
        self.gateway = Gateway(tun, kernel, mtu=MTU)
        self._thread = threading.Thread(target=self.gateway.run)
        self._thread.start()

    def peer(self, index: int, port: int) -> Peer:
        return Peer(self.gateway.kernel[index].udp, port)

    def host(self, peer: Peer, index: int) -> str:
        return self.gateway.routes.host_address(peer.endpoint, index)

    def listen(self, index: int) -> socket.socket:
        address = self.gateway.kernel[index].interface.ip
        listener = socket.create_server((str(address), 0), family=family(index))
        listener.settimeout(WAIT_S)
        return listener

    def close(self) -> None:
        self.gateway.stop()
        self._thread.join()
        self.gateway.close()


def family(index: int) -> socket.AddressFamily:
    return socket.AF_INET6 if index == 1 else socket.AF_INET


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    require_tun()
    with private_namespace():
        net = Net()
        yield net
        net.close()


BOTH_VERSIONS = pytest.mark.parametrize("index", [0, 1], ids=["IPv4", "IPv6"])


@BOTH_VERSIONS
def test_utcp_connects_to_a_kernel_listener(net: Net, index: int) -> None:
    errors_before = tcp_counters()["InCsumErrors"]
    with net.listen(index) as listener, net.peer(index, 40001) as peer:
        port = listener.getsockname()[1]
        peer.connect(port)
        sock, address = listener.accept()
        with sock:
            assert address[:2] == (net.host(peer, index), 40001)
            assert kernel_states(40001, address[0], port) == ["ESTAB"]
            peer.send(ACK, b"odd")
            assert sock.recv(10) == b"odd"
            sock.sendall(bytes(range(256)) * 40)
            assert peer.receive_data(10240) == bytes(range(256)) * 40
            sock.close()
            while not peer.receive().flags & FIN:
                pass
            peer.close_passively()
    assert kernel_states(40001, address[0], port) == ["TIME-WAIT"]
    assert tcp_counters()["InCsumErrors"] == errors_before


@BOTH_VERSIONS
def test_the_kernel_connects_to_utcp(net: Net, index: int) -> None:
    with net.peer(index, 7) as peer, socket.socket(family(index)) as sock:
        sock.settimeout(WAIT_S)
        sock.setblocking(False)
        assert sock.connect_ex((net.host(peer, index), 7)) == errno.EINPROGRESS
        peer.accept()
        sock.settimeout(WAIT_S)
        peer.send(ACK, b"hello")
        assert sock.recv(10) == b"hello"
        peer.send(FIN | ACK)
        assert sock.recv(10) == b""
        assert peer.receive().flags & ACK
        assert kernel_states(7, net.host(peer, index), sock.getsockname()[1]) == ["CLOSE-WAIT"]
        peer.send(RST)


@BOTH_VERSIONS
def test_mss_of_both_sides_fits_the_path(net: Net, index: int) -> None:
    expected = MTU - (20 if index == 0 else 40) - 8 - 20
    with net.listen(index) as listener, net.peer(index, 40002) as peer:
        assert peer.connect(listener.getsockname()[1], mss=65000).mss == expected
        sock, _ = listener.accept()
        with sock:
            # The kernel takes off the timestamps option only where it was negotiated (RFC 6691)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == expected
        peer.send(RST)


@BOTH_VERSIONS
def test_connecting_to_a_dead_utcp_port_is_refused_at_once(net: Net, index: int) -> None:
    dead = Endpoint("127.0.0.1" if index == 0 else "::1", free_port(socket.SOCK_DGRAM))
    host = net.gateway.routes.host_address(dead, index)
    with socket.socket(family(index)) as sock:
        sock.settimeout(WAIT_S)
        with pytest.raises(ConnectionRefusedError):
            sock.connect((host, 7))


@BOTH_VERSIONS
def test_connecting_to_a_host_nobody_has_fails_at_once(net: Net, index: int) -> None:
    with socket.socket(family(index)) as sock:
        sock.settimeout(WAIT_S)
        with pytest.raises(OSError) as caught:
            sock.connect((("10.99.200.1", "fd99::dead")[index], 7))
        assert caught.value.errno == errno.EHOSTUNREACH


def test_what_a_router_on_the_kernels_side_says_reaches_utcp(net: Net) -> None:
    ip("route add prohibit 10.98.0.1")
    try:
        with sysctl("net.ipv4.ip_forward", 1), net.peer(2, 40003) as peer:
            peer.remote_port = 80
            segment = peer.send(SYN)
            number, _, quoted = peer.receive_error()
            assert number == errno.EHOSTUNREACH  # administratively prohibited
            assert quoted[:16] == segment[:16]
    finally:
        ip("route del prohibit 10.98.0.1")


def test_a_smaller_link_on_the_kernels_side_is_told_to_utcp(net: Net) -> None:
    with Tun("narrow", [NARROW], 1000), sysctl("net.ipv4.ip_forward", 1), net.peer(2, 40004) as peer:
        ip("route add 10.98.0.1 dev narrow")
        peer.remote_port = 80
        peer.send(ACK, bytes(1000 - 40 + 1))
        number, mtu, _ = peer.receive_error()
        assert (number, mtu) == (errno.EMSGSIZE, 1008)


@BOTH_VERSIONS
def test_a_utcp_segment_too_long_is_told_to_utcp(net: Net, index: int) -> None:
    limit = MTU - (20 if index == 0 else 40) - 8 - 20
    with net.peer(index, 40005) as peer:
        peer.remote_port = 80
        sent = peer.send(ACK, bytes(limit + 1))
        number, mtu, quoted = peer.receive_error()
        assert (number, mtu) == (errno.EMSGSIZE, MTU)
        assert sent.startswith(quoted) and len(quoted) > 500


@BOTH_VERSIONS
def test_the_kernel_follows_a_path_mtu_that_shrinks(net: Net, index: int) -> None:
    data = os.urandom(20_000)
    with net.listen(index) as listener, net.peer(index, 40006) as peer:
        peer.connect(listener.getsockname()[1], mss=65000)
        sock, _ = listener.accept()
        with sock:
            net.gateway.mtu = 1400
            try:
                sock.sendall(data)
                assert peer.receive_data(len(data)) == data
            finally:
                net.gateway.mtu = MTU
            assert net.gateway.counters.icmp["to-kernel packet too big"] >= 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 1400 - 48
        peer.send(RST)


def test_packets_that_are_not_for_a_gateway_are_counted(net: Net) -> None:
    drops = net.gateway.counters.drops
    with net.peer(0, 40007) as peer, net.listen(0) as listener:
        peer.connect(listener.getsockname()[1])
        before = dict(drops)
        host = net.host(peer, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"no TCP", (host, 7))
            udp.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: never, so that it is fragmented
            udp.sendto(bytes(3000), (host, 7))
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            kernel, remote = K4.ip.packed, socket.inet_aton(host)
            assert ip_header_size(kernel) == 20
            damaged = bytearray(set_tcp_checksum(Segment(80, 7).to_bytes(), pseudo_sum(kernel, remote)))
            damaged[4] ^= 1
            raw.sendto(IpHeader(kernel, remote).packet(bytes(damaged)), (host, 0))
        sock, _ = listener.accept()
        sock.sendall(b"x")  # behind all of these
        assert peer.receive().data == b"x"
        sock.close()
        counted = {k: n - before.get(k, 0) for k, n in drops.items() if n != before.get(k, 0)}
        assert counted == {"not-tcp": 1, "fragment": 3, "bad-checksum": 1}
