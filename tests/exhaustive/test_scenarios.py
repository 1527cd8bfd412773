"""Every scenario, explored: calls at any time without a fault, prompt calls with one fault; with --deep more.

The numbers of states are exact: a change in the engine that lets more or less happen shows here. The new ones are
printed by ``python -m utcp.check``, for whoever has looked why.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from utcp.check import SCENARIOS, Result, explore
from utcp.check.report import UNREACHED, legal_edges

pytestmark = pytest.mark.timeout(300)  # a few seconds each, on a machine that does nothing else

# By scenario: states without a fault, calls at any time; states with one fault, calls prompt
STATES = {
    "active": (146, 403),
    "passive": (96, 724),
    "simultaneous": (155, 299),
    "simultaneous-open": (337, 310),
    "half-close": (301, 396),
    "closed-window": (203, 285),
    "flush": (34, 237),
    "early-close": (962, 197),
    "give-up": (32, 28),
    "reuse": (84, 536),
    "linger": (343, 239),
    "linger-0": (200, 380),
    "lingering-close": (479, 665),
    "abort": (982, 598),
    "abort-closing": (265, 275),
    "unread": (2631, 182),
    "unread-flush": (145, 657),
    "refused": (10, 7),
    "listener-closing": (37, 172),
    "listener-closing-first": (68, 17),
    "endpoint-closing": (735, 563),
}


@cache
def without_faults(name: str) -> Result:
    return explore(SCENARIOS[name], 0)


def assert_proven(result: Result) -> None:
    assert result.violation == "", " ".join(result.trace)
    assert result.complete
    assert result.ends >= 1
    assert result.silences >= 1


def test_the_table_has_every_scenario() -> None:
    assert STATES.keys() == SCENARIOS.keys()


@pytest.mark.parametrize("page", ["README.md", "docs/exhaustive.md"])
def test_the_pages_have_the_sums(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text()
    for column in zip(*STATES.values(), strict=True):
        assert f"| {sum(column):,} |" in text


@pytest.mark.parametrize("name", SCENARIOS)
def test_calls_at_any_time(name: str) -> None:
    result = without_faults(name)
    assert_proven(result)
    assert result.states == STATES[name][0]


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_fault(name: str) -> None:
    result = explore(SCENARIOS[name], 1, prompt=True)
    assert_proven(result)
    assert result.states == STATES[name][1]


def test_all_legal_transitions_are_taken_but_for_those_with_a_reason() -> None:
    taken = {edge for name in SCENARIOS for edge in without_faults(name).transitions}
    assert set(legal_edges()) - taken == UNREACHED.keys()


@pytest.mark.deep
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", SCENARIOS)
def test_three_faults(name: str) -> None:
    assert_proven(explore(SCENARIOS[name], 3, prompt=True))


@pytest.mark.deep
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", SCENARIOS)
def test_one_fault_and_calls_at_any_time(name: str) -> None:
    assert_proven(explore(SCENARIOS[name], 1))
