"""docs/teardown.md and docs/conformance.md: every row is proven or excused, and the pages are up to date."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from support.tables import PAGES, Page, collect, ids_in, load, proofs, render, resolve

TESTS = collect()
ALL = {path.stem: (path, load(rows)) for path, rows in PAGES.items()}
ROWS = [row for _, page in ALL.values() for row in page.rows()]


def test_every_row_has_a_test_or_says_why_not() -> None:
    assert [row.id for row in ROWS if not proofs(row, TESTS) and not row.excused()] == []


def test_what_is_not_implemented_or_does_not_apply_is_not_proven_either() -> None:
    absent = [row for row in ROWS if any(kind in ("missing", "outside") for kind, _ in row.reasons)]
    assert [row.id for row in absent if proofs(row, TESTS)] == []


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_up_to_date(name: str) -> None:
    path, page = ALL[name]
    assert path.read_text() == render(page, TESTS), "python -m tests.support.tables --write"


def test_no_id_is_there_twice() -> None:
    assert [row_id for row_id, times in Counter(row.id for row in ROWS).items() if times > 1] == []


def test_every_id_in_the_name_of_a_test_is_one_of_a_row() -> None:
    known = {row.id for row in ROWS}
    assert {test: ids_in(test) - known for test in TESTS if ids_in(test) - known} == {}


def test_no_row_names_a_test_that_it_has_anyway() -> None:
    for row in ROWS:
        named = [test for reference in row.tests for test in resolve(reference, TESTS)]
        assert [test for test in named if row.id in ids_in(test)] == [], row.id
        assert len(named) == len(set(named)), row.id


SOME = [
    "core/a.py::test_N_01_x",
    "core/a.py::TestB::test_y",
    "core/c.py::test_z",
    "core/d.py::test_z",
    "aio/e.py::test_w",
]


class TestFaults:
    """What the checks above are for, on rows of their own."""

    def test_ids_in_names(self) -> None:
        assert ids_in("a.py::T::test_T_02_T_03_others") == {"T-02", "T-03"}
        assert ids_in("a.py::test_MUST_58_59_ten_and_SHLD_1") == {"MUST-58", "MUST-59", "SHLD-1"}
        assert ids_in("a.py::test_RTT_02_MUST_be_X_1") == set()

    def test_a_row_without_a_test(self, tmp_path: Path) -> None:
        page = self.page(tmp_path, "N-02 | nothing\n    note: a note is no excuse\nN-03 | x\n    deviation: because")
        first, second = page.rows()
        assert (proofs(first, SOME), first.excused(), second.excused()) == ([], False, True)

    @pytest.mark.parametrize("reference", ["test_w", "test_z", "TestC", "est_y"])
    def test_a_name_that_means_no_test_or_several(self, reference: str) -> None:
        with pytest.raises(LookupError, match=reference):
            resolve(reference, SOME)

    @pytest.mark.parametrize("reference", ["test_y", "TestB", "TestB::test_y", "core/a.py::TestB::test_y"])
    def test_a_name_that_means_one(self, reference: str) -> None:
        assert resolve(reference, SOME) == ["core/a.py::TestB::test_y"]

    def test_a_line_that_is_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="tset"):
            self.page(tmp_path, "N-01 | x\n    tset: test_z")

    @staticmethod
    def page(folder: Path, rows: str) -> Page:
        path = folder / "rows.txt"
        path.write_text(f"# Head\n\n## Section\n\n{rows}\n")
        return load(path)
