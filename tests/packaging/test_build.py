"""What was installed is what was meant: version, types, entry point, and the compiled engine or the interpreted one."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.resources
import os
from pathlib import Path

import pytest

import utcp

SETUP = Path(__file__).parents[2] / "setup.py"


def listed(name: str) -> tuple[str, ...]:
    """A list in setup.py, as module or package names."""
    for node in ast.parse(SETUP.read_text()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == name:
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            return tuple(path.removesuffix(".py").replace("/", ".") for path in ast.literal_eval(node.value))
    raise LookupError(name)


def compiled_modules() -> list[str]:
    """What the compiled build compiles, by name, as it is installed."""
    found = []
    for package in listed("COMPILED_PACKAGES"):
        folder = Path(str(importlib.resources.files(package)))
        found += [f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return [module for module in found if module not in listed("INTERPRETED")] + list(listed("HOT"))


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


def test_what_stays_python_does() -> None:
    assert [module for module in listed("INTERPRETED") if is_compiled(module)] == []


@pytest.mark.parametrize("module", compiled_modules())
def test_compiled_flag_tells_how_each_module_runs(module: str) -> None:
    assert is_compiled(module) == utcp.__compiled__


def test_the_build_under_test_is_the_one_meant() -> None:
    """CI sets UTCP_EXPECT_COMPILED, so that a build that fell back to Python does not pass for the compiled one."""
    expected = os.environ.get("UTCP_EXPECT_COMPILED")
    assert expected in (None, "1" if utcp.__compiled__ else "0")
