"""Who tears down: how to start server and client of one kind, and what the system tells about them.

Every program here speaks the same few lines with the one that measures:

    server  -> {"ports": [...], ...}    listening; what the client has to know
    client  -> {}                       ready to begin
    both   <-  "BEGIN END\\n"           CLOCK_MONOTONIC seconds of the measured interval; the client begins at once
    client  -> a Report as JSON         after END, with every lifecycle finished
    server  <-  end of file
    server  -> a Report as JSON
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from benchmarks.workload import Workload

ROOT = Path(__file__).resolve().parent.parent

# The installed utcp is measured, not the source tree that happens to be the current folder: -P keeps that off the
# module path, and the tree comes last on it.
BOOT = "import sys; sys.path.append(sys.argv.pop(1)); {}from benchmarks.{} import main; main()"
INTERPRETED = "from benchmarks.interpreted import use_sources; use_sources(); "


Listening = dict[str, Any]  # what a server said of itself


class Peer(Protocol):
    name: str

    def server(self, workload: Workload) -> list[str]:
        """The command that starts the server."""

    def client(self, workload: Workload, listening: Listening) -> list[str]:
        """The command that starts the client."""

    def system_counters(self) -> dict[str, int]:
        """What the system counts of this peer's work, at this moment; {} when its own processes count."""


def worker(stack: str, workload: Workload, program: str = "worker", **role: Any) -> list[str]:
    """A Python process of ``program``: a server with ``serve_ports=``, a client with ``listening=``."""
    job = json.dumps({"stack": stack, "workload": workload.as_dict(), **role})
    boot = BOOT.format(INTERPRETED if workload.interpreted else "", program)
    return [sys.executable, "-P", "-c", boot, str(ROOT), job]


class UtcpPeer:
    """utcp on both sides, through its asyncio face."""

    name = "utcp"

    def server(self, workload: Workload) -> list[str]:
        # Local ports come from a ring of 64,512 (RFC 6056, 1024 to 65535), and the client goes round the server's
        # ports: when their number shares no factor with the ring, all pairs are used before one comes again.
        # A million and a half lifecycles a second is more than anything has been seen to do.
        lasting = min(2 * workload.msl, workload.warmup + workload.seconds + 1)
        count = workload.ports or prime_from(round(1_500_000 * lasting / 64_512))
        return worker(self.name, workload, serve_ports=count)

    def client(self, workload: Workload, listening: Listening) -> list[str]:
        return worker(self.name, workload, listening=listening)

    def system_counters(self) -> dict[str, int]:
        return {}


class KernelPeer:
    """The kernel's TCP through asyncio's own API, the same program otherwise."""

    name = "kernel"

    def server(self, workload: Workload) -> list[str]:
        return worker(self.name, workload, serve_ports=kernel_ports(workload))

    def client(self, workload: Workload, listening: Listening) -> list[str]:
        return worker(self.name, workload, listening=listening)

    def system_counters(self) -> dict[str, int]:
        return kernel_counters()


class EpollPeer:
    """The kernel's TCP from C: kernel_epoll.c, built on the fly."""

    name = "epoll"

    def server(self, workload: Workload) -> list[str]:
        return [str(build_epoll()), "server", str(kernel_ports(workload))]

    def client(self, workload: Workload, listening: Listening) -> list[str]:
        return [
            str(build_epoll()),
            "client",
            str(workload.in_flight),
            str(workload.payload),
            *map(str, listening["ports"]),
        ]

    def system_counters(self) -> dict[str, int]:
        return kernel_counters()


class OtherPeer:
    """A library that is no TCP, in a program of its own; ``package`` is what it is installed as."""

    def __init__(self, name: str, package: str, program: str) -> None:
        self.name = name
        self.package = package
        self._program = program

    def server(self, workload: Workload) -> list[str]:
        return worker(self.name, workload, self._program)

    def client(self, workload: Workload, listening: Listening) -> list[str]:
        return worker(self.name, workload, self._program, listening=listening)

    def system_counters(self) -> dict[str, int]:
        return {}


PEERS: dict[str, Peer] = {"utcp": UtcpPeer(), "kernel": KernelPeer(), "epoll": EpollPeer()}
OTHERS: dict[str, OtherPeer] = {
    "aioquic": OtherPeer("aioquic", "aioquic", "quic_worker"),
    "qh3": OtherPeer("qh3", "qh3", "quic_worker"),
    "pyenet": OtherPeer("pyenet", "enet", "enet_worker"),
    "aiortc": OtherPeer("aiortc", "aiortc", "sctp_worker"),
}


def prime_from(n: int) -> int:
    """The smallest prime that is at least ``n`` and above 7."""
    candidate = max(n, 11)
    while any(candidate % d == 0 for d in range(2, int(candidate**0.5) + 1)):
        candidate += 1
    return candidate


def kernel_ports(workload: Workload) -> int:
    """Enough of the server's ports that TIME-WAIT (60 s) exhausts no more than half of the client's ephemeral ones."""
    low, high = ephemeral_range()
    return workload.ports or prime_from(round(60_000 * (workload.warmup + workload.seconds) / ((high - low) / 2)))


def ephemeral_range() -> tuple[int, int]:
    """The kernel's ephemeral ports (first, last)."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return 49_152, 65_535  # not Linux: the range the IANA assigns
    return int(low), int(high)


def kernel_counters() -> dict[str, int]:
    """What the kernel counts of all TCP on this machine; {} where it does not tell."""
    try:
        snmp = proc_table("/proc/net/snmp")["Tcp"]
        netstat = proc_table("/proc/net/netstat")["TcpExt"]
        sockstat = Path("/proc/net/sockstat").read_text().split("TCP:")[1].split()
    except (OSError, LookupError):
        return {}
    return {
        "segments_out": int(snmp["OutSegs"]),
        "retransmissions": int(snmp["RetransSegs"]),
        "time_wait_overflow": int(netstat["TCPTimeWaitOverflow"]),
        "time_wait_reused": int(netstat["TWRecycled"]),
        "listen_overflows": int(netstat["ListenOverflows"]),
        "time_wait": int(sockstat[sockstat.index("tw") + 1]),
    }


def proc_table(path: str) -> dict[str, dict[str, str]]:
    """A file of ``Name: keys`` and ``Name: values`` lines."""
    table: dict[str, dict[str, str]] = {}
    lines = Path(path).read_text().splitlines()
    for keys, values in zip(lines[::2], lines[1::2], strict=False):
        name, _, names = keys.partition(":")
        table[name] = dict(zip(names.split(), values.partition(":")[2].split(), strict=False))
    return table


@cache
def build_epoll() -> Path:
    """Compile kernel_epoll.c into a folder that goes with this process. RuntimeError if it cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("the epoll peer needs a C compiler, and there is none")
    folder = Path(tempfile.mkdtemp(prefix="utcp-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = folder / "kernel_epoll"
    command = [compiler, "-O2", "-Wall", "-o", str(target), str(Path(__file__).with_name("kernel_epoll.c"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the epoll peer does not compile: {done.stderr}")
    return target
