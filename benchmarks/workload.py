"""What is measured (``Workload``) and what came out of one run of it (``Result``)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Api = Literal["protocol", "streams"]
Connect = Literal["await", "direct"]
Loop = Literal["uvloop", "asyncio"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Full connection lifecycles between two processes: connect, optional echo, half-close, EOF, close.

    A lifecycle is done when both ends have been told. ``in_flight`` of them go on at any moment for
    ``seconds`` (or longer, until the first is done), after ``warmup`` seconds that do not count.
    """

    in_flight: int = 512
    seconds: float = 3.0
    warmup: float = 0.5
    payload: int = 0  # bytes the client sends and the server sends back before the half-close
    api: Api = "protocol"
    connect: Connect = "await"  # direct: Endpoint.connect, callbacks only; only utcp has it
    loop: Loop = "uvloop"
    msl: float = 1.0  # seconds; of utcp's, the kernel's TIME-WAIT of 60 s is fixed
    ports: int = 0  # TCP ports the server listens on; 0: so many that no port pair comes again
    batched: bool = True  # UDP GSO and GRO, where the system has them
    udp_peers: int = 1  # UDP sources that utcp's client connects from: no segments of two share a datagram
    interpreted: bool = False  # utcp's modules from their .py files, though they may be compiled
    pcap: str | None = None  # file for a capture of utcp's client side

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(kw_only=True)
class Report:
    """What one process says after a run. Counters are differences between the ends of the measured interval."""

    lifecycles: int  # completed within the interval, as seen by this side
    interval: float  # seconds, as measured by this side
    cpu_seconds: float  # user and system, within the interval
    peak_rss: int  # bytes, since the process began
    errors: int = 0  # lifecycles that failed, the warm-up and the end included
    unfinished: int = 0  # lifecycles still going on a few seconds after the last was begun
    latencies_us: list[float] = field(default_factory=list)  # p50 and p99 of connect-to-closed
    counters: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Result:
    """One run of one workload by one peer."""

    peer: str
    rate: float  # lifecycles per second, of the side that saw fewer of them
    p50_us: float
    p99_us: float
    segments_per_lifecycle: float  # both directions
    retransmissions: int  # both sides
    time_wait: int  # records alive at the end of the interval
    pairs_reused: int | None  # port pairs taken out of TIME-WAIT by a new connection; None: nobody counts
    cpu_us_per_lifecycle: float  # both processes
    peak_rss_client: int  # bytes
    peak_rss_server: int
    errors: int
    unfinished: int
    counters: dict[str, int]  # of this peer's processes, or of the whole machine where the kernel does the work
    client: dict[str, Any]  # what each side says of itself
    server: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
