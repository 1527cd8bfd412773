"""One transfer of ``benchmarks.versus_kernel``, in a network namespace that holds nothing else.

The receiver is a kernel socket behind a gateway, which impairs the path. The sender is utcp, or a kernel socket behind
a gateway of its own, which impairs nothing: to the other gateway its segments are those of a utcp endpoint.

    sender's kernel <- packets -> gateway <- datagrams -> gateway, impaired <- packets -> receiver's kernel
                                     utcp <- datagrams ->
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_interface
from multiprocessing.connection import Connection
from pathlib import Path as File
from typing import Any, Final

import utcp
from utcp.core.observer import Observer
from utcp.gateway import Endpoint, Gateway, Impairments, KernelAddress, LinkQuality, Tun, loopback_up

PORT: Final = 5001  # as iperf's
DEVICE_MTU: Final = 1492  # a datagram's header takes 8 bytes of 1500
CHUNK: Final = 1 << 16
SAMPLE_S: Final = 0.02  # between two looks at the window

_RECEIVER: Final = ip_interface("10.98.0.1/16")
_SENDER: Final = ip_interface("10.99.0.1/16")
_RECEIVER_UDP: Final = Endpoint("127.0.0.1", 9100)
_SENDER_UDP: Final = Endpoint("127.0.0.1", 9200)
_RECEIVER_HOST: Final = "10.99.0.2"  # as the sender's kernel knows it

_TCP_CONGESTION: Final = 13
_TCP_INFO: Final = struct.Struct("=8x19I")  # the beginning of struct tcp_info (linux/tcp.h)
_SND_CWND: Final = 18

# Nothing is shared but what was there before the fork
_FORK: Final = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Cell:
    """``size`` bytes by ``stack`` ("utcp" or "kernel") over ``mbit`` a second, ``rtt_ms``, a queue of their product.

    A share ``loss`` of the sender's segments is lost. ``seed`` alone decides which: the n-th segment meets the same
    fate whoever sends it. The receiver's are not lost.
    """

    stack: str
    algorithm: str
    loss: float
    seed: int
    size: int
    mbit: float = 20
    rtt_ms: float = 40

    def impairments(self) -> Impairments:
        delay = self.rtt_ms / 2000
        to_kernel = LinkQuality(loss=self.loss, delay=delay, rate=self.mbit * 1e6, queue=2 * delay)
        return Impairments(self.seed, to_kernel=to_kernel, to_utcp=LinkQuality(delay=delay))

    def measure(self) -> dict[str, Any]:
        """``run`` in a process and a network namespace of its own. RuntimeError says what went wrong there."""
        alone = ["unshare", "-n" if os.geteuid() == 0 else "-rn"]
        command = [*alone, sys.executable, "-m", "benchmarks.versus_kernel_cell", json.dumps(asdict(self))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{self}: {done.stderr}")
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


def run(cell: Cell) -> dict[str, Any]:
    """Of all but the first quarter: ``goodput`` in bits a second, the mean ``window`` in segments. And what it took."""
    take_precedence()
    loopback_up()
    File("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
    send = send_by_kernel if cell.stack == "kernel" else send_by_utcp
    with ExitStack() as stack:
        device = Tun("receiver", [_RECEIVER], DEVICE_MTU)
        gateway = Gateway(device, [KernelAddress(_RECEIVER, _RECEIVER_UDP)], impair=cell.impairments())
        stack.enter_context(forwarding(gateway))
        received = stack.enter_context(receiving(cell.size))
        figures = send(cell, received)
        size, ns = received.recv()
    return {"goodput": size * 8 * 1_000_000_000 // ns, **figures}


def take_precedence() -> None:
    """What else the machine does is not to be a part of the path. Without the right to that it is."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


# Processes beside the sender's


@contextmanager
def forwarding(gateway: Gateway) -> Iterator[None]:
    process = _FORK.Process(target=gateway.run)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()
        gateway.close()


@contextmanager
def receiving(size: int) -> Iterator[Connection]:
    """A kernel's listener. In the end it tells how many bytes came after the first quarter, and in how many ns."""
    here, there = _FORK.Pipe(duplex=False)
    listener = socket.create_server((str(_RECEIVER.ip), PORT))
    process = _FORK.Process(target=receive, args=(listener, size, there))
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.terminate()
        process.join()


def receive(listener: socket.socket, size: int, done: Connection) -> None:
    connection, _ = listener.accept()
    began, counted, missing = 0, 0, size
    while missing > 0:
        data = connection.recv(CHUNK)
        if not data:
            raise EOFError(f"{missing} bytes are missing")
        missing -= len(data)
        if began:
            counted += len(data)
        elif missing <= size - size // 4:
            began = time.monotonic_ns()
    done.send((counted, time.monotonic_ns() - began))
    connection.recv(1)  # the sender closes first


# Senders: what they return are the figures


def send_by_kernel(cell: Cell, received: Connection) -> dict[str, Any]:
    device = Tun("sender", [_SENDER], DEVICE_MTU)
    gateway = Gateway(device, [KernelAddress(_SENDER, _SENDER_UDP)], [_RECEIVER_UDP])
    with forwarding(gateway), socket.socket() as sender:
        sender.setsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, cell.algorithm.encode())
        before = tcp_counters()
        sender.connect((_RECEIVER_HOST, PORT))
        thread = threading.Thread(target=sender.sendall, args=(bytes(cell.size),))
        thread.start()
        windows = []
        while not received.poll(SAMPLE_S):
            info = sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            windows.append(_TCP_INFO.unpack(info)[_SND_CWND])
        thread.join()
        counted = tcp_counters() - before
    return figures(
        windows,
        retransmissions=counted["RetransSegs"],
        recoveries=counted["TCPSackRecovery"],
        timeouts=counted["TCPTimeouts"],
    )


def tcp_counters() -> Counter[str]:
    """The kernel's, of this namespace, by their names in nstat(8)."""
    counters: Counter[str] = Counter()
    for file in ("/proc/net/snmp", "/proc/net/netstat"):
        lines = File(file).read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            kind, *keys = names.split()
            if kind in ("Tcp:", "TcpExt:"):
                counters.update(dict(zip(keys, map(int, values.split()[1:]), strict=True)))
    return counters


def send_by_utcp(cell: Cell, received: Connection) -> dict[str, Any]:
    return asyncio.run(_send_by_utcp(cell, received))


async def _send_by_utcp(cell: Cell, received: Connection) -> dict[str, Any]:
    timers = Timers()
    config = utcp.Config(congestion_control=cell.algorithm)
    arrived = asyncio.Event()
    asyncio.get_running_loop().add_reader(received, arrived.set)
    async with await utcp.Endpoint.create(("127.0.0.1", 0), config=config, observer=timers) as endpoint:
        transport, _ = await endpoint.create_connection(
            lambda: Sender(cell.size), _RECEIVER_UDP.host, PORT, udp_port=_RECEIVER_UDP.port
        )
        windows = []
        while not arrived.is_set():
            info = transport.info()
            windows.append(info.cwnd / info.snd_mss)
            await asyncio.sleep(SAMPLE_S)
        counters = endpoint.stats().counters
        return figures(
            windows,
            retransmissions=counters.retransmissions,
            recoveries=counters.fast_recoveries,
            timeouts=timers.count["retransmit"],
        )


class Sender(asyncio.Protocol):
    """Writes so many bytes, whenever it may."""

    def __init__(self, size: int) -> None:
        self._missing = size
        self._paused = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.resume_writing()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        while self._missing and not self._paused:
            size = min(self._missing, CHUNK)
            self._missing -= size
            self._transport.write(bytes(size))


class Timers(Observer):
    """Counts which timers fired."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.count[name] += 1


def figures(windows: list[float], **counted: int) -> dict[str, Any]:
    late = windows[len(windows) // 4 :]
    return {"window": round(sum(late) / len(late), 2), **counted}


if __name__ == "__main__":
    print(json.dumps(run(Cell(**json.loads(sys.argv[1])))))
