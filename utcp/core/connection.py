"""The user's view of a connection: RFC 9293 3.9.1's calls, on the TCB."""

from __future__ import annotations

import errno
from typing import Final, final

from mypy_extensions import i64

from utcp.core.buffers import SendQueue
from utcp.core.closing import abort, close, close_sending_side, stop_reading
from utcp.core.config import CONNECTION_OPTIONS, Policy, changed
from utcp.core.congestion.window import follow_policy
from utcp.core.deadlines import unacked_data
from utcp.core.handshake import set_smss, start_keepalive
from utcp.core.info import ConnectionInfo, snapshot
from utcp.core.receive_buffer import follow_policy as follow_receive_buffer
from utcp.core.receive_buffer import on_read
from utcp.core.states import SYN_RECEIVED, TIME_WAIT, State
from utcp.core.tcb import Tcb, count_held, mark_dirty, queued_bytes
from utcp.core.teardown import ABORTED
from utcp.core.urgent import mark_urgent, urgent_bytes

SHUT_RD: Final = 0
SHUT_WR: Final = 1
SHUT_RDWR: Final = 2


@final
class Connection(Tcb):
    """One connection. Getters first, then the user calls; ``now`` is in nanoseconds.

    It may be dropped at any time after ``close`` or ``abort``: what is left is the engine's business. Bytes
    received stay readable after the end.
    """

    __slots__ = ()

    # Getters

    @property
    def state(self) -> State:
        """The state now. TIME-WAIT turns into CLOSED when its record has expired."""
        if self.st == TIME_WAIT and self.stack.time_wait.find(self.key) < 0:
            return State.CLOSED
        return State(self.st)

    @property
    def closed(self) -> bool:
        """The teardown is complete on this side: TIME-WAIT or CLOSED. It never waits for 2MSL."""
        return self.done

    @property
    def readable_bytes(self) -> int:
        queue = self.receive_queue
        if queue is None:
            return 0
        return queue.size

    @property
    def at_eof(self) -> bool:
        """The peer's FIN has been reached and everything before it read."""
        return self.fin_received and self.readable_bytes == 0

    @property
    def send_queue_size(self) -> int:
        """Bytes written and not yet handed to the network."""
        return queued_bytes(self)

    @property
    def unacked_bytes(self) -> int:
        """Bytes written and not yet acknowledged by the peer's TCP."""
        return unacked_data(self)

    @property
    def urgent_bytes(self) -> int:
        """How many bytes from the reader's position on are urgent; they may not all have arrived (MUST-33)."""
        return urgent_bytes(self)

    def take_ready(self) -> i64:
        """The readiness bits collected since the last call (utcp.core.states)."""
        bits = self.ready_bits
        self.ready_bits = 0
        return bits

    def info(self, now: i64 = 0) -> ConnectionInfo:
        """A snapshot of the connection's variables, in the spirit of Linux's tcp_info.

        Durations reach until ``now``, or the latest instant that the engine was told if that is later.
        """
        return snapshot(self, max(now, self.stack.now))

    def __repr__(self) -> str:
        return f"<Connection path={self.path} {self.local_port}>{self.remote_port} {self.state}>"

    # User calls

    def send(self, data: bytes | bytearray | memoryview, now: i64) -> None:
        """Queue bytes; there is no limit, ``send_queue_size`` tells when to pause.

        Raises BrokenPipeError after the sending side was closed, and the connection's own error if it has one.
        """
        self._call("send", now)
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.done or self.fin_queued or self.orphan:
            raise BrokenPipeError(errno.EPIPE, "Cannot send: the sending side is closed")
        # bytes by itself: compiled, that is a comparison
        if not isinstance(data, bytes) and not isinstance(data, (bytearray, memoryview)):
            raise TypeError(f"data: expected a bytes-like object, not {type(data).__name__}")
        if len(data) == 0:
            return
        queue = self.send_queue
        if queue is None:
            queue = SendQueue()
            self.send_queue = queue
        queue.write(data)
        mark_dirty(self)

    def send_urgent(self, data: bytes | bytearray | memoryview, now: i64) -> None:
        """As ``send``, and the peer is told that everything up to the end of ``data`` is urgent (RFC 6093).

        The bytes stay in line. RFC 6093 5 advises new applications against it (SHLD-13).
        """
        self.send(data, now)
        mark_urgent(self)

    def receive(self, limit: int = -1) -> bytes:
        """Up to ``limit`` bytes (all if negative); b"" when there is nothing now. Reading opens the window."""
        queue = self.receive_queue
        if queue is None or queue.size == 0:
            return b""
        data = queue.take(limit)
        count_held(self)
        if self.sizing is not None:
            on_read(self)
        if self.urgent_in and urgent_bytes(self) == 0:
            self.urgent_in = False
        if not self.done and not self.fin_received:
            self.window_update = True
            mark_dirty(self)
        return data

    def peek(self, limit: int = -1) -> bytes:
        """As ``receive``, but the bytes stay."""
        queue = self.receive_queue
        return b"" if queue is None else queue.peek(limit)

    def shutdown(self, how: int, now: i64) -> None:
        """Close one direction, or both.

        SHUT_WR is half-close: a FIN behind all data, reading goes on. SHUT_RD: what arrives is acknowledged and
        discarded, and makes a later ``close`` a reset. Raises ValueError for any other ``how``, OSError
        (ENOTCONN) after the end.
        """
        if how not in (SHUT_RD, SHUT_WR, SHUT_RDWR):
            raise ValueError(f"how: {how} is not SHUT_RD, SHUT_WR or SHUT_RDWR")
        self._call("shutdown", now)
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.done:
            raise OSError(errno.ENOTCONN, "Cannot shut down: the connection is closed")
        if how != SHUT_WR:
            stop_reading(self)
            mark_dirty(self)
        if how != SHUT_RD:
            close_sending_side(self)

    def close(self, now: i64, *, flush: bool = False) -> None:
        """Nothing more to send, nothing more will be read; a second call does nothing.

        Unread data, or data that arrives later, means RST (SHLD-3). With ``flush`` what was written is first sent
        and acknowledged, and arriving data discarded meanwhile; then FIN, or RST if anything was discarded.
        """
        self._call("close", now)
        close(self, flush)

    def lingering_close(self, timeout: i64, now: i64) -> None:
        """As ``close`` with ``flush``, but what arrives is discarded until the peer's FIN, and is no reason for a RST.

        That comes after ``timeout`` nanoseconds, which bound the whole of it. After ``close`` it does nothing.
        """
        self._call("close", now)
        close(self, True, timeout)

    def abort(self, now: i64) -> None:
        """End it at once, with a RST where RFC 9293 3.10.5 sends one; a second call does nothing."""
        self._call("abort", now)
        abort(self, ABORTED, None)

    def set_option(self, name: str, value: object, now: i64) -> None:
        """Change one Config field for this connection. Raises ValueError or TypeError, with nothing changed."""
        if name not in CONNECTION_OPTIONS:
            raise ValueError(
                f"{name}: not an option of a connection (these are: {', '.join(sorted(CONNECTION_OPTIONS))})"
            )
        policy = changed(self.policy, name, value)
        self._call("set_option", now)
        self.follow(policy, name)

    def follow(self, policy: Policy, name: str) -> None:
        """For the engine: from now on ``policy`` holds, which differs in the option ``name``."""
        self.policy = policy
        self.window_update = True
        if name == "max_segment_size" and self.st >= SYN_RECEIVED:
            set_smss(self)
        if name.startswith("keepalive"):
            self.keepalive_probes = 0
            if self.syn_acked and not self.done:
                start_keepalive(self)
        if name in ("congestion_control", "pacing"):
            follow_policy(self, name)
        if name in ("receive_buffer", "max_receive_buffer"):
            follow_receive_buffer(self)
        if name == "user_timeout":
            self.user_timeout_due = policy.user_timeout_option
        if not self.done:
            mark_dirty(self)

    def _call(self, name: str, now: i64) -> None:
        stack = self.stack
        if now > stack.now:
            stack.now = now
        if stack.observer is not None:
            stack.tell_user_call(self.key, name)
