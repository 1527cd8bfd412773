"""The state machine's table against RFC 9293 Figure 5, written down a second time."""

from __future__ import annotations

import pytest

from utcp.core.states import RECEIVING, State, legal_transition

# Every state leads to CLOSED too, by RST, ABORT or a time-out, but for CLOSED itself.
FIGURE_5 = {
    "CLOSED": "LISTEN SYN-SENT SYN-RECEIVED",  # the last one: a listener's child
    "LISTEN": "SYN-SENT SYN-RECEIVED",
    "SYN-SENT": "SYN-RECEIVED ESTABLISHED",
    "SYN-RECEIVED": "LISTEN ESTABLISHED FIN-WAIT-1 CLOSE-WAIT",
    "ESTABLISHED": "FIN-WAIT-1 CLOSE-WAIT",
    "FIN-WAIT-1": "FIN-WAIT-2 CLOSING TIME-WAIT",
    "FIN-WAIT-2": "TIME-WAIT",
    "CLOSE-WAIT": "LAST-ACK",
    "CLOSING": "TIME-WAIT",
    "LAST-ACK": "",
    "TIME-WAIT": "SYN-RECEIVED",  # MAY-2
}


@pytest.mark.parametrize("old", State)
def test_from_each_state_to_those_of_the_figure_and_no_other(old: State) -> None:
    legal = {str(new) for new in State if legal_transition(old, new)}
    closed = set() if old is State.CLOSED else {"CLOSED"}
    assert legal == set(FIGURE_5[str(old)].split()) | closed


def test_a_peer_that_has_not_closed_may_send() -> None:
    states = {str(state) for state in State if (RECEIVING >> state) & 1}
    assert states == {"ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2"}
