"""ICMP errors: written, read back, and carried across in the other side's words."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utcp.core.paths import PathError
from utcp.gateway.icmp import IcmpError, Quote, mtu_across, parse_error, tcp_error, udp_error
from utcp.gateway.packets import ICMP, ICMPV6, BadPacket, IpHeader, Packet, fold, ones_sum, parse, pseudo_sum
from utcp.wire.segment import ACK, Segment

V4 = (ip_address("10.99.0.1").packed, ip_address("10.99.0.2").packed)
V6 = (ip_address("fd99::1").packed, ip_address("fd99::2").packed)
FAMILIES = pytest.mark.parametrize(("src", "dst"), [V4, V6], ids=["IPv4", "IPv6"])
SEGMENT = Segment(40000, 80, 1, 2, ACK, data=b"data").to_bytes()


@FAMILIES
@pytest.mark.parametrize("kind", [kind for kind in PathError if kind is not PathError.MESSAGE_TOO_LONG])
def test_tcp_error_round_trip(src: bytes, dst: bytes, kind: PathError) -> None:
    error = IcmpError(kind, 1400 if kind is PathError.PACKET_TOO_BIG else 0)
    packet = parse(tcp_error(error, src, dst, SEGMENT))
    assert (packet.src, packet.dst) == (dst, src)
    assert packet.protocol == (ICMP if len(src) == 4 else ICMPV6)
    assert parse_error(packet) == Quote(error, src, dst, 6, SEGMENT)


@FAMILIES
def test_udp_error_quotes_the_datagram(src: bytes, dst: bytes) -> None:
    message = udp_error(IcmpError(PathError.PACKET_TOO_BIG, 1300), src, 9000, dst, 9100, SEGMENT)
    if len(src) == 16:  # a raw socket would fill it in
        total = pseudo_sum(dst, src, ICMPV6) + len(message) + ones_sum(message)
        message = message[:2] + fold(total).to_bytes(2, "big") + message[4:]
    quote = parse_error(Packet(dst, src, ICMP if len(src) == 4 else ICMPV6, 0, message))
    assert quote is not None
    assert quote[:4] == (IcmpError(PathError.PACKET_TOO_BIG, 1300), src, dst, 17)
    assert quote.payload == struct.pack("!HHHH", 9000, 9100, 8 + len(SEGMENT), 0) + SEGMENT


@FAMILIES
def test_an_error_fits_the_smallest_packet_every_host_takes(src: bytes, dst: bytes) -> None:
    packet = tcp_error(IcmpError(PathError.PORT_UNREACHABLE), src, dst, bytes(60000))
    assert len(packet) == (576 if len(src) == 4 else 1280)
    quote = parse_error(parse(packet))
    assert quote is not None and set(quote.payload) == {0}


@FAMILIES
def test_a_damaged_error_is_none(src: bytes, dst: bytes) -> None:
    packet = bytearray(tcp_error(IcmpError(PathError.PORT_UNREACHABLE), src, dst, SEGMENT))
    packet[-1] ^= 1
    assert parse_error(parse(bytes(packet))) is None


def test_an_echo_request_is_no_error() -> None:
    message = struct.pack("!BBHI", 8, 0, 0, 0) + bytes(40)
    message = message[:2] + fold(ones_sum(message)).to_bytes(2, "big") + message[4:]
    assert parse_error(Packet(*V4, ICMP, 0, message)) is None


def test_mtu_counts_the_header_of_the_other_side() -> None:
    error = IcmpError(PathError.PACKET_TOO_BIG, 1400)
    assert mtu_across(error, 20, 28).mtu == 1408
    assert mtu_across(error, 48, 20).mtu == 1372
    assert mtu_across(IcmpError(PathError.PACKET_TOO_BIG, 0), 20, 28).mtu == 0
    assert mtu_across(IcmpError(PathError.PORT_UNREACHABLE), 20, 28) == IcmpError(PathError.PORT_UNREACHABLE)


@given(st.sampled_from([(ICMP, V4), (ICMPV6, V6)]), st.binary(max_size=120), st.booleans())
def test_reading_any_message_raises_nothing(
    family: tuple[int, tuple[bytes, bytes]], message: bytes, valid: bool
) -> None:
    protocol, (src, dst) = family
    if valid and len(message) >= 8:
        total = ones_sum(message[:2] + message[4:])
        total += pseudo_sum(src, dst, ICMPV6) + len(message) if protocol == ICMPV6 else 0
        message = message[:2] + fold(total).to_bytes(2, "big") + message[4:]
    quote = parse_error(Packet(src, dst, protocol, 0, message))
    assert quote is None or quote.payload in message


@FAMILIES
@pytest.mark.parametrize("size", range(0, 60, 3))
def test_quotes_cut_short(src: bytes, dst: bytes, size: int) -> None:
    whole = IpHeader(src, dst).packet(SEGMENT)[:size]
    message = struct.pack("!BBHI", 3 if len(src) == 4 else 1, 3, 0, 0) + whole
    header = IpHeader(dst, src, ICMP if len(src) == 4 else ICMPV6)
    total = ones_sum(message) + (0 if len(src) == 4 else pseudo_sum(src, dst, ICMPV6) + len(message))
    message = message[:2] + fold(total).to_bytes(2, "big") + message[4:]
    quote = parse_error(parse(header.packet(message)))
    complete = size >= header.size
    assert (quote is not None) == complete
    if quote is not None:
        assert quote.payload == SEGMENT[: size - header.size]


def test_bad_packet_names_its_reason() -> None:
    assert str(BadPacket("fragment")) == "fragment"
