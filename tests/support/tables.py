"""The two tables of the documentation that lead from a requirement to the tests that prove it.

    python -m tests.support.tables --write

writes docs/teardown.md and docs/conformance.md from the rows kept by hand beside this file and from the tests' source.
A test belongs to a row when its name has the row's id (``test_N_01_...``, ``..._MUST_28_...``) or the row names it.

A rows file is the head of the page, then sections of rows; what is indented belongs to the row above it:

    ## A section
    N-01 | What must hold
        test: test_something_else_that_shows_it
        deviation: what is done instead, and why
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
DOCS: Final = TESTS.parent / "docs"
PAGES: Final = {
    DOCS / "teardown.md": TESTS / "support" / "teardown_rows.txt",
    DOCS / "conformance.md": TESTS / "support" / "conformance_rows.txt",
}
_NOTICE: Final = "<!-- Written by `python -m tests.support.tables --write`; do not edit. -->"
_CASE: Final = re.compile(r"(?<=_)([NOHRCTX])_(\d\d)(?=_|$)")
_REQUIREMENT: Final = re.compile(r"(?<=_)(MUST|SHLD|MAY|REC)((?:_\d+)+)(?=_|$)")
# What a row may say beside its tests. The first three stand in for a test.
_REASONS: Final = {"deviation": "Deviation", "missing": "Not implemented", "outside": "Does not apply", "note": "Note"}


@dataclass
class Row:
    """``cells``: the id, for a requirement its level, the text."""

    cells: list[str]
    tests: list[str] = field(default_factory=list)  # as the row names them
    reasons: list[tuple[str, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.cells[0]

    def excused(self) -> bool:
        return any(kind != "note" for kind, _ in self.reasons)


@dataclass
class Section:
    title: str
    text: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


@dataclass
class Page:
    head: str
    sections: list[Section]

    def rows(self) -> Iterator[Row]:
        return (row for section in self.sections for row in section.rows)


def load(path: Path) -> Page:
    """Read a rows file. Raises ValueError for a line that is none of what it may be."""
    head: list[str] = []
    sections: list[Section] = []
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            sections.append(Section(line))
        elif not sections:
            head.append(line)
        elif line.startswith("    "):
            kind, _, text = line.strip().partition(": ")
            row = sections[-1].rows[-1]
            if kind == "test":
                row.tests.append(text)
            elif kind in _REASONS:
                row.reasons.append((kind, text))
            else:
                raise ValueError(f"{path.name}: {line!r}")
        elif " | " in line:
            sections[-1].rows.append(Row(line.split(" | ")))
        elif line:
            sections[-1].text.append(line)
    return Page("\n".join(head).strip(), sections)


def collect() -> list[str]:
    """Every test there is, as ``core/test_rst.py::TestHandshake::test_R_07_...``."""
    found: list[str] = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in _names(ast.parse(path.read_text()).body):
            found.append(f"{path.relative_to(TESTS).as_posix()}::{name}")
    return found


def _names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _names(node.body, f"{prefix}{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield prefix + node.name


@cache
def ids_in(test: str) -> frozenset[str]:
    """The ids of rows that a test's name carries."""
    name = test.rpartition("::")[2]
    cases = [f"{letter}-{number}" for letter, number in _CASE.findall(name)]
    for level, numbers in _REQUIREMENT.findall(name):
        cases += [f"{level}-{number}" for number in numbers[1:].split("_")]
    return frozenset(cases)


def resolve(reference: str, tests: list[str]) -> list[str]:
    """What a row means by a name: one test, or those of one class. Without a file it is one of tests/core.

    Raises LookupError when there is no such test, or more than one.
    """
    candidates = tests if "/" in reference else [test for test in tests if test.startswith("core/")]
    found = [test for test in candidates if f"::{reference}::" in f"::{test}::"]
    owners = {test.partition(reference)[0] for test in found}
    if len(owners) != 1:
        raise LookupError(f"{reference}: {'no such test' if not found else f'one of {found}?'}")
    return found


def proofs(row: Row, tests: list[str]) -> list[str]:
    """The tests of a row, those that carry its id first."""
    named = [test for test in tests if row.id in ids_in(test)]
    for reference in row.tests:
        named += [test for test in resolve(reference, tests) if test not in named]
    return named


def render(page: Page, tests: list[str]) -> str:
    rows = list(page.rows())
    proven = {row.id: proofs(row, tests) for row in rows}
    excuses = [{kind for kind, _ in row.reasons} for row in rows]
    summary = (
        f"{len(rows)} rows; {sum(map(bool, proven.values()))} of them are proven by "
        f"{len({test for found in proven.values() for test in found})} tests (most run with many parameters), "
        f"{sum('deviation' in kinds for kinds in excuses)} have a stated deviation, "
        f"{sum('missing' in kinds for kinds in excuses)} are not implemented and "
        f"{sum('outside' in kinds for kinds in excuses)} do not apply."
    )
    parts = [_NOTICE, page.head, summary]
    for section in page.sections:
        parts += [section.title, *section.text]
        columns = ["id", "level", "requirement"] if len(section.rows[0].cells) == 3 else ["id", "case"]
        lines = [f"| {' | '.join([*columns, 'proven by'])} |", "|---" * (len(columns) + 1) + "|"]
        lines += [f"| {' | '.join([*row.cells, _proof_cell(row, proven[row.id])])} |" for row in section.rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _proof_cell(row: Row, tests: list[str]) -> str:
    links = [f"[{test.rpartition('::')[2]}](../tests/{test.partition('::')[0]})" for test in tests]
    return "<br>".join(links + [f"*{_REASONS[kind]}:* {text}" for kind, text in row.reasons])


def main() -> int:
    tests = collect()
    stale = [page for page, rows in PAGES.items() if _text(page) != render(load(rows), tests)]
    for page in stale:
        if "--write" in sys.argv[1:]:
            page.write_text(render(load(PAGES[page]), tests))
        print(page.name, "written" if "--write" in sys.argv[1:] else "is out of date: --write")
    return 0 if not stale or "--write" in sys.argv[1:] else 1


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
