"""Exhaustive checking: two real engines, a model network, and every order in which things can happen.

``python -m utcp.check`` explores the scenarios of `utcp.check.scenarios`; `explore` does one of them.
The abstraction and its limits are in docs/exhaustive.md.
"""

from utcp.check.explore import Result, explore
from utcp.check.scenarios import SCENARIOS, Scenario
from utcp.check.world import Violation, World

__all__ = ["SCENARIOS", "Result", "Scenario", "Violation", "World", "explore"]
