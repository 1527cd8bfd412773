"""Every observer call as one flat record, a dict that JSON can hold. The JSON-lines file and the ladder read these.

Keys of every record: ``t`` (nanoseconds of the engine's clock), ``event`` (the observer method's name), ``path``,
``local_port``, ``remote_port``. Then, by event:

- ``segment_in``, ``segment_out``: ``flags`` (tcpdump's letters), ``seq``, ``ack``, ``wnd``, ``len`` (bytes of data),
  ``options`` (tcpdump's words); ``ecn`` (tcpdump's word for the field of the IP header) where it is not 0;
  ``retransmission`` where true; ``raw`` (the whole segment, hexadecimal) when asked for.
  What arrived and is no segment has ``malformed`` (the reason) and ``len`` in place of these.
- ``drop``, ``closed``: ``reason``. A drop is about the ``segment_in`` before it.
- ``state_change``: ``old``, ``new``, in the RFC's spelling.
- ``timer``, ``user_call``: ``name``.
- ``path_mtu``: ``old``, ``new``, in bytes of IP packet; it is about the whole ``path`` and has no ports.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from utcp.core.states import State
from utcp.trace.tracer import Tracer, ports
from utcp.wire.segment import Segment, decode, flag_text

Record: TypeAlias = dict[str, Any]

ECN_WORDS: Final = {1: "ECT(1)", 2: "ECT(0)", 3: "CE"}


class Recorder(Tracer):
    """Hands every event to ``write`` as a record."""

    def __init__(self, *, raw: bool = False) -> None:
        self._raw = raw
        self._ecn = 0  # of the segment that comes next

    def write(self, record: Record) -> None:
        """Called once per event, in order."""
        raise NotImplementedError

    def ecn_field(self, now: int, path: int, ecn: int) -> None:
        self._ecn = ecn

    def segment_in(self, now: int, path: int, segment: bytes) -> None:
        self.write(self.segment_record(now, "segment_in", path, segment))

    def segment_out(self, now: int, path: int, segment: bytes, retransmission: bool) -> None:
        record = self.segment_record(now, "segment_out", path, segment)
        if retransmission:
            record["retransmission"] = True
        self.write(record)

    def drop(self, now: int, path: int, segment: bytes, reason: str) -> None:
        remote_port, local_port = ports(segment)
        self.write(_record(now, "drop", path, local_port, remote_port, reason=reason))

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        self.write(_record(now, "state_change", path, local_port, remote_port, old=str(old), new=str(new)))

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.write(_record(now, "timer", path, local_port, remote_port, name=name))

    def user_call(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        self.write(_record(now, "user_call", path, local_port, remote_port, name=name))

    def path_mtu(self, now: int, path: int, old: int, new: int) -> None:
        self.write({"t": now, "event": "path_mtu", "path": path, "old": old, "new": new})

    def closed(self, now: int, path: int, local_port: int, remote_port: int, reason: str) -> None:
        self.write(_record(now, "closed", path, local_port, remote_port, reason=reason))

    def segment_record(self, now: int, event: str, path: int, segment: bytes) -> Record:
        """The record of a segment; ``event`` ends in ``_in`` or ``_out``."""
        src_port, dst_port = ports(segment)
        local_port, remote_port = (dst_port, src_port) if event.endswith("_in") else (src_port, dst_port)
        record = _record(now, event, path, local_port, remote_port)
        try:
            record |= _segment_fields(decode(segment))
        except ValueError as exc:
            record |= {"malformed": str(exc), "len": len(segment)}
        if self._ecn:
            record["ecn"] = ECN_WORDS[self._ecn]
            self._ecn = 0
        if self._raw:
            record["raw"] = segment.hex()
        return record


def ecn_of(record: Record) -> int:
    """The ECN field of a segment's IP header, from its record."""
    return next((number for number, word in ECN_WORDS.items() if word == record.get("ecn")), 0)


def _segment_fields(seg: Segment) -> Record:
    return {
        "flags": flag_text(seg.flags),
        "seq": seg.seq,
        "ack": seg.ack,
        "wnd": seg.wnd,
        "len": seg.data_len,
        "options": seg.option_texts(),
    }


def _record(now: int, event: str, path: int, local_port: int, remote_port: int, **fields: Any) -> Record:
    return {"t": now, "event": event, "path": path, "local_port": local_port, "remote_port": remote_port, **fields}
