"""The eleven states of RFC 9293 3.3.2, the legal transitions between them, and the readiness bits.

Inside the engine a state is a small integer (a comparison costs a nanosecond compiled, and a set of states is
a bit mask); users see the ``State`` enum.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from librt.vecs import vec
from mypy_extensions import i64


class State(IntEnum):
    """Connection states; ``str()`` gives the RFC's spelling, e.g. ``FIN-WAIT-1``."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10

    def __str__(self) -> str:
        return self.name.replace("_", "-")


CLOSED: Final = 0
LISTEN: Final = 1
SYN_SENT: Final = 2
SYN_RECEIVED: Final = 3
ESTABLISHED: Final = 4
FIN_WAIT_1: Final = 5
FIN_WAIT_2: Final = 6
CLOSE_WAIT: Final = 7
CLOSING: Final = 8
LAST_ACK: Final = 9
TIME_WAIT: Final = 10

# States in which the peer may still send: it has not closed its side
RECEIVING: Final = (1 << ESTABLISHED) | (1 << FIN_WAIT_1) | (1 << FIN_WAIT_2)

# Readiness bits of a Connection (docs/engine.md)
CONNECTED: Final = 1
READABLE: Final = 2
EOF: Final = 4
SENT: Final = 8
ACKED: Final = 16
FIN_ACKED: Final = 32
CLOSED_BIT: Final = 64
URGENT: Final = 128

# RFC 9293 Figure 5, plus the abort edges (RST, ABORT, time-outs) that lead to CLOSED from anywhere.
# Indexed by the old state; a bit per new state.
TRANSITIONS: Final = vec[i64](
    [
        (1 << SYN_SENT) | (1 << LISTEN) | (1 << SYN_RECEIVED),  # CLOSED (SYN-RECEIVED: a listener's child)
        (1 << SYN_RECEIVED) | (1 << SYN_SENT) | (1 << CLOSED),  # LISTEN
        (1 << ESTABLISHED) | (1 << SYN_RECEIVED) | (1 << CLOSED),  # SYN-SENT
        (1 << ESTABLISHED) | (1 << FIN_WAIT_1) | (1 << CLOSE_WAIT) | (1 << LISTEN) | (1 << CLOSED),  # SYN-RECEIVED
        (1 << FIN_WAIT_1) | (1 << CLOSE_WAIT) | (1 << CLOSED),  # ESTABLISHED
        (1 << FIN_WAIT_2) | (1 << CLOSING) | (1 << TIME_WAIT) | (1 << CLOSED),  # FIN-WAIT-1
        (1 << TIME_WAIT) | (1 << CLOSED),  # FIN-WAIT-2
        (1 << LAST_ACK) | (1 << CLOSED),  # CLOSE-WAIT
        (1 << TIME_WAIT) | (1 << CLOSED),  # CLOSING
        (1 << CLOSED),  # LAST-ACK
        (1 << CLOSED) | (1 << SYN_RECEIVED),  # TIME-WAIT (SYN-RECEIVED: reuse, RFC 6191, MAY-2)
    ]
)


def legal_transition(old: i64, new: i64) -> bool:
    """Whether RFC 9293 Figure 5 (or an abort) leads from ``old`` to ``new``."""
    return (TRANSITIONS[old] >> new) & 1 != 0
