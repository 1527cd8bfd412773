"""Build backend (PEP 517): setuptools, plus mypy as a build requirement where it can be used.

Without a C compiler, or without Python's headers, ``pip install`` neither downloads mypy nor compiles.
Editable installs stay Python unless UTCP_MYPYC=1: a stale extension module would shadow edits.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

COMPILER_REQUIREMENTS = ["mypy[mypyc]>=2.4"]

Settings = dict[str, Any] | None


def can_compile() -> bool:
    """Whether this is CPython with its headers and a C compiler in reach."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return sys.implementation.name == "cpython" and shutil.which(compiler) is not None and header.exists()


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    mode = os.environ.get("UTCP_MYPYC", "auto")
    wanted = mode == "1" or (mode != "0" and can_compile())
    return build_meta.get_requires_for_build_wheel(config_settings) + (COMPILER_REQUIREMENTS if wanted else [])


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    wanted = os.environ.get("UTCP_MYPYC") == "1"
    return build_meta.get_requires_for_build_editable(config_settings) + (COMPILER_REQUIREMENTS if wanted else [])


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    os.environ["_UTCP_BUILDING"] = "1"
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    os.environ["_UTCP_BUILDING"] = "1"
    os.environ.setdefault("UTCP_MYPYC", "0")
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
