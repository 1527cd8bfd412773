"""ECN with the kernel: asked for by either side, refused, given up, and marks on the segments of both."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from interop.losses import BOTH_SENDERS, data_of, send, towards, unprobed
from interop.matrix import Row
from interop.namespace import sysctl, tcp_counters
from interop.net import BOTH_ROLES, KERNEL, UTCP, Net, Pair, anything, is_syn
from utcp.core.config import Config
from utcp.core.states import State
from utcp.gateway import Direction
from utcp.wire.segment import CWR, ECE, Segment

ECN = "ECN"
OPENING: Final = 150_000  # bytes that open the window
SEGMENTS: Final = 20  # of the flight in which a segment is marked: fewer than the window

_TCP_INFO: Final = 11
_OPTIONS: Final = 5  # tcpi_options in struct tcp_info (linux/tcp.h)
_TCPI_OPT_ECN: Final = 8


def kernel_uses_it(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 104)[_OPTIONS] & _TCPI_OPT_ECN)


@contextmanager
def asking(net: Net, opened_by: str, **options: Any) -> Iterator[Pair]:
    """A pair whose opener has asked for ECN, and nothing is left of it behind."""
    kernel = 1 if opened_by == KERNEL else 2
    ours = {"ecn": True} if opened_by == UTCP else {}
    config = Config(**{"rto_min": 2.0, "tlp": False, "nodelay": True, "pacing": False} | ours | options)
    with sysctl("net.ipv4.tcp_ecn", kernel), unprobed(), net.pair(opened_by, config) as pair:
        yield pair
        if pair.sock.fileno() >= 0:
            pair.reset_by_kernel()


def all_acknowledged(pair: Pair) -> None:
    """Wait until neither side has anything in flight."""

    def queued() -> int:
        return int.from_bytes(fcntl.ioctl(pair.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    pair.conn.wait(lambda: not (pair.conn.core.unacked_bytes or queued()), "waiting for the last acknowledgment")


def seen_flags(seen: list[int]) -> Callable[[Segment], bool]:
    """A predicate that picks nothing, and notes ECE and CWR of every segment."""

    def watch(seg: Segment) -> bool:
        seen.append(int(seg.flags) & (ECE | CWR))
        return False

    return watch


@pytest.mark.row(ECN, "who opens asks for it", "{opened_by}")
@BOTH_ROLES
def test_agreed(net: Net, row: Row, opened_by: str) -> None:
    with asking(net, opened_by) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        assert pair.conn.core.info().ecn
        assert kernel_uses_it(pair.sock)
        send(pair, sender=UTCP)
        send(pair, sender=KERNEL)
        assert pair.conn.core.info().ce_in == 0
        row.note("both use it; the kernel has its default, 2, or asks by 1; utcp its default, or asks by True")


@pytest.mark.row(ECN, "who opens asks for it in vain", "{opened_by}")
@BOTH_ROLES
def test_refused(net: Net, row: Row, opened_by: str) -> None:
    config = Config(ecn=opened_by == UTCP)
    with sysctl("net.ipv4.tcp_ecn", 0 if opened_by == UTCP else 1), net.pair(opened_by, config) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        assert not pair.conn.core.info().ecn
        assert not kernel_uses_it(pair.sock)
        row.note("neither uses it; tcp_ecn 0, Config(ecn=False)")
        pair.reset_by_kernel()


@pytest.mark.row(ECN, "nobody asks for it", "{opened_by}")
@BOTH_ROLES
def test_by_default(net: Net, row: Row, opened_by: str) -> None:
    with sysctl("net.ipv4.tcp_ecn", 2), net.pair(opened_by) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        assert not pair.conn.core.info().ecn
        assert not kernel_uses_it(pair.sock)
        row.note("neither uses it; the defaults of both")
        pair.reset_by_kernel()


@pytest.mark.row(ECN, "SYNs that ask are lost", "{opened_by}")
@BOTH_ROLES
def test_given_up(net: Net, row: Row, opened_by: str) -> None:
    """A middlebox that drops them: both sides' second SYN is a plain one."""

    def asks(seg: Segment) -> bool:
        return is_syn(seg) and bool(seg.flags & CWR)

    way = Direction.TO_KERNEL if opened_by == UTCP else Direction.TO_UTCP
    with net.rule(way, asks, times=None) as lost, asking(net, opened_by) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        assert lost.hits == 1
        assert not pair.conn.core.info().ecn
        assert not kernel_uses_it(pair.sock)
        row.note("the second SYN does not ask; neither uses it")


@pytest.mark.row(ECN, "{sender}'s segment marked on the way", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_marked(slow: Net, row: Row, sender: str, opened_by: str) -> None:
    """The receiver echoes it until CWR, the sender reduces its window, and nothing is sent again."""
    echoes: list[int] = []
    answers: list[int] = []
    back = Direction.TO_UTCP if towards(sender) is Direction.TO_KERNEL else Direction.TO_KERNEL
    with asking(slow, opened_by, congestion_control="reno") as pair:
        send(pair, OPENING, sender)
        all_acknowledged(pair)
        before, kernel = pair.conn.core.info(), tcp_counters()
        flight = SEGMENTS * before.snd_mss
        marked = data_of(pair, (OPENING, OPENING + 1), sender=sender)
        with (
            slow.marking(towards(sender), marked),
            slow.rule(back, seen_flags(echoes)),
            slow.rule(towards(sender), seen_flags(answers)),
        ):
            send(pair, flight, sender)
            all_acknowledged(pair)
            assert echoes.count(ECE) > 0
            assert CWR not in answers[: SEGMENTS // 2]
            send(pair, 2 * before.snd_mss, sender)
            all_acknowledged(pair)
            assert answers.count(CWR) == 1
            echoes.clear()
            send(pair, 2 * before.snd_mss, sender)
            all_acknowledged(pair)
        assert set(echoes) == {0}
        after = pair.conn.core.info()
        if sender == UTCP:
            assert (after.ecn_reductions, after.ssthresh) == (1, flight * 4 // 5)
            assert after.retransmissions == before.retransmissions
            row.note("echoed until CWR; ssthresh is 0.8 of FlightSize (RFC 8511), nothing is sent again")
        else:
            assert after.ce_in == 1
            assert tcp_counters()["TCPDeliveredCE"] > kernel["TCPDeliveredCE"]
            assert tcp_counters()["RetransSegs"] == kernel["RetransSegs"]
            row.note("echoed until CWR; the kernel counts TCPDeliveredCE, nothing is sent again")


@pytest.mark.row(ECN, "{sender}'s segments marked and lost in one flight", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_marked_and_lost(slow: Net, row: Row, sender: str, opened_by: str) -> None:
    with asking(slow, opened_by, congestion_control="reno") as pair:
        send(pair, OPENING, sender)
        all_acknowledged(pair)
        before = pair.conn.core.info()
        flight = SEGMENTS * before.snd_mss
        marked = data_of(pair, (OPENING, OPENING + 1), sender=sender)
        hole = data_of(pair, (OPENING + 3 * before.snd_mss, OPENING + 4 * before.snd_mss), sender=sender)
        with slow.marking(towards(sender), marked), slow.rule(towards(sender), hole, times=None) as lost:
            send(pair, flight, sender)
        assert lost.hits == 1
        after = pair.conn.core.info()
        if sender == UTCP:
            assert (after.ecn_reductions, after.ssthresh) == (1, flight * 4 // 5)
            assert after.retransmissions == before.retransmissions + 1
            row.note("one reduction, by what came first; the lost one is sent again")
        else:
            assert after.ce_in == 1
            row.note("every byte arrives")


@pytest.mark.row(ECN, "{sender} closes with a mark that is still echoed", "{opened_by}")
@BOTH_ROLES
@BOTH_SENDERS
def test_closing(net: Net, row: Row, sender: str, opened_by: str) -> None:
    """... for it has nothing more to send that could say CWR."""
    with asking(net, opened_by, msl=0.5) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        with net.marking(towards(sender), anything):
            send(pair, 1000, sender)
        if sender == UTCP:
            pair.conn.shutdown()
            pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
            pair.sock.close()
            pair.check(row, State.TIME_WAIT, "-")
            pair.check(row, State.CLOSED, "-")
        else:
            pair.sock.shutdown(socket.SHUT_WR)
            pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
            pair.conn.close()
            pair.check(row, State.CLOSED, "TIME-WAIT")
        assert pair.conn.error is None
