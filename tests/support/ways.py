"""Ways in which a life may end, for `support.lives`.

In a graceful one every byte arrives, whatever is lost on the way; in the others what arrives is a prefix of what was
sent (`support.apps.Peer` sees to it), and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.lives import Life


def client_first(life: Life) -> None:
    life.open()


def server_first(life: Life) -> None:
    life.client.ends_when, life.server.ends_when = "eof", "written"
    life.open()


def both(life: Life) -> None:
    life.server.ends_when = "written"
    life.open()


def half_close_and_drain(life: Life) -> None:
    life.server.answers_at_eof = True
    life.open()


def close_with_data_queued(life: Life) -> None:
    """As asyncio's close: the other end has said all it had to say."""
    life.client.closes, life.client.ends_when, life.server.ends_when = True, "eof", "written"
    life.client.answers_at_eof = True
    life.open()


def close_first(life: Life) -> None:
    """The closer has no user any more in FIN-WAIT-1, FIN-WAIT-2 and TIME-WAIT."""
    life.client.closes, life.client.incoming, life.server.outgoing = True, b"", b""
    life.open()


def linger_in_time(life: Life) -> None:
    life.client.closes, life.client.incoming, life.server.outgoing = True, b"", b""
    life.open(replace(life.hosts[0].engine.config, linger=86_400))


def lingering_close(life: Life) -> None:
    """The server still says what it has to say; nobody reads it, and nobody resets the connection for it."""
    life.client.lingers, life.client.incoming = 86_400 * 10**9, b""
    life.open()


def simultaneous_open(life: Life) -> None:
    life.server.ends_when = life.rng.choice(["eof", "written"])
    client, server = life.hosts
    life.client.connection = client.connect(server, 80, life.client, local_port=70)
    life.server.connection = server.connect(client, 70, life.server, local_port=80)


def some_time(life: Life) -> None:
    life.network.run_for(life.rng.choice([0.0, 0.05, 0.5, 5.0, 50.0]))


def abort(life: Life) -> None:
    life.open()
    some_time(life)
    connection = life.rng.choice([life.client, life.server]).connection
    if connection is not None:
        connection.abort(life.network.now)
    some_time(life)


def close_while_data_comes(life: Life) -> None:
    life.open()
    some_time(life)
    connection = life.client.connection
    assert connection is not None
    connection.context = None
    connection.close(life.network.now)
    some_time(life)


def unread_data(life: Life) -> None:
    life.server.reads = False
    life.open()
    some_time(life)
    if life.server.connection is not None:
        life.server.connection.close(life.network.now, flush=life.rng.random() < 0.5)
    some_time(life)


def linger_zero(life: Life) -> None:
    life.client.closes = True
    life.open(replace(life.hosts[0].engine.config, linger=0))
    some_time(life)


def linger_too_short(life: Life) -> None:
    life.client.closes, life.client.incoming, life.server.outgoing = True, b"", b""
    life.open(replace(life.hosts[0].engine.config, linger=life.rng.choice([0.01, 0.5, 5.0])))
    some_time(life)


def listener_closes(life: Life) -> None:
    """Often while the handshake is going on; a connection that was accepted goes on."""
    life.open()
    some_time(life)
    assert life.listener is not None
    life.listener.close(life.network.now)
    some_time(life)


def silence(life: Life) -> None:
    life.open()
    some_time(life)
    life.network.partition(*life.hosts)
    some_time(life)


GRACEFUL: dict[str, Callable[[Life], None]] = {
    "client first": client_first,
    "server first": server_first,
    "both at once": both,
    "half-close and drain": half_close_and_drain,
    "close with data queued": close_with_data_queued,
    "close first": close_first,
    "linger, in time": linger_in_time,
    "lingering close": lingering_close,
    "simultaneous open": simultaneous_open,
}
ROUGH: dict[str, Callable[[Life], None]] = {
    "abort": abort,
    "close while data comes": close_while_data_comes,
    "unread data": unread_data,
    "linger 0": linger_zero,
    "linger too short": linger_too_short,
    "listener closes": listener_closes,
    "silence for good": silence,
}
