"""A bulk transfer between two simulated hosts."""

from __future__ import annotations

from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.sim import Host, Network


class Transfer:
    """One connection whose server reads at once (``reads``) and whose client always has something to send."""

    def __init__(self, network: Network, config: Config, *, mtu: int = 1500, endless: bool = True) -> None:
        self.network = network
        self.received = 0
        self.reads = True
        self._endless = endless
        client = network.host("client", config, mtu=mtu)
        server = network.host("server", config, mtu=mtu)
        self.connection = self._connect(client, server)

    def _connect(self, client: Host, server: Host) -> Connection:
        server.listen(80, accept=lambda connection: self._read)
        return client.connect(server, 80, self._write)

    def _read(self, connection: Connection, bits: int) -> None:
        if self.reads:
            self.received += len(connection.receive())

    def _write(self, connection: Connection, bits: int) -> None:
        if self._endless and connection.send_queue_size < 1 << 22:
            connection.send(bytes(1 << 22), self.network.now)

    def rate(self, seconds: float) -> float:
        """Bits of data a second for so long from now on."""
        before = self.received
        self.network.run_for(seconds)
        return (self.received - before) * 8 / seconds
