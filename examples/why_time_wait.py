"""Why TIME-WAIT: segments of a connection that has ended arrive in its successor on the same ports.

RFC 1337 names three hazards. Each of them strikes here, in a simulated network, where there is no TIME-WAIT (MSL 0),
and where a RST may end it (its "assassination", which utcp's default `rfc1337=True` ignores); none strikes where
TIME-WAIT is kept.

    python examples/why_time_wait.py
    python examples/why_time_wait.py --segments     # with the segments, up to 100 of a run

The hazards are real, the coincidence is arranged. An old segment only harms a successor whose sequence numbers
overlap its own, so the initial sequence numbers are chosen to (utcp's own clock would go round in 4.8 hours, a fast
connection does it in seconds); timestamps are off, which would tell old from new by themselves (RFC 7323 5); for H2
the limits on ACKs in answer to bad segments are off, and for H3 RFC 5961's check of RSTs, both younger than RFC 1337.
"""

from __future__ import annotations

import argparse
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import utcp
from utcp.core.connection import SHUT_WR
from utcp.core.states import EOF, READABLE
from utcp.sim import Network, Packet

SECOND = 1_000_000_000
CLIENT_PORT, SERVER_PORT = 40_000, 80
MSL = 30.0
FIRST, SECOND_PART, OLD = b"first part. ", b"second part.", b"OLD ORDER!! "  # of one length


class Protection(Enum):
    """What stands between the two connections: the configuration of both hosts."""

    NONE = utcp.Config(timestamps=False, msl=0.0)
    ASSASSINATED = utcp.Config(timestamps=False, msl=MSL, rfc1337=False)
    TIME_WAIT = utcp.Config(timestamps=False, msl=MSL)

    def __str__(self) -> str:
        return {
            "NONE": "no TIME-WAIT",
            "ASSASSINATED": "TIME-WAIT ended by a RST",
            "TIME_WAIT": "TIME-WAIT",
        }[self.name]


@dataclass
class Outcome:
    """How the second connection went."""

    waited: float  # seconds until its ports were free
    received: bytes  # by the server
    expected: bytes
    error: Exception | None  # the client's
    acks: int  # bare ACKs in its life
    segments: str

    @property
    def harmed(self) -> bool:
        return self.error is not None or self.received != self.expected

    def __str__(self) -> str:
        waited = f"reopened after {self.waited:.0f} s" if self.waited else "reopened at once"
        error = f", the client got {type(self.error).__name__}: {self.error}" if self.error else ""
        return f"{waited}; the server read {self.received!r} of {self.expected!r}, {self.acks} ACKs{error}"


class World:
    """A client and a server, and one connection after another between the same two ports."""

    def __init__(self, protection: Protection, client_isns: Iterator[int], **changes: Any) -> None:
        config = replace(protection.value, **changes)
        self.protection = protection
        self.network = Network(delay=0.01)
        self.client = self.network.host("client", config, isn=lambda *_: next(client_isns))
        self.server = self.network.host("server", config, isn=lambda *_: 300)
        self.received = bytearray()  # by the server, on the latest connection
        self.server.listen(SERVER_PORT, lambda _connection: self._serve)
        self.began = 0

    def old_connection(self, data: bytes) -> list[Packet]:
        """The first incarnation: the client sends ``data`` and closes first. Returns its segments."""
        connection = self.client.connect(self.server, SERVER_PORT, local_port=CLIENT_PORT)
        connection.send(data, self.network.now)
        self.network.run_for(1)
        connection.shutdown(SHUT_WR, self.network.now)
        self.network.run_for(1)
        assert connection.closed and connection.error is None
        trace = list(self.network.trace)
        if self.protection is Protection.ASSASSINATED:
            # RFC 1337 figure 1: an old ACK from the server, acknowledged from TIME-WAIT, draws a RST
            self.network.replay(find(trace, "server", lambda packet: packet.segment.seq == 301))
            self.network.run_for(1)
        return trace

    def reopen(self) -> tuple[utcp.Connection, float]:
        """The second incarnation, as soon as its ports are free. Returns it and the seconds that took."""
        self.received.clear()
        asked = self.network.now
        while True:
            try:
                self.began = len(self.network.trace)
                connection = self.client.connect(self.server, SERVER_PORT, local_port=CLIENT_PORT)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                self.network.run_for(1)
            else:
                return connection, (self.network.now - asked) / SECOND

    def outcome(self, connection: utcp.Connection, waited: float, expected: bytes) -> Outcome:
        packets = self.network.trace[self.began :]
        acks = sum(packet.segment.flags == 0x10 and not packet.segment.data_len for packet in packets)
        return Outcome(waited, bytes(self.received), expected, connection.error, acks, self.network.ladder())

    def _serve(self, connection: utcp.Connection, bits: int) -> None:
        if bits & READABLE:
            self.received += connection.receive()
        if bits & EOF:
            connection.close(self.network.now)


def find(trace: list[Packet], src: str, matches: Callable[[Packet], bool]) -> Packet:
    """The first segment from ``src`` that matches."""
    return next(packet for packet in trace if packet.src == src and matches(packet))


def h1(protection: Protection) -> Outcome:
    """H1: old data is accepted as new, the new data in its place is taken for a duplicate, and nobody notices."""
    # The old data had 1001 ..; in the new connection these are the numbers of the second part
    world = World(protection, iter((1000, 1000 - len(FIRST))))
    network = world.network
    old = find(world.old_connection(OLD), "client", lambda packet: packet.segment.data_len > 0)
    network.replay(old, after=0.995)
    connection, waited = world.reopen()
    connection.send(FIRST, network.now)
    network.run_for(0.99)
    connection.send(SECOND_PART, network.now)  # arrives at 1.0 s, just behind the old duplicate
    network.run_for(0.5)
    connection.close(network.now)
    network.run_for(200)
    return world.outcome(connection, waited, FIRST + SECOND_PART)


def h2(protection: Protection) -> Outcome:
    """H2: the server acknowledges what was never sent; the two ends contradict each other for ever."""
    world = World(
        protection, iter((1000, 1000 - len(FIRST))), challenge_ack_interval=0.0, challenge_ack_limit=1_000_000
    )
    network = world.network
    old = find(world.old_connection(OLD), "client", lambda packet: packet.segment.data_len > 0)
    network.replay(old, after=0.5)
    connection, waited = world.reopen()
    connection.send(FIRST, network.now)
    network.run_for(10)
    connection.close(network.now)
    network.run_for(200)
    return world.outcome(connection, waited, FIRST)


def h3(protection: Protection) -> Outcome:
    """H3: an old ACK in SYN-SENT draws a RST that kills the new connection when it has just opened."""
    # The old connection acknowledged 100 bytes up to 122: within the server's window in the new one, 101 ..
    world = World(protection, iter((21, 100)), rfc5961_rst=False)
    network = world.network
    trace = world.old_connection(bytes(100))
    old = find(trace, "server", lambda packet: packet.segment.ack == 122)
    network.replay(old, after=0.015)  # between our SYN and its answer
    connection, waited = world.reopen()
    network.run_for(0.1)
    if not connection.closed:
        connection.send(FIRST, network.now)
        network.run_for(0.5)
        connection.close(network.now)
    network.run_for(200)
    return world.outcome(connection, waited, FIRST)


HAZARDS = (h1, h2, h3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="What old duplicate segments do with and without TIME-WAIT (RFC 1337)."
    )
    parser.add_argument("--segments", action="store_true", help="print the last 100 segments of each run")
    args = parser.parse_args()
    for hazard in HAZARDS:
        print(hazard.__doc__)
        for protection in Protection:
            outcome = hazard(protection)
            print(f"  {protection!s:24} {'HARMED' if outcome.harmed else 'unharmed':8}  {outcome}")
            if args.segments:
                print(outcome.segments)
        print()


if __name__ == "__main__":
    main()
