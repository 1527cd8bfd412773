"""The runs of ``benchmarks.netsim``: engines on the simulated network, no clock but the virtual one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.sim import Fate, Host, Network
from utcp.sim.link import SECOND

FILE = 1_000_000  # bytes whose completion is timed
CHUNK = 1 << 20
MIN_QUEUE = 30_000  # bytes
WINDOW = 1 << 24  # bytes of receive buffer: never what limits
APART = 0.1  # seconds between the beginnings of flows


class Transfer:
    """One connection that always has something to send, from ``client`` to ``server``."""

    def __init__(self, network: Network, client: Host, server: Host) -> None:
        self.received = 0
        self.completed_at = 0  # when FILE bytes had arrived (ns); 0: they have not
        self._network = network
        server.listen(80, accept=lambda _: self._read)
        self.connection = client.connect(server, 80, self._write)

    def _read(self, connection: Connection, bits: int) -> None:
        self.received += len(connection.receive())
        if self.received >= FILE and not self.completed_at:
            self.completed_at = self._network.now

    def _write(self, connection: Connection, bits: int) -> None:
        if connection.send_queue_size < CHUNK:
            connection.send(bytes(CHUNK), self._network.now)


@dataclass(frozen=True)
class Path:
    """One connection over one path, for ``seconds``: random loss, a queue of one bandwidth-delay product."""

    algorithm: str
    mbit: int  # a second
    rtt_ms: int
    loss: float
    seconds: int

    @property
    def name(self) -> str:
        return f"{self.algorithm}, {self.mbit} Mbit/s, {self.rtt_ms} ms, {self.loss:.1%}"

    def run(self, seed: int) -> dict[str, Any]:
        """``goodput``: bits of data a second in the second half; ``completion_us``: of the first FILE bytes."""
        rate, rtt = self.mbit * 1e6, self.rtt_ms / 1000
        queue = max(round(rate * rtt / 8), MIN_QUEUE)
        network = Network(seed, delay=rtt / 2, rate=rate, queue=queue, loss=self.loss, record=False)
        config = Config(congestion_control=self.algorithm, receive_buffer=WINDOW, send_buffer=WINDOW)
        transfer = Transfer(network, network.host("client", config), network.host("server", config))
        network.run_until(self.seconds * SECOND // 2)
        before = transfer.received
        network.run_until(self.seconds * SECOND)
        return {
            "goodput": (transfer.received - before) * 8 * 2 // self.seconds,
            "completion_us": transfer.completed_at // 1000 or None,
        }


@dataclass(frozen=True)
class Sharing:
    """``flows`` equal connections over one bottleneck, with a queue of one bandwidth-delay product."""

    algorithm: str
    flows: int
    mbit: int = 20
    rtt_ms: int = 40
    seconds: int = 40

    @property
    def name(self) -> str:
        return f"{self.algorithm}, {self.flows} flows"

    def run(self, seed: int) -> dict[str, Any]:
        """Of the second half: ``shares`` in bytes, ``jain`` in millionths, and ``goodput`` of all in bits a second."""
        rate, rtt = self.mbit * 1e6, self.rtt_ms / 1000
        network = Network(seed, delay=rtt / 8, record=False)
        left, right = network.router("left"), network.router("right")
        network.link(left, right, delay=rtt / 4, rate=rate, queue=round(rate * rtt / 8))
        config = Config(congestion_control=self.algorithm, receive_buffer=WINDOW, send_buffer=WINDOW)
        transfers = []
        for number in range(self.flows):
            client, server = network.host(f"client{number}", config), network.host(f"server{number}", config)
            # Round trips that differ by some microseconds: in step to the nanosecond one would meet every full queue
            network.link(client, left, jitter=0.0005)
            network.link(right, server)
            transfers.append(Transfer(network, client, server))
            network.run_for(APART)
        network.run_until(self.seconds * SECOND // 2)
        before = [transfer.received for transfer in transfers]
        network.run_until(self.seconds * SECOND)
        shares = [one.received - start for one, start in zip(transfers, before, strict=True)]
        return {"shares": shares, "jain": jain(shares), "goodput": sum(shares) * 8 * 2 // self.seconds}


@dataclass(frozen=True)
class Managed:
    """One connection over a path whose queue CoDel keeps short: by marks where ``ecn`` is used, else by drops."""

    algorithm: str
    ecn: bool
    mbit: int = 20
    rtt_ms: int = 40
    seconds: int = 20

    @property
    def name(self) -> str:
        return f"{self.algorithm}, CoDel {'marks' if self.ecn else 'drops'}"

    def run(self, seed: int) -> dict[str, Any]:
        """Of the second half: ``goodput`` in bits of data a second, segments sent again, ``wait_us`` in the queue."""
        network = Network(seed, record=False)
        left, right = network.router("left"), network.router("right")
        delay = self.rtt_ms / 2000
        network.link(left, right, delay=delay, rate=self.mbit * 1e6, queue=1 << 20, aqm="codel", ecn=self.ecn)
        config = Config(congestion_control=self.algorithm, ecn=self.ecn, receive_buffer=WINDOW, send_buffer=WINDOW)
        client, server = network.host("client", config), network.host("server", config)
        network.link(client, left, delay=0.0)
        network.link(right, server, delay=0.0)
        transfer = Transfer(network, client, server)
        network.run_until(self.seconds * SECOND // 2)
        before, lost = transfer.received, transfer.connection.retransmissions
        network.watch_flows()
        network.run_until(self.seconds * SECOND)
        flow = next(flow for key, flow in network.flows.items() if key[0] == "client")
        arrived = flow.fates[Fate.DELIVERED]
        return {
            "goodput": (transfer.received - before) * 8 * 2 // self.seconds,
            "retransmissions": transfer.connection.retransmissions - lost,
            "wait_us": (flow.delay // arrived - round(delay * SECOND)) // 1000,
        }


def jain(shares: list[int]) -> int:
    """Jain's index of fairness, in millionths: 1 for equal shares, 1/n when one has everything."""
    squares = len(shares) * sum(share * share for share in shares)
    return sum(shares) ** 2 * 1_000_000 // squares if squares else 0


Run = Path | Sharing | Managed
ALGORITHMS = ("cubic", "reno")
PATHS = [
    Path(algorithm, mbit, rtt_ms, loss, seconds)
    for mbit, seconds in ((10, 10), (100, 6))
    for rtt_ms in (10, 50, 200)
    for loss in (0.0, 0.001, 0.01, 0.03)
    for algorithm in ALGORITHMS
]
SHARINGS = [Sharing(algorithm, flows) for flows in (2, 4, 8, 16) for algorithm in ALGORITHMS]
MANAGED = [Managed(algorithm, ecn) for ecn in (False, True) for algorithm in ALGORITHMS]
EVERY: list[Run] = [*PATHS, *SHARINGS, *MANAGED]
QUICK: list[Run] = [
    *(path for path in PATHS if path.mbit == 10 and path.rtt_ms == 50 and path.loss >= 0.01),
    *(sharing for sharing in SHARINGS if sharing.flows == 2),
]
