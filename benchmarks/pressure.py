"""An engine under pressure: many connections that close at once, and a flood of SYNs from forged sources.

Both are parts of ``python -m benchmarks.timewait``. Engines hand each other their segments in memory, so that what is
measured is the engine and nothing of the system; times are processor time.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from pathlib import Path
from socket import SHUT_WR
from time import process_time_ns

from benchmarks.micro_tables import MILLISECOND, START, Figures
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine
from utcp.core.states import EOF, READABLE, State
from utcp.wire.segment import SYN, Segment

SECOND = 1000 * MILLISECOND
PER_PEER = 25_000  # connections between two addresses: there are only so many ephemeral ports
DRAIN = bytes(3000)
MESSAGE = bytes(100)
HALF_OPEN = 1024
LONG_FLOOD = 400_000  # SYNs for which memory is watched
BATCH = 2000  # connections to begin or end before segments are exchanged
STATM = Path("/proc/self/statm")


class Pair:
    """A client's engine and a server's, over any number of paths."""

    def __init__(self, config: Config, paths: int, server: Config | None = None) -> None:
        self.now = START
        self.client, self.server = Engine(config), Engine(server or config)
        self.out = [self.client.path(("client", n), "server") for n in range(paths)]
        self.back = [self.server.path("server", ("client", n)) for n in range(paths)]
        self.listener = self.server.listen(80, backlog=1 << 20)
        self.received = 0  # bytes, by both

    def exchange(self) -> None:
        """Deliver segments, and read what has come, until both are silent."""
        client, server, now = self.client, self.server, self.now
        more = True
        while more:
            more = False
            for train in client.transmit(now):
                server.receive(self.back[train.path], train.payload(), now, train.segment_size)
                more = True
            self._read(server)
            for train in server.transmit(now):
                payload = train.payload()
                if train.path < len(self.out):  # the other paths are those of a flood: nobody is there
                    client.receive(self.out[train.path], payload, now, train.segment_size)
                more = True
            self._read(client)

    def _read(self, engine: Engine) -> None:
        engine.ready_listeners()
        for conn in engine.ready():
            if conn.take_ready() & (READABLE | EOF):
                self.received += len(conn.receive())

    def accept(self) -> list[Connection]:
        found = []
        while (conn := self.listener.accept()) is not None:
            found.append(conn)
        return found

    def pass_time(self, until: int) -> None:
        """Every deadline at its time."""
        while (at := min(self._deadlines(), default=until)) < until:
            self.now = max(self.now, at)
            self.client.handle_timeout(self.now)
            self.server.handle_timeout(self.now)
            self.exchange()
        self.now = until

    def _deadlines(self) -> list[int]:
        return [at for engine in (self.client, self.server) if (at := engine.next_timeout()) is not None]

    def left(self) -> dict[str, int]:
        """What both engines hold."""
        engines = (self.client, self.server)
        return {
            "connections": sum(engine.connection_count() for engine in engines),
            "TIME-WAIT records": sum(engine.time_wait_count for engine in engines),
            "timers": sum(len(engine.stack.wheel) for engine in engines),
        }


def measure_drain(count: int, *, memory: bool = False) -> Figures:
    """``count`` connections, all in FIN-WAIT-2 and CLOSE-WAIT at the same time, drain to CLOSED.

    With ``memory`` the bytes before, at the most and afterwards, and no times, which that would spoil.
    """
    pair = Pair(Config(max_time_wait=count), -(-count // PER_PEER))
    if memory:
        tracemalloc.start()
    try:
        if memory:
            _drain(pair, 1)  # what the first connection brings for good: the ports in their order, the smallest tables
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        began = process_time_ns()
        figures = _drain(pair, count)
        took = process_time_ns() - began
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if memory:
        return {
            "drain: bytes of both engines before": before,
            "drain: ... at the most": peak,
            "drain: ... afterwards": after,
        }
    return {**figures, "drain: a connection, from SYN to CLOSED on both sides, us": took / 1000 / count}


def _drain(pair: Pair, count: int) -> Figures:
    open_all(pair, count)
    servers = pair.accept()
    clients = list(pair.client.connections())
    assert len(servers) == len(clients) == count
    for first in range(0, count, BATCH):
        for conn in clients[first : first + BATCH]:
            conn.shutdown(SHUT_WR, pair.now)
        pair.exchange()
    waiting = pair.client.states().get(State.FIN_WAIT_2, 0), pair.server.states().get(State.CLOSE_WAIT, 0)
    assert waiting == (count, count), waiting
    pair.received = 0
    for first in range(0, count, BATCH):
        for conn in servers[first : first + BATCH]:
            conn.send(DRAIN, pair.now)
            conn.close(pair.now)
        pair.exchange()
    assert pair.received == count * len(DRAIN), pair.received
    assert all(conn.error is None and conn.closed for conn in clients + servers)
    records = pair.client.time_wait_count
    del clients, servers, conn
    pair.pass_time(pair.now + 200 * SECOND)  # 2MSL, and deadlines that nobody waits for any more
    left = pair.left()
    assert not any(left.values()), left
    return {
        "drain: connections in FIN-WAIT-2 and CLOSE-WAIT": count,
        "drain: ... in TIME-WAIT afterwards": records,
        "drain: connections, records, timers left after 2MSL": sum(left.values()),
    }


def open_all(pair: Pair, count: int) -> None:
    for first in range(0, count, BATCH):
        for number in range(first, min(first + BATCH, count)):
            pair.client.connect(pair.out[number // PER_PEER], 80, pair.now)
        pair.exchange()


def measure_flood(rate: int, seconds: float = 2.0, connections: int = 100) -> Figures:
    """``connections`` exchange messages as fast as the processor lets them, in turns with and without a flood.

    The flood is ``rate`` SYNs a second of processor time, each from an address and a port of its own; nobody answers
    the SYN-ACKs.
    """
    pair = Pair(Config(), 1, Config(max_half_open=HALF_OPEN))
    open_all(pair, connections)
    servers = pair.accept()
    clients = list(pair.client.connections())
    flood = Flood(pair.server, random.Random(1))
    turns = 10
    quiet = flooded = 0.0
    for _ in range(turns):
        quiet += exchange_for(pair, clients, servers, seconds / turns, None, 0)
        flooded += exchange_for(pair, clients, servers, seconds / turns, flood, rate)
    assert flood.sent > 0 and len(clients) == len(servers) == connections
    assert not any(conn.info().retransmissions for conn in clients + servers)
    forged, cookies, spent = flood.sent, int(pair.server.counters.syn_cookies_sent), flood.spent
    assert pair.server.states()[State.ESTABLISHED] == connections
    resident = [flood.go_on(pair, rate, LONG_FLOOD // 4) for _ in range(4)]
    pair.pass_time(pair.now + 200 * SECOND)
    assert pair.server.states() == {State.ESTABLISHED: connections, State.LISTEN: 1}
    return {
        "flood: forged SYNs a second": rate,
        "flood: ... in all": forged,
        "flood: ... answered by a cookie": cookies,
        "flood: half-open connections, at most": HALF_OPEN,
        "flood: messages a second without it": quiet / turns,
        "flood: ... with it": flooded / turns,
        "flood: the rate that is kept, %": 100 * flooded / quiet,
        "flood: a forged SYN, us": spent / 1000 / forged,
        f"flood: memory grown by the last {LONG_FLOOD // 2:,}, kB": (resident[3] - resident[1]) / 1024,
    }


class Flood:
    def __init__(self, engine: Engine, rng: random.Random) -> None:
        self.engine = engine
        self.rng = rng
        self.sent = 0
        self.spent = 0  # ns

    def send(self, count: int, now: int) -> None:
        engine, rng = self.engine, self.rng
        forged = [
            (rng.getrandbits(32), Segment(rng.randrange(1, 65_536), 80, rng.getrandbits(32), 0, SYN, mss=1180))
            for _ in range(count)
        ]
        datagrams = [(source, segment.to_bytes()) for source, segment in forged]
        began = process_time_ns()
        for source, datagram in datagrams:
            engine.receive(engine.path("server", source), datagram, now)
        for train in engine.transmit(now):
            train.payload()
        self.spent += process_time_ns() - began
        self.sent += count

    def go_on(self, pair: Pair, rate: int, count: int) -> int:
        """So many more, at that rate, and nothing else. How much memory the process takes then, in bytes."""
        for _ in range(0, count, BATCH):
            self.send(BATCH, pair.now)
            pair.now += BATCH * SECOND // rate
            pair.server.handle_timeout(pair.now)
            pair.exchange()
        gc.collect()
        return resident_bytes()


def exchange_for(
    pair: Pair, clients: list[Connection], servers: list[Connection], seconds: float, flood: Flood | None, rate: int
) -> float:
    """Messages a second of processor time; making the forged segments is not counted."""
    messages = spent = 0
    forged = flood.sent if flood is not None else 0
    while spent < seconds * SECOND:
        began = process_time_ns()
        for one in clients:
            one.send(MESSAGE, pair.now)
        pair.exchange()
        for one in servers:
            one.send(MESSAGE, pair.now)
        pair.exchange()
        took = process_time_ns() - began
        if flood is not None:
            before = flood.spent
            due = round((spent + took) * rate / SECOND) - (flood.sent - forged)
            if due > 0:
                flood.send(due, pair.now)
            took += flood.spent - before
        pair.now += took
        spent += took
        messages += len(clients) + len(servers)
        pair.client.handle_timeout(pair.now)
        pair.server.handle_timeout(pair.now)
    return messages * SECOND / spent


def resident_bytes() -> int:
    """What the process takes of memory; 0 where the system does not say."""
    try:
        return int(STATM.read_text().split()[1]) * 4096
    except OSError:
        return 0
