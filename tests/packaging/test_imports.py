"""``import utcp`` brings next to nothing, its first use asyncio, the engine and its face. Times: benchmarks.imports."""

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
FIRST_USE: Final = "import utcp; utcp.open_connection"
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
    tops = {name.partition(".")[0] for name in brought_by(FIRST_USE)}
    assert tops <= STANDARD | NEEDED
    assert "utcp" in tops


@pytest.mark.parametrize("part", LATER)
def test_what_is_used_by_few_comes_when_it_is_used(part: str) -> None:
    found = brought_by(FIRST_USE)
    assert [
        name for name in found if name == f"utcp.{part}" or name.startswith((f"utcp.{part}.", f"utcp.{part}_"))
    ] == []


def test_the_import_itself_brings_neither_asyncio_nor_the_engine() -> None:
    source = "import sys, utcp; print(*[name for name in ('asyncio', 'utcp.aio', 'utcp.core') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("part", ["aio", "core", "sim", "trace", "wire"])
def test_parts_are_there_without_an_import_of_their_own(part: str) -> None:
    subprocess.run([sys.executable, "-c", f"import utcp; assert utcp.{part}.__name__ == 'utcp.{part}'"], check=True)


@pytest.mark.parametrize(
    "module", ["utcp.wire.interpreted", "utcp.core.interpreted", "utcp.core.interpreted_time_wait"]
)
def test_what_replaces_another_modules_functions_may_be_imported_first(module: str) -> None:
    source = f"import {module}; from utcp.core.engine import Engine; Engine()"
    subprocess.run([sys.executable, "-c", source], check=True)


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
    assert 0 < took["nothing"]["process"] < took["its first use"]["process"]
    assert imports.main(["--runs", "1"]) == 0
    assert "less asyncio" in capsys.readouterr().out
