"""What every test shares: which build is under test, and how hypothesis explores."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis

import utcp.wire.segment

# CI explores the same examples in every run; elsewhere each run looks at new ones, and prints how to repeat a failure
# (``--hypothesis-seed=N`` repeats a whole run). No deadlines: a busy machine is no failure.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "explore")


# Started in the background of a script, this process ignores SIGINT, and so would every program that the tests start
# and end by Ctrl-C. (A handler, unlike the wish to ignore, is not inherited.)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    module = Path(utcp.wire.segment.__file__)
    return f"utcp: {'interpreted' if module.suffix == '.py' else 'compiled'}, {module.parent.parent}"
