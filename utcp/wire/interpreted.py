"""The codec's hot functions, for Python that is interpreted: whole headers by ``struct``.

There a call, and a number of more than 30 bits, cost more than what is done with them, so one call reads or writes
all fields. Compiled, where numbers are in registers, the words of ``utcp.wire.segment`` are faster by far. When it is
imported these are put in their place; what they do is what the functions of the same names there say.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from utcp.wire import segment
from utcp.wire.segment import (
    BAD_DATA_OFFSET,
    FIN,
    HEADER_SIZE,
    NOP_NOP_SACK_PERMITTED,
    NOP_NOP_TS,
    OK,
    SYN,
    TOO_SHORT,
    Segment,
    no_rare_options,
    parse_options,
)

if TYPE_CHECKING:
    from librt.strings import BytesWriter

# Ports, SEQ, ACK, data offset, flags, window, checksum, urgent pointer
_HEADER: Final = Struct(">HHIIBBHHH")
# ... and NOP, NOP, timestamps: four bytes, TSval, TSecr (RFC 7323 appendix A)
_STAMPED: Final = Struct(">HHIIBBHHHIII")
_STAMPED_SIZE: Final = 32
# A SYN's options, all of them: MSS; NOP, NOP, SACK-permitted; NOP, NOP, timestamps; NOP, window scale
_SYN_OPTIONS: Final = Struct(">HHIIIIHBB")
_OUR_SYN_SIZE: Final = HEADER_SIZE + 24
_MSS: Final = 0x0204
_NOP_WSCALE: Final = 0x0103
_WSCALE_SIZE: Final = 3

_NUMBERED: Final = SYN | FIN  # have a sequence number each

# What is replaced
BY_WORDS: Final[dict[str, Callable[..., Any]]] = {
    "parse": segment.parse,
    "write_header": segment.write_header,
    "write_syn_options": segment.write_syn_options,
}

_read_header: Final = _HEADER.unpack_from
_read_stamped: Final = _STAMPED.unpack_from
_read_syn_options: Final = _SYN_OPTIONS.unpack_from
_header: Final = _HEADER.pack
_stamped: Final = _STAMPED.pack
_syn_options: Final = _SYN_OPTIONS.pack
_write_syn_options: Final = segment.write_syn_options


def parse(seg: Segment, buf: bytes, start: int, end: int) -> int:
    size = end - start
    options = ts_val = ts_ecr = 0
    # Straight into the segment, although it may turn out to be none: nobody looks at it then
    if size >= _STAMPED_SIZE:
        seg.src_port, seg.dst_port, seg.seq, seg.ack, offset, flags, seg.wnd, _, seg.urg, options, ts_val, ts_ecr = (
            _read_stamped(buf, start)
        )
    elif size >= HEADER_SIZE:
        seg.src_port, seg.dst_port, seg.seq, seg.ack, offset, flags, seg.wnd, _, seg.urg = _read_header(buf, start)
    else:
        return TOO_SHORT
    header_size = offset >> 2 & 0x3C
    if header_size < HEADER_SIZE or header_size > size:
        return BAD_DATA_OFFSET
    seg.flags = flags
    seg.buf = buf
    seg.data_start = start + header_size
    seg.data_len = seg.len = size - header_size
    if flags & _NUMBERED:
        seg.len += 1 if flags & _NUMBERED != _NUMBERED else 2
    if seg.rare:
        no_rare_options(seg)
    if header_size == _STAMPED_SIZE and options == NOP_NOP_TS:
        seg.ts = True
        seg.ts_val = ts_val
        seg.ts_ecr = ts_ecr
        return OK
    seg.ts = False
    if header_size == HEADER_SIZE:
        return OK
    seg.rare = True
    if flags & SYN and header_size == _OUR_SYN_SIZE and _parse_our_syn(seg, buf, start + HEADER_SIZE):
        return OK
    return parse_options(seg, buf, start + HEADER_SIZE, start + header_size)


def _parse_our_syn(seg: Segment, buf: bytes, start: int) -> bool:
    mss, mss_value, sack, stamps, ts_val, ts_ecr, wscale, size, shift = _read_syn_options(buf, start)
    if (
        mss != _MSS
        or sack != NOP_NOP_SACK_PERMITTED
        or stamps != NOP_NOP_TS
        or wscale != _NOP_WSCALE
        or size != _WSCALE_SIZE
    ):
        return False
    seg.mss = mss_value
    seg.sack_permitted = True
    seg.ts = True
    seg.ts_val = ts_val
    seg.ts_ecr = ts_ecr
    seg.wscale = shift
    return True


def write_header(
    w: BytesWriter,
    src_port: int,
    dst_port: int,
    seq: int,
    ack: int,
    flags: int,
    wnd: int,
    header_size: int,
    urg: int,
    ts: bool = False,
    ts_val: int = 0,
    ts_ecr: int = 0,
) -> None:
    if ts:
        w.write(
            _stamped(src_port, dst_port, seq, ack, header_size << 2, flags, wnd, 0, urg, NOP_NOP_TS, ts_val, ts_ecr)
        )
    else:
        w.write(_header(src_port, dst_port, seq, ack, header_size << 2, flags, wnd, 0, urg))


def write_syn_options(
    w: BytesWriter, mss: int, wscale: int, sack_permitted: bool, ts: bool, ts_val: int, ts_ecr: int
) -> None:
    if sack_permitted and ts and wscale >= 0:
        w.write(
            _syn_options(
                _MSS, mss, NOP_NOP_SACK_PERMITTED, NOP_NOP_TS, ts_val, ts_ecr, _NOP_WSCALE, _WSCALE_SIZE, wscale
            )
        )
    else:
        _write_syn_options(w, mss, wscale, sack_permitted, ts, ts_val, ts_ecr)


BY_STRUCT: Final[dict[str, Callable[..., Any]]] = {
    "parse": parse,
    "write_header": write_header,
    "write_syn_options": write_syn_options,
}

if hasattr(segment.parse, "__code__"):  # else it is compiled. Here, so that either module may be imported first
    vars(segment).update(BY_STRUCT)
