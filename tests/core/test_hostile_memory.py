"""What a hostile peer can make an engine hold: its memory, measured, against the buffers that are configured."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterable, Iterator

import pytest

from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine
from utcp.core.scoreboard import MAX_BLOCKS
from utcp.wire.segment import ACK, PSH, SYN, Segment, decode

BUFFER = 16_384
MSS = 1000
ISS, PORT = 1000, 5000
FIXED = 60_000  # bytes: of a connection with next to nothing in it, and of what the engine keeps for trains and timers
MILLISECOND = 1_000_000


class Attack:
    """A server's connection to a peer that says whatever it likes. ``worst``: bytes of memory above the beginning."""

    def __init__(self, config: Config) -> None:
        self.engine = Engine(config, secret=bytes(32))
        self.path = self.engine.path("server", "attacker")
        self.now = 0
        self.worst = 0
        listener = self.engine.listen(80)
        self._receive(Segment(PORT, 80, ISS - 1, 0, SYN, 65_535, mss=MSS, wscale=14, sack_permitted=True))
        self.a = decode(self.transmit()[0]).seq + 1
        self.say(b"", 0)
        accepted = listener.accept()
        assert accepted is not None
        self.conn: Connection = accepted
        self.engine.ready()
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]

    def say(self, data: bytes, at: int, ack: int = 0, wnd: int = 65_535, sack: Iterable[tuple[int, int]] = ()) -> None:
        """A segment ``at`` bytes into the peer's stream, acknowledging so many of ours."""
        blocks = [(self.a + left, self.a + right) for left, right in sack]
        self._receive(Segment(PORT, 80, ISS + at, self.a + ack, ACK | PSH, wnd, data, sack=blocks))

    def _receive(self, segment: Segment) -> None:
        self.engine.receive(self.path, segment.to_bytes(), self.now)

    def transmit(self) -> list[bytes]:
        return [datagram for train in self.engine.transmit(self.now) for datagram in train.datagrams()]

    def look(self) -> None:
        """Let the engine answer, and take the memory it has."""
        self.transmit()
        self.engine.ready()
        self.worst = max(self.worst, tracemalloc.get_traced_memory()[0] - self._before)

    def play(self, segments: Iterable[tuple[int, int]]) -> None:
        """``segments``: where each begins, and its length."""
        for number, (at, size) in enumerate(segments):
            self.say(b"x" * size, at)
            if number % 16 == 0:
                self.now += MILLISECOND
                self.look()
        self.look()


@pytest.fixture
def attack() -> Iterator[Callable[..., Attack]]:
    yield lambda **options: Attack(Config(nodelay=True, **options))
    tracemalloc.stop()


STREAMS: dict[str, list[tuple[int, int]]] = {
    "a byte at a time": [(at, 1) for at in range(BUFFER + 100)],
    "full segments and no end": [(at, MSS) for at in range(0, 2 * BUFFER, MSS)],
    "islands of a byte": [(at, 1) for at in range(1, BUFFER, 2)],
    "islands of a byte, backwards": [(at, 1) for at in range(BUFFER - 1, 0, -2)],
    "islands that grow from both sides": [(at, 1) for step in (8, 7, 9) for at in range(step, BUFFER, 16)],
    "islands of a segment": [(at, MSS) for at in range(MSS, BUFFER, 2 * MSS)],
    "overlapping": [(at, MSS) for at in range(BUFFER - MSS, 0, -7)],
    "half in order, then islands": [
        *((at, MSS) for at in range(0, BUFFER // 2, MSS)),
        *((at, 1) for at in range(BUFFER // 2 + MSS, BUFFER, 2)),
    ],
}


@pytest.mark.parametrize("name", STREAMS)
def test_nobody_reads_and_whatever_comes_is_bounded_by_the_receive_buffer(
    name: str, attack: Callable[..., Attack]
) -> None:
    a = attack(receive_buffer=BUFFER)
    a.play(STREAMS[name])
    assert a.conn.readable_bytes <= BUFFER
    assert a.engine.memory <= 2 * BUFFER  # in order, and islands for as much again
    assert a.worst <= 2 * BUFFER + FIXED


def test_a_buffer_that_may_grow_does_not_for_somebody_who_is_not_read(attack: Callable[..., Attack]) -> None:
    a = attack(initial_receive_buffer=BUFFER)
    a.play(STREAMS["full segments and no end"])
    assert a.conn.info().receive_buffer == BUFFER
    assert a.worst <= 2 * BUFFER + FIXED


def test_all_connections_together_stay_below_max_memory(attack: Callable[..., Attack]) -> None:
    """Islands of a byte count for what they take, and not for a byte."""
    a = attack(receive_buffer=1 << 20, max_memory=BUFFER)
    a.play((at, 1) for at in range(1, 8 * BUFFER, 64))
    assert a.engine.memory <= BUFFER + 2 * MSS
    assert a.engine.counters.memory_drops > 0
    assert a.worst <= 2 * BUFFER + FIXED


def test_a_window_of_a_gigabyte_does_not_put_more_in_flight_than_the_send_buffer(attack: Callable[..., Attack]) -> None:
    """The peer acknowledges until the congestion window is large, and then never again."""
    a = attack(send_buffer=BUFFER)
    acked = 0
    while acked < 100 * BUFFER:
        if a.conn.send_queue_size < MSS:
            a.conn.send(bytes(MSS), a.now)
            a.look()
            continue
        a.now += MILLISECOND
        acked = a.conn.bytes_out
        a.say(b"", 0, ack=acked)
        a.look()
    while a.conn.send_queue_size < MSS and a.conn.unacked_bytes < 100 * BUFFER:
        a.conn.send(bytes(MSS), a.now)
        a.look()
    assert a.conn.info().bytes_in_flight <= BUFFER < a.conn.info().cwnd
    assert a.worst <= 2 * BUFFER + FIXED


@pytest.mark.timeout(300)
def test_a_hole_after_every_byte_of_our_flight(attack: Callable[..., Attack]) -> None:
    """SACK blocks of a byte each: so many are believed, and no more remembered."""
    a = attack(send_buffer=BUFFER, initial_window=100, rack=False)
    a.conn.send(bytes(BUFFER), a.now)
    a.look()
    for at in range(1, 8 * MAX_BLOCKS // 3, 6):
        a.say(b"", 0, sack=[(at, at + 1), (at + 2, at + 3), (at + 4, at + 5)])
        a.look()
    r = a.conn.recovery
    assert r is not None
    assert r.runs.blocks == MAX_BLOCKS
    assert r.runs.count <= 2 * MAX_BLOCKS + 100
    assert a.worst <= BUFFER + 64 * MAX_BLOCKS + FIXED


def test_a_window_that_stays_closed(attack: Callable[..., Attack]) -> None:
    """Hours of probes, each answered."""
    a = attack()
    a.say(b"", 0, wnd=0)
    a.conn.send(bytes(BUFFER), a.now)
    a.look()
    for _ in range(200):
        deadline = a.engine.next_timeout()
        assert deadline is not None
        a.now = deadline
        a.engine.handle_timeout(a.now)
        a.say(b"", 0, wnd=0)
        a.look()
    assert a.conn.unacked_bytes == BUFFER
    assert a.worst <= BUFFER + FIXED
