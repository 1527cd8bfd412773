"""The segment: the RFC 9293 3.1 header, its options, and its codec.

One ``Segment`` is filled again and again by ``parse`` (the engine keeps a single one, so that a received
segment costs no object), and built by name in tests and traces. On the wire the checksum field is 0 and
is not looked at: the UDP checksum covers the same bytes.
"""

from __future__ import annotations

from typing import Final, final

from librt.strings import BytesWriter, read_i16_be, read_i32_be, read_i64_be, write_i32_be, write_i64_be
from mypy_extensions import i64

from utcp.wire.seq import MASK

HEADER_SIZE: Final = 20
MAX_HEADER_SIZE: Final = 60

# Control bits (RFC 9293 3.1, RFC 3168)
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
ECE: Final = 0x40
CWR: Final = 0x80

# Option kinds
OPT_EOL: Final = 0
OPT_NOP: Final = 1
OPT_MSS: Final = 2
OPT_WSCALE: Final = 3
OPT_SACK_PERMITTED: Final = 4
OPT_SACK: Final = 5
OPT_TIMESTAMPS: Final = 8
OPT_USER_TIMEOUT: Final = 28
USER_TIMEOUT_SIZE: Final = 4

# NOP, NOP, timestamps kind and length: the option block of nearly every segment (RFC 7323 appendix A)
NOP_NOP_TS: Final = 0x0101080A
_NOP_NOP_SACK: Final = 0x01010500
# The rest of a SYN's, see ``write_syn_options``: the first bytes of MSS and of NOP, window scale
_MSS: Final = 0x0204
NOP_NOP_SACK_PERMITTED: Final = 0x01010402
_NOP_WSCALE: Final = 0x010303

# What ``parse`` returns: 0, or why the bytes are no segment
OK: Final = 0
TOO_SHORT: Final = 1
BAD_DATA_OFFSET: Final = 2
BAD_OPTION_LENGTH: Final = 3

PARSE_ERRORS: Final = ("ok", "too-short", "bad-data-offset", "bad-option-length")

_FLAG_LETTERS: Final = (
    *((FIN, "F"), (SYN, "S"), (RST, "R"), (PSH, "P")),
    *((ACK, "."), (URG, "U"), (ECE, "E"), (CWR, "W")),
)


def flag_text(flags: int) -> str:
    """Control bits as tcpdump writes them: ``S``, ``S.``, ``F.``, ``P.``, ``R``, ``.`` for a bare ACK, ``S.E``."""
    return "".join([letter for bit, letter in _FLAG_LETTERS if flags & bit]) or "none"


@final
class Segment:
    """One segment. ``len`` counts SYN and FIN (RFC 9293 SEG.LEN); ``wnd`` is the unscaled field.

    An option that is absent: ``mss`` 0, ``wscale`` -1, ``sack_permitted`` and ``ts`` False, ``sack`` empty,
    ``user_timeout`` -1 (else the option's 16 bits, RFC 5482). SACK blocks are (left edge, right edge).
    """

    def __init__(
        self,
        src_port: int = 0,
        dst_port: int = 0,
        seq: int = 0,
        ack: int = 0,
        flags: int = 0,
        wnd: int = 65535,
        data: bytes = b"",
        *,
        urg: int = 0,
        mss: int = 0,
        wscale: int = -1,
        sack_permitted: bool = False,
        ts_val: int = -1,
        ts_ecr: int = 0,
        sack: list[tuple[int, int]] | None = None,
        user_timeout: int = -1,
    ) -> None:
        self.src_port: i64 = src_port
        self.dst_port: i64 = dst_port
        self.seq: i64 = seq & MASK
        self.ack: i64 = ack & MASK
        self.flags: i64 = flags
        self.wnd: i64 = wnd
        self.urg: i64 = urg
        self.mss: i64 = mss
        self.wscale: i64 = wscale
        self.sack_permitted: bool = sack_permitted
        self.ts: bool = ts_val >= 0
        self.ts_val: i64 = ts_val & MASK
        self.ts_ecr: i64 = ts_ecr & MASK
        self.sack: list[tuple[int, int]] = sack if sack is not None else []
        self.user_timeout: i64 = user_timeout
        self.rare: bool = True  # options other than timestamps may be set, for ``parse`` to take back
        # The data is buf[data_start : data_start + data_len]
        self.buf: bytes = data
        self.data_start: i64 = 0
        self.data_len: i64 = len(data)
        self.len: i64 = self.data_len + (1 if flags & SYN else 0) + (1 if flags & FIN else 0)

    @property
    def data(self) -> bytes:
        """The payload, copied out of the datagram."""
        return self.buf[self.data_start : self.data_start + self.data_len]

    def __repr__(self) -> str:
        parts = [f"{self.src_port}>{self.dst_port}", flag_text(self.flags), f"seq={self.seq}"]
        if self.flags & ACK:
            parts.append(f"ack={self.ack}")
        parts.append(f"wnd={self.wnd}")
        if self.data_len:
            parts.append(f"data={self.data_len}")
        parts.extend(self.option_texts())
        return f"<Segment {' '.join(parts)}>"

    def option_texts(self) -> list[str]:
        """The options present, in tcpdump's words."""
        parts: list[str] = []
        if self.mss:
            parts.append(f"mss {self.mss}")
        if self.wscale >= 0:
            parts.append(f"wscale {self.wscale}")
        if self.sack_permitted:
            parts.append("sackOK")
        if self.ts:
            parts.append(f"TS val {self.ts_val} ecr {self.ts_ecr}")
        for left, right in self.sack:
            parts.append(f"sack {left}:{right}")
        if self.user_timeout >= 0:
            parts.append(f"uto {self.user_timeout}")
        return parts

    def to_bytes(self) -> bytes:
        """The segment as it goes into a datagram. Raises ValueError when the options do not fit in 40 bytes."""
        options = encode_options(self)
        if HEADER_SIZE + len(options) > MAX_HEADER_SIZE:
            raise ValueError(f"options take {len(options)} bytes, more than 40")
        w = BytesWriter()
        write_header(
            w,
            self.src_port,
            self.dst_port,
            self.seq,
            self.ack,
            self.flags,
            self.wnd,
            HEADER_SIZE + len(options),
            self.urg,
        )
        w.write(options)
        w.write(self.data)
        return w.getvalue()


def decode(data: bytes) -> Segment:
    """A new Segment from the payload of one datagram. Raises ValueError naming what is wrong with it."""
    seg = Segment()
    error = parse(seg, data, 0, len(data))
    if error != OK:
        raise ValueError(f"no TCP segment: {PARSE_ERRORS[error]}")
    return seg


# Eight bytes at a time where there are eight: a call is what costs, interpreted, and so does i64(...)


def s32(x: i64) -> int:
    """``x`` modulo 2**32 as a signed number: what the 32-bit writer takes, interpreted and compiled alike."""
    return ((x & MASK) ^ 0x80000000) - 0x80000000


def s64(high: i64, low: i64) -> i64:
    """Two unsigned 32-bit numbers as what the 64-bit writer takes."""
    return (((high & MASK) ^ 0x80000000) - 0x80000000) << 32 | (low & MASK)


def write_header(
    w: BytesWriter,
    src_port: i64,
    dst_port: i64,
    seq: i64,
    ack: i64,
    flags: i64,
    wnd: i64,
    header_size: i64,
    urg: i64,
    ts: bool = False,
    ts_val: i64 = 0,
    ts_ecr: i64 = 0,
) -> None:
    """Append the 20 fixed bytes and, with ``ts``, the timestamps option: NOP, NOP and 10 bytes (RFC 7323 appendix A).

    ``header_size`` includes all options, also those that the caller writes next.
    """
    write_i64_be(w, s64((src_port << 16) | dst_port, seq))
    write_i64_be(w, s64(ack, (header_size << 26) | (flags << 16) | wnd))
    if ts:
        write_i64_be(w, (urg & 0xFFFF) << 32 | NOP_NOP_TS)  # checksum 0, urgent pointer
        write_i64_be(w, s64(ts_val, ts_ecr))
    else:
        write_i32_be(w, s32(urg & 0xFFFF))


def write_sack(w: BytesWriter, blocks: list[tuple[int, int]]) -> None:
    """Append NOP, NOP, SACK: 4 + 8 bytes a block (RFC 2018 3)."""
    write_i32_be(w, s32(_NOP_NOP_SACK + 2 + 8 * len(blocks)))
    for left, right in blocks:
        write_i64_be(w, s64(left, right))


def write_syn_options(
    w: BytesWriter, mss: i64, wscale: i64, sack_permitted: bool, ts: bool, ts_val: i64, ts_ecr: i64
) -> None:
    """Append a SYN's options in 4-byte groups: MSS, [NOP NOP SACK-permitted], [timestamps], [NOP window scale]."""
    write_i32_be(w, s32((_MSS << 16) | (mss & 0xFFFF)))
    if sack_permitted:
        write_i32_be(w, NOP_NOP_SACK_PERMITTED)
    if ts:
        write_i32_be(w, NOP_NOP_TS)
        write_i64_be(w, s64(ts_val, ts_ecr))
    if wscale >= 0:
        write_i32_be(w, s32((_NOP_WSCALE << 8) | wscale))


def write_user_timeout(w: BytesWriter, value: i64) -> None:
    """Append the user timeout option (RFC 5482 3.3): 4 bytes."""
    write_i32_be(w, s32((OPT_USER_TIMEOUT << 24) | (4 << 16) | (value & 0xFFFF)))


def syn_options_size(wscale: i64, sack_permitted: bool, ts: bool) -> i64:
    return 4 + (4 if sack_permitted else 0) + (12 if ts else 0) + (4 if wscale >= 0 else 0)


def encode_options(seg: Segment) -> bytes:
    """All options of a Segment built by name, padded with zeros to a multiple of 4 (MUST-69)."""
    w = BytesWriter()
    if seg.mss:
        write_i32_be(w, s32((_MSS << 16) | (seg.mss & 0xFFFF)))
    if seg.sack_permitted:
        write_i32_be(w, NOP_NOP_SACK_PERMITTED)
    if seg.ts:
        write_i32_be(w, NOP_NOP_TS)
        write_i64_be(w, s64(seg.ts_val, seg.ts_ecr))
    if seg.wscale >= 0:
        write_i32_be(w, s32((_NOP_WSCALE << 8) | seg.wscale))
    if seg.sack:
        write_sack(w, seg.sack)
    if seg.user_timeout >= 0:
        write_user_timeout(w, seg.user_timeout)
    return w.getvalue()


def parse(seg: Segment, buf: bytes, start: i64, end: i64) -> i64:
    """Fill ``seg`` from ``buf[start:end]``. Returns OK, or the reason why this is no segment; never raises."""
    if end - start < HEADER_SIZE:
        return TOO_SHORT
    first = read_i64_be(buf, start)  # ports, SEQ
    last = read_i64_be(buf, start + 12)  # data offset, flags, window, checksum, urgent pointer
    header_size: i64 = (last >> 58) & 0x3C
    if header_size < HEADER_SIZE or header_size > end - start:
        return BAD_DATA_OFFSET
    flags: i64 = (last >> 48) & 0xFF
    data_len: i64 = end - start - header_size
    seg.src_port = (first >> 48) & 0xFFFF
    seg.dst_port = (first >> 32) & 0xFFFF
    seg.seq = first & MASK
    seg.ack = read_i64_be(buf, start + 4) & MASK
    seg.flags = flags
    seg.wnd = (last >> 32) & 0xFFFF
    seg.urg = last & 0xFFFF
    seg.buf = buf
    seg.data_start = start + header_size
    seg.data_len = data_len
    seg.len = data_len + ((flags & SYN) >> 1) + (flags & FIN)
    if seg.rare:
        no_rare_options(seg)
    if header_size == 32:
        options = read_i64_be(buf, start + 20)
        if options >> 32 == NOP_NOP_TS:
            # The one option block that matters for speed
            seg.ts = True
            seg.ts_val = options & MASK
            seg.ts_ecr = read_i64_be(buf, start + 24) & MASK
            return OK
    seg.ts = False
    if header_size == HEADER_SIZE:
        return OK
    seg.rare = True
    if flags & SYN and _parse_our_syn(seg, buf, start + HEADER_SIZE, header_size):
        return OK
    return parse_options(seg, buf, start + HEADER_SIZE, start + header_size)


def no_rare_options(seg: Segment) -> None:
    seg.rare = False
    seg.mss = 0
    seg.wscale = -1
    seg.sack_permitted = False
    seg.user_timeout = -1
    if seg.sack:
        seg.sack = []


def _parse_our_syn(seg: Segment, buf: bytes, i: i64, header_size: i64) -> bool:
    """A SYN's options as ``write_syn_options`` lays out all of them: half of the segments with options to look for."""
    if header_size != HEADER_SIZE + 24:
        return False
    mss = read_i64_be(buf, i)
    stamps = read_i64_be(buf, i + 8)
    wscale = read_i64_be(buf, i + 16)
    if (
        mss >> 48 != _MSS
        or mss & MASK != NOP_NOP_SACK_PERMITTED
        or stamps >> 32 != NOP_NOP_TS
        or (wscale & MASK) >> 8 != _NOP_WSCALE
    ):
        return False
    seg.mss = (mss >> 32) & 0xFFFF
    seg.sack_permitted = True
    seg.ts = True
    seg.ts_val = stamps & MASK
    seg.ts_ecr = (wscale >> 32) & MASK
    seg.wscale = wscale & 0xFF
    return True


def parse_options(seg: Segment, buf: bytes, i: i64, end: i64) -> i64:
    """Options by kind; unknown ones and known ones of an odd length are skipped (MUST-6, MUST-64).

    A length that cannot be right (below 2, or past the header) makes the segment bad (MUST-7).
    """
    while i < end:
        kind: i64 = buf[i]
        if kind == OPT_EOL:
            break
        if kind == OPT_NOP:
            i += 1
            continue
        if i + 1 >= end:
            return BAD_OPTION_LENGTH
        size: i64 = buf[i + 1]
        if size < 2 or i + size > end:
            return BAD_OPTION_LENGTH
        if kind == OPT_TIMESTAMPS and size == 10:
            seg.ts = True
            seg.ts_val = i64(read_i32_be(buf, i + 2)) & MASK
            seg.ts_ecr = i64(read_i32_be(buf, i + 6)) & MASK
        elif kind == OPT_SACK and (size - 2) % 8 == 0:
            blocks: list[tuple[int, int]] = []
            j: i64 = i + 2
            while j < i + size:
                left: i64 = i64(read_i32_be(buf, j)) & MASK
                right: i64 = i64(read_i32_be(buf, j + 4)) & MASK
                blocks.append((left, right))
                j += 8
            seg.sack = blocks
        elif kind == OPT_USER_TIMEOUT and size == 4:
            seg.user_timeout = i64(read_i16_be(buf, i + 2)) & 0xFFFF
        elif seg.flags & SYN:
            # These three mean something only on a SYN (MUST-65, RFC 7323 2.2, RFC 2018 2)
            if kind == OPT_MSS and size == 4:
                seg.mss = i64(read_i16_be(buf, i + 2)) & 0xFFFF
            elif kind == OPT_WSCALE and size == 3:
                seg.wscale = buf[i + 2]
            elif kind == OPT_SACK_PERMITTED and size == 2:
                seg.sack_permitted = True
        i += size
    return OK


if hasattr(parse, "__code__"):
    # Interpreted. Each call of a reader or writer of words costs more than all else: one of struct does for a header
    import utcp.wire.interpreted  # noqa: F401  (puts its own in place of ours)
