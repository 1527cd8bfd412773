"""One story from the records of both ends: what each segment left as, whether it arrived, and what came of it.

The records of one host come in order; between two hosts on one machine the monotonic clock is common, but a reading
of it may be some microseconds old when it is used. So causes come first: an arrival waits for its departure, and only
what is left undecided goes by time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from utcp.trace.records import Record
from utcp.wire.seq import MASK

PATIENCE: Final = 1_000_000_000  # nanoseconds without news of a segment after which it counts as lost

_CONSEQUENCES: Final = frozenset({"state_change", "drop", "closed"})
_QUIET_TIMERS: Final = frozenset({"delayed-ack", "r1"})  # r1 is advice, and comes with a retransmission
_CALL_NOTES: Final = {"shutdown": "calls shutdown(): it has nothing more to send"}
_TIMER_NOTES: Final = {"retransmit": "retransmission timer fired", "2msl": "2 MSL are over"}

Connection: TypeAlias = tuple[int, ...]


@dataclass(slots=True)
class Passage:
    """One segment on its way from one host to the other."""

    sent_at: int  # nanoseconds, as all instants here
    sender: str
    receiver: str
    record: Record
    connection: Connection
    seq: int  # relative to the sender's initial sequence number
    ack: int | None  # relative to the receiver's; None without ACK
    sender_state: str  # once it had left
    receiver_state_before: str  # when it left
    receiver_state: str  # once it had arrived, with everything it caused
    arrived_at: int | None = None
    lost: bool = False
    marked: bool = False  # arrived with congestion experienced (RFC 3168 5)
    crossed: bool = False  # something happened on the receiver's side while it was under way
    causes: list[str] = field(default_factory=list)  # on the sender's side: timers, state changes on a user's call
    effects: list[str] = field(default_factory=list)  # on the receiver's: state changes, a reason to drop it

    @property
    def retransmission(self) -> bool:
        return "retransmission" in self.record

    @property
    def comments(self) -> list[str]:
        """What the bytes do not say."""
        words = [f"{self.sender}: {cause}" for cause in self.causes]
        words += ["retransmission"] if self.retransmission else []
        words += ["lost"] if self.lost else []
        words += ["congestion experienced"] if self.marked else []
        return words + [f"{self.receiver}: {effect}" for effect in self.effects]


@dataclass(slots=True)
class Arrival:
    """A crossed segment reaches the other side, and changes the state there (RFC 9293 Figure 13 has two)."""

    passage: Passage


@dataclass(slots=True)
class Note:
    """Something that happened on one host between segments."""

    at: int
    host: str
    text: str
    states: dict[str, str]  # of both hosts, then
    connection: Connection
    minor: bool = False  # may be left out of a long story


Step: TypeAlias = Passage | Arrival | Note


class Merge:
    """Takes records, gives steps in causal order."""

    def __init__(self, states: dict[str, str | None]) -> None:
        """``states``: the names of the two hosts, each with the state it begins in; None if it is not traced."""
        self._hosts = tuple(states)
        self._initial = states
        self._queues: dict[str, deque[Record]] = {host: deque() for host in states}
        self._states: dict[tuple[str, Connection], str] = {}
        self._bases: dict[tuple[str, Connection], int] = {}
        self._causes: dict[tuple[str, Connection], list[str]] = {}
        self._in_flight: dict[tuple[object, ...], deque[Passage]] = {}
        self._steps: deque[Step] = deque()
        self.transitions: dict[str, list[tuple[int, str, str]]] = {host: [] for host in states}

    def feed(self, host: str, record: Record) -> None:
        """One more record of ``host``."""
        if "malformed" not in record and record["event"] != "path_mtu":
            self._queues[host].append(record)

    def take(self, before: int | None = None) -> list[Step]:
        """The steps whose outcome is known, from all records older than ``before`` (None: there will be no more)."""
        while (host := self._next_host(before)) is not None:
            self._step(host, self._queues[host].popleft())
        taken = []
        while self._steps and self._settled(self._steps[0], before):
            taken.append(self._steps.popleft())
        return taken

    def _next_host(self, before: int | None) -> str | None:
        """Whose next record happened first; an arrival goes behind its departure."""
        heads = [(queue[0], host) for host, queue in self._queues.items() if queue]
        due = [(head["t"], host) for head, host in heads if before is None or head["t"] < before]
        free = [(t, host) for t, host in due if self._explained(host, self._queues[host][0])]
        stray = [(t, host) for t, host in due if before is None or t < before - PATIENCE]
        return min(free or stray, default=(0, None))[1]

    def _explained(self, host: str, record: Record) -> bool:
        if record["event"] not in {"segment_in", "lost_in"} or self._initial[self._other(host)] is None:
            return True
        return bool(self._in_flight.get(self._identity(self._other(host), record)))

    def _settled(self, step: Step, before: int | None) -> bool:
        if not isinstance(step, Passage) or step.lost or step.arrived_at is not None:
            return True
        if self._initial[step.receiver] is None:
            return True
        if before is None or step.sent_at < before - PATIENCE:
            step.lost = True
        return step.lost

    def _step(self, host: str, record: Record) -> None:
        connection = self._connection(host, record)
        match record["event"]:
            case "segment_out":
                self._departure(host, connection, record)
            case "segment_in" | "lost_in":
                self._arrival(host, connection, record)
            case "lost_out":
                self._in_flight[self._identity(host, record)].pop().lost = True
            case "timer":
                self._timer(host, connection, record)
            case "user_call":
                if texts := self._consequences(host, connection):
                    self._causes.setdefault((host, connection), []).extend(texts)
                    self._note(host, connection, record, _CALL_NOTES.get(record["name"], f"calls {record['name']}()"))
            case "state_change":
                text = self._change(host, connection, record)
                self._causes.setdefault((host, connection), []).append(text)
                self._note(host, connection, record, text)
            case "closed" if record["reason"] != "graceful":
                self._note(host, connection, record, f"closed: {record['reason']}")
            case "note":
                self._note(host, connection, record, record["text"])

    def _departure(self, host: str, connection: Connection, record: Record) -> None:
        passage = self._passage(host, connection, record)
        passage.causes = self._causes.pop((host, connection), [])
        self._in_flight.setdefault(self._identity(host, record), deque()).append(passage)

    def _arrival(self, host: str, connection: Connection, record: Record) -> None:
        sender = self._other(host)
        if self._initial[sender] is None:
            passage = self._passage(sender, connection, record)
        else:
            passages = self._in_flight.get(self._identity(sender, record))
            if not passages:
                return  # a stranger's
            passage = passages.popleft()
        if record["event"] == "lost_in":
            passage.lost = True
            return
        passage.arrived_at = record["t"]
        passage.marked = record.get("ecn") == "CE"
        before = self._state(host, connection)
        passage.effects = self._consequences(host, connection)
        passage.receiver_state = self._state(host, connection)
        if passage.receiver_state == before:
            passage.crossed = False  # there is nothing to tell of the arrival
        elif passage.crossed:
            self._steps.append(Arrival(passage))

    def _timer(self, host: str, connection: Connection, record: Record) -> None:
        name = record["name"]
        changes = self._consequences(host, connection)
        if name in _QUIET_TIMERS:
            return
        self._note(host, connection, record, _TIMER_NOTES.get(name, f"{name} timer fired"), minor=not changes)
        if name != "2msl":  # leads to no segment
            cause = "RTO fired" if name == "retransmit" else f"{name} timer"
            self._causes.setdefault((host, connection), []).extend([cause, *changes])

    def _passage(self, sender: str, connection: Connection, record: Record) -> Passage:
        receiver = self._other(sender)
        if "S" in record["flags"]:
            self._bases[sender, connection] = record["seq"]
        base = self._bases.setdefault((sender, connection), record["seq"])
        ack = None
        if "." in record["flags"]:
            ack = record["ack"] - self._bases.setdefault((receiver, connection), record["ack"]) & MASK
        before = self._state(receiver, connection)
        seq = record["seq"] - base & MASK
        state = self._state(sender, connection)
        passage = Passage(record["t"], sender, receiver, record, connection, seq, ack, state, before, before)
        self._append(sender, passage)
        return passage

    def _consequences(self, host: str, connection: Connection) -> list[str]:
        """Take from the queue what the engine told next as the result of the record before."""
        texts = []
        queue = self._queues[host]
        while queue and queue[0]["event"] in _CONSEQUENCES and self._connection(host, queue[0]) == connection:
            record = queue.popleft()
            if record["event"] == "state_change":
                texts.append(self._change(host, connection, record))
            elif record["event"] == "drop":
                texts.append(f"dropped: {record['reason']}")
            elif record["reason"] != "graceful":
                texts.append(f"closed: {record['reason']}")
        return texts

    def _change(self, host: str, connection: Connection, record: Record) -> str:
        self._states[host, connection] = record["new"]
        self.transitions[host].append((record["t"], record["old"], record["new"]))
        return f"state {record['old']} -> {record['new']}"

    def _note(self, host: str, connection: Connection, record: Record, text: str, *, minor: bool = False) -> None:
        states = {each: self._state(each, connection) for each in self._hosts}
        self._append(host, Note(record["t"], host, text, states, connection, minor))

    def _append(self, host: str, step: Step) -> None:
        self._steps.append(step)
        for passages in self._in_flight.values():
            for passage in passages:
                passage.crossed = passage.crossed or passage.receiver == host

    def _state(self, host: str, connection: Connection) -> str:
        return self._states.get((host, connection)) or self._initial[host] or ""

    def _other(self, host: str) -> str:
        return self._hosts[1] if host == self._hosts[0] else self._hosts[0]

    def _connection(self, host: str, record: Record) -> Connection:
        """The same for both hosts; a path's number is one host's own, and tells only where there is one host."""
        ends = record["local_port"], record["remote_port"]
        if None in self._initial.values():
            return record["path"], *ends
        return ends if host == self._hosts[0] else ends[::-1]

    @staticmethod
    def _identity(sender: str, record: Record) -> tuple[object, ...]:
        ends = sorted((record["local_port"], record["remote_port"]))
        fields = (record[name] for name in ("flags", "seq", "ack", "wnd", "len"))
        return sender, *ends, *fields, *record["options"]
