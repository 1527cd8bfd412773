"""close, abort and what they promise: connection_lost, drained, closed, CloseInfo."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

import utcp
from aio.protocols import HOST, Accepted, Echo, Recorder, pair, serving, transport_of
from support.patience import until
from utcp.wire.segment import ACK, RST, SYN, Segment, decode


async def test_close_sends_what_was_written() -> None:
    async with pair() as (client, server):
        transport_of(client).write(bytes(500_000))
        transport_of(client).close()
        assert transport_of(client).is_closing()
        assert await client.lost is None
        assert len(server.data) == 500_000
        assert await server.lost is None


async def test_close_waits_for_the_acknowledgment_not_for_the_peer_s_fin() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        transport_of(client).write(b"x")
        transport_of(client).close()
        assert await client.lost is None
        assert transport_of(client).state is utcp.State.FIN_WAIT_2
        closed = asyncio.ensure_future(transport_of(client).closed())
        await server.eof
        assert not closed.done()
        transport_of(server).close()
        info = await closed
        assert (info.reason, info.by_peer, info.error) == ("graceful", False, None)
        assert transport_of(client).state is utcp.State.TIME_WAIT
        info = await transport_of(server).closed()
        assert (info.reason, info.by_peer, info.error) == ("graceful", True, None)


async def test_close_is_idempotent_and_silent() -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        for _ in range(3):
            transport.close()
        transport.write_eof()
        await client.lost
        transport.close()
        transport.abort()
        transport.pause_reading()
        transport.resume_reading()
        transport.set_write_buffer_limits(0)
        await server.lost
        assert client.events.count("lost") == 1


async def test_data_that_arrives_after_close_resets() -> None:
    async with pair(server_keeps_open=True) as (client, server):
        transport_of(client).close()
        await client.lost
        await server.eof
        transport_of(server).write(b"too late")
        assert isinstance(await server.lost, ConnectionResetError)
        info = await transport_of(client).closed()
        assert info.reason == "unread-data"
        assert info.unread_bytes == 8
        assert bytes(client.data) == b""


async def test_abort_resets() -> None:
    async with pair() as (client, server):
        transport_of(client).write(b"lost or not")
        transport_of(client).abort()
        assert not client.lost.done()
        assert await client.lost is None
        assert isinstance(await server.lost, ConnectionResetError)
        ours = await transport_of(client).closed()
        theirs = await transport_of(server).closed()
        assert (ours.reason, ours.by_peer) == ("aborted", False)
        assert (theirs.reason, theirs.by_peer) == ("reset-by-peer", True)
        assert isinstance(theirs.error, ConnectionResetError)
        assert "eof" not in server.events


async def test_data_before_a_reset_is_delivered() -> None:
    async with pair() as (client, server):
        transport_of(server).pause_reading()
        transport_of(client).write(b"before the reset")
        await transport_of(client).drained()
        transport_of(client).abort()
        await client.lost
        await until(lambda: transport_of(server).state is utcp.State.CLOSED)
        await asyncio.sleep(0.01)
        assert not server.lost.done()
        transport_of(server).resume_reading()
        assert isinstance(await server.lost, ConnectionResetError)
        assert server.events == ["made", "data", "lost"]
        assert bytes(server.data) == b"before the reset"


async def test_a_paused_reader_hears_of_a_reset_when_it_writes() -> None:
    async with pair() as (client, server):
        transport_of(server).pause_reading()
        transport_of(client).write(b"never read")
        await transport_of(client).drained()
        transport_of(client).abort()
        await client.lost
        await until(lambda: transport_of(server).state is utcp.State.CLOSED)
        transport_of(server).write(b"x")
        assert isinstance(await server.lost, ConnectionResetError)
        assert (await transport_of(server).closed()).unread_bytes == 10


async def test_write_after_close_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        transport.write(b"kept")
        transport.close()
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            for _ in range(5):
                transport.write(b"dropped")
            assert not caplog.records
            transport.write(b"dropped")
        assert [record.message for record in caplog.records] == ["socket.send() raised exception."]
        assert await client.lost is None
        await server.lost
        assert bytes(server.data) == b"kept"


async def test_write_after_eof_is_an_error() -> None:
    async with pair(client_keeps_open=True) as (client, _):
        transport = transport_of(client)
        transport.write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            transport.write(b"x")
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            transport.writelines([b"x"])


@pytest.mark.parametrize("data", [None, "text", 3])
async def test_writing_what_is_no_bytes(data: object) -> None:
    async with pair() as (client, _):
        with pytest.raises(TypeError, match="data argument must be a bytes-like object, not"):
            transport_of(client).write(data)  # type: ignore[arg-type]


async def test_what_may_be_written() -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        reused = bytearray(b"array ")
        transport.write(reused)
        reused[:] = b"xxxxxx"
        transport.write(memoryview(b"view "))
        transport.write(memoryview(b"wide" * 4).cast("I"))
        transport.writelines([b"two ", b"lines"])
        transport.write(b"")
        transport.close()
        await server.lost
        assert bytes(server.data) == b"array view widewidewidewidetwo lines"


async def test_drained_means_acknowledged() -> None:
    async with pair() as (client, _):
        transport = transport_of(client)
        await transport.drained()
        for _ in range(3):
            transport.write(bytes(100_000))
            await transport.drained()
            assert transport.info().unacked_bytes == 0


async def test_drained_raises_what_ended_the_connection() -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        transport_of(server).pause_reading()
        transport.write(bytes(8_000_000))
        draining = asyncio.ensure_future(transport.drained())
        await asyncio.sleep(0.05)
        transport_of(server).abort()
        with pytest.raises(ConnectionResetError):
            await draining
        with pytest.raises(ConnectionResetError):
            await transport.drained()
        assert (await transport.closed()).unacked_bytes > 0


async def test_cancelling_drained_and_closed_has_no_effect() -> None:
    async with pair() as (client, server):
        transport = transport_of(client)
        transport_of(server).pause_reading()
        transport.write(bytes(8_000_000))
        waiting = [asyncio.ensure_future(transport.drained()), asyncio.ensure_future(transport.closed())]
        await asyncio.sleep(0)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        transport_of(server).resume_reading()
        await transport.drained()
        transport.close()
        assert await client.lost is None
        assert len(server.data) == 8_000_000


async def test_set_option() -> None:
    async with pair() as (client, _):
        transport_of(client).set_option("nodelay", False)
        with pytest.raises(ValueError, match="no_such_option"):
            transport_of(client).set_option("no_such_option", 1)
        with pytest.raises(ValueError, match="msl"):
            transport_of(client).set_option("msl", -1.0)


async def test_linger_zero_resets() -> None:
    async with pair() as (client, server):
        transport_of(client).set_option("linger", 0)
        transport_of(client).close()
        assert await client.lost is None
        assert isinstance(await server.lost, ConnectionResetError)


class Peer:
    """The other end as a bare UDP socket: it answers a handshake, and then only as it is told."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((HOST, 0))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]

    async def receive(self) -> Segment:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.sock, readable.set)
        await readable.wait()
        loop.remove_reader(self.sock)
        data, self.addr = self.sock.recvfrom(65536)
        return decode(data)

    def send(self, seg: Segment) -> None:
        self.sock.sendto(seg.to_bytes(), self.addr)

    async def accept(self) -> Segment:
        """Complete a handshake; returns the SYN. (One that had to wait may come twice.)"""
        syn = answer = await self.receive()
        while answer.flags & SYN:
            self.send(Segment(syn.dst_port, syn.src_port, 1000, syn.seq + 1, SYN | ACK))
            answer = await self.receive()
        assert answer.ack == 1001
        return syn


@pytest.mark.parametrize("how", ["reset", "silence"])
async def test_a_missing_last_ack_is_no_error(how: str) -> None:
    """LAST-ACK with all data acknowledged: whatever keeps our FIN's ACK away, both sides have every byte."""
    peer = Peer()
    connecting = asyncio.ensure_future(
        utcp.create_connection(
            Recorder,
            HOST,
            peer.port,
            config=utcp.Config(timestamps=False, orphan_timeout=0.3 if how == "silence" else 60.0),
        )
    )
    syn = await peer.accept()
    transport, client = await connecting
    transport.write(b"data")
    assert (await peer.receive()).data == b"data"
    # FIN, with everything acknowledged; the recorder closes on end of file, and so LAST-ACK
    peer.send(Segment(syn.dst_port, syn.src_port, 1001, syn.seq + 5, 0x11))
    fin = await peer.receive()
    while not fin.flags & 1:
        fin = await peer.receive()
    if how == "reset":
        peer.send(Segment(syn.dst_port, syn.src_port, 1002, fin.seq + 1, RST | ACK))
    assert await client.lost is None
    info = await transport.closed()
    assert info.last_ack_missing
    assert info.unacked_bytes == 0
    assert info.reason == ("reset-by-peer" if how == "reset" else "timed-out")
    peer.sock.close()


async def test_a_peer_that_vanishes_is_a_timeout() -> None:
    peer = Peer()
    connecting = asyncio.ensure_future(utcp.create_connection(Recorder, HOST, peer.port, config=utcp.Config(r2=0.5)))
    await peer.accept()
    transport, client = await connecting
    transport.write(b"anybody?")
    assert isinstance(await client.lost, TimeoutError)
    info = await transport.closed()
    assert info.reason == "timed-out"
    assert info.unacked_bytes == 8
    assert not info.by_peer
    peer.sock.close()


async def test_close_is_bounded_without_an_answer() -> None:
    peer = Peer()
    config = utcp.Config(close_timeout=0.3, orphan_timeout=0.3)
    connecting = asyncio.ensure_future(utcp.create_connection(Recorder, HOST, peer.port, config=config))
    await peer.accept()
    transport, client = await connecting
    transport.write(b"anybody?")
    transport.close()
    assert isinstance(await client.lost, TimeoutError)
    peer.sock.close()


async def test_an_icmp_error_is_soft_once_established() -> None:
    """The peer's port closes for a moment (X-08): the connection outlives it."""
    peer = Peer()
    connecting = asyncio.ensure_future(utcp.create_connection(Recorder, HOST, peer.port))
    syn = await peer.accept()
    transport, client = await connecting
    peer.sock.close()
    transport.write(b"data")
    await asyncio.sleep(0.05)
    assert not client.lost.done()
    peer.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.sock.bind((HOST, peer.port))
    peer.sock.setblocking(False)
    assert (await peer.receive()).data == b"data"
    peer.send(Segment(syn.dst_port, syn.src_port, 1001, syn.seq + 5, 0x10))
    await transport.drained()
    transport.abort()
    peer.sock.close()


async def test_many_connections_closing_at_once() -> None:
    async with serving(Echo) as port:

        async def life(number: int) -> None:
            transport, client = await utcp.create_connection(Recorder, HOST, port)
            transport.write(b"%d" % number)
            await client.received(len(str(number)))
            transport.write_eof()
            assert await client.lost is None
            assert bytes(client.data) == b"%d" % number

        await asyncio.gather(*[life(number) for number in range(1000)])


async def test_both_sides_close_at_once() -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        for _ in range(10):
            transport, client = await utcp.create_connection(Recorder, HOST, port)
            server = await accepted.get()
            transport.close()
            transport_of(server).close()
            assert await client.lost is None
            assert await server.lost is None
            assert (await transport.closed()).reason == "graceful"
            assert (await transport_of(server).closed()).reason == "graceful"
