"""What a connection keeps for loss detection and recovery, while it has something to keep.

It has nothing while all that is in flight left at one instant and nothing is known to be wrong with it: then
``tcb.recovery`` is None and ``tcb.sent_at`` says all. So a lifecycle whose FIN is answered never makes one.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from utcp.core.scoreboard import Scoreboard
from utcp.core.stack import NEVER, Stack
from utcp.core.tcb import Tcb

# Phases
OPEN: Final = 0  # nothing is being recovered
RECOVERY: Final = 1  # fast recovery (RFC 6675 5, RFC 6582)
TIMED_OUT: Final = 2  # recovery from a time-out (RFC 5681 3.1)

NONE: Final = -1  # a position that is not set
REO_WND_PERSIST: Final = 16  # RFC 8985 6.2, step 4: recoveries for which a widened reordering window lasts


@final
class Recovery:
    """Variables by the names of RFC 6675, 6937 and 8985; sequence numbers as positions of the scoreboard."""

    def __init__(self, runs: Scoreboard) -> None:
        self.runs: Scoreboard = runs
        self.phase: i64 = OPEN
        self.recover: i64 = NONE  # RecoveryPoint: SND.NXT when the last phase began
        # Without SACK: duplicate ACKs in a row, and what they say has arrived, a segment each
        self.dup_acks: i64 = 0
        self.dup_bytes: i64 = 0
        self.dup_end: i64 = runs.nxt()  # SND.NXT when SND.UNA last moved: for what left since there is none yet

        # Proportional rate reduction (RFC 6937 3)
        self.recover_fs: i64 = 0
        self.prr_delivered: i64 = 0
        self.prr_out: i64 = 0

        # RACK (RFC 8985 5.2, 5.3)
        self.rack_xmit_at: i64 = -NEVER  # of the segment sent last among those that arrived
        self.rack_end: i64 = NONE
        self.rack_rtt: i64 = 0
        self.rack_fack: i64 = runs.una  # the highest that arrived
        self.reordering_seen: bool = False
        self.reo_wnd_mult: i64 = 1
        self.reo_wnd_persist: i64 = REO_WND_PERSIST
        self.dsack_round: i64 = NONE

        # Tail loss probe (RFC 8985 5.2, 7)
        self.probe_due: bool = False
        self.tlp_end: i64 = NONE
        self.tlp_is_retrans: bool = False
        self.tlp_first_at: i64 = 0  # when the segment that the probe repeats had left before
        self.tlp_measured: bool = True  # a round-trip time since the last probe (7.3)

        # A probe of the path MTU that is out: the positions of its edges
        self.mtu_probe: i64 = NONE
        self.mtu_probe_end: i64 = NONE

        # Whether the last phase was for nothing (RFC 4015, RFC 5682)
        self.undo_marker: i64 = NONE  # from here on D-SACKs are about it: SND.UNA when it began; NONE: nothing to undo
        self.undo_left: i64 = NONE  # bytes sent again that no D-SACK has reported; NONE: nothing was sent again
        self.undo_ts: i64 = 0  # TSval of what was sent again first, and may be in flight; 0: an ACK has decided
        self.frto: bool = False  # a time-out may still turn out to be spurious
        self.frto_new_data: bool = False  # RFC 5682 2.1, step 2b: new data first, what counts as lost waits

        # Of the acknowledgment at hand
        self.delivered: i64 = 0  # bytes newly known to have arrived
        self.original_delivered: bool = False  # ... some of them never sent again, and sent before ``recover``


def open_scoreboard(tcb: Tcb) -> Recovery:
    """The connection's Recovery, made from what ``tcb`` says of the flight if there is none yet."""
    r = tcb.recovery
    if r is None:
        una: i64 = tcb.snd_una
        nxt: i64 = una + ((tcb.snd_nxt - una) & 0xFFFFFFFF)
        r = Recovery(Scoreboard(una, nxt, tcb.sent_at, tcb.smss))
        r.rack_rtt = max(tcb.srtt, 0)  # what a time-out goes by before anything of the flight has arrived
        tcb.recovery = r
    return r


def pipe(tcb: Tcb, r: Recovery) -> i64:
    """RFC 6675's estimate of the bytes in the network.

    What is lost has left it; what was sent again is in it once.
    """
    runs = r.runs
    return max(((tcb.snd_nxt - tcb.snd_una) & 0xFFFFFFFF) - runs.sacked - runs.lost - r.dup_bytes, 0)


def may_probe(r: Recovery) -> bool:
    """RFC 8985 7.3: one loss probe at a time, and a round-trip time in between."""
    return r.tlp_end == NONE and r.tlp_measured


def forget_duplicates(r: Recovery) -> None:
    r.dup_acks = 0
    r.dup_bytes = 0


def tsval_at(stack: Stack, at: i64, offset: i64) -> i64:
    """The TSval of a segment that left at that instant."""
    clock = stack.timestamp_clock
    if clock is not None:
        return clock(at) & 0xFFFFFFFF
    return (at // 1_000_000 + offset) & 0xFFFFFFFF
