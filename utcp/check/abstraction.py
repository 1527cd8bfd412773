"""Which worlds count as the same: the key under which a state is remembered (docs/exhaustive.md).

Sequence numbers are relative as they are, because initial sequence numbers are constants of the model. Of instants
and timestamps only the order is kept, of segments held back which
there are; the others are a queue for each direction.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable
from typing import Any, Final

from utcp.check.world import CLIENT, SERVER, End, World, timestamp
from utcp.core.connection import Connection
from utcp.core.stack import NEVER
from utcp.core.tcb import Tcb
from utcp.wire.segment import Segment, decode

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
        *("armed_at", "in_ready", "ready_bits", "train_serial", "error", "reason", "ts_offset"),
        *("bytes_in", "bytes_out", "held", "segments_in", "segments_out", "retransmissions", "syn_count"),
        *(
            "opened_at",
            "closing_at",
            "half_closed_at",
            "ended_at",
            "closing_states",
            "progress_at",
            "probed_at",
            "heard_at",
            "sent_at",
            "ts_recent_at",
            "srtt",
            "min_rtt",
            "rttvar",
            "rto",
            "rtt_seq",
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
    names = set(getattr(Tcb, "__slots__", ())) or {
        name for name in dir(Tcb) if not name.startswith("_") and not callable(getattr(Tcb, name))
    }
    return tuple(sorted(names - _IGNORED - _SPECIAL))


_VARIABLES: Final = _variables()


def key(world: World) -> int:
    """The world's abstract state, as the hash of its plain values (marshal: ``hash(-1)`` is ``hash(-2)``)."""
    order = _Order(world)
    ends = tuple(_end(world, end, order) for end in world.ends)
    segments = [(flying.to, _segment(decode(flying.payload), flying.to, order)) for flying in world.flight]
    held = sorted(segment for segment, flying in zip(segments, world.flight, strict=True) if flying.held)
    prompt = [segment for segment, flying in zip(segments, world.flight, strict=True) if not flying.held]
    prompt.sort(key=lambda segment: segment[0])  # a queue for each direction
    streams = tuple((iss, stream.written, stream.ended) for iss, stream in sorted(world.streams.items()))
    return hash(marshal.dumps((ends, held, prompt, order.limit, streams, world.faults), 2))


class _Order:
    """Ranks in place of instants, and of each end's timestamps."""

    def __init__(self, world: World) -> None:
        limit = world.network_limit()
        instants: set[int] = {world.now, world.now if limit is None else limit}
        stamps: tuple[set[int], set[int]] = ({timestamp(world.now)}, {timestamp(world.now)})
        for end in world.ends:
            mine, theirs = stamps[end.index], stamps[1 - end.index]
            for tcb in _connections(end):
                instants.update(getattr(tcb, name) for name in _DEADLINES)
                mine.add(tcb.rtx_ts)
                if tcb.recovery is not None:
                    mine.add(tcb.recovery.undo_ts)
                theirs.add(tcb.ts_recent)
            for record in _records(end):
                instants.add(record[0])
                mine.add(record[4])
                theirs.add(record[3])
        for flying in world.flight:
            seg = decode(flying.payload)
            if seg.ts:
                stamps[1 - flying.to].add(seg.ts_val)
                stamps[flying.to].add(seg.ts_ecr)
        self.instants = _ranks(instants - {NEVER}) | {NEVER: -1}
        self.limit = -1 if limit is None else self.instants[limit]
        self.stamps = (_ranks(stamps[CLIENT]), _ranks(stamps[SERVER]))


def _ranks(values: Iterable[int]) -> dict[int, int]:
    return {value: rank for rank, value in enumerate(sorted(values))}


def _end(world: World, end: End, order: _Order) -> tuple[Any, ...]:
    if end.vanished:
        return ()
    listener = end.listener
    return (
        end.steps_taken,
        end.read,
        end.isn.next,
        end.connection is not None and _held(end.connection),
        tuple(_tcb(tcb, end, order) for tcb in _connections(end)),
        tuple(
            (order.instants[at], snd_nxt, rcv_nxt, order.stamps[1 - end.index][recent], order.stamps[end.index][last])
            for at, snd_nxt, rcv_nxt, recent, last in _records(end)
        ),
        listener is not None and (listener.closed, listener.pending, listener.embryonic),
    )


def _held(connection: Connection) -> tuple[Any, ...]:
    """What the application sees of its connection, which the engine may have let go of."""
    return connection.iss, int(connection.state), connection.closed, connection.readable_bytes, str(connection.error)


def _connections(end: End) -> list[Connection]:
    return sorted(end.engine.connections(), key=lambda connection: connection.key)


def _records(end: End) -> list[tuple[int, int, int, int, int]]:
    table = end.engine.stack.time_wait
    if len(table) == 0:
        return []
    return [
        (table.expires_at(r), table.snd_nxt(r), table.rcv_nxt(r), table.ts_recent(r), table.ts_last(r))
        for r in map(table.find, sorted(table.keys()))
    ]


def _tcb(tcb: Connection, end: End, order: _Order) -> tuple[Any, ...]:
    limited = tcb.stack.now - tcb.challenged_at < tcb.policy.challenge_ack_interval
    return (
        tuple(order.instants[getattr(tcb, name)] for name in _DEADLINES),
        order.stamps[1 - end.index][tcb.ts_recent],
        order.stamps[end.index][tcb.rtx_ts],
        limited,
        min(tcb.rtx_count, MAX_RETRIES),
        tcb.rtt_at < NEVER and tcb.rtt_seq,
        _recovery(tcb, end, order),
        tuple(_plain(getattr(tcb, name)) for name in _VARIABLES),
    )


def _recovery(tcb: Connection, end: End, order: _Order) -> tuple[Any, ...]:
    """The scoreboard, with the order of the instants at which its runs left; what may be undone."""
    r = tcb.recovery
    if r is None:
        return ()
    runs = range(r.runs.count)
    sent = _ranks({r.rack_xmit_at, *(r.runs.sent_at(i) for i in runs)})
    return (
        sent[r.rack_xmit_at],
        r.runs.una,
        tuple((r.runs.right(i), sent[r.runs.sent_at(i)], r.runs.flags(i)) for i in runs),
        tuple(getattr(r, name) for name in _RECOVERY),
        r.undo_marker >= 0 and (*(getattr(r, name) for name in _UNDO), order.stamps[end.index][r.undo_ts]),
    )


def _plain(value: Any) -> Any:
    """A value that can be compared, of whatever the engine keeps in a variable."""
    if value is None or isinstance(value, (bool, str, bytes)):
        return value
    if isinstance(value, int):
        return int(value)  # of an enum too
    if isinstance(value, (list, tuple)):
        return tuple(_plain(one) for one in value)
    names = getattr(value, "__dict__", None) or getattr(type(value), "__slots__", None) or dir(value)
    found = ((name, getattr(value, name)) for name in sorted(names) if not name.startswith("__"))
    return tuple((name, _plain(one)) for name, one in found if not callable(one))


def _segment(seg: Segment, to: int, order: _Order) -> tuple[Any, ...]:
    """The data itself follows from the sequence number."""
    stamps = (order.stamps[1 - to][seg.ts_val], order.stamps[to][seg.ts_ecr]) if seg.ts else ()
    options = (seg.mss, seg.wscale, seg.sack_permitted, tuple(seg.sack), seg.user_timeout)
    return seg.flags, seg.seq, seg.ack, seg.wnd, seg.urg, seg.data_len, stamps, options
