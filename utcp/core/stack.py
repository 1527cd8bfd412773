"""The state that all connections of one engine share: the clock's last reading, tables, timers, the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from mypy_extensions import i64

from utcp.core.config import Config, Policy, policy_of
from utcp.core.congestion.control import Ack
from utcp.core.connection_table import ConnectionTable
from utcp.core.counters import Counters
from utcp.core.observer import Observer
from utcp.core.paths import Paths
from utcp.core.states import State
from utcp.core.time_wait_table import TimeWaitTable
from utcp.core.timers import TimerWheel
from utcp.core.trains import Trains
from utcp.wire.segment import Segment

if TYPE_CHECKING:
    from utcp.core.listener import Listener
    from utcp.core.tcb import Tcb

NEVER: Final = 1 << 61  # 73 years; larger would not be an immediate integer in compiled code
MILLISECOND: Final = 1_000_000


@final
class Stack:
    """One engine's shared state. Everything here is reached from a connection as ``tcb.stack``."""

    def __init__(
        self,
        config: Config,
        secret: bytes,
        isn: Callable[[int, int, int], int] | None,
        timestamp_clock: Callable[[int], int] | None,
        paths: Paths,
        hash_seed: i64,
        observer: Observer | None,
    ) -> None:
        self.now: i64 = 0
        self.config: Config = config
        self.policy: Policy = policy_of(config)
        self.secret: bytes = secret
        self.isn: Callable[[int, int, int], int] | None = isn
        self.timestamp_clock: Callable[[int], int] | None = timestamp_clock
        self.observer: Observer | None = observer
        self.counters: Counters = Counters()
        self.paths: Paths = paths
        self.trains: Trains = Trains()
        self.wheel: TimerWheel = TimerWheel()
        self.time_wait: TimeWaitTable = TimeWaitTable(hash_seed)
        self.listeners: dict[int, Listener] = {}
        self.hash_seed: i64 = hash_seed
        self.connections: ConnectionTable = ConnectionTable(hash_seed)
        self.dirty: list[Tcb] = []  # those for which ``output`` has something to look at
        self.patient: bool = False  # ACKs that can wait do: see ``Engine.transmit``
        self.acks_could_wait: bool = False  # some could have: users are not called back, but run later
        self.held_acks: list[Tcb] = []  # whose do
        self.ready: list[Tcb] = []
        self.ready_listeners: list[Listener] = []
        self.orphans: i64 = 0
        self.half_open: i64 = 0  # in SYN-RECEIVED, from listeners
        self.held: i64 = 0  # bytes received and not read, of all connections
        self.seg: Segment = Segment()  # filled anew for each arriving segment
        self.ecn: i64 = 0  # the ECN field of the IP header that brought it (RFC 3168 5)
        self.uses_ecn: bool = False  # a connection has asked for ECN, or agreed on it
        self.failed: list[tuple[Tcb, Exception]] = []  # whose congestion control has raised
        self.ack: Ack = Ack()  # filled anew for each acknowledgment that tells something new
        # Challenge ACKs: RFC 5961 7
        self.challenge_window_at: i64 = -NEVER
        self.challenge_budget: i64 = 0

    def crowded(self) -> bool:
        """No room for one more connection."""
        return len(self.connections) >= self.policy.max_connections

    def ts_now(self, offset: i64) -> i64:
        """The TSval of this instant (RFC 7323 5.4: one tick a millisecond)."""
        clock = self.timestamp_clock
        if clock is not None:
            return clock(self.now) & 0xFFFFFFFF
        return (self.now // MILLISECOND + offset) & 0xFFFFFFFF

    # Hot paths look first whether there is an observer: a comparison, where a call in vain is 30 instructions

    def tell_state_change(self, key: i64, old: i64, new: i64) -> None:
        observer = self.observer
        if observer is not None:
            observer.state_change(self.now, key_path(key), key_local(key), key_remote(key), State(old), State(new))

    def tell_timer(self, key: i64, name: str) -> None:
        observer = self.observer
        if observer is not None:
            observer.timer(self.now, key_path(key), key_local(key), key_remote(key), name)

    def tell_user_call(self, key: i64, name: str) -> None:
        observer = self.observer
        if observer is not None:
            observer.user_call(self.now, key_path(key), key_local(key), key_remote(key), name)

    def tell_closed(self, key: i64, reason: str) -> None:
        observer = self.observer
        if observer is not None:
            observer.closed(self.now, key_path(key), key_local(key), key_remote(key), reason)


def connection_key(path: i64, local_port: i64, remote_port: i64) -> i64:
    """A connection's identity as one integer."""
    return (path << 32) | (local_port << 16) | remote_port


def key_path(key: i64) -> i64:
    return key >> 32


def key_local(key: i64) -> i64:
    return (key >> 16) & 0xFFFF


def key_remote(key: i64) -> i64:
    return key & 0xFFFF


def drop(stack: Stack, seg: Segment, start: i64, end: i64, path: i64, reason: str) -> None:
    """Count a segment that has no effect, and tell the observer why."""
    stack.counters.drop(reason)
    observer = stack.observer
    if observer is not None:
        observer.drop(stack.now, path, seg.buf[start:end], reason)
