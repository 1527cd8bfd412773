"""Congestion control with a kernel on the other end, and beside its own: Reno and CUBIC, each as the sender."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any, Final

import pytest

from benchmarks.versus_kernel_cell import Cell
from interop.losses import connected, data_of, send, towards
from interop.matrix import WAIT_S, Row
from interop.namespace import require_tun
from interop.net import BOTH_ROLES, KERNEL, UTCP, Net
from utcp.core.config import Config

CONGESTION = "Congestion control"
OPENING = 150_000  # bytes that open the window
SEGMENTS = 20  # of the flight whose first one is lost: fewer than the window
BOTH_ALGORITHMS: Final = pytest.mark.parametrize("algorithm", ["reno", "cubic"])

_TCP_CONGESTION: Final = 13
_TCP_INFO: Final = struct.Struct("=8x19I")  # the beginning of struct tcp_info (linux/tcp.h)
_SND_MSS, _UNACKED, _SSTHRESH, _CWND = 2, 4, 17, 18


@pytest.mark.row(CONGESTION, "{algorithm}: one of utcp's segments lost", "{opened_by}")
@BOTH_ROLES
@BOTH_ALGORITHMS
def test_utcps_response(slow: Net, row: Row, algorithm: str, opened_by: str) -> None:
    config = Config(rto_min=2.0, congestion_control=algorithm, nodelay=True, pacing=False)
    with connected(slow, opened_by, config) as pair:
        send(pair, OPENING)
        pair.conn.wait(lambda: not pair.conn.core.unacked_bytes, "waiting for the last acknowledgment")
        before = pair.conn.core.info()
        flight = SEGMENTS * before.snd_mss
        assert before.cwnd > flight
        with slow.rule(towards(UTCP), data_of(pair, (OPENING, OPENING + 1)), times=None) as lost:
            send(pair, flight)
        assert lost.hits == 1
        share = {"reno": 10, "cubic": 14}[algorithm]
        assert pair.conn.core.info().ssthresh == flight * share // 20
        row.note(f"ssthresh is {share / 20} of FlightSize")


@pytest.mark.row(CONGESTION, "{algorithm}: one of the kernel's segments lost", "{opened_by}")
@BOTH_ROLES
@BOTH_ALGORITHMS
def test_the_kernels_response(slow: Net, row: Row, algorithm: str, opened_by: str) -> None:
    def choose(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, algorithm.encode())

    with connected(slow, opened_by, prepare=choose) as pair:
        send(pair, OPENING, KERNEL)
        before = all_acknowledged(pair.sock)
        assert before[_CWND] > SEGMENTS
        lost_one = data_of(pair, (OPENING, OPENING + 1), sender=KERNEL)
        with slow.rule(towards(KERNEL), lost_one, times=None) as lost:
            send(pair, SEGMENTS * before[_SND_MSS], KERNEL)
        assert lost.hits == 1
        share = {"reno": 512, "cubic": 717}[algorithm]  # of 1024: as Linux computes it
        assert all_acknowledged(pair.sock)[_SSTHRESH] == before[_CWND] * share // 1024
        row.note(f"told by utcp's SACK; its ssthresh is {share / 1024:.1f} of its window")


@pytest.mark.row(
    CONGESTION, "{algorithm}: 1 % of the sender's segments lost, utcp beside the kernel's {algorithm}", "utcp"
)
@BOTH_ALGORITHMS
def test_beside_the_kernel(row: Row, algorithm: str) -> None:
    """The same losses for both, no queue to overflow. Counts and windows: ``benchmarks.versus_kernel`` has times."""
    require_tun()
    ours, kernels = (undisturbed(stack, algorithm) for stack in ("utcp", "kernel"))
    assert kernels["recoveries"] > 5
    for name in ("retransmissions", "recoveries", "window"):
        assert 0.4 < ours[name] / kernels[name] < 2.5, (ours, kernels)
    row.note("about as many retransmissions and recoveries, and as large a window")


def undisturbed(stack: str, algorithm: str) -> dict[str, Any]:
    """These losses are no cause of a time-out, for neither: where there is one, the path has waited for a processor."""
    for _ in range(10):
        figures = Cell(stack, algorithm, loss=0.01, seed=3, size=2_000_000, mbit=200, rtt_ms=20).measure()
        if not figures["timeouts"]:
            return figures
    raise AssertionError(f"time-outs in each of ten runs: {figures}")


def all_acknowledged(sock: socket.socket) -> tuple[int, ...]:
    """The kernel's tcp_info once nothing is in flight."""
    deadline = time.monotonic() + WAIT_S
    while True:
        info = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
        if not info[_UNACKED]:
            return info
        assert time.monotonic() < deadline, f"{info[_UNACKED]} segments are in flight"
        time.sleep(0.005)
