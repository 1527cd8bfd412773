"""utcp interpreted although it is installed compiled: its modules are imported from their .py files.

A wheel of the compiled build has both, side by side, so that one installation shows what compiling is worth.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType


class Sources(MetaPathFinder):
    """Finds modules inside of utcp's packages by their .py files alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package.partition(".")[0] != "utcp":
            return None
        files = [Path(folder, f"{name}.py") for folder in path or ()]
        return next((spec_from_file_location(fullname, file) for file in files if file.is_file()), None)


def use_sources() -> None:
    """From now on. RuntimeError if it is too late."""
    if "utcp" in sys.modules:
        raise RuntimeError("utcp is imported already")
    sys.meta_path.insert(0, Sources())
