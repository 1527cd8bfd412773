"""What teardown and bulk are to reach beside the others, as ratios, and what a run of benchmarks.compare says of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.contests import (
    AWAITED,
    DIRECT,
    EPOLL,
    INTERPRETED_STREAMS,
    MANY,
    OWN_STREAMS,
    PROTOCOL,
    STREAMS,
    UNBATCHED,
)

BULK = "throughput"  # the part of a comparison that has the figure, where it is none of teardown's


@dataclass(frozen=True, kw_only=True)
class Goal:
    """``ours`` is to be ``least`` times as fast as ``theirs``, and tries to be ``aim`` times as fast."""

    workload: str
    ours: str
    theirs: str
    least: float
    aim: float
    in_flight: int = 512
    part: str = ""


GOALS = [
    Goal(workload="connect() with callbacks", ours=DIRECT, theirs=EPOLL, least=6, aim=15),
    Goal(workload="await create_connection", ours=AWAITED, theirs=PROTOCOL, least=4, aim=8),
    Goal(workload="streams", ours=OWN_STREAMS, theirs=STREAMS, least=3, aim=5),
    Goal(workload="unbatched (no GSO, no GRO)", ours=UNBATCHED, theirs=PROTOCOL, least=1, aim=2),
    Goal(workload="1,000 UDP peers", ours=MANY.name, theirs=PROTOCOL, least=1, aim=2),
    Goal(workload="one at a time", ours=AWAITED, theirs=PROTOCOL, least=0.6, aim=1, in_flight=1),
    Goal(workload="beside QUIC", ours=AWAITED, theirs="aioquic", least=100, aim=300, in_flight=64),
    Goal(workload="bulk", ours="utcp", theirs="kernel", least=0.5, aim=1.2, in_flight=1, part=BULK),
    Goal(workload="streams, interpreted", ours=INTERPRETED_STREAMS, theirs=STREAMS, least=1, aim=2),
]


def verdicts(contests: list[dict[str, Any]], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Every goal with its ratio of medians, the ratios of single rounds, and whether it was reached."""
    return [{**asdict(goal), **verdict(goal, figures_of(goal, contests, parts))} for goal in GOALS]


def figures_of(goal: Goal, contests: list[dict[str, Any]], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Our figures and theirs, as far as there are any: the median as "rate", each round's as "rates"."""
    if goal.part:
        peers = parts.get(goal.part, {})
        return [
            {"rate": peers[name]["figure"], "rates": peers[name]["figures"]}
            for name in (goal.ours, goal.theirs)
            if name in peers
        ]
    rows = {
        row["name"]: row
        for contest in contests
        if (contest["in_flight"], contest["payload"]) == (goal.in_flight, 0)
        for row in contest["rows"]
    }
    return [rows[name] for name in (goal.ours, goal.theirs) if name in rows]


def verdict(goal: Goal, figures: list[dict[str, Any]]) -> dict[str, Any]:
    if len(figures) < 2 or not all(figures[1]["rates"]):
        return {"ratio": None, "ratios": [], "reached": "not measured"}
    ours, theirs = figures
    ratio = ours["rate"] / theirs["rate"]
    # Rounds of one number were made next to each other; when one is missing, nobody knows which
    in_turns = len(ours["rates"]) == len(theirs["rates"])
    ratios = [one / other for one, other in zip(ours["rates"], theirs["rates"], strict=True)] if in_turns else []
    reached = "aim" if ratio >= goal.aim else "goal" if ratio >= goal.least else "MISSED"
    return {"ratio": ratio, "ratios": ratios, "reached": reached}
