"""Applications for simulated hosts, and the ledger that proves what they received (invariants I3 and I4)."""

from __future__ import annotations

from socket import SHUT_WR

from utcp.core.connection import Connection
from utcp.core.states import CLOSED_BIT, CONNECTED, EOF, READABLE, SENT
from utcp.sim import Network

CHUNK = 16_384


def pattern(seed: int, size: int) -> bytes:
    """Bytes in which every position tells itself apart from its neighbours."""
    word = (seed * 2_654_435_761 + 12_345) % 2**32
    return b"".join(((word + i * 2_246_822_519) % 2**32).to_bytes(4, "big") for i in range(size // 4 + 1))[:size]


class Peer:
    """One end of a connection: writes ``outgoing``, checks that what it reads is a prefix of ``incoming``.

    ``ends_when`` says when it closes its sending side: "written" (as soon as everything is written), "eof"
    (everything written and the other side has ended) or "never" (but by ``half_close``). ``answers_at_eof``: it writes
    only after that. ``closes``: it ends by ``close(flush=True)``, as asyncio's transports do, instead of half-closing,
    or with ``lingers`` (ns) by ``lingering_close``. ``reads=False``: it never reads.
    Writing stops at about 64 kB not sent and goes on when they are.
    """

    def __init__(
        self,
        network: Network,
        outgoing: bytes,
        incoming: bytes,
        *,
        ends_when: str = "written",
        answers_at_eof: bool = False,
        closes: bool = False,
        lingers: int = 0,
        reads: bool = True,
    ) -> None:
        self.network = network
        self.outgoing = outgoing
        self.incoming = incoming
        self.ends_when = ends_when
        self.answers_at_eof = answers_at_eof
        self.closes = closes
        self.lingers = lingers
        self.reads = reads
        self.written = 0
        self.read = 0
        self.eof = False
        self.ended = False
        self.closed = False
        self.closed_at = -1
        self.error: Exception | None = None
        self.connection: Connection | None = None

    def __repr__(self) -> str:
        return (
            f"<Peer wrote {self.written} of {len(self.outgoing)}, read {self.read} of {len(self.incoming)}, "
            f"eof={self.eof} closed={self.closed} error={self.error!r} {self.connection}>"
        )

    def __call__(self, connection: Connection, bits: int) -> None:
        self.connection = connection
        if bits & (READABLE | EOF) and self.reads:
            self._read(connection)
        if bits & (CONNECTED | SENT | EOF):
            self._write(connection)
        if bits & CLOSED_BIT:
            assert not self.closed, "told of the end twice"
            self.closed = True
            self.closed_at = self.network.now
            self.error = connection.error

    def _read(self, connection: Connection) -> None:
        while data := connection.receive(CHUNK):
            assert not self.eof, "I4: data after the end of file"
            expected = self.incoming[self.read : self.read + len(data)]
            assert data == expected, f"I3: what arrived at {self.read} is not what was sent"
            self.read += len(data)
        if connection.at_eof:
            assert self.read == len(self.incoming), f"I4: end of file after {self.read} of {len(self.incoming)} bytes"
            self.eof = True

    def _write(self, connection: Connection) -> None:
        if self.ended or connection.closed or (self.answers_at_eof and not self.eof):
            return
        while self.written < len(self.outgoing) and connection.send_queue_size < 4 * CHUNK:
            data = self.outgoing[self.written : self.written + CHUNK]
            connection.send(data, self.network.now)
            self.written += len(data)
        due = self.ends_when == "written" or (self.ends_when == "eof" and self.eof)
        if self.written >= len(self.outgoing) and due:
            self.half_close()

    def half_close(self) -> None:
        """End the sending side, now."""
        connection = self.connection
        assert connection is not None
        self.ended = True
        if self.lingers:
            connection.lingering_close(self.lingers, self.network.now)
            return
        if self.closes:
            connection.close(self.network.now, flush=True)
            return
        connection.shutdown(SHUT_WR, self.network.now)
        if self.eof:
            connection.close(self.network.now)

    @property
    def complete(self) -> bool:
        """Everything read, the end of file seen, the teardown complete, and no error."""
        return self.read == len(self.incoming) and self.eof and self.closed and self.error is None
