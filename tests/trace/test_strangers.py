"""Strangers' tools read our captures: tshark and tcptrace, on runs over a simulated network, on the demo, and tshark
on the wire. Where they remark on something, it is listed here with what it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import utcp
from interop.namespace import private_namespace
from support.apps import Peer, pattern
from support.ports import free_port
from support.strangers import ERROR, FIELD_OPTIONS, Frame, frame, remarks, tcptrace, tool, tshark
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.observer import Observer
from utcp.core.states import State
from utcp.sim import Host, Network
from utcp.trace import Fanout, PcapngObserver
from utcp.wire.segment import ACK, FIN, RST, SYN, Segment, decode
from utcp.wire.seq import seq_gt

PORT: Final = 40080  # no protocol's: tshark looks no further than TCP
ENV: Final = {**os.environ, "PYTHONPATH": str(Path(utcp.__file__).parents[1])}
UPLOAD, DRAIN = pattern(1, 20_000), pattern(2, 120_000)

# What tshark's experts note or warn of in our captures
FIRST_FIN: Final = "This frame initiates the connection closing"
SECOND_FIN: Final = "This frame undergoes the connection closing"
AGAIN: Final = "This frame is a (suspected) retransmission"
AGAIN_IN_VAIN: Final = "This frame is a (suspected) spurious retransmission"
AGAIN_SOON: Final = "This frame is a (suspected) fast retransmission"
DUPLICATE_ACK: Final = "Duplicate ACK (##)"
HOLE: Final = "Previous segment(s) not captured (common at capture start)"
LATE: Final = "This frame is a (suspected) out-of-order segment"
WINDOW_SHUT: Final = "TCP Zero Window segment"
WINDOW_FULL: Final = "TCP window specified by the receiver is now completely full"
PROBE: Final = "TCP keep-alive segment"
PROBE_ANSWERED: Final = "ACK to a TCP keep-alive segment"
TWICE: Final = "D-SACK Sequence"
RESET: Final = "Connection reset (RST)"
REUSED: Final = "A new tcp session is started with the same ports as an earlier session in this trace"

# ... and what it is
EXPLAINED: Final = {
    FIRST_FIN: "what a graceful close begins with",
    SECOND_FIN: "the other side's",
    AGAIN: "sent again after RTO; or a SYN-ACK in a simultaneous open, whose number the SYN had (RFC 9293 Figure 7)",
    AGAIN_IN_VAIN: "sent again although acknowledged: that ACK was lost, or the network has doubled a segment",
    AGAIN_SOON: "behind duplicate ACKs: sent again, or overtaken by others",
    DUPLICATE_ACK: "one for each segment behind a hole (RFC 5681 4.2), or for each that came twice",
    HOLE: "a segment was lost, or overtaken, on its way to the side that captures",
    LATE: "the network has reordered; or sent again so soon (RFC 8985) that it looks like that",
    TWICE: "the receiver says what has come to it twice (RFC 2883)",
    WINDOW_SHUT: "the reader has stopped reading",
    WINDOW_FULL: "the last segment that fits",
    PROBE: "a keepalive (RFC 9293 3.8.4) or window probe (3.8.6.1): below the window, so that it must be answered",
    PROBE_ANSWERED: "the answer to it",
    RESET: "an end that is no graceful one; or a doubled or late ACK has met nobody, which TIME-WAIT ignores",
    REUSED: "a new connection takes the ports out of TIME-WAIT",
}
FINS: Final = {FIRST_FIN, SECOND_FIN}
LOSS: Final = {AGAIN, AGAIN_IN_VAIN, AGAIN_SOON, DUPLICATE_ACK, HOLE, LATE, TWICE}


class World:
    """A client and a server in a simulated network, each capturing what it sees."""

    def __init__(
        self,
        folder: Path,
        config: Config | None = None,
        *,
        seed: int = 1,
        loss: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
    ) -> None:
        self.net = Network(seed, delay=0.01, loss=loss, reorder=reorder, duplicate=duplicate, start=10**15)
        config = config or Config(msl=1.0)
        self.client, self.server = (self.net.host(name, config) for name in ("client", "server"))
        self.captures = {host: folder / f"{host.name}.pcapng" for host in (self.client, self.server)}
        self.duplicates = {host: DuplicateAcks() for host in (self.client, self.server)}
        self._observers = [self._capture(host) for host in (self.client, self.server)]

    def _capture(self, host: Host) -> PcapngObserver:
        observer = PcapngObserver(self.captures[host], host.engine.path_addresses, clock_offset=0)
        host.engine.observer = Fanout(observer, self.duplicates[host])
        return observer

    def pair(self) -> tuple[Connection, Connection]:
        """Two ends, both ESTABLISHED."""
        accepted: list[Connection] = []
        self.server.listen(PORT, accepted.append)
        conn = self.client.connect(self.server, PORT)
        assert self.net.run_until(lambda: bool(accepted) and conn.state is State.ESTABLISHED)
        return conn, accepted[0]

    def close(self, first: Connection, second: Connection) -> None:
        """One end, later the other, and everything that follows."""
        first.close(self.net.now)
        self.net.run_for(0.5)
        second.receive()
        second.close(self.net.now)
        self.net.run_to_the_end()

    def demo(self, connections: int = 1) -> None:
        """Upload and half-close, then the other side drains and closes: what ``utcp demo`` shows."""
        peers: list[Peer] = []

        def accept(_: Connection) -> Peer:
            peers.append(Peer(self.net, DRAIN, UPLOAD, answers_at_eof=True, ends_when="eof"))
            return peers[-1]

        self.server.listen(PORT, accept)
        for _ in range(connections):
            peers.append(Peer(self.net, UPLOAD, DRAIN))
            self.client.connect(self.server, PORT, peers[-1])
        self.net.run_to_the_end()
        assert len(peers) == 2 * connections
        assert all(peer.complete for peer in peers)

    def frames(self) -> dict[Host, list[Frame]]:
        """Both captures, as tshark reads them."""
        for observer in self._observers:
            observer.close()
        return dict(zip(self.captures, tshark(*self.captures.values()), strict=True))


class DuplicateAcks(Observer):
    """Counts the duplicate ACKs that a connection's sender hears, as RFC 5681 2 defines them."""

    def __init__(self) -> None:
        self.count = 0
        self._una: int | None = None  # the greatest ACK heard
        self._nxt = 0
        self._wnd = 0

    def segment_out(self, now: int, path: int, segment: bytes, retransmission: bool) -> None:
        seg = decode(segment)
        end = (seg.seq + seg.len) % 2**32
        if seg.flags & SYN or seq_gt(end, self._nxt):
            self._nxt = end

    def segment_in(self, now: int, path: int, segment: bytes) -> None:
        seg = decode(segment)
        if not seg.flags & ACK:
            return
        outstanding = self._una is not None and seq_gt(self._nxt, self._una)
        same = seg.ack == self._una and seg.wnd == self._wnd
        if outstanding and same and seg.data_len == 0 and not seg.flags & (SYN | FIN):
            self.count += 1
        if self._una is None or seq_gt(seg.ack, self._una):
            self._una = seg.ack
        self._wnd = seg.wnd


def check_expert(frames: dict[Host, list[Frame]]) -> set[str]:
    """No errors, nothing malformed, good checksums; returns the remarks of both captures."""
    every = [one for captured in frames.values() for one in captured]
    assert every
    assert not any(one.malformed for one in every)
    assert all(one.checksum_good for one in every)
    assert remarks(every, ERROR) == set()
    assert remarks(every) <= EXPLAINED.keys()
    return remarks(every)


def check_retransmissions(world: World, frames: dict[Host, list[Frame]]) -> None:
    """What left a host again, tshark, the capture's comments and the engine's counter agree on."""
    for host, captured in frames.items():
        left = [one for one in captured if (one.src_port == PORT) == (host is world.server)]
        marked = [one for one in captured if "retransmission" in one.comments]
        # What leaves twice within a few milliseconds tshark calls out of order; but nothing leaves a host in disorder
        assert [one for one in left if one.retransmission or LATE in one.expert] == marked
        assert len(marked) == host.engine.counters.retransmissions


# Runs whose every remark is known


def lossless(world: World) -> None:
    world.demo()


def twenty_at_once(world: World) -> None:
    world.demo(20)


def close_together(world: World) -> None:
    for end in world.pair():
        end.close(world.net.now)
    world.net.run_to_the_end()


def lost_syns(world: World) -> None:
    world.net.drop(lambda packet: bool(packet.segment.flags & SYN), 3)
    world.close(*world.pair())


def lost_fins(world: World) -> None:
    pair = world.pair()
    world.net.drop(lambda packet: bool(packet.segment.flags & FIN), 2)
    world.close(*pair)


def lost_last_acks(world: World) -> None:
    client, server = world.pair()
    client.close(world.net.now)
    world.net.run_for(0.5)
    world.net.drop(lambda packet: packet.src == "client" and packet.segment.flags == ACK, 2)
    server.close(world.net.now)
    world.net.run_to_the_end()


def zero_window(world: World) -> None:
    client, server = world.pair()
    client.send(bytes(60_000), world.net.now)
    world.net.run_for(3)
    read = 0
    while read < 60_000:
        read += len(server.receive())
        world.net.run_for(0.1)
    world.close(client, server)


def keepalive(world: World) -> None:
    pair = world.pair()
    world.net.run_for(3.5)
    world.close(*pair)


def urgent_data_and_user_timeout(world: World) -> None:
    client, server = world.pair()
    client.send_urgent(bytes(3000), world.net.now)
    client.send(b"calm", world.net.now)
    world.net.run_for(1)
    assert len(server.receive()) == 3004
    world.close(client, server)


def abort(world: World) -> None:
    client, _ = world.pair()
    client.send(b"x", world.net.now)
    client.abort(world.net.now)
    world.net.run_to_the_end()


def unread_data(world: World) -> None:
    client, server = world.pair()
    client.send(b"x", world.net.now)
    world.net.run_for(0.2)
    server.close(world.net.now)
    world.net.run_to_the_end()


def refused(world: World) -> None:
    world.client.connect(world.server, PORT)
    world.net.run_to_the_end()


def reuse_of_a_pair_in_time_wait(world: World) -> None:
    first, second = world.pair()
    first.close(world.net.now)
    second.close(world.net.now)
    world.net.run_for(0.5)
    conn = world.client.connect(world.server, PORT, local_port=first.local_port)
    world.net.run_for(0.5)
    assert conn.state is State.ESTABLISHED
    conn.abort(world.net.now)
    world.net.run_to_the_end()


def open_together(world: World) -> None:
    ends = (
        world.client.connect(world.server, PORT, local_port=PORT + 1),
        world.server.connect(world.client, PORT + 1, local_port=PORT),
    )
    world.net.run_for(1)
    world.close(*ends)


@dataclass(frozen=True)
class Case:
    run: Callable[[World], None]
    remarks: set[str]
    config: Config | None = None

    def __str__(self) -> str:
        return self.run.__name__


CASES: Final = [
    Case(lossless, FINS),
    Case(twenty_at_once, FINS),
    Case(close_together, FINS),
    Case(lost_syns, FINS | {AGAIN}),
    Case(lost_fins, FINS | {AGAIN}),
    Case(lost_last_acks, FINS | {AGAIN, DUPLICATE_ACK}),
    Case(zero_window, FINS | {WINDOW_SHUT, WINDOW_FULL, PROBE}, Config(msl=1.0, receive_buffer=20_000)),
    Case(
        keepalive,
        FINS | {PROBE, PROBE_ANSWERED},
        Config(msl=1.0, keepalive=True, keepalive_idle=1.0, keepalive_interval=1.0),
    ),
    Case(urgent_data_and_user_timeout, FINS, Config(msl=1.0, user_timeout=60.0, user_timeout_option=True)),
    Case(abort, {RESET}),
    Case(unread_data, {RESET}),
    Case(refused, {RESET}),
    Case(reuse_of_a_pair_in_time_wait, FINS | {RESET, REUSED}, Config(msl=30.0)),
    Case(open_together, FINS | {AGAIN}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tshark_remarks_on_nothing_but_what_is_meant(tmp_path: Path, case: Case) -> None:
    world = World(tmp_path, case.config)
    case.run(world)
    frames = world.frames()
    assert check_expert(frames) == case.remarks
    check_retransmissions(world, frames)


# Bad networks


@pytest.mark.parametrize(("seed", "loss"), [(2, 0.05), (5, 0.05), (4, 0.1), (6, 0.1)])
def test_tshark_and_we_agree_on_retransmissions_and_duplicate_acks(tmp_path: Path, seed: int, loss: float) -> None:
    world = World(tmp_path, seed=seed, loss=loss)
    world.demo()
    frames = world.frames()
    assert check_expert(frames) <= FINS | LOSS
    check_retransmissions(world, frames)
    for host, captured in frames.items():
        heard = [one for one in captured if (one.src_port == PORT) == (host is world.client)]
        assert sum(one.duplicate_ack for one in heard) == world.duplicates[host].count
    assert world.server.engine.counters.retransmissions > 0
    assert sum(counter.count for counter in world.duplicates.values()) > 0


@pytest.mark.parametrize(("reorder", "duplicate"), [(0.1, 0.0), (0.0, 0.1)], ids=["reordered", "doubled"])
def test_tshark_finds_no_error_in_a_reordered_or_doubled_run(tmp_path: Path, reorder: float, duplicate: float) -> None:
    world = World(tmp_path, seed=3, reorder=reorder, duplicate=duplicate)
    world.demo()
    assert check_expert(world.frames()) <= FINS | LOSS | {RESET}


# tcptrace


def test_tcptrace_calls_every_connection_complete_with_one_syn_and_one_fin_a_side(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.demo(20)
    world.frames()
    for capture in world.captures.values():
        verdicts = tcptrace(capture)
        assert len(verdicts) == 20
        assert all(verdict.complete and verdict.syn_fin == ["1/1", "1/1"] for verdict in verdicts)


@pytest.mark.parametrize("first", ["client", "server", "both"])
def test_tcptrace_and_tshark_on_the_demo(tmp_path: Path, first: str) -> None:
    capture = tmp_path / "demo.pcapng"
    command = [sys.executable, "-m", "utcp", "demo", "--msl", "0.5", "--close", first, "--drain", "5000", "--json"]
    tool("tshark")
    done = subprocess.run([*command, "--pcap", str(capture)], check=True, capture_output=True, env=ENV)
    (verdict,) = tcptrace(capture)
    resent = any(segment["retransmission"] for segment in json.loads(done.stdout)["segments"])
    assert verdict.plausible(resent)
    (frames,) = tshark(capture)
    assert remarks(frames, ERROR) == set()
    assert FINS <= remarks(frames) <= (FINS | LOSS | {RESET} if resent else FINS)


# On the wire


CLIENTS: Final = 5


class Tshark:
    """tshark on the loopback interface, with utcp's UDP port decoded as TCP."""

    def __init__(self, port: int) -> None:
        self._port = port
        where = ["-i", "lo", "-f", f"udp port {port}", "-d", f"udp.port=={port},tcp", "-l"]
        self._process = subprocess.Popen(
            [tool("tshark"), *where, *FIELD_OPTIONS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._heard = b""

    def frames(self) -> list[Frame]:
        """The segments so far, but for those of ``wait_until_it_listens``."""
        assert self._process.stdout is not None
        self._heard += self._process.stdout.read() or b""
        lines = self._heard.decode().splitlines(keepends=True)
        return [one for line in lines if line.endswith("\n") and (one := frame(line[:-1])).src_port != 1]

    def wait_until_it_listens(self) -> None:
        """tshark says that it captures some time before it does: segments to nobody show when."""
        probe = Segment(1, 1, flags=RST).to_bytes()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(400):
                sock.sendto(probe, ("127.0.0.1", self._port))
                time.sleep(0.05)
                self.frames()
                if self._heard:
                    return
                if self._process.poll() is not None:
                    assert self._process.stderr is not None
                    pytest.skip(f"SKIPPED: tshark cannot capture here: {self._process.stderr.read().decode()}")
        pytest.fail("tshark hears nothing on lo")

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=20)


@contextmanager
def listening(port: int) -> Iterator[Tshark]:
    live = Tshark(port)
    try:
        live.wait_until_it_listens()
        yield live
    finally:
        live.close()


async def live_run(port: int) -> int:
    """Clients that upload, half-close and are answered, one datagram a segment. Returns how many segments left."""

    async def answer(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        request = await reader.read()
        writer.write(request[::-1] * 2)
        writer.close()
        await writer.wait_closed()

    async def ask(number: int) -> None:
        reader, writer = await utcp.open_connection("127.0.0.1", port, endpoint=client)
        request = pattern(number, 1000 * number)
        writer.write(request)
        writer.write_eof()
        assert await reader.read() == request[::-1] * 2
        writer.close()
        await writer.transport.closed()

    async with (
        await utcp.Endpoint.create(("127.0.0.1", port), gso=False, gro=False) as server,
        await utcp.Endpoint.create(("127.0.0.1", 0), gso=False, gro=False) as client,
        await utcp.start_server(answer, endpoint=server),
    ):
        await asyncio.gather(*[ask(number) for number in range(1, CLIENTS + 1)])
    return sum(int(endpoint.engine.counters.segments_out) for endpoint in (server, client))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="SKIPPED: live captures need root")
def test_tshark_reads_the_wire_itself() -> None:
    tool("tshark")
    with private_namespace():
        port = free_port(socket.SOCK_DGRAM)
        with listening(port) as live:
            sent = asyncio.run(live_run(port))
            deadline = time.monotonic() + 20
            while len(live.frames()) < sent and time.monotonic() < deadline:
                time.sleep(0.05)
            frames = live.frames()
    assert len(frames) == sent, "every segment is one datagram"
    assert not any(one.malformed for one in frames)
    assert FINS <= remarks(frames) <= FINS | LOSS
    streams = {one.stream for one in frames}
    assert len(streams) == CLIENTS
    for stream in streams:
        mine = [one for one in frames if one.stream == stream]
        for from_server in (False, True):
            side = [one for one in mine if (one.src_port == port) == from_server and not one.retransmission]
            assert (sum(one.syn for one in side), sum(one.fin for one in side)) == (1, 1)
    firsts = [one for one in frames if not one.retransmission]
    uploaded = sum(1000 * number for number in range(1, CLIENTS + 1))
    assert sum(one.data_len for one in firsts if one.src_port != port) == uploaded
    assert sum(one.data_len for one in firsts if one.src_port == port) == 2 * uploaded
