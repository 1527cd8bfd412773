"""SO_LINGER's three modes over asyncio, in virtual time (C-05 to C-07)."""

from __future__ import annotations

import asyncio

import pytest

import utcp
from utcp.sim import Fate, Network, run
from utcp.wire.segment import FIN, RST

PORT = 9000


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


def close_with_data_out(linger: float | None, *, silence: bool) -> tuple[Network, float, BaseException | None]:
    """Connect, write, close; with ``silence`` nothing gets through from then on. The network, and how it went."""
    network = Network(delay=0.01)
    client, server = network.host("client"), network.host("server")

    async def answer(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError:
            pass
        writer.close()

    async def serve() -> None:
        async with await utcp.start_server(answer, None, PORT) as listening:
            await listening.serve_forever()

    async def main() -> tuple[float, BaseException | None]:
        server.start(serve)
        await asyncio.sleep(1)
        transport, protocol = await utcp.create_connection(Client, "server", PORT)
        transport.set_option("linger", linger)
        await asyncio.sleep(1)
        if silence:
            network.partition(client, server)
        transport.write(b"last words")
        transport.close()
        loop = asyncio.get_running_loop()
        began = loop.time()
        error = await protocol.lost
        took = loop.time() - began
        await asyncio.sleep(0.1)
        return took, error

    return network, *run(main, network=network, host=client)


@pytest.mark.parametrize("linger", [None, 2.0])
def test_C_06_acknowledged_in_time(linger: float | None) -> None:
    network, took, error = close_with_data_out(linger, silence=False)
    assert error is None
    assert took == pytest.approx(0.02, abs=0.002)
    assert not [packet for packet in network.trace if packet.segment.flags & RST]


def test_C_06_none_goes_on_in_the_background_to_close_timeout() -> None:
    network, took, error = close_with_data_out(None, silence=True)
    assert isinstance(error, TimeoutError)
    assert took == pytest.approx(30, abs=0.002)
    assert not [packet for packet in network.trace if packet.segment.flags & RST]


def test_C_06_seconds_end_in_a_reset() -> None:
    network, took, error = close_with_data_out(2.0, silence=True)
    assert isinstance(error, ConnectionAbortedError)
    assert took == pytest.approx(2, abs=0.002)
    resets = [packet for packet in network.trace if packet.segment.flags & RST]
    assert [(packet.src, packet.fate) for packet in resets] == [("client", Fate.PARTITIONED)]


def test_C_05_zero_resets_at_once() -> None:
    network, took, error = close_with_data_out(0.0, silence=False)
    assert error is None
    assert took <= 0.001
    assert [packet.src for packet in network.trace if packet.segment.flags & RST] == ["client"]
    assert not [packet for packet in network.trace if packet.segment.flags & FIN]
