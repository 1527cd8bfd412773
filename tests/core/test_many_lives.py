"""Seeded lives of connections (X-15): loss up to 50 %, random delays, reordering, duplicates, every way of ending.

500 of them, with ``--deep`` 10,000. A failure prints its segments and the command that replays it.
"""

from __future__ import annotations

import pytest

from support.lives import Life, report
from support.ways import GRACEFUL, ROUGH

SEEDS = 500
DEEP_SEEDS = 10_000


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        count = DEEP_SEEDS if metafunc.config.getoption("--deep") else SEEDS
        metafunc.parametrize("seed", range(1, count + 1))


def test_X_15_a_life(seed: int) -> None:
    Life(seed).live()


@pytest.mark.parametrize("way", [*GRACEFUL, *ROUGH])
def test_X_15_every_way_of_ending(way: str) -> None:
    outcomes = [Life(n, way).live() for n in range(5)]
    assert all(outcome.segments and outcome.way == way for outcome in outcomes)
    assert f"{way:24}      5" in report(outcomes)


def test_the_seed_decides_everything() -> None:
    def segments(seed: int) -> list[str]:
        life = Life(seed)
        life.live()
        return [str(packet) for packet in life.network.trace]

    assert segments(7) == segments(7)
    assert segments(7) != segments(8)


def test_a_failure_says_how_to_replay_it() -> None:
    life = Life(3, "client first")
    life.client.incoming = b"not what the server sends"
    with pytest.raises(AssertionError, match=r"(?s)I3.*seed 3.*replay: PYTHONPATH=tests python -m support.lives 3"):
        life.live()


@pytest.mark.parametrize(
    ("fault", "wrong"), [("connection", "left behind: .*FIN_WAIT_2"), ("record", "something was left for")]
)
def test_what_is_left_behind_is_seen(fault: str, wrong: str) -> None:
    life = Life(3, "client first")
    if fault == "connection":
        life.server.ends_when = "never"
    else:
        stack = life.hosts[0].engine.stack
        path = stack.paths.paths[life.hosts[0].engine.path("here", "there")]
        assert path is not None
        path.users += 1
        stack.time_wait.insert(path.index << 32, 1, 1, 1, False, 0, 0, 0, 80_000 * 10**9)
    with pytest.raises(AssertionError, match=wrong):
        life.live()
