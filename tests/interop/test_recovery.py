"""Losses repaired between utcp and the kernel: SACK and loss probes."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from interop.matrix import Row
from interop.net import BOTH_ROLES, Background, Net, Pair, read_exactly
from utcp.core.config import Config
from utcp.gateway import Direction
from utcp.wire.segment import Segment

LOSSES = "Loss recovery"
SIZE = 200_000


def data_of(pair: Pair, start: int, end: int) -> Callable[[Segment], bool]:
    """utcp's segments with the bytes from ``start`` to ``end`` of its stream, the first time they leave."""
    first = pair.conn.core.iss + 1
    seen: set[int] = set()

    def picks(seg: Segment) -> bool:
        offset = (int(seg.seq) - first) % 2**32
        if not seg.data_len or not start <= offset < end or offset in seen:
            return False
        seen.add(offset)
        return True

    return picks


def send(pair: Pair, size: int = SIZE) -> None:
    """So much from utcp to the kernel, byte by byte the same."""
    data = os.urandom(size)
    pair.conn.send(data)
    assert read_exactly(pair.sock, size) == data


@pytest.mark.row(LOSSES, "utcp's segments lost in two places", "{opened_by}")
@BOTH_ROLES
def test_holes(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, Config(rto_min=2.0)) as pair:
        first, second = data_of(pair, 20_000, 24_000), data_of(pair, 60_000, 62_000)
        with net.rule(Direction.TO_KERNEL, lambda seg: first(seg) or second(seg), times=None) as lost:
            send(pair)
        assert lost.hits > 2
        assert pair.peer.engine.counters.fast_recoveries >= 1
        assert pair.peer.history.timers["retransmit"] == 0
        row.note("repaired by the kernel's SACK, without a time-out")


@pytest.mark.row(LOSSES, "the end of what utcp sends is lost", "{opened_by}")
@BOTH_ROLES
def test_tail(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, Config(rto_min=2.0, nodelay=True)) as pair:
        with net.rule(Direction.TO_KERNEL, data_of(pair, 9_000, 12_000), times=None) as lost:
            send(pair, 12_000)  # within the initial window: it leaves at once
        assert lost.hits > 1
        assert pair.peer.engine.counters.loss_probes >= 1
        assert pair.peer.history.timers["retransmit"] == 0
        row.note("a tail loss probe, then the rest by SACK, without a time-out")


@pytest.mark.row(LOSSES, "the kernel's segments lost", "{opened_by}")
@BOTH_ROLES
def test_the_kernels(net: Net, row: Row, opened_by: str) -> None:
    data = os.urandom(SIZE)
    with net.pair(opened_by) as pair:
        with net.rule(Direction.TO_UTCP, lambda seg: seg.data_len > 0, times=2) as lost:
            with Background(lambda: pair.sock.sendall(data)):
                assert pair.conn.wait_received(SIZE) == data
            assert lost.hits == 2
        row.note("repaired by the kernel, told by utcp's SACK")
