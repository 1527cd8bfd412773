"""A trace as JSON lines: one record (``utcp.trace.records``) a line."""

from __future__ import annotations

import json

from utcp.trace.records import Record, Recorder
from utcp.trace.tracer import Output, Target

_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder for each record


class JsonLinesObserver(Recorder):
    """Writes every event of an engine as a line of JSON."""

    def __init__(self, target: Target, *, raw: bool = False) -> None:
        """``target``: a path, or a file open for writing bytes. ``raw``: the bytes of segments too, as hexadecimal.
        Raises OSError when the path cannot be opened.
        """
        super().__init__(raw=raw)
        self._output = Output(target)

    def write(self, record: Record) -> None:
        self._output.write(_encode(record).encode() + b"\n")

    def flush(self) -> None:
        self._output.flush()

    def close(self) -> None:
        self._output.close()
