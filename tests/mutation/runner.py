"""Runs tests on faults: pytest collects once, each fault gets a forked process of its own.

Nothing is written into the tree, and no process has seen another one's fault.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import pytest
from _pytest.runner import runtestprotocol

from .faults import TARGETS, Fault, source_of
from .patch import apply, watch

# These decide last
SLOW: Final = (
    "tests/sim/",
    "tests/exhaustive/",
    "tests/core/test_memory.py",
    "tests/core/test_random_lives.py",
    "tests/core/test_many_lives.py",
    "tests/core/test_lossy_lifecycle.py",
    "tests/core/test_any_life.py",
    "tests/core/test_any_input.py",
    "tests/core/test_hashing.py",
    "tests/core/test_congestion",
    "TestWheelMachine",
    "TestTableMachine",
    "test_nothing_leaks",
    "test_memory_",
    "test_many_expire_together",
    "test_a_few_long_lived",
)
_PATIENCE: Final = 300.0  # seconds of processor time for a test without a fault
_MEMORY: Final = 4 << 30  # bytes of address space: a fault may well allocate without end
_WALL: Final = 3600  # seconds; a process that sleeps uses no processor time


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: "killed", "timeout" or "survived", and by which test."""

    fault: Fault
    outcome: str
    test: str


@dataclass
class _Tests:
    """The tests, and which statements each of them reaches."""

    items: list[pytest.Item]
    seconds: dict[int, float] = field(default_factory=dict)  # by those that pass without a fault
    reached: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    killers: dict[tuple[str, str], list[int]] = field(default_factory=dict)  # of a function's faults, so far

    def is_slow(self, number: int) -> bool:
        return any(part in self.items[number].nodeid for part in SLOW)

    def order_for(self, fault: Fault) -> list[int]:
        """Those that reach the fault: what killed its neighbours first, then the quick ones, of each file in turn."""
        reaching = self.reached.get((fault.file, fault.statement), []) if fault.function else list(self.seconds)
        using = self._using(fault) if not fault.function else set()
        killers = self.killers.get((fault.file, fault.function), [])
        ranks: Counter[Path] = Counter()
        order: list[tuple[bool, bool, bool, int, float, int]] = []
        for number in sorted(reaching, key=lambda number: self.seconds[number]):
            file = self.items[number].path
            ranks[file] += 1
            first = number not in killers, number not in using
            order.append((self.is_slow(number), *first, ranks[file], self.seconds[number], number))
        return [number for *_, number in sorted(order)]

    def _using(self, fault: Fault) -> set[int]:
        """Those that reach a statement which names what a statement of the module defines."""
        lines = {file: source_of(file).decode().splitlines() for file in TARGETS}
        name = lines[fault.file][fault.statement - 1].split(":")[0].split(" ")[0]
        return {
            number
            for (file, line), numbers in self.reached.items()
            if name in lines[file][line - 1]
            for number in numbers
        }


class Plugin:
    """Takes the place of pytest's own loop over the tests."""

    def __init__(self, faults: list[Fault], jobs: int, quick: int | None, report: Callable[[Verdict], None]) -> None:
        self.faults = faults
        self.jobs = jobs
        self.quick = quick
        self.report = report
        self.failure = ""

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        # pytest-timeout is off: it looks at the clock, and a busy machine is no fault
        parser.addini("timeout", "unused")
        parser.addini("timeout_method", "unused")

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        import hypothesis  # pytest wants to be first

        config.addinivalue_line("markers", "timeout: unused")
        phases = (
            hypothesis.Phase.explicit,
            hypothesis.Phase.generate,
        )  # a fault need not be shown by its smallest example
        hypothesis.settings.register_profile(
            "mutation", deadline=None, derandomize=True, database=None, phases=phases, max_examples=100
        )
        hypothesis.settings.load_profile("mutation")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            self.failure = "the tests cannot be collected"
            return True
        tests = _Tests(session.items)
        self._record(tests)
        if not tests.seconds:
            self.failure = "no test passes without a fault"
            return True
        gc.collect()
        gc.freeze()  # or every child would look through all of it, and copy it
        for verdict in self._verdicts(tests):
            self.report(verdict)
        return True

    def _record(self, tests: _Tests) -> None:
        """Which statements each test reaches, and how long it takes without a fault."""
        chosen = [i for i in range(len(tests.items)) if self.quick is None or not tests.is_slow(i)]
        shares = [chosen[number :: self.jobs] for number in range(self.jobs)]
        for process in [_fork(partial(_record, tests.items, share)) for share in shares]:
            status, messages = process.wait()
            if status != 0:
                print(f"a process died without any fault, in the test after {messages[-1:]}", file=sys.stderr)
            for number, seconds, reached in messages:
                if reached is None:
                    print(f"left out, fails without any fault: {tests.items[number].nodeid}", file=sys.stderr)
                    continue
                tests.seconds[number] = seconds
                for place in reached:
                    tests.reached.setdefault(place, []).append(number)

    def _verdicts(self, tests: _Tests) -> Iterator[Verdict]:
        todo = list(reversed(self.faults))
        running: dict[int, tuple[Fault, _Process]] = {}
        while todo or running:
            while todo and len(running) < self.jobs:
                fault = todo.pop()
                order = tests.order_for(fault)[: self.quick]
                process = _fork(partial(_judge, fault, tests, order))
                running[process.pid] = fault, process
            pid, status = os.waitpid(-1, 0)
            fault, process = running.pop(pid)
            messages = process.messages()
            last = tests.items[messages[-1]].nodeid if messages else ""
            if status and messages:
                tests.killers.setdefault((fault.file, fault.function), []).append(messages[-1])
            if os.WIFSIGNALED(status):
                yield Verdict(fault, "timeout", last)
            elif (code := os.waitstatus_to_exitcode(status)) in (0, 1):
                yield Verdict(fault, "killed" if code else "survived", last if code else "")
            else:
                self.failure = f"no verdict, the runner itself failed on\n{fault.key}"


def run(tests: list[str], faults: list[Fault], jobs: int, quick: int | None, report: Callable[[Verdict], None]) -> str:
    """Reports a verdict on every fault as it is found. Returns why that was not possible, "" if it was."""
    plugin = Plugin(faults, jobs, quick, report)
    options = [
        "-q",
        "-q",
        "-s",
        "-p",
        "no:timeout",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:faulthandler",
    ]
    os.environ.pop("PYTEST_ADDOPTS", None)  # the runner is its own parallel execution
    status = pytest.main([*options, *tests], plugins=[plugin])
    return plugin.failure or ("" if status == pytest.ExitCode.OK else f"pytest ended with {status!r}")


def _judge(fault: Fault, tests: _Tests, order: list[int], send: Callable[[Any], None]) -> int:
    apply(fault)
    parent = os.getppid()
    for number in order:
        if os.getppid() != parent:
            return 2  # nobody wants to know any more
        send(number)
        if not _passes(tests.items[number], 0.5 + 10 * tests.seconds[number]):
            return 1
    return 0


def _record(items: list[pytest.Item], share: list[int], send: Callable[[Any], None]) -> int:
    reached: set[tuple[str, int]] = set()
    for file in TARGETS:
        watch(file, reached)
    for number in share:
        reached.clear()
        start = time.process_time()
        passed = _passes(items[number], _PATIENCE)
        send((number, time.process_time() - start, set(reached) if passed else None))
    return 0


def _passes(item: pytest.Item, limit: float) -> bool:
    signal.setitimer(signal.ITIMER_PROF, limit)  # the signal ends the process
    reports = runtestprotocol(item, log=False, nextitem=None)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return not any(report.failed for report in reports)


class _Process:
    """A forked process and what it has to say, in a file that both have open."""

    def __init__(self, pid: int, file: BinaryIO) -> None:
        self.pid = pid
        self._file = file

    def wait(self) -> tuple[int, list[Any]]:
        _, status = os.waitpid(self.pid, 0)
        return status, self.messages()

    def messages(self) -> list[Any]:
        found = []
        with self._file as file:
            file.seek(0)
            try:
                while True:
                    found.append(pickle.load(file))
            except EOFError:
                return found


def _fork(work: Callable[[Callable[[Any], None]], int]) -> _Process:
    file = cast("BinaryIO", tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - closed when it is read
    pid = os.fork()
    if pid:
        return _Process(pid, file)
    status = 2
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.alarm(_WALL)
        status = work(partial(_send, file))
    finally:
        os._exit(status)


def _send(file: BinaryIO, message: Any) -> None:
    file.write(pickle.dumps(message))
