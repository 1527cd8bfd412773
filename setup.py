"""The compiled build: mypyc turns the engine, from the same typed Python, into one group of extension modules.

Everything else about the distribution is in pyproject.toml. ``UTCP_MYPYC=1`` forces compilation (no compiler,
or a type error, fails the build), ``UTCP_MYPYC=0`` forbids it; otherwise what can be compiled is, and what
cannot stays Python.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Compiled as a whole: the layers that do no I/O
COMPILED_PACKAGES = ("utcp/wire", "utcp/core", "utcp/core/congestion")
# Modules of those packages that stay Python: a compiled dataclass has no docstring, its errors do not name the field;
# the others are for Python that is interpreted
INTERPRETED = (
    "utcp/core/config.py",
    "utcp/core/interpreted.py",
    "utcp/core/interpreted_time_wait.py",
    "utcp/wire/interpreted.py",
)
# Modules outside of them that are hot
HOT = ("utcp/aio/channel.py", "utcp/aio/datagrams.py", "utcp/aio/pump.py")

MODE = os.environ.get("UTCP_MYPYC", "auto")
OPT_LEVEL = os.environ.get("UTCP_OPT_LEVEL", "3")  # gcc's: 0 compiles in half the time, for tests alone
# Nobody replaces a function of the group, so the C compiler may call its functions directly, and inline them: else each
# call goes through the linker's tables, which is a tenth of a lifecycle's instructions in the engine.
C_FLAGS = ["-fno-semantic-interposition", "-fvisibility=hidden", "-fno-plt"] if sys.platform == "linux" else []
# The in-tree backend sets this: setup.py is also run to ask for build requirements, before mypy is there.
BUILDING = "_UTCP_BUILDING" in os.environ


def compiled_modules() -> list[str]:
    """The files that make up the compiled group. Packages' ``__init__`` files hold no code worth it."""
    found = [path.as_posix() for package in COMPILED_PACKAGES for path in sorted(Path(package).glob("*.py"))]
    return [path for path in found if not path.endswith("__init__.py") and path not in INTERPRETED] + list(HOT)


def extensions() -> list[Extension]:
    if MODE == "0":
        return []
    try:
        from mypyc.build import mypycify  # here only if the backend asked for it
    except ImportError as error:
        return _without_compiler(error)
    try:
        # CI holds all code to the strict settings in pyproject.toml; a build, by whatever mypy, looks only at what it
        # compiles: utcp/__init__ imports everything, and the build environment has no uvloop, structlog or rich.
        arguments = ["--config-file=", "--follow-imports=silent", *compiled_modules()]
        found = cast("list[Extension]", mypycify(arguments, opt_level=OPT_LEVEL, group_name="utcp"))
    except SystemExit as error:  # mypyc reports type errors on stderr and exits
        return _without_compiler(error)
    for extension in found:
        extension.extra_compile_args = [*extension.extra_compile_args, *C_FLAGS]  # they share one list
    return found


def _without_compiler(error: BaseException) -> list[Extension]:
    if MODE == "1" and BUILDING:
        raise RuntimeError(f"UTCP_MYPYC=1, and mypyc cannot compile: {error!r}") from error
    if BUILDING:
        print(f"utcp: building without the compiled engine ({error!r})", file=sys.stderr)
    return []


class BuildAllOrNothing(build_ext):
    """A group of modules shares one library: if a single one fails to compile, none may be installed."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # distutils raises many kinds: CompileError, LinkError, PlatformError, ...
            if MODE == "1":
                raise
            print(f"utcp: building without the compiled engine ({error!r})", file=sys.stderr)
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildAllOrNothing})
