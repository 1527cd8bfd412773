"""LISTEN: the passive open (RFC 9293 3.10.1, 3.10.7.2) and the queue of connections to accept."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from utcp.core.closing import abort
from utcp.core.config import Policy
from utcp.core.connection import Connection
from utcp.core.handshake import accept_options, offer_options, start_receiving
from utcp.core.isn import choose_initial_numbers, raise_iss_above
from utcp.core.paths import Path
from utcp.core.receive_window import syn_window
from utcp.core.reset import refuse_ack
from utcp.core.stack import Stack, connection_key
from utcp.core.states import LISTEN, SYN_RECEIVED
from utcp.core.syn_cookies import SynCookies, answer_with_cookie, syn_of_cookie
from utcp.core.tcb import Tcb, mark_dirty
from utcp.core.teardown import NOT_ACCEPTED, adopt
from utcp.core.transition import set_state
from utcp.core.user_timeout import on_user_timeout_option
from utcp.wire.segment import ACK, FIN, RST, SYN, Segment
from utcp.wire.seq import MASK

NO_OLD_INCARNATION: Final = -1
NO_COOKIE: Final = "listen-ack"
COOKIE: Final = "cookie"  # listen_arrives made a connection for which the segment is now to be processed


@final
class Listener:
    """A TCP port on which connections are accepted, from any path of the engine.

    At most ``backlog`` connections wait, in SYN-RECEIVED or for ``accept``. A SYN beyond that is answered with a
    cookie if it is half-open ones that fill the backlog, and dropped otherwise: its sender will try again.
    """

    def __init__(self, stack: Stack, port: i64, backlog: i64, policy: Policy) -> None:
        self.stack: Stack = stack
        self.port: i64 = port
        self.backlog: i64 = backlog
        self.policy: Policy = policy
        self.closed: bool = False
        self.context: object = None
        self.embryonic: i64 = 0
        self.in_ready: bool = False
        self.cookies: SynCookies = SynCookies()
        self._queue: list[Connection | None] = []
        self._head: i64 = 0  # the first of the queue; before it nothing is left

    @property
    def pending(self) -> int:
        """How many connections wait for ``accept``."""
        return self._pending()

    def _pending(self) -> i64:
        return len(self._queue) - self._head

    def accept(self) -> Connection | None:
        """The next established connection, or None. It may have ended already: see its ``closed``."""
        queue = self._queue
        head = self._head
        if head == len(queue):
            return None
        conn = queue[head]
        queue[head] = None
        head += 1
        if 2 * head >= len(queue):
            del queue[:head]
            head = 0
        self._head = head
        return conn

    def close(self, now: i64) -> None:
        """Stop listening. Connections nobody has accepted are reset; accepted ones go on."""
        if self.closed:
            return
        self.closed = True
        stack = self.stack
        stack.now = max(stack.now, now)
        del stack.listeners[self.port]
        for tcb in stack.connections.values():
            if tcb.listener is self and tcb.st == SYN_RECEIVED:
                abort(tcb, NOT_ACCEPTED, None)
        while (conn := self.accept()) is not None:
            abort(conn, NOT_ACCEPTED, None)

    def on_established(self, tcb: Tcb) -> None:
        """A child's handshake is complete."""
        self.embryonic -= 1
        self.stack.half_open -= 1
        assert isinstance(tcb, Connection)
        self._queue.append(tcb)
        if not self.in_ready:
            self.in_ready = True
            self.stack.ready_listeners.append(self)

    def full(self) -> bool:
        stack = self.stack
        return self.embryonic + self._pending() >= self.backlog or stack.half_open >= stack.policy.max_half_open

    def flooded(self) -> bool:
        """Full, but of connections that may never be completed."""
        return self._pending() < self.backlog

    def __repr__(self) -> str:
        return f"<Listener port={self.port} pending={self.pending}{' closed' if self.closed else ''}>"


def listen_arrives(stack: Stack, route: Path, listener: Listener, seg: Segment, old_snd_nxt: i64) -> str:
    """RFC 9293 3.10.7.2. Returns why the segment had no effect, "" if it had one.

    ``old_snd_nxt``: of the TIME-WAIT record that this SYN replaces, or NO_OLD_INCARNATION.
    """
    if seg.flags & RST:  # first
        return "listen-rst"
    if seg.flags & ACK:  # second
        reason = _cookie_arrives(stack, route, listener, seg)
        if reason == NO_COOKIE:
            refuse_ack(stack, route, seg)
        return reason
    if not seg.flags & SYN:  # fourth: anything else cannot be here
        return "listen-no-syn"
    if seg.flags & FIN and listener.policy.drop_syn_fin:
        return "syn-fin"
    if stack.crowded():
        stack.counters.connections_refused += 1
        return "too-many-connections"  # in silence: the peer will try again
    if listener.full():
        stack.counters.accept_overflows += 1
        if listener.policy.syn_cookies and listener.flooded():
            listener.cookies.sent(stack.now)
            answer_with_cookie(stack, route, seg, _embryo(stack, route, listener, seg))
            return ""
        return "backlog-full"
    # third. Data in a SYN is left to be sent again (as Linux and FreeBSD do): it costs no memory before the
    # peer's address is proven. A FIN with it is ignored likewise.
    tcb = _embryo(stack, route, listener, seg)
    choose_initial_numbers(tcb)
    if old_snd_nxt != NO_OLD_INCARNATION:
        raise_iss_above(tcb, old_snd_nxt)
    _receive_syn(tcb, listener, seg)
    tcb.syn_due = True
    mark_dirty(tcb)
    return ""


def _embryo(stack: Stack, route: Path, listener: Listener, seg: Segment) -> Connection:
    """A child in LISTEN, in no table yet, with the options it offers."""
    key = connection_key(route.index, seg.dst_port, seg.src_port)
    tcb = Connection(stack, route, seg.dst_port, seg.src_port, key, listener.policy)
    tcb.passive = True
    tcb.listener = listener
    tcb.st = LISTEN
    offer_options(tcb)
    return tcb


def _receive_syn(tcb: Connection, listener: Listener, syn: Segment) -> None:
    accept_options(tcb, syn)
    if syn.user_timeout >= 0:
        on_user_timeout_option(tcb, syn)
    start_receiving(tcb, syn)
    adopt(tcb)
    listener.embryonic += 1
    tcb.stack.half_open += 1
    tcb.stack.counters.passive_opens += 1
    set_state(tcb, SYN_RECEIVED)


def _cookie_arrives(stack: Stack, route: Path, listener: Listener, seg: Segment) -> str:
    """An ACK for a SYN-ACK of which we remember nothing: COOKIE if a connection in SYN-RECEIVED is now there for it."""
    if not listener.cookies.outstanding(stack.now):
        return NO_COOKIE
    syn = syn_of_cookie(stack, route, seg)
    if syn is None:
        return NO_COOKIE
    if listener.pending >= listener.backlog:
        return "backlog-full"  # in silence: the peer believes it is connected, and its data will come again
    if stack.crowded():
        stack.counters.connections_refused += 1
        return "too-many-connections"
    tcb = _embryo(stack, route, listener, seg)
    if not listener.cookies.use(tcb.key, seg.ack, stack.now):
        return NO_COOKIE
    choose_initial_numbers(tcb)
    tcb.iss = (seg.ack - 1) & MASK
    tcb.snd_una = tcb.iss
    tcb.snd_nxt = seg.ack
    tcb.rtx_ts = (seg.ts_ecr + 1) & MASK  # the cookie's timestamp is too inexact for a round-trip time
    _receive_syn(tcb, listener, syn)
    tcb.rcv_adv = (tcb.rcv_nxt + syn_window(tcb)) & MASK
    stack.counters.syn_cookies_accepted += 1
    return COOKIE
