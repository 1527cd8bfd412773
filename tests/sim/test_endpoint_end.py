"""T-16: an endpoint closes while TIME-WAIT records live, to the millisecond of virtual time; MSL changed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import utcp
from utcp.sim import Fate, Network, run
from utcp.wire.segment import FIN

PORT = 9000
DELAY = 0.01


class World:
    """A client's endpoint with one connection in TIME-WAIT, since ``began``; the server is done."""

    def __init__(self, msl: float) -> None:
        self.network = Network(delay=DELAY)
        self.client, self.server = self.network.host("client"), self.network.host("server")
        self.config = utcp.Config(msl=msl)
        self.began = 0.0

    def run(self, main: Callable[[World, utcp.Endpoint], Awaitable[None]]) -> None:
        async def serve() -> None:
            async with await utcp.start_server(self._answer, None, PORT) as server:
                await server.serve_forever()

        async def client() -> None:
            self.server.start(serve)
            await asyncio.sleep(1)
            endpoint = await utcp.Endpoint.create(config=self.config)
            await self.connect_and_close(endpoint)
            await main(self, endpoint)

        run(client, network=self.network, host=self.client)

    async def connect_and_close(self, endpoint: utcp.Endpoint) -> None:
        transport, _ = await endpoint.create_connection(asyncio.Protocol, "server", PORT)
        transport.close()
        await transport.closed()
        self.began = asyncio.get_running_loop().time()

    @staticmethod
    async def _answer(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        await reader.read()
        writer.close()

    def repeat_fin(self) -> None:
        """The server's FIN comes once more."""
        fins = [packet for packet in self.network.trace if packet.src == "server" and packet.segment.flags & FIN]
        self.network.replay(fins[-1])

    def waited(self) -> float:
        return asyncio.get_running_loop().time() - self.began


@pytest.mark.parametrize("msl", [0.5, 30.0, 120.0])
def test_T_16_lingering_lasts_2_MSL_and_answers(msl: float) -> None:
    async def main(world: World, endpoint: utcp.Endpoint) -> None:
        closing = asyncio.ensure_future(endpoint.aclose("linger"))
        await asyncio.sleep(msl)
        assert endpoint.is_open and endpoint.is_closing()
        assert endpoint.stats().states == {utcp.State.TIME_WAIT: 1}
        with pytest.raises(RuntimeError, match="closed"):
            endpoint.connect(asyncio.Protocol, ("10.0.0.2", PORT))
        before = len(world.network.trace)
        world.repeat_fin()
        await asyncio.sleep(2 * DELAY)
        replayed, answer = world.network.trace[before : before + 2]
        assert (replayed.fate, answer.src) == (Fate.REPLAYED, "client")
        assert answer.segment.flags == 0x10 and answer.segment.ack == replayed.segment.seq + 1
        await closing
        assert world.waited() == pytest.approx(msl + 2 * msl, abs=0.005)  # 2MSL began anew with the FIN
        assert not endpoint.is_open

    World(msl).run(main)


def test_T_16_discarding_is_immediate_and_answers_nobody() -> None:
    async def main(world: World, endpoint: utcp.Endpoint) -> None:
        await endpoint.aclose("discard")
        assert world.waited() <= 0.001
        assert not endpoint.is_open
        before = len(world.network.trace)
        world.repeat_fin()
        await asyncio.sleep(1)
        assert [packet.fate for packet in world.network.trace[before:]] == [Fate.REPLAYED]

    World(30.0).run(main)


def test_T_16_discarding_is_what_async_with_does() -> None:
    async def main(world: World, endpoint: utcp.Endpoint) -> None:
        async with endpoint:
            pass
        assert world.waited() <= 0.001

    World(30.0).run(main)


def test_T_14_msl_changed_at_run_time() -> None:
    """Records that exist keep their time, also where the endpoint lingers for them."""

    async def main(world: World, endpoint: utcp.Endpoint) -> None:
        first = world.began
        endpoint.set_option("msl", 5.0)
        await world.connect_and_close(endpoint)
        assert endpoint.stats().states == {utcp.State.TIME_WAIT: 2}
        await asyncio.sleep(10.01)
        assert endpoint.stats().states == {utcp.State.TIME_WAIT: 1}
        await endpoint.aclose("linger")
        assert asyncio.get_running_loop().time() - first == pytest.approx(60, abs=0.005)

    World(30.0).run(main)


def test_options_of_an_endpoint() -> None:
    async def main(world: World, endpoint: utcp.Endpoint) -> None:
        with pytest.raises(ValueError, match="msl"):
            endpoint.set_option("msl", -1.0)
        with pytest.raises(ValueError, match="no_such_option"):
            endpoint.set_option("no_such_option", 1)
        endpoint.set_option("max_connections", 0)
        with pytest.raises(OSError, match="max_connections"):
            await endpoint.create_connection(asyncio.Protocol, "server", PORT)
        stats = endpoint.stats()
        assert (stats.counters.connections_refused, stats.memory) == (1, 0)
        await endpoint.aclose()

    World(30.0).run(main)


def test_what_is_not_read_counts_as_memory() -> None:
    async def main(world: World, endpoint: utcp.Endpoint) -> None:
        async def flood(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            writer.write(bytes(10_000))
            await reader.read()
            writer.close()

        async def serve() -> None:
            async with await utcp.start_server(flood, None, PORT + 1) as server:
                await server.serve_forever()

        world.server.start(serve)
        await asyncio.sleep(1)
        transport, _ = await endpoint.create_connection(asyncio.Protocol, "server", PORT + 1)
        transport.pause_reading()
        await asyncio.sleep(1)
        assert endpoint.stats().memory == 10_000
        transport.resume_reading()
        await asyncio.sleep(1)
        assert endpoint.stats().memory == 0
        transport.close()
        await endpoint.aclose()

    World(30.0).run(main)
