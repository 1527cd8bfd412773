"""What was installed is what was meant: version, types, entry point, and the compiled engine or the interpreted one."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import os
from pathlib import Path

import pytest

import utcp

PACKAGES = ("utcp.wire", "utcp.core")


def engine_modules() -> list[str]:
    """The modules that the compiled build compiles, by name."""
    found = []
    for package in PACKAGES:
        folder = Path(str(importlib.resources.files(package)))
        found += [f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return found


def is_compiled(module: str) -> bool:
    file = importlib.import_module(module).__file__
    assert file is not None
    return not file.endswith(".py")


def test_version_is_the_distributions() -> None:
    assert utcp.__version__ == importlib.metadata.version("asyncio-utcp")


def test_package_is_typed() -> None:
    assert importlib.resources.files("utcp").joinpath("py.typed").is_file()


def test_command_is_installed() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="utcp")
    assert [callable(script.load()) for script in scripts] == [True]


def test_no_compiler_is_needed_at_run_time() -> None:
    requirements = importlib.metadata.requires("asyncio-utcp") or []
    assert [r for r in requirements if "extra" not in r and r.lower().startswith("mypy[")] == []


@pytest.mark.parametrize("module", engine_modules())
def test_compiled_flag_tells_how_each_module_runs(module: str) -> None:
    assert is_compiled(module) == utcp.__compiled__


@pytest.mark.skipif(
    "UTCP_EXPECT_COMPILED" not in os.environ, reason="UTCP_EXPECT_COMPILED does not say which build is meant"
)
def test_the_build_under_test_is_the_one_meant() -> None:
    assert utcp.__compiled__ == (os.environ["UTCP_EXPECT_COMPILED"] == "1")
