"""The benchmarks of throughput and latency carry what they say, over what they say. Speed is not asserted."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest

import utcp
from benchmarks import transfer
from benchmarks.latency import LATENCY
from benchmarks.run import run_once
from benchmarks.throughput import THROUGHPUT
from benchmarks.transfer import STACKS, Benchmark, TransferPeer
from benchmarks.transfer_worker import TransferWorkload
from benchmarks.workload import Loop

SHORT = TransferWorkload(seconds=0.3, warmup=0.2)
NO_AIOQUIC = importlib.util.find_spec("aioquic") is None


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "aioquic" and NO_AIOQUIC:
        pytest.skip("SKIPPED: aioquic is not installed")
    return name


@pytest.mark.parametrize(("loop", "in_flight"), [("uvloop", 1), ("asyncio", 3)])
async def test_bulk(stack: str, loop: Loop, in_flight: int) -> None:
    seconds = 2.0 if stack == "aioquic" else SHORT.seconds  # its handshakes alone may take longer than that
    workload = replace(SHORT, in_flight=in_flight, loop=loop, seconds=seconds)
    outcome = await run_once(workload, TransferPeer(stack))
    assert outcome.rate > 1000  # a byte is a "lifecycle"
    assert (outcome.errors, outcome.unfinished) == (0, 0)
    assert outcome.p50_us == 0


@pytest.mark.parametrize("size", [64, 200_000])
async def test_requests(stack: str, size: int) -> None:
    """Also one that takes many segments: an answer counts once it is there as a whole."""
    seconds = 2.0 if stack == "aioquic" else SHORT.seconds
    workload = replace(SHORT, kind="request", payload=size, seconds=seconds)
    outcome = await run_once(workload, TransferPeer(stack))
    assert outcome.rate > 0
    assert (outcome.errors, outcome.unfinished) == (0, 0)
    assert 0 < outcome.p50_us <= outcome.p99_us


async def test_bulk_in_small_writes_and_datagrams_of_their_own() -> None:
    outcome = await run_once(replace(SHORT, payload=1000, batched=False), TransferPeer("utcp"))
    assert outcome.rate > 0
    assert (outcome.errors, outcome.unfinished) == (0, 0)
    assert outcome.counters["segments_out"] > 0


@pytest.mark.parametrize("benchmark", [THROUGHPUT, LATENCY], ids=lambda benchmark: benchmark.name)
def test_json(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without aioquic, which is skipped, and said to be."""
    monkeypatch.setattr(transfer, "find_spec", lambda name: None)
    assert benchmark.main(["--seconds", "0.2", "--rounds", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    whole = json.loads(out)
    for peer in ("utcp", "kernel"):
        figures = whole[peer]["figures"]
        assert len(figures) == 2
        assert min(figures) <= whole[peer]["figure"] <= max(figures)
    assert whole["ratios"] == {"utcp/kernel": pytest.approx(whole["utcp"]["figure"] / whole["kernel"]["figure"])}
    assert whole["skipped"] == ["aioquic"]
    assert "SKIPPED: aioquic is not installed" in err
    assert whole["header"]["compiled"] == utcp.__compiled__


@pytest.mark.parametrize(("benchmark", "row"), [(THROUGHPUT, "CPU/GB"), (LATENCY, "requests/s")])
def test_table(benchmark: Benchmark, row: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--seconds", "0.2", "--rounds", "1", "--peer", "utcp"]) == 0
    printed = capsys.readouterr().out
    assert row in printed
    assert benchmark.unit in printed
    assert "utcp: compiled" in printed or "utcp: interpreted" in printed


def test_nothing_to_measure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(transfer, "find_spec", lambda name: None)
    assert THROUGHPUT.main(["--peer", "aioquic"]) == 1
    assert "nothing is left to measure" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["--seconds 0", "--size 0", "--size 16777217", "--peer nobody", "--rounds 0"])
def test_bad_options(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        LATENCY.parse(arguments.split())
    assert exit_.value.code == 2
    assert "error: argument" in capsys.readouterr().err
