"""docs/lessons.md: every row leads somewhere, to a test that there is or to a sentence that stands in the docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from support.tables import DOCS, TESTS, collect

PAGE: Final = (DOCS / "lessons.md").read_text()
LINK: Final = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def broken(page: str) -> list[str]:
    """The links that point nowhere."""
    tests = {(test.partition("::")[0], test.rpartition("::")[2]) for test in collect()}
    found = []
    for text, target in LINK.findall(page):
        path = (DOCS / target).resolve()
        if path.is_relative_to(TESTS):
            there = (path.relative_to(TESTS).as_posix(), text) in tests
        else:
            there = path.is_file() and plain(text) in plain(path.read_text())
        if not there:
            found.append(f"[{text}]({target})")
    return found


def plain(text: str) -> str:
    """Without regard to line breaks and to the case of the first letter."""
    return " ".join(text.split()).lower()


def rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| complaint")]


def test_every_link_leads_somewhere() -> None:
    assert broken(PAGE) == []


def test_every_row_has_one() -> None:
    assert [row for row in rows(PAGE) if not LINK.search(row)] == []
    assert len(rows(PAGE)) == 34


def test_a_broken_link_is_found() -> None:
    page = (
        "| x | [test_half_close_leaves_the_other_direction](../tests/contract/test_closing.py) |\n"
        "| x | [The ways to close](closing.md) |\n"
        "| x | [test_no_such](../tests/contract/test_closing.py) [Nothing like that](closing.md) [x](nowhere.md) |\n"
        "| x | [test_abort](../tests/aio/test_closing.py) |\n"
    )
    assert broken(page) == [
        "[test_no_such](../tests/contract/test_closing.py)",
        "[Nothing like that](closing.md)",
        "[x](nowhere.md)",
        "[test_abort](../tests/aio/test_closing.py)",
    ]


def test_the_readme_leads_to_the_page() -> None:
    assert "(docs/lessons.md)" in (Path(DOCS).parent / "README.md").read_text()
