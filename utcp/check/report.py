"""What the checker prints: counts, the transitions of the state machine, and a trace as a ladder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TextIO

from rich.console import Console

from utcp.check.explore import Edge, Result
from utcp.check.scenarios import Scenario
from utcp.check.world import NAMES, World
from utcp.core.states import State, legal_transition
from utcp.trace.fanout import Fanout
from utcp.trace.ladder import Ladder
from utcp.trace.merge import Merge
from utcp.trace.records import Record, Recorder
from utcp.wire.segment import decode

HEAD: Final = (
    f"{'scenario':<24}{'calls':<7}{'faults':>7}{'states':>10}{'steps':>10}{'ends':>7}{'silences':>10}{'depth':>7}"
)

# Legal, and why none of the scenarios takes it
UNREACHED: Final[dict[Edge, str]] = {
    (State.CLOSED, State.LISTEN): "a listener is an object of its own: its connections begin in LISTEN",
    (State.CLOSED, State.SYN_RECEIVED): "so does a listener's child: it comes from LISTEN",
    (State.LISTEN, State.SYN_SENT): "a listener does not turn into an active open",
    (State.LISTEN, State.CLOSED): "closing a listener is not a connection's transition",
    (State.SYN_RECEIVED, State.LISTEN): "the listener has never left LISTEN: its child ends in CLOSED",
    (State.SYN_RECEIVED, State.FIN_WAIT_1): "a close in SYN-RECEIVED is carried out in ESTABLISHED (RFC 9293 3.10.4)",
    (State.SYN_RECEIVED, State.CLOSE_WAIT): "a segment's ACK is seen before its FIN: by way of ESTABLISHED",
    (State.FIN_WAIT_1, State.TIME_WAIT): "a segment's ACK is seen before its FIN: by way of FIN-WAIT-2",
    (State.TIME_WAIT, State.SYN_RECEIVED): "the record ends in CLOSED, and the listener's child begins in LISTEN",
}


def line(result: Result) -> str:
    """One exploration, under HEAD."""
    numbers = (result.faults, result.states, result.steps, result.ends, result.silences, result.depth)
    calls = "prompt" if result.prompt else "free"
    text = f"{result.scenario.name:<24}{calls:<7}" + "".join(
        f"{number:>{width},}" for number, width in zip(numbers, (7, 10, 10, 7, 10, 7), strict=True)
    )
    return text if result.complete else text + ("  violation" if result.violation else "  not complete")


def legal_edges() -> list[Edge]:
    """Every transition that RFC 9293 Figure 5 has, and the abort edges."""
    return [(old, new) for old in State for new in State if legal_transition(old, new)]


def transitions(taken: Iterable[Edge]) -> Iterator[str]:
    """How often the state machine's edges were taken, and those that were not, with the reason where it is known."""
    taken, legal = set(taken), legal_edges()
    yield f"{len(taken)} of {len(legal)} legal transitions were taken, and no other."
    for edge in legal:
        if edge not in taken:
            yield f"  {edge[0]} -> {edge[1]}: {UNREACHED.get(edge, 'not reached by these scenarios')}"


def show_trace(scenario: Scenario, schedule: list[str], config: dict[str, Any], kind: type[World], file: TextIO) -> str:
    """Replay a schedule, draw it as a ladder and list its choices. Returns what went wrong, "" if nothing did."""
    story = _Story(kind(scenario, config))
    violation = ""
    for choice in schedule:
        try:
            story.step(choice)
        except Exception as error:  # whatever an engine raises is what we are looking for
            violation = f"{type(error).__name__}: {error}"
            break
    ladder = Ladder(Console(file=file, width=100), *NAMES)
    for step in story.merge.take():
        ladder.show(step)
    ladder.finish()
    print("", *story.lines, sep="\n", file=file)
    return violation


class _Story:
    """A world that is being watched."""

    def __init__(self, world: World) -> None:
        self.world = world
        states = [str(State.CLOSED if end.listener is None else State.LISTEN) for end in world.ends]
        self.merge = Merge(dict(zip(NAMES, states, strict=True)))
        self.lines: list[str] = []
        self.feeds = [_Feed(self.merge, name) for name in NAMES]
        for end, feed in zip(world.ends, self.feeds, strict=True):
            end.engine.observer = Fanout(end.watch, feed)

    def step(self, choice: str) -> None:
        world = self.world
        text = self._describe(choice)
        self.lines.append(f"{choice:<4}{text}")
        if choice[0] in "lu":
            flying = world.flight[int(choice[1:])]
            sender = self.feeds[1 - flying.to]
            record = sender.segment_record(world.now, "segment_out", 0, flying.payload)
            if choice[0] == "u":
                sender.write(record)  # the copy leaves with the original, as far as a ladder can tell
            else:
                sender.write(record | {"event": "lost_out"})
        world.apply(choice)

    def _describe(self, choice: str) -> str:
        world = self.world
        if choice in ("c", "s"):
            end = world.ends["cs".index(choice)]
            script = world.scripts[end.index]
            return f"the {NAMES[end.index]} does: {' + '.join(script[end.steps_taken])}"
        if choice == "t":
            return "time passes, a timer fires"
        if choice == "x":
            return "nothing gets through any more"
        flying = world.flight[int(choice[1:])]
        what = {"d": "arrives", "l": "is lost", "u": "arrives, and a copy is under way", "h": "is held back"}[choice[0]]
        return f"{decode(flying.payload)!r} to the {NAMES[flying.to]} {what}"


class _Feed(Recorder):
    def __init__(self, merge: Merge, host: str) -> None:
        super().__init__()
        self.merge, self.host = merge, host

    def write(self, record: Record) -> None:
        self.merge.feed(self.host, record)
