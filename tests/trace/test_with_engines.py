"""Traces of two real engines, compiled or interpreted as they are."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import structlog

from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.core.observer import Observer
from utcp.trace import JsonLinesObserver, LadderObserver, StructlogObserver, capture

CLIENT, SERVER = ("10.0.0.1", 5000), ("10.0.0.2", 6000)
MS = 1_000_000


class Pair:
    """Two engines that exchange what they have to send; 1 ms a direction."""

    def __init__(self) -> None:
        self.client, self.server = Engine(Config(msl=1.0)), Engine(Config(msl=1.0))
        self.to_server = self.client.path(CLIENT, SERVER)
        self.now = 0

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        quiet = 0
        while not until() and quiet < 2:
            quiet += 1
            for sender, receiver, local, peer in (
                (self.client, self.server, SERVER, CLIENT),
                (self.server, self.client, CLIENT, SERVER),
            ):
                self.now += MS
                sender.handle_timeout(self.now)
                for train in sender.transmit(self.now):
                    for datagram in train.datagrams():
                        quiet = 0
                        receiver.receive(receiver.path(local, peer), datagram, self.now)

    def lifecycle(self) -> None:
        listener = self.server.listen(9000)
        conn = self.client.connect(self.to_server, 9000, self.now, local_port=40000)
        self.run()
        accepted = listener.accept()
        assert accepted is not None
        conn.send(b"hello", self.now)
        conn.close(self.now)
        self.run(lambda: accepted.fin_received)
        accepted.receive()
        accepted.close(self.now)
        self.run()
        self.now += 2_000 * MS
        self.client.handle_timeout(self.now)
        assert list(self.client.states()) == []


def test_everything_sees_a_lifecycle_at_once(tmp_path: Path) -> None:
    pair, screen, lines = Pair(), io.StringIO(), io.BytesIO()
    ladder = LadderObserver(screen)
    with structlog.testing.capture_logs() as logs, ExitStack() as stack:
        stack.enter_context(
            capture(pair.client, tmp_path / "x.pcapng", ladder, JsonLinesObserver(lines), StructlogObserver())
        )
        pair.lifecycle()
    ladder.close()

    states = ["SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSED"]
    records = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [record["new"] for record in records if record["event"] == "state_change"] == states
    assert [log["new"] for log in logs if log["event"] == "state change"] == states
    (opened,) = [log for log in logs if log["event"] == "connection opened"]
    assert (opened["local"], opened["peer"]) == ("10.0.0.1:40000", "10.0.0.2:9000")
    (closed,) = [log for log in logs if log["event"] == "connection closed"]
    assert closed["reason"] == "graceful"
    text = screen.getvalue()
    assert "── 10.0.0.1:40000 ⇄ 10.0.0.2:9000 ──" in text
    assert all(state in text for state in states)
    captured = (tmp_path / "x.pcapng").read_bytes()
    for old, new in pairwise(states[:-1]):
        assert f"state {old} -> {new}".encode() in captured
    assert captured.count(bytes([10, 0, 0, 1, 10, 0, 0, 2])) > captured.count(bytes([10, 0, 0, 2, 10, 0, 0, 1])) > 0


def test_an_engine_that_is_no_longer_captured_tells_nobody() -> None:
    pair, lines = Pair(), io.BytesIO()
    with capture(pair.client, JsonLinesObserver(lines)):
        pass
    pair.lifecycle()
    assert lines.getvalue() == b""
    assert pair.client.observer is None


def test_the_first_observer_stays_when_a_capture_ends() -> None:
    pair = Pair()
    pair.client.observer = first = Observer()
    with capture(pair.client, JsonLinesObserver(io.BytesIO())):
        assert pair.client.observer is not first
    assert pair.client.observer is first
