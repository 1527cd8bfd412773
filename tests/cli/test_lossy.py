"""The socket that loses segments: per segment, both ways, by the seed alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from utcp.cli.lossy import LossySocket

ALL = [bytes([i]) * 10 for i in range(50)]


class End:
    def __init__(self, loss: float, seed: str) -> None:
        self.losses: list[tuple[str, bytes]] = []
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        self.socket = LossySocket(sock, loss=loss, seed=seed, lost=lambda *loss: self.losses.append(loss))

    def send(self, to: End, payload: bytes, segment_size: int) -> int:
        return self.socket.send(payload, segment_size, self.socket.local, to.socket.local)

    def receive_all(self) -> list[bytes]:
        segments = []
        while (received := self.socket.receive()) is not None:
            step = received.segment_size or len(received.data)
            segments += [received.data[i : i + step] for i in range(0, len(received.data), step)]
        return segments


@contextmanager
def pair(loss_out: float, loss_in: float, seed: str = "1") -> Iterator[tuple[End, End]]:
    ends = End(loss_out, seed), End(loss_in, seed)
    try:
        yield ends
    finally:
        for end in ends:
            end.socket.close()


@pytest.mark.parametrize(("loss_out", "loss_in", "event"), [(0.4, 0.0, "lost_out"), (0.0, 0.4, "lost_in")])
def test_what_is_lost_is_told_and_the_rest_arrives_in_order(loss_out: float, loss_in: float, event: str) -> None:
    with pair(loss_out, loss_in) as (sender, receiver):
        assert sender.send(receiver, b"".join(ALL), 10) == 500, "what is lost counts as sent"
        arrived = receiver.receive_all()
        losses = sender.losses + receiver.losses
        assert {kind for kind, _ in losses} == {event}
        gone = [segment for _, segment in losses]
        assert arrived == [segment for segment in ALL if segment not in gone]
        assert 5 < len(gone) < 45


def test_the_fate_of_the_nth_segment_depends_on_the_seed_alone() -> None:
    def fates(seed: str, *, train: bool) -> list[bytes]:
        with pair(0.3, 0.0, seed) as (sender, receiver):
            for payload in [b"".join(ALL)] if train else ALL:
                sender.send(receiver, payload, 10)
            return [segment for _, segment in sender.losses]

    assert fates("a", train=True) == fates("a", train=False)
    assert fates("a", train=True) != fates("b", train=True)


def test_without_loss_everything_arrives() -> None:
    with pair(0.0, 0.0) as (sender, receiver):
        sender.send(receiver, b"".join(ALL), 10)
        sender.send(receiver, b"", 0)
        assert receiver.receive_all() == [*ALL]
        assert not sender.losses
