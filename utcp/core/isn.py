"""Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323 5.4)."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.hashing import keyed_hash
from utcp.core.paths import Path
from utcp.core.tcb import Tcb
from utcp.wire.seq import MASK, seq_gt

_TICK: Final = 4000  # nanoseconds: the ISN clock's 4 microseconds (RFC 9293 3.4.1, MUST-8)


def choose_initial_numbers(tcb: Tcb) -> None:
    """Set ISS and the timestamp offset.

    Both come from a keyed hash of addresses and ports, so that they are unpredictable from outside (SHLD-1) and
    yet the same for every incarnation of a connection: its ISNs and timestamps only ever go forward.
    """
    stack = tcb.stack
    word = _keyed_hash(tcb.route, tcb.local_port, tcb.remote_port)
    tcb.ts_offset = word & MASK
    if stack.isn is not None:
        tcb.iss = stack.isn(tcb.path, tcb.local_port, tcb.remote_port) & MASK
    else:
        # RFC 6528 3: ISN = M + F(localip, localport, remoteip, remoteport, secretkey)
        tcb.iss = (stack.now // _TICK + (word >> 32)) & MASK
    tcb.snd_una = tcb.iss
    tcb.snd_nxt = tcb.iss


def timestamp_offset(route: Path, local_port: i64, remote_port: i64) -> i64:
    """The offset that a new incarnation of this connection would use."""
    return _keyed_hash(route, local_port, remote_port) & MASK


def raise_iss_above(tcb: Tcb, old_snd_nxt: i64) -> None:
    """MAY-2: a new incarnation's ISN lies above all numbers that the old one used (by 64 kB, as Linux does)."""
    if not seq_gt(tcb.iss, old_snd_nxt):
        tcb.iss = (old_snd_nxt + 65_537) & MASK
        tcb.snd_una = tcb.iss
        tcb.snd_nxt = tcb.iss


def _keyed_hash(route: Path, local_port: i64, remote_port: i64) -> i64:
    return keyed_hash(route.key, route.key0, route.key1, (local_port << 16) | remote_port)
