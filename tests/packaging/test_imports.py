"""``import utcp`` brings asyncio, the engine and its face, and nothing else (times: benchmarks.imports)."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import pytest

from benchmarks import imports

# Of the standard library, what asyncio has not brought already
STANDARD: Final = {"__future__", "_bisect", "_blake2", "_hashlib", "bisect", "copy", "dataclasses", "hashlib"}
# What the engine needs at run time; the compiled engine is a module of its own beside the package
NEEDED: Final = {"librt", "mypy_extensions", "utcp", "utcp__mypyc"}
# Parts that come when they are used
LATER: Final = ("trace", "sim", "check", "cli", "gateway", "contrib", "aio.dropin", "aio.tls")


def brought_by(program: str) -> list[str]:
    """The modules that ``program`` imports in a new interpreter, where asyncio is there already."""
    source = (
        f"import asyncio, sys, json; old = {{*sys.modules}}; {program}; print(json.dumps([*{{*sys.modules}} - old]))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_nothing_but_what_is_needed() -> None:
    tops = {name.partition(".")[0] for name in brought_by("import utcp")}
    assert tops <= STANDARD | NEEDED
    assert "utcp" in tops


@pytest.mark.parametrize("part", LATER)
def test_what_is_used_by_few_comes_when_it_is_used(part: str) -> None:
    found = brought_by("import utcp")
    assert [
        name for name in found if name == f"utcp.{part}" or name.startswith((f"utcp.{part}.", f"utcp.{part}_"))
    ] == []


def test_every_public_name_is_there_all_the_same() -> None:
    source = (
        "import utcp; assert [n for n in utcp.__all__ if not hasattr(utcp, n)] == []; from utcp import *; start_tls"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


def test_a_name_that_is_none() -> None:
    import utcp

    with pytest.raises(AttributeError, match="module 'utcp' has no attribute 'nothing'"):
        utcp.nothing  # noqa: B018
    assert set(utcp.__all__) <= set(dir(utcp))


def test_the_times_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert imports.main(["--runs", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    took = figures["milliseconds"]
    assert 0 < took["nothing"]["process"] < took["utcp"]["process"]
    assert imports.main(["--runs", "1"]) == 0
    assert "utcp itself" in capsys.readouterr().out
