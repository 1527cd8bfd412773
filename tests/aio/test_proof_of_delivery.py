"""drained() and closed(): several at once, before and after the end, cancelled, and while everything shuts down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import utcp
from aio.protocols import HOST, Accepted, Recorder, pair, transport_of

State = utcp.State


async def test_everybody_who_waits_for_the_end_gets_the_same_account() -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        waiting = [asyncio.ensure_future(transport.closed()) for _ in range(3)]
        await asyncio.sleep(0)
        transport.write(b"x" * 100_000)
        transport.close()
        infos = await asyncio.gather(*waiting, transport.closed())
        assert all(info == infos[0] for info in infos)
        assert await transport.closed() == infos[0]  # and afterwards, as often as one likes
        assert infos[0].reason == "graceful"
        assert list(infos[0].seconds_in) == [State.FIN_WAIT_1, State.FIN_WAIT_2]
        theirs = await transport_of(server).closed()
        assert theirs.by_peer
        assert list(theirs.seconds_in) == [State.CLOSE_WAIT, State.LAST_ACK]


async def test_drained_waits_for_what_was_written_before_it_and_no_more() -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        transport.write(b"first")
        first = asyncio.ensure_future(transport.drained())
        again = asyncio.ensure_future(transport.drained())
        await asyncio.sleep(0)
        transport_of(server).pause_reading()
        transport.write(bytes(8_000_000))
        last = asyncio.ensure_future(transport.drained())
        await asyncio.gather(first, again)
        assert not last.done()
        transport_of(server).resume_reading()
        await last
        assert transport.info().unacked_bytes == 0


async def test_drained_after_a_graceful_end_is_true_for_ever() -> None:
    async with pair() as (client, _):
        transport = transport_of(client)
        transport.write(b"all of it")
        transport.close()
        await transport.drained()
        await transport.closed()
        await transport.drained()


async def test_drained_after_a_loss_raises_for_everybody() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        transport = transport_of(client)
        transport_of(server).pause_reading()
        transport.write(bytes(8_000_000))
        waiting = [asyncio.ensure_future(transport.drained()) for _ in range(3)]
        await asyncio.sleep(0.05)
        transport.abort()
        outcomes = await asyncio.gather(*waiting, transport.drained(), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ConnectionAbortedError] * 4
        assert (await transport.closed()).unacked_bytes > 0


async def test_waiting_again_and_again_leaves_nothing_behind() -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        transport_of(server).pause_reading()
        transport.write(bytes(8_000_000))
        kept: Any = transport._channel
        for _ in range(50):
            for wait in (transport.closed, transport.drained):
                one = asyncio.ensure_future(wait())
                await asyncio.sleep(0)
                one.cancel()
                await asyncio.wait([one])
        assert len(kept.close_waiters) <= 1
        assert len(kept.drain_waiters) <= 1
        assert transport.state is State.ESTABLISHED


@pytest.mark.parametrize("time_wait", ["linger", "discard"])
async def test_closed_while_the_endpoint_closes(time_wait: Any) -> None:
    """The peer keeps its side open: the endpoint gives up on its FIN, and whoever waits for it hears so."""
    accepted = Accepted(lambda: Recorder(keep_open=True))
    server = await utcp.create_server(accepted, HOST, 0)
    config = utcp.Config(fin_timeout=0.3 if time_wait == "linger" else 60.0)
    endpoint = await utcp.Endpoint.create((HOST, 0), config=config)
    transport, _ = await endpoint.create_connection(Recorder, *server.sockets[0].getsockname()[:2])
    peer = await accepted.get()
    waiting = asyncio.ensure_future(transport.closed())
    async with asyncio.timeout(5):
        await endpoint.aclose(time_wait)
        info = await waiting
        assert await transport.closed() == info
    assert info.reason == ("endpoint-closed" if time_wait == "discard" else "fin-wait-2-expired")
    assert info.error is None
    await peer.eof
    transport_of(peer).abort()
    server.close()


async def test_lingering_while_the_endpoint_closes() -> None:
    accepted = Accepted(lambda: Recorder(keep_open=True))
    server = await utcp.create_server(accepted, HOST, 0)
    endpoint = await utcp.Endpoint.create((HOST, 0))
    transport, _ = await endpoint.create_connection(Recorder, *server.sockets[0].getsockname()[:2])
    peer = await accepted.get()
    lingering = asyncio.ensure_future(transport.lingering_close(3600))
    await peer.eof
    async with asyncio.timeout(5):
        await endpoint.aclose()
        assert (await lingering).reason == "endpoint-closed"
    transport_of(peer).abort()
    server.close()


def test_at_the_end_of_a_program() -> None:
    """In a ``finally`` of a task that asyncio.run cancels, and even after the loop has gone."""
    transports: list[utcp.Transport] = []
    found: list[utcp.CloseInfo] = []

    async def client(port: int) -> None:
        transport, _ = await utcp.create_connection(Recorder, HOST, port)
        transports.append(transport)
        try:
            await asyncio.sleep(3600)
        finally:
            transport.write(b"last words")
            transport.close()
            await transport.drained()
            found.append(await transport.closed())

    async def main() -> None:
        accepted = Accepted()
        server = await utcp.create_server(accepted, HOST, 0)
        task = asyncio.ensure_future(client(server.sockets[0].getsockname()[1]))
        await accepted.get()
        assert not task.done()

    asyncio.run(main())
    assert [info.reason for info in found] == ["graceful"]
    assert asyncio.run(transports[0].closed()) == found[0]
