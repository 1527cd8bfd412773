"""The codec by struct, which interpreted Python uses, beside the one by words, which is compiled."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from librt.strings import BytesWriter

import utcp
from support.any_segment import U8, U16, U32, fields, header, segments
from utcp.wire import interpreted, segment
from utcp.wire.segment import Segment


def parsed(by: dict[str, Any], datagram: bytes, margin: int) -> tuple[int, dict[str, object]]:
    """What a parser returns, and all that it fills in, where nothing was left as it was."""
    seg = Segment(9, 9, 9, 9, 0xFF, 9, b"9", urg=9, mss=9, wscale=9, sack_permitted=True, ts_val=9, sack=[(9, 9)])
    buf = b"x" * margin + datagram + b"y" * margin
    error = by["parse"](seg, buf, margin, margin + len(datagram))
    return error, fields(seg) if error == segment.OK else {}


def test_which_one_is_in_use() -> None:
    chosen = interpreted.BY_WORDS if utcp.__compiled__ else interpreted.BY_STRUCT
    for name, function in chosen.items():
        assert getattr(segment, name) is function


@given(st.one_of(segments().map(Segment.to_bytes), st.binary(max_size=80)), st.integers(0, 40))
@example(header(options=bytes.fromhex("0101080a 00000001 ffffffff"), size=32), 0)
@example(header(segment.SYN | segment.FIN, options=bytes(24), size=44), 3)
@example(
    header(segment.SYN, options=bytes.fromhex("0204ffff 01010402 0101080a 80000001 80000009 0103030e"), size=44), 3
)
@example(
    header(segment.SYN, options=bytes.fromhex("0204ffff 01010402 0101080a 80000001 80000009 0102030e"), size=44), 3
)
@example(
    header(segment.ACK, options=bytes.fromhex("0204ffff 01010402 0101080a 80000001 80000009 0103030e"), size=44), 3
)
@example(header(size=60), 40)
@example(header(size=16), 40)
def test_any_bytes(datagram: bytes, margin: int) -> None:
    assert parsed(interpreted.BY_STRUCT, datagram, margin) == parsed(interpreted.BY_WORDS, datagram, margin)


@given(st.tuples(U16, U16, U32, U32, U8, U16, st.integers(5, 15), U16, st.booleans(), U32, U32))
def test_any_header(values: tuple[int, ...]) -> None:
    *first, words, urg, ts, ts_val, ts_ecr = values
    written = []
    for by in (interpreted.BY_STRUCT, interpreted.BY_WORDS):
        w = BytesWriter()
        by["write_header"](w, *first, 4 * words, urg, ts, ts_val, ts_ecr)
        written.append(w.getvalue())
    assert written[0] == written[1]


@given(st.tuples(U16, st.integers(-1, 14), st.booleans(), st.booleans(), U32, U32))
@example((1460, 7, True, True, 1, 2))
def test_any_syn_options(values: tuple[int, ...]) -> None:
    written = []
    for by in (interpreted.BY_STRUCT, interpreted.BY_WORDS):
        w = BytesWriter()
        by["write_syn_options"](w, *values)
        written.append(w.getvalue())
    assert written[0] == written[1]
