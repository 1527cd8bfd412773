"""utcp as a stack to measure: one endpoint a process, with as many TCP ports behind its UDP socket as are wanted."""

from __future__ import annotations

import asyncio
from typing import Any

import utcp
from benchmarks.stacks import BACKLOG, HOST, Factory, Handler, Listening
from benchmarks.workload import Workload
from utcp.trace import PcapngObserver

FIRST_PORT = 10_000
TIME_WAIT_LIMIT = 1 << 24  # records: none is given up early in a benchmark


class UtcpStack:
    _capture: PcapngObserver | None = None

    async def serve(self, workload: Workload, count: int, factory: Factory) -> Listening:
        await self._make_endpoint(workload, count)
        for port in self._ports:
            await self._endpoint.create_server(factory, HOST, port, backlog=BACKLOG)
        return self._listening()

    async def serve_streams(self, workload: Workload, count: int, handler: Handler) -> Listening:
        await self._make_endpoint(workload, count)
        for port in self._ports:
            await utcp.start_server(handler, HOST, port, endpoint=self._endpoint, backlog=BACKLOG)
        return self._listening()

    async def open(self, workload: Workload, listening: Listening) -> None:
        await self._make_endpoint(workload, len(listening["ports"]))
        if workload.pcap is not None:
            self._capture = PcapngObserver(workload.pcap, self._endpoint.engine.path_addresses)
            self._endpoint.engine.observer = self._capture
        self._udp_port: int = listening["udp_port"]
        self._peer = (HOST, self._udp_port)

    async def create_connection(self, factory: Factory, port: int) -> None:
        await self._endpoint.create_connection(factory, HOST, port, udp_port=self._udp_port)

    async def open_connection(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await utcp.open_connection(HOST, port, udp_port=self._udp_port, endpoint=self._endpoint)

    def connect(self, factory: Factory, port: int) -> None:
        self._endpoint.connect(factory, self._peer, port)

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
            "receive_buffer": self._endpoint.stats().datagrams["receive_buffer"],
            "timestamps": self._config.timestamps,
            "sack": self._config.sack,
        }

    async def close(self) -> None:
        await self._endpoint.aclose()
        if self._capture is not None:
            self._capture.close()

    async def _make_endpoint(self, workload: Workload, ports: int) -> None:
        self._ports = range(FIRST_PORT, FIRST_PORT + ports)
        self._config = utcp.Config(msl=workload.msl, max_time_wait=TIME_WAIT_LIMIT)
        self._endpoint = await utcp.Endpoint.create(
            (HOST, 0), config=self._config, gso=workload.batched, gro=workload.batched
        )

    def _listening(self) -> Listening:
        return {"ports": list(self._ports), "udp_port": self._endpoint.local_addr[1]}
