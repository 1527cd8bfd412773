"""JSON lines, structlog events, the fan-out, and attaching all of them to a running engine."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

from utcp.core.observer import Observer
from utcp.core.states import State
from utcp.trace import Fanout, JsonLinesObserver, PcapngObserver, StructlogObserver, capture
from utcp.trace.records import Record, Recorder
from utcp.wire.segment import ACK, FIN, PSH, SYN, Segment

SYN_BYTES = Segment(40001, 9000, 1000, 0, SYN, mss=1460).to_bytes()


class Collector(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)


class FakeEngine:
    """As much of an Engine as a trace needs."""

    def __init__(self, observer: Observer | None = None) -> None:
        self.observer = observer

    def path_addresses(self, path: int, /) -> tuple[object, object]:
        return ("10.0.0.1", 5000), ("fd00::2", 6000)

    def receive_syn(self) -> None:
        if self.observer is not None:
            self.observer.segment_in(5, 0, SYN_BYTES)


def tell_everything(observer: Observer) -> None:
    observer.user_call(1, 3, 40001, 9000, "connect")
    observer.state_change(2, 3, 40001, 9000, State.CLOSED, State.SYN_SENT)
    observer.segment_out(3, 3, SYN_BYTES, retransmission=True)
    observer.timer(4, 3, 40001, 9000, "retransmit")
    observer.segment_in(5, 3, Segment(9000, 40001, 7, 1001, FIN | PSH | ACK, data=b"xyz").to_bytes())
    observer.drop(5, 3, Segment(9000, 40001, 7, 1001, FIN | PSH | ACK, data=b"xyz").to_bytes(), "bad-ack")
    observer.path_mtu(6, 3, 1228, 1500)
    observer.closed(6, 3, 40001, 9000, "refused")


def test_every_event_becomes_one_line_of_json() -> None:
    file = io.BytesIO()
    observer = JsonLinesObserver(file)
    tell_everything(observer)
    observer.close()
    ends = {"path": 3, "local_port": 40001, "remote_port": 9000}
    syn = {"flags": "S", "seq": 1000, "ack": 0, "wnd": 65535, "len": 0, "options": ["mss 1460"]}
    fin = {"flags": "FP.", "seq": 7, "ack": 1001, "wnd": 65535, "len": 3, "options": []}
    assert [json.loads(line) for line in file.getvalue().splitlines()] == [
        {"t": 1, "event": "user_call", **ends, "name": "connect"},
        {"t": 2, "event": "state_change", **ends, "old": "CLOSED", "new": "SYN-SENT"},
        {"t": 3, "event": "segment_out", **ends, **syn, "retransmission": True},
        {"t": 4, "event": "timer", **ends, "name": "retransmit"},
        {"t": 5, "event": "segment_in", **ends, **fin},
        {"t": 5, "event": "drop", **ends, "reason": "bad-ack"},
        {"t": 6, "event": "path_mtu", "path": 3, "old": 1228, "new": 1500},
        {"t": 6, "event": "closed", **ends, "reason": "refused"},
    ]


def test_raw_bytes_are_in_a_record_when_asked_for() -> None:
    file = io.BytesIO()
    JsonLinesObserver(file, raw=True).segment_in(1, 0, SYN_BYTES)
    assert json.loads(file.getvalue())["raw"] == SYN_BYTES.hex()


@pytest.mark.parametrize("garbage", [b"", b"x", bytes(20)])
def test_what_is_no_segment_is_a_record_all_the_same(garbage: bytes) -> None:
    collector = Collector()
    collector.segment_in(1, 0, garbage)
    (record,) = collector.records
    assert record["malformed"].startswith("no TCP segment: ")
    assert record["len"] == len(garbage)


def test_a_pipe_whose_reader_is_gone_ends_the_trace_not_the_program(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    observer = JsonLinesObserver(Broken())
    tell_everything(observer)
    assert len(caplog.messages) == 1


def test_structlog_hears_of_the_life_of_a_connection() -> None:
    with structlog.testing.capture_logs() as logs:
        observer = StructlogObserver()
        observer.addresses = FakeEngine().path_addresses
        tell_everything(observer)
        observer.state_change(7, 3, 40001, 9000, State.SYN_SENT, State.ESTABLISHED)
    ends = {"local": "10.0.0.1:40001", "peer": "[fd00::2]:9000"}
    assert logs == [
        {"event": "state change", "log_level": "info", **ends, "old": "CLOSED", "new": "SYN-SENT"},
        {"event": "retransmission", "log_level": "info", **ends, "flags": "S", "seq": 1000, "len": 0},
        {"event": "segment dropped", "log_level": "debug", **ends, "reason": "bad-ack", "size": 23},
        {"event": "path mtu", "log_level": "info", "local": "10.0.0.1", "peer": "fd00::2", "old": 1228, "new": 1500},
        {"event": "connection closed", "log_level": "info", **ends, "reason": "refused"},
        {"event": "state change", "log_level": "info", **ends, "old": "SYN-SENT", "new": "ESTABLISHED"},
        {"event": "connection opened", "log_level": "info", **ends},
    ]


def test_structlog_takes_a_logger_of_the_callers() -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    class Logger:
        def info(self, event: str, **fields: Any) -> None:
            calls.append((event, fields))

    StructlogObserver(Logger()).closed(1, 0, 1, 2, "graceful")  # type: ignore[arg-type] # a logger of one method
    assert calls == [("connection closed", {"local": ":1", "peer": ":2", "reason": "graceful"})]


def test_the_fan_out_tells_everybody_everything_in_order() -> None:
    first, second = Collector(), Collector()
    tell_everything(Fanout(first, second))
    assert first.records == second.records
    assert len(first.records) == 8


def test_capture_observes_as_long_as_the_block_lasts() -> None:
    engine, collector = FakeEngine(), Collector()
    engine.receive_syn()
    with capture(engine, collector):
        engine.receive_syn()
    engine.receive_syn()
    assert len(collector.records) == 1
    assert engine.observer is None
    assert collector.endpoints(0, 1, 2) == ("10.0.0.1:1", "[fd00::2]:2"), "it was told the engine's addresses"


def test_capture_leaves_an_observer_in_its_place() -> None:
    already, collector = Collector(), Collector()
    engine = FakeEngine(already)
    with suppress(KeyError), capture(engine, collector):
        engine.receive_syn()
        raise KeyError
    assert engine.observer is already
    assert len(already.records) == len(collector.records) == 1


def test_captures_that_overlap_may_end_in_any_order() -> None:
    engine, first, second = FakeEngine(), Collector(), Collector()
    one, two = capture(engine, first), capture(engine, second)
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    engine.receive_syn()
    two.__exit__(None, None, None)
    engine.receive_syn()
    assert (len(first.records), len(second.records)) == (0, 1)
    assert engine.observer is None


def test_capture_finds_the_engine_of_an_endpoint() -> None:
    class FakeEndpoint:
        engine = FakeEngine()

    collector = Collector()
    with capture(FakeEndpoint(), collector):
        FakeEndpoint.engine.receive_syn()
    assert len(collector.records) == 1


def test_capture_opens_files_by_their_names(tmp_path: Path) -> None:
    engine = FakeEngine()
    with capture(engine, tmp_path / "a.pcapng", str(tmp_path / "b.jsonl")):
        engine.receive_syn()
    assert (tmp_path / "a.pcapng").read_bytes()[:4] == bytes.fromhex("0a0d0d0a")
    assert json.loads((tmp_path / "b.jsonl").read_text())["flags"] == "S"


def test_capture_attaches_nothing_when_a_sink_is_no_good(tmp_path: Path) -> None:
    engine = FakeEngine()
    with pytest.raises(ValueError, match=r"\.pcapng or \.jsonl"), capture(engine, tmp_path / "a.jsonl", "demo.txt"):
        pytest.fail("not reached")
    assert engine.observer is None


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    for observer in (PcapngObserver(tmp_path / "x"), JsonLinesObserver(tmp_path / "y")):
        observer.close()
        observer.close()
