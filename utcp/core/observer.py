"""The observer hook: how traces, logs, captures and tests look into a running engine."""

from __future__ import annotations

from mypy_extensions import i64, mypyc_attr

from utcp.core.states import State


@mypyc_attr(allow_interpreted_subclasses=True)
class Observer:
    """Every method does nothing; override what you want. ``now`` is in nanoseconds, ``path`` is the engine's
    path number (``Engine.path_addresses`` tells the addresses). An observer must not call into its engine
    but for getters, and must not raise.
    """

    def segment_in(self, now: i64, path: i64, segment: bytes) -> None:
        """A segment arrived; told before it is processed."""

    def segment_out(self, now: i64, path: i64, segment: bytes, retransmission: bool) -> None:
        """A segment was built and will leave with the next train."""

    def ecn_field(self, now: i64, path: i64, ecn: i64) -> None:
        """The ECN field, where it is not 0, of the IP header of the segment that is told of next (RFC 3168 5)."""

    def drop(self, now: i64, path: i64, segment: bytes, reason: str) -> None:
        """The segment last told of had no effect, for this reason (the key under which it is counted)."""

    def state_change(self, now: i64, path: i64, local_port: i64, remote_port: i64, old: State, new: State) -> None:
        """A connection, or a TIME-WAIT record, went from one state to another."""

    def timer(self, now: i64, path: i64, local_port: i64, remote_port: i64, name: str) -> None:
        """A deadline passed and had an effect."""

    def user_call(self, now: i64, path: i64, local_port: i64, remote_port: i64, name: str) -> None:
        """The user called a method of the connection."""

    def path_mtu(self, now: i64, path: i64, old: i64, new: i64) -> None:
        """The path is now believed to carry IP packets of ``new`` bytes."""

    def closed(self, now: i64, path: i64, local_port: i64, remote_port: i64, reason: str) -> None:
        """The teardown is complete on this side (TIME-WAIT or CLOSED)."""
