"""The example of docs/sim.md runs as it stands there, and examples/simulated.py twice the same way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from examples.simulated import experiment
from utcp.sim import Fate, Network


def test_the_example_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sim.md").read_text()
    source, _ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/sim.md", "exec"), names)
    network = names["network"]
    assert isinstance(network, Network)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "b'HELLO'"
    assert printed[1].startswith("graceful, closed first here, ")
    assert float(printed[2]) > 3600
    assert printed[3] == "seed 7" and len(printed) == 4 + len(network.trace)


def test_the_longer_example(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [Network(4, loss=0.05, duplicate=0.01) for _ in range(2)]
    for network in runs:
        experiment(network, 4)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == printed[2:]
    assert printed[0].startswith("4 uploads of 100,000 bytes confirmed")
    assert runs[0].trace == runs[1].trace
    assert runs[0].counts[Fate.UNREACHABLE] > 0  # the crash


def test_the_bottleneck_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sim.md").read_text()
    _, source = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    network = Network()
    pairs = [(network.host(f"a{i}"), network.host(f"b{i}")) for i in range(2)]
    exec(compile(source, "docs/sim.md", "exec"), {"network": network, "pairs": pairs})
    for one, other in pairs:
        other.listen(80, accept=lambda connection: None)
        one.connect(other, 80)
    network.run_for(1)
    assert {flow.fates[Fate.DELIVERED] for flow in network.flows.values()} == {1, 2}  # SYN-ACK; SYN and ACK
