"""ECN over a bottleneck that marks what it would have dropped (RFC 3168, RFC 8289)."""

from __future__ import annotations

import random
from typing import Any

import pytest

import utcp
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.sim import Fate, Network, run

MILLISECOND = 10**6
PATH: dict[str, Any] = {"delay": 0.02, "rate": 10e6, "queue": 1_000_000, "aqm": "codel", "ecn": True}


@pytest.mark.parametrize("algorithm", ["reno", "cubic"])
def test_between_engines(algorithm: str) -> None:
    """A bulk transfer fills the link, its queue stays short, and after the first slow start nothing is sent again."""
    network = Network(check=invariants.check, **PATH)
    config = Config(ecn=True, congestion_control=algorithm)
    client, server = network.host("client", config), network.host("server")
    children: list[Connection] = []
    received = 0

    def accept(connection: Connection) -> Any:
        children.append(connection)
        return read

    def read(connection: Connection, bits: int) -> None:
        nonlocal received
        received += len(connection.receive())

    server.listen(80, accept)
    connection = client.connect(server, 80)
    network.watch_flows()
    network.run_for(1)
    connection.send(bytes(20_000_000), network.now)
    network.run_for(5)
    info, (child,) = connection.info(), children
    assert received * 8 / 5 > 8.5e6
    assert info.retransmissions == 0
    assert network.counts == {Fate.DELIVERED: network.counts[Fate.DELIVERED]}
    flow = next(flow for key, flow in network.flows.items() if key[0] == "client")
    assert flow.marked == child.info().ce_in > 5
    assert 0 < info.ecn_reductions <= flow.marked
    assert flow.delay / sum(flow.fates.values()) < 45 * MILLISECOND
    assert {packet.ecn for packet in network.trace if packet.src == "server"} == {0}
    for packet in network.trace:
        assert (packet.ecn != 0) == (packet.src == "client" and packet.segment.data_len > 0)


@pytest.mark.parametrize(("ecn", "dropped"), [(True, False), (False, True)])
def test_between_programs(ecn: bool, dropped: bool) -> None:
    """The same bytes arrive with marks, and without by retransmissions."""
    network = Network(seed=3, **PATH)
    client, server = network.host("client"), network.host("server")
    data = bytes(range(256)) * 10_000
    infos: list[Any] = []

    async def serve() -> None:
        async def handle(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            assert await reader.read() == data
            infos.append(writer.transport.info())
            writer.close()

        async with await utcp.start_server(handle, None, 9000) as listening:
            await listening.serve_forever()

    async def main() -> None:
        server.start(serve)
        reader, writer = await utcp.open_connection("server", 9000, config=Config(ecn=ecn))
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == b""
        infos.append(writer.transport.info())
        writer.close()
        await writer.wait_closed()

    run(main, network=network, host=client)
    there, here = infos
    assert (there.ecn, here.ecn) == (ecn, ecn)
    assert (network.counts[Fate.CODEL] > 0, here.retransmissions > 0) == (dropped, dropped)
    assert (there.ce_in > 0, here.ecn_reductions > 0) == (ecn, ecn)


class Congested(Network):
    """A network in which a tenth of all that is ECN-capable is marked, beside everything else that happens to it."""

    dice: random.Random

    def send(self, src: str, dst: str, payload: bytes, ecn: int = 0) -> None:
        marked = ecn and self.dice.random() < 0.1
        super().send(src, dst, payload, 3 if marked else ecn)


@pytest.mark.parametrize("seed", range(12))
def test_a_bad_network_that_marks(seed: int) -> None:
    """Both sides send, with losses, duplicates and reordering: every byte arrives, and nothing is left."""
    network = Congested(
        seed, delay=0.01, jitter=0.01, loss=0.05, duplicate=0.05, reorder=0.1, check=invariants.check, record=False
    )
    network.dice = random.Random(seed)
    data = random.Random(seed).randbytes(200_000)
    config = Config(ecn=True, congestion_control=("reno", "cubic")[seed % 2], timestamps=seed % 3 > 0, msl=1.0)
    client, server = network.host("client", config), network.host("server", config)
    received: dict[Connection, bytearray] = {}

    def begin(connection: Connection) -> Any:
        received[connection] = bytearray()
        connection.send(data, network.now)
        connection.shutdown(1, network.now)
        return read

    def read(connection: Connection, bits: int) -> None:
        received[connection] += connection.receive()

    server.listen(80, begin)
    opener = client.connect(server, 80)
    opener.context = begin(opener)
    network.run_for(120)
    assert [bytes(found) for found in received.values()] == [data, data]
    assert all(connection.closed and connection.error is None for connection in received)
    if opener.info().ecn:  # no SYN was lost
        assert sum(connection.info().ce_in for connection in received) > 10
        assert sum(connection.info().ecn_reductions for connection in received) > 0
    for host in (client, server):
        assert host.engine.connection_count() == 0
        assert host.engine.memory == 0
