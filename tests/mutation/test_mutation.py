"""The mutation check itself: it finds faults where tests are, misses them where none are, and forgets nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import utcp
from mutation.equivalent import LIST, equivalents
from mutation.faults import ROOT, TARGETS, all_faults, faults_of, source_of

pytestmark = pytest.mark.timeout(300)  # seconds of a processor that does nothing else
TIME_WAIT = (
    "tests/core/test_time_wait.py::TestOldSegments::test_T_01_a_repeated_fin_is_acknowledged_and_restarts_the_wait"
)


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.mutation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", TARGETS)
def test_every_fault_is_python_and_changes_what_it_says(file: str) -> None:
    before = source_of(file).decode()
    found = faults_of(file)
    assert len(found) > 10
    assert len({fault.key for fault in found}) == len(found)
    for fault in found:
        after = fault.source()
        compile(after, file, "exec")
        assert after != before
        assert fault.old.split("\n")[0] in before
        assert all(line in after for line in fault.new.split("\n"))


def test_the_faults_are_those_that_were_asked_for() -> None:
    keys = {fault.key for fault in all_faults()}
    assert "closing.py close_sending_side\n- if tcb.fin_queued:\n+ if not (tcb.fin_queued):" in keys
    assert "closing.py on_fin\n- set_state(tcb, CLOSE_WAIT)\n+ set_state(tcb, LAST_ACK)" in keys
    assert "closing.py on_fin\n- tcb.ack_now = True\n+ pass" in keys
    assert "teardown.py enter_time_wait\n- 2 * tcb.policy.msl,\n+ 3 * tcb.policy.msl," in keys
    higher = "higher_seq = seq_g{}(seg.seq, table.rcv_nxt(record))"
    assert f"time_wait.py _opens_anew\n- {higher.format('t')}\n+ {higher.format('e')}" in keys


def test_nothing_listed_as_equivalent_is_stale() -> None:
    _, stale = equivalents(all_faults())
    assert stale == []


def test_an_entry_without_a_fault_or_without_a_reason_is_stale() -> None:
    faults = faults_of("closing.py")
    good = f"{faults[0].key}\n# a reason"
    assert equivalents(faults, good) == ({faults[0].key: "a reason"}, [])
    assert equivalents(faults, faults[0].key) == ({}, [faults[0].key])
    assert equivalents(faults, "closing.py gone\n- a\n+ b\n# why") == ({}, ["closing.py gone\n- a\n+ b"])
    assert LIST.read_text().startswith("#")


@pytest.mark.skipif(utcp.__compiled__, reason="faults are put into Python")
def test_killed_survived_and_resumed(tmp_path: Path) -> None:
    """A few faults and one test, which knows restarted waits and no resets."""
    state = str(tmp_path / "state.jsonl")
    options = (
        "--only",
        "time_wait.py",
        "--only",
        "reset.py",
        "--sample",
        "6",
        "--seed",
        "4",
        "--quick",
        "9",
        "--jobs",
        "2",
    )
    done = check(*options, "--tests", TIME_WAIT, "--state", state)
    assert done.returncode == 1, done.stderr
    total = dict(zip(("faults", "killed", "hung", "equivalent", "survived"), _last_row(done.stdout), strict=True))
    assert total["faults"] == 6
    assert total["killed"] >= 1
    assert total["survived"] >= 1
    assert done.stdout.count("\nSURVIVED utcp/core/") == 2 * total["survived"]
    again = check(*options, "--tests", TIME_WAIT, "--state", state)
    assert "6 faults, 0 to be tried" in again.stdout
    assert _last_row(again.stdout) == _last_row(done.stdout)


@pytest.mark.skipif(utcp.__compiled__, reason="faults are put into Python")
def test_a_test_that_fails_without_a_fault_is_no_verdict(tmp_path: Path) -> None:
    broken = tmp_path / "test_broken.py"
    broken.write_text("def test_broken() -> None:\n    raise AssertionError\n")
    done = check("--sample", "1", "--tests", str(broken), "--state", str(tmp_path / "state.jsonl"))
    assert done.returncode == 2
    assert "left out, fails without any fault" in done.stderr


def _last_row(output: str) -> list[int]:
    return next([int(word) for word in line.split()[1:]] for line in output.splitlines() if line.startswith("all "))
