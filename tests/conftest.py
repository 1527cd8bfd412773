"""What every test shares: which build is under test, and how hypothesis explores."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

import utcp
import utcp.wire.segment

if TYPE_CHECKING:
    from support.certificates import Certificates

# CI explores the same examples in every run; elsewhere each run looks at new ones, and prints how to repeat a failure
# (``--hypothesis-seed=N`` repeats a whole run). No deadlines: a busy machine is no failure.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)
hypothesis.settings.register_profile("deep", deadline=None, print_blob=True, max_examples=3000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="run longer: more seeds, more examples, tests that take hours")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "deep: takes hours; only with --deep")
    usual = "ci" if os.environ.get("CI") else "explore"
    hypothesis.settings.load_profile("deep" if config.getoption("--deep") else usual)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--deep"):
        for item in items:
            if "deep" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes hours: --deep"))


# Started in the background of a script, this process ignores SIGINT, and so would every program that the tests start
# and end by Ctrl-C. (A handler, unlike the wish to ignore, is not inherited.)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    module = Path(utcp.wire.segment.__file__)
    return f"utcp: {'interpreted' if module.suffix == '.py' else 'compiled'}, {module.parent.parent}"


@pytest.fixture(scope="session", autouse=True)
def patient_endpoints() -> Iterator[None]:
    """Whatever is written is delivered at the end of an endpoint or a loop, however busy the machine is."""
    before, utcp.Endpoint.shutdown_timeout = utcp.Endpoint.shutdown_timeout, 60.0
    yield
    utcp.Endpoint.shutdown_timeout = before


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    """An authority for tests of TLS, and contexts for both sides."""
    from support.certificates import Certificates

    return Certificates()
