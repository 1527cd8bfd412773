"""What programs that are not ours read in a capture: tshark and tcptrace."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

# Severities of Wireshark's expert information; 0x100000 is a comment of the capture's own
NOTE: Final = 0x400000
ERROR: Final = 0x800000

_SEPARATOR: Final = "\t"
_AGGREGATOR: Final = "|"
_FIELDS: Final = (
    "tcp.stream",
    "tcp.srcport",
    "tcp.flags.syn",
    "tcp.flags.fin",
    "tcp.len",
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
    "tcp.analysis.spurious_retransmission",
    "tcp.analysis.duplicate_ack",
    "tcp.checksum.status",
    "_ws.malformed",
    "_ws.expert.message",
    "_ws.expert.severity",
    "frame.comment",
)
FIELD_OPTIONS: Final = [
    *("-T", "fields", "-E", f"separator={_SEPARATOR}", "-E", "occurrence=a", "-E", f"aggregator={_AGGREGATOR}"),
    *(word for field in _FIELDS for word in ("-e", field)),
]


@dataclass(frozen=True)
class Frame:
    """What tshark makes of one segment."""

    stream: str
    src_port: int
    syn: bool
    fin: bool
    data_len: int
    retransmission: bool
    duplicate_ack: bool
    checksum_good: bool
    malformed: bool
    expert: dict[str, int]  # message: severity; numbers in messages are "#"
    comments: list[str]  # of the capture itself


def tool(name: str) -> str:
    """The path of a program. Skips the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"SKIPPED: {name} is not installed, captures are not checked by it")
    return path


def tshark(*captures: Path) -> list[list[Frame]]:
    """Every segment of each capture."""
    command = [tool("tshark"), "-o", "tcp.check_checksum:TRUE", *FIELD_OPTIONS]
    pipe = subprocess.PIPE
    readers = [subprocess.Popen([*command, "-r", path], stdout=pipe, stderr=pipe, text=True) for path in captures]
    said = [reader.communicate() for reader in readers]
    for reader, (_, errors) in zip(readers, said, strict=True):
        assert reader.returncode == 0, errors
    return [[frame(line) for line in output.splitlines()] for output, _ in said]


def frame(line: str) -> Frame:
    """A line of tshark's with FIELD_OPTIONS."""
    (
        stream,
        src_port,
        syn,
        fin,
        data_len,
        rtx,
        fast,
        spurious,
        dup,
        checksum,
        malformed,
        messages,
        severities,
        comments,
    ) = line.split(_SEPARATOR)
    return Frame(
        stream=stream,
        src_port=int(src_port),
        syn=syn in ("1", "True"),
        fin=fin in ("1", "True"),
        data_len=int(data_len),
        retransmission=bool(rtx or fast or spurious),
        duplicate_ack=bool(dup),
        checksum_good=checksum == "1",
        malformed=bool(malformed),
        expert={
            re.sub(r"\d+", "#", message): int(severity, 0)
            for message, severity in zip(_split(messages), _split(severities), strict=True)
        },
        comments=_split(comments),
    )


def remarks(frames: Iterable[Frame], least: int = NOTE) -> set[str]:
    """What tshark's experts remark, from this severity on."""
    return {message for one in frames for message, severity in one.expert.items() if severity >= least}


@dataclass(frozen=True)
class Verdict:
    """What tcptrace says of a connection."""

    complete: bool
    syn_fin: list[str]  # "SYNs/FINs" of each side

    def plausible(self, resent: bool) -> bool:
        """Whether both sides began and ended it. On a machine that is busy for longer than RTO a segment leaves twice.

        Of a FIN that did, the second ACK may meet nobody any more: the RST that answers it is all that tcptrace tells.
        """
        if resent:
            return len(self.syn_fin) == 2 and not any("0" in pair.split("/") for pair in self.syn_fin)
        return self.complete and self.syn_fin == ["1/1", "1/1"]


def tcptrace(capture: Path) -> list[Verdict]:
    """Every connection of a capture."""
    done = subprocess.run([tool("tcptrace"), "-l", "-n", str(capture)], capture_output=True, text=True, check=True)
    return [
        Verdict("complete conn: yes" in part, re.findall(r"SYN/FIN pkts sent:\s+(\S+)", part))
        for part in re.split(r"TCP connection \d+:", done.stdout)[1:]
    ]


def _split(text: str) -> list[str]:
    return text.split(_AGGREGATOR) if text else []
