"""Segments of any kind, for hypothesis, and by hand."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from utcp.wire import segment as w
from utcp.wire.segment import Segment

U8, U16, U32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
BLOCKS = st.tuples(U32, U32)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    """A segment of any header, with any options that fit in 40 bytes together."""
    flags = draw(U8)
    ts = draw(st.booleans())
    syn = bool(flags & w.SYN)
    sack_room = 0 if syn else (2 if ts else 3)
    return Segment(
        draw(U16),
        draw(U16),
        draw(U32),
        draw(U32),
        flags,
        draw(U16),
        draw(st.binary(max_size=64)),
        urg=draw(U16),
        mss=draw(st.integers(1, 0xFFFF)) if syn else 0,
        wscale=draw(st.integers(-1, 14)) if syn else -1,
        sack_permitted=draw(st.booleans()) if syn else False,
        ts_val=draw(U32) if ts else -1,
        ts_ecr=draw(U32) if ts else 0,
        sack=draw(st.lists(BLOCKS, max_size=sack_room)),
        user_timeout=draw(st.one_of(st.just(-1), U16)),
    )


def fields(seg: Segment) -> dict[str, object]:
    """Everything a segment says, apart from where its bytes lie."""
    names = "src_port dst_port seq ack flags wnd urg mss wscale sack_permitted ts sack user_timeout data data_len len"
    values: dict[str, object] = {name: getattr(seg, name) for name in names.split()}
    if seg.ts:
        values.update(ts_val=seg.ts_val, ts_ecr=seg.ts_ecr)
    return values


def header(flags: int = w.ACK, size: int = 20, options: bytes = b"", data: bytes = b"") -> bytes:
    """A segment built without the codec."""
    return struct.pack("!HHIIBBHHH", 1, 2, 3, 4, size // 4 << 4, flags, 5, 6, 7) + options + data
