"""The cases of benchmarks.instructions run, and its check can fail. What they cost is not asserted here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import utcp
from benchmarks import instructions
from benchmarks.instructions import CASES, TOLERANCE
from benchmarks.trace import BATCH


def test_every_case_has_a_committed_figure() -> None:
    kept = json.loads(instructions.COMMITTED.read_text())
    assert set(kept["instructions"]) == set(CASES)
    assert kept["compiled"] is True


@pytest.mark.parametrize("name", ["engine", "segment"])
def test_the_engines_cases_run(name: str) -> None:
    CASES[name].run(BATCH)


@pytest.mark.skipif(sys.platform != "linux", reason="as the benchmark")
@pytest.mark.parametrize("name", ["direct", "await", "streams", "unbatched", "request", "alone"])
def test_the_cases_over_sockets_end(name: str) -> None:
    done = subprocess.run(instructions.command(name, 20), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_has_grown_beyond_the_tolerance() -> None:
    committed = {"engine": 1000, "direct": 1000}
    limit = round(1000 * (1 + TOLERANCE))
    assert instructions.grown({"engine": limit, "direct": limit + 1, "new": 5}, committed) == ["direct"]


def test_the_check_fails_for_this_build_only(capsys: pytest.CaptureFixture[str]) -> None:
    kept = {**instructions.facts(), "instructions": {"engine": 1000}}
    assert instructions.check({"engine": 1050}, kept) == 0
    assert instructions.check({"engine": 2000}, kept) == 1
    assert "engine" in capsys.readouterr().err
    assert instructions.check({"engine": 2000}, {**kept, "compiled": not utcp.__compiled__}) == 0
    assert "SKIPPED" in capsys.readouterr().err


def test_without_valgrind_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert instructions.main(["--check"]) == 0
    assert "SKIPPED" in capsys.readouterr().err
