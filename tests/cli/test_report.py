"""The demo's verdict: what counts as a graceful teardown, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from utcp.cli.report import Report
from utcp.trace.merge import Passage

GRACEFUL: dict[str, Any] = {"reason": "graceful", "last_ack_missing": False}


def passage(
    flags: str, t: int = 5_000_000, *, sender: str = "client", resent: bool = False, lost: bool = False
) -> Passage:
    record: dict[str, Any] = {"flags": flags, "len": 0, "wnd": 1000, "options": []}
    if resent:
        record["retransmission"] = True
    receiver = {"client": "server", "server": "client"}[sender]
    return Passage(t, sender, receiver, record, (1, 2), 1, 1, "CLOSED", "CLOSED", "CLOSED", lost=lost)


def report(*passages: Passage, **changes: Any) -> Report:
    made = Report({"msl": 1.0})
    up, down = {"bytes": 10, "sha256": "aa"}, {"bytes": 20, "sha256": "bb"}
    made.results = {
        "client": {"sent": up, "received": down, **GRACEFUL, "counters": {"drops": {"no-listener": 1}}},
        "server": {"sent": down, "received": up, **GRACEFUL} | changes,
    }
    made.transitions = {
        "client": [(1_000_000, "CLOSED", "SYN-SENT"), (9_000_000, "TIME-WAIT", "CLOSED")],
        "server": [(2_000_000, "LISTEN", "SYN-RECEIVED"), (8_000_000, "LAST-ACK", "CLOSED")],
    }
    made.passages = list(passages)
    return made


def test_every_byte_and_two_graceful_ends_are_a_success() -> None:
    made = report(passage("F."))
    assert made.problems == []
    assert made.verdict == "Every byte arrived, and both sides closed gracefully"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"received": {"bytes": 9, "sha256": "cc"}}, "the server received 9 bytes of 10, or other bytes"),
        ({"received": {"bytes": 10, "sha256": "cc"}}, "the server received 10 bytes of 10, or other bytes"),
        ({"reason": "timed-out"}, "the server's connection ended otherwise than gracefully: timed-out"),
        ({"error": "ConnectionResetError: peer"}, "server: ConnectionResetError: peer"),
    ],
    ids=["too few", "wrong", "gave up", "error"],
)
def test_anything_else_is_a_failure(changes: dict[str, Any], problem: str) -> None:
    made = report(**changes)
    assert made.problems == [problem]
    assert made.verdict == f"FAILED: {problem}"
    assert made.as_dict()["ok"] is False


def test_a_reset_is_a_failure() -> None:
    assert report(passage("R."), passage("R")).problems == ["2 RST"]


def test_a_last_ack_that_outlived_time_wait_is_named_and_no_failure() -> None:
    made = report(passage("R", 9_500_000), reason="timed-out", last_ack_missing=True)
    assert made.problems == []
    assert "the server's LAST-ACK outlived the other side's TIME-WAIT" in made.verdict


def test_a_reset_before_that_is_a_failure_even_then() -> None:
    assert report(passage("R"), reason="timed-out", last_ack_missing=True).problems == ["1 RST"]


def test_a_fin_that_was_repeated_after_time_wait_is_named_and_no_failure() -> None:
    made = report(passage("R", 9_500_000))
    assert made.problems == []
    assert "answered with a RST" in made.verdict


def test_an_ack_that_was_repeated_after_last_ack_is_named_and_no_failure() -> None:
    assert report(passage("R", 7_500_000, sender="server")).problems == ["1 RST"]
    made = report(passage("R", 8_500_000, sender="server"))
    assert made.problems == []
    assert "answered with a RST" in made.verdict


def test_a_side_that_is_not_closed_is_a_failure() -> None:
    made = report()
    made.transitions["client"].pop()
    assert made.problems == ["the client ended in SYN-SENT"]


def test_a_process_that_dies_is_a_failure() -> None:
    made = report()
    del made.results["server"]
    made.exit_codes = {"server": -9}
    assert made.problems == ["the server ended without a result, exit code -9"]


def test_a_process_that_fails_after_its_result_is_a_failure() -> None:
    made = report()
    made.exit_codes = {"client": 0, "server": 1}
    assert made.problems == ["the server's process ended with exit code 1"]


def test_the_json_object_has_segments_transitions_bytes_states_and_counts() -> None:
    made = report(passage("S", lost=True), passage("S", resent=True)).as_dict()
    assert made["ok"] is True
    assert made["client"]["final_state"] == "CLOSED"
    assert made["client"]["transitions"][0] == {"t_ms": 0.0, "from": "CLOSED", "to": "SYN-SENT"}
    assert made["client"]["sent"] == made["server"]["received"] == {"bytes": 10, "sha256": "aa"}
    assert (made["client"]["retransmissions"], made["client"]["lost"], made["server"]["lost"]) == (1, 1, 0)
    assert made["client"]["drops"] == {"no-listener": 1}
    first, second = made["segments"]
    assert (first["t_ms"], first["lost"], second["retransmission"]) == (4.0, True, True)
    assert (first["from"], first["to"], first["client_state"], first["server_state"]) == (
        "client",
        "server",
        "CLOSED",
        "CLOSED",
    )
