"""The search for a path's MTU by itself (RFC 8899 5): any path, in a bounded number of probes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from utcp.core.mtu_search import (
    BASE,
    ERROR,
    MAX_PROBES,
    NEAR,
    PROBE_TIMER,
    SEARCH_COMPLETE,
    SEARCHING,
    MtuSearch,
)

BASE_SIZE, ETHERNET = 1200, 1472
RAISE = 600 * 10**9


class Path:
    """One that carries ``size`` bytes, searched from ``low`` to ``link``."""

    def __init__(self, size: int, link: int, low: int = BASE_SIZE, state: int = BASE) -> None:
        self.size, self.link, self.low = size, link, low
        self.search = MtuSearch(state, link)
        self.tried: list[int] = []

    def wanted(self, now: int = 0) -> int:
        return self.search.wanted(self.low, BASE_SIZE, self.link, ETHERNET, now, RAISE)

    def run(self, now: int = 0) -> list[int]:
        """Probe until the search is over; all sizes tried, in order."""
        while (size := self.wanted(now)) > 0:
            self.tried.append(size)
            self.search.sent(size, now)
            if size <= self.size:
                self.search.arrived()
                self.low = size
            else:
                self.search.lost(0)
            assert len(self.tried) < 100
        assert self.search.state == SEARCH_COMPLETE
        return self.tried


def test_what_the_link_takes_is_tried_first() -> None:
    path = Path(1472, 1472)
    assert path.run() == [1472]


def test_then_what_ethernet_carries() -> None:
    path = Path(1472, 8972)
    assert path.run()[: MAX_PROBES + 1] == [8972] * MAX_PROBES + [ETHERNET]
    assert path.low == 1472


def test_then_halves() -> None:
    path = Path(1372, 1472)
    path.run()
    assert sorted(set(path.tried), key=path.tried.index) == [1472, 1336, 1404, 1370, 1387, 1378]
    assert path.low == 1370


def test_a_router_s_word_saves_the_halves() -> None:
    path = Path(1372, 1472)
    path.search.sent(path.wanted(), 0)
    path.search.probed = 0
    path.search.hint = 1372
    path.search.too_large(1373)
    assert path.run() == [1372]


def test_one_loss_proves_nothing() -> None:
    path = Path(1472, 1472)
    for _ in range(MAX_PROBES - 1):
        path.search.sent(path.wanted(), 0)
        path.search.lost(0)
    assert path.run() == [1472]


def test_losses_of_another_size_do_not_count_together() -> None:
    path = Path(1472, 1472)
    for size in (1472, 1300, 1472, 1472):
        path.search.sent(size, 0)
        path.search.lost(0)
    assert path.wanted() == 1472


def test_one_probe_at_a_time_unless_nothing_is_heard_of_it() -> None:
    path = Path(1472, 1472)
    path.search.sent(path.wanted(), 0)
    assert path.wanted(PROBE_TIMER - 1) == 0
    assert path.wanted(PROBE_TIMER) == 1472


def test_it_begins_anew_after_a_while() -> None:
    path = Path(1300, 1472)
    path.run()
    path.size = 1472
    assert path.wanted(RAISE - 1) == 0
    path.tried.clear()
    assert path.run(RAISE) == [1472]


def test_after_an_error_the_base_is_tried_first() -> None:
    path = Path(1472, 1472, 548, ERROR)
    assert path.run() == [BASE_SIZE, 1472]
    path = Path(1000, 1472, 548, ERROR)
    assert path.wanted() == BASE_SIZE
    assert path.search.state == ERROR
    assert path.run()[:MAX_PROBES] == [BASE_SIZE] * MAX_PROBES
    assert 1000 - NEAR <= path.low <= 1000


def test_states() -> None:
    path = Path(1472, 1472)
    assert path.search.state == BASE
    path.search.sent(path.wanted(), 0)
    assert path.search.state == SEARCHING


@given(st.integers(BASE_SIZE, 65_507), st.integers(BASE_SIZE, 65_507), st.integers(0, 65_507))
def test_any_path(size: int, link: int, hint: int) -> None:
    """Found to within what is worth a probe, never exceeded, however wrong a hint was."""
    path = Path(min(size, link), link)
    path.search.hint = hint
    path.run()
    size = min(size, link)
    assert path.low <= size
    missed = size - path.low
    assert missed <= NEAR if size <= ETHERNET else missed <= max(NEAR, path.low // 8)
    assert len(path.tried) <= MAX_PROBES * 20
