"""Segments as short text, with sequence numbers relative to the first data byte of either side.

`a` is the number of A's first data byte (A's ISS + 1), `b` that of B's, so a SYN of A is at `a-1`. Further
names may be given with their values. Examples:

    S seq=b-1 mss=1000 ws=7 sackok ts=5/0
    P. seq=b ack=a+10 len=20
    . seq=a ack=b sack=b+10:b+20,b+40:b+50 wnd=5000

`ect`, `ect1` and `ce` are the ECN field of the IP header, which is 0 otherwise.

In what is expected, `mss=*`, `ws=*`, `ts=*/5` take any value, and a lone `*` takes any options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from utcp.wire import segment as w
from utcp.wire.segment import Segment, flag_text
from utcp.wire.seq import seq_sub

FLAGS = {"S": w.SYN, "F": w.FIN, "R": w.RST, "P": w.PSH, "U": w.URG, "E": w.ECE, "W": w.CWR, ".": w.ACK}
ECN = {"ect": 2, "ect1": 1, "ce": 3}
NUMBER = re.compile(r"([A-Za-z_]*)([+-]?\d+)?")
ANY = "*"


@dataclass
class Pattern:
    """What a text says. None: not said."""

    flags: int
    seq: int | None = None
    ack: int | None = None
    wnd: int | None = None
    len: int = 0
    urg: int | None = None
    mss: int | str = 0
    ws: int | str = -1
    sackok: bool | str = False
    ts: tuple[int | None, int | None] | None = None  # None inside: any value
    nots: bool = False
    any_options: bool = False
    sack: list[tuple[int, int]] = field(default_factory=list)
    ecn: int = 0


def number(text: str, names: dict[str, int]) -> int:
    """`a+10`, `b-1`, `B`, `1234`: a sequence number."""
    match = NUMBER.fullmatch(text)
    if match is None or not text or (match[1] and match[1] not in names):
        raise ValueError(f"{text!r} is no sequence number over {sorted(names)}")
    return (names.get(match[1], 0) + int(match[2] or 0)) % 2**32


def parse_pattern(text: str, names: dict[str, int]) -> Pattern:
    """Read the notation. Raises ValueError naming the word that is wrong."""
    flags, *words = text.split()
    pattern = Pattern(0 if flags == "none" else sum({FLAGS[letter] for letter in flags}))
    for word in words:
        key, _, value = word.partition("=")
        if word == ANY:
            pattern.any_options = True
        elif key in ("seq", "ack"):
            setattr(pattern, key, number(value, names))
        elif key in ("wnd", "len", "urg"):
            setattr(pattern, key, int(value))
        elif key in ("mss", "ws"):
            setattr(pattern, key, ANY if value == ANY else int(value))
        elif key == "sackok":
            pattern.sackok = value or True
        elif key in ECN:
            pattern.ecn = ECN[key]
        elif key == "nots":
            pattern.nots = True
        elif key == "ts":
            val, ecr = (None if part == ANY else number(part, names) for part in value.split("/"))
            pattern.ts = val, ecr
        elif key == "sack":
            edges = [block.split(":") for block in value.split(",")]
            pattern.sack = [(number(left, names), number(right, names)) for left, right in edges]
        else:
            raise ValueError(f"{word!r} in {text!r}")
    return pattern


def differences(pattern: Pattern, seg: Segment, names: dict[str, int], *, ts_expected: bool, ecn: int = 0) -> list[str]:
    """Where a segment is not what the pattern says. Options that are not mentioned must be absent, except for
    timestamps where ``ts_expected``: those must be there, with any value."""
    found: list[str] = []

    def compare(what: str, got: object, wanted: object) -> None:
        if wanted is not None and wanted not in (ANY, got):
            found.append(f"{what}: {got}, not {wanted}")

    compare("flags", flag_text(seg.flags), flag_text(pattern.flags))
    if pattern.seq is not None:
        compare("seq", relative(seg.seq, names), relative(pattern.seq, names))
    if pattern.ack is not None:
        compare("ack", relative(seg.ack, names), relative(pattern.ack, names))
    compare("wnd", seg.wnd, pattern.wnd)
    compare("len", seg.data_len, pattern.len)
    compare("urg", seg.urg, pattern.urg or 0)
    compare("ECN field", ecn, pattern.ecn)
    if pattern.any_options:
        return found
    compare("mss", seg.mss, pattern.mss)
    compare("ws", seg.wscale, pattern.ws)
    compare("sackok", seg.sack_permitted, pattern.sackok)
    compare("sack", [relative_block(b, names) for b in seg.sack], [relative_block(b, names) for b in pattern.sack])
    compare("timestamps", bool(seg.ts), (ts_expected or pattern.ts is not None) and not pattern.nots)
    if pattern.ts is not None and seg.ts:
        compare("TSval", seg.ts_val, pattern.ts[0])
        compare("TSecr", seg.ts_ecr, pattern.ts[1])
    return found


def text_of(seg: Segment, names: dict[str, int], ecn: int = 0) -> str:
    """The segment in the notation."""
    words = [flag_text(seg.flags), f"seq={relative(seg.seq, names)}"]
    if seg.flags & w.ACK:
        words.append(f"ack={relative(seg.ack, names)}")
    if seg.data_len:
        words.append(f"len={seg.data_len}")
    words.append(f"wnd={seg.wnd}")
    if seg.urg:
        words.append(f"urg={seg.urg}")
    if seg.mss:
        words.append(f"mss={seg.mss}")
    if seg.wscale >= 0:
        words.append(f"ws={seg.wscale}")
    if seg.sack_permitted:
        words.append("sackok")
    if seg.ts:
        words.append(f"ts={seg.ts_val}/{seg.ts_ecr}")
    words += [word for word, field in ECN.items() if field == ecn]
    if seg.sack:
        words.append("sack=" + ",".join(relative_block(block, names) for block in seg.sack))
    return " ".join(words)


def relative(value: int, names: dict[str, int]) -> str:
    """A number as `a+7` or `b`, when it is near one of them."""
    for name in ("a", "b"):
        distance = int(seq_sub(value, names[name]))
        if abs(distance) < 1 << 24:
            return f"{name}{distance:+}" if distance else name
    return str(value)


def relative_block(block: tuple[int, int], names: dict[str, int]) -> str:
    return f"{relative(block[0], names)}:{relative(block[1], names)}"
