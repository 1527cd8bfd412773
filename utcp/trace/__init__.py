"""Looking into a running engine: structlog events, pcapng captures, JSON lines, ladder diagrams.

Each is an ``Observer``. Give one to ``utcp.Endpoint.create(observer=...)``, or attach it for a while::

    with utcp.trace.capture(endpoint, "demo.pcapng"):
        ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from utcp.core.observer import Observer
from utcp.trace.events import StructlogObserver
from utcp.trace.fanout import Fanout
from utcp.trace.jsonlines import JsonLinesObserver
from utcp.trace.pcapng import PcapngObserver, PcapngWriter
from utcp.trace.tracer import Tracer

if TYPE_CHECKING:
    from utcp.trace.ladder import LadderObserver

__all__ = [
    "Fanout",
    "JsonLinesObserver",
    "LadderObserver",
    "Observer",
    "PcapngObserver",
    "PcapngWriter",
    "StructlogObserver",
    "capture",
]


class Observable(Protocol):
    """What a trace is attached to: an Engine."""

    observer: Observer | None

    def path_addresses(self, path: int, /) -> tuple[object, object]: ...


@contextmanager
def capture(target: Any, *sinks: Observer | str | os.PathLike[str]) -> Iterator[None]:
    """Observe a running Endpoint or Engine while the ``with`` block lasts, beside whoever observes it already.

    A sink is an observer, or the name of a file to write: ``*.pcapng`` is a capture, ``*.jsonl`` JSON lines. Files
    opened here are closed at the end; observers stay the caller's. Raises ValueError for a name that ends otherwise,
    OSError when a file cannot be opened.
    """
    engine: Observable = getattr(target, "engine", target)
    opened: list[Tracer] = []
    observers: list[Observer] = []
    try:
        for sink in sinks:
            if isinstance(sink, Observer):
                observers.append(sink)
            else:
                opened.append(_open(os.fspath(sink)))
                observers.append(opened[-1])
        for observer in observers:
            if isinstance(observer, Tracer) and observer.addresses is None:
                observer.addresses = engine.path_addresses
        before = engine.observer
        engine.observer = Fanout(*observers) if before is None else Fanout(before, *observers)
        yield
    finally:
        engine.observer = _without(engine.observer, observers)
        for tracer in opened:
            tracer.close()


def _without(observer: Observer | None, gone: list[Observer]) -> Observer | None:
    """What is left of an engine's observer. Captures that overlap may end in any order."""
    if observer in gone:
        return None
    if not isinstance(observer, Fanout):
        return observer
    kept = [left for each in observer.observers if (left := _without(each, gone)) is not None]
    if len(kept) == len(observer.observers):
        return observer
    return Fanout(*kept) if len(kept) > 1 else kept[0] if kept else None


def _open(name: str) -> Tracer:
    if name.endswith(".pcapng"):
        return PcapngObserver(name)
    if name.endswith(".jsonl"):
        return JsonLinesObserver(name)
    raise ValueError(f"{name}: the name of a trace ends in .pcapng or .jsonl")


def __getattr__(name: str) -> Any:
    if name == "LadderObserver":  # needs rich, which programs that draw no ladder do without
        from utcp.trace.ladder import LadderObserver

        return LadderObserver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
