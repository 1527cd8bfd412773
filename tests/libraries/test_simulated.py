"""Libraries in virtual time, over a network that loses segments: all there is goes by utcp."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

import utcp.sim
from libraries.apps import BODY, echo, hello, session
from utcp.sim import Fate, Network

PORT = 80


async def serve() -> None:
    app = web.Application(client_max_size=2 * len(BODY))
    app.add_routes([web.get("/", hello), web.post("/echo", echo)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "server", PORT).start()
    await asyncio.Event().wait()


def fetch(seed: int) -> Network:
    """A network over which two requests were made and answered."""
    network = Network(seed=seed, delay=0.02, loss=0.05)
    server = network.host("server")

    async def main() -> None:
        server.start(serve)
        await asyncio.sleep(1)
        async with session() as client:
            async with client.get("http://server/") as response:
                assert (await response.text()).startswith("hello 10.")
            async with client.post("http://server/echo", data=BODY[:300_000]) as response:
                assert await response.read() == BODY[:300_000]

    utcp.sim.run(main, network=network)
    return network


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_aiohttp_on_a_lossy_path(seed: int) -> None:
    lost = [packet for packet in fetch(seed).trace if packet.fate is not Fate.DELIVERED]
    assert len(lost) > 5


def test_the_same_seed_does_the_same() -> None:
    assert list(map(str, fetch(7).trace)) == list(map(str, fetch(7).trace))
