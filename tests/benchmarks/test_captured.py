"""The observer's capture of a batched run shows every lifecycle whole; and what is not whole is noticed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from benchmarks import captured, teardown
from benchmarks.captured import read
from benchmarks.peers import PEERS
from benchmarks.run import run_once
from benchmarks.workload import Workload
from utcp.trace.pcapng import PcapngWriter
from utcp.wire.segment import ACK, FIN, RST, SYN, Segment

Address = tuple[str, int]
CLIENT, SERVER = ("10.0.0.1", 5000), ("10.0.0.2", 6000)
C, S = 100, 0xFFFF_FFFF  # initial sequence numbers: the server's first byte comes after the turn

SYN_SENT = (True, Segment(5000, 80, C, 0, SYN, 65535))
SYN_ACK = (False, Segment(80, 5000, S, C + 1, SYN | ACK, 65535))
REQUEST = (True, Segment(5000, 80, C + 1, 0, ACK, 65535, data=b"abc"))
ANSWER = (False, Segment(80, 5000, 0, C + 4, ACK, 65535, data=b"defgh"))
CLIENT_FIN = (True, Segment(5000, 80, C + 4, 5, FIN | ACK, 65535))
SERVER_FIN = (False, Segment(80, 5000, 5, C + 5, FIN | ACK, 65535))
LAST_ACK = (True, Segment(5000, 80, C + 5, 6, ACK, 65535))
WHOLE = [SYN_SENT, SYN_ACK, REQUEST, ANSWER, CLIENT_FIN, SERVER_FIN, LAST_ACK]


def capture(
    path: Path, segments: list[tuple[bool, Segment]], client: Address = CLIENT, server: Address = SERVER
) -> Path:
    writer = PcapngWriter(str(path))
    for number, (by_client, segment) in enumerate(segments):
        ends = (client, server) if by_client else (server, client)
        writer.write(number, *ends, segment.to_bytes())
    writer.close()
    return path


def test_a_whole_lifecycle(tmp_path: Path) -> None:
    found = read(capture(tmp_path / "x.pcapng", WHOLE))
    assert (found.lifecycles, found.complete, found.segments_per_lifecycle, found.strangers) == (1, 1, 7.0, 0)


def test_both_ends_with_the_same_address_and_port(tmp_path: Path) -> None:
    same = [
        (by_client, Segment(80, 80, one.seq, one.ack, one.flags, one.wnd, bytes(one.data))) for by_client, one in WHOLE
    ]
    found = read(capture(tmp_path / "x.pcapng", same, SERVER, SERVER))
    assert (found.lifecycles, found.complete, found.segments_per_lifecycle) == (1, 1, 7.0)


@pytest.mark.parametrize("missing", range(len(WHOLE)))
def test_a_segment_that_is_missing(missing: int, tmp_path: Path) -> None:
    assert read(capture(tmp_path / "x.pcapng", [*WHOLE[:missing], *WHOLE[missing + 1 :]])).complete == 0


def test_retransmissions_leave_it_whole(tmp_path: Path) -> None:
    twice = [one for one in WHOLE for _ in range(2)]
    found = read(capture(tmp_path / "x.pcapng", twice))
    assert (found.lifecycles, found.complete, found.segments_per_lifecycle) == (1, 1, 14.0)


def test_a_reset(tmp_path: Path) -> None:
    reset = (False, Segment(80, 5000, 6, 0, RST, 0))
    assert read(capture(tmp_path / "x.pcapng", [*WHOLE[:-1], reset])).complete == 0
    assert read(capture(tmp_path / "y.pcapng", [*WHOLE, reset])).complete == 1  # a machine that was busy for an RTO


def test_ports_that_are_used_again(tmp_path: Path) -> None:
    again = (True, Segment(5000, 80, C + 100_000, 0, SYN, 65535))
    found = read(capture(tmp_path / "x.pcapng", [*WHOLE, again]))
    assert (found.lifecycles, found.complete) == (2, 1)


def test_a_capture_that_is_cut_short(tmp_path: Path) -> None:
    path = capture(tmp_path / "x.pcapng", WHOLE)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut short"):
        read(path)


@pytest.mark.parametrize(("payload", "fewest"), [(0, 5), (5000, 7)])
def test_a_batched_run(payload: int, fewest: int, tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    workload = Workload(
        in_flight=128, seconds=0.3, warmup=0.1, msl=30.0, payload=payload, connect="direct", pcap=str(path)
    )
    outcome = asyncio.run(run_once(workload, PEERS["utcp"]))
    found = read(path)
    assert (outcome.errors, outcome.unfinished) == (0, 0)
    assert found.lifecycles == found.complete >= 128
    assert fewest <= found.fewest <= 2 * fewest
    assert found.segments_per_lifecycle <= 2 * fewest  # a few are repeated when a process stands still, not all
    assert found.strangers == 0
    if sys.platform == "linux":  # it was batched: several segments a system call
        assert outcome.counters["segments_out"] > 2 * outcome.counters["send_calls"]


def test_the_benchmark_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.pcapng"
    arguments = ["--peer", "utcp", "--in-flight", "16", "--seconds", "0.2", "--rounds", "1", "--msl", "0.1", "--json"]
    assert teardown.main([*arguments, "--pcap", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)["capture"]
    assert found["complete"] == found["lifecycles"] > 0
    assert found == read(path).as_dict()


def test_as_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["captured", str(capture(tmp_path / "x.pcapng", [*WHOLE, *WHOLE[:1]]))])
    assert captured.main() == 0  # the SYN is one that was sent again
    assert "1 of 1 lifecycles complete" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["captured", str(capture(tmp_path / "y.pcapng", WHOLE[:-1]))])
    assert captured.main() == 1
    monkeypatch.setattr("sys.argv", ["captured", str(tmp_path / "nothing")])
    assert captured.main() == 1
    assert "No such file" in capsys.readouterr().err
