"""The comparison: everyone takes part or is named, runs can be gone on with, and the report says what was measured."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare, idle
from benchmarks.about import about
from benchmarks.contests import AWAITED, EVERYWHERE, MANY, NOT_TCP, PROTOCOL, Contender, Contest, contests
from benchmarks.goals import GOALS, verdicts
from benchmarks.parts import PARTS, run_part
from benchmarks.peers import OTHERS, PEERS, ROOT, Listening
from benchmarks.results import lines, write_results
from benchmarks.run import run_once
from benchmarks.workload import Result, Workload

SHORT = Workload(in_flight=4, seconds=0.3, warmup=0.1, msl=0.1, ports=3)
NOBODY = Contender(name="nobody", peer="nobody", changes={})
PAIR = [one for one in EVERYWHERE if one.name in (PROTOCOL, AWAITED)]


def only(monkeypatch: pytest.MonkeyPatch, contenders: list[Contender]) -> None:
    """Have one short contest."""

    def one(*, quick: bool) -> Iterator[Contest]:
        yield Contest(4, 0, contenders)

    monkeypatch.setattr(compare, "contests", one)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    status = compare.main(["--quick", "--only", "teardown", "--seconds", "0.2", "--json", *arguments])
    out, err = capsys.readouterr()
    return status, json.loads(out), err


def test_medians_and_ratios(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    only(monkeypatch, PAIR)
    status, whole, err = run(capsys, "--rounds", "3")
    assert status == 0
    assert [line.split(": ")[2] for line in err.splitlines()] == [PROTOCOL, AWAITED] * 3
    kernel, ours = whole["contests"][0]["rows"]
    assert (kernel["name"], ours["name"]) == (PROTOCOL, AWAITED)
    for row in (kernel, ours):
        assert len(row["rates"]) == 3
        assert row["rate"] == sorted(row["rates"])[1]
    assert ours["ratio"] == pytest.approx(ours["rate"] / kernel["rate"])
    assert kernel["ratio"] is kernel["utcp_ratio"] is ours["utcp_ratio"] is None
    assert (whole["failed"], whole["left_out"], whole["skipped"]) == ([], 0, {})


def test_what_is_no_tcp_is_compared_with_its_like() -> None:
    rows = {AWAITED: {"rate": 900.0, "against": PROTOCOL}, "qh3": {"rate": 3.0, "against": ""}}
    compare.add_ratios(rows)
    assert (rows["qh3"]["ratio"], rows["qh3"]["utcp_ratio"]) == (None, 300.0)
    assert rows[AWAITED]["ratio"] is None  # who is not there


def test_a_run_is_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    only(monkeypatch, PAIR)
    record = tmp_path / "record.jsonl"
    _, first, _ = run(capsys, "--resume", str(record))
    kept = record.read_text().splitlines(keepends=True)
    record.write_text("".join(kept[:3]) + kept[3][:40])  # as of a run that was ended in the middle of writing
    _, second, err = run(capsys, "--resume", str(record))
    assert PROTOCOL not in err
    assert AWAITED in err
    assert second["contests"][0]["rows"][0]["rates"] == first["contests"][0]["rows"][0]["rates"]
    _, third, err = run(capsys, "--resume", str(record))
    assert err == ""
    assert third["contests"] == second["contests"]
    assert compare.main(["--quick", "--rounds", "2", "--resume", str(record)]) == 2
    assert "other options" in capsys.readouterr().err


def test_what_the_time_does_not_allow_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, PAIR)
    status, whole, _ = run(capsys, "--minutes", "0.000001")
    assert (status, whole["left_out"]) == (1, 2)
    assert whole["contests"][0]["rows"] == []


class Dead:
    """A peer whose processes end at once."""

    name = "dead"

    def server(self, workload: Workload) -> list[str]:
        return ["false"]

    def client(self, workload: Workload, listening: Listening) -> list[str]:
        return ["false"]

    def system_counters(self) -> dict[str, int]:
        return {}


def test_who_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    record = tmp_path / "record.jsonl"
    only(monkeypatch, [NOBODY, *PAIR])
    with monkeypatch.context() as patch:
        patch.setitem(PEERS, "nobody", Dead())
        status, whole, err = run(capsys, "--resume", str(record))
    assert status == 1
    assert "ended early with status 1" in whole["failed"][0]
    assert "FAILED: 4 in flight, 0 bytes | nobody" in err
    assert len(whole["contests"][0]["rows"]) == 2

    monkeypatch.setitem(PEERS, "nobody", PEERS["kernel"])  # it has been mended, and is tried again
    status, whole, err = run(capsys, "--resume", str(record))
    assert (status, whole["failed"], len(err.splitlines())) == (0, [], 1)
    assert len(whole["contests"][0]["rows"]) == 3


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rate": 0.0}, "nothing was completed"),
        ({"errors": 3}, "3 errors"),
        ({"unfinished": 1}, "1 unfinished"),
        ({"pairs_reused": 7}, "7 pairs"),
        ({"client": {"time_wait_after_2msl": 5}}, "5 TIME-WAIT"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_does_not_count(changes: dict[str, Any], why: str) -> None:
    figures: dict[str, Any] = dict.fromkeys(Result.__dataclass_fields__, 0)
    clean = Result(**figures | {"rate": 9.0, "client": {"time_wait_after_2msl": 0}})
    ours = PAIR[1]
    assert compare.fault(ours, clean) == ""
    assert why in compare.fault(ours, replace(clean, **changes))


def row(name: str, *rates: float) -> dict[str, Any]:
    return {"name": name, "rate": sorted(rates)[len(rates) // 2], "rates": list(rates)}


def test_goals() -> None:
    """By the ratio of medians; single rounds go together by their number, as long as none is missing."""
    many = {"in_flight": 512, "payload": 0, "rows": [row(PROTOCOL, 10.0, 20.0, 30.0), row(AWAITED, 50.0, 82.0, 90.0)]}
    one = {"in_flight": 1, "payload": 0, "rows": [row(PROTOCOL, 10.0, 10.0), row(AWAITED, 5.0)]}
    other = {"in_flight": 64, "payload": 64, "rows": [row("aioquic", 1.0), row(AWAITED, 1000.0)]}
    bulk = {"utcp": {"figure": 6.0, "figures": [6.0]}, "kernel": {"figure": 5.0, "figures": [5.0]}}
    found = {goal["workload"]: goal for goal in verdicts([many, one, other], {"throughput": bulk})}
    assert len(found) == len(GOALS) == 9
    awaited, single, quic = (found[name] for name in ("await create_connection", "one at a time", "beside QUIC"))
    assert (awaited["ratio"], awaited["ratios"], awaited["reached"]) == (4.1, [5.0, 4.1, 3.0], "goal")
    assert (single["ratio"], single["ratios"], single["reached"]) == (0.5, [], "MISSED")
    assert (quic["ratio"], quic["reached"]) == (None, "not measured")  # the goal is about lifecycles without payload
    assert (found["bulk"]["ratio"], found["bulk"]["reached"]) == (1.2, "aim")


def test_every_goal_is_measured() -> None:
    for quick in (True, False):
        rows = [
            {"in_flight": one.in_flight, "payload": one.payload, "rows": [row(who.name, 1.0) for who in one.contenders]}
            for one in contests(quick=quick)
        ]
        peers = {name: {"figure": 1.0, "figures": [1.0]} for name in ("utcp", "kernel")}
        assert {goal["ratio"] for goal in verdicts(rows, {"throughput": peers})} == {1.0}


def test_who_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(OTHERS["qh3"], "package", "not_installed_anywhere")
    only(monkeypatch, [one for one in NOT_TCP if one.peer == "qh3"])
    _, whole, err = run(capsys)
    assert "SKIPPED: qh3: qh3 is not installed (pip install '.[bench]')" in err
    assert whole["skipped"].keys() == {"qh3"}


@pytest.mark.parametrize(
    ("contender", "payload"),
    [(one, payload) for one in NOT_TCP for payload in (0, 64) if not payload or one.peer != "aiortc"],
    ids=lambda value: getattr(value, "name", value),
)
async def test_others_complete_lifecycles(contender: Contender, payload: int) -> None:
    if why := contender.missing():
        pytest.skip(f"SKIPPED: {why}")
    outcome = await run_once(replace(SHORT, payload=payload, seconds=1.0, warmup=1.0), contender.machine())
    assert outcome.rate > 0
    assert (outcome.errors, outcome.unfinished) == (0, 0)
    assert outcome.p50_us > 0
    assert outcome.client["version"]


@pytest.mark.parametrize(("api", "connect"), [("protocol", "await"), ("protocol", "direct"), ("streams", "await")])
@pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED: only Linux has all of 127/8")
async def test_many_udp_peers(api: Any, connect: Any) -> None:
    outcome = await run_once(replace(SHORT, udp_peers=7, in_flight=32, api=api, connect=connect), PEERS["utcp"])
    assert outcome.rate > 0
    assert (outcome.errors, outcome.unfinished, outcome.pairs_reused) == (0, 0, 0)
    assert outcome.server["paths"] == 7


async def test_interpreted_beside_compiled() -> None:
    outcome = await run_once(replace(SHORT, interpreted=True), PEERS["utcp"])
    assert outcome.rate > 0
    assert (outcome.client["compiled"], outcome.server["compiled"]) == (False, False)


def test_the_sources_are_taken_though_there_is_something_compiled(tmp_path: Path) -> None:
    package = tmp_path / "utcp"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "engine.py").write_text("NAME = 'source'")
    (package / "engine.abi3.so").write_bytes(b"compiled")
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; from benchmarks.interpreted import use_sources; use_sources(); "
        "from utcp import engine; print(engine.NAME)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path), str(ROOT)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "source\n"


@pytest.mark.parametrize("quick", [True, False])
def test_every_line_has_its_counterpart(quick: bool) -> None:
    for contest in contests(quick=quick):
        names = [contender.name for contender in contest.contenders]
        assert len(set(names)) == len(names)
        for contender in contest.contenders:
            contest.workload(contender, 1.0)
            assert not contender.against or contender.against in names


def test_all_that_is_promised_is_in_the_full_run() -> None:
    found = list(contests(quick=False))
    assert {(one.in_flight, one.payload) for one in found} == {(n, p) for n in (1, 64, 512, 4096) for p in (0, 64)}
    assert all(MANY in one.contenders for one in found if one.in_flight >= 64)
    assert all(NOT_TCP[0] in one.contenders for one in found if one.in_flight == 64)


def test_a_part_that_takes_too_long() -> None:
    with pytest.raises(RuntimeError, match="not finished within 0 s"):
        run_part("live", True, 0.01)


def test_the_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if find_spec("matplotlib") is None:
        pytest.skip("SKIPPED: matplotlib is not installed (pip install '.[bench]')")
    only(monkeypatch, PAIR)
    _, whole, _ = run(capsys)
    write_results(whole, tmp_path / "RESULTS.md", tmp_path / "results")
    report = (tmp_path / "RESULTS.md").read_text()
    for expected in (PROTOCOL, AWAITED, "MSL 0.3 s", "0 TIME-WAIT records after 2MSL", "ephemeral ports", "threshold"):
        assert expected in report
    for expected in ("## Goals", "| not measured |", "## Not like for like", "load average", "(Python's default)"):
        assert expected in report
    assert str(ROOT) not in report
    assert "(results/teardown-0.svg)" in report
    assert (tmp_path / "results" / "teardown-0.svg").stat().st_size < 50_000


def test_a_machine_that_was_not_idle_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, [])
    for load, named in ((7.0, True), (0.1, False)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        _, whole, _ = run(capsys)
        assert ("NOT IDLE" in "\n".join(lines(whole))) == named


def test_plots_that_cannot_be_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        compare.parse(["--write"])
    assert "matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["idle", "capture"])
def test_other_parts_as_they_are_shown(part: str) -> None:
    figures = run_part(part, True, 170)
    header = about([], 0.0)
    whole = {"header": header, "quick": True, "rounds": 1, "contests": [], "skipped": {}, "failed": [], "left_out": 0}
    report = "\n".join(lines({**whole, "goals": verdicts([], {}), "parts": {part: figures}}))
    assert f"## {PARTS[part].title}" in report
    if part == "idle":
        assert [(one["stack"], one["api"]) for one in figures["rows"]] == [
            (stack, api) for stack in ("kernel", "utcp") for api in ("protocol", "streams")
        ]
        assert all(one["connections"] == 500 for one in figures["rows"])
        if sys.platform == "linux":
            assert all(one["process, bytes each"] > 500 for one in figures["rows"])
    else:
        assert f"| complete | {figures['lifecycles']:,} |" in report


def test_a_capture_with_a_gap_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for complete, lifecycles in ((4, 5), (0, 0)):
        printed = json.dumps({"capture": {"lifecycles": lifecycles, "complete": complete}})
        done = subprocess.CompletedProcess([], 0, printed)
        monkeypatch.setattr("benchmarks.parts.subprocess.run", lambda *_, done=done, **__: done)
        with pytest.raises(RuntimeError, match=f"{complete} of {lifecycles} lifecycles"):
            run_part("capture", True, 10)


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Is said at once, not when their turn has come."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 1024))
    monkeypatch.setattr(resource, "setrlimit", refused)
    assert compare.main(["--only", "teardown"]) == 2
    assert "4,196 file descriptors are needed, 1,024 allowed" in capsys.readouterr().err


def refused(which: int, limits: tuple[int, int]) -> None:
    raise ValueError("not allowed to raise maximum limit")


def test_too_many_idle_connections(capsys: pytest.CaptureFixture[str]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard > 1 << 24:
        pytest.skip("SKIPPED: so many files are allowed that no number of connections is too many")
    assert idle.main(["--connections", str(hard)]) == 1
    assert "file descriptors" in capsys.readouterr().err
