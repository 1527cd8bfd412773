"""The two byte queues of a connection: what was written and is not yet acknowledged, and what waits for the reader.

Both hold lists of immutable chunks and move offsets instead of bytes. Two neighbours that fit into COALESCE bytes
together become one chunk as soon as the second arrives, so chunks average more than COALESCE / 2 bytes however
small the pieces come (about 10 % overhead), and a small piece costs one copy of at most COALESCE bytes. Chunks
that are done with are let go at once; their places in the list when they are half of it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, final

from mypy_extensions import i64

COALESCE: Final = 2048


@final
class SendQueue:
    """Bytes written and not yet acknowledged. Byte 0 is the oldest one; ``size`` is how many there are."""

    def __init__(self) -> None:
        self.size: i64 = 0
        self._una: i64 = 0  # stream position of byte 0
        self._chunks: list[bytes] = []
        self._starts: list[int] = []  # stream position of each chunk's first byte
        self._head: i64 = 0  # index of the chunk that holds byte 0
        self._cursor: i64 = 0  # a hint: index of the chunk where the last slice ended

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. ``bytes`` are kept by reference, mutable input is copied."""
        chunk = data if isinstance(data, bytes) else bytes(data)
        n: i64 = len(chunk)
        if n == 0:
            return
        chunks = self._chunks
        if chunks and len(chunks[-1]) + n <= COALESCE:
            chunks[-1] += chunk
        else:
            chunks.append(chunk)
            self._starts.append(self._una + self.size)
        self.size += n

    def slice(self, offset: i64, n: i64) -> bytes:
        """Up to ``n`` bytes from ``offset`` on; fewer at the end. A slice that is a whole chunk is not copied."""
        n = min(n, self.size - offset)
        if offset < 0 or n <= 0:
            return b""
        position = self._una + offset
        index = self._locate(position)
        self._cursor = index
        within = position - self._starts[index]
        end = within + n
        chunk = self._chunks[index]
        if end <= len(chunk):
            return chunk if n == len(chunk) else chunk[within:end]
        data, self._cursor = _gather(self._chunks, index, within, n)
        return data

    def ack(self, n: i64) -> None:
        """Drop ``n`` bytes from the front, at most ``size``."""
        assert 0 <= n <= self.size, "acknowledged more than is queued"
        self.size -= n
        self._una += n
        chunks = self._chunks
        if self.size == 0:
            chunks.clear()
            self._starts.clear()
            self._head = 0
            return
        head = self._head
        while self._una >= self._starts[head] + len(chunks[head]):
            chunks[head] = b""
            head += 1
        self._head = head
        if 2 * head > len(chunks):
            del chunks[:head], self._starts[:head]
            self._head = 0

    def _locate(self, position: i64) -> i64:
        """Index of the chunk that holds ``position``: at the cursor or right behind it, else found by bisection."""
        index = self._cursor
        last: i64 = len(self._starts) - 1
        if index <= last and position >= self._starts[index]:
            if index == last or position < self._starts[index + 1]:
                return index
            if index + 1 == last or position < self._starts[index + 2]:
                return index + 1
        return bisect_right(self._starts, position) - 1


@final
class ReceiveQueue:
    """Bytes in order, waiting for the reader; ``size`` is how many."""

    def __init__(self) -> None:
        self.size: i64 = 0
        self._chunks: list[bytes] = []
        self._head: i64 = 0  # index of the first chunk with unread bytes
        self._taken: i64 = 0  # how many bytes of that chunk were read

    def append(self, data: bytes) -> None:
        n: i64 = len(data)
        if n == 0:
            return
        chunks = self._chunks
        if chunks and len(chunks[-1]) + n <= COALESCE:
            chunks[-1] += data
        else:
            chunks.append(data)
        self.size += n

    def take(self, limit: i64 = -1) -> bytes:
        """Remove and return up to ``limit`` bytes, all of them if it is negative."""
        data = self.peek(limit)
        n: i64 = len(data)
        if n == self.size:
            self.clear()
        else:
            self._drop(n)
        return data

    def peek(self, limit: i64 = -1) -> bytes:
        """What ``take(limit)`` would return. One whole chunk is not copied."""
        n = self.size if limit < 0 or limit > self.size else limit
        if n == 0:
            return b""
        chunk = self._chunks[self._head]
        end = self._taken + n
        if end <= len(chunk):
            return chunk if n == len(chunk) else chunk[self._taken : end]
        return _gather(self._chunks, self._head, self._taken, n)[0]

    def clear(self) -> i64:
        """Drop everything; returns how many bytes that was."""
        dropped = self.size
        self.size = 0
        self._head = 0
        self._taken = 0
        self._chunks.clear()
        return dropped

    def _drop(self, n: i64) -> None:
        """Drop ``n`` bytes, fewer than ``size``, from the front."""
        self.size -= n
        taken = self._taken + n
        head = self._head
        chunks = self._chunks
        while taken >= len(chunks[head]):
            taken -= len(chunks[head])
            chunks[head] = b""
            head += 1
        self._taken = taken
        self._head = head
        if 2 * head > len(chunks):
            del chunks[:head]
            self._head = 0


def _gather(chunks: list[bytes], index: i64, within: i64, n: i64) -> tuple[bytes, i64]:
    """``n`` bytes, more than ``chunks[index]`` has from ``within`` on, and the index of the chunk where they end."""
    parts = [chunks[index][within:] if within else chunks[index]]
    n -= len(parts[0])
    while n > 0:
        index += 1
        chunk = chunks[index]
        parts.append(chunk if n >= len(chunk) else chunk[:n])
        n -= len(chunk)
    return b"".join(parts), index
