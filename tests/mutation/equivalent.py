"""Faults that no test can kill, each with the reason, from equivalent.txt beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .faults import Fault

LIST: Final = Path(__file__).with_name("equivalent.txt")


def equivalents(faults: list[Fault], text: str | None = None) -> tuple[dict[str, str], list[str]]:
    """The reasons by the faults' keys, and what in the list is stale: no such fault, or no reason."""
    keys = {fault.key for fault in faults}
    reasons: dict[str, str] = {}
    stale: list[str] = []
    for block in (LIST.read_text() if text is None else text).split("\n\n"):
        lines = block.strip().splitlines()
        comment = " ".join(line[1:].strip() for line in lines if line.startswith("#"))
        key = "\n".join(line for line in lines if not line.startswith("#"))
        if not key:
            continue  # the head of the file
        if comment and key in keys and key not in reasons:
            reasons[key] = comment
        else:
            stale.append(key)
    return reasons, stale
