"""Seeded impairments and rules."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from utcp.gateway import PASS, Direction, Impairments, LinkQuality, Marks, Rules
from utcp.wire.segment import ACK, FIN, Segment

MS = 1_000_000
SEGMENT = Segment(1, 2, 3, 4, ACK, data=bytes(1000)).to_bytes()
PERFECT = LinkQuality()


def outcomes(quality: LinkQuality, n: int = 2000, seed: int = 1, gap: int = MS) -> list[Sequence[int]]:
    impair = Impairments(seed, to_kernel=quality, to_utcp=PERFECT)
    return [impair(Direction.TO_KERNEL, SEGMENT, i * gap) for i in range(n)]


def test_the_seed_decides() -> None:
    quality = LinkQuality(loss=0.1, duplicate=0.1, reorder=0.1, jitter=0.01)
    assert outcomes(quality) == outcomes(quality)
    assert outcomes(quality) != outcomes(quality, seed=2)


def test_directions_are_independent() -> None:
    quality = LinkQuality(loss=0.3)
    alone = Impairments(7, to_kernel=quality, to_utcp=quality)
    mixed = Impairments(7, to_kernel=quality, to_utcp=quality)
    expected = [alone(Direction.TO_KERNEL, SEGMENT, 0) for _ in range(200)]
    for delays in expected:
        mixed(Direction.TO_UTCP, SEGMENT, 0)
        assert mixed(Direction.TO_KERNEL, SEGMENT, 0) == delays
    assert expected != [alone(Direction.TO_UTCP, SEGMENT, 0) for _ in range(200)]


def test_a_perfect_link_passes_everything_at_once() -> None:
    assert set(outcomes(PERFECT)) == {(0,)}


def test_loss_and_duplication_come_as_often_as_asked() -> None:
    lost = outcomes(LinkQuality(loss=0.1)).count(())
    assert 150 < lost < 250
    doubled = outcomes(LinkQuality(duplicate=0.1)).count((0, 0))
    assert 150 < doubled < 250
    assert set(outcomes(LinkQuality(loss=1.0))) == {()}


def test_more_loss_only_adds_losses() -> None:
    few, many = outcomes(LinkQuality(loss=0.1)), outcomes(LinkQuality(loss=0.2))
    assert all(b == () for a, b in zip(few, many, strict=True) if a == ())


def test_jitter_delays_but_keeps_the_order() -> None:
    arrivals = [i * MS + d for i, (d,) in enumerate(outcomes(LinkQuality(delay=0.02, jitter=0.01)))]
    assert arrivals == sorted(arrivals)
    delays = [at - i * MS for i, at in enumerate(arrivals)]
    assert min(delays) >= 20 * MS
    assert max(delays) <= 30 * MS
    assert max(delays) - min(delays) > 8 * MS


def test_reordered_segments_are_overtaken() -> None:
    arrivals = [i * MS + d for i, (d,) in enumerate(outcomes(LinkQuality(delay=0.02, reorder=0.05)))]
    late = [i for i in range(len(arrivals) - 1) if arrivals[i] > arrivals[i + 1]]
    assert 60 < len(late) < 140
    assert all(arrivals[i] == i * MS + 30 * MS for i in late)


def test_rate_spaces_segments_and_drops_behind_a_full_queue() -> None:
    size = len(SEGMENT) * 8
    # A burst: each waits for those before it, until the queue is longer than 10 ms
    burst = outcomes(LinkQuality(rate=size * 1000, queue=0.01), n=20, gap=0)
    assert [d[0] for d in burst[:11]] == [i * MS for i in range(1, 12)]
    assert burst[11:] == [()] * 9
    # Slower than the link: no queue
    assert set(outcomes(LinkQuality(rate=size * 1000), n=20, gap=2 * MS)) == {(MS,)}


@pytest.mark.parametrize(
    ("field", "value", "bounds"),
    [
        ("loss", 1.1, "in [0, 1]"),
        ("duplicate", -0.1, "in [0, 1]"),
        ("reorder", float("nan"), "in [0, 1]"),
        ("delay", -1, "in [0, 3600] (seconds)"),
        ("jitter", float("inf"), "in [0, 3600] (seconds)"),
        ("rate", 0.5, "0 or in [1, 1e12] (bits per second)"),
    ],
)
def test_bad_values_are_named(field: str, value: float, bounds: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: {value} is not {re.escape(bounds)}$"):
        LinkQuality(**{field: value})


def test_rules_pick_segments_in_order() -> None:
    rules = Rules()
    fin, ack = Segment(1, 2, 9, 4, FIN | ACK).to_bytes(), SEGMENT
    first = rules.add(Direction.TO_UTCP, lambda seg: bool(seg.flags & FIN))
    twice = rules.add(Direction.TO_UTCP, lambda seg: bool(seg.flags & FIN), delays=(0, 5), times=2)
    assert rules(Direction.TO_KERNEL, fin, 0) == PASS
    assert rules(Direction.TO_UTCP, ack, 0) == PASS
    assert [rules(Direction.TO_UTCP, fin, 0) for _ in range(4)] == [(), (0, 5), (0, 5), PASS]
    assert (first.hits, twice.hits) == (1, 2)


def test_a_rule_holds_until_it_is_lifted() -> None:
    rules = Rules()
    rule = rules.add(Direction.TO_KERNEL, lambda seg: seg.data_len > 0, times=None)
    assert [rules(Direction.TO_KERNEL, SEGMENT, 0) for _ in range(5)] == [()] * 5
    rule.lift()
    assert rules(Direction.TO_KERNEL, SEGMENT, 0) == PASS
    assert rule.hits == 5


def test_what_no_rule_picks_goes_on_to_the_next_impairment() -> None:
    rules = Rules(otherwise=lambda direction, segment, now: (now,))
    rules.add(Direction.TO_KERNEL, lambda seg: seg.src_port == 1)
    assert rules(Direction.TO_KERNEL, SEGMENT, 5) == ()
    assert rules(Direction.TO_KERNEL, SEGMENT, 5) == (5,)
    assert rules(Direction.TO_KERNEL, b"no segment", 5) == (5,)


def test_marks_are_drawn_for_each_direction() -> None:
    def drawn(seed: int, **chances: float) -> list[bool]:
        marks = Marks(seed, **{"to_kernel": 0.25, "to_utcp": 0.0} | chances)
        assert not any(marks(Direction.TO_UTCP, SEGMENT) for _ in range(100))
        return [marks(Direction.TO_KERNEL, SEGMENT) for _ in range(2000)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert sum(drawn(1)) == pytest.approx(500, rel=0.1)
    assert all(drawn(1, to_kernel=1.0))
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"^mark: {bad} is not in \[0, 1\]$"):
            Marks(1, to_kernel=0.0, to_utcp=bad)
