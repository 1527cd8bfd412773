"""The TIME-WAIT benchmark makes as many records as it says, and all of them end. Speed is not asserted."""

from __future__ import annotations

import json

import pytest

from benchmarks import timewait


def test_the_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["timewait", "--records", "3000", "--json"])
    timewait.main()
    figures = json.loads(capsys.readouterr().out)
    assert figures["records"] == 3000
    assert figures["table: bytes per record"] < 100  # few records share the smallest table there is
    assert all(figures[name] > 0 for name in figures if name.startswith("engine"))
    assert len([name for name in figures if name.startswith("engine")]) == 4


def test_too_few(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["timewait", "--records", "1"])
    with pytest.raises(SystemExit):
        timewait.main()
    assert "--records" in capsys.readouterr().err
