"""How a connection ended: more than an exception can say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CloseInfo:
    """What ``await transport.closed()`` returns once the teardown is complete on this side.

    Attributes:
        reason: ``graceful`` (both FINs acknowledged), ``reset-by-peer``, ``aborted``, ``timed-out``, ``refused``,
            ``unread-data`` (we closed before reading everything, and so reset) and other words of the engine's.
        by_peer: the other side began it: its FIN came before our close, or it reset.
        unacked_bytes: written here and never acknowledged by the peer's TCP.
        unread_bytes: arrived here and never given to the application.
        last_ack_missing: everything is acknowledged but our FIN, which answered the peer's: the connection
            counts as closed gracefully, only the peer's last ACK was never seen.
        retransmissions: segments sent again during the connection's life.
        error: the engine's reason as an exception, None for a graceful end and for one of our own making.
    """

    reason: str
    by_peer: bool
    unacked_bytes: int
    unread_bytes: int
    last_ack_missing: bool
    retransmissions: int
    error: Exception | None
