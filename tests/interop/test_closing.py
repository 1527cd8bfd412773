"""Connections close, in every order, with losses, and with data left to drain."""

from __future__ import annotations

import errno
import os
import socket
import time

import pytest

from interop.matrix import Row
from interop.namespace import sysctl
from interop.net import BOTH_ROLES, Background, Net, anything, is_fin, is_pure_ack, read_all, read_exactly
from utcp.core.config import Config
from utcp.core.states import State
from utcp.gateway import Direction
from utcp.wire.segment import ACK, FIN, Segment

# 2MSL of one second: long enough to be seen, short enough to be waited for
BRIEF = Config(msl=0.5)
DRAINED = 10_000_000


@pytest.mark.row("Closing", "utcp closes first", "{opened_by}")
@BOTH_ROLES
def test_utcp_closes_first(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, BRIEF) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        with net.silence(Direction.TO_UTCP):
            pair.conn.shutdown()
            pair.check(row, State.FIN_WAIT_1, "CLOSE-WAIT")
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        assert pair.sock.recv(1) == b""
        with net.silence(Direction.TO_KERNEL):
            pair.sock.close()
            pair.check(row, State.TIME_WAIT, "LAST-ACK")
        pair.check(row, State.TIME_WAIT, "-")
        pair.conn.wait_closed()
        assert pair.conn.error is None
        pair.check(row, State.CLOSED, "-")


@pytest.mark.row("Closing", "the kernel closes first", "{opened_by}")
@BOTH_ROLES
def test_the_kernel_closes_first(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.check(row, State.ESTABLISHED, "ESTAB")
        with net.silence(Direction.TO_KERNEL):
            pair.sock.shutdown(socket.SHUT_WR)
            pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-1")
        pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
        assert pair.conn.wait_eof() == b""
        with net.silence(Direction.TO_UTCP):
            pair.conn.close()
            pair.check(row, State.LAST_ACK, "TIME-WAIT")
        pair.check(row, State.CLOSED, "TIME-WAIT")
        assert pair.conn.error is None


@pytest.mark.row("Closing", "utcp answers FIN with FIN", "{opened_by}")
@BOTH_ROLES
def test_three_segments(net: Net, row: Row, opened_by: str) -> None:
    seen: list[int] = []

    def watch(seg: Segment) -> bool:
        seen.append(seg.flags)
        return False

    with (
        net.pair(opened_by) as pair,
        net.rule(Direction.TO_UTCP, watch),
        net.rule(Direction.TO_KERNEL, watch),
    ):
        time.sleep(0.1)  # past a delayed acknowledgment of the handshake
        seen.clear()
        pair.conn.closes_at_eof = True
        pair.sock.shutdown(socket.SHUT_WR)
        pair.check(row, State.CLOSED, "TIME-WAIT")
        assert seen == [FIN | ACK, FIN | ACK, ACK]
        row.note("closing costs three segments")


@pytest.mark.row("Closing", "simultaneous close", "{opened_by}")
@BOTH_ROLES
def test_simultaneous_close(net: Net, row: Row, opened_by: str) -> None:
    with (
        net.pair(opened_by, BRIEF) as pair,
        net.rule(Direction.TO_KERNEL, anything, delays_ms=(1000,), times=None),
        net.rule(Direction.TO_UTCP, anything, delays_ms=(1000,), times=None),
    ):
        pair.conn.shutdown()
        pair.sock.shutdown(socket.SHUT_WR)
        pair.check(row, State.FIN_WAIT_1, "FIN-WAIT-1")
        pair.check(row, State.CLOSING, "CLOSING")
        pair.check(row, State.TIME_WAIT, "TIME-WAIT")
        assert pair.conn.error is None


@pytest.mark.row("Closing", "half-close by utcp, the kernel drains 10 MB", "{opened_by}")
@BOTH_ROLES
def test_the_kernel_drains(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(DRAINED)
    with net.pair(opened_by) as pair:
        pair.conn.send(b"request")
        pair.conn.shutdown()
        assert read_all(pair.sock) == b"request"
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        with Background(lambda: pair.sock.sendall(data)):
            received = pair.conn.wait_received(DRAINED, timeout=40)
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        pair.sock.close()
        assert pair.conn.wait_eof() == received == data
        pair.check(row, State.TIME_WAIT, "-")
        row.note("every byte, then the end of the file")


@pytest.mark.row("Closing", "half-close by the kernel, utcp drains 10 MB", "{opened_by}")
@BOTH_ROLES
def test_utcp_drains(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(DRAINED)
    with net.pair(opened_by) as pair:
        pair.sock.sendall(b"request")
        pair.sock.shutdown(socket.SHUT_WR)
        assert pair.conn.wait_eof() == b"request"
        pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
        pair.conn.send(data)
        assert read_exactly(pair.sock, DRAINED) == data
        pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
        pair.conn.close()
        assert pair.sock.recv(1) == b""
        pair.check(row, State.CLOSED, "TIME-WAIT")
        row.note("every byte, then the end of the file")


@pytest.mark.row("Closing", "FIN behind queued data, closed at once by utcp", "{opened_by}")
@BOTH_ROLES
def test_utcp_closes_with_data_queued(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(300_000)
    with net.pair(opened_by) as pair:
        pair.conn.send(data)
        pair.conn.close()
        assert read_all(pair.sock) == data
        pair.sock.close()
        pair.check(row, State.TIME_WAIT, "-")
        row.note("300 kB arrive before the FIN")


@pytest.mark.row("Closing", "FIN behind queued data, closed at once by the kernel", "{opened_by}")
@BOTH_ROLES
def test_the_kernel_closes_with_data_queued(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(300_000)

    def send_and_close() -> None:
        pair.sock.sendall(data)
        pair.sock.close()

    with net.pair(opened_by) as pair, Background(send_and_close):
        assert pair.conn.wait_eof() == data
        pair.conn.close()
        pair.check(row, State.CLOSED, "TIME-WAIT")
        row.note("300 kB arrive before the FIN")


# Unread data, linger


@pytest.mark.row("Closing with unread data, and at once", "utcp closes with unread data", "{opened_by}")
@BOTH_ROLES
def test_utcp_closes_with_unread_data(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.conn.reads = False
        pair.sock.sendall(b"never read")
        pair.conn.wait(lambda: pair.conn.core.readable_bytes == 10, "waiting for the data")
        pair.conn.close()
        pair.check(row, State.CLOSED, "-")
        assert pair.kernel_error() == errno.ECONNRESET
        row.note("RST, ECONNRESET (SHLD-3)")


@pytest.mark.row("Closing with unread data, and at once", "the kernel closes with unread data", "{opened_by}")
@BOTH_ROLES
def test_the_kernel_closes_with_unread_data(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.conn.send(b"never read")
        pair.conn.wait(lambda: pair.conn.core.unacked_bytes == 0, "waiting for the acknowledgment")
        pair.sock.close()
        pair.check(row, State.CLOSED, "-")
        assert isinstance(pair.conn.error, ConnectionResetError)
        row.note("RST, ConnectionResetError")


@pytest.mark.row("Closing with unread data, and at once", "data arrives after utcp has closed", "{opened_by}")
@BOTH_ROLES
def test_data_after_utcp_has_closed(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.conn.close()
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        pair.sock.sendall(b"for nobody")
        pair.check(row, State.CLOSED, "-")
        assert pair.sock.recv(1) == b""  # the FIN came first
        assert pair.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.EPIPE, errno.ECONNRESET)
        row.note("RST, EPIPE")


@pytest.mark.row("Closing with unread data, and at once", "data arrives after the kernel has closed", "{opened_by}")
@BOTH_ROLES
def test_data_after_the_kernel_has_closed(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.sock.close()
        pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
        pair.conn.send(b"for nobody")
        pair.check(row, State.CLOSED, "-")
        assert isinstance(pair.conn.error, ConnectionResetError)
        row.note("RST, ConnectionResetError")


@pytest.mark.row("Closing with unread data, and at once", "utcp closes with linger 0", "{opened_by}")
@BOTH_ROLES
def test_utcp_lingers_not_at_all(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.conn.set_option("linger", 0)
        pair.conn.close()
        pair.check(row, State.CLOSED, "-")
        assert pair.kernel_error() == errno.ECONNRESET
        row.note("RST, no TIME-WAIT")


@pytest.mark.row("Closing with unread data, and at once", "the kernel closes with linger 0", "{opened_by}")
@BOTH_ROLES
def test_the_kernel_lingers_not_at_all(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.reset_by_kernel()
        pair.check(row, State.CLOSED, "-")
        assert isinstance(pair.conn.error, ConnectionResetError)
        row.note("RST, no TIME-WAIT")


# Losses


@pytest.mark.row("Losses while closing", "utcp's FIN lost", "{opened_by}")
@BOTH_ROLES
def test_utcps_fin_lost(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair, net.rule(Direction.TO_KERNEL, is_fin, times=2) as lost:
        pair.conn.shutdown()
        pair.check(row, State.FIN_WAIT_1, "ESTAB")
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        pair.sock.close()
        pair.check(row, State.TIME_WAIT, "-")
        assert lost.hits == 2
        row.note("twice; repeated by RTO")


@pytest.mark.row("Losses while closing", "the kernel's FIN lost", "{opened_by}")
@BOTH_ROLES
def test_the_kernels_fin_lost(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair, net.rule(Direction.TO_UTCP, is_fin, times=2) as lost:
        pair.sock.shutdown(socket.SHUT_WR)
        pair.check(row, State.ESTABLISHED, "FIN-WAIT-1")
        pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
        pair.conn.close()
        pair.check(row, State.CLOSED, "TIME-WAIT")
        assert lost.hits == 2
        row.note("twice; repeated by RTO or TLP")


@pytest.mark.row("Losses while closing", "utcp's last ACK lost", "{opened_by}")
@BOTH_ROLES
def test_utcps_last_ack_lost(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by) as pair:
        pair.conn.shutdown()
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        with net.rule(Direction.TO_KERNEL, is_pure_ack, times=3) as lost:
            pair.sock.close()
            pair.check(row, State.TIME_WAIT, "LAST-ACK")
            pair.check(row, State.TIME_WAIT, "-")
            assert lost.hits == 3
        row.note("three times; TIME-WAIT answers every FIN")


@pytest.mark.row("Losses while closing", "the kernel's last ACK lost", "{opened_by}")
@BOTH_ROLES
def test_the_kernels_last_ack_lost(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, Config(rto_initial=0.3)) as pair:
        pair.sock.shutdown(socket.SHUT_WR)
        pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
        with net.rule(Direction.TO_UTCP, is_pure_ack) as lost:
            pair.conn.close()
            pair.check(row, State.LAST_ACK, "TIME-WAIT")
            pair.check(row, State.CLOSED, "TIME-WAIT")
            assert lost.hits == 1
        assert pair.conn.error is None
        row.note("utcp repeats its FIN, the kernel's TIME-WAIT answers")


@pytest.mark.row("Losses while closing", "every ACK of utcp's FIN lost", "{opened_by}")
@BOTH_ROLES
def test_utcp_gives_up(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, Config(r2=1.0)) as pair, net.silence(Direction.TO_UTCP):
        pair.conn.shutdown()
        pair.check(row, State.FIN_WAIT_1, "CLOSE-WAIT")
        pair.check(row, State.CLOSED, "CLOSE-WAIT")
        assert isinstance(pair.conn.error, TimeoutError)
        row.note("given up after R2 (1 s here), ETIMEDOUT")


# Orphans


@pytest.mark.row("Orphans", "utcp's FIN-WAIT-2, the kernel never closes", "{opened_by}")
@BOTH_ROLES
def test_utcps_orphaned_fin_wait_2(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, Config(fin_timeout=0.5)) as pair:
        pair.conn.close()
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        pair.check(row, State.CLOSED, "CLOSE-WAIT")
        pair.sock.sendall(b"too late")
        pair.check(row, State.CLOSED, "-")
        row.note("gone after fin_timeout; later data meets a RST")


@pytest.mark.row("Orphans", "the kernel's FIN-WAIT-2, utcp never closes", "{opened_by}")
@BOTH_ROLES
def test_the_kernels_orphaned_fin_wait_2(net: Net, row: Row, opened_by: str) -> None:
    with sysctl("net.ipv4.tcp_fin_timeout", 1), net.pair(opened_by) as pair:
        pair.sock.close()
        pair.check(row, State.CLOSE_WAIT, "FIN-WAIT-2")
        pair.check(row, State.CLOSE_WAIT, "-")
        pair.conn.send(b"too late")
        pair.check(row, State.CLOSED, "-")
        assert isinstance(pair.conn.error, ConnectionResetError)
        row.note("gone after tcp_fin_timeout; later data meets a RST")


@pytest.mark.row("Orphans", "half-closed by utcp, held by its application", "{opened_by}")
@BOTH_ROLES
def test_a_held_fin_wait_2_stays(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, Config(fin_timeout=0.2)) as pair:
        pair.conn.shutdown()
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        time.sleep(0.6)
        pair.check(row, State.FIN_WAIT_2, "CLOSE-WAIT")
        pair.sock.sendall(b"still here")
        assert pair.conn.wait_received(10) == b"still here"
        row.note("fin_timeout is for orphans only")
