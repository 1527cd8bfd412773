"""A comparison's measurements in a file, one a line as it is made, so that a run that was ended can be gone on with."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Record:
    """What has been measured, in memory and, if wanted, in a file."""

    path: Path | None
    entries: dict[str, Any] = field(default_factory=dict)

    def load(self, plan: dict[str, Any]) -> None:
        """Begin, or go on with what an earlier run left. Raises ValueError if that was another plan."""
        if self.path is None or not self.path.exists() or not self.path.stat().st_size:
            self.keep("plan", plan)
            self.keep("load", os.getloadavg()[0])
            return
        lines = self.path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # cut short, with the run that wrote it
            self.path.write_text("".join(lines[:-1]))
            lines.pop()
        for entry in map(json.loads, lines):
            self.entries[entry["key"]] = entry["value"]
        for key in [key for key, value in self.entries.items() if isinstance(value, dict) and "failed" in value]:
            del self.entries[key]  # it is tried again
        if self.entries.get("plan") != plan:
            raise ValueError(f"{self.path} is of a run with other options: {self.entries.get('plan')}")

    def keep(self, key: str, value: Any) -> None:
        self.entries[key] = value
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({"key": key, "value": value}) + "\n")
