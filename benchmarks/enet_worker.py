"""One process of ENet, a reliable protocol over UDP in C, through pyenet. Told like worker.py, without a loop."""

from __future__ import annotations

import json
import select
import sys
import time
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from typing import Any

from benchmarks.stacks import HOST
from benchmarks.worker import FINISH_WITHIN, SAMPLE_EVERY, cpu_seconds, peak_rss, percentile, say
from benchmarks.workload import Report, Workload

PEERS = 4095  # all that ENet can count
SERVICE = 5  # milliseconds to wait for an event at most


class EnetProcess:
    """A host, and the figures of the measured interval."""

    def __init__(self, workload: Workload, port: int | None) -> None:
        self.enet: Any = import_module("enet")
        self.workload = workload
        self.data = bytes(workload.payload)
        address = None if port is not None else self.enet.Address(HOST.encode(), 0)
        self.host = self.enet.Host(address, PEERS, 1, 0, 0)
        self.server = None if port is None else self.enet.Address(HOST.encode(), port)
        self.done = self.live = 0
        self.errors = 0
        self.stopping = False
        self.latencies_ns: list[int] = []
        self._begun: dict[int, int] = {}  # the instants, by number of the peer
        self._marks: list[tuple[float, int, float]] = []

    def mark(self) -> None:
        self._marks.append((time.monotonic(), self.done, cpu_seconds()))

    def begin(self) -> None:
        peer = self.host.connect(self.server, 1)
        self._begun[peer.incomingPeerID] = time.monotonic_ns()
        self.live += 1

    def serve_until(self, instant: float) -> None:
        while time.monotonic() < instant:
            self.step()

    def step(self) -> None:
        enet = self.enet
        event = self.host.service(SERVICE)
        if event.type == enet.EVENT_TYPE_CONNECT:
            if self.server is not None:
                if self.data:
                    event.peer.send(0, enet.Packet(self.data, enet.PACKET_FLAG_RELIABLE))
                else:
                    self.host.flush()  # the last acknowledgement of the handshake, which disconnect() would drop
                    event.peer.disconnect()
        elif event.type == enet.EVENT_TYPE_RECEIVE:
            if self.server is None:
                event.peer.send(0, enet.Packet(event.packet.data, enet.PACKET_FLAG_RELIABLE))
            else:
                event.peer.disconnect()
        elif event.type == enet.EVENT_TYPE_DISCONNECT:
            self.done += 1
            if self.server is not None:
                self._ended(event.peer.incomingPeerID)

    def _ended(self, number: int) -> None:
        self.live -= 1
        begun = self._begun.pop(number, 0)
        if begun and self.done % SAMPLE_EVERY == 0:
            self.latencies_ns.append(time.monotonic_ns() - begun)
        if not self.stopping:
            self.begin()

    def report(self) -> Report:
        (t0, done0, cpu0), (t1, done1, cpu1) = self._marks
        ordered = sorted(self.latencies_ns)
        return Report(
            lifecycles=done1 - done0,
            interval=t1 - t0,
            cpu_seconds=cpu1 - cpu0,
            peak_rss=peak_rss(),
            unfinished=self.live,
            latencies_us=[percentile(ordered, 0.5) / 1000, percentile(ordered, 0.99) / 1000] if ordered else [],
            facts={"version": version("pyenet")},
        )


def main() -> None:
    job = json.loads(sys.argv[1])
    is_client = "listening" in job
    process = EnetProcess(Workload(**job["workload"]), job["listening"]["ports"][0] if is_client else None)
    say({} if is_client else {"ports": [process.host.address.port]})
    begin, end = map(float, sys.stdin.readline().split())
    if is_client:
        for _ in range(process.workload.in_flight):
            process.begin()
    process.serve_until(begin)
    process.latencies_ns.clear()
    process.mark()
    process.serve_until(end)
    process.mark()
    process.stopping = True
    if is_client:
        limit = time.monotonic() + FINISH_WITHIN
        while process.live and time.monotonic() < limit:
            process.step()
    else:
        while not select.select([sys.stdin], [], [], 0)[0]:
            process.step()
    say(asdict(process.report()))
