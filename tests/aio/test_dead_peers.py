"""Keepalive and the user timeout, over asyncio: set by Config and on a living connection."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, Accepted, Recorder, serving
from support.patience import PATIENCE, until
from utcp.aio.addresses import Address
from utcp.aio.datagrams import UdpSocket

KEEPALIVE: dict[str, Any] = {"keepalive": True, "keepalive_idle": 0.1, "keepalive_interval": 0.05, "keepalive_count": 3}


class Network(UdpSocket):
    """A UDP socket from which nothing leaves once it is ``dead``."""

    dead = False

    def send(self, payload: bytes, segment_size: int, local: Address, peer: Address, ecn: int = 0) -> int:
        return len(payload) if self.dead else super().send(payload, segment_size, local, peer, ecn)


class Timers(utcp.Observer):
    """Counts the timers that fired."""

    def __init__(self) -> None:
        self.fired: list[str] = []

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.fired.append(name)


@asynccontextmanager
async def connection(
    port: int, timers: Timers | None = None, **options: Any
) -> AsyncIterator[tuple[Network, utcp.Transport, Recorder]]:
    """A connection to a server, and the network that can take the client away from it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))
    network = Network(sock)
    endpoint = utcp.Endpoint(network, config=utcp.Config(**options), observer=timers)
    try:
        transport, protocol = await endpoint.create_connection(Recorder, HOST, port)
        yield network, transport, protocol
    finally:
        endpoint.abort()


def set_all(transport: utcp.Transport, options: dict[str, Any]) -> None:
    for name, value in options.items():
        transport.set_option(name, value)


@pytest.mark.parametrize("later", [False, True], ids=["by Config", "by set_option"])
async def test_keepalive_finds_out_that_the_peer_is_gone(later: bool) -> None:
    async with (
        serving(Recorder) as port,
        connection(port, **({} if later else KEEPALIVE)) as (network, transport, client),
    ):
        if later:
            set_all(transport, KEEPALIVE)
        network.dead = True
        error = await client.lost
        assert isinstance(error, TimeoutError)
        assert "3 keepalive probes unanswered" in str(error)
        assert (await transport.closed()).reason == "timed-out"


async def test_keepalive_leaves_a_living_peer_alone() -> None:
    timers = Timers()
    async with serving(Recorder) as port, connection(port, timers, **KEEPALIVE) as (_, transport, client):
        await until(lambda: timers.fired.count("keepalive") >= 4)
        assert not client.lost.done()
        transport.set_option("keepalive", False)
        await asyncio.sleep(0.05)  # an answer that is on its way
        before = timers.fired.count("keepalive")
        await asyncio.sleep(0.3)
        assert timers.fired.count("keepalive") == before


@pytest.mark.parametrize("later", [False, True], ids=["by Config", "by set_option"])
async def test_the_user_timeout_ends_a_connection_that_is_not_acknowledged(later: bool) -> None:
    option: dict[str, Any] = {"user_timeout": 0.3}
    async with serving(Recorder) as port, connection(port, **({} if later else option)) as (network, transport, client):
        if later:
            set_all(transport, option)
        network.dead = True
        transport.write(b"anybody?")
        async with asyncio.timeout(PATIENCE):  # not R2's two minutes
            error = await client.lost
        assert isinstance(error, TimeoutError)
        found = re.search(r"nothing acknowledged for (\S+) s", str(error))
        assert found is not None
        assert 0.3 <= float(found[1]) < PATIENCE
        info = await transport.closed()
        assert (info.reason, info.unacked_bytes) == ("timed-out", 8)


async def test_a_user_timeout_set_while_it_waits() -> None:
    async with serving(Recorder) as port, connection(port) as (network, transport, client):
        network.dead = True
        transport.write(b"anybody?")
        await asyncio.sleep(0.05)
        transport.set_option("user_timeout", 0.2)
        assert isinstance(await client.lost, TimeoutError)


async def test_a_server_s_connections_have_the_server_s_options() -> None:
    accepted = Accepted()
    async with serving(accepted, config=utcp.Config(**KEEPALIVE)) as port, connection(port) as (network, _, _):
        server = await accepted.get()
        network.dead = True
        assert isinstance(await server.lost, TimeoutError)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("keepalive_count", 1, ValueError),
        ("keepalive_idle", 0, ValueError),
        ("keepalive", "yes", TypeError),
        ("user_timeout", -1.0, ValueError),
        ("user_timeout_option", True, ValueError),
    ],
)
async def test_values_that_make_no_sense_change_nothing(name: str, value: object, error: type[Exception]) -> None:
    async with serving(Recorder) as port, connection(port) as (_, transport, _):
        with pytest.raises(error, match=name):
            transport.set_option(name, value)
        assert transport.state is utcp.State.ESTABLISHED
