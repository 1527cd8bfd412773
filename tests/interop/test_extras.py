"""Urgent data, keepalive, user timeout."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import time

import pytest

from interop.matrix import Row
from interop.namespace import sysctl
from interop.net import BOTH_ROLES, Net, Pair, is_pure_ack, read_exactly
from utcp.core.config import Config
from utcp.core.states import State
from utcp.gateway import Direction
from utcp.wire.segment import Segment

URGENT = "Urgent data"
ALIVE = "Keepalive and user timeout"

_SIOCATMARK = 0x8905  # asm/sockios.h


def at_mark(sock: socket.socket) -> bool:
    """Whether the next byte to be read is the urgent one."""
    return bool(struct.unpack("i", fcntl.ioctl(sock, _SIOCATMARK, bytes(4)))[0])


@pytest.mark.row(URGENT, "the kernel sends", "{opened_by}")
@BOTH_ROLES
def test_the_kernel_sends_urgent_data(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        core = pair.conn.core
        pair.conn.reads = False
        pair.sock.sendall(b"normal")
        pair.sock.send(b"!", socket.MSG_OOB)
        pair.sock.sendall(b"after")
        pair.conn.wait(lambda: core.readable_bytes == 12, "waiting for all of it")
        assert core.urgent_bytes == len(b"normal!")
        pair.conn.resume_reading()
        assert bytes(pair.conn.received) == b"normal!after"
        assert core.urgent_bytes == 0
        row.note("in line, the pointer behind the urgent byte (RFC 6093)")


@pytest.mark.row(URGENT, "utcp sends, the kernel reads out of band", "{opened_by}")
@BOTH_ROLES
def test_utcp_sends_urgent_data(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, Config(nodelay=True)) as pair:
        pair.conn.send(b"normal")
        pair.conn.send_urgent(b"!")
        pair.conn.send(b"after")
        assert read_exactly(pair.sock, 6) == b"normal"
        assert pair.sock.recv(1, socket.MSG_OOB) == b"!"
        assert read_exactly(pair.sock, 5) == b"after"
        row.note("the kernel finds the byte where it was")


@pytest.mark.row(URGENT, "utcp sends, the kernel reads in line", "{opened_by}")
@BOTH_ROLES
def test_utcp_sends_urgent_data_in_line(net: Net, row: Row, opened_by: str) -> None:
    def prepare(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    with net.pair(opened_by, Config(nodelay=True), prepare=prepare) as pair:
        pair.conn.send(b"normal")
        pair.conn.send_urgent(b"urgent!")
        pair.conn.send(b"after")
        # A read ends before the last urgent byte, which is the mark
        assert read_exactly(pair.sock, 12) == b"normalurgent"
        assert at_mark(pair.sock)
        assert read_exactly(pair.sock, 6) == b"!after"
        assert not at_mark(pair.sock)
        row.note("the mark is at the last urgent byte")


@pytest.mark.row(ALIVE, "utcp's keepalive", "{opened_by}")
@BOTH_ROLES
def test_utcps_keepalive(net: Net, row: Row, opened_by: str) -> None:
    # The kernel answers one segment outside its window every 500 ms, and a probe is one; not in this test
    unlimited = sysctl("net.ipv4.tcp_invalid_ratelimit", 0)
    config = Config(keepalive=True, keepalive_idle=0.2, keepalive_interval=0.1, keepalive_count=3)
    with unlimited, net.pair(opened_by, config) as pair:
        with net.rule(Direction.TO_UTCP, is_pure_ack, delays_ms=(0,), times=None) as answers:
            pair.conn.wait(lambda: answers.hits >= 4, "waiting for answers to four probes")
        pair.check(row, State.ESTABLISHED, "ESTAB")
        with net.silence(Direction.TO_KERNEL) as probes:
            pair.check(row, State.CLOSED, "ESTAB")
            assert probes.hits >= 3
        assert isinstance(pair.conn.error, TimeoutError)
        row.note("probes answered; three unanswered: ETIMEDOUT")


@pytest.mark.row(ALIVE, "the kernel's keepalive", "{opened_by}")
@BOTH_ROLES
def test_the_kernels_keepalive(net: Net, row: Row, opened_by: str) -> None:
    def prepare(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)

    with net.pair(opened_by, prepare=prepare) as pair:
        time.sleep(2.5)  # one probe unanswered would have ended it
        pair.check(row, State.ESTABLISHED, "ESTAB")
        with net.silence(Direction.TO_UTCP):
            pair.check(row, State.ESTABLISHED, "-")
        assert pair.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT
        row.note("probes answered; unanswered: ETIMEDOUT")


def silence_utcp_hears(net: Net, row: Row, pair: Pair) -> None:
    with net.silence(Direction.TO_KERNEL):
        pair.conn.send(b"into the dark")
        pair.check(row, State.CLOSED, "ESTAB")
    assert isinstance(pair.conn.error, TimeoutError)


@pytest.mark.row(ALIVE, "utcp's user timeout", "{opened_by}")
@BOTH_ROLES
def test_utcps_user_timeout(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, Config(user_timeout=0.6)) as pair:
        silence_utcp_hears(net, row, pair)
        row.note("ETIMEDOUT")


@pytest.mark.row(ALIVE, "utcp's user timeout, told by the option", "{opened_by}")
@BOTH_ROLES
def test_utcps_user_timeout_option(net: Net, row: Row, opened_by: str) -> None:
    told: list[int] = []

    def watch(seg: Segment) -> bool:
        if seg.user_timeout >= 0:
            told.append(seg.user_timeout)
        return False

    config = Config(user_timeout=1.0, user_timeout_option=True)
    with net.rule(Direction.TO_KERNEL, watch), net.pair(opened_by, config) as pair:
        pair.conn.send(b"hello")
        assert read_exactly(pair.sock, 5) == b"hello"
        assert set(told) == {1}  # seconds, RFC 5482 2
        silence_utcp_hears(net, row, pair)
        row.note("the kernel passes over RFC 5482's option; ETIMEDOUT")


@pytest.mark.row(ALIVE, "the kernel's user timeout", "{opened_by}")
@BOTH_ROLES
def test_the_kernels_user_timeout(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 600)
        with net.silence(Direction.TO_UTCP):
            pair.sock.sendall(b"into the dark")
            pair.check(row, State.ESTABLISHED, "-")
        assert pair.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT
        row.note("ETIMEDOUT")
