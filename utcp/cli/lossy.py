"""A UDP socket that loses segments, both ways: what ``utcp demo --loss`` puts below each of its processes."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

from utcp.aio.addresses import Address
from utcp.aio.datagrams import Received, UdpSocket


class LossySocket(UdpSocket):
    """Loses each segment with probability ``loss``, whether it travels alone or in a train."""

    def __init__(self, sock: socket.socket, *, loss: float, seed: str, lost: Callable[[str, bytes], None]) -> None:
        """``seed`` settles every decision: the nth segment of a direction has one fate. ``lost`` is told of losses:
        ``"lost_out"`` or ``"lost_in"``, and the segment.
        """
        super().__init__(sock)
        self._loss = loss
        self._lost = lost
        self._chance_out = random.Random(f"{seed} out")
        self._chance_in = random.Random(f"{seed} in")

    def send(self, payload: bytes, segment_size: int, local: Address, peer: Address, ecn: int = 0) -> int:
        if not self._loss:
            return super().send(payload, segment_size, local, peer, ecn)
        taken = 0
        for segment in _split(payload, segment_size):
            if self._chance_out.random() < self._loss:
                self._lost("lost_out", segment)
            elif super().send(segment, len(segment), local, peer, ecn) < len(segment):
                break
            taken += len(segment)
        return taken

    def receive(self) -> Received | None:
        while (received := super().receive()) is not None:
            if not self._loss:
                return received
            data, segment_size, local, peer, ecn = received
            kept = []
            for segment in _split(data, segment_size):
                if self._chance_in.random() < self._loss:
                    self._lost("lost_in", segment)
                else:
                    kept.append(segment)
            if kept:
                return Received(b"".join(kept), segment_size, local, peer, ecn)
        return None


def _split(data: bytes, segment_size: int) -> list[bytes]:
    """The segments of a train; all of it where it is no train. A datagram of 0 bytes is one, too."""
    step = segment_size or len(data) or 1
    return [data[i : i + step] for i in range(0, len(data), step)] or [data]
