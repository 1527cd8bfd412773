"""One engine, several observers."""

from __future__ import annotations

from utcp.core.observer import Observer
from utcp.core.states import State


class Fanout(Observer):
    """Tells every observer everything, in the order given."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def segment_in(self, now: int, path: int, segment: bytes) -> None:
        for observer in self.observers:
            observer.segment_in(now, path, segment)

    def segment_out(self, now: int, path: int, segment: bytes, retransmission: bool) -> None:
        for observer in self.observers:
            observer.segment_out(now, path, segment, retransmission)

    def ecn_field(self, now: int, path: int, ecn: int) -> None:
        for observer in self.observers:
            observer.ecn_field(now, path, ecn)

    def drop(self, now: int, path: int, segment: bytes, reason: str) -> None:
        for observer in self.observers:
            observer.drop(now, path, segment, reason)

    def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
        for observer in self.observers:
            observer.state_change(now, path, local_port, remote_port, old, new)

    def timer(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        for observer in self.observers:
            observer.timer(now, path, local_port, remote_port, name)

    def user_call(self, now: int, path: int, local_port: int, remote_port: int, name: str) -> None:
        for observer in self.observers:
            observer.user_call(now, path, local_port, remote_port, name)

    def path_mtu(self, now: int, path: int, old: int, new: int) -> None:
        for observer in self.observers:
            observer.path_mtu(now, path, old, new)

    def closed(self, now: int, path: int, local_port: int, remote_port: int, reason: str) -> None:
        for observer in self.observers:
            observer.closed(now, path, local_port, remote_port, reason)
