"""SYN cookies (RFC 4987 3.6): a listener whose backlog is full of connections that nobody completes."""

from __future__ import annotations

from typing import Any

import pytest

from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.core.states import State
from utcp.wire.segment import ACK, RST, SYN, Segment, decode

SECOND = 1_000_000_000


class Flooded:
    """A server with a backlog of 2, filled with forged SYNs, and an honest client."""

    def __init__(self, server: Config | None = None, client: Config | None = None) -> None:
        self.now = SECOND
        self.server = Engine(server, secret=b"s" * 16)
        self.client = Engine(client, secret=b"c" * 16)
        self.listener = self.server.listen(80, backlog=2)
        for source in ("forged 1", "forged 2"):
            self.server.receive(self.server.path("server", source), Segment(1, 80, 5, 0, SYN).to_bytes(), self.now)
        self.server.transmit(self.now)
        self.out = self.client.path("client", "server")
        self.back = self.server.path("server", "client")

    def to_server(self) -> list[Segment]:
        """Deliver what the client has to send; what it was."""
        sent = [d for train in self.client.transmit(self.now) for d in train.datagrams()]
        for datagram in sent:
            self.server.receive(self.back, datagram, self.now)
        return [decode(d) for d in sent]

    def to_client(self) -> list[Segment]:
        sent = [d for t in self.server.transmit(self.now) if t.path == self.back for d in t.datagrams()]
        for datagram in sent:
            self.client.receive(self.out, datagram, self.now)
        return [decode(d) for d in sent]

    def exchange(self) -> None:
        while self.to_server() or self.to_client():
            pass


@pytest.mark.parametrize(
    ("server", "client", "used"),
    [
        ({}, {"ecn": True}, True),
        ({}, {"ecn": True, "sack": False, "window_scaling": False}, True),
        ({}, {}, False),
        ({}, {"ecn": True, "timestamps": False}, False),  # nowhere to keep it
        ({"ecn": False}, {"ecn": True}, False),
    ],
)
def test_ecn_is_remembered_by_the_timestamp(server: dict[str, Any], client: dict[str, Any], used: bool) -> None:
    f = Flooded(Config(**server), Config(**client))
    conn = f.client.connect(f.out, 80, f.now)
    f.exchange()
    assert f.server.counters.syn_cookies_accepted == 1
    child = f.listener.accept()
    assert child is not None
    assert (child.info().ecn, conn.info().ecn) == (used, used)
    assert (child.info().sack, child.info().snd_wscale) == (conn.info().sack, conn.info().rcv_wscale)


@pytest.mark.parametrize("options", [{}, {"timestamps": False}, {"window_scaling": False}, {"sack": False}])
def test_an_honest_client_gets_through_with_its_options(options: dict[str, Any]) -> None:
    f = Flooded(client=Config(max_segment_size=1000, **options))
    conn = f.client.connect(f.out, 80, f.now)
    f.to_server()
    assert f.server.counters.syn_cookies_sent == 1
    assert len(list(f.server.connections())) == 2, "a cookie leaves nothing behind"
    f.to_client()
    f.now += SECOND // 10
    f.exchange()
    child = f.listener.accept()
    assert child is not None and child.state is State.ESTABLISHED is conn.state
    mine, theirs = child.info(), conn.info()
    with_timestamps = options.get("timestamps", True)
    assert mine.timestamps == theirs.timestamps == with_timestamps
    # Only a timestamp has room to remember these
    assert mine.sack == theirs.sack == (with_timestamps and options.get("sack", True))
    assert (mine.snd_wscale, mine.rcv_wscale) == (theirs.rcv_wscale, theirs.snd_wscale)
    assert (mine.rcv_wscale > 0) == (with_timestamps and options.get("window_scaling", True))
    assert 500 <= mine.snd_mss <= 1000
    conn.send(b"x" * 10_000, f.now)
    child.send(b"y" * 10_000, f.now)
    f.exchange()
    assert child.receive() == b"x" * 10_000 and conn.receive() == b"y" * 10_000
    assert f.server.counters.retransmissions == f.client.counters.retransmissions == 0


def test_X_11_one_cookie_one_connection() -> None:
    f = Flooded()
    conn = f.client.connect(f.out, 80, f.now)
    f.to_server()
    f.to_client()
    (ack,) = (d for train in f.client.transmit(f.now) for d in train.datagrams())
    f.server.receive(f.back, ack, f.now)
    f.server.receive(f.back, ack, f.now)
    assert f.listener.pending == 1
    child = f.listener.accept()
    assert child is not None
    child.abort(f.now)
    f.server.transmit(f.now)
    f.server.receive(f.back, ack, f.now)
    assert f.listener.pending == 0
    assert [decode(d).flags for t in f.server.transmit(f.now) for d in t.datagrams()] == [RST]
    assert conn.state is State.ESTABLISHED


def test_X_11_a_cookie_does_not_recreate_what_is_in_time_wait() -> None:
    f = Flooded()
    conn = f.client.connect(f.out, 80, f.now)
    f.to_server()
    f.to_client()
    (ack,) = (d for train in f.client.transmit(f.now) for d in train.datagrams())
    f.server.receive(f.back, ack, f.now)
    child = f.listener.accept()
    assert child is not None
    child.close(f.now)
    f.exchange()
    conn.close(f.now)
    f.exchange()
    assert child.state is State.TIME_WAIT
    f.server.receive(f.back, ack, f.now)
    assert f.listener.pending == 0 and child.state is State.TIME_WAIT


@pytest.mark.parametrize("change", [{"ack": 1}, {"seq": 1}, {"src_port": 1}])
def test_a_guess_is_refused(change: dict[str, int]) -> None:
    f = Flooded()
    f.client.connect(f.out, 80, f.now, local_port=5000)
    f.to_server()
    (syn_ack,) = f.to_client()
    guess = Segment(
        5000 + change.get("src_port", 0),
        80,
        syn_ack.ack + change.get("seq", 0),
        syn_ack.seq + 1 + change.get("ack", 0),
        ACK,
    )
    f.server.receive(f.back, guess.to_bytes(), f.now)
    assert f.listener.pending == 0
    assert [decode(d).flags for t in f.server.transmit(f.now) for d in t.datagrams()] == [RST]


def test_a_cookie_grows_old() -> None:
    f = Flooded()
    f.client.connect(f.out, 80, f.now, local_port=5000)
    f.to_server()
    (syn_ack,) = f.to_client()
    ack = Segment(5000, 80, syn_ack.ack, syn_ack.seq + 1, ACK).to_bytes()
    f.server.receive(f.back, ack, f.now + 129 * SECOND)
    assert f.listener.pending == 0


def test_no_cookies_when_users_are_slow_to_accept() -> None:
    """The backlog is full of real connections: a cookie would only put off the disappointment."""
    f = Flooded(server=Config(syn_ack_timeout=1.0))
    for _ in range(2):
        f.client.connect(f.out, 80, f.now)
    f.exchange()
    assert f.listener.pending == 2
    f.client.connect(f.out, 80, f.now)
    f.exchange()
    assert f.server.counters.syn_cookies_sent == 2
    assert f.server.counters.drops["backlog-full"] == 1


def test_they_can_be_switched_off() -> None:
    f = Flooded(server=Config(syn_cookies=False))
    f.client.connect(f.out, 80, f.now)
    f.to_server()
    assert f.server.counters.syn_cookies_sent == 0
    assert f.to_client() == []
