"""The benchmark of teardown at scale does what it says, and what it began ends. Speed is not asserted."""

from __future__ import annotations

import json

import pytest

import utcp
from benchmarks import pressure, timewait


def test_records(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["timewait", "records", "--records", "3000", "--json"])
    timewait.main()
    figures = json.loads(capsys.readouterr().out)
    assert figures["records"] == 3000
    few = 100 if utcp.__compiled__ else 270  # bytes: they share the smallest table there is
    assert figures["table: bytes per record"] < few
    assert all(figures[name] > 0 for name in figures if name.startswith("engine"))
    assert len([name for name in figures if name.startswith("engine")]) == 4


def test_too_few(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["timewait", "--records", "1"])
    with pytest.raises(SystemExit):
        timewait.main()
    assert "--records" in capsys.readouterr().err


def test_every_part(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pressure, "LONG_FLOOD", 16_000)
    arguments = ["--records", "1000", "--connections", "20", "--rate", "2000"]
    monkeypatch.setattr("sys.argv", ["timewait", *arguments])
    timewait.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] in ("compiled", "interpreted")
    assert {line.partition(":")[0] for line in lines[1:]} >= {"table", "engine", "drain", "flood"}


def test_connections_drain_and_nothing_is_left() -> None:
    figures = pressure.measure_drain(3000)
    assert figures["drain: connections in FIN-WAIT-2 and CLOSE-WAIT"] == 3000
    assert figures["drain: ... in TIME-WAIT afterwards"] == 3000
    assert figures["drain: connections, records, timers left after 2MSL"] == 0


def test_their_memory_is_given_back() -> None:
    """Whatever their number; what is left is that of tables at their smallest."""
    for count in (300, 1200):
        figures = pressure.measure_drain(count, memory=True)
        before, most, after = figures.values()
        assert most - before > 1000 * count
        assert after - before < 100_000


def test_what_is_left_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure.Pair, "pass_time", lambda *_: None)
    with pytest.raises(AssertionError, match="'TIME-WAIT records': 10"):
        pressure.measure_drain(10)


def test_a_flood_of_forged_syns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backlog is full, the rest are answered by cookies, and nobody who is connected loses a segment."""
    monkeypatch.setattr(pressure, "LONG_FLOOD", 16_000)
    figures = pressure.measure_flood(10_000, seconds=0.4, connections=20)
    assert figures["flood: ... in all"] >= 1500
    assert figures["flood: ... answered by a cookie"] >= figures["flood: ... in all"] - 1024 > 0
    assert figures["flood: messages a second without it"] > 0
    assert figures["flood: ... with it"] > 0
