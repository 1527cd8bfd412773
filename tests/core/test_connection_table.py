"""The table of connections: packed, as it is compiled, and as a dict, as interpreted Python has it."""

from __future__ import annotations

import random
from typing import Any

import pytest

import utcp
from utcp.core import connection_table, interpreted
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine

SEEDS = range(20)
KEYS = [(path << 32) | (local << 16) | remote for path in range(3) for local in (1, 65_535) for remote in range(60)]


def test_which_one_is_in_use() -> None:
    assert connection_table.ConnectionTable is (interpreted.PACKED if utcp.__compiled__ else interpreted.DictTable)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_do_the_same(seed: int) -> None:
    """Connections come and go in any order: found by key, in the same slots, with what the last one left there."""
    draw = random.Random(seed)
    stack = Engine(Config(), secret=bytes(32)).stack
    route = stack.paths.intern("here", "there", 0)
    tables: list[Any] = [interpreted.PACKED(seed), interpreted.DictTable(seed)]
    live: list[dict[int, Connection]] = [{}, {}]
    for step in range(400):
        growing = draw.random() < (0.7 if step < 200 else 0.3)
        key = draw.choice(KEYS)
        for table, conns in zip(tables, live, strict=True):
            if growing and key not in conns:
                conn = Connection(stack, route, 0, 0, key, stack.policy)
                table.add(conn)
                conns[key] = conn
            elif not growing and key in conns:
                conns[key].armed_at = step
                table.remove(conns.pop(key))
            assert len(table) == len(conns)
            assert (key in table) == (key in conns)
            assert table.get(key) is conns.get(key)
        one, other = (
            [(tcb and (tcb.key, tcb.slot, tcb.armed_at), armed) for tcb, armed in zip(t.slots, t.armed, strict=True)]
            for t in tables
        )
        assert one == other, f"seed {seed}, step {step}"
    for table, conns in zip(tables, live, strict=True):
        assert {tcb.key: tcb for tcb in table.values()} == conns
        assert all(table.get(key) is conns.get(key) for key in KEYS)
