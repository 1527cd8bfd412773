"""What the two applications do: a few lines of script each, and the table of all scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# Verbs and what each waits for. "A + B" is both in one go; "read" turns off the reading of all there is at once.
VERBS: Final = {
    "connect": "active open, to the other end",
    "listen": "does nothing: a script that begins with listen or accept listens from the start",
    "accept": "waits for a connection",
    "established": "waits for the handshake to be complete",
    "send": "queues so many bytes",
    "expect": "waits until so many bytes have been read",
    "read": "waits for so many bytes and reads them, and nothing else",
    "eof": "waits for end-of-file, everything before it read",
    "shutdown": "half-close: FIN behind the data",
    "close": "CLOSE, RFC 9293 3.10.4: data unread or still to come means RST",
    "flush": "close(flush=True): what was written comes first",
    "linger": "lingering close of so many seconds: what still comes is discarded without a RST",
    "abort": "ABORT, RFC 9293 3.10.5",
    "unlisten": "closes the listener; connections nobody has accepted are reset",
    "leave": "closes the endpoint: listener and connections",
    "vanish": "waits until no connection is left, then discards the engine with its TIME-WAIT records",
}


@dataclass(frozen=True)
class Scenario:
    """Two scripts, steps separated by ``;``. ``graceful``: with few enough faults nothing may be lost, no error seen,
    and without faults no RST sent. ``config``: fields of Config for both ends, or of one with ``client.`` or
    ``server.`` before the name.
    """

    name: str
    about: str
    client: str
    server: str
    graceful: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)

    def script(self, end: int) -> tuple[tuple[str, ...], ...]:
        """The steps of one end, each a group of calls. Raises ValueError for an unknown verb."""
        text = (self.client, self.server)[end]
        steps = tuple(tuple(call.strip() for call in step.split("+")) for step in text.split(";") if step.strip())
        for call in (call for step in steps for call in step):
            if call.partition(" ")[0] not in VERBS:
                raise ValueError(f"{self.name}: {call!r} is none of {', '.join(VERBS)}")
        return steps

    def settings(self, end: int) -> dict[str, Any]:
        """The Config fields of one end; those with its name before them win."""
        own = ("client.", "server.")[end]
        common = {name: value for name, value in self.config.items() if "." not in name}
        return common | {name.removeprefix(own): v for name, v in self.config.items() if name.startswith(own)}


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "active",
            "the client closes, the server on end-of-file",
            "connect; send 3 + shutdown; eof; close",
            "accept; send 2; eof; close",
        ),
        Scenario(
            "passive",
            "the server closes first, the client still has something to say",
            "connect; eof; send 3; close",
            "accept; send 2; shutdown; eof; close",
        ),
        Scenario(
            "simultaneous",
            "both close when they like",
            "connect; established; send 2 + shutdown; eof; close",
            "accept; send 2 + shutdown; eof; close",
        ),
        Scenario(
            "simultaneous-open",
            "both connect, both close",
            "connect; send 2 + shutdown; eof; close",
            "connect; send 2 + shutdown; eof; close",
        ),
        Scenario(
            "half-close",
            "the client has nothing more to say, the server drains three writes",
            "connect; send 2 + shutdown; expect 9; eof; close",
            "accept; eof; send 3; send 3; send 3; close",
        ),
        Scenario(
            "closed-window",
            "the reader is slow: probes, and a FIN behind a closed window",
            "connect; send 6 + shutdown; eof; close",
            "accept; read 4; read 2; eof; close",
            config={"server.receive_buffer": 4, "nodelay": True},
        ),
        Scenario(
            "flush",
            "close(flush=True); a server that takes a minute to close finds nobody left",
            "connect; established; send 3 + flush",
            "accept; expect 3; eof; close",
            graceful=False,
        ),
        Scenario(
            "early-close",
            "the client closes its side before the handshake is complete",
            "connect; send 2; shutdown; eof; close",
            "accept; shutdown; eof; close",
        ),
        Scenario(
            "give-up",
            "the client closes while still in SYN-SENT, if it comes to that",
            "connect; close",
            "accept; eof; close",
            graceful=False,
        ),
        Scenario(
            "reuse",
            "a second connection of the same ports, the first in TIME-WAIT at the server",
            "connect; eof; close; connect; send 2 + shutdown; eof; close",
            "accept; shutdown; eof; close; accept; eof; close",
            graceful=False,
        ),
        Scenario(
            "linger",
            "the client lingers for a second, the server is slow to close",
            "connect; established; send 3 + close",
            "accept; expect 3; eof; close",
            graceful=False,
            config={
                "client.linger": 1.0,
                "server.keepalive": True,  # FIN and RST may both be lost, and the server has sent all it had
                "server.keepalive_idle": 60.0,
            },
        ),
        Scenario(
            "linger-0",
            "SO_LINGER with zero: the client's close is a reset",
            "connect; established; send 3; close",
            "accept; send 2; eof; close",
            graceful=False,
            config={"client.linger": 0.0},
        ),
        Scenario(
            "lingering-close",
            "the client closes in the middle of what the server sends, and lets it finish",
            "connect; established; send 3 + linger 60",
            "accept; send 2; send 2; eof; close",
            graceful=False,
        ),
        Scenario(
            "abort",
            "the client aborts at any point, while the server closes",
            "connect; established; send 3; abort",
            "accept; send 2; shutdown; eof; close",
            graceful=False,
        ),
        Scenario(
            "abort-closing",
            "both close, then both abort at any point of the teardown",
            "connect; established; shutdown; abort",
            "accept; shutdown; abort",
            graceful=False,
        ),
        Scenario(
            "unread",
            "the client closes with data unread or still to come: RST",
            "connect; send 2; read 1; close",
            "accept; send 3; send 3; eof; close",
            graceful=False,
            config={"server.keepalive": True, "server.keepalive_idle": 60.0},  # nothing in flight, and the RST lost
        ),
        Scenario(
            "unread-flush",
            "the same with flush: what was written comes first, then RST in place of FIN",
            "connect; established; send 3 + flush",
            "accept; send 2; expect 3; eof; close",
            graceful=False,
        ),
        Scenario(
            "refused",
            "nobody listens",
            "connect; send 1; close",
            "",
            graceful=False,
        ),
        Scenario(
            "listener-closing",
            "the listener closes at any point; the connection may not have been accepted",
            "connect; send 2 + shutdown; eof; close",
            "accept; unlisten; eof; close",
            graceful=False,
        ),
        Scenario(
            "listener-closing-first",
            "the listener closes before anybody accepts",
            "connect; send 2; eof; close",
            "listen; unlisten",
            graceful=False,
        ),
        Scenario(
            "endpoint-closing",
            "the server's endpoint closes and is gone, TIME-WAIT records discarded",
            "connect; send 2; eof; close",
            "accept; send 2; leave; vanish",
            graceful=False,
        ),
    )
}
