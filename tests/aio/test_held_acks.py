"""What many tasks answer carries the ACKs of what they answer to; where there are few, these leave before."""

from __future__ import annotations

import asyncio
import time

import pytest

import utcp
from aio.protocols import HOST, Accepted
from support.patience import until

MANY = 32
VERY_MANY = 1024


async def lifecycles(count: int) -> int:
    """So many at once over streams, twice, both ends on one endpoint; the segments that all of the second time took."""

    async def handle(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    async with await utcp.Endpoint.create((HOST, 0), config=utcp.Config(msl=0.05)) as endpoint:
        server = await utcp.start_server(handle, HOST, endpoint.local_addr[1], endpoint=endpoint)

        async def live() -> utcp.CloseInfo:
            reader, writer = await utcp.open_connection(HOST, endpoint.local_addr[1], endpoint=endpoint)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            return await writer.transport.closed()

        await asyncio.gather(*[live() for _ in range(count)])  # it learns that there are tasks
        before = endpoint.stats().counters.segments_out
        infos = await asyncio.gather(*[live() for _ in range(count)])
        assert {(info.reason, info.retransmissions) for info in infos} == {("graceful", 0)}
        server.close()
        return endpoint.stats().counters.segments_out - before


async def test_few_and_many() -> None:
    assert await lifecycles(1) == 7  # each ACK of the textbook on its own
    assert await lifecycles(MANY) < 6 * MANY


async def test_tasks_that_compute_for_long() -> None:
    """The ACKs leave after some of them, not after all: MUST-40."""
    async with (
        await utcp.Endpoint.create((HOST, 0)) as client,
        await utcp.Endpoint.create((HOST, 0)) as host,
    ):
        server = await utcp.create_server(Accepted(), HOST, host.local_addr[1], endpoint=host)

        async def sent_before_each(seconds: float) -> list[int]:
            sent = []

            async def live() -> None:
                await client.create_connection(asyncio.Protocol, HOST, host.local_addr[1])
                sent.append(client.stats().counters.segments_out)
                time.sleep(seconds)  # noqa: ASYNC251

            await asyncio.gather(*[live() for _ in range(MANY)])
            return [n - sent[0] for n in sent]

        await sent_before_each(0)  # it learns that there are tasks
        assert (await sent_before_each(0.02))[-1] == MANY  # 0.64 s
        server.close()
        client.abort()


async def test_tasks_need_not_wait_for_all_that_has_arrived() -> None:
    """Of very many whose tasks answer, the first do so before the last have been told."""
    told = ran = longest = 0

    class Counted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal told
            told += 1

    async with (
        await utcp.Endpoint.create((HOST, 0)) as client,
        await utcp.Endpoint.create((HOST, 0)) as host,
    ):
        server = await utcp.create_server(Accepted(), HOST, host.local_addr[1], endpoint=host, backlog=VERY_MANY)

        async def live() -> None:
            nonlocal ran, longest
            await client.create_connection(Counted, HOST, host.local_addr[1])
            longest = max(longest, told - ran)
            ran += 1

        await asyncio.gather(*[live() for _ in range(MANY)])  # it learns that there are tasks
        longest = 0
        await asyncio.gather(*[live() for _ in range(VERY_MANY)])
        assert 0 < longest <= VERY_MANY / 2
        server.close()
        client.abort()


class HalfOpen(asyncio.Protocol):
    """Never closes."""

    def eof_received(self) -> bool:
        return True


async def test_acks_wait_for_those_who_are_told_before_the_others_have_answered() -> None:
    """Twice in one turn of the loop many are told, as by the socket and by the alarm: all answers carry their ACKs."""
    async with (
        await utcp.Endpoint.create((HOST, 0)) as client,
        await utcp.Endpoint.create((HOST, 0)) as first,
        await utcp.Endpoint.create((HOST, 0)) as second,
    ):
        servers = [
            await utcp.create_server(HalfOpen, HOST, host.local_addr[1], endpoint=host) for host in (first, second)
        ]

        async def live(host: utcp.Endpoint) -> None:
            transport, _ = await client.create_connection(asyncio.Protocol, HOST, host.local_addr[1])
            transport.write_eof()

        async def segments_of_many() -> int:
            before = client.stats().counters.segments_out
            lives = [asyncio.ensure_future(live(host)) for host in (first, second) for _ in range(MANY)]
            await asyncio.sleep(0)
            client._pump.flush()  # all SYNs
            for host in (first, second):
                host._pump._on_readable()
                client._pump._on_readable()
            await asyncio.gather(*lives)
            await until(lambda: client.stats().states.get(utcp.State.FIN_WAIT_1, 0) == 0)
            return client.stats().counters.segments_out - before

        await segments_of_many()  # it learns that there are tasks
        counts: list[int] = []
        while len(counts) < 10 and 4 * MANY not in counts:  # a SYN and a FIN each, unless this process had to wait
            counts.append(await segments_of_many())
        assert 4 * MANY in counts, counts
        for server in servers:
            server.close()
        client.abort()


@pytest.mark.parametrize("count", [1, MANY])
async def test_nobody_answers(count: int) -> None:
    """The handshakes are completed all the same."""
    accepted = Accepted()
    async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
        server = await utcp.create_server(accepted, HOST, endpoint.local_addr[1], endpoint=endpoint)
        made = [endpoint.create_connection(asyncio.Protocol, HOST, endpoint.local_addr[1]) for _ in range(count)]
        await asyncio.gather(*made)
        await until(lambda: endpoint.stats().states[utcp.State.ESTABLISHED] == 2 * count)
        assert endpoint.stats().counters.segments_out == 3 * count
        server.close()
        endpoint.abort()


async def test_abort_right_after_connecting() -> None:
    """The other side hears of each connection, and of its reset."""
    accepted = Accepted()
    async with await utcp.Endpoint.create((HOST, 0)) as endpoint:
        server = await utcp.create_server(accepted, HOST, endpoint.local_addr[1], endpoint=endpoint)

        async def live() -> None:
            transport, _ = await endpoint.create_connection(asyncio.Protocol, HOST, endpoint.local_addr[1])
            transport.abort()

        await asyncio.gather(*[live() for _ in range(MANY)])
        for _ in range(MANY):
            recorder = await asyncio.wait_for(accepted.get(), 5)
            with pytest.raises(ConnectionResetError):
                raise await recorder.lost or AssertionError
        server.close()
