"""``reuse_port``: several processes serve one UDP address, and each UDP source belongs to one of them."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import AsyncExitStack

import pytest

import utcp
from support.ports import free_port
from support.programs import kind_of_loop, running

HOST = "127.0.0.1"
SOURCES = 32  # all with the same one of two workers: once in two thousand million runs
EACH = 5  # connections of a source

WORKER = """
import os
async def handle(reader, writer):
    writer.write(str(os.getpid()).encode())
    writer.close()
async def main():
    server = await utcp.start_server(handle, "127.0.0.1", port, reuse_port=True)
    print(os.getpid(), flush=True)
    await server.serve_forever()
run(main())
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED: elsewhere SO_REUSEPORT spreads nothing")


async def who_serves(endpoint: utcp.Endpoint, port: int) -> bytes:
    reader, writer = await utcp.open_connection(HOST, port, endpoint=endpoint)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_two_workers_share_the_sources() -> None:
    port = free_port(socket.SOCK_DGRAM)
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(running(WORKER, port, kind_of_loop())) for _ in range(2)]
        pids = set()
        for worker in workers:
            assert worker.stdout is not None
            pids.add((await worker.stdout.readline()).strip())
        assert len(pids) == 2
        answers = []
        for _ in range(SOURCES):
            async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
                answers.append(set(await asyncio.gather(*[who_serves(endpoint, port) for _ in range(EACH)])))
        assert all(len(of_one_source) == 1 for of_one_source in answers)
        assert set.union(*answers) == pids


async def test_without_it_the_second_is_refused() -> None:
    async with await utcp.Endpoint.create((HOST, 0)) as first:
        for reuse_port in (False, True):  # all have to ask for it
            with pytest.raises(OSError, match="in use"):
                await utcp.Endpoint.create((HOST, first.local_addr[1]), reuse_port=reuse_port)
