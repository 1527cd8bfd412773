"""How a connection ended: more than an exception can say."""

from __future__ import annotations

from typing import NamedTuple

from utcp.core.connection import Connection
from utcp.core.info import closed_by_peer, last_ack_missing, seconds_in
from utcp.core.states import State


class CloseInfo(NamedTuple):
    """What ``await transport.closed()`` returns once the teardown is complete on this side.

    Attributes:
        reason: ``graceful`` (both FINs acknowledged), ``reset-by-peer``, ``aborted``, ``timed-out``, ``refused``,
            ``unread-data`` (we closed before reading everything, and so reset), ``linger-expired`` (a lingering close,
            or the ``linger`` of Config, took too long), ``endpoint-closed`` (before the peer's FIN came) and other
            words of the engine's; under TLS also ``truncated`` (the peer's FIN came without its close_notify).
        by_peer: the other side closed first: its FIN, or its RST, came before our close.
        unacked_bytes: written here and never acknowledged by the peer's TCP.
        unread_bytes: arrived here and not given to the application so far, or discarded by a close. What lies in the
            buffer of a StreamReader has been given.
        last_ack_missing: everything is acknowledged but our FIN, which answered the peer's: the connection
            counts as closed gracefully, only the peer's last ACK was never seen.
        retransmissions: segments sent again during the connection's life.
        seconds_in: how long each closing state took, of those the connection went through and in their order:
            FIN-WAIT-1, FIN-WAIT-2, CLOSING, CLOSE-WAIT, LAST-ACK. TIME-WAIT is not among them: nobody waits for it.
        error: the engine's reason as an exception, None for a graceful end and for one of our own making.
    """

    reason: str
    by_peer: bool
    unacked_bytes: int
    unread_bytes: int
    last_ack_missing: bool
    retransmissions: int
    seconds_in: dict[State, float]
    error: Exception | None

    @classmethod
    def of(cls, connection: Connection) -> CloseInfo:
        """Of a connection of the engine's. Raises ValueError while it is not ``closed``."""
        if not connection.closed:
            raise ValueError(f"{connection!r} is not closed")
        return cls(
            reason=connection.reason,
            by_peer=closed_by_peer(connection),
            unacked_bytes=connection.unacked_bytes,
            unread_bytes=connection.readable_bytes + connection.discarded,
            last_ack_missing=last_ack_missing(connection),
            retransmissions=connection.retransmissions,
            seconds_in=seconds_in(connection, connection.stack.now),
            error=connection.error,
        )

    def __str__(self) -> str:
        """In a line, e.g. ``graceful, closed first here, 0 retransmissions, FIN-WAIT-1 0.4 ms, FIN-WAIT-2 1.2 s``."""
        words = [self.reason, f"closed first {'by the peer' if self.by_peer else 'here'}"]
        words += [f"{count:,} bytes {word}" for count, word in self._lost() if count]
        words += ["the last ACK is missing"] * self.last_ack_missing
        words += [f"{self.retransmissions:,} retransmission{'s' * (self.retransmissions != 1)}"]
        words += [f"{state} {_duration(seconds)}" for state, seconds in self.seconds_in.items()]
        return ", ".join(words)

    def _lost(self) -> tuple[tuple[int, str], ...]:
        return (self.unacked_bytes, "unacknowledged"), (self.unread_bytes, "unread")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
