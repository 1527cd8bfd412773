"""The pump: the only place where an engine meets its socket, the clock and the event loop.

Whatever happens (datagrams, a deadline, a call of the user's), the pump goes through the same steps: take what
has arrived, handle deadlines, make the callbacks that are due, send, set one alarm.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final

from mypy_extensions import i64

from utcp.aio.addresses import Address, normal
from utcp.aio.alarm import Alarm, MakeAlarm
from utcp.aio.channel import Channel
from utcp.aio.datagrams import NOTHING, Datagrams, Taken, UdpSocket
from utcp.aio.transport import Transport
from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.core.listener import Listener
from utcp.core.paths import Path
from utcp.core.stack import NEVER, Stack
from utcp.core.states import CONNECTED

RECEIVE_BUDGET: Final = 64  # buffers at a time, so that a flood leaves the loop to others
# Buffers without reaching the end of the socket's queue, more than it holds, before deadlines are looked at anyway
PATIENCE: Final = 16_384
FLUSH_SEGMENTS: Final = 32  # so much is sent at once, that the peer may start on it while we go on
SMALL: Final = 256  # bytes: no bulk transfer, which gains by answering for several segments at once
# Turns of as many segments before tasks run, if they are who answers: what they let go of is free, and its memory warm,
# before more is made, and the collector comes half as often
TURNS_BEFORE_TASKS: Final = 3
FEW_CONNECTIONS: Final = 4
WATCH_EVERY: Final = 8  # connections whose tasks are woken
ROUNDS: Final = 16  # of callbacks and sending a turn
MILLISECOND: Final = 1_000_000
ACKS_WAIT: Final = 40 * MILLISECOND  # for answers to carry them; as long as Linux delays an ACK at least
PATH_LASTS: Final = 500 * MILLISECOND  # before the system is asked again for the way to the same peer

# Not looked up for each connection
_copy_context: Final = contextvars.copy_context
_Transport: Final = Transport


class Pump:
    """Drives ``engine`` over ``datagrams``, in ``loop``, by ``clock`` (monotonic nanoseconds).

    ``Connection.context`` is the connection's Channel, ``Listener.context`` its Server.
    """

    __slots__ = (
        "_again",
        "_alarm",
        "_alarm_at",
        "_arrived_by",
        "_blocked",
        "_buffers_behind",
        "_calls",
        "_conditions",
        "_context",
        "_datagrams",
        "_ecn",
        "_held",
        "_held_since",
        "_path",
        "_path_of",
        "_path_until",
        "_pumping",
        "_rung_at",
        "_scheduled",
        "_stack",
        "_udp",
        "channels",
        "clock",
        "congestions",
        "empty",
        "engine",
        "in_empty",
        "loop",
        "open",
        "protocol_buffered",
        "protocol_class",
        "wakeups",
        "watching",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        datagrams: Datagrams,
        engine: Engine,
        clock: Callable[[], int],
        make_alarm: MakeAlarm,
    ) -> None:
        self.loop = loop
        self.engine = engine
        self.clock = clock
        self.open = True  # the socket is
        self.channels = 0  # how many still owe their protocol a connection_lost
        self.wakeups = 0  # by the socket or a deadline
        self.congestions = 0  # how often the network took no more
        self.watching = False  # how long the tasks take that are woken now: the condition for ACKs to wait for them
        # Most programs set no variables (``contextvars``). Connections whose context is empty are called in this one,
        # entered once for all of them; a connection that sets a variable there keeps it, and we make a new one.
        self.empty = contextvars.Context()
        self.in_empty = False  # we are in it, and nobody has kept it
        # Of the protocol set last, which is mostly like the next: whether it is a BufferedProtocol
        self.protocol_class: type | None = None
        self.protocol_buffered = False
        self._datagrams = datagrams
        # The same where it is our own socket: compiled code calls it without a detour by Python's objects
        self._udp: UdpSocket | None = datagrams if type(datagrams) is UdpSocket else None
        self._ecn = False  # it reports ECN fields
        self._held = 0  # ACKs that the engine holds till ``_on_answered`` comes
        self._held_since: i64 = 0
        self._context = contextvars.copy_context()
        self._again: list[Channel] = []
        self._arrived_by: Path | None = None  # the last buffer
        self._blocked: list[tuple[bytes, int, int, Address, Address]] = []
        self._buffers_behind = 0  # taken since the end of the socket's queue was last reached
        self._calls = 0  # user calls since the last transmission
        self._conditions: list[tuple[Callable[[], bool], Callable[[], object]]] = []
        self._path: Path | None = None  # of the last connection that we began, its peer, and how long it is good
        self._path_of: Address = ()
        self._path_until: i64 = 0
        self._pumping = False
        self._scheduled = False
        self._stack: Stack = engine.stack
        self._alarm_at: i64 = 0  # what it is set to; 0: it is not
        self._rung_at: i64 = 0  # when it last did
        datagrams.attach(loop, self._on_readable)
        self._alarm: Alarm = make_alarm(loop, self._on_alarm)

    # For channels and endpoints

    def connect(
        self,
        factory: Callable[[], Any],
        peer: Address,
        port: int,
        local: Address | None,
        local_port: int,
        config: Config | None,
        waiter: Any,
    ) -> Transport:
        """Begin a connection from ``local`` (None: from where the way to the peer begins); raises as Engine.connect."""
        now = self.clock()
        path = self._path_to(peer, now) if local is None else self.engine.path(local, normal(peer))
        conn = self.engine.connect(path, port, now, local_port=local_port, config=config)
        context: contextvars.Context = _copy_context()
        own = context if len(context) > 0 else None
        transport = _transport_of(Channel(self, conn, factory, own, None, None, waiter))
        self.touch()
        return transport

    def _path_to(self, peer: Address, now: int) -> int:
        """The engine's path to ``peer``. For one connection after the other the system is asked only now and then.

        Raises OSError when there is no route, ValueError for an address that is none.
        """
        paths = self._stack.paths
        path = self._path
        if path is not None and peer == self._path_of and now < self._path_until and paths.get(path.index) is path:
            return path.index
        address = normal(peer)
        path = paths.intern(self._datagrams.route(address), address, now)
        self._path = path
        self._path_of = peer
        self._path_until = now + PATH_LASTS
        return path.index

    def touch(self) -> None:
        """A user call was made: what it wants sent leaves this turn, with everything else of this turn."""
        if self._pumping:
            return
        self._calls += 1
        if self._calls >= FLUSH_SEGMENTS:
            self.flush()
        elif not self._scheduled:
            self.schedule()

    def flush(self) -> None:
        """Send what is due now. Makes no callbacks."""
        self._calls = 0
        self._transmit(self.clock(), True)
        self.schedule()

    def schedule(self) -> None:
        """Have the loop pump soon."""
        if not self._scheduled and not self._pumping:
            self._scheduled = True
            self.loop.call_soon(self._on_scheduled, context=self._context)

    def look_at(self, channel: Channel) -> None:
        """Have the next round of callbacks include ``channel``."""
        self._again.append(channel)
        self.schedule()

    def when(self, condition: Callable[[], bool], action: Callable[[], object]) -> None:
        """Call ``action`` once, when ``condition`` holds at the end of a turn: one that only ever holds when no channel
        or no connection is left, for else it is not looked at."""
        self._conditions.append((condition, action))
        self.schedule()

    def close(self) -> None:
        """Let go of the socket and the alarm. Callbacks that are due are still made."""
        self.open = False
        self._alarm.close()
        self._blocked.clear()
        self._datagrams.close()

    def abandon(self) -> None:
        """The same in a forked child, where the event loop is the parent's."""
        self.open = False
        self._alarm.abandon()
        self._datagrams.abandon()

    # What wakes it

    def _on_readable(self) -> None:
        self.wakeups += 1
        if self._drain() == 0 or self._has_reports():
            self._hear_errors()
        self._pump(self._stack.now)

    def _on_alarm(self) -> None:
        self.wakeups += 1
        self._alarm_at = 0
        self._rung_at = self.clock()
        self._drain()
        if self._datagrams.has_reports:
            self._hear_errors()
        self._pump(self._stack.now)

    def _on_writable(self) -> None:
        self.wakeups += 1
        blocked, self._blocked = self._blocked, []
        for batch in blocked:
            self._send(*batch)
        if not self._blocked:
            self._datagrams.wait_writable(None)
            self._pump(self.clock())

    def _on_scheduled(self) -> None:
        self._scheduled = False
        self._pump(self.clock())

    def _on_some_answered(self) -> None:
        """Of the tasks that callbacks had woken, some have run. If they compute for long, ACKs do not wait for others.

        A delayed ACK must leave within half a second (RFC 9293 3.8.6.3, MUST-40).
        """
        if self._held and self.clock() - self._held_since > ACKS_WAIT:
            self._release_acks()

    def _on_answered(self, held: int) -> None:
        """All tasks have run that were woken when ``held`` ACKs were held; if more are, their tasks run after these."""
        if held >= self._held or self.clock() - self._held_since > ACKS_WAIT:
            self._release_acks()

    def _release_acks(self) -> None:
        self._held = 0
        self._pump(self.clock(), False)

    # The steps

    def _drain(self) -> int:
        """Take what has arrived, then handle deadlines. Returns how many buffers there were.

        Deadlines come after everything that waits in the socket, errors included, so that a loop that was blocked does
        not retransmit what has long been acknowledged, or take for lost in silence what a router has complained of.
        """
        engine = self.engine
        udp = self._udp
        now: i64 = self.clock()
        buffers = segments = turns = 0
        while self.open:
            if buffers == RECEIVE_BUDGET or (turns == TURNS_BEFORE_TASKS and self._stack.acks_could_wait):
                self._buffers_behind += buffers
                if self._buffers_behind < PATIENCE:
                    return buffers
                break
            data, segment_size, local, peer, ecn = udp.take() if udp is not None else _taken(self._datagrams)
            if segment_size == NOTHING:
                break
            engine.receive(self._path_from(local, peer), data, now, segment_size, ecn)
            buffers += 1
            segments += -(-len(data) // segment_size) if segment_size else 1
            if buffers == segments == 1 and len(data) <= SMALL and self._hardly_busy(now):
                return buffers
            if segments >= FLUSH_SEGMENTS:
                segments = 0
                turns += 1
                self._turn(now, True)
                now = self.clock()
        self._buffers_behind = 0
        if self._datagrams.has_reports:
            self._hear_errors()
        engine.handle_timeout(self.clock())
        return buffers

    def _path_from(self, local: Address, peer: Address) -> i64:
        """The engine's path of what has arrived: mostly it is from the same peer as the last."""
        paths = self._stack.paths
        path = self._arrived_by
        own = path is not None and (path.local is local or path.local == local)
        if path is None or not own or path.peer != peer or paths.get(path.index) is not path:
            path = paths.intern(local, peer, self._stack.now)
            self._arrived_by = path
        return path.index

    def _hardly_busy(self, now: i64) -> bool:
        """Whether a lone small segment is answered before the socket is asked for more, which would wake us again.

        To learn that there is none costs a system call and an exception, half of what there is to do; but no
        deadline may come before what waits in the socket.
        """
        return self.engine.connection_count() <= FEW_CONNECTIONS and self.engine.next_deadline() > now

    def _pump(self, now: i64, patient: bool = True) -> None:
        if self._pumping:
            return
        self._turn(now, patient)
        if self._conditions and (self.channels == 0 or self.engine.connection_count() == 0):
            self._check_conditions()
        if self.open:
            held = len(self._stack.held_acks)
            if held > self._held and not self._blocked:
                if self._held == 0:
                    self._held_since = self.clock()
                self._held = held
                self.loop.call_soon(self._on_answered, held, context=self._context)  # behind the tasks that were woken
            self._arm()

    def _turn(self, now: i64, patient: bool) -> None:
        """Callbacks until there is nothing to tell, each round's segments leaving before the next round.

        ``patient``: tasks run before the next turn, and their answers may carry ACKs. That is for many connections;
        where there are few, whoever looks at what they send sees each ACK at its time.
        """
        if self._pumping:
            return
        self._pumping = True
        more = True
        stack = self._stack
        self.watching = patient and len(stack.dirty) > FEW_CONNECTIONS and stack.acks_could_wait
        patient = self.watching or (patient and len(stack.held_acks) > 0)
        try:
            for _ in range(ROUNDS):
                more = self._call_back()
                self._transmit(now, patient)
                if not more:
                    break
        finally:
            self._pumping = False
            if more:
                self.schedule()  # whoever keeps making work must let others have the loop

    def _call_back(self) -> bool:
        """Make the callbacks that are due. Returns whether there were any."""
        stack = self._stack
        if not (stack.ready_listeners or self._again or self._anything_to_tell()):
            return False
        self.in_empty = True
        try:
            more: bool = self.empty.run(_DELIVER, self)
            return more
        finally:
            if not self.in_empty or len(self.empty) > 0:
                self.empty = contextvars.Context()
            self.in_empty = False

    def _anything_to_tell(self) -> bool:
        """Whether one of the connections that are ready is to hear of it: a round for what only left costs as much as
        one for what came, and every answer has one."""
        ready = self._stack.ready
        for conn in ready:
            channel = conn.context
            if isinstance(channel, Channel) and channel.hears_of(conn.ready_bits):
                return True
        if ready:
            for seen in self.engine.ready():
                seen.take_ready()
        return False

    def _deliver(self) -> bool:
        """As ``_call_back``, in the empty context."""
        engine = self.engine
        accepted = False
        if self._stack.ready_listeners:
            accepted = True
            for listener in engine.ready_listeners():
                self._accept(listener)
        again = self._again
        ready = engine.ready()
        if not again and not ready:
            return accepted
        self._again = []
        try:
            for channel in again:
                channel.call_again()
            for n, conn in enumerate(ready):
                if self.watching and n % WATCH_EVERY == 0:
                    self.loop.call_soon(self._on_some_answered, context=self._context)
                told = conn.context
                if isinstance(told, Channel):  # None: its protocol has been told of the end
                    bits = conn.ready_bits
                    if bits != 0:  # else it has just been accepted, and told everything
                        conn.ready_bits = 0
                        told.call(bits)
        except BaseException:  # KeyboardInterrupt, SystemExit: the others are told if the loop runs again
            self._again += again
            self._again += [conn.context for conn in ready if conn.context is not None]
            raise
        return True

    def _accept(self, listener: Listener) -> None:
        server: Any = listener.context
        factory = server.protocol_factory
        context: contextvars.Context = server.context
        bare = len(context) == 0
        clients: dict[Any, None] = server.clients
        while (conn := listener.accept()) is not None:
            own = None if bare else context.copy()
            channel = Channel(self, conn, factory, own, server, clients, None)
            _transport_of(channel)
            channel.call(conn.take_ready() | CONNECTED)

    def _transmit(self, now: i64, patient: bool) -> None:
        """Send the engine's trains; while the network is congested pull none, they would only grow old."""
        self._calls = 0
        if self._blocked or not self.open:
            return
        engine = self.engine
        if engine.uses_ecn and not self._ecn:
            self._ecn = True
            self._datagrams.report_ecn()
        if not engine.pending():
            return
        for train in engine.transmit(now, patient):
            local: Any = train.route.local
            peer: Any = train.route.peer
            self._send(train.payload(), train.segment_size, train.ecn, local, peer)
        if self._has_reports():
            self._hear_errors()

    def _send(self, payload: bytes, segment_size: int, ecn: int, local: Address, peer: Address) -> None:
        udp = self._udp
        sent = 0
        if not self._blocked:
            if udp is not None:
                sent = udp.send(payload, segment_size, local, peer, ecn)
            else:
                sent = self._datagrams.send(payload, segment_size, local, peer, ecn)
        if sent < len(payload):
            if not self._blocked:
                self.congestions += 1
                self._datagrams.wait_writable(self._on_writable)
            self._blocked.append((payload[sent:], segment_size, ecn, local, peer))

    def _has_reports(self) -> bool:
        udp = self._udp
        return udp.has_reports if udp is not None else self._datagrams.has_reports

    def _hear_errors(self) -> None:
        """Tell the engine what ICMP or the system said."""
        engine = self.engine
        now = self.clock()
        for kind, local, peer, mtu, quote in self._datagrams.reports():
            engine.path_error(engine.path(local, peer), kind, now, mtu, quote)
        self.loop.call_soon(self._datagrams.rearm)
        self.schedule()

    def _arm(self) -> None:
        """One alarm for everything. A deadline that moved later leaves it: it rings, we look and set it anew."""
        deadline = self.engine.next_deadline()
        if deadline == NEVER:
            return
        if self._alarm_at != 0 and self._alarm_at <= deadline:
            return
        self._alarm_at = deadline
        # A lone deadline is met at once; where there are many, those of a millisecond share a wake-up
        at: int = max(deadline, self._rung_at + MILLISECOND)
        self._alarm.set(at - self.clock())

    def _check_conditions(self) -> None:
        conditions, self._conditions = self._conditions, []
        for condition, action in conditions:
            if condition():
                action()
            else:
                self._conditions.append((condition, action))


def _transport_of(channel: Channel) -> Transport:
    transport: Transport = _Transport()
    transport._channel = channel
    channel.transport = transport
    return transport


def _taken(datagrams: Datagrams) -> Taken:
    return datagrams.receive() or (b"", NOTHING, (), (), 0)


def _deliver(pump: Pump) -> bool:
    return pump._deliver()


_DELIVER: Final = _deliver
