"""Captures, read back by a small reader of our own, and by tshark and tcptrace where they are installed."""

from __future__ import annotations

import io
import logging
import re
import shutil
import struct
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utcp.core.states import State
from utcp.trace import PcapngObserver, PcapngWriter
from utcp.trace.pcapng import INBOUND, OUTBOUND, ip_packet
from utcp.wire.segment import ACK, FIN, PSH, RST, SYN, Segment

CLIENT = ("127.0.0.1", 40000)
SERVER = ("127.0.0.1", 9000)


class Packet(NamedTuple):
    time_ns: int
    data: bytes
    comments: list[str]
    direction: int


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, size - 4) == (size,), "the length is repeated at a block's end"
        found.append((kind, data[8 : size - 4]))
        data = data[size:]
    return found


def options(data: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while data:
        code, size = struct.unpack_from("<HH", data)
        if code == 0:
            assert (size, len(data)) == (0, 4), "nothing follows the end of options"
            return found
        found.append((code, data[4 : 4 + size]))
        data = data[4 + size + -size % 4 :]
    assert not found, "options have an end"
    return found


def read(data: bytes) -> list[Packet]:
    (kind, section), (interface_kind, interface), *rest = blocks(data)
    assert kind == 0x0A0D0D0A
    assert struct.unpack_from("<IHH", section) == (0x1A2B3C4D, 1, 0)
    assert interface_kind == 1
    assert struct.unpack_from("<HHI", interface) == (101, 0, 0)
    assert (9, b"\x09") in options(interface[8:]), "times are nanoseconds"
    packets = []
    for packet_kind, body in rest:
        assert packet_kind == 6
        _, high, low, captured, length = struct.unpack_from("<IIIII", body)
        assert captured == length
        found = options(body[20 + captured + -captured % 4 :])
        comments = [value.decode() for code, value in found if code == 1]
        flags = [struct.unpack("<I", value)[0] for code, value in found if code == 2]
        packets.append(Packet(high << 32 | low, body[20 : 20 + captured], comments, flags[0] if flags else 0))
    return packets


def ones_complement_sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def lifecycle() -> list[tuple[bool, Segment]]:
    """SYN to the last ACK, as (from the client, segment)."""
    c, s = 40001, 9000
    return [
        (True, Segment(c, s, 1000, 0, SYN, mss=1460)),
        (False, Segment(s, c, 5000, 1001, SYN | ACK, mss=1460)),
        (True, Segment(c, s, 1001, 5001, ACK)),
        (True, Segment(c, s, 1001, 5001, PSH | ACK, data=b"hello")),
        (False, Segment(s, c, 5001, 1006, ACK)),
        (True, Segment(c, s, 1006, 5001, FIN | ACK)),
        (False, Segment(s, c, 5001, 1007, ACK)),
        (False, Segment(s, c, 5001, 1007, PSH | ACK, data=b"drained")),
        (True, Segment(c, s, 1007, 5008, ACK)),
        (False, Segment(s, c, 5008, 1007, FIN | ACK)),
        (True, Segment(c, s, 1007, 5009, ACK)),
    ]


def write_lifecycle(path: Path, client: tuple[str, int] = CLIENT, server: tuple[str, int] = SERVER) -> None:
    writer = PcapngWriter(path)
    for i, (from_client, segment) in enumerate(lifecycle()):
        ends = (client, server) if from_client else (server, client)
        writer.write(1_700_000_000_000_000_000 + i * 1_000_001, *ends, segment.to_bytes(), ["a comment"])
    writer.close()


def test_a_packet_is_the_segment_behind_an_ip_header_with_time_comment_and_direction() -> None:
    file = io.BytesIO()
    segment = Segment(40001, 9000, 1000, 0, SYN, mss=1460).to_bytes()
    writer = PcapngWriter(file)
    writer.write(1_700_000_000_123_456_789, CLIENT, SERVER, segment, ["one", "zwei ⇄"], OUTBOUND)
    writer.close()
    (packet,) = read(file.getvalue())
    assert packet.time_ns == 1_700_000_000_123_456_789
    assert packet.comments == ["one", "zwei ⇄"]
    assert packet.direction == OUTBOUND
    assert packet.data[9] == 6
    assert packet.data[12:20] == bytes([127, 0, 0, 1, 127, 0, 0, 1])
    assert packet.data[20:36] == segment[:16], "all but the checksum"
    assert packet.data[38:] == segment[18:]


@given(st.binary(min_size=20, max_size=200), st.booleans())
def test_checksums_are_what_rfc_1071_says(segment: bytes, v6: bool) -> None:
    src, dst = map(ip_address, ("fd00::1", "fd00::2") if v6 else ("10.0.0.1", "10.0.0.2"))
    packet = ip_packet(src, dst, segment)
    header = 40 if v6 else 20
    pseudo = src.packed + dst.packed + struct.pack(">II", len(segment), 6)
    assert ones_complement_sum(pseudo + packet[header:]) == 0xFFFF
    assert v6 or ones_complement_sum(packet[:20]) == 0xFFFF


def test_the_largest_datagram_fits_into_a_packet() -> None:
    segment = Segment(1, 2, 0, 0, ACK, data=bytes(65507 - 20)).to_bytes()
    assert struct.unpack_from(">H", ip_packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), segment), 2) == (65527,)
    assert struct.unpack_from(">H", ip_packet(ip_address("::1"), ip_address("::2"), segment), 4) == (65507,)


def test_garbage_that_arrived_is_captured_as_it_is() -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    for garbage in (b"", b"x", b"no segment"):
        writer.write(0, CLIENT, SERVER, garbage)
    assert [packet.data[20:] for packet in read(file.getvalue())] == [b"", b"x", b"no segment"]


def test_addresses_that_are_no_ip_addresses_get_one_each() -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    for src, dst in (("alice", "bob"), ("bob", "alice"), (("fe80::1%eth0", 1, 0, 2), ("fe80::2", 2, 0, 2))):
        writer.write(0, src, dst, Segment(1, 2).to_bytes())
    first, second, third = read(file.getvalue())
    assert first.data[12:16] != first.data[16:20]
    assert (first.data[12:16], first.data[16:20]) == (second.data[16:20], second.data[12:16])
    assert third.data[8:24] == ip_address("fe80::1").packed


def test_the_observer_says_what_each_segment_caused_and_what_caused_it() -> None:
    file = io.BytesIO()
    observer = PcapngObserver(file, lambda path: (CLIENT, SERVER), clock_offset=1_000)
    fin = Segment(40001, 9000, 1, 1, FIN | ACK).to_bytes()
    observer.user_call(10, 0, 40001, 9000, "shutdown")
    observer.state_change(10, 0, 40001, 9000, State.ESTABLISHED, State.FIN_WAIT_1)
    observer.segment_out(11, 0, fin, retransmission=False)
    observer.timer(500, 0, 40001, 9000, "retransmit")
    observer.segment_out(500, 0, fin, retransmission=True)
    observer.segment_in(600, 0, Segment(9000, 40001, 1, 2, ACK).to_bytes())
    observer.state_change(600, 0, 40001, 9000, State.FIN_WAIT_1, State.FIN_WAIT_2)
    observer.segment_in(700, 0, Segment(9000, 40001, 99, 2, RST).to_bytes())
    observer.drop(700, 0, Segment(9000, 40001, 99, 2, RST).to_bytes(), "rst-outside-window")
    observer.close()
    packets = read(file.getvalue())
    assert [(packet.time_ns, packet.comments, packet.direction) for packet in packets] == [
        (1_011, ["state ESTABLISHED -> FIN-WAIT-1"], OUTBOUND),
        (1_500, ["RTO fired", "retransmission"], OUTBOUND),
        (1_600, ["state FIN-WAIT-1 -> FIN-WAIT-2"], INBOUND),
        (1_700, ["dropped: rst-outside-window"], INBOUND),
    ]
    assert packets[2].data[20:22] == (9000).to_bytes(2, "big"), "what came in was sent by the peer"


def test_a_change_of_the_path_mtu_is_told_where_it_came_from_or_by_the_next_segment_there() -> None:
    file = io.BytesIO()
    observer = PcapngObserver(file, clock_offset=0)
    observer.segment_in(1, 0, Segment(9000, 1111, 1, 1, ACK).to_bytes())
    observer.path_mtu(1, 0, 1228, 1500)  # a probe was acknowledged
    observer.path_mtu(1, 7, 1228, 9000)  # elsewhere
    observer.path_mtu(2, 0, 1500, 1400)  # an ICMP error
    observer.timer(3, 0, 1111, 9000, "retransmit")
    observer.path_mtu(3, 0, 1400, 1228)  # a black hole
    observer.segment_out(3, 0, Segment(1111, 9000, 1, 1, ACK).to_bytes(), retransmission=True)
    observer.segment_out(4, 0, Segment(1111, 9000, 1, 1, ACK).to_bytes(), retransmission=False)
    observer.close()
    assert [packet.comments for packet in read(file.getvalue())] == [
        ["path MTU 1228 -> 1500"],
        ["path MTU 1500 -> 1400", "path MTU 1400 -> 1228", "RTO fired", "retransmission"],
        [],
    ]


def test_a_comment_belongs_to_its_own_connection() -> None:
    file = io.BytesIO()
    observer = PcapngObserver(file, clock_offset=0)
    observer.user_call(1, 0, 1111, 9000, "close")
    observer.state_change(1, 0, 1111, 9000, State.ESTABLISHED, State.FIN_WAIT_1)
    observer.segment_out(2, 0, Segment(2222, 9000, 1, 1, ACK).to_bytes(), retransmission=False)
    observer.segment_out(3, 0, Segment(1111, 9000, 1, 1, FIN | ACK).to_bytes(), retransmission=False)
    observer.close()
    assert [packet.comments for packet in read(file.getvalue())] == [[], ["state ESTABLISHED -> FIN-WAIT-1"]]


class FullDisk(io.BytesIO):
    def write(self, data: object, /) -> int:
        raise OSError(28, "No space left on device")


def test_a_disk_that_fills_up_ends_the_capture_with_one_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        observer = PcapngObserver(FullDisk())
        for i in range(3):
            observer.segment_in(i, 0, Segment(1, 2, i, 0, ACK).to_bytes())
        observer.close()
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith("capture stopped: ")
    assert caplog.messages[0].endswith(": No space left on device")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="SKIPPED: no /dev/full on this system")
def test_a_full_device_ends_the_capture_with_one_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        observer = PcapngObserver("/dev/full")
        for i in range(1000):
            observer.segment_in(i, 0, Segment(1, 2, i, 0, ACK, data=bytes(100)).to_bytes())
        observer.close()
    assert caplog.messages == ["capture stopped: /dev/full: No space left on device"]


def test_a_path_that_cannot_be_opened_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PcapngObserver(tmp_path / "nowhere" / "x.pcapng")


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"SKIPPED: {name} is not installed, captures are not checked by it")
    return path


ENDS = [(CLIENT, SERVER), (("fd00::1", 1), ("fd00::2", 2))]


@pytest.mark.parametrize(("client", "server"), ENDS, ids=["IPv4", "IPv6"])
def test_tshark_finds_one_conversation_and_nothing_wrong(
    tmp_path: Path, client: tuple[str, int], server: tuple[str, int]
) -> None:
    path = tmp_path / "lifecycle.pcapng"
    write_lifecycle(path, client, server)
    fields = ["tcp.stream", "tcp.srcport", "tcp.flags.syn", "tcp.flags.fin", "tcp.checksum.status", "frame.comment"]
    command = [tool("tshark"), "-r", str(path), "-o", "tcp.check_checksum:TRUE", "-T", "fields"]
    command += [word for name in [*fields, "_ws.malformed"] for word in ("-e", name)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in output.splitlines()]
    assert len(rows) == len(lifecycle())
    assert {row[0] for row in rows} == {"0"}
    assert {row[1] for row in rows if row[2] in {"1", "True"}} == {"40001", "9000"}, "SYN both ways"
    assert {row[1] for row in rows if row[3] in {"1", "True"}} == {"40001", "9000"}, "FIN both ways"
    assert {row[4] for row in rows} == {"1"}, "every TCP checksum is good"
    assert {row[5] for row in rows} == {"a comment"}
    assert {row[6] for row in rows} == {""}


def test_tcptrace_calls_the_connection_complete(tmp_path: Path) -> None:
    path = tmp_path / "lifecycle.pcapng"
    write_lifecycle(path)
    command = [tool("tcptrace"), "-l", "-n", str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "complete conn: yes" in output
    assert re.findall(r"SYN/FIN pkts sent:\s+(\S+)", output) == ["1/1", "1/1"]
