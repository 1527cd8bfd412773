"""TIME-WAIT on either side: repeated FINs, and the same pair of ports again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from interop.engine_peer import UtcpConnection
from interop.matrix import Row
from interop.namespace import sysctl, tcp_counters
from interop.net import KERNEL, UTCP, Net, Pair, anything, has_data, is_fin, read_exactly
from utcp.core.config import Config
from utcp.core.states import State
from utcp.gateway import Direction
from utcp.wire.segment import ACK, Segment

SECTION = "TIME-WAIT and port reuse"
PORT = 5555
KERNEL_PORT = 6666


def bound(port: int) -> Callable[[socket.socket], None]:
    """Options of a kernel socket that connects from this port, TIME-WAIT there or not."""

    def prepare(sock: socket.socket) -> None:
        sock.bind(("", port))

    return prepare


def close_utcp_first(pair: Pair, row: Row) -> None:
    pair.conn.close()
    assert pair.sock.recv(1) == b""
    pair.sock.close()
    pair.check(row, State.TIME_WAIT, "-")


def close_kernel_first(pair: Pair, row: Row) -> None:
    pair.sock.shutdown(socket.SHUT_WR)
    pair.conn.wait_eof()
    pair.conn.close()
    pair.check(row, State.CLOSED, "TIME-WAIT")
    pair.sock.close()


def exchange(conn: UtcpConnection, sock: socket.socket) -> None:
    conn.send(b"again")
    assert read_exactly(sock, 5) == b"again"
    sock.sendall(b"and back")
    assert conn.wait_received(8) == b"and back"


def accept(listener: socket.socket) -> socket.socket:
    sock, _ = listener.accept()
    sock.settimeout(8)
    return sock


@pytest.mark.row(SECTION, "utcp in TIME-WAIT, the kernel connects from the same port", KERNEL)
def test_kernel_reuses_a_pair_in_utcps_time_wait(net: Net, row: Row) -> None:
    with net.pair(KERNEL, prepare=bound(KERNEL_PORT)) as pair:
        close_utcp_first(pair, row)
        with net.kernel_socket() as again:
            again.bind(("", KERNEL_PORT))
            again.connect((pair.host, 7))
            second = Pair(pair.peer, pair.host, pair.peer.accept(7), again)
            second.check(row, State.ESTABLISHED, "ESTAB")
            exchange(second.conn, again)
        row.note("SYN accepted by timestamp (RFC 6191)")


@pytest.mark.row(SECTION, "the same, without timestamps", KERNEL)
def test_kernel_reuses_a_pair_without_timestamps(net: Net, row: Row) -> None:
    with net.pair(KERNEL, Config(timestamps=False), prepare=bound(KERNEL_PORT)) as pair:
        close_utcp_first(pair, row)
        with net.kernel_socket() as again:
            again.bind(("", KERNEL_PORT))
            again.connect((pair.host, 7))
            second = Pair(pair.peer, pair.host, pair.peer.accept(7), again)
            second.check(row, State.ESTABLISHED, "ESTAB")
            exchange(second.conn, again)
        row.note("SYN accepted by sequence number (MAY-2)")


@pytest.mark.row(SECTION, "the kernel in TIME-WAIT, utcp connects from the same port", UTCP)
def test_utcp_reuses_a_pair_in_the_kernels_time_wait(net: Net, row: Row) -> None:
    with net.listen() as listener, net.peer() as peer:
        port = listener.getsockname()[1]
        first = Pair(peer, net.host(peer), peer.connect(port, local_port=PORT), accept(listener))
        close_kernel_first(first, row)
        recycled = tcp_counters()["TWRecycled"]
        second = Pair(peer, net.host(peer), peer.connect(port, local_port=PORT), accept(listener))
        second.check(row, State.ESTABLISHED, "ESTAB")
        exchange(second.conn, second.sock)
        second.sock.close()
        assert tcp_counters()["TWRecycled"] >= recycled
        row.note("SYN accepted by the kernel")


@pytest.mark.row(SECTION, "utcp in TIME-WAIT, utcp connects from the same port", UTCP)
def test_utcp_reuses_its_own_pair(net: Net, row: Row) -> None:
    with net.listen() as listener, net.peer() as peer:
        port = listener.getsockname()[1]
        first = Pair(peer, net.host(peer), peer.connect(port, local_port=PORT), accept(listener))
        close_utcp_first(first, row)
        time.sleep(0.01)  # the timestamp clock ticks in milliseconds
        second = Pair(peer, net.host(peer), peer.connect(port, local_port=PORT), accept(listener))
        second.check(row, State.ESTABLISHED, "ESTAB")
        exchange(second.conn, second.sock)
        second.sock.close()
        row.note("once the timestamp clock has advanced (as tcp_tw_reuse)")


@pytest.mark.row(SECTION, "utcp in TIME-WAIT, its reuse switched off", UTCP)
def test_utcp_does_not_reuse_its_own_pair(net: Net, row: Row) -> None:
    with net.listen() as listener, net.peer(Config(time_wait_reuse=False)) as peer:
        port = listener.getsockname()[1]
        first = Pair(peer, net.host(peer), peer.connect(port, local_port=PORT), accept(listener))
        close_utcp_first(first, row)
        time.sleep(0.01)
        with pytest.raises(OSError, match="Address already in use"):
            peer.connect(port, local_port=PORT)
        row.note("EADDRINUSE")


@pytest.mark.row(SECTION, "the kernel in TIME-WAIT, the kernel connects from the same port", KERNEL)
def test_kernel_reuses_its_own_pair(net: Net, row: Row) -> None:
    with sysctl("net.ipv4.tcp_tw_reuse", 1), net.pair(KERNEL, prepare=bound(KERNEL_PORT)) as pair:
        close_kernel_first(pair, row)
        time.sleep(1.1)  # tcp_tw_reuse asks for a timestamp a second later
        with net.kernel_socket() as again:
            again.bind(("", KERNEL_PORT))
            again.connect((pair.host, 7))
            second = Pair(pair.peer, pair.host, pair.peer.accept(7), again)
            second.check(row, State.ESTABLISHED, "ESTAB")
            exchange(second.conn, again)
        row.note("tcp_tw_reuse; utcp had closed")


@pytest.mark.row(SECTION, "utcp's TIME-WAIT answers late segments", "{opened_by}")
@pytest.mark.parametrize("opened_by", [UTCP, KERNEL])
def test_old_duplicates_meet_utcps_time_wait(net: Net, row: Row, opened_by: str) -> None:
    with (
        net.pair(opened_by, Config(msl=1.0)) as pair,
        net.rule(Direction.TO_UTCP, has_data, delays_ms=(0, 300)),
        net.rule(Direction.TO_UTCP, is_fin, delays_ms=(0, 500)),
    ):
        pair.sock.sendall(b"data, and late once more")
        pair.conn.wait_received(24)
        started = time.monotonic()
        close_utcp_first(pair, row)
        pair.conn.wait(lambda: pair.peer.engine.counters.time_wait_restarted, "waiting for the repeated FIN")
        pair.check(row, State.CLOSED, "-")
        # 2MSL runs anew from the repeated FIN (RFC 9293 3.10.7.4)
        assert time.monotonic() - started >= 2.5 - 0.1
        assert bytes(pair.conn.received) == b"data, and late once more"
        row.note("old data and a repeated FIN acknowledged, the FIN restarts 2MSL")


@pytest.mark.row(SECTION, "the kernel's TIME-WAIT meets utcp's late data", "{opened_by}")
@pytest.mark.parametrize("opened_by", [UTCP, KERNEL])
def test_old_duplicates_meet_the_kernels_time_wait(net: Net, row: Row, opened_by: str) -> None:
    data = b"data, and late once more"
    with net.pair(opened_by) as pair:
        core = pair.conn.core
        late = Segment(core.local_port, core.remote_port, core.snd_nxt, core.rcv_nxt, ACK, data=data)
        pair.conn.send(data)
        assert read_exactly(pair.sock, 24) == data
        close_kernel_first(pair, row)
        pair.peer.inject(late)
        # The kernel answers. utcp has closed: to it that is a segment for nobody, and its RST ends TIME-WAIT
        pair.check(row, State.CLOSED, "-")
        row.note("answered by ACK; utcp's RST to that ends it")


@pytest.mark.row(SECTION, "every segment twice, the second 50 ms late", "{opened_by}")
@pytest.mark.parametrize("opened_by", [UTCP, KERNEL])
def test_everything_twice(net: Net, row: Row, opened_by: str) -> None:
    with (
        net.rule(Direction.TO_KERNEL, anything, delays_ms=(0, 50), times=None),
        net.rule(Direction.TO_UTCP, anything, delays_ms=(0, 50), times=None),
        net.pair(opened_by) as pair,
    ):
        exchange(pair.conn, pair.sock)
        close_utcp_first(pair, row)
        time.sleep(0.2)
        pair.check(row, State.TIME_WAIT, "-")
        assert pair.conn.error is None
