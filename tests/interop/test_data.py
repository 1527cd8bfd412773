"""Bytes arrive whole and in order: closed windows, other orders, losses, many connections."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from interop.matrix import Row
from interop.net import BOTH_ROLES, KERNEL, UTCP, Background, Net, Pair, read_all, read_exactly
from utcp.core.config import Config
from utcp.core.states import State
from utcp.gateway import Direction, Impairments, LinkQuality

WINDOWS = "Closed windows"
NETWORKS = "Bad networks"
MANY = "Many connections"


# Windows


def small_buffer(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)


def kernel_timers(pair: Pair) -> str:
    return subprocess.check_output(["ss", "-tnoH", "dst", pair.host], text=True)


@pytest.mark.row(WINDOWS, "the kernel stops reading, utcp probes", "{opened_by}")
@BOTH_ROLES
def test_the_kernels_window_closes(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(200_000)
    with net.pair(opened_by, Config(rto_min=0.1), prepare=small_buffer) as pair:
        pair.conn.send(data)
        timers = pair.peer.history.timers
        pair.conn.wait(lambda: timers["persist"] >= 3, "waiting for three window probes")
        assert pair.conn.core.info().snd_wnd == 0
        pair.check(row, State.ESTABLISHED, "ESTAB")
        assert read_exactly(pair.sock, len(data)) == data
        row.note("probes until the window opens, every byte arrives")


@pytest.mark.row(WINDOWS, "utcp stops reading, the kernel probes", "{opened_by}")
@BOTH_ROLES
def test_utcps_window_closes(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(200_000)
    with net.pair(opened_by, Config(receive_buffer=8192)) as pair, Background(lambda: pair.sock.sendall(data)):
        pair.conn.reads = False
        pair.conn.wait(lambda: pair.conn.core.info().rcv_wnd == 0, "waiting for the window to close")
        deadline = time.monotonic() + 8
        while "timer:(persist" not in kernel_timers(pair):
            assert time.monotonic() < deadline, kernel_timers(pair)
            time.sleep(0.02)
        time.sleep(1.0)  # several probes, each answered
        pair.check(row, State.ESTABLISHED, "ESTAB")
        assert pair.conn.core.readable_bytes <= 8192
        pair.conn.resume_reading()
        assert pair.conn.wait_received(len(data)) == data
        row.note("probes answered, never more than the window, every byte arrives")


@pytest.mark.row(WINDOWS, "the update that opens the kernel's window is lost", "{opened_by}")
@BOTH_ROLES
def test_the_kernels_window_update_lost(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(100_000)
    with net.pair(opened_by, Config(rto_min=0.1), prepare=small_buffer) as pair:
        pair.conn.send(data)
        pair.conn.wait(lambda: pair.peer.history.timers["persist"] >= 1, "waiting for a window probe")
        with net.rule(Direction.TO_UTCP, lambda seg: seg.wnd > 0, times=2) as lost:
            assert read_exactly(pair.sock, len(data)) == data
            assert lost.hits == 2
        row.note("a probe finds the window open")


@pytest.mark.row(WINDOWS, "the update that opens utcp's window is lost", "{opened_by}")
@BOTH_ROLES
def test_utcps_window_update_lost(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(100_000)
    with net.pair(opened_by, Config(receive_buffer=8192)) as pair, Background(lambda: pair.sock.sendall(data)):
        pair.conn.reads = False
        pair.conn.wait(lambda: pair.conn.core.info().rcv_wnd == 0, "waiting for the window to close")
        with net.rule(Direction.TO_KERNEL, lambda seg: seg.wnd > 0, times=2) as lost:
            pair.conn.resume_reading()
            assert pair.conn.wait_received(len(data)) == data
            assert lost.hits == 2
        row.note("a probe finds the window open")


@pytest.mark.row(WINDOWS, "utcp's FIN behind the kernel's closed window", "{opened_by}")
@BOTH_ROLES
def test_utcps_fin_behind_a_closed_window(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(100_000)
    with net.pair(opened_by, Config(rto_min=0.1), prepare=small_buffer) as pair:
        pair.conn.send(data)
        pair.conn.close()
        pair.conn.wait(lambda: pair.peer.history.timers["persist"] >= 1, "waiting for a window probe")
        pair.check(row, State.FIN_WAIT_1, "ESTAB")
        assert read_all(pair.sock) == data
        pair.sock.close()
        pair.check(row, State.TIME_WAIT, "-")
        row.note("all data, then the end of the file")


@pytest.mark.row(WINDOWS, "the kernel's FIN behind utcp's closed window", "{opened_by}")
@BOTH_ROLES
def test_the_kernels_fin_behind_a_closed_window(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(100_000)

    def large_buffer(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    with net.pair(opened_by, Config(receive_buffer=8192), prepare=large_buffer) as pair:
        pair.conn.reads = False
        pair.sock.sendall(data)
        pair.sock.shutdown(socket.SHUT_WR)
        pair.conn.wait(lambda: pair.conn.core.info().rcv_wnd == 0, "waiting for the window to close")
        pair.check(row, State.ESTABLISHED, "FIN-WAIT-1")
        pair.conn.resume_reading()
        assert pair.conn.wait_eof() == data
        pair.conn.close()
        pair.check(row, State.CLOSED, "TIME-WAIT")
        row.note("all data, then the end of the file")


# Networks


@contextmanager
def impaired(net: Net, **quality: float) -> Iterator[None]:
    """Both directions of the network at its worst, from one seed."""
    link = LinkQuality(**quality)
    net.rules.otherwise = Impairments(1, to_kernel=link, to_utcp=link)
    try:
        yield
    finally:
        net.rules.otherwise = None


def transfer_and_close(net: Net, row: Row, opened_by: str, size: int) -> None:
    """``size`` bytes each way at once, then a close by both."""
    up, down = os.urandom(size), os.urandom(size)

    def kernel() -> None:
        with Background(lambda: pair.sock.sendall(down)):
            assert read_exactly(pair.sock, size) == up

    with net.pair(opened_by, Config(syn_r2=180.0)) as pair:
        with Background(kernel):
            pair.conn.send(up)
            assert pair.conn.wait_received(size, timeout=60) == down
        pair.conn.close()
        assert pair.sock.recv(1) == b""
        pair.sock.close()
        pair.conn.wait_closed()
        assert pair.conn.error is None
        row.note(f"{size // 1000} kB each way at once arrive whole, graceful close")


@pytest.mark.row(NETWORKS, "loss {percent} %", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize("percent", [0, 1, 2, 5, 10])
def test_loss(net: Net, row: Row, opened_by: str, percent: int) -> None:
    with impaired(net, loss=percent / 100, delay=0.002):
        transfer_and_close(net, row, opened_by, 100_000)


@pytest.mark.row(NETWORKS, "reordering: 5 % of the segments 10 ms late", "{opened_by}")
@BOTH_ROLES
def test_reordering(net: Net, row: Row, opened_by: str) -> None:
    with impaired(net, reorder=0.05, delay=0.002):
        transfer_and_close(net, row, opened_by, 300_000)


@pytest.mark.row(NETWORKS, "20 % of the segments twice", "{opened_by}")
@BOTH_ROLES
def test_duplication(net: Net, row: Row, opened_by: str) -> None:
    with impaired(net, duplicate=0.2, delay=0.002, jitter=0.002):
        transfer_and_close(net, row, opened_by, 300_000)


@pytest.mark.row(NETWORKS, "loss, reordering, duplication and jitter at once", "{opened_by}")
@BOTH_ROLES
def test_everything_at_once(net: Net, row: Row, opened_by: str) -> None:
    with impaired(net, loss=0.02, reorder=0.05, duplicate=0.05, delay=0.002, jitter=0.005):
        transfer_and_close(net, row, opened_by, 100_000)


@pytest.mark.row(NETWORKS, "a delay of 100 ms each way", "{opened_by}")
@BOTH_ROLES
def test_round_trip_time(net: Net, row: Row, opened_by: str) -> None:
    instants = [time.monotonic()]
    with impaired(net, delay=0.1), net.pair(opened_by, Config(rto_min=10.0, rto_initial=10.0, tlp=False)) as pair:
        for number in range(3):
            instants.append(time.monotonic())
            pair.conn.send(b"x" * 3000)
            read_exactly(pair.sock, 3000)
            pair.sock.sendall(b"y")
            pair.conn.wait_received(number + 1)
        instants.append(time.monotonic())
        srtt = pair.conn.core.info().srtt
        # On a busy machine any exchange may take longer, and then no sample is longer than the longest of them
        assert srtt is not None and 0.19 < srtt < max(later - sooner for sooner, later in pairwise(instants))
        assert pair.conn.core.info().retransmissions == 0
        row.note("SRTT 200 ms, nothing repeated")


# Many


def echo_server(listener: socket.socket, connections: int) -> None:
    """Echo on that many connections at once, until every client has closed."""
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        open_ = connections
        while open_:
            events = selector.select(20)
            assert events, f"{open_} connections left"
            for key, _ in events:
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is listener:
                    accepted, _ = listener.accept()
                    selector.register(accepted, selectors.EVENT_READ)
                elif data := sock.recv(4096):
                    sock.sendall(data)
                else:
                    selector.unregister(sock)
                    sock.close()
                    open_ -= 1


@pytest.mark.row(MANY, "1,000 at once: connect, echo, half-close, close", UTCP)
def test_a_thousand_from_utcp(net: Net, row: Row) -> None:
    with net.listen() as listener, net.peer() as peer, Background(lambda: echo_server(listener, 1000)):
        port = listener.getsockname()[1]
        conns = [peer.connect(port) for _ in range(1000)]
        for i, conn in enumerate(conns):
            conn.wait_for(State.ESTABLISHED)
            conn.send(b"%04d" % i)
        assert peer.engine.states()[State.ESTABLISHED] == 1000
        for i, conn in enumerate(conns):
            assert conn.wait_received(4, timeout=20) == b"%04d" % i
        for conn in conns:
            conn.shutdown()
        for conn in conns:
            assert conn.wait_eof() == bytes(conn.received)
            conn.wait_closed()
            assert conn.error is None
        assert peer.engine.states() == {State.TIME_WAIT: 1000}
        row.note("each gets its own bytes; 1,000 in utcp's TIME-WAIT")


@pytest.mark.row(MANY, "1,000 at once: connect, echo, half-close, close", KERNEL)
def test_a_thousand_from_the_kernel(net: Net, row: Row) -> None:
    with net.peer() as peer:
        peer.listen(7, backlog=1000)
        socks = [net.kernel_socket() for _ in range(1000)]
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex((net.host(peer), 7))
        conns = [peer.accept(7) for _ in socks]
        assert peer.engine.states()[State.ESTABLISHED] == 1000
        for i, sock in enumerate(socks):
            sock.setblocking(True)
            sock.sendall(b"%04d" % i)
        for conn in conns:
            conn.send(conn.wait_received(4))
        for i, sock in enumerate(socks):
            assert read_exactly(sock, 4) == b"%04d" % i
            sock.shutdown(socket.SHUT_WR)
        for conn in conns:
            conn.wait_eof()
            conn.close()
        for sock in socks:
            assert sock.recv(1) == b""
            sock.close()
        for conn in conns:
            conn.wait_closed()
            assert conn.error is None
        row.note("each gets its own bytes; 1,000 in the kernel's TIME-WAIT")
