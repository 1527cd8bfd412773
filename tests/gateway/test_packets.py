"""IP headers, checksums and the MSS option, against an independent computation."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utcp.gateway.packets import (
    BadPacket,
    IpHeader,
    clamp_mss,
    clear_tcp_checksum,
    fold,
    ones_sum,
    parse,
    pseudo_sum,
    set_tcp_checksum,
    tcp_checksum_ok,
)
from utcp.wire.segment import ACK, SYN, Segment, decode

V4 = (ip_address("10.99.0.2").packed, ip_address("10.99.0.1").packed)
V6 = (ip_address("fd99::2").packed, ip_address("fd99::1").packed)
FAMILIES = pytest.mark.parametrize(("src", "dst"), [V4, V6], ids=["IPv4", "IPv6"])


def rfc1071(data: bytes) -> int:
    """The checksum as RFC 1071 4.1 writes it, word by word."""
    total = 0
    for i in range(0, len(data), 2):
        total += data[i] << 8 | (data[i + 1] if i + 1 < len(data) else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(src: bytes, dst: bytes, size: int) -> bytes:
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, 6, size)
    return src + dst + struct.pack("!IHBB", size, 0, 0, 6)


@given(st.binary(max_size=200).filter(any))
def test_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    assert fold(ones_sum(data)) == rfc1071(data)


@given(
    addresses=st.sampled_from([V4, V6]),
    data=st.binary(max_size=101),
    mss=st.integers(0, 65535),
    stale=st.integers(0, 65535),
)
def test_tcp_checksum(addresses: tuple[bytes, bytes], data: bytes, mss: int, stale: int) -> None:
    src, dst = addresses
    segment = Segment(40000, 80, 1, 2, ACK | SYN, data=data, mss=mss, ts_val=7).to_bytes()
    marked = segment[:16] + stale.to_bytes(2, "big") + segment[18:]
    pseudo = pseudo_sum(src, dst)
    checked = set_tcp_checksum(marked, pseudo)
    expected = rfc1071(pseudo_header(src, dst, len(segment)) + segment)
    assert int.from_bytes(checked[16:18], "big") == expected
    assert tcp_checksum_ok(checked, pseudo)
    assert clear_tcp_checksum(checked) == segment


@FAMILIES
def test_any_changed_bit_makes_the_checksum_wrong(src: bytes, dst: bytes) -> None:
    pseudo = pseudo_sum(src, dst)
    good = set_tcp_checksum(Segment(1, 2, 3, 4, ACK, data=b"odd").to_bytes(), pseudo)
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert not tcp_checksum_ok(bytes(bad), pseudo)


@FAMILIES
@pytest.mark.parametrize("ecn", range(4))
@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)) * 5])
def test_header_round_trip(src: bytes, dst: bytes, ecn: int, payload: bytes) -> None:
    packet = IpHeader(src, dst).packet(payload, ecn)
    assert parse(packet) == (src, dst, 6, ecn, payload)
    if len(src) == 4:
        assert rfc1071(packet[:20]) == 0
        assert packet[6] == 0x40  # Don't Fragment


def test_ip_options_and_link_padding_are_skipped() -> None:
    header = struct.pack("!BBHHHBBH4s4s", 0x47, 0, 30, 0, 0, 64, 6, 0, *V4) + b"\x01" * 8
    assert parse(header + b"segment pad")[4] == b"se"


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "not-ip"),
        (b"\x55" + bytes(40), "not-ip"),
        (b"\x45" + bytes(18), "short-packet"),
        (b"\x60" + bytes(38), "short-packet"),
        (struct.pack("!BBHHHBBH4s4s", 0x44, 0, 20, 0, 0, 64, 6, 0, *V4), "bad-length"),
        (struct.pack("!BBHHHBBH4s4s", 0x45, 0, 21, 0, 0, 64, 6, 0, *V4), "bad-length"),
        (struct.pack("!BBHHHBBH4s4s", 0x46, 0, 20, 0, 0, 64, 6, 0, *V4), "bad-length"),
        (struct.pack("!IHBB16s16s", 6 << 28, 1, 6, 64, *V6), "bad-length"),
        (struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20, 0, 0x2000, 64, 6, 0, *V4), "fragment"),
        (struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20, 0, 0x0001, 64, 6, 0, *V4), "fragment"),
        (struct.pack("!IHBB16s16s", 6 << 28, 0, 44, 64, *V6), "fragment"),
    ],
)
def test_bad_packets(packet: bytes, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        parse(packet)
    assert caught.value.reason == reason


@given(st.binary(max_size=100))
def test_parse_raises_nothing_but_bad_packet(packet: bytes) -> None:
    try:
        parsed = parse(packet)
    except BadPacket:
        return
    assert parsed.payload in packet


def test_mss_is_lowered_on_a_syn_only() -> None:
    syn = Segment(1, 2, flags=SYN, mss=1460, sack_permitted=True, ts_val=1, wscale=7)
    clamped = decode(clamp_mss(syn.to_bytes(), 1432))
    assert clamped.mss == 1432
    syn.mss = 1432
    assert clamped.to_bytes() == syn.to_bytes()  # nothing else has changed
    data = Segment(1, 2, flags=ACK, mss=1460).to_bytes()
    assert clamp_mss(data, 1432) is data


def test_mss_that_fits_and_mss_that_is_missing_are_left_alone() -> None:
    for syn in (Segment(1, 2, flags=SYN, mss=1432).to_bytes(), Segment(1, 2, flags=SYN, wscale=7).to_bytes()):
        assert clamp_mss(syn, 1432) is syn


def test_mss_behind_other_options() -> None:
    head = bytearray(Segment(1, 2, flags=SYN).to_bytes())
    options = b"\x01\x01\x04\x02" + b"\x02\x04" + (9000).to_bytes(2, "big")
    head[12] = (20 + len(options)) // 4 << 4
    assert clamp_mss(bytes(head) + options + b"data", 1432) == bytes(head) + options[:6] + b"\x05\x98data"


@given(st.binary(max_size=40), st.integers(0, 15), st.integers(20, 65535))
def test_clamping_any_options_changes_at_most_two_bytes(options: bytes, offset: int, limit: int) -> None:
    head = bytearray(Segment(1, 2, flags=SYN).to_bytes())
    head[12] = offset << 4
    before = bytes(head) + options
    after = clamp_mss(before, limit)
    assert len(after) == len(before)
    assert sum(a != b for a, b in zip(after, before, strict=True)) <= 2
