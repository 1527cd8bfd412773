"""``utcp demo`` for real: two processes, loopback UDP, every way of closing, losses, captures, interruptions."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import utcp
from support.strangers import tcptrace, tool

COMMAND = [sys.executable, "-m", "utcp", "demo"]
ENV = {**os.environ, "PYTHONPATH": str(Path(utcp.__file__).parents[1])}

# A process that waits for a processor for longer than 2 MSL finds that its peer, which has gone, resets what it repeats
MSL = "0.5"

ACTIVE = ["SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSED"]
PASSIVE = ["SYN-RECEIVED", "ESTABLISHED", "CLOSE-WAIT", "LAST-ACK", "CLOSED"]


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], env=ENV, capture_output=True, text=True, timeout=110, check=False)


def report_of(*options: str) -> dict[str, Any]:
    done = demo("--json", *options)
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    return report


def demo_json(*options: str) -> dict[str, Any]:
    report = report_of(*options)
    assert report["ok"], report["verdict"]
    return report


def undisturbed(*options: str) -> dict[str, Any]:
    """A demo in which nothing was sent twice: it is, where a process has waited for a processor for longer than RTO."""
    for _ in range(10):
        report = report_of(*options)
        if not any(segment["retransmission"] for segment in report["segments"]):
            assert report["ok"], report["verdict"]
            return report
    pytest.fail("something is sent again in each of ten demos that lose nothing")


def states(report: dict[str, Any], side: str) -> list[str]:
    return [transition["to"] for transition in report[side]["transitions"]]


def check_bytes(report: dict[str, Any], client: int, server: int) -> None:
    assert report["client"]["sent"] == report["server"]["received"]
    assert report["server"]["sent"] == report["client"]["received"]
    assert (report["client"]["sent"]["bytes"], report["server"]["sent"]["bytes"]) == (client, server)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_client_closes_the_server_drains_and_four_segments_end_it(loop: str) -> None:
    report = undisturbed("--msl", MSL, "--loop", loop)
    check_bytes(report, 5_000, 23_000)
    assert states(report, "client") == ACTIVE
    assert states(report, "server") == PASSIVE
    fins = [i for i, segment in enumerate(report["segments"]) if "F" in segment["flags"]]
    first, second = (report["segments"][i] for i in fins)
    assert (first["from"], first["client_state"], first["server_state"]) == ("client", "FIN-WAIT-1", "CLOSE-WAIT")
    assert (second["from"], second["client_state"], second["server_state"]) == ("server", "TIME-WAIT", "LAST-ACK")
    answer, last = report["segments"][fins[0] + 1], report["segments"][-1]
    assert (answer["from"], answer["flags"], answer["len"], answer["ack"]) == ("server", ".", 0, first["seq"] + 1)
    assert (answer["client_state"], answer["server_state"]) == ("FIN-WAIT-2", "CLOSE-WAIT")
    assert (last["from"], last["flags"], last["ack"]) == ("client", ".", second["seq"] + 1)
    assert (last["client_state"], last["server_state"]) == ("TIME-WAIT", "CLOSED")
    draining = [s for s in report["segments"][fins[0] : fins[1]] if s["from"] == "server" and s["len"]]
    assert [s["len"] for s in draining if not s["retransmission"]] == [5_000] * 4
    entered, left = report["client"]["transitions"][-2:]
    assert left["t_ms"] - entered["t_ms"] >= 2000 * float(MSL), "TIME-WAIT lasts 2 MSL"


def test_the_server_may_close_first() -> None:
    report = demo_json("--msl", MSL, "--close", "server", "--drain", "7")
    check_bytes(report, 5_007, 3_000)
    assert states(report, "client") == ["SYN-SENT", *PASSIVE[1:]]
    assert states(report, "server") == ["SYN-RECEIVED", *ACTIVE[1:]]


def test_both_may_close_at_once() -> None:
    report = demo_json("--msl", MSL, "--close", "both", "--drain", "70000")
    check_bytes(report, 5_000, 73_000)
    for side in ("client", "server"):
        assert states(report, side)[1:3] == ["ESTABLISHED", "FIN-WAIT-1"]
        assert states(report, side)[-2:] == ["TIME-WAIT", "CLOSED"]
    assert "CLOSING" in states(report, "client") + states(report, "server")


def test_without_anything_to_drain_the_fin_is_answered_at_once() -> None:
    report = undisturbed("--msl", "0", "--drain", "0")  # a FIN that comes again meets nobody
    check_bytes(report, 5_000, 3_000)
    assert report["server"]["final_state"] == report["client"]["final_state"] == "CLOSED"


def test_a_megabyte_is_drained_in_trains() -> None:
    check_bytes(demo_json("--msl", MSL, "--drain", "1000000"), 5_000, 1_003_000)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_losses_both_ways_cost_time_but_no_byte(seed: int) -> None:
    report = demo_json("--loss", "0.1", "--seed", str(seed), "--drain", "20000", "--msl", "2")
    check_bytes(report, 5_000, 23_000)
    lost = [segment for segment in report["segments"] if segment["lost"]]
    assert lost, "a seed without losses shows nothing"
    assert len(lost) == report["client"]["lost"] + report["server"]["lost"]
    resent = [segment for segment in report["segments"] if segment["retransmission"]]
    assert len(resent) == report["client"]["retransmissions"] + report["server"]["retransmissions"]


def test_the_ladder_is_plain_text_where_there_is_no_terminal() -> None:
    done = demo("--msl", MSL)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    order = [
        r"SYN-SENT     ─ S   SYN         seq=0 ─+▶ SYN-RECEIVED",
        r"ESTABLISHED  ◀ S\.  SYN,ACK     seq=0 ack=1 ─+ SYN-RECEIVED",
        r"FIN-WAIT-1   ─ F\.  FIN,ACK     seq=5001 .* CLOSE-WAIT",
        r"FIN-WAIT-2   ◀ \.   ACK         seq=3001 ack=5002 .* CLOSE-WAIT",
        r"server has seen the FIN, and drains its last 20,000 bytes",
        r"TIME-WAIT    ◀ F\.  FIN,ACK     seq=23001 .* LAST-ACK",
        r"TIME-WAIT    ─ \.   ACK         seq=5002 ack=23002 .* CLOSED",
        r"client 2 MSL are over",
        r"client to server: 5,000 bytes, SHA-256 \w+… on both sides",
        r"Every byte arrived, and both sides closed gracefully\.",
    ]
    assert re.search(".*".join(order), done.stdout, re.DOTALL), done.stdout


def test_with_ecn() -> None:
    done = demo("--msl", MSL, "--ecn")
    assert done.returncode == 0
    assert re.search(r"─ SEW SYN,ECE,CWR seq=0 ─+▶.*◀ S\.E SYN,ACK,ECE seq=0 ack=1 ─", done.stdout, re.DOTALL), (
        done.stdout
    )


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("options", [[], ["--loss", "0.1", "--seed", "3"]], ids=["lossless", "lossy"])
def test_tshark_and_tcptrace_see_one_complete_connection_in_the_capture(tmp_path: Path, options: list[str]) -> None:
    path = str(tmp_path / "demo.pcapng")
    report = (demo_json if options else undisturbed)("--msl", MSL, "--pcap", path, *options)
    fields = ["tcp.stream", "tcp.srcport", "tcp.flags.syn", "tcp.flags.fin", "tcp.checksum.status", "tcp.len"]
    names = [word for name in [*fields, "_ws.malformed"] for word in ("-e", name)]
    rows = [
        line.split("\t")
        for line in output(
            tool("tshark"), "-r", path, "-o", "tcp.check_checksum:TRUE", "-T", "fields", *names
        ).splitlines()
    ]
    assert len(rows) == len(report["segments"])
    assert {row[0] for row in rows} == {"0"}, "one conversation"
    assert len({row[1] for row in rows if row[2] in {"1", "True"}}) == 2, "SYN both ways"
    assert len({row[1] for row in rows if row[3] in {"1", "True"}}) == 2, "FIN both ways"
    assert {row[4] for row in rows} == {"1"}, "every checksum good"
    assert [int(row[5]) for row in rows] == [segment["len"] for segment in report["segments"]]
    assert {row[6] for row in rows} == {""}, "nothing malformed"
    comments = output(tool("tshark"), "-r", path, "-T", "fields", "-e", "frame.comment")
    assert "client: state ESTABLISHED -> FIN-WAIT-1" in comments
    resent = [frame["retransmission"] for frame in report["segments"]]
    (verdict,) = tcptrace(Path(path))
    assert verdict.plausible(any(resent))
    seen = output(tool("tshark"), "-r", path, "-T", "fields", "-e", "tcp.analysis.retransmission").split("\n")
    assert [bool(field) for field in seen[: len(resent)]] == resent, "tshark and we agree on retransmissions"
    strange = "tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment || tcp.analysis.zero_window"
    assert output(tool("tshark"), "-r", path, "-Y", strange) == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="SKIPPED: no /dev/full on this system")
def test_a_disk_that_fills_up_ends_the_capture_and_the_demo_goes_on_and_says_so() -> None:
    done = demo("--msl", MSL, "--drain", "1000", "--json", "--pcap", "/dev/full")
    assert json.loads(done.stdout)["ok"]
    assert done.stderr == "capture stopped: /dev/full: No space left on device\n"
    assert done.returncode == 1, "the capture that was asked for is not complete"


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def running_on_a_terminal(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], list[int], Callable[[], str]]]:
    """A demo that has come to its FINs, with a terminal for output, its two processes, and what it printed so far."""
    master, slave = pty.openpty()
    process = subprocess.Popen([*COMMAND, *options], env={**ENV, "TERM": "xterm"}, stdout=slave, stderr=slave)
    os.close(slave)
    os.set_blocking(master, False)
    printed = bytearray()

    def screen() -> str:
        try:
            while data := os.read(master, 65536):
                printed.extend(data)
        except (BlockingIOError, OSError):  # nothing more now; EIO: nobody has the terminal open any more
            pass
        return printed.decode()

    try:
        assert wait_until(lambda: "CLOSE-WAIT" in screen()), screen()
        yield process, children(process.pid), screen
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_no_process_and_a_sane_terminal(signal_number: int, code: int) -> None:
    with running_on_a_terminal("--msl", "30") as (process, pids, screen):
        assert len(pids) == 2
        process.send_signal(signal_number)
        assert process.wait(timeout=20) == code, screen()
        assert not any(is_running(pid) for pid in pids)
        text = screen()
        assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") > 0, "the cursor is back"
        assert "Traceback" not in text


def test_no_process_outlives_a_demo_that_is_killed() -> None:
    with running_on_a_terminal("--msl", "30") as (process, pids, _):
        process.kill()
        assert wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_a_process_that_dies_is_a_failure_and_ends_the_demo() -> None:
    with running_on_a_terminal("--msl", "30") as (process, pids, screen):
        os.kill(pids[1], signal.SIGKILL)
        assert process.wait(timeout=20) == 1
        # The other side may be found to have ended before, for it had nobody to talk to
        assert re.search(r"FAILED: .*ended with(out a result,)? exit code -9", screen()), screen()
        assert not any(is_running(pid) for pid in pids)
