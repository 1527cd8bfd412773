"""Losses repaired between utcp and the kernel: SACK, NewReno, loss probes, D-SACK, and time-outs that were none.

Each side repairs what the test loses of its own segments, without a time-out where none is due: both sides' lowest
RTO is 2 s here, and the path is ``DELAY_MS`` long each way.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from interop.matrix import Row
from interop.namespace import ip, tcp_counters
from interop.net import BOTH_ROLES, KERNEL, UTCP, Background, Net, Pair, has_data, read_exactly
from utcp.core.config import Config
from utcp.gateway import Direction, Impairments, LinkQuality
from utcp.wire.segment import Segment

LOSSES = "Loss recovery"
SIZE = 200_000
DELAY_MS = 10
PATIENT = Config(rto_min=2.0)
BOTH_SENDERS = pytest.mark.parametrize("sender", [UTCP, KERNEL])


@pytest.fixture
def slow(net: Net) -> Iterator[Net]:
    """The path takes a while, and the kernel's lowest RTO is 2 s: a busy machine is no time-out."""
    link = LinkQuality(delay=DELAY_MS / 1000)
    net.rules.otherwise = Impairments(1, to_kernel=link, to_utcp=link)
    route = "route change 10.99.0.0/16 dev utcp0 proto kernel scope link src 10.99.0.1"
    ip(f"{route} rto_min 2s")
    try:
        yield net
    finally:
        ip(route)
        net.rules.otherwise = None


@contextmanager
def connected(net: Net, opened_by: str, config: Config = PATIENT) -> Iterator[Pair]:
    """A pair that leaves nothing behind: an orphan's retransmissions would count among the next test's."""
    with net.pair(opened_by, config) as pair:
        yield pair
        pair.reset_by_kernel()


def data_of(pair: Pair, *ranges: tuple[int, int], sender: str = UTCP, times: int = 1) -> Callable[[Segment], bool]:
    """The sender's segments that begin within ``ranges`` of its stream, the first ``times`` that each leaves."""
    core = pair.conn.core
    first = (core.iss if sender == UTCP else int(core.info().irs)) + 1
    seen: Counter[int] = Counter()

    def picks(seg: Segment) -> bool:
        offset = (int(seg.seq) - first) % 2**32
        if not seg.data_len or not any(start <= offset < end for start, end in ranges):
            return False
        seen[offset] += 1
        return seen[offset] <= times

    return picks


def send(pair: Pair, size: int = SIZE, sender: str = UTCP) -> None:
    """So much from one side to the other, byte by byte the same."""
    data = os.urandom(size)
    if sender == UTCP:
        pair.conn.send(data)
        assert read_exactly(pair.sock, size) == data
    else:
        before = len(pair.conn.received)
        with Background(lambda: pair.sock.sendall(data)):
            assert pair.conn.wait_received(before + size)[before:] == data


def towards(sender: str) -> Direction:
    """Where the sender's segments go."""
    return Direction.TO_KERNEL if sender == UTCP else Direction.TO_UTCP


class Repair:
    """What the sender counted from the beginning of a transfer to its end, by names of our own."""

    def __init__(self, pair: Pair, sender: str) -> None:
        self._pair = pair
        self._sender = sender
        self._before = self._counted()

    def _counted(self) -> Counter[str]:
        if self._sender == UTCP:
            ours = self._pair.peer.engine.counters
            return Counter(
                timeouts=self._pair.peer.history.timers["retransmit"],
                retransmissions=ours.retransmissions,
                recoveries=ours.fast_recoveries,
                probes=ours.loss_probes,
                spurious=ours.spurious_recoveries,
            )
        kernel = tcp_counters()
        return Counter(
            timeouts=kernel["TCPTimeouts"],
            retransmissions=kernel["RetransSegs"],
            recoveries=kernel["TCPSackRecovery"] + kernel["TCPRenoRecovery"],
            probes=kernel["TCPLossProbes"],
            spurious=sum(kernel[name] for name in ("TCPSpuriousRTOs", "TCPLossUndo", "TCPDSACKUndo")),
        )

    def __getattr__(self, name: str) -> int:
        return self._counted()[name] - self._before[name]


@pytest.mark.row(LOSSES, "{sender}'s segments lost in two places", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_holes(slow: Net, row: Row, sender: str, opened_by: str) -> None:
    with connected(slow, opened_by) as pair:
        repair = Repair(pair, sender)
        holes = data_of(pair, (20_000, 24_000), (60_000, 62_000), sender=sender)
        with slow.rule(towards(sender), holes, times=None) as lost:
            send(pair, sender=sender)
        assert lost.hits > 2
        assert repair.retransmissions == lost.hits
        assert repair.recoveries >= 1
        assert repair.timeouts == 0
        row.note("repaired by SACK, nothing else sent again, no time-out")


@pytest.mark.row(LOSSES, "{sender}'s segments lost, without SACK", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_holes_without_sack(slow: Net, row: Row, sender: str, opened_by: str) -> None:
    with connected(slow, opened_by, Config(rto_min=2.0, sack=False)) as pair:
        repair = Repair(pair, sender)
        holes = data_of(pair, (20_000, 24_000), sender=sender)
        with slow.rule(towards(sender), holes, times=None) as lost:
            send(pair, sender=sender)
        assert lost.hits > 2
        assert repair.retransmissions >= lost.hits
        assert repair.recoveries >= 1
        assert repair.timeouts == 0
        row.note("a partial acknowledgment shows each hole (RFC 6582), no time-out")


@pytest.mark.row(LOSSES, "{sender}'s segment lost, and its retransmission", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_a_lost_retransmission(slow: Net, row: Row, sender: str, opened_by: str) -> None:
    with connected(slow, opened_by) as pair:
        repair = Repair(pair, sender)
        twice = data_of(pair, (20_000, 21_000), sender=sender, times=2)
        with slow.rule(towards(sender), twice, times=None) as lost:
            send(pair, sender=sender)
        assert lost.hits == 2
        assert repair.timeouts == 0
        row.note("found by RACK (RFC 8985), no time-out")


@pytest.mark.row(LOSSES, "the end of what {sender} sends is lost", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_tail(slow: Net, row: Row, sender: str, opened_by: str) -> None:
    with connected(slow, opened_by, Config(rto_min=2.0, nodelay=True)) as pair:
        repair = Repair(pair, sender)
        end = data_of(pair, (9_000, 12_000), sender=sender)
        with slow.rule(towards(sender), end, times=None) as lost:
            send(pair, 12_000, sender)  # within the initial window: it leaves at once
        assert lost.hits > 1
        assert repair.probes >= 1
        row.note("a tail loss probe asks (RFC 8985)")
        if sender == UTCP:
            # Linux waits for a time-out where the probe's answer came back a little sooner than any before
            assert repair.timeouts == 0
            row.note("the rest by SACK, no time-out")


@pytest.mark.row(LOSSES, "{sender}'s segments twice on the way", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_duplicates(slow: Net, row: Row, sender: str, opened_by: str) -> None:
    with connected(slow, opened_by) as pair:
        repair = Repair(pair, sender)
        reported = {name: tcp_counters()[name] for name in ("TCPDSACKOldSent", "TCPDSACKOfoSent", "TCPDSACKRecv")}
        twice = data_of(pair, (20_000, 24_000), sender=sender)
        delays = (DELAY_MS, DELAY_MS + 1)
        with slow.rule(towards(sender), twice, delays_ms=delays, times=None) as doubled:
            send(pair, sender=sender)
        assert doubled.hits > 1
        grown = {name for name, before in reported.items() if tcp_counters()[name] > before}
        assert grown == ({"TCPDSACKRecv"} if sender == KERNEL else {"TCPDSACKOldSent"})
        assert repair.retransmissions == 0
        row.note("reported by D-SACK (RFC 2883), nothing sent again")


@pytest.mark.row(LOSSES, "the path takes longer than {sender}'s RTO all at once", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_a_spurious_timeout(net: Net, row: Row, sender: str, opened_by: str) -> None:
    with connected(net, opened_by, Config()) as pair:
        send(pair, 4_000, sender)
        repair = Repair(pair, sender)
        with net.rule(towards(sender), has_data, delays_ms=[300], times=None):
            send(pair, 50_000, sender)
        assert repair.timeouts >= 1
        assert repair.spurious >= 1
        row.note("the time-out is found to be spurious, and undone")
