"""Imports only point down, and the engine has no clock, no I/O and no randomness of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import utcp

ROOT = Path(utcp.__file__).parent

# The layers, lowest first. Those on one level may know each other.
LEVELS = {"wire": 0, "core": 1, "aio": 2, "sim": 2, "trace": 2, "check": 2, "gateway": 3, "contrib": 3, "cli": 4}

# What the sans-IO layers must not use: the caller owns clock, sockets, loop, log and randomness.
FORBIDDEN_BELOW_AIO = {
    *("asyncio", "select", "selectors", "socket", "ssl", "subprocess", "threading", "multiprocessing", "signal"),
    *("time", "datetime", "random", "secrets", "logging", "structlog", "rich", "uvloop", "sys", "io", "pathlib"),
}


def imports(tree: ast.AST) -> Iterator[str]:
    """Absolute dotted names of everything imported anywhere in a module, ``if TYPE_CHECKING`` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            else:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(source: str, layer: str) -> list[str]:
    tree = ast.parse(source)
    found = []
    for name in imports(tree):
        top, _, rest = name.partition(".")
        if name.startswith("."):
            found.append(f"relative import {name}")
        elif top == "utcp":
            target = rest.partition(".")[0]
            if target in LEVELS and LEVELS[target] > LEVELS[layer]:
                found.append(f"{layer} imports {name}, which is above it")
        elif LEVELS[layer] < LEVELS["aio"]:
            if top in FORBIDDEN_BELOW_AIO:
                found.append(f"{layer} imports {name}")
            elif top == "os" and name not in ("os", "os.urandom"):
                found.append(f"{layer} imports {name}; only os.urandom is allowed, for a default secret")
    if LEVELS[layer] < LEVELS["aio"]:
        found += [
            f"{layer} uses os.{node.attr}; only os.urandom is allowed, for a default secret"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and node.attr != "urandom"
        ]
    return found


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/**/*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_module_imports_only_what_its_layer_may(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    assert layer in LEVELS, f"{layer} is a new layer: give it a level"
    assert violations(path.read_text(), layer) == []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("wire", "import utcp.core.states"),
        ("wire", "from utcp.core import states"),
        ("core", "from utcp.aio.endpoint import Endpoint"),
        ("core", "from utcp import aio"),
        ("core", "def f():\n    import time"),
        ("core", "from asyncio import Future"),
        ("core", "import os\nos.getpid()"),
        ("core", "from os import environ"),
        ("core", "from .states import State"),
        ("aio", "import utcp.cli.main"),
        ("sim", "from utcp.gateway import tun"),
    ],
)
def test_a_violation_is_seen(layer: str, source: str) -> None:
    assert violations(source, layer) != []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("core", "import errno\nfrom os import urandom\nfrom utcp.wire import seq\nfrom librt.vecs import vec"),
        ("core", "import os\nos.urandom(16)"),
        ("trace", "import time\nfrom utcp.aio.endpoint import Endpoint"),
        ("cli", "from utcp.gateway import tun"),
    ],
)
def test_what_is_allowed_passes(layer: str, source: str) -> None:
    assert violations(source, layer) == []
