"""One connection in a simulated network, from its first SYN to the end of TIME-WAIT, and what must be left: nothing."""

from __future__ import annotations

from support.apps import Peer
from utcp.core import invariants
from utcp.core.config import Config
from utcp.core.states import State
from utcp.sim import Host, Network
from utcp.wire.segment import RST

# At 50 % loss three tries in four fail: patience, and a TIME-WAIT that outlives a long back-off of the last FIN
PATIENT = Config(
    r2=3600,
    syn_r2=3600,
    syn_ack_timeout=3600,
    orphan_timeout=3600,
    close_timeout=3600,
    fin_timeout=3600,
    msl=600,
)


class Lifecycle:
    """A client and a server, one connection, and what either application saw."""

    def __init__(self, network: Network, config: Config | None = None) -> None:
        self.network = network
        self.client_host = network.host("client", config)
        self.server_host = network.host("server", config)
        self.client: Peer | None = None
        self.server: Peer | None = None

    def start(self, client: Peer, server: Peer, port: int = 80) -> None:
        self.client, self.server = client, server
        self.server_host.listen(port, lambda connection: server)
        self.client_host.connect(self.server_host, port, client)

    def run(self, limit: float = 86_400) -> None:
        """To the end of everything, TIME-WAIT included."""
        network = self.network
        ended = network.run_to_the_end(limit=limit)
        assert ended, f"something goes on for ever\n{network.ladder()}"
        for peer in (self.client, self.server):
            assert peer is not None and peer.complete, f"{peer}\n{network.ladder()}"
        for host in (self.client_host, self.server_host):
            nothing_left(host)

    def resets(self) -> list[str]:
        """RSTs but for those of a side that is CLOSED already: it answers what arrives late, and TIME-WAIT on the
        other side does not mind (RFC 1337)."""
        assert self.client is not None and self.server is not None
        closed_at = {"client": self.client.closed_at, "server": self.server.closed_at}
        return resets(self.network, closed_at)


def resets(network: Network, before: dict[str, int]) -> list[str]:
    """The RSTs that each host sent before that instant."""
    return [
        str(packet) for packet in network.trace if packet.sent_at < before[packet.src] and packet.segment.flags & RST
    ]


def nothing_left(host: Host) -> None:
    """No connection, no timer, no record, no byte, nothing to send; listeners excepted."""
    engine = host.engine
    stack = engine.stack
    assert {state for state, n in engine.states().items() if n} <= {State.LISTEN}, f"left behind: {engine.states()}"
    assert list(engine.connections()) == []
    assert engine.next_timeout() is None
    assert not engine.pending() and engine.ready() == []
    assert (engine.memory, engine.time_wait_count, stack.orphans, stack.half_open) == (0, 0, 0, 0)
    assert not any(stack.connections.slots)
    for peer in host.network.hosts.values():
        route = stack.paths.get(host.path_to(peer))
        assert route is not None and (route.users, route.connecting) == (0, 0)
    invariants.check(engine)
