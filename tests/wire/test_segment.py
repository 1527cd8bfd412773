"""The segment codec: RFC 9293 3.1 byte for byte, options, round trips, and everything that is no segment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.any_segment import U8, fields, header, segments
from utcp.wire import segment as w
from utcp.wire.segment import Segment, decode, flag_text, parse


def parse_error(datagram: bytes) -> int:
    return int(parse(Segment(), datagram, 0, len(datagram)))


def test_header_byte_for_byte() -> None:
    seg = Segment(0x1234, 0xFEDC, 0x89ABCDEF, 0xFFFFFFFF, w.FIN | w.ACK, 0x8001, b"xyz", urg=0xA55A)
    assert seg.to_bytes() == bytes.fromhex("1234fedc 89abcdef ffffffff 5011 8001 0000 a55a") + b"xyz"
    assert seg.len == 4


def test_syn_options_byte_for_byte() -> None:
    seg = Segment(1, 2, 3, 0, w.SYN, 5, mss=1452, wscale=7, sack_permitted=True, ts_val=0x80000001, ts_ecr=9)
    options = "020405ac 01010402 0101080a 80000001 00000009 01030307"
    assert seg.to_bytes()[20:] == bytes.fromhex(options)
    assert seg.to_bytes()[12] == (20 + 24) // 4 << 4


def test_sack_blocks_byte_for_byte() -> None:
    seg = Segment(1, 2, 3, 4, w.ACK, 5, sack=[(1, 2), (0xFFFFFFF0, 0x10)])
    assert seg.to_bytes()[20:] == bytes.fromhex("01010512 00000001 00000002 fffffff0 00000010")


@given(segments())
def test_round_trip(seg: Segment) -> None:
    data = seg.to_bytes()
    assert len(data) % 4 == len(seg.data) % 4  # the header is whole 32-bit words
    assert fields(decode(data)) == fields(seg)


@given(segments(), segments(), st.binary(max_size=20))
def test_a_reused_segment_keeps_nothing_of_the_last(first: Segment, second: Segment, around: bytes) -> None:
    reused = Segment()
    one, two = first.to_bytes(), second.to_bytes()
    assert parse(reused, one, 0, len(one)) == w.OK
    # ... and parses in place, between other bytes of the same buffer
    assert parse(reused, around + two + around, len(around), len(around) + len(two)) == w.OK
    assert fields(reused) == fields(second)


@given(st.binary(max_size=120))
def test_no_bytes_make_parse_raise(datagram: bytes) -> None:
    assert parse_error(datagram) in (w.OK, w.TOO_SHORT, w.BAD_DATA_OFFSET, w.BAD_OPTION_LENGTH)


@given(st.integers(0, 10), U8, st.binary(min_size=40, max_size=40))
def test_no_options_make_parse_raise_or_touch_the_data(words: int, flags: int, noise: bytes) -> None:
    options = noise[: 4 * words]
    seg = Segment()
    datagram = header(flags, 20 + len(options), options, b"data")
    if parse(seg, datagram, 0, len(datagram)) == w.OK:
        assert seg.data == b"data"
        assert (seg.seq, seg.ack, seg.wnd, seg.urg) == (3, 4, 5, 7)
        assert seg.wscale <= 0xFF and len(seg.sack) <= 4


@pytest.mark.parametrize("size", range(20))
def test_shorter_than_a_header(size: int) -> None:
    assert parse_error(header()[:size]) == w.TOO_SHORT


@pytest.mark.parametrize("words", [0, 1, 4, 6, 15])
def test_data_offset_inside_the_header_or_past_the_end(words: int) -> None:
    datagram = bytearray(header())
    datagram[12] = words << 4
    assert parse_error(bytes(datagram)) == w.BAD_DATA_OFFSET


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 8, 28, 253])
@pytest.mark.parametrize("length", [0, 1, 5, 255])
def test_MUST_7_option_length_that_cannot_be(kind: int, length: int) -> None:
    """Below 2, or past the end of the header."""
    assert parse_error(header(w.SYN, 24, bytes([kind, length, 0, 0]))) == w.BAD_OPTION_LENGTH


def test_option_kind_without_a_length() -> None:
    assert parse_error(header(w.ACK, 24, b"\1\1\1\2")) == w.BAD_OPTION_LENGTH


@pytest.mark.parametrize("kind", [6, 7, 9, 30, 69, 253, 254, 255])
def test_MUST_6_unknown_options_are_skipped(kind: int) -> None:
    options = bytes([kind, 3, 9, 2, 4, 1, 0, 0])  # unknown, MSS 256, end
    seg = decode(header(w.SYN, 28, options))
    assert seg.mss == 256


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("02030500", "an MSS of 3 bytes"),
        ("03020000", "a window scale of 2 bytes"),
        ("08040000", "timestamps of 4 bytes"),
        ("0506 00000000 0000", "SACK blocks that do not come in eights"),
        ("1c03 0000", "a user timeout of 3 bytes"),
        ("04030000", "SACK permitted with a body"),
    ],
)
def test_a_known_option_of_odd_length_is_skipped(options: str, what: str) -> None:
    body = bytes.fromhex(options)
    body += bytes(-len(body) % 4)
    seg = decode(header(w.SYN, 20 + len(body), body))
    assert seg.option_texts() == [], what


def test_options_need_no_alignment() -> None:
    """MUST-64: any boundary will do."""
    options = bytes.fromhex("01 03 03 05 02 04 05 dc 01 04 02 08 0a 00 00 00 01 00 00 00 02 00 00 00")
    seg = decode(header(w.SYN, 44, options))
    assert (seg.wscale, seg.mss, seg.sack_permitted, seg.ts_val, seg.ts_ecr) == (5, 1500, True, 1, 2)


def test_nothing_is_read_behind_the_end_of_options() -> None:
    assert decode(header(w.SYN, 28, bytes.fromhex("00 02 04 05 dc 00 00 00"))).mss == 0
    assert decode(header(w.SYN, 24, b"\0\2\0\0")).option_texts() == []  # not even as a length


def test_syn_options_mean_nothing_without_a_syn() -> None:
    """MUST-65, RFC 7323 2.2, RFC 2018 2."""
    options = bytes.fromhex("020405dc 04020101 01030307")
    assert decode(header(w.ACK, 32, options)).option_texts() == []
    assert decode(header(w.SYN, 32, options)).option_texts() == ["mss 1500", "wscale 7", "sackOK"]


def test_the_checksum_field_is_sent_as_zero_and_not_looked_at() -> None:
    assert Segment(1, 2, 3, 4, w.ACK).to_bytes()[16:18] == b"\0\0"
    assert decode(header()).ack == 4  # header() puts 6 there


def test_reserved_bits_are_ignored() -> None:
    datagram = bytearray(header())
    datagram[12] |= 0x0F
    assert fields(decode(bytes(datagram))) == fields(decode(header()))


def test_too_many_options_are_refused_when_building() -> None:
    with pytest.raises(ValueError, match="40"):
        Segment(flags=w.ACK, ts_val=1, sack=[(1, 2)] * 4).to_bytes()


def test_decode_names_the_fault() -> None:
    with pytest.raises(ValueError, match="too-short"):
        decode(b"garbage")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (w.SYN, "S"),
        (w.SYN | w.ACK, "S."),
        (w.FIN | w.ACK, "F."),
        (w.FIN | w.PSH | w.ACK, "FP."),
        (w.RST, "R"),
        (w.RST | w.ACK, "R."),
        (w.ACK, "."),
        (0, "none"),
        (w.URG | w.ECE | w.CWR | w.ACK, ".UEW"),
    ],
)
def test_flag_text(flags: int, text: str) -> None:
    assert flag_text(flags) == text


def test_repr_says_what_tcpdump_would() -> None:
    seg = Segment(1, 2, 3, 4, w.PSH | w.ACK, 5, b"abc", ts_val=6, ts_ecr=7, sack=[(8, 9)])
    assert repr(seg) == "<Segment 1>2 P. seq=3 ack=4 wnd=5 data=3 TS val 6 ecr 7 sack 8:9>"
