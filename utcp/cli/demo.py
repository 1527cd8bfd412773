"""``utcp demo``: two processes open a connection, use it and tear it down, before your eyes."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live

from utcp.cli.peer import HOST, Plan, plan_json
from utcp.cli.report import SIDES, Report
from utcp.core.config import Config
from utcp.trace.ladder import WIDTH, Ladder
from utcp.trace.merge import Merge, Passage, Step
from utcp.trace.pcapng import PcapngWriter
from utcp.trace.records import Record, ecn_of

HOLD: Final = 50_000_000  # nanoseconds by which the ladder lags behind, for records to come in from both processes
FRAME: Final = 0.05  # seconds between two looks at what has come in
CLOSE_TOGETHER: Final = 100_000_000  # nanoseconds from both sides being ready to the instant at which they close
MAX_LOSS: Final = 0.9
MAX_DRAIN: Final = 100_000_000  # bytes: every one of them is traced

_DESCRIPTION: Final = """\
Start two processes, a server and a client, that talk TCP inside UDP datagrams on the loopback interface: they send
data both ways, one half-closes, the other drains what it still has to send and closes, and TIME-WAIT runs out. Draws
a line per segment, with the state of both sides after it. The exit code is 0 only if every byte arrived and both
sides closed gracefully.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo`` to the subparsers of the command line."""
    p = subparsers.add_parser("demo", help="watch two processes tear a connection down", description=_DESCRIPTION)
    add = p.add_argument
    add("--msl", type=seconds, default=1.0, metavar="SECONDS", help="TIME-WAIT lasts twice this (default: 1)")
    add("--loss", type=probability, default=0.0, metavar="P", help="lose segments, both ways, with this probability")
    add("--seed", type=int, default=0, metavar="N", help="what chance is drawn from (default: 0)")
    drain_help = "what the side that closes second still has to send after the other's FIN (default: 20000)"
    add("--drain", type=byte_count, default=20_000, metavar="BYTES", help=drain_help)
    add("--close", choices=["client", "server", "both"], default="client", help="who closes first (default: client)")
    add("--ecn", action="store_true", help="use explicit congestion notification (RFC 3168)")
    add("--pcap", metavar="FILE", help="write a capture for Wireshark, tshark or tcptrace")
    add("--json", action="store_true", help="print one JSON object in place of the ladder")
    add("--loop", choices=["uvloop", "asyncio"], help="event loop (default: uvloop where it is installed)")
    p.set_defaults(run=lambda args: run(p, args))


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Run the demo; returns the exit code. Wrong values end in ``parser.error``, exit code 2."""
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    if args.loop == "uvloop" and not has_uvloop:
        parser.error("argument --loop: uvloop is not installed")
    loop = args.loop or ("uvloop" if has_uvloop else "asyncio")
    plan = Plan("client", args.close, args.msl, args.loss, args.seed, args.drain, loop, args.ecn)
    capture = None
    if args.pcap is not None:
        try:
            capture = PcapngWriter(args.pcap)
        except OSError as exc:
            parser.error(f"argument --pcap: {args.pcap}: {exc.strerror}")
    try:
        report = asyncio.run(_Demo(plan, capture, quiet=args.json).run())
    except asyncio.CancelledError:  # SIGTERM
        return 128 + signal.SIGTERM
    finally:
        if capture is not None:
            capture.close()
    if args.json:
        print(json.dumps(report.as_dict(), indent=2))
    incomplete = capture is not None and not capture.complete
    return 1 if report.problems or incomplete else 0


class _Peer:
    """One of the two processes."""

    def __init__(self, plan: Plan) -> None:
        self.role = plan.role
        self._plan = plan

    async def __aenter__(self) -> _Peer:
        # The same modules as ours, wherever they come from; out of the terminal's process group, so that Ctrl-C is
        # ours to handle; and gone with us, because the pipe to their standard input is.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "utcp.cli.peer", plan_json(self._plan)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,  # a record holds a whole segment
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dismiss()
        try:
            await asyncio.wait_for(self._process.wait(), 1.0)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def records(self) -> AsyncIterator[Record]:
        """What the process says, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            yield json.loads(line)

    async def exit_code(self) -> int:
        return await self._process.wait()

    def tell(self, order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    def dismiss(self) -> None:
        """Have the process end: at once, or, when it has given its result, in good order."""
        assert self._process.stdin is not None
        self._process.stdin.close()


class _Demo:
    """Runs both processes, and tells their story while it happens."""

    def __init__(self, plan: Plan, capture: PcapngWriter | None, *, quiet: bool) -> None:
        self._peers = {side: _Peer(replace(plan, role=side)) for side in SIDES}
        self._report = Report({name: value for name, value in asdict(plan).items() if name != "role"})
        self._merge = Merge({"client": "CLOSED", "server": "LISTEN"})
        self._capture = capture
        self._wall_clock = time.time_ns() - time.monotonic_ns()
        self._screen = None if quiet else _Screen(plan)
        self._exchanged: set[str] = set()

    async def run(self) -> Report:
        """The whole demo."""
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # as SIGINT does by itself
        async with AsyncExitStack() as stack:
            if self._screen is not None:
                stack.enter_context(self._screen)
            for peer in self._peers.values():
                await stack.enter_async_context(peer)
            async with asyncio.TaskGroup() as tasks:
                listening = [tasks.create_task(self._listen(side)) for side in SIDES]
                while not all(task.done() for task in listening):
                    self._tell_until(time.monotonic_ns() - HOLD)
                    await asyncio.wait(listening, timeout=FRAME)
            self._tell_until(None)
        self._report.transitions = self._merge.transitions
        if self._screen is not None:
            self._screen.summary(self._report)
        return self._report

    async def _listen(self, side: str) -> None:
        async for record in self._peers[side].records():
            match record["event"]:
                case "listening":
                    self._peers["client"].tell(record["address"])
                case "exchanged":
                    self._exchanged.add(side)
                    if len(self._exchanged) == len(SIDES):
                        self._tell_all(time.monotonic_ns() + CLOSE_TOGETHER)
                case "result":
                    self._report.results[side] = record
                    if len(self._report.results) == len(SIDES):
                        self._dismiss_all()
                case _:
                    self._merge.feed(side, record)
        self._report.exit_codes[side] = await self._peers[side].exit_code()
        self._dismiss_all()

    def _tell_all(self, order: Any) -> None:
        for peer in self._peers.values():
            peer.tell(order)

    def _dismiss_all(self) -> None:
        for peer in self._peers.values():
            peer.dismiss()

    def _tell_until(self, instant: int | None) -> None:
        for step in self._merge.take(instant):
            if isinstance(step, Passage):
                self._report.passages.append(step)
                if self._capture is not None:
                    raw = bytes.fromhex(step.record["raw"])
                    at, ecn = self._wall_clock + step.sent_at, ecn_of(step.record)
                    self._capture.write(at, (HOST,), (HOST,), raw, step.comments, ecn=ecn)
            if self._screen is not None:
                self._screen.show(step)
        if self._screen is not None:
            self._screen.refresh()


class _Screen:
    """The ladder, on a terminal with a countdown below it, and the summary."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # rich takes what is no terminal for one of 80 columns
        self._console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
        self._ladder = Ladder(self._console, *SIDES, time_wait=round(2 * plan.msl * 1e9))
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        import utcp

        plan = self._plan
        words = [f"TCP in UDP datagrams on {HOST}", f"MSL {plan.msl:g} s", plan.loop]
        words += ["compiled" if utcp.__compiled__ else "interpreted"]
        words += [f"loss {plan.loss:g}, seed {plan.seed}"] if plan.loss else []
        self._console.print(f"[bold]utcp demo[/]: {', '.join(words)}\n", soft_wrap=True)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, step: Step) -> None:
        self._ladder.show(step)

    def refresh(self) -> None:
        if self._live.is_started:
            self._live.update(self._ladder.countdown(time.monotonic_ns()), refresh=True)

    def summary(self, report: Report) -> None:
        """Bytes each way, what it took, and the verdict."""
        self._ladder.finish()
        print_line = partial(self._console.print, soft_wrap=True)
        print_line()
        for sender, receiver in (SIDES, SIDES[::-1]):
            print_line(_delivery(report, sender, receiver))
        lost, resent = sum(map(report.lost, SIDES)), sum(map(report.retransmissions, SIDES))
        print_line(f"{len(report.passages)} segments, {lost} lost, {resent} resent")
        print_line(f"[bold {'red' if report.problems else 'green'}]{report.verdict}.[/]")


def _delivery(report: Report, sender: str, receiver: str) -> str:
    sent = report.results.get(sender, {}).get("sent")
    received = report.results.get(receiver, {}).get("received")
    if sent is None or received is None:
        return f"{sender} to {receiver}: no result"
    digest = sent["sha256"][:16]
    if received == sent:
        return f"{sender} to {receiver}: {sent['bytes']:,} bytes, SHA-256 {digest}… on both sides"
    return f"{sender} to {receiver}: {received['bytes']:,} of {sent['bytes']:,} bytes, SHA-256 differs"


def seconds(text: str) -> float:
    value = float(text)
    try:
        Config(msl=value)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return value


def probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_LOSS:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, {MAX_LOSS}]")
    return value


def byte_count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MAX_DRAIN:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, {MAX_DRAIN}]")
    return value
