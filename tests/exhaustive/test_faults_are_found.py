"""The checker can see: faults put into an engine or into what it says are found, by a shortest trace."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest

from utcp.check import SCENARIOS, Scenario, World, explore
from utcp.check.__main__ import main
from utcp.check.explore import replay
from utcp.check.report import show_trace
from utcp.check.world import CLIENT, SERVER, End
from utcp.core.stack import NEVER
from utcp.core.states import State
from utcp.wire.segment import ACK, FIN, RST, Segment, decode

ACTIVE = SCENARIOS["active"]


class Forger(World):
    """A network that changes what one end sends."""

    victim = CLIENT

    def send(self, end: End, payload: bytes) -> None:
        super().send(end, self.forge(decode(payload)).to_bytes() if end.index == self.victim else payload)

    def forge(self, seg: Segment) -> Segment:
        raise NotImplementedError


def changed(seg: Segment, **changes: Any) -> Segment:
    ts: dict[str, Any] = {"ts_val": seg.ts_val, "ts_ecr": seg.ts_ecr} if seg.ts else {}
    fields: dict[str, Any] = {"seq": seg.seq, "ack": seg.ack, "flags": seg.flags, "wnd": seg.wnd, "data": seg.data}
    options: dict[str, Any] = {
        "mss": seg.mss,
        "wscale": seg.wscale,
        "sack_permitted": seg.sack_permitted,
        "sack": seg.sack,
    }
    return Segment(seg.src_port, seg.dst_port, **(fields | options | ts | changes))


class WrongByte(Forger):
    def forge(self, seg: Segment) -> Segment:
        return changed(seg, data=b"?" + seg.data[1:]) if seg.data_len else seg


class EarlyFin(Forger):
    """The last byte is cut off, and the FIN in its place."""

    def forge(self, seg: Segment) -> Segment:
        return changed(seg, data=seg.data[:-1]) if seg.data_len and seg.flags & FIN else seg


class FinIsReset(Forger):
    """A RST in place of the server's FIN."""

    victim = SERVER

    def forge(self, seg: Segment) -> Segment:
        return changed(seg, flags=RST | ACK) if seg.flags & FIN else seg


class Mute(Forger):
    """The server's FIN never says so."""

    victim = SERVER

    def forge(self, seg: Segment) -> Segment:
        return changed(seg, flags=seg.flags & ~FIN)


class Forgetful(World):
    """Engines that forget to start their retransmission timers."""

    def send(self, end: End, payload: bytes) -> None:
        super().send(end, payload)
        for connection in end.engine.connections():
            connection.rtx_at = NEVER


class Hasty(World):
    """An engine that leaves CLOSING as if it had waited."""

    def settle(self, end: End) -> None:
        for connection in end.engine.connections():
            if connection.state is State.CLOSING:
                end.watch.state_change(
                    self.now, 0, connection.local_port, connection.remote_port, State.CLOSING, State.ESTABLISHED
                )
        super().settle(end)


DELIVERED = ["c", "c", "d0", "d0", "d0"]  # SYN, SYN-ACK, the client's data with its FIN

CASES = [
    (WrongByte, ACTIVE, "I3: the server read b'?", [*DELIVERED, "s"]),
    (EarlyFin, ACTIVE, "I4: the server sees end-of-file after 2 of 3 bytes", [*DELIVERED, "s"]),
    (FinIsReset, ACTIVE, "I6", [*DELIVERED, "s", "s", "s", "s"]),
    (Mute, ACTIVE, "I5", None),
    (Forgetful, ACTIVE, "I1", ["c"]),
    (Hasty, SCENARIOS["simultaneous"], "no transition from CLOSING to ESTABLISHED", None),
]


@pytest.mark.parametrize(("world", "scenario", "violation", "trace"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_fault_is_found(world: type[World], scenario: Scenario, violation: str, trace: list[str] | None) -> None:
    result = explore(scenario, 0, world=world)
    assert violation in result.violation
    assert not result.complete
    if trace is not None:
        assert result.trace == trace


def test_a_trace_is_a_shortest_one_and_can_be_replayed() -> None:
    result = explore(ACTIVE, 0, world=WrongByte)
    with pytest.raises(AssertionError, match="I3"):
        replay(ACTIVE, result.trace, world=WrongByte)
    replay(ACTIVE, result.trace[:-1], world=WrongByte)
    screen = io.StringIO()
    assert "I3" in show_trace(ACTIVE, result.trace, {}, WrongByte, screen)
    assert "FIN-WAIT-1" in screen.getvalue() and "the server does: accept" in screen.getvalue()


class ForgetsOnce(World):
    """Engines whose retransmissions have no data."""

    def send(self, end: End, payload: bytes) -> None:
        seg = decode(payload)
        again = any(connection.info().retransmissions for connection in end.engine.connections())
        super().send(end, changed(seg, data=b"!" * seg.data_len).to_bytes() if again and seg.data_len else payload)


def test_what_only_a_loss_brings_to_light() -> None:
    """It is found among the states in which a segment is held back for longer than a time-out."""
    assert explore(ACTIVE, 0, prompt=True, world=ForgetsOnce).violation == ""
    result = explore(ACTIVE, 1, prompt=True, world=ForgetsOnce)
    assert "I3: the server read b'!!!'" in result.violation
    assert sum(choice[0] in "uh" for choice in result.trace) == 1


def test_what_never_arrives() -> None:
    """The RST is lost, and the other end has nothing in flight: it would wait for ever, having no keepalive."""
    scripts = "connect; established; abort", "accept; eof; close"
    scenario = Scenario("idle", "a peer that is not told", *scripts, graceful=False)
    assert explore(scenario, 0, prompt=True).violation == ""
    result = explore(scenario, 1, prompt=True)
    assert "is left, and nothing will ever happen to it" in result.violation
    assert result.trace[-1] == "h0"
    keepalive = {"keepalive": True, "keepalive_idle": 60.0}
    assert explore(scenario, 1, prompt=True, config=keepalive).violation == ""


def test_the_command_replays_a_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario", "active", "--replay", "c l0 t d0 d0"]) == 0
    printed = capsys.readouterr().out
    assert "lost" in printed and "resent" in printed and "Every invariant held" in printed


@pytest.mark.parametrize(
    "arguments",
    [["--replay", "c"], ["--config", "msl"], ["--config", "msl=-1.0"], ["--client", "dance"], ["--jobs", "0"]],
)
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_several_processes_see_what_one_sees() -> None:
    scenarios = ["--scenario", "refused", "--scenario", "give-up", "--scenario", "flush", "--faults", "0"]
    printed = []
    for jobs in ("1", "2"):
        command = [sys.executable, "-m", "utcp.check", *scenarios, "--jobs", jobs]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        printed.append([line for line in done.stdout.splitlines() if " s. Every" not in line])
    assert printed[0] == printed[1]


def test_a_config_of_ones_own_and_a_script_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["--client", "connect; close", "--server", "accept; eof; close", "--faults", "0", "--config", "msl=0.5"])
        == 0
    )
    assert "yours" in capsys.readouterr().out
