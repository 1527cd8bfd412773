"""Ladder diagrams, drawn as RFC 9293 3.5 and 3.6 draw them: a line per segment, the state of each side after the
segment has left or arrived at the margin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console
from rich.text import Text

from utcp.trace.merge import Arrival, Connection, Merge, Note, Passage, Step
from utcp.trace.records import Record, Recorder

if TYPE_CHECKING:
    from utcp.trace.tracer import PathAddresses

WIDTH: Final = 100  # columns at most

_TIME: Final = 9
_STATE: Final = 12  # SYN-RECEIVED
_WORDS: Final = {"S": "SYN", "F": "FIN", "R": "RST", "P": "PSH", "U": "URG", "E": "ECE", "W": "CWR", ".": "ACK"}
_ASCII: Final = str.maketrans(
    {"─": "-", "▶": ">", "◀": "<", "╳": "x", "⋮": ":", "·": ".", "⇄": "-", "…": ".", "█": "#", "░": "."}
)


class Ladder:
    """Draws steps on a console as they come. Colours on a terminal, plain text elsewhere."""

    def __init__(
        self,
        console: Console,
        left: str,
        right: str,
        *,
        time_wait: int = 0,
        bulk: int = 24,
        title: Callable[[Connection], str] | None = None,
    ) -> None:
        """``left``, ``right``: the two hosts. ``time_wait``: 2 MSL in nanoseconds, for the countdown. ``bulk``: how
        many segments of plain data and ACKs in a row get a line of their own. ``title``: names a connection, where
        there may be several.
        """
        self._console = console
        self._left, self._right = left, right
        self._time_wait = time_wait
        self._bulk = bulk
        self._title = title
        self._connection: Connection | None = None
        self._origin: int | None = None
        self._shown: dict[str, str] = {}  # the state of each host in the last line
        self._run: list[Step] = []  # bulk since the last line that was none
        self._deadlines: dict[str, int] = {}  # when TIME-WAIT ends

    def show(self, step: Step) -> None:
        """Draw one step."""
        if self._origin is None:
            self._begin(step)
        connection = step.passage.connection if isinstance(step, Arrival) else step.connection
        if self._title is not None and connection != self._connection:
            self._connection = connection
            self._print(Text(f"── {self._title(connection)} ──", "bold"))
        if self._is_bulk(step):
            self._run.append(step)
            if len(self._run) > self._bulk:
                return
        else:
            self.finish()
        self._print(self._draw(step))
        self._watch_time_wait(step)

    def finish(self) -> None:
        """Say what was left out of a long run of plain data and ACKs."""
        hidden = [step for step in self._run[self._bulk :] if isinstance(step, Passage)]
        self._run.clear()
        if hidden:
            size = sum(step.record["len"] for step in hidden)
            lost, resent = sum(step.lost for step in hidden), sum(step.retransmission for step in hidden)
            text = f"⋮ {len(hidden):,} more segments, {size:,} bytes; {lost:,} lost, {resent:,} resent"
            self._print(Text(" " * (_TIME + _STATE + 2) + text, "dim"))

    def countdown(self, now: int) -> Text:
        """How long TIME-WAIT still lasts at ``now``; empty when nobody is in it."""
        line = Text()
        for host, deadline in self._deadlines.items():
            left = max(deadline - now, 0)
            filled = round(30 * left / self._time_wait) if self._time_wait else 0
            line.append(f"{host} in TIME-WAIT, CLOSED in {left / 1e9:.1f} s  ", "bold yellow")
            line.append("█" * filled + "░" * (30 - filled) + "  ", "yellow")
        return line

    def _begin(self, step: Step) -> None:
        self._origin = _instant(step)
        gap = " " * self._middle
        self._print(Text(f"{'time ms':>{_TIME}} {self._left:<{_STATE}} {gap} {self._right}", "bold"))

    @property
    def _middle(self) -> int:
        return max(min(self._console.width, WIDTH) - _TIME - 2 * _STATE - 3, 40)

    def _draw(self, step: Step) -> Text:
        at = _instant(step)
        if isinstance(step, Note):
            text = f"· {step.host} {step.text}"[: self._middle]
            if step.host == self._right:
                text = f"{text[2:]} ·".rjust(self._middle)
            states = step.states | {host: state for host, state in self._shown.items() if host != step.host}
            return self._line(at, states, text, "italic dim" if step.minor else "italic")
        if isinstance(step, Arrival):
            passage = step.passage
            states = {passage.receiver: passage.receiver_state}
            return self._line(at, states, self._arrow(passage, "…", ""), _style(passage))
        left_open = step.crossed and not step.lost
        states = {
            step.sender: step.sender_state,
            step.receiver: step.receiver_state_before if left_open else step.receiver_state,
        }
        return self._line(at, states, self._arrow(step, "", "…" if left_open else ""), _style(step))

    def _arrow(self, passage: Passage, tail: str, head: str) -> str:
        """One segment. The ends of the arrow are drawn as usual where ``tail`` and ``head`` are empty."""
        record = passage.record
        words = ",".join([_WORDS[letter] for letter in record["flags"] if letter in _WORDS])
        label = f"{record['flags']:<3} {words:<11} seq={passage.seq}"
        if passage.ack is not None:
            label += f" ack={passage.ack}"
        if record["len"]:
            label += f" len={record['len']}"
        label += " resent" * passage.retransmission + " lost" * passage.lost + " CE" * passage.marked
        label = label[: self._middle - 4]
        rightward = passage.sender == self._left
        tail = tail or "─"
        head = head or ("╳" if passage.lost else "▶" if rightward else "◀")
        left, right = (tail, head) if rightward else (head, tail)
        return f"{left} {label} ".ljust(self._middle - 1, "─") + right

    def _line(self, at: int, states: dict[str, str], middle: str, style: str) -> Text:
        line = Text().append(f"{(at - (self._origin or 0)) / 1e6:{_TIME}.2f} ", "dim")
        line.append(self._state(self._left, states))
        line.append(f" {middle:<{self._middle}} ", style)
        line.append(self._state(self._right, states))
        line.rstrip()
        return line

    def _state(self, host: str, states: dict[str, str]) -> Text:
        """The state of one host, or what it was in the line above."""
        state = states.get(host) or self._shown.get(host, "")
        new = state != self._shown.get(host)
        self._shown[host] = state
        return Text(f"{state:<{_STATE}}", "bold yellow" if new else "dim")

    def _is_bulk(self, step: Step) -> bool:
        if isinstance(step, Passage):
            changed = step.receiver_state != self._shown.get(step.receiver)
            return not changed and not any(letter in step.record["flags"] for letter in "SFR")
        return isinstance(step, Note) and step.minor

    def _watch_time_wait(self, step: Step) -> None:
        """Note when TIME-WAIT begins, and begins again because the FIN was repeated (RFC 9293 3.10.7.4)."""
        passage = step.passage if isinstance(step, Arrival) else step if isinstance(step, Passage) else None
        if passage is not None and passage.lost:
            return
        for host, state in self._shown.items():
            if state != "TIME-WAIT":
                self._deadlines.pop(host, None)
                continue
            again = passage is not None and passage.receiver == host and "F" in passage.record["flags"]
            if host not in self._deadlines or again:
                at = _instant(step) if passage is None else passage.arrived_at or passage.sent_at
                self._deadlines[host] = at + self._time_wait

    def _print(self, line: Text) -> None:
        if not self._console.encoding.lower().startswith("utf"):
            line = Text(line.plain.translate(_ASCII))
        self._console.print(line, soft_wrap=True, highlight=False)


def _instant(step: Step) -> int:
    if isinstance(step, Arrival):
        return step.passage.arrived_at or step.passage.sent_at
    return step.sent_at if isinstance(step, Passage) else step.at


def _style(passage: Passage) -> str:
    if passage.lost:
        return "red"
    for letter, style in (("R", "bold red"), ("F", "bold magenta"), ("S", "bold green")):
        if letter in passage.record["flags"]:
            return style
    return "cyan" if passage.record["len"] else ""


class LadderObserver(Recorder):
    """Draws the ladder of one engine, whose peer's states are not known. A line is held until the next event."""

    def __init__(self, file: TextIO | None = None, addresses: PathAddresses | None = None) -> None:
        """``file``: where to draw; standard output by default."""
        super().__init__()
        self.addresses = addresses
        self._merge = Merge({"here": "CLOSED", "peer": None})
        self._ladder = Ladder(Console(file=file), "here", "peer", title=self._name)

    def write(self, record: Record) -> None:
        if record["event"] not in {"state_change", "drop", "closed"}:
            self._show()
        self._merge.feed("here", record)

    def close(self) -> None:
        self._show()
        self._ladder.finish()

    def _show(self) -> None:
        for step in self._merge.take():
            self._ladder.show(step)

    def _name(self, connection: Connection) -> str:
        path, local_port, remote_port = connection
        return " ⇄ ".join(self.endpoints(path, local_port, remote_port))
