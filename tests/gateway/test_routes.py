"""Which address stands for whom."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from utcp.gateway.routes import Endpoint, KernelAddress, RoutingTable, UnknownAddress

K4 = KernelAddress(ip_interface("10.99.0.1/16"), Endpoint("127.0.0.1", 9100))
K6 = KernelAddress(ip_interface("fd99::1/64"), Endpoint("127.0.0.1", 9106))
SERVER = Endpoint("127.0.0.1", 9000)
CLIENT = Endpoint("127.0.0.1", 54321)


def packed(text: str) -> bytes:
    return ip_address(text).packed


def test_an_endpoint_is_one_host_in_every_network() -> None:
    table = RoutingTable([K4, K6], [SERVER])
    assert table.host_address(SERVER, 0) == "10.99.0.2"
    assert table.host_address(SERVER, 1) == "fd99::2"
    assert table.from_kernel(packed("10.99.0.1"), packed("10.99.0.2")) is table.from_utcp(0, SERVER)
    assert table.from_kernel(packed("fd99::1"), packed("fd99::2")) is table.from_utcp(1, SERVER)


def test_clients_are_learned_and_keep_their_address() -> None:
    table = RoutingTable([K4], [SERVER])
    route = table.from_utcp(0, CLIENT)
    assert (route.host, route.kernel_host) == ("10.99.0.3", "10.99.0.1")
    assert table.from_kernel(packed("10.99.0.1"), packed("10.99.0.3")) is route
    assert table.from_utcp(0, Endpoint("127.0.0.1", 54322)).host == "10.99.0.4"
    assert table.from_utcp(0, CLIENT) is route


def test_the_kernels_own_addresses_are_passed_over() -> None:
    second = KernelAddress(ip_interface("10.99.0.3/16"), Endpoint("127.0.0.1", 9101))
    table = RoutingTable([K4, second], [SERVER])
    assert table.from_utcp(0, CLIENT).host == "10.99.0.4"
    # Two addresses of one network: the same host, reached from either
    assert table.from_utcp(1, CLIENT).host == "10.99.0.4"
    assert table.from_kernel(packed("10.99.0.3"), packed("10.99.0.4")).kernel == 1


@pytest.mark.parametrize(
    ("src", "dst", "reason"),
    [
        ("10.99.0.1", "10.99.0.3", "unknown-host"),
        ("10.99.0.9", "10.99.0.2", "unknown-kernel-address"),
        ("10.99.0.1", "10.98.0.2", "unknown-kernel-address"),
        ("fd99::1", "fd99::2", "unknown-kernel-address"),
    ],
)
def test_strangers(src: str, dst: str, reason: str) -> None:
    table = RoutingTable([K4], [SERVER])
    with pytest.raises(UnknownAddress) as caught:
        table.from_kernel(packed(src), packed(dst))
    assert caught.value.reason == reason


def test_an_ipv4_socket_has_no_way_to_an_ipv6_endpoint() -> None:
    table = RoutingTable([K4], [Endpoint("::1", 9000)])
    with pytest.raises(UnknownAddress):
        table.from_kernel(packed("10.99.0.1"), packed("10.99.0.2"))


def test_addresses_run_out() -> None:
    small = KernelAddress(ip_interface("10.99.0.1/30"), K4.udp)
    table = RoutingTable([small], [SERVER])  # .2; .3 is the broadcast address
    with pytest.raises(UnknownAddress) as caught:
        table.from_utcp(0, CLIENT)
    assert caught.value.reason == "no-free-address"
    assert table.from_utcp(0, SERVER).host == "10.99.0.2"
    with pytest.raises(ValueError, match=r"no address left for 127\.0\.0\.1:54321"):
        RoutingTable([small], [SERVER, CLIENT])


@pytest.mark.parametrize(
    ("kernel", "udp", "path_mtu", "device_mtu", "mss"),
    [
        ("10.99.0.1/16", "127.0.0.1", 1500, 1492, 1452),  # 20 + 8 + 20
        ("fd99::1/64", "127.0.0.1", 1500, 1492, 1432),  # the device's: 40 + 20
        ("10.99.0.1/16", "::1", 1500, 1492, 1432),  # 40 + 8 + 20
        ("fd99::1/64", "::1", 1500, 1492, 1432),
        ("10.99.0.1/16", "127.0.0.1", 65535, 65535, 65487),  # a datagram holds 65,507 bytes
    ],
)
def test_what_fits(kernel: str, udp: str, path_mtu: int, device_mtu: int, mss: int) -> None:
    table = RoutingTable([KernelAddress(ip_interface(kernel), Endpoint(udp, 9100))])
    route = table.from_utcp(0, Endpoint(udp, 9000))
    assert route.segment_limit(path_mtu, device_mtu) == mss + 20
