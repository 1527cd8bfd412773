"""Which worlds count as the same: the key under which a state is remembered (docs/exhaustive.md).

Sequence numbers are relative as they are, because initial sequence numbers are constants of the model. Of instants
and timestamps only the order is kept, of segments held back which
there are; the others are a queue for each direction.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from utcp.check.world import End, World, timestamp
from utcp.core.connection import Connection
from utcp.core.stack import NEVER
from utcp.core.tcb import Tcb
from utcp.wire.segment import decode

# More time-outs in a row than this are told apart no more: a peer may keep its window closed for ever
MAX_RETRIES: Final = 12

_DEADLINES: Final = (
    *("rtx_at", "tlp_at", "reo_at", "persist_at", "pace_at"),
    *("delack_at", "fin_wait_2_at", "linger_at", "keepalive_at"),
)

# Left out: what is derived from the rest, what only counts, what only this machine's clock tells apart, and the
# congestion window, which is larger than all that a script sends.
_IGNORED: Final = frozenset(
    {
        *("stack", "route", "policy", "listener", "context", "slot", "key", "path", "local_port", "remote_port"),
        *("ack_can_wait", "ack_held"),  # of ACKs that wait for a patient driver, which the model's is not
        *("armed_at", "in_ready", "ready_bits", "train_serial", "error", "reason", "ts_offset"),
        *("bytes_in", "bytes_out", "held", "segments_in", "segments_out", "retransmissions", "syn_count"),
        *(
            "opened_at",
            "closing_at",
            "half_closed_at",
            "ended_at",
            "closing_states",
            "progress_at",
            "let_go_at",
            "probed_at",
            "heard_at",
            "sent_at",
            "ts_recent_at",
            "srtt",
            "min_rtt",
            "rttvar",
            "rto",
            "rtt_seq",
            "rtt_round",
        ),
        *("cwnd", "ssthresh", "congestion", "rate", "paced_until", "sizing"),
    }
)
_SPECIAL: Final = frozenset({*_DEADLINES, "challenged_at", "rtt_at", "ts_recent", "rtx_ts", "rtx_count", "recovery"})
# Of a Recovery: the same reasons
_UNDO: Final = ("undo_marker", "undo_left")
_RECOVERY: Final = (
    *("phase", "recover", "dup_acks", "dup_bytes", "rack_end", "rack_fack", "reordering_seen", "dsack_round"),
    *("probe_due", "tlp_end", "tlp_is_retrans", "tlp_measured", "frto", "frto_new_data"),
)


def _variables() -> tuple[str, ...]:
    """The names of everything else a TCB holds: a variable that is new to the engine counts until it is left out."""
    names = getattr(Tcb, "__slots__", ()) or _compiled(Tcb)
    return tuple(sorted(set(names) - _IGNORED - _SPECIAL))


def _compiled(kind: type) -> tuple[str, ...]:
    """The attributes of a compiled class."""
    return tuple(name for base in kind.__mro__ for name in vars(base).get("__mypyc_attrs__", ()))


_deadlines_of: Final = attrgetter(*_DEADLINES)
_variables_of: Final = attrgetter(*_variables())
_recovery_of: Final = attrgetter(*_RECOVERY)
_undo_of: Final = attrgetter(*_UNDO)


def keys(world: World) -> tuple[int, int]:
    """The world's abstract state, but for how many faults there were, and that of its two ends with nothing in flight.

    Each is the hash of plain values (as marshal writes them: ``hash(-1)`` is ``hash(-2)``).
    """
    times = _Times(world.now)
    ends = [_end(end, times) for end in world.ends]
    streams = [(iss, stream.written, stream.ended) for iss, stream in sorted(world.streams.items())]
    plain = marshal.dumps((ends, streams), 2)
    alone = _Order(times, [], ([], []))

    limit = world.network_limit()
    segments = [(flying.to, flying.held, *_segment(flying.payload)) for flying in world.flight]
    stamps: tuple[list[int], list[int]] = ([], [])
    for to, _, _, echoed in segments:
        for whose, stamp in zip((1 - to, to), echoed, strict=False):
            stamps[whose].append(stamp)
    order = _Order(times, [] if limit is None else [limit], stamps)
    held = []
    queues: tuple[list[Any], list[Any]] = ([], [])
    for to, is_held, fields, echoed in segments:
        ranked = [order.of_stamps[whose][stamp] for whose, stamp in zip((1 - to, to), echoed, strict=False)]
        if is_held:
            held.append((to, fields, ranked))
        else:
            queues[to].append((fields, ranked))
    flight = sorted(held), queues, limit is not None and order.of_instants[limit]
    return hash(plain + marshal.dumps((order.ranks, flight), 2)), hash(plain + marshal.dumps(alone.ranks, 2))


class _Times:
    """The instants and each end's timestamps that a state holds, in the order in which they were met."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.instants: list[int] = []
        self.stamps: tuple[list[int], list[int]] = ([], [])


class _Order:
    """Ranks in their place: among each other, the present, and what a network adds."""

    def __init__(self, times: _Times, instants: list[int], stamps: tuple[list[int], list[int]]) -> None:
        now = timestamp(times.now)
        self.of_instants = _ranks([times.now, *times.instants, *instants])
        self.of_stamps = [_ranks([now, *mine, *more]) for mine, more in zip(times.stamps, stamps, strict=True)]
        self.ranks = (
            [self.of_instants[at] for at in times.instants],
            [[of[stamp] for stamp in mine] for of, mine in zip(self.of_stamps, times.stamps, strict=True)],
        )


def _ranks(values: Iterable[int]) -> dict[int, int]:
    ranks = {value: rank for rank, value in enumerate(sorted(set(values)))}
    if NEVER in ranks:
        ranks[NEVER] = -1
    return ranks


def _end(end: End, times: _Times) -> tuple[Any, ...]:
    if end.vanished:
        return ()
    listener = end.listener
    mine, theirs = times.stamps[end.index], times.stamps[1 - end.index]
    records = []
    for at, snd_nxt, rcv_nxt, recent, last in _records(end):
        times.instants.append(at)
        theirs.append(recent)
        mine.append(last)
        records.append((snd_nxt, rcv_nxt))
    return (
        end.steps_taken,
        end.read,
        end.isn.next,
        end.connection is not None and _held(end.connection),
        [_tcb(tcb, times, mine, theirs) for tcb in _connections(end)],
        records,
        listener is not None and (listener.closed, listener.pending, listener.embryonic),
    )


def _held(connection: Connection) -> tuple[Any, ...]:
    """What the application sees of its connection, which the engine may have let go of."""
    return connection.iss, int(connection.state), connection.closed, connection.readable_bytes, str(connection.error)


def _connections(end: End) -> list[Connection]:
    return sorted(end.engine.connections(), key=attrgetter("key"))


def _records(end: End) -> list[tuple[int, int, int, int, int]]:
    table = end.engine.stack.time_wait
    if len(table) == 0:
        return []
    return [
        (table.expires_at(r), table.snd_nxt(r), table.rcv_nxt(r), table.ts_recent(r), table.ts_last(r))
        for r in map(table.find, sorted(table.keys()))
    ]


def _tcb(tcb: Connection, times: _Times, mine: list[int], theirs: list[int]) -> tuple[Any, ...]:
    times.instants += _deadlines_of(tcb)
    theirs.append(tcb.ts_recent)
    mine.append(tcb.rtx_ts)
    return (
        tcb.stack.now - tcb.challenged_at < tcb.policy.challenge_ack_interval,
        min(tcb.rtx_count, MAX_RETRIES),
        tcb.rtt_at < NEVER and tcb.rtt_seq,
        _recovery(tcb, mine),
        [value if type(value) in _PLAIN else _plain(value) for value in _variables_of(tcb)],
    )


def _recovery(tcb: Connection, mine: list[int]) -> tuple[Any, ...]:
    """The scoreboard, with the order of the instants at which its runs left; what may be undone."""
    r = tcb.recovery
    if r is None:
        return ()
    undo = r.undo_marker >= 0
    sent_again = max(r.runs.high_rxt, r.runs.una)
    if undo or sent_again > r.runs.una:
        mine.append(r.undo_ts)
    runs = range(r.runs.count)
    sent = _ranks([r.rack_xmit_at, *(r.runs.sent_at(i) for i in runs)])
    return (
        sent[r.rack_xmit_at],
        r.runs.una,
        sent_again,
        [(r.runs.right(i), sent[r.runs.sent_at(i)], r.runs.flags(i)) for i in runs],
        _recovery_of(r),
        undo and _undo_of(r),
    )


_PLAIN: Final = frozenset({int, bool, str, bytes, type(None)})


def _plain(value: Any) -> Any:
    """A value that can be compared, of whatever the engine keeps in a variable."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, int):
        return int(value)  # of an enum
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    names = getattr(value, "__dict__", None) or getattr(type(value), "__slots__", None) or _compiled(type(value))
    return [(name, _plain(getattr(value, name))) for name in sorted(names)]


@lru_cache(100_000)
def _segment(payload: bytes) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """What a segment says, and its timestamps. The data itself follows from the sequence number."""
    seg = decode(payload)
    options = seg.mss, seg.wscale, seg.sack_permitted, tuple(seg.sack), seg.user_timeout
    stamps = (seg.ts_val, seg.ts_ecr) if seg.ts else ()
    return (seg.flags, seg.seq, seg.ack, seg.wnd, seg.urg, seg.data_len, options), stamps
