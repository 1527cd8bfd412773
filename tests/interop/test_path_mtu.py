"""Path MTU discovery with the kernel at the other end: probes are segments like others to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from interop.matrix import Row
from interop.namespace import ip
from interop.net import BOTH_ROLES, MTU, Net, Pair, read_exactly
from utcp.core.states import State
from utcp.gateway import Direction

NETWORKS = "Bad networks"
SIZE = 300_000


def send(pair: Pair, size: int = SIZE) -> None:
    """From utcp to the kernel, which gets every byte."""
    data = os.urandom(size)
    pair.conn.send(data)
    assert read_exactly(pair.sock, size) == data


@contextmanager
def path_of(net: Net, mtu: int) -> Iterator[None]:
    net.gateway.mtu = mtu
    try:
        yield
    finally:
        net.gateway.mtu = MTU
        ip("route flush cache")  # the kernel remembers for 127.0.0.1 what ICMP said


@pytest.mark.row(NETWORKS, "path MTU: utcp searches for it, IPv{index}", "{opened_by}")
@BOTH_ROLES
@pytest.mark.parametrize("index", [4, 6])
def test_found(net: Net, row: Row, opened_by: str, index: int) -> None:
    with net.pair(opened_by, index=0 if index == 4 else 1, link_mtu=MTU) as pair:
        assert pair.conn.core.info().pmtu < MTU
        send(pair)
        assert pair.conn.core.info().pmtu == MTU
        counters = pair.peer.engine.counters
        assert (counters.mtu_probes, counters.mtu_probes_lost) == (1, 0)
        pair.check(row, State.ESTABLISHED, "ESTAB")
        row.note("from 1,200 bytes to the kernel's MSS in one step")


@pytest.mark.row(NETWORKS, "path MTU: it shrinks to 1,400, and ICMP says so", "{opened_by}")
@BOTH_ROLES
def test_it_shrinks(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, link_mtu=MTU) as pair:
        send(pair)
        with path_of(net, 1400):
            send(pair)
        counters = pair.peer.engine.counters
        assert (pair.conn.core.info().pmtu, counters.packets_too_big, counters.timeouts) == (1400, 1, 0)
        pair.check(row, State.ESTABLISHED, "ESTAB")
        row.note("what was too large is sent again smaller, 1,400 is probed")


@pytest.mark.row(NETWORKS, "path MTU: what is larger than 1,400 begins to vanish", "{opened_by}")
@BOTH_ROLES
def test_a_black_hole(net: Net, row: Row, opened_by: str) -> None:
    with net.pair(opened_by, link_mtu=MTU) as pair:
        send(pair)
        with net.rule(Direction.TO_KERNEL, lambda seg: len(seg.to_bytes()) > 1400 - 28, times=None):
            send(pair)
            assert pair.conn.core.info().pmtu <= 1400
        assert pair.peer.engine.counters.black_holes == 1
        pair.check(row, State.ESTABLISHED, "ESTAB")
        row.note("every byte arrives, in segments of 1,200 bytes after two time-outs")
