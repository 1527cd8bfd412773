"""The HTTP benchmark fetches what it says, over what it says. Speed is not asserted."""

from __future__ import annotations

import json

import pytest

import utcp
from benchmarks import http
from benchmarks.http import HttpPeer
from benchmarks.http_worker import HttpWorkload
from benchmarks.run import run_once

SHORT = {"in_flight": 4, "seconds": 0.3, "warmup": 0.2, "msl": 0.1}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("keep_alive", [True, False])
async def test_utcp_carries_the_requests(loop: str, keep_alive: bool) -> None:
    outcome = await run_once(HttpWorkload(**SHORT, loop=loop, keep_alive=keep_alive), HttpPeer("utcp"))  # type: ignore[arg-type]
    assert outcome.rate > 0
    assert (outcome.errors, outcome.unfinished) == (0, 0)
    assert 0 < outcome.p50_us <= outcome.p99_us
    assert outcome.segments_per_lifecycle > 1
    both_sides = outcome.counters["established"]
    if keep_alive:
        assert both_sides <= 2 * 4  # both sides of one for each request in flight, at most
    else:
        # Requests are counted where these segments are: at the client, in its own interval. The server's may be
        # shorter, and each of the first four may have its connection from before.
        requests = round(outcome.counters["segments_out"] / outcome.segments_per_lifecycle)
        assert requests > 2 * 4
        assert both_sides >= requests - 4


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_the_kernel_does_the_same_work(keep_alive: bool) -> None:
    outcome = await run_once(HttpWorkload(**SHORT, keep_alive=keep_alive), HttpPeer("kernel"))  # type: ignore[arg-type]
    assert outcome.rate > 0
    assert (outcome.errors, outcome.unfinished) == (0, 0)
    assert "established" not in outcome.counters


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert http.main(["--seconds", "0.2", "--rounds", "1", "--in-flight", "2", "--msl", "0.1", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    for mode in ("new-connections", "keep-alive"):
        for stack in ("utcp", "kernel"):
            assert whole[mode][stack]["rates"] == [whole[mode][stack]["rate"]]
        assert whole[mode]["ratio"] == pytest.approx(whole[mode]["utcp"]["rate"] / whole[mode]["kernel"]["rate"])
    assert whole["keep-alive"]["workload"]["in_flight"] == 2
    assert whole["header"]["compiled"] == utcp.__compiled__


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seconds", "0.2", "--rounds", "1", "--in-flight", "2", "--mode", "keep-alive", "--msl", "0.1"]
    assert http.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "keep-alive, requests/s" in printed
    assert "new-connections" not in printed


@pytest.mark.parametrize("arguments", ["--seconds 0", "--mode pipelined", "--rounds 0"])
def test_bad_options(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        http.parse(arguments.split())
    assert exit_.value.code == 2
    assert "error: argument" in capsys.readouterr().err
