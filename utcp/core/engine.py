"""The engine: every connection of one UDP socket, driven from outside (docs/engine.md)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from os import urandom
from typing import Any, Final, cast, final

from mypy_extensions import i64

from utcp.core.arrives import segment_arrives
from utcp.core.closing import abort
from utcp.core.config import CONNECTION_OPTIONS, Config, changed, policy_of
from utcp.core.connection import Connection
from utcp.core.connection_table import ConnectionTable
from utcp.core.counters import Counters
from utcp.core.deadlines import arm, earliest_deadline
from utcp.core.ecn import CE
from utcp.core.handshake import offer_options
from utcp.core.isn import choose_initial_numbers, raise_iss_above
from utcp.core.listener import Listener
from utcp.core.observer import Observer
from utcp.core.output import output
from utcp.core.path_mtu import on_message_too_long, on_packet_too_big
from utcp.core.paths import Path, PathError, Paths
from utcp.core.policy import Policy
from utcp.core.ports import EPHEMERAL_PORTS, PortRing
from utcp.core.reset import refused
from utcp.core.stack import NEVER, Stack, connection_key
from utcp.core.states import LISTEN, SYN_SENT, TIME_WAIT, State
from utcp.core.tcb import Tcb, mark_dirty
from utcp.core.teardown import ABORTED, REFUSED, adopt, enter_closed, evict_time_wait
from utcp.core.time_wait import expire_time_wait, reusable_locally, take_over
from utcp.core.timeouts import run_deadlines
from utcp.core.trains import Train
from utcp.core.transition import set_state

MAX_PORT: Final = 65_535
# TIME-WAIT records deleted in one call of handle_timeout: a bound on the pause when many expire together
EXPIRE_AT_ONCE: Final = 4096
FEW_SLOTS: Final = 256  # are not worth giving back


@final
class Engine:
    """TCP without I/O. Getters, input from outside, user calls, pulls: in that order below.

    The caller owns the clock: ``now`` is monotonic, in nanoseconds, and never goes back (an earlier value than
    the last one counts as the last one). After any input or user call it pulls ``ready``, ``ready_listeners``,
    ``transmit`` and ``next_timeout``.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        secret: bytes | None = None,
        isn: Callable[[int, int, int], int] | None = None,
        timestamp_clock: Callable[[int], int] | None = None,
        port_source: Callable[[], int] | None = None,
        mtu: Callable[[Any, Any], int] | int | None = None,
        link_mtu: Callable[[Any, Any], int] | int | None = None,
        observer: Observer | None = None,
    ) -> None:
        if secret is None:
            secret = urandom(32)
        elif len(secret) < 16:
            raise ValueError(f"secret: {len(secret)} bytes are fewer than 16")
        if config is None:
            config = Config()
        self._stack: Stack = Stack(
            config,
            secret,
            isn,
            timestamp_clock,
            Paths(secret, policy_of(config), mtu, link_mtu),
            int.from_bytes(secret[:7], "big"),
            observer,
        )
        self._ports: PortRing = PortRing(secret)
        self._port_source: Callable[[], int] | None = port_source
        self._more_expiries: bool = False

    # Getters

    @property
    def config(self) -> Config:
        return self._stack.config

    @config.setter
    def config(self, config: Config) -> None:
        """Holds for what begins after it: connections made and accepted from now on, and their TIME-WAIT records.

        A listener with a configuration of its own keeps it. ``set_option`` changes what lives, too.
        """
        stack = self._stack
        before = stack.policy
        self._follow(policy_of(config))
        for listener in stack.listeners.values():
            if listener.policy is before:
                listener.policy = stack.policy

    def _follow(self, policy: Policy) -> None:
        stack = self._stack
        stack.policy = policy
        stack.config = policy.config
        stack.paths.policy = policy

    @property
    def counters(self) -> Counters:
        counters = self._stack.counters
        counters.paths_released = self._stack.paths.released
        return counters

    @property
    def observer(self) -> Observer | None:
        return self._stack.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._stack.observer = observer

    @property
    def now(self) -> int:
        """The latest instant the engine was told of."""
        return self._stack.now

    @property
    def stack(self) -> Stack:
        """The engine's insides, for tests and for whoever experiments."""
        return self._stack

    @property
    def memory(self) -> int:
        """Bytes received and not yet read, in order or not, of all connections that live (``max_memory``); a range out
        of order counts for 512 at least, for so much memory it takes."""
        return self._stack.held

    @property
    def time_wait_count(self) -> int:
        return len(self._stack.time_wait)

    def next_timeout(self) -> int | None:
        """When to call ``handle_timeout``, or None. Reads deadlines only; may be earlier than necessary."""
        at = self.next_deadline()
        return None if at == NEVER else at

    def next_deadline(self) -> i64:
        """As ``next_timeout``, for compiled callers: an instant that never comes for None."""
        stack = self._stack
        if self._more_expiries:
            return stack.now
        at: i64 = stack.wheel.next_deadline()
        expiry: i64 = stack.time_wait.next_deadline()
        if at < 0:
            return NEVER if expiry < 0 else expiry
        return at if expiry < 0 or at < expiry else expiry

    def connections(self) -> Iterator[Connection]:
        """Every live connection, embryonic ones too; TIME-WAIT records are in ``states`` only."""
        return iter([_connection(tcb) for tcb in self._stack.connections.values()])

    def connection(self, path: int, local_port: int, remote_port: int) -> Connection | None:
        tcb = self._stack.connections.get(connection_key(path, local_port, remote_port))
        return None if tcb is None else _connection(tcb)

    @property
    def uses_ecn(self) -> bool:
        """Whether the driver shall tell ``receive`` of ECN fields: a connection has asked for ECN, or agreed on it."""
        return self._stack.uses_ecn

    def connection_count(self) -> int:
        return len(self._stack.connections)

    def states(self) -> dict[State, int]:
        """How many connections are in each state; LISTEN counts listeners, TIME-WAIT records."""
        counts: dict[State, int] = {}
        for tcb in self._stack.connections.values():
            state = State(tcb.st)
            counts[state] = counts.get(state, 0) + 1
        if len(self._stack.time_wait) > 0:
            counts[State(TIME_WAIT)] = len(self._stack.time_wait)
        if self._stack.listeners:
            counts[State(LISTEN)] = len(self._stack.listeners)
        return counts

    def listeners(self) -> list[Listener]:
        return list(self._stack.listeners.values())

    def path_addresses(self, path: int) -> tuple[object, object]:
        """(local, peer) as they were given to ``path``. Raises KeyError for a number that is not in use."""
        found = self._stack.paths.get(path)
        if found is None:
            raise KeyError(path)
        return found.local, found.peer

    # Input from outside: never raises

    def path(self, local: object, peer: object) -> int:
        """The number of the path between two addresses (any hashable objects).

        It stays good while a connection or a TIME-WAIT record uses it, and for a second after the last call that
        returned it.
        """
        return self._stack.paths.intern(local, peer, self._stack.now).index

    def receive(self, path: i64, data: bytes, now: i64, segment_size: i64 = 0, ecn: i64 = 0) -> None:
        """One buffer from the socket: a segment, or (GRO) several of ``segment_size`` bytes and a last one.

        ``ecn``: the ECN field of their IP headers (RFC 3168 5).
        """
        stack = self._stack
        stack.now = max(stack.now, now)
        route = stack.paths.get(path)
        if route is None:
            stack.counters.drop("unknown-path")
            return
        route.used_at = stack.now
        stack.ecn = ecn
        end: i64 = len(data)
        if ecn == CE:
            stack.counters.ce_in += 1 if segment_size <= 0 else (end + segment_size - 1) // segment_size
        if segment_size <= 0 or segment_size >= end:
            segment_arrives(stack, route, data, 0, end)
            return
        start: i64 = 0
        last = end - segment_size
        while start < last:
            segment_arrives(stack, route, data, start, start + segment_size)
            start += segment_size
        segment_arrives(stack, route, data, start, end)

    def path_error(self, path: int, kind: PathError, now: i64, mtu: int = 0, quote: bytes = b"") -> None:
        """What ICMP or the local system said about a path (RFC 9293 3.9.2.2; RFC 5461).

        A refusal ends connections that are still in SYN-SENT; for all others it is a soft error (MUST-56). ``mtu``, in
        bytes, and ``quote``, the first bytes of the segment in question, are for a packet that was too big.
        """
        stack = self._stack
        stack.now = max(stack.now, now)
        route = stack.paths.get(path)
        if route is None:
            return
        if kind == PathError.PACKET_TOO_BIG:
            on_packet_too_big(stack, route, mtu, quote)
            return
        if kind == PathError.MESSAGE_TOO_LONG:
            on_message_too_long(stack, route, mtu)
            return
        route.soft_error = str(PathError(kind))
        if kind not in (PathError.PORT_UNREACHABLE, PathError.ADMIN_PROHIBITED) or route.connecting == 0:
            return
        for tcb in stack.connections.values():
            if tcb.route is route and tcb.st == SYN_SENT:
                enter_closed(tcb, REFUSED, refused())

    def handle_timeout(self, now: i64) -> None:
        """Act on the deadlines that have passed. Early and spurious calls are harmless."""
        stack = self._stack
        stack.now = max(stack.now, now)
        connections = stack.connections
        wheel = stack.wheel
        due = wheel.collect(stack.now)
        i: i64 = 0
        while i < due:
            slot = wheel.due_slots[i]
            tcb = connections.slots[slot]
            if tcb is None:
                if connections.armed[slot] == wheel.due_deadlines[i]:
                    connections.armed[slot] = NEVER
            elif tcb.armed_at == wheel.due_deadlines[i]:
                tcb.armed_at = NEVER
                at = earliest_deadline(tcb)
                if at <= stack.now:
                    run_deadlines(tcb)
                elif at != NEVER:
                    arm(tcb, at)  # the deadline has moved, or it was that of another connection before this one
            i += 1
        self._more_expiries = expire_time_wait(stack, EXPIRE_AT_ONCE)
        if len(connections) == 0 and len(connections.slots) > FEW_SLOTS and len(wheel) == 0:
            stack.connections = ConnectionTable(stack.hash_seed)  # memory that many connections have left empty

    # User calls: raise at once when they are wrong, with nothing changed

    def connect(
        self, path: int, port: int, now: i64, *, local_port: int = 0, config: Config | None = None
    ) -> Connection:
        """Active open (RFC 9293 3.10.1) to TCP port ``port`` at the peer of ``path``.

        Raises ValueError for a port out of range or an unknown path, OSError EADDRINUSE when ``local_port`` is
        taken for this peer, EADDRNOTAVAIL when no ephemeral port is left, ENOBUFS when there are ``max_connections``.
        """
        stack = self._stack
        route = stack.paths.get(path)
        if route is None:
            raise ValueError(f"path: {path} is not in use")
        _check_port("port", port, 1)
        if local_port != 0:
            _check_port("local_port", local_port, 0)
        stack.now = max(stack.now, now)
        if stack.crowded():
            stack.counters.connections_refused += 1
            raise OSError(
                errno.ENOBUFS, f"No buffer space available: {len(stack.connections)} connections (max_connections)"
            )
        policy = self._policy(config)
        if local_port == 0:
            local_port = self._ephemeral_port(route, port, policy.timestamps)
        elif not self._free(route, local_port, port, policy.timestamps):
            raise OSError(errno.EADDRINUSE, f"Address already in use: TCP port {local_port} to {route.peer}:{port}")
        key = connection_key(route.index, local_port, port)
        conn = Connection(stack, route, local_port, port, key, policy)
        choose_initial_numbers(conn)
        record = stack.time_wait.find(key)
        if record >= 0:
            raise_iss_above(conn, take_over(stack, record, key))
        offer_options(conn)
        adopt(conn)
        stack.counters.active_opens += 1
        if stack.observer is not None:
            stack.tell_user_call(key, "connect")
        set_state(conn, SYN_SENT)
        conn.syn_due = True
        mark_dirty(conn)
        return conn

    def _policy(self, config: Config | None) -> Policy:
        return self._stack.policy if config is None else policy_of(config)

    def _ephemeral_port(self, route: Path, port: i64, timestamps: bool) -> i64:
        source = self._port_source
        listeners = self._stack.listeners
        tries: i64 = 0
        while tries < EPHEMERAL_PORTS:
            local_port: i64 = self._ports.next_port() if source is None else source()
            listening = listeners and local_port in listeners
            if not listening and self._free(route, local_port, port, timestamps):
                return local_port
            tries += 1
        raise OSError(errno.EADDRNOTAVAIL, f"Cannot assign requested address: no free TCP port to {route.peer}:{port}")

    def _free(self, route: Path, local_port: i64, port: i64, timestamps: bool) -> bool:
        """Whether a pair of ports is unused on a path, or may be taken over from TIME-WAIT."""
        stack = self._stack
        key = connection_key(route.index, local_port, port)
        if key in stack.connections:
            return False
        record = stack.time_wait.find(key)
        return record < 0 or reusable_locally(stack, route, record, local_port, port, timestamps)

    def listen(self, port: int, now: i64 = 0, backlog: int = 128, config: Config | None = None) -> Listener:
        """Passive open on TCP port ``port`` for every path.

        Raises ValueError for a port or backlog out of range, OSError EADDRINUSE when the port has a listener.
        """
        stack = self._stack
        _check_port("port", port, 1)
        if backlog < 1:
            raise ValueError(f"backlog: {backlog} is not in [1, inf)")
        if port in stack.listeners:
            raise OSError(errno.EADDRINUSE, f"Address already in use: TCP port {port}")
        stack.now = max(stack.now, now)
        listener = Listener(stack, port, backlog, self._policy(config))
        stack.listeners[port] = listener
        return listener

    def set_option(self, name: str, value: object, now: i64) -> None:
        """Change one Config field: for the engine, its listeners, what begins after it, and every living connection
        if it is an option of connections. TIME-WAIT records that exist keep their time.

        Raises ValueError or TypeError, with nothing changed.
        """
        stack = self._stack
        if name not in Config.__dataclass_fields__:
            raise ValueError(f"{name}: no such option")
        conns = [_connection(tcb) for tcb in stack.connections.values()] if name in CONNECTION_OPTIONS else []
        # Few policies are shared by many connections
        policies = {stack.policy}
        policies.update([listener.policy for listener in stack.listeners.values()], [conn.policy for conn in conns])
        after = {policy: changed(policy, name, value) for policy in policies}
        stack.now = max(stack.now, now)
        self._follow(after[stack.policy])
        for listener in stack.listeners.values():
            listener.policy = after[listener.policy]
        for conn in conns:
            conn.follow(after[conn.policy], name)
        evict_time_wait(stack, stack.policy.max_time_wait)

    # Pulls

    def ready(self) -> list[Connection]:
        """Connections with readiness bits that ``take_ready`` has not been asked for, each once."""
        stack = self._stack
        found = stack.ready
        if not found:
            return []
        stack.ready = []
        for tcb in found:
            tcb.in_ready = False
        return cast("list[Connection]", found)  # every Tcb is one

    def ready_listeners(self) -> list[Listener]:
        """Listeners with connections to accept that were not told of yet."""
        stack = self._stack
        found = stack.ready_listeners
        if not found:
            return []
        stack.ready_listeners = []
        for listener in found:
            listener.in_ready = False
        return found

    def pending(self) -> bool:
        """Whether ``transmit`` has something to do."""
        stack = self._stack
        return len(stack.dirty) > 0 or len(stack.trains.trains) > 0 or len(stack.held_acks) > 0

    def transmit(self, now: i64, patient: bool = False) -> list[Train]:
        """Build what is due and hand out the trains, in the order in which they must leave.

        ``patient``: the users of many connections are about to answer, and the caller is back soon after that, not
        patient any more. Till then the ACK of a SYN-ACK, or of a FIN in ESTABLISHED, waits for another segment of its
        connection to carry it.
        """
        stack = self._stack
        stack.now = max(stack.now, now)
        stack.patient = patient
        if not patient and stack.held_acks:
            _release_acks(stack)
        if stack.failed:
            _end_failed(stack)
        while stack.dirty:
            dirty = stack.dirty
            stack.dirty = []
            for tcb in dirty:
                output(tcb)
        return stack.trains.take()

    @property
    def pending_segments(self) -> int:
        """Segments built already (resets, TIME-WAIT acknowledgments); connections build theirs in ``transmit``."""
        return self._stack.trains.segments() + len(self._stack.dirty)

    @property
    def max_train_segments(self) -> int:
        """How many segments the system takes in one send; 1 to 128."""
        return self._stack.trains.max_segments

    @max_train_segments.setter
    def max_train_segments(self, limit: int) -> None:
        self._stack.trains.max_segments = max(1, limit)


def _release_acks(stack: Stack) -> None:
    """No answer has carried them: they leave on their own."""
    held = stack.held_acks
    stack.held_acks = []
    for tcb in held:
        if tcb.ack_held:
            mark_dirty(tcb)


def _end_failed(stack: Stack) -> None:
    """End the connections whose congestion control has raised (docs/congestion.md)."""
    failed = stack.failed
    stack.failed = []
    for tcb, cause in failed:
        error = ConnectionAbortedError(errno.ECONNABORTED, f"Congestion control failed: {cause!r}")
        error.__cause__ = cause
        abort(tcb, ABORTED, error)


def _connection(tcb: Tcb) -> Connection:
    assert isinstance(tcb, Connection)
    return tcb


def _check_port(name: str, port: int, lowest: int) -> None:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"{name}: {port!r} is not an int")
    if not lowest <= port <= MAX_PORT:
        raise ValueError(f"{name}: {port} is not in [{lowest}, {MAX_PORT}]")
