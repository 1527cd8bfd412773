"""Losses repaired between utcp and the kernel: SACK, NewReno, loss probes, D-SACK, and time-outs that were none.

Each side repairs what the test loses of its own segments.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter

import pytest

from interop.losses import BOTH_SENDERS, DELAY_MS, UNPROBED, connected, data_of, send, towards, unprobed
from interop.matrix import Row
from interop.namespace import tcp_counters
from interop.net import BOTH_ROLES, KERNEL, UTCP, Net, Pair, has_data
from utcp.core.config import Config

LOSSES = "Loss recovery"


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


def rto_ms(pair: Pair, sender: str) -> int:
    """The sender's RTO. On a busy machine it may have grown."""
    if sender == UTCP:
        return round(pair.conn.core.info().rto * 1000)
    info = pair.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 12)
    return int.from_bytes(info[8:], sys.byteorder) // 1000


@pytest.mark.row(LOSSES, "{sender}'s segments lost in two places", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_holes(slow: Net, row: Row, sender: str, opened_by: str) -> None:
    with unprobed(), connected(slow, opened_by, UNPROBED) as pair:
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
    with unprobed(), connected(slow, opened_by, UNPROBED) as pair:
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
        # Longer than one RTO and shorter than two, the second of which is twice the first
        with net.rule(towards(sender), has_data, delays_ms=[100 + rto_ms(pair, sender) * 3 // 2], times=None):
            send(pair, 50_000, sender)
        assert repair.timeouts >= 1
        assert repair.spurious >= 1
        row.note("the time-out is found to be spurious, and undone")
