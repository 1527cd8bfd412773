"""utcp as a stack to measure: one endpoint a process, with as many TCP ports behind its UDP socket as are wanted."""

from __future__ import annotations

import asyncio
from itertools import cycle
from typing import Any

import utcp
from benchmarks.stacks import BACKLOG, HOST, Factory, Handler, Listening
from benchmarks.workload import Workload
from utcp.trace import PcapngObserver

FIRST_PORT = 10_000
ANY = "0.0.0.0"
TIME_WAIT_LIMIT = 1 << 24  # records: none is given up early in a benchmark


class UtcpStack:
    _capture: PcapngObserver | None = None

    async def serve(self, workload: Workload, count: int, factory: Factory) -> Listening:
        await self._make_endpoint(workload, count, HOST)
        for port in self._ports:
            await self._endpoint.create_server(factory, HOST, port, backlog=BACKLOG)
        return self._listening()

    async def serve_streams(self, workload: Workload, count: int, handler: Handler) -> Listening:
        await self._make_endpoint(workload, count, HOST)
        for port in self._ports:
            await utcp.start_server(handler, HOST, port, endpoint=self._endpoint, backlog=BACKLOG)
        return self._listening()

    async def open(self, workload: Workload, listening: Listening) -> None:
        many = workload.udp_peers > 1
        await self._make_endpoint(workload, len(listening["ports"]), ANY if many else HOST)
        self._sources = cycle(udp_sources(workload.udp_peers)) if many else None
        if workload.pcap is not None:
            self._capture = PcapngObserver(workload.pcap, self._endpoint.engine.path_addresses)
            self._endpoint.engine.observer = self._capture
        self._udp_port: int = listening["udp_port"]
        self._peer = (HOST, self._udp_port)

    async def create_connection(self, factory: Factory, port: int) -> Any:
        if self._sources is None:
            _, protocol = await self._endpoint.create_connection(factory, HOST, port, udp_port=self._udp_port)
            return protocol
        # Without create_connection's care for local addresses, which are resolved and tried: that would be measured
        connected: asyncio.Future[Any] = self._endpoint.loop.create_future()
        self._endpoint.connect(factory, self._peer, port, waiter=connected, **self._source())
        return await connected

    async def open_connection(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await utcp.open_connection(
            HOST, port, udp_port=self._udp_port, endpoint=self._endpoint, **self._source()
        )

    def connect(self, factory: Factory, port: int) -> None:
        if self._sources is None:
            self._endpoint.connect(factory, self._peer, port)
        else:
            self._endpoint.connect(factory, self._peer, port, **self._source())

    def _source(self) -> dict[str, Any]:
        """Where the next connection comes from, where there is a choice."""
        return {} if self._sources is None else {"local_addr": next(self._sources)}

    def counters(self) -> dict[str, int]:
        stats = self._endpoint.stats()
        engine = stats.counters
        return {
            "segments_out": engine.segments_out,
            "retransmissions": engine.retransmissions,
            "resets_out": engine.resets_out,
            "time_wait_reused": engine.time_wait_reused,
            "time_wait_evicted": engine.time_wait_evicted,
            "dropped": sum(engine.drops.values()),
            "wakeups": stats.wakeups,
            "congestions": stats.congestions,
            "send_calls": stats.datagrams["send_calls"],
            "receive_calls": stats.datagrams["receive_calls"],
        }

    def time_wait(self) -> int:
        return self._endpoint.engine.time_wait_count

    def facts(self) -> dict[str, Any]:
        return {
            "compiled": utcp.__compiled__,
            "server_ports": len(self._ports),
            "paths": len(self._endpoint.engine.stack.paths.paths),
            "receive_buffer": self._endpoint.stats().datagrams["receive_buffer"],
            "timestamps": self._config.timestamps,
            "sack": self._config.sack,
        }

    async def close(self) -> None:
        await self._endpoint.aclose()
        if self._capture is not None:
            self._capture.close()

    async def _make_endpoint(self, workload: Workload, ports: int, host: str) -> None:
        self._ports = range(FIRST_PORT, FIRST_PORT + ports)
        self._config = utcp.Config(msl=workload.msl, max_time_wait=TIME_WAIT_LIMIT)
        self._endpoint = await utcp.Endpoint.create(
            (host, 0), config=self._config, gso=workload.batched, gro=workload.batched
        )

    def _listening(self) -> Listening:
        return {"ports": list(self._ports), "udp_port": self._endpoint.local_addr[1]}


def udp_sources(count: int) -> list[tuple[str, int]]:
    """So many loopback addresses, any TCP port. Linux has all of 127/8: to the server each is another UDP peer."""
    return [(f"127.1.{number // 250}.{number % 250 + 1}", 0) for number in range(count)]
