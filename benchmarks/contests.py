"""What benchmarks.compare lets compete: contests of teardown, who takes part, and whom each is measured against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from shutil import which

from benchmarks.peers import OTHERS, PEERS, Peer
from benchmarks.workload import Workload

MANY_PEERS = 1000
NOT_TCP_SECONDS = 3.0  # in a hurry as well: a lifecycle of QUIC's takes up to a second
DEFAULT_LOOP = "default loop"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One line of a contest's table."""

    name: str
    peer: str
    changes: dict[str, object]  # of the contest's workload
    against: str = ""  # whose rate the ratio is to: the name of another contender
    note: str = ""  # what is not like for like

    def machine(self) -> Peer:
        return PEERS.get(self.peer) or OTHERS[self.peer]

    def missing(self) -> str:
        """Why it cannot take part, or nothing."""
        if self.peer == "epoll" and which("cc") is None and which("gcc") is None:
            return "no C compiler"
        if self.peer in OTHERS and find_spec(OTHERS[self.peer].package) is None:
            return f"{self.peer} is not installed (pip install '.[bench]')"
        return ""


def kernel(name: str, **changes: object) -> Contender:
    return Contender(name=name, peer="kernel", changes=changes)


def own(name: str, against: str, note: str = "", **changes: object) -> Contender:
    return Contender(name=name, peer="utcp", changes=changes, against=against, note=note)


EPOLL = "kernel TCP, C, epoll"
PROTOCOL, STREAMS = "kernel TCP, protocol, uvloop", "kernel TCP, streams, uvloop"
SLOW_PROTOCOL, SLOW_STREAMS = f"kernel TCP, protocol, {DEFAULT_LOOP}", f"kernel TCP, streams, {DEFAULT_LOOP}"
DIRECT = "utcp, connect() with callbacks, uvloop"
AWAITED, OWN_STREAMS = "utcp, protocol, uvloop", "utcp, streams, uvloop"
UNBATCHED = f"{AWAITED}, unbatched"
INTERPRETED, INTERPRETED_STREAMS = f"{AWAITED}, interpreted", f"{OWN_STREAMS}, interpreted"

EVERYWHERE = [
    Contender(name=EPOLL, peer="epoll", changes={}),
    kernel(PROTOCOL),
    kernel(STREAMS, api="streams"),
    kernel(SLOW_PROTOCOL, loop="asyncio"),
    kernel(SLOW_STREAMS, api="streams", loop="asyncio"),
    own(DIRECT, EPOLL, connect="direct"),
    own(AWAITED, PROTOCOL),
    own(OWN_STREAMS, STREAMS, api="streams"),
    own(f"utcp, protocol, {DEFAULT_LOOP}", SLOW_PROTOCOL, loop="asyncio"),
    own(f"utcp, streams, {DEFAULT_LOOP}", SLOW_STREAMS, api="streams", loop="asyncio"),
    own(UNBATCHED, PROTOCOL, batched=False),
    own(INTERPRETED, PROTOCOL, interpreted=True),
    own(INTERPRETED_STREAMS, STREAMS, api="streams", interpreted=True),
]
MANY = own(
    f"{AWAITED}, {MANY_PEERS:,} UDP peers",
    PROTOCOL,
    "the client is one socket with that many addresses of 127/8",
    udp_peers=MANY_PEERS,
)
NOT_TCP = [
    Contender(name=name, peer=name, changes={"seconds": NOT_TCP_SECONDS}, note=note)
    for name, note in {
        "aioquic": "every connection has a TLS 1.3 handshake, and both ends wait out QUIC's closing period (3 PTO)",
        "qh3": "every connection has a TLS 1.3 handshake, and both ends wait out QUIC's closing period (3 PTO)",
        "pyenet": "C without an event loop; no half-close, no TIME-WAIT; each side polls",
        "aiortc": "SCTP without its DTLS; ends by ABORT, which nobody answers; no half-close, no TIME-WAIT",
    }.items()
]


@dataclass(frozen=True)
class Contest:
    """Contenders that do the same work in turns."""

    in_flight: int
    payload: int
    contenders: list[Contender]

    @property
    def name(self) -> str:
        return f"{self.in_flight:,} in flight, {self.payload} bytes"

    def workload(self, contender: Contender, seconds: float) -> Workload:
        warmup = max(0.5, self.in_flight / 3000)  # the first ones all begin, and end, at the same time
        base = Workload(in_flight=self.in_flight, payload=self.payload, seconds=seconds, warmup=warmup)
        return replace(base, **contender.changes)  # type: ignore[arg-type]


def contests(*, quick: bool) -> Iterator[Contest]:
    """All of them; in a hurry those that the goals are about (goals.py)."""
    if quick:
        pair = [one for one in EVERYWHERE if one.name in (PROTOCOL, AWAITED)]
        yield Contest(512, 0, [*EVERYWHERE, MANY])
        yield Contest(1, 0, pair)
        yield Contest(64, 0, [*pair, *NOT_TCP])
        return
    for payload in (0, 64):
        for in_flight in (1, 64, 512, 4096):
            several = [MANY] if in_flight > 1 else []
            others = [one for one in NOT_TCP if payload == 0 or one.peer != "aiortc"] if in_flight == 64 else []
            yield Contest(in_flight, payload, [*EVERYWHERE, *several, *others])
