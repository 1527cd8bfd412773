"""Breadth-first through everything that can happen, fault by fault: the first violation found has a shortest trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from utcp.check.abstraction import keys
from utcp.check.scenarios import Scenario
from utcp.check.snapshot import Saved, restore, save
from utcp.check.world import World
from utcp.core.states import State

Edge = tuple[State, State]


@dataclass
class Result:
    """What one exploration saw. ``violation`` is empty when every invariant held; ``trace`` leads to it."""

    scenario: Scenario
    faults: int
    prompt: bool
    states: int = 0
    steps: int = 0  # choices taken, those that led to a known state too
    ends: int = 0  # states in which nothing can happen any more
    silences: int = 0  # how many of them were tried with the network gone silent
    depth: int = 0
    complete: bool = True
    transitions: set[Edge] = field(default_factory=set)
    violation: str = ""
    trace: list[str] = field(default_factory=list)


def explore(
    scenario: Scenario,
    faults: int = 3,
    *,
    prompt: bool = False,
    config: dict[str, Any] | None = None,
    limit: int | None = None,
    depth: int | None = None,
    world: type[World] = World,
) -> Result:
    """Visit every state that ``scenario`` can reach with up to ``faults`` faults.

    ``prompt``: the applications take their steps as soon as they can, instead of at any time from then on.
    ``limit``, ``depth``: stop after so many states, or choices from the start. ``config``: fields of
    Config beside the scenario's. Raises ValueError or TypeError when one of these is wrong.
    """
    return _Search(scenario, faults, prompt, config, limit, depth, world).run()


def replay(
    scenario: Scenario, schedule: list[str], config: dict[str, Any] | None = None, world: type[World] = World
) -> World:
    """The world after the choices of ``schedule``. Raises Violation, or what an engine raised."""
    made = world(scenario, config)
    for choice in schedule:
        made.apply(choice)
    return made


@dataclass(slots=True)
class _State:
    """One to start from."""

    number: int
    saved: Saved
    choices: list[str]
    faulty_choices: list[str]
    only_held: bool
    silence: bool  # nobody has tried yet what comes of silence in this state of the ends


class _Search:
    def __init__(
        self,
        scenario: Scenario,
        faults: int,
        prompt: bool,
        config: dict[str, Any] | None,
        limit: int | None,
        depth: int | None,
        world: type[World],
    ) -> None:
        self.result = Result(scenario, faults, prompt)
        self.config = config
        self.limit, self.max_depth = limit, depth
        self.world = world(scenario, config)  # the one world there is: it is put back to every state to start from
        self.saved: Saved = []  # what it was put back to last
        self.found: list[_State] = []  # new ones, since somebody last took them
        # By the number of a state, in the order in which they were found
        self.numbers: dict[int, int] = {}
        self.parents: list[int] = []
        self.choices: list[str] = []
        self.depths: list[int] = []
        self.next: list[list[int]] = []  # where it leads without another fault
        self.storm: list[list[int]] = []  # where deliveries alone lead
        self.ends: list[int] = []  # states to which all must lead: nothing more can happen, or nobody looked further
        self.silent: set[int] = set()
        self.broken_silence: tuple[str, list[str]] | None = None

    def run(self) -> Result:
        result = self.result
        try:
            self._add(-1, self._calls(0, ""))
            before: list[list[_State]] = []
            for _ in range(result.faults + 1):
                before = self._explore_with(before)
            self._check_graph()
            if self.broken_silence is not None:
                result.violation, result.trace = self.broken_silence
                result.complete = False
        except _Found:
            result.complete = False
        result.states = len(self.numbers)
        result.depth = max(self.depths, default=0)
        return result

    def _explore_with(self, before: list[list[_State]]) -> list[list[_State]]:
        """All states that take one fault more than those of ``before``, by the number of choices that lead there.

        Returns those from which something may go wrong once more. What is known with fewer faults is not looked at
        again: more may go wrong from there.
        """
        reached: list[list[_State]] = []
        while self.found or len(reached) < len(before):
            found, self.found = self.found, []
            if self._enough(len(reached)):
                self.ends += [state.number for state in found]
                self.result.complete = False
                break
            for state in before[len(reached)] if len(reached) < len(before) else ():
                self._go_wrong(state)
            for state in found:
                self._expand(state)
            reached.append([state for state in found if state.faulty_choices])
        return reached

    def _enough(self, depth: int) -> bool:
        """Whether a limit has been reached."""
        full = self.limit is not None and len(self.numbers) >= self.limit
        return full or (self.max_depth is not None and depth >= self.max_depth)

    def _go_wrong(self, state: _State) -> None:
        for choice in state.faulty_choices:
            self._restore(state)
            self._step(state.number, choice)

    def _expand(self, state: _State) -> None:
        """Everything that may follow without another fault."""
        world, number = self.world, state.number
        if state.silence and self.broken_silence is None:
            self._try_silence(state)
        moved = False
        for choice in state.choices:
            self._restore(state)
            found = self._step(number, choice)
            if found == number and choice == "t" and choice in world.choices():
                found = self._step(number, "t", "t ")  # a deadline has only moved, as keepalive's does: once more
            moved = moved or found != number
            if found != number:
                self.next[number].append(found)
                if choice[0] == "d":
                    self.storm[number].append(found)
        if state.only_held or not moved:
            self._restore(state)
            self._guard(world.check_the_end, number, "")
            self.result.ends += 1
            self.ends.append(number)

    def _restore(self, state: _State) -> None:
        self.saved = state.saved
        restore(state.saved)

    def _step(self, number: int, choice: str, before: str = "") -> int:
        """Apply a choice, and with it the calls that follow at once. The number of the state it leads to.

        ``before``: the choices that were made since the world was in the state ``number``.
        """
        self.result.steps += 1
        self._apply(number, before + choice)
        return self._add(number, self._calls(number, before + choice))

    def _calls(self, number: int, choice: str) -> str:
        """Prompt applications have taken their steps before anything else happens: no state of its own for each."""
        while self.result.prompt and (calls := self.world.calls()):
            choice = f"{choice} {calls[0]}".lstrip()
            self._apply(number, choice)
        return choice

    def _apply(self, number: int, choices: str) -> None:
        """Apply the last of the choices made since the world was in the state ``number``."""
        world = self.world
        self._guard(lambda: world.apply(choices.rpartition(" ")[2]), number, choices)
        self.result.transitions.update(world.take_transitions())
        if world.resets and self.result.scenario.graceful and not world.faults:
            self._fail("I6: a RST in a graceful run without faults", number, choices)

    def _add(self, parent: int, choice: str) -> int:
        """The number of the world's state, a new one if nobody has seen it."""
        state, alone = keys(self.world)
        number = self.numbers.setdefault(state, len(self.numbers))
        if number == len(self.parents):
            self.parents.append(parent)
            self.choices.append(choice)
            self.depths.append(self.depths[parent] + 1 if number else 0)
            self.next.append([])
            self.storm.append([])
            world = self.world
            self.found.append(
                _State(
                    number,
                    save(world, self.saved),
                    world.choices(),
                    world.faulty_choices() if world.faults < self.result.faults else [],
                    world.only_held(),
                    silence=alone not in self.silent,
                )
            )
            self.silent.add(alone)
        return number

    def _try_silence(self, state: _State) -> None:
        """From here on nothing gets through.

        That takes many steps at once, so what it finds is told only if the search finds nothing by single ones.
        """
        self._restore(state)
        self.result.silences += 1
        try:
            self._guard(lambda: self.world.apply("x"), state.number, "x")
        except _Found:
            self.broken_silence = self.result.violation, self.result.trace
            self.result.violation, self.result.trace = "", []
        self.result.transitions.update(self.world.take_transitions())

    def _guard(self, step: Any, number: int, choice: str) -> None:
        try:
            step()
        except Exception as error:  # an engine must not raise, whatever it is
            name = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            self._fail(f"{name}{error}", number, choice)

    def _fail(self, violation: str, number: int, choice: str) -> None:
        self.result.violation = violation
        self.result.trace = self._schedule(number) + choice.split()
        raise _Found

    def _schedule(self, number: int) -> list[str]:
        schedule: list[str] = []
        while number >= 0:
            schedule += reversed(self.choices[number].split())
            number = self.parents[number]
        return schedule[::-1]

    # I5 on the whole graph

    def _check_graph(self) -> None:
        before: list[list[int]] = [[] for _ in self.next]
        for number, following in enumerate(self.next):
            for found in following:
                before[found].append(number)
        leads = [False] * len(self.next)
        waiting = list(self.ends)
        while waiting:
            number = waiting.pop()
            if not leads[number]:
                leads[number] = True
                waiting += before[number]
        if not all(leads):
            self._fail("I5: from here no way leads to the end without another fault", leads.index(False), "")
        number = self._on_a_cycle()
        if number >= 0:
            self._fail("I5: deliveries alone lead back here: segments that answer each other for ever", number, "")

    def _on_a_cycle(self) -> int:
        """A state from which deliveries lead back to itself, -1 if there is none (Kahn's algorithm)."""
        degree = [0] * len(self.storm)
        for following in self.storm:
            for found in following:
                degree[found] += 1
        waiting = [number for number, count in enumerate(degree) if count == 0]
        while waiting:
            for found in self.storm[waiting.pop()]:
                degree[found] -= 1
                if degree[found] == 0:
                    waiting.append(found)
        return next((number for number, count in enumerate(degree) if count), -1)


class _Found(Exception):
    """A violation: the search is over."""
