"""A script brought into each of the states by legal segments, the shortest way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from support.script import RTT, Script
from utcp.core.config import Config
from utcp.core.states import State


def listen(config: Config | None = None) -> Script:
    s = Script(config)
    s.listen()
    return s


def syn_sent(config: Config | None = None, *, a_iss: int | None = None, b_iss: int | None = None) -> Script:
    s = _script(config, a_iss, b_iss)
    s.connect()
    s.expect("S seq=a-1 *")
    s.expect_state(State.SYN_SENT)
    return s


def syn_received(
    config: Config | None = None,
    *,
    passive: bool = True,
    mss: int = 1000,
    options: str = "",
    wnd: int = 65535,
    a_iss: int | None = None,
    b_iss: int | None = None,
) -> Script:
    """``options``: further options of B's SYN, in the notation. Active: by a simultaneous open."""
    if passive:
        s = _script(config, a_iss, b_iss)
        s.listen()
        s.recv(f"S seq=b-1 mss={mss} wnd={wnd} {options}")
        s.expect("S. seq=a-1 ack=b *")
        s.embryo()
    else:
        s = syn_sent(config, a_iss=a_iss, b_iss=b_iss)
        s.recv(f"S seq=b-1 mss={mss} wnd={wnd} {options}")
        s.expect("S. seq=a-1 ack=b *")
    s.ts = "ts=" in options
    s.expect_state(State.SYN_RECEIVED)
    return s


def established(
    config: Config | None = None,
    *,
    passive: bool = False,
    mss: int = 1000,
    options: str = "",
    wnd: int = 65535,
    rtt: float = RTT,
    a_iss: int | None = None,
    b_iss: int | None = None,
) -> Script:
    """The handshake takes ``rtt`` seconds, so with the default A's RTO is `support.script.RTO`."""
    if passive:
        s = syn_received(config, mss=mss, options=options, wnd=wnd, a_iss=a_iss, b_iss=b_iss)
        s.advance(rtt)
        s.recv(f". seq=b ack=a wnd={wnd}")
        s.accept()
    else:
        s = syn_sent(config, a_iss=a_iss, b_iss=b_iss)
        s.advance(rtt)
        s.ts = "ts=" in options
        s.recv(f"S. seq=b-1 ack=a mss={mss} wnd={wnd} {options}")
        s.expect(". seq=a ack=b")
    s.expect_state(State.ESTABLISHED)
    return s


def fin_wait_1(config: Config | None = None, *, close: bool = False, passive: bool = False) -> Script:
    """After `shutdown`, so that A still reads; or after ``close``."""
    s = established(config, passive=passive)
    if close:
        s.close()
    else:
        s.shutdown()
    s.expect("F. seq=a ack=b")
    s.expect_state(State.FIN_WAIT_1)
    return s


def fin_wait_2(config: Config | None = None, *, close: bool = False, passive: bool = False) -> Script:
    s = fin_wait_1(config, close=close, passive=passive)
    s.recv(". seq=b ack=a+1")
    s.expect_state(State.FIN_WAIT_2)
    return s


def close_wait(config: Config | None = None, *, passive: bool = False) -> Script:
    s = established(config, passive=passive)
    s.recv("F. seq=b ack=a")
    s.expect(". seq=a ack=b+1")
    s.expect_state(State.CLOSE_WAIT)
    return s


def closing(config: Config | None = None, *, close: bool = False, passive: bool = False) -> Script:
    s = fin_wait_1(config, close=close, passive=passive)
    s.recv("F. seq=b ack=a")
    s.expect(". seq=a+1 ack=b+1")
    s.expect_state(State.CLOSING)
    return s


def last_ack(config: Config | None = None, *, passive: bool = False) -> Script:
    s = close_wait(config, passive=passive)
    s.close()
    s.expect("F. seq=a ack=b+1")
    s.expect_state(State.LAST_ACK)
    return s


def time_wait(
    config: Config | None = None,
    *,
    passive: bool = False,
    options: str = "",
    a_iss: int | None = None,
    b_iss: int | None = None,
) -> Script:
    s = established(config, passive=passive, options=options, a_iss=a_iss, b_iss=b_iss)
    s.close()
    s.expect("F. seq=a ack=b")
    s.recv(". seq=b ack=a+1")
    s.recv("F. seq=b ack=a+1")
    s.expect(". seq=a+1 ack=b+1")
    s.expect_state(State.TIME_WAIT)
    return s


@dataclass(frozen=True)
class Stage:
    """A state and how to get there; `a` and `b` are A's SND.NXT and RCV.NXT in it, in the notation."""

    state: State
    make: Callable[[], Script]
    a: str
    b: str

    def __str__(self) -> str:
        return str(self.state)


ESTABLISHED = Stage(State.ESTABLISHED, established, "a", "b")
FIN_WAIT_1 = Stage(State.FIN_WAIT_1, fin_wait_1, "a+1", "b")
FIN_WAIT_2 = Stage(State.FIN_WAIT_2, fin_wait_2, "a+1", "b")
CLOSE_WAIT = Stage(State.CLOSE_WAIT, close_wait, "a", "b+1")
CLOSING = Stage(State.CLOSING, closing, "a+1", "b+1")
LAST_ACK = Stage(State.LAST_ACK, last_ack, "a+1", "b+1")
TIME_WAIT = Stage(State.TIME_WAIT, time_wait, "a+1", "b+1")

CONNECTED = [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK]
"""The synchronized states but TIME-WAIT."""


def sending(s: Script) -> Script:
    """The script with 5000 bytes written, as many of them out as may be."""
    s.conn.send(bytes(5000), s.now)
    with s.together():
        pass
    s.take()
    return s


SITUATIONS: dict[str, Callable[[], Script]] = {
    "CLOSED": Script,
    "LISTEN": listen,
    "SYN-SENT": syn_sent,
    "SYN-RECEIVED passive": syn_received,
    "SYN-RECEIVED active": lambda: syn_received(passive=False),
    "ESTABLISHED": established,
    "ESTABLISHED with all options": lambda: established(options="sackok ws=5 ts=1/0"),
    "ESTABLISHED with data out": lambda: sending(established()),
    "ESTABLISHED with a closed window": lambda: sending(established(wnd=0)),
    "FIN-WAIT-1": fin_wait_1,
    "FIN-WAIT-1 orphan": lambda: fin_wait_1(close=True),
    "FIN-WAIT-2": fin_wait_2,
    "FIN-WAIT-2 orphan": lambda: fin_wait_2(close=True),
    "CLOSE-WAIT": close_wait,
    "CLOSE-WAIT with data out": lambda: sending(close_wait()),
    "CLOSING": closing,
    "LAST-ACK": last_ack,
    "TIME-WAIT": time_wait,
    "TIME-WAIT with listener and timestamps": lambda: time_wait(passive=True, options="ts=1000/0"),
}
"""Every state, and what else there may be in it."""


def _script(config: Config | None, a_iss: int | None, b_iss: int | None) -> Script:
    given = {name: iss for name, iss in (("a_iss", a_iss), ("b_iss", b_iss)) if iss is not None}
    return Script(config, **given)
