"""The benchmark measures what it says: complete lifecycles, on both sides, by every peer. Speed is not asserted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from math import gcd
from pathlib import Path
from typing import Any

import pytest

import utcp
from benchmarks import run, teardown
from benchmarks.peers import PEERS, UtcpPeer, build_epoll, ephemeral_range, kernel_ports, prime_from
from benchmarks.run import result, run_once
from benchmarks.workload import Report, Workload
from utcp.core.ports import EPHEMERAL_PORTS

# No warm-up: what is repeated in the interval was first sent in it. 2MSL outlasts it: its lifecycles leave records
SHORT = Workload(in_flight=8, seconds=0.3, warmup=0.0, msl=0.5, ports=3)

WORKLOADS = {
    "protocol": SHORT,
    "protocol, echo": replace(SHORT, payload=64),
    "protocol, default loop": replace(SHORT, loop="asyncio"),
    "streams": replace(SHORT, api="streams"),
    "streams, echo, default loop": replace(SHORT, api="streams", payload=5000, loop="asyncio"),
    "one": replace(SHORT, in_flight=1),
}
UTCP_WORKLOADS = {
    **WORKLOADS,
    "direct": replace(SHORT, connect="direct"),
    "direct, echo": replace(SHORT, connect="direct", payload=64),
    "unbatched": replace(SHORT, batched=False),
}


@pytest.mark.parametrize("workload", UTCP_WORKLOADS.values(), ids=UTCP_WORKLOADS.keys())
async def test_utcp_completes_lifecycles_and_its_time_wait_drains(workload: Workload) -> None:
    outcome = await run_once(workload, PEERS["utcp"])
    assert outcome.rate > 0
    assert (outcome.errors, outcome.unfinished, outcome.pairs_reused) == (0, 0, 0)
    assert outcome.counters["resets_out"] <= outcome.retransmissions  # the ACK of a FIN that left twice meets nobody
    assert outcome.time_wait > 0
    assert outcome.client["time_wait_after_2msl"] == 0
    assert 0 < outcome.p50_us <= outcome.p99_us
    # SYN, SYN ACK, FIN, FIN, ACK at least, of which the client sends three; some may lie outside of the interval
    assert outcome.segments_per_lifecycle > 3


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
async def test_kernel_tcp_does_the_same_work(workload: Workload) -> None:
    outcome = await run_once(workload, PEERS["kernel"])
    assert outcome.rate > 0
    assert (outcome.errors, outcome.unfinished) == (0, 0)
    assert 0 < outcome.p50_us <= outcome.p99_us
    assert outcome.peak_rss_client > 2**20


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the epoll peer")
@pytest.mark.parametrize("payload", [0, 64, teardown.MAX_PAYLOAD])
async def test_epoll_does_the_same_work(payload: int) -> None:
    outcome = await run_once(replace(SHORT, payload=payload), PEERS["epoll"])
    assert outcome.rate > 0
    assert (outcome.errors, outcome.unfinished) == (0, 0)
    assert 0 < outcome.p50_us <= outcome.p99_us


async def test_a_peer_that_dies_is_an_error_that_says_so() -> None:
    class Dead(UtcpPeer):
        def server(self, workload: Workload) -> list[str]:
            return ["false"]

    with pytest.raises(RuntimeError, match="ended early with status 1"):
        await run_once(SHORT, Dead())


async def test_a_peer_that_hangs_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(UtcpPeer):
        def server(self, workload: Workload) -> list[str]:
            return ["sleep", "60"]

    monkeypatch.setattr(run, "READY_WITHIN", 0.2)
    with pytest.raises(RuntimeError, match=r"said nothing for 0\.2 s"):
        await run_once(SHORT, Silent())


def test_both_peers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--peer", "both", "--in-flight", "4", "--seconds", "0.2", "--rounds", "2", "--msl", "0.1", "--json"]
    assert teardown.main(arguments) == 0
    whole = json.loads(capsys.readouterr().out)
    for peer in ("utcp", "kernel"):
        assert len(whole[peer]["rates"]) == 2
        assert min(whole[peer]["rates"]) <= whole[peer]["rate"] <= max(whole[peer]["rates"])
    assert whole["ratio"] == pytest.approx(whole["utcp"]["rate"] / whole["kernel"]["rate"])
    assert whole["workload"]["msl"] == 0.1
    assert whole["header"]["compiled"] == utcp.__compiled__


def test_a_capture_of_utcp_beside_the_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.pcapng"
    arguments = ["--peer", "both", "--in-flight", "4", "--seconds", "0.2", "--rounds", "1", "--msl", "0.1"]
    assert teardown.main([*arguments, "--pcap", str(path)]) == 0
    assert "client captured, which slows it down" in " ".join(capsys.readouterr().out.split())
    captured = path.read_bytes()
    for comment in (b"state CLOSED -> SYN-SENT", b"state FIN-WAIT-2 -> TIME-WAIT"):
        assert captured.count(comment) > 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="SKIPPED: no /dev/full on this system")
def test_a_disk_that_fills_up_ends_the_capture_and_not_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--peer", "utcp", "--in-flight", "4", "--seconds", "0.2", "--rounds", "1", "--msl", "0.1", "--json"]
    assert teardown.main([*arguments, "--pcap", "/dev/full"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["utcp"]["errors"] == 0
    assert err.count("capture stopped: /dev/full: No space left on device") == 1


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--peer", "both", "--in-flight", "4", "--seconds", "0.2", "--rounds", "1", "--msl", "0.1"]
    assert teardown.main(arguments) == 0
    printed = capsys.readouterr().out
    for expected in ("lifecycles/s", "pairs reused", "TIME-WAIT records after 2MSL: 0", "utcp/kernel:"):
        assert expected in printed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--in-flight 0", "0 is less than 1"),
        ("--seconds 0", "not a number of seconds above 0"),
        ("--seconds nan", "not a number of seconds above 0"),
        ("--msl -1", "not a number of seconds above 0"),
        ("--payload 65537", "more than 65536"),
        ("--peer nobody", "invalid choice"),
        ("--connect direct --api streams", "streams await"),
        ("--pcap x.pcapng --peer kernel", "only utcp is captured"),
        ("--pcap /nowhere/x.pcapng", "/nowhere/x.pcapng: No such file or directory"),
    ],
)
def test_bad_options(arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        teardown.parse(arguments.split())
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def report(**values: Any) -> Report:
    return Report(**{"lifecycles": 100, "interval": 2.0, "cpu_seconds": 0.5, "peak_rss": 1, **values})


def test_rate_is_that_of_the_side_that_saw_fewer() -> None:
    outcome = result(PEERS["utcp"], report(), report(lifecycles=80), {})
    assert outcome.rate == 40


def test_counters_of_both_sides_are_added_and_system_counters_stand_alone() -> None:
    client = report(counters={"segments_out": 400, "retransmissions": 1})
    server = report(counters={"segments_out": 300, "retransmissions": 2})
    both = result(PEERS["utcp"], client, server, {})
    assert (both.segments_per_lifecycle, both.retransmissions, both.pairs_reused) == (7.0, 3, None)
    system = result(PEERS["kernel"], report(), report(), {"segments_out": 650, "time_wait": 9, "time_wait_reused": 4})
    assert (system.segments_per_lifecycle, system.time_wait, system.pairs_reused) == (6.5, 9, 4)


@pytest.mark.parametrize("msl", [0.0, 0.1, 1.0, 30.0])
def test_ports_are_so_many_that_no_pair_comes_again(msl: float) -> None:
    count = json.loads(UtcpPeer().server(replace(Workload(), msl=msl))[-1])["serve_ports"]
    assert gcd(count, EPHEMERAL_PORTS) == 1
    assert count * EPHEMERAL_PORTS > 1_000_000 * min(2 * msl, 3.5)


def test_kernel_ports_leave_half_of_the_ephemeral_ones() -> None:
    low, high = ephemeral_range()
    workload = Workload(seconds=10.0)
    assert kernel_ports(workload) * (high - low) / 2 > 50_000 * 10
    assert kernel_ports(replace(workload, ports=2)) == 2


@pytest.mark.parametrize(("n", "prime"), [(0, 11), (11, 11), (12, 13), (24, 29), (120, 127)])
def test_prime_from(n: int, prime: int) -> None:
    assert prime_from(n) == prime


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    build_epoll.cache_clear()
    monkeypatch.setenv("PATH", "")
    yield
    build_epoll.cache_clear()


@pytest.mark.usefixtures("no_compiler")
def test_epoll_without_a_compiler_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert teardown.main(["--peer", "epoll", "--rounds", "1", "--seconds", "0.1"]) == 1
    assert "needs a C compiler" in capsys.readouterr().err
