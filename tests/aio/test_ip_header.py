"""What the system's IP and UDP headers say around utcp's segments (RFC 9293 3.9.1 and 3.1)."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator

import pytest

import utcp
from aio.protocols import HOST, Recorder
from utcp.aio.datagrams import LINUX, UdpSocket
from utcp.wire.segment import SYN, decode

SO_NO_CHECK = 11
IP_RECVTOS, IP_RECVTTL = 13, 12

pytestmark = pytest.mark.skipif(not LINUX, reason="SKIPPED: reads IP headers by Linux's ancillary data")


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    """A UDP socket that tells the TTL and the TOS byte of what arrives."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
        yield sock


async def arrived(peer: socket.socket) -> tuple[dict[int, int], str]:
    """The first segment: (TTL and TOS by the number of their option, source address)."""
    while True:
        try:
            data, ancillary, _, source = peer.recvmsg(2048, 256)
        except BlockingIOError:
            await asyncio.sleep(0.001)
        else:
            assert decode(data).flags == SYN
            return {kind: int.from_bytes(value, sys.byteorder) for _, kind, value in ancillary}, source[0]


async def attempt(peer: socket.socket, sock: socket.socket | None = None) -> tuple[dict[int, int], str]:
    """What the SYN of a connection attempt is carried by."""
    port = peer.getsockname()[1]
    attempting = asyncio.ensure_future(utcp.create_connection(Recorder, HOST, port, sock=sock))
    seen = await asyncio.wait_for(arrived(peer), 10)
    attempting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempting
    return seen


async def test_a_socket_of_one_s_own_keeps_its_ttl_and_dscp(peer: socket.socket) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 7)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 46 << 2)
    header, _ = await attempt(peer, sock)
    assert (header[socket.IP_TTL], header[socket.IP_TOS]) == (7, 46 << 2)


async def test_the_system_chooses_the_source_address(peer: socket.socket) -> None:
    _, source = await attempt(peer)
    assert source == HOST


async def test_the_udp_checksum_is_on() -> None:
    """In place of TCP's (MUST-2, MUST-3)."""
    ours = UdpSocket.bind(socket.AF_INET, (HOST, 0))
    assert ours._sock.getsockopt(socket.SOL_SOCKET, SO_NO_CHECK) == 0
    ours.close()
