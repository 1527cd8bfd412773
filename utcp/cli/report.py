"""What came of a demo: the verdict, and everything as one JSON object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from utcp.trace.merge import Passage
from utcp.trace.records import Record

SIDES = ("client", "server")


@dataclass
class Report:
    """Collects a demo's segments and results, and judges them."""

    options: dict[str, Any]
    results: dict[str, Record] = field(default_factory=dict)  # each side's last word
    exit_codes: dict[str, int] = field(default_factory=dict)
    transitions: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    passages: list[Passage] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Everything that was not as it has to be; empty if the connection was torn down gracefully."""
        return [problem for side in SIDES for problem in self._problems_of(side)] + self._resets()

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.problems:
            return "FAILED: " + "; ".join(self.problems)
        verdict = "Every byte arrived, and both sides closed gracefully"
        missing = [side for side in SIDES if self.results[side]["last_ack_missing"]]
        if missing:
            return f"{verdict}; the {missing[0]}'s LAST-ACK outlived the other side's TIME-WAIT, and saw no last ACK"
        if any(self._is_late_reset(passage) for passage in self.passages):
            return f"{verdict}; what was repeated after that, a FIN or its ACK, was answered with a RST"
        return verdict

    def final_state(self, side: str) -> str:
        transitions = self.transitions[side]
        return transitions[-1][2] if transitions else "CLOSED"

    def retransmissions(self, side: str) -> int:
        return sum(passage.retransmission for passage in self.passages if passage.sender == side)

    def lost(self, side: str) -> int:
        """Segments of ``side`` that did not arrive."""
        return sum(passage.lost for passage in self.passages if passage.sender == side)

    def as_dict(self) -> dict[str, Any]:
        """The report for ``--json``. Times are milliseconds since the first event."""
        starts = [passage.sent_at for passage in self.passages] + [ts[0][0] for ts in self.transitions.values() if ts]
        origin = min(starts, default=0)
        return {
            "ok": not self.problems,
            "verdict": self.verdict,
            "problems": self.problems,
            "options": self.options,
            **{side: self._side(side, origin) for side in SIDES},
            "segments": [_segment(passage, origin) for passage in self.passages],
        }

    def _problems_of(self, side: str) -> list[str]:
        other = SIDES[1 - SIDES.index(side)]
        result = self.results.get(side)
        if result is None:
            return [f"the {side} ended without a result, exit code {self.exit_codes.get(side)}"]
        if "error" in result:
            return [f"{side}: {result['error']}"]
        problems = []
        sent = self.results.get(other, {}).get("sent")
        if sent is not None and result["received"] != sent:
            got, due = result["received"]["bytes"], sent["bytes"]
            problems.append(f"the {side} received {got:,} bytes of {due:,}, or other bytes")
        if result["reason"] != "graceful" and not result["last_ack_missing"]:
            problems.append(f"the {side}'s connection ended otherwise than gracefully: {result['reason']}")
        if code := self.exit_codes.get(side):
            problems.append(f"the {side}'s process ended with exit code {code}")
        if self.final_state(side) != "CLOSED":
            problems.append(f"the {side} ended in {self.final_state(side)}")
        return problems

    def _resets(self) -> list[str]:
        count = sum("R" in passage.record["flags"] and not self._is_late_reset(passage) for passage in self.passages)
        return [f"{count} RST"] if count else []

    def _is_late_reset(self, passage: Passage) -> bool:
        """Whether its sender was through with the connection: it answers a FIN that was repeated after TIME-WAIT was
        over, or the ACK of a FIN that left twice, another one of which had ended LAST-ACK."""
        over = [t for t, old, _ in self.transitions[passage.sender] if old in ("TIME-WAIT", "LAST-ACK")]
        return "R" in passage.record["flags"] and any(t <= passage.sent_at for t in over)

    def _side(self, side: str, origin: int) -> dict[str, Any]:
        result = self.results.get(side, {})
        return {
            "final_state": self.final_state(side),
            "transitions": [{"t_ms": _ms(t, origin), "from": old, "to": new} for t, old, new in self.transitions[side]],
            "sent": result.get("sent"),
            "received": result.get("received"),
            "reason": result.get("reason"),
            "last_ack_missing": result.get("last_ack_missing"),
            "error": result.get("error"),
            "retransmissions": self.retransmissions(side),
            "lost": self.lost(side),
            "drops": result.get("counters", {}).get("drops", {}),
        }


def _segment(passage: Passage, origin: int) -> dict[str, Any]:
    record = passage.record
    return {
        "t_ms": _ms(passage.sent_at, origin),
        "arrived_ms": None if passage.arrived_at is None else _ms(passage.arrived_at, origin),
        "from": passage.sender,
        "to": passage.receiver,
        "flags": record["flags"],
        "seq": passage.seq,
        "ack": passage.ack,
        "len": record["len"],
        "window": record["wnd"],
        "options": record["options"],
        "retransmission": passage.retransmission,
        "lost": passage.lost,
        f"{passage.sender}_state": passage.sender_state,
        f"{passage.receiver}_state": passage.receiver_state,
        "comments": passage.comments,
    }


def _ms(t: int, origin: int) -> float:
    return round((t - origin) / 1e6, 4)
