"""What benchmarks.trace measures is there, and adds up. Speed is not asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import utcp
from benchmarks import trace
from benchmarks.trace import BATCH, Counting, Pair, nobody
from utcp.core.states import State


def test_a_lifecycle_is_opened_and_closed_on_both_ends() -> None:
    pair = Pair(nobody)
    pair.lifecycles(BATCH + 1)
    for engine in (pair.client, pair.server):
        assert list(engine.connections()) == []
        assert engine.counters.retransmissions == engine.counters.resets_out == 0
        assert engine.counters.drops == {}
    assert pair.client.states()[State.TIME_WAIT] == 2 * BATCH == pair.server.counters.passive_opens


def test_every_kind_of_event_is_counted() -> None:
    seen = Counting()
    pair = Pair(lambda engine: seen)
    pair.lifecycles(BATCH)
    segments = sum(c.segments_in + c.segments_out for c in (pair.client.counters, pair.server.counters))
    # Of the client: connect, shutdown, close; SYN-SENT to TIME-WAIT; the end. Of the server: close; LISTEN to CLOSED
    calls, changes, ends = 4, 5 + 5, 2
    assert seen.events == segments + BATCH * (calls + changes + ends)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main(["--lifecycles", "65", "--rounds", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["lifecycles"] == 2 * BATCH
    assert figures["compiled"] == utcp.__compiled__
    assert figures["us_per_lifecycle"] > 0
    assert figures["ns_per_event"].keys() == {"counting", "pcapng", "JSON lines", "structlog"}
    assert figures["events_per_lifecycle"] > 20


@pytest.fixture
def valgrind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of valgrind, a program that has counted 1000 instructions and 7 for each lifecycle."""
    program = tmp_path / "valgrind"
    program.write_text('#!/bin/sh\nfor last; do :; done\necho "==1== Collected : $((1000 + 7 * last))" >&2\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.usefixtures("valgrind")
def test_instructions_are_those_of_the_lifecycles_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main(["--lifecycles", "1", "--rounds", "1", "--instructions"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].endswith("64 lifecycles of both ends")
    assert table[-1].split() == ["nobody", "looks,", "instructions", "7"]


def test_without_valgrind_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert trace.main(["--lifecycles", "1", "--rounds", "1", "--instructions"]) == 1
    assert capsys.readouterr().err == "trace: counting instructions needs valgrind, and there is none\n"


@pytest.mark.parametrize("arguments", ["--lifecycles 0", "--rounds 0"])
def test_bad_options(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        trace.main(arguments.split())
    assert exit_.value.code == 2
    assert "at least 1" in capsys.readouterr().err
