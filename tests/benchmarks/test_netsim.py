"""The simulated benchmark: its figures follow from the seed alone, and a change of them does not go unnoticed."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path as File

import pytest

from benchmarks import netsim
from benchmarks.netsim import markdown, measure
from benchmarks.netsim_runs import EVERY, QUICK, Managed, Path, Sharing, jain

SHORT = Path("cubic", 10, 20, 0.01, 2)


def test_a_run_depends_on_nothing_but_its_seed() -> None:
    first = SHORT.run(5)
    assert first == SHORT.run(5)
    assert first != SHORT.run(6)
    assert first != replace(SHORT, algorithm="reno").run(5)


def test_a_run_in_another_process_is_the_same() -> None:
    assert measure([SHORT]) == {SHORT.name: SHORT.run(netsim.SEED)}


def test_without_loss_the_link_is_full() -> None:
    found = Path("cubic", 10, 20, 0.0, 4).run(1)
    assert 9.3e6 < found["goodput"] < 10e6
    assert 0.8e6 < found["completion_us"] < 1.2e6  # a million bytes at 10 Mbit/s


def test_what_does_not_complete_has_no_time() -> None:
    assert Path("reno", 10, 200, 0.03, 1).run(1)["completion_us"] is None


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_two_flows_share_a_bottleneck(algorithm: str) -> None:
    found = Sharing(algorithm, 2, mbit=5, seconds=20).run(1)
    assert len(found["shares"]) == 2
    assert found["jain"] > 950_000
    assert found["goodput"] > 4.5e6


@pytest.mark.parametrize("ecn", [True, False])
def test_a_queue_that_CoDel_keeps_short(ecn: bool) -> None:
    found = Managed("cubic", ecn, mbit=5, seconds=8).run(1)
    assert found["goodput"] > 4e6
    assert found["wait_us"] < 20_000
    assert (found["retransmissions"] > 0) == (not ecn)


@pytest.mark.parametrize(
    ("shares", "index"), [([5, 5], 1_000_000), ([1, 0, 0, 0], 250_000), ([1, 3], 800_000), ([0, 0], 0)]
)
def test_jain(shares: list[int], index: int) -> None:
    assert jain(shares) == index


def test_the_committed_table_is_whole_and_fair() -> None:
    """Every run is in it, its Markdown is of the same figures, and what it says of fairness is what is promised."""
    figures = json.loads(netsim.TABLE.read_text())
    assert list(figures) == [run.name for run in EVERY]
    assert netsim.MARKDOWN.read_text() == markdown(figures)
    for run in EVERY:
        if isinstance(run, Sharing):
            assert figures[run.name]["jain"] == jain(figures[run.name]["shares"])
            assert figures[run.name]["jain"] > 950_000


@pytest.fixture
def one_row(monkeypatch: pytest.MonkeyPatch, tmp_path: File) -> File:
    """``--quick`` is a short run, and the table is in a file of its own."""
    table = tmp_path / "netsim.json"
    monkeypatch.setattr(netsim, "QUICK", [replace(QUICK[0], seconds=1)])
    monkeypatch.setattr(netsim, "TABLE", table)
    return table


def test_check(one_row: File, capsys: pytest.CaptureFixture[str]) -> None:
    assert netsim.main(["--quick", "--json"]) == 0
    one_row.write_text(capsys.readouterr().out)
    assert netsim.main(["--quick", "--check"]) == 0
    assert "| 10 Mbit/s, 50 ms |" not in capsys.readouterr().out  # a row has both algorithms, or is left out
    figures = json.loads(one_row.read_text())
    figures[QUICK[0].name]["goodput"] += 1
    one_row.write_text(json.dumps(figures))
    assert netsim.main(["--quick", "--check"]) == 1
    assert f"{QUICK[0].name}: " in capsys.readouterr().err.splitlines()[-1]


def test_check_without_a_table(one_row: File, capsys: pytest.CaptureFixture[str]) -> None:
    assert netsim.main(["--quick", "--check"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_plot(one_row: File, capsys: pytest.CaptureFixture[str]) -> None:
    picture = one_row.with_name("goodput.svg")
    outcome = netsim.main(["--quick", "--plot", str(picture)])
    if importlib.util.find_spec("matplotlib") is None:
        assert outcome == 1
        assert "pip install '.[plot]'" in capsys.readouterr().err
    else:
        assert outcome == 0
        assert picture.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("arguments", ["--quick --write", "--check --write", "--slow"])
def test_bad_options(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        netsim.parse(arguments.split())
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err
