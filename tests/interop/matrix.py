"""The interop matrix: what each row saw, and the page of the documentation that says so.

Every row compares its own line with the page, so that the page cannot be stale while the rows pass.
``pytest tests/interop --write-matrix`` writes it anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from utcp.core.states import State

PAGE: Final = Path(__file__).parents[2] / "docs" / "interop.md"
WAIT_S: Final = 8.0
# What ss(8) shows of a connection the kernel no longer has
GONE: Final = "-"

_SECTIONS: Final = (
    "Opening",
    "Options",
    "Closing",
    "Losses while closing",
    "Closing with unread data, and at once",
    "Orphans",
    "TIME-WAIT and port reuse",
    "RST from the kernel",
    "RST from utcp",
    "Forged segments (RFC 5961)",
    "Closed windows",
    "Urgent data",
    "Keepalive and user timeout",
    "Loss recovery",
    "Congestion control",
    "ECN",
    "Bad networks",
    "Many connections",
    "Programs",
)
_SIDES: Final = ("utcp", "kernel")
_EITHER: Final = "either"
_TABLE_HEAD: Final = "| row | opened by | utcp / kernel | checked |\n|---|---|---|---|"

_HEAD: Final = """\
# Interoperation with Linux

The kernel's TCP on the other end of a utcp engine, through the [gateway](gateway.md), in a network namespace of its
own: `pytest tests/interop` (as root, on Linux). Every row is a test that passed; `--write-matrix` writes this page,
and a row fails when its line here is out of date.

The trail is what both sides were seen in, in that order, at the same time: utcp's state by the engine, the kernel's by
`ss -tan` (`-`: it has no such socket any more). *Opened by* tells who sent the SYN; *either* means two
tests with the same outcome. The kernel uses Reno unless a row says otherwise.
"""


@dataclass
class Row:
    """One line of the matrix, filled in while its test runs."""

    section: str
    title: str
    opened_by: str
    trail: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self, utcp_state: Callable[[], State], kernel_state: Callable[[], str], utcp: State, kernel: str) -> None:
        """Wait until both sides are in these states at once, and add them to the trail."""
        deadline = time.monotonic() + WAIT_S
        while True:
            seen = (utcp_state(), kernel_state() or GONE)
            if seen == (utcp, kernel) and utcp_state() is utcp:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"utcp, kernel: {seen[0]}, {seen[1]}; expected {utcp}, {kernel}")
            time.sleep(0.005)
        self.trail.append(f"{utcp} / {kernel}")

    def note(self, text: str) -> None:
        """A fact that the test has checked."""
        self.notes.append(text)

    def line(self, opened_by: str | None = None) -> str:
        trail = " → ".join(self.trail)
        return f"| {self.title} | {opened_by or self.opened_by} | {trail} | {'; '.join(self.notes)} |"


def render(rows: Sequence[Row]) -> str:
    """The whole page. Rows that differ in nothing but the opener are one line."""
    lines = {section: list[str]() for section in _SECTIONS}
    every = {row.line() for row in rows}
    for row in rows:
        either = all(row.line(side) in every for side in _SIDES)
        line = row.line(_EITHER if either else None)
        if line not in lines[row.section]:
            lines[row.section].append(line)
    tables = [f"## {title}\n\n{_TABLE_HEAD}\n" + "\n".join(section) + "\n" for title, section in lines.items()]
    return "\n".join([_HEAD, *tables])


def is_current(row: Row) -> bool:
    """Whether the page has this row as it is."""
    page = PAGE.read_text().splitlines() if PAGE.exists() else []
    return row.line() in page or (row.opened_by in _SIDES and row.line(_EITHER) in page)


def titles() -> list[tuple[str, str]]:
    """(title, opened by) of the page's rows."""
    page = PAGE.read_text().splitlines() if PAGE.exists() else []
    cells = [[cell.strip() for cell in line.split("|")] for line in page if line.startswith("| ")]
    rows = [(title, opened_by) for _, title, opened_by, *_ in cells if title != "row"]
    return [(title, side) for title, by in rows for side in (_SIDES if by == _EITHER else (by,))]
