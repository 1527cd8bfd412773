"""A world that was put back is the same as one in which nothing else ever happened, and goes on like it."""

from __future__ import annotations

from random import Random

import pytest

from utcp.check import SCENARIOS, World
from utcp.check.abstraction import keys
from utcp.check.explore import replay
from utcp.check.snapshot import restore, save

# With TIME-WAIT records, data unread and out of order, connections nobody has accepted, an engine that is gone
CASES = ["reuse", "half-close", "closed-window", "unread", "listener-closing", "endpoint-closing"]


def walk(name: str, seed: int) -> list[str]:
    """A schedule of at most 30 choices with up to three faults."""
    random, world = Random(seed), World(SCENARIOS[name])
    schedule: list[str] = []
    while len(schedule) < 30 and (choices := world.choices()):
        wrong = world.faulty_choices() if world.faults < 3 else []
        schedule.append(random.choice(choices + wrong))
        world.apply(schedule[-1])
    return schedule


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CASES)
def test_what_is_put_back_is_what_was_saved(name: str, seed: int) -> None:
    print(f"seed {seed}")
    schedule, world = walk(name, seed), World(SCENARIOS[name])
    saved = [save(world)]
    for choice in schedule:
        world.apply(choice)
        saved.append(save(world, saved[-1]))
    order = list(range(len(schedule)))
    Random(seed).shuffle(order)
    for i in order:
        there = replay(SCENARIOS[name], schedule[:i])
        restore(saved[i])
        assert keys(world) == keys(there), schedule[:i]
        assert (world.now, world.faults, world.resets) == (there.now, there.faults, there.resets)
        there.apply(schedule[i])
        world.apply(schedule[i])
        assert keys(world) == keys(there), schedule[: i + 1]


def test_what_has_not_changed_is_kept_once() -> None:
    world = World(SCENARIOS["active"])
    world.apply("c")
    before = save(world)
    world.apply("d0")
    after = save(world, before)
    shared = {id(part) for part in before} & {id(part) for part in after}
    assert len(before) // 2 < len(shared) < len(after)


def test_an_array_that_changes_in_its_place_is_put_back() -> None:
    world = World(SCENARIOS["active"])
    before = save(world)
    table = world.ends[0].engine.stack.connections
    restore(before)
    world.apply("c")
    tcb = table.values()[0]
    assert table.get(tcb.key) is tcb
    restore(before)
    assert table.get(tcb.key) is None
    assert len(table) == 0
