"""What the tests of loss recovery and congestion control share: senders, chosen losses, a path that takes a while."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import pytest

from interop.namespace import ip, sysctl
from interop.net import KERNEL, UTCP, Background, Net, Pair, read_exactly
from utcp.core.config import Config
from utcp.gateway import Direction, Impairments, LinkQuality
from utcp.wire.segment import Segment

SIZE: Final = 200_000
DELAY_MS: Final = 10
PATIENT: Final = Config(rto_min=2.0)
UNPROBED: Final = Config(rto_min=2.0, tlp=False)
BOTH_SENDERS: Final = pytest.mark.parametrize("sender", [UTCP, KERNEL])


@contextmanager
def slow_path(net: Net) -> Iterator[Net]:
    """Each way takes ``DELAY_MS``, and the kernel's lowest RTO is 2 s: a busy machine is no time-out."""
    link = LinkQuality(delay=DELAY_MS / 1000)
    net.rules.otherwise = Impairments(1, to_kernel=link, to_utcp=link)
    route = "route change 10.99.0.0/16 dev utcp0 proto kernel scope link src 10.99.0.1"
    ip(f"{route} rto_min 2s")
    try:
        yield net
    finally:
        ip(route)
        net.rules.otherwise = None


def unprobed() -> AbstractContextManager[None]:
    """The kernel sends no tail loss probes; a busy machine that answers late calls for them (UNPROBED: nor do we)."""
    return sysctl("net.ipv4.tcp_early_retrans", 0)


@contextmanager
def connected(
    net: Net, opened_by: str, config: Config = PATIENT, prepare: Callable[[socket.socket], None] = lambda sock: None
) -> Iterator[Pair]:
    """A pair that leaves nothing behind: an orphan's retransmissions would count among the next test's."""
    with net.pair(opened_by, config, prepare=prepare) as pair:
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
