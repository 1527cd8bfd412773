"""Fixtures of the interop suite: a namespace with a gateway for each module, and the matrix."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from interop.losses import slow_path
from interop.matrix import PAGE, Row, is_current, render, titles
from interop.namespace import private_namespace, require_tun
from interop.net import Net

_ROWS = pytest.StashKey[list[Row]]()
_PASSED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-matrix", action="store_true", help="write docs/interop.md from the rows that ran")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(section, title, opened_by): a row of docs/interop.md")
    config.stash[_ROWS] = list[Row]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_PASSED] = item.stash.get(_PASSED, True) and report.passed
    return report


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """A namespace of the module's own, with a gateway in it. Skips where the system does not allow it."""
    require_tun()
    with private_namespace():
        net = Net()
        try:
            yield net
        finally:
            net.close()


@pytest.fixture
def slow(net: Net) -> Iterator[Net]:
    """The same, its path taking a while, and patient."""
    with slow_path(net):
        yield net


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """The test's row of the matrix: its words are those of the ``row`` marker, parameters filled in."""
    row = row_of(request.node)
    request.config.stash[_ROWS].append(row)
    yield row
    if request.node.stash.get(_PASSED, False) and not _writing(request.config):
        assert is_current(row), f"docs/interop.md is out of date (--write-matrix writes it): {row.line()}"


class Listing(NamedTuple):
    listed: list[tuple[str, str]]
    collected: list[tuple[str, str]]
    complete: bool  # whether this session holds the whole suite


def row_of(item: pytest.Item) -> Row:
    marker = item.get_closest_marker("row")
    assert marker is not None, "a test that uses `row` has a row marker"
    callspec = getattr(item, "callspec", None)
    return Row(*[text.format(**callspec.params if callspec else {}) for text in marker.args])


@pytest.fixture
def listing(request: pytest.FixtureRequest) -> Listing:
    """The rows of the page, and those of this session."""
    rows = [row_of(item) for item in request.session.items if item.get_closest_marker("row")]
    here = Path(__file__).parent
    collected = {item.path for item in request.session.items}
    options = request.config.option
    filtered = options.keyword or options.markexpr or any("::" in arg for arg in request.config.args)
    return Listing(
        listed=titles(),
        collected=[(row.title, row.opened_by) for row in rows],
        complete=not filtered and collected.issuperset(here.glob("test_*.py")),
    )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _writing(session.config) and exitstatus == 0:
        rows = session.config.stash[_ROWS]
        PAGE.write_text(render(rows))


def _writing(config: pytest.Config) -> bool:
    return bool(config.getoption("write_matrix", default=False))
