"""The comparison with the kernel's algorithms: what it makes of its transfers. A short one is in tests/interop."""

from __future__ import annotations

import json

import pytest

from benchmarks import versus_kernel
from benchmarks.versus_kernel import ALGORITHMS, CELLS, QUICK, SEEDS, SIZES, markdown, parse, row_of, summary
from benchmarks.versus_kernel_cell import Cell
from utcp.gateway import Direction


def test_both_senders_meet_the_same_losses() -> None:
    """What becomes of the n-th segment does not depend on who sends it, or on what the other direction carries."""
    fates = []
    for stack in ("utcp", "kernel"):
        impairments = Cell(stack, "reno", 0.03, 1, 1).impairments()
        if stack == "utcp":
            impairments(Direction.TO_UTCP, bytes(40), 0)
        fates.append([bool(impairments(Direction.TO_KERNEL, bytes(1472), n * 10**7)) for n in range(1000)])
    assert fates[0] == fates[1]
    assert 10 < fates[0].count(False) < 50


def test_the_path() -> None:
    """Half the round trip each way; 1,000 bytes take 0.4 ms at 20 Mbit/s."""
    impairments = Cell("utcp", "reno", 0.0, 1, 1).impairments()
    assert impairments(Direction.TO_UTCP, bytes(1000), 0) == (20_000_000,)
    assert impairments(Direction.TO_KERNEL, bytes(1000), 0) == (20_400_000,)
    assert impairments(Direction.TO_KERNEL, bytes(1000), 0) == (20_800_000,)


def test_a_summary_compares_under_the_same_losses() -> None:
    found = {
        cell: {"goodput": cell.seed * (2_000 if cell.stack == "utcp" else 1_000), "timeouts": cell.seed}
        for cell in CELLS
        if row_of(cell) == "reno, 1.0%"
    }
    of = summary(found, "reno, 1.0%")
    assert of["ratio"] == 2.0
    assert of["ratios"] == [2.0] * len(SEEDS)
    assert of["utcp"] == {"goodput": 6_000, "timeouts": 3}
    assert of["kernel"] == {"goodput": 3_000, "timeouts": 3}


def test_the_committed_table_is_whole_and_keeps_its_promise() -> None:
    """Goodput is within 15 percent of the kernel's, but where RFC 9438 lets CUBIC grow faster (docs/congestion.md)."""
    figures = json.loads(versus_kernel.TABLE.read_text())
    assert list(figures) == [f"{algorithm}, {loss:.1%}" for loss in SIZES for algorithm in ALGORITHMS]
    assert versus_kernel.MARKDOWN.read_text() == markdown(figures)
    for name, row in figures.items():
        assert len(row["ratios"]) == len(SEEDS)
        assert row["ratio"] >= 0.85
        assert row["ratio"] <= 1.15 or name.startswith("cubic")


def test_a_quick_run_has_every_stack_and_algorithm() -> None:
    assert {(cell.stack, cell.algorithm) for cell in QUICK} == {(cell.stack, cell.algorithm) for cell in CELLS}
    assert len(QUICK) == 4


@pytest.mark.parametrize("arguments", ["--quick --write", "--jobs 0", "--slow"])
def test_bad_options(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(arguments.split())
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_what_goes_wrong_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(cell: Cell) -> dict[str, object]:
        raise RuntimeError("no namespace")

    monkeypatch.setattr(Cell, "measure", fails)
    assert versus_kernel.main(["--quick"]) == 1
    assert capsys.readouterr().err == "versus_kernel: no namespace\n"
