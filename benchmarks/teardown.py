"""How many connections per second two processes open and really close, over utcp and over kernel TCP.

    python -m benchmarks.teardown --seconds 3 --in-flight 512 --peer both --json

A lifecycle is connect, optional echo, half-close, EOF, close, and is done when both ends have been told. The
peers take turns in several rounds; the figures are medians over the rounds, and ratios are of medians.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.captured import read
from benchmarks.peers import PEERS, ephemeral_range
from benchmarks.run import run_once
from benchmarks.workload import Result, Workload

CHOICES = {"both": ["utcp", "kernel"], "all": list(PEERS), **{name: [name] for name in PEERS}}
MAX_PAYLOAD = 65_536
MAX_UDP_PEERS = 60_000  # addresses that utcp_stack.udp_sources has


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.teardown",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Workload()
    add = parser.add_argument
    add("--peer", choices=CHOICES, default="both", help="who tears down; epoll is kernel TCP from C (default: both)")
    add("--in-flight", type=at_least(1), default=default.in_flight, metavar="N", help="lifecycles (%(default)s)")
    add("--seconds", type=seconds, default=default.seconds, metavar="S", help="measured per round (%(default)s)")
    add("--rounds", type=at_least(1), default=3, metavar="R", help="the peers take turns so often (%(default)s)")
    add("--api", choices=("protocol", "streams"), default=default.api)
    add(
        "--connect",
        choices=("await", "direct"),
        default=default.connect,
        help="direct: utcp connects by Endpoint.connect, callbacks only; kernel TCP always awaits create_connection",
    )
    add("--loop", choices=("uvloop", "asyncio"), default=default.loop)
    add("--payload", type=at_least(0), default=default.payload, metavar="BYTES", help="echoed in each (%(default)s)")
    add("--msl", type=seconds_or_0, default=default.msl, metavar="S", help="of utcp (%(default)s)")
    add("--ports", type=at_least(0), default=default.ports, metavar="K", help="TCP ports of the server; 0: enough (0)")
    add("--unbatched", action="store_true", help="utcp without UDP GSO and GRO")
    add("--udp-peers", type=at_least(1), default=1, metavar="N", help="UDP sources of utcp's client, up to 60000 (1)")
    add("--interpreted", action="store_true", help="utcp from its .py files, though it may be installed compiled")
    add("--pcap", metavar="FILE", help="write what utcp's client sees, the last round; slows utcp's runs down")
    add("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args(arguments)
    if options.payload > MAX_PAYLOAD:
        parser.error(f"argument --payload: {options.payload} is more than {MAX_PAYLOAD} bytes")
    if options.udp_peers > MAX_UDP_PEERS:
        parser.error(f"argument --udp-peers: {options.udp_peers} is more than {MAX_UDP_PEERS}")
    if options.connect == "direct" and options.api == "streams":
        parser.error("argument --connect: direct means callbacks only, and streams await")
    if options.pcap is not None:
        check_capture(parser, options)
    return options


def check_capture(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if "utcp" not in CHOICES[options.peer]:
        parser.error(f"argument --pcap: only utcp is captured, and --peer is {options.peer}")
    try:
        open(options.pcap, "wb").close()
    except OSError as exc:
        parser.error(f"argument --pcap: {options.pcap}: {exc.strerror}")


def at_least(lowest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is less than {lowest}")
        return value

    return number


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def seconds_or_0(text: str) -> float:
    return seconds(text) if float(text) else 0.0


def workload_of(options: argparse.Namespace, peer: str) -> Workload:
    return Workload(
        in_flight=options.in_flight,
        seconds=options.seconds,
        payload=options.payload,
        api=options.api,
        connect=options.connect if peer == "utcp" else "await",
        loop=options.loop,
        msl=options.msl,
        ports=options.ports,
        batched=not options.unbatched,
        udp_peers=options.udp_peers,
        interpreted=options.interpreted,
        pcap=options.pcap if peer == "utcp" else None,
    )


async def measure(options: argparse.Namespace) -> dict[str, list[Result]]:
    """Every round by every peer, in turns."""
    peers = CHOICES[options.peer]
    rounds: dict[str, list[Result]] = {peer: [] for peer in peers}
    for number in range(options.rounds):
        for peer in peers:
            print(f"round {number + 1}/{options.rounds}: {peer} ...", end=" ", file=sys.stderr, flush=True)
            result = await run_once(workload_of(options, peer), PEERS[peer])
            print(f"{result.rate:,.0f} lifecycles/s", file=sys.stderr, flush=True)
            rounds[peer].append(result)
    return rounds


def median_of(results: list[Result]) -> dict[str, Any]:
    """The median round of each figure, and the spread of the rate; the last round's account of itself."""
    last = results[-1]
    figures: dict[str, Any] = {
        name: statistics.median(getattr(result, name) for result in results)
        for name in ("rate", "p50_us", "p99_us", "segments_per_lifecycle", "cpu_us_per_lifecycle", "time_wait")
    }
    for name in ("peak_rss_client", "peak_rss_server"):
        figures[name] = max(getattr(result, name) for result in results)
    for name in ("retransmissions", "errors", "unfinished"):
        figures[name] = sum(getattr(result, name) for result in results)
    reused = [result.pairs_reused for result in results if result.pairs_reused is not None]
    figures["pairs_reused"] = sum(reused) if reused else None
    figures["rates"] = [result.rate for result in results]
    return {**figures, "counters": last.counters, "client": last.client, "server": last.server}


def header() -> dict[str, Any]:
    """What holds for the whole run, and says nothing of whose machine it was."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "gc_threshold": gc.get_threshold(),
        "kernel_ephemeral_ports": ephemeral_range(),
    }


def summary(options: argparse.Namespace, rounds: dict[str, list[Result]]) -> dict[str, Any]:
    peers = {peer: median_of(results) for peer, results in rounds.items()}
    ratios = {
        f"utcp/{peer}": peers["utcp"]["rate"] / figures["rate"]
        for peer, figures in peers.items()
        if "utcp" in peers and peer != "utcp" and figures["rate"]
    }
    whole: dict[str, Any] = {
        "header": header(),
        "workload": workload_of(options, "utcp").as_dict(),
        "rounds": options.rounds,
        **peers,
        "ratios": ratios,
    }
    if "utcp" in peers:
        whole["header"] |= {name: peers["utcp"]["client"][name] for name in ("compiled", "receive_buffer")}
    if "utcp/kernel" in ratios:
        whole["ratio"] = ratios["utcp/kernel"]
    return whole


def print_table(whole: dict[str, Any], peers: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    facts, workload = whole["header"], whole["workload"]
    console.print(
        f"{workload['in_flight']} in flight, {workload['payload']} bytes, {workload['api']}, {workload['loop']}, "
        f"{whole['rounds']} rounds of {workload['seconds']:g} s; Python {facts['python']}, {facts['system']}, "
        f"{facts['cpus']} CPUs, GC {facts['gc_threshold']}",
        highlight=False,
    )
    table = Table()
    table.add_column("median of rounds")
    for peer in peers:
        table.add_column(peer, justify="right")
    for label, show in ROWS:
        table.add_row(label, *(show(whole[peer]) for peer in peers))
    console.print(table)
    for name, ratio in whole["ratios"].items():
        console.print(f"{name}: {ratio:.2f}", highlight=False)
    for peer in peers:
        note = utcp_note(whole) if peer == "utcp" else kernel_note(whole, peer)
        console.print(f"{peer}: {note}", highlight=False)


def utcp_note(whole: dict[str, Any]) -> str:
    facts, client, workload = whole["header"], whole["utcp"]["client"], whole["workload"]
    captured = ", client captured, which slows it down" if workload["pcap"] else ""
    return (
        f"{'compiled' if facts['compiled'] else 'interpreted'}, connect {workload['connect']}, "
        f"{'batched' if workload['batched'] else 'unbatched'}, {workload['udp_peers']:,} UDP peers, "
        f"MSL {workload['msl']:g} s, "
        f"{client['server_ports']} server ports, receive buffer {facts['receive_buffer']:,} bytes, "
        f"TIME-WAIT records after 2MSL: {client.get('time_wait_after_2msl', 'not waited for')}{captured}"
    )


def kernel_note(whole: dict[str, Any], peer: str) -> str:
    low, high = whole["header"]["kernel_ephemeral_ports"]
    counters = whole[peer]["counters"]
    return (
        f"2MSL 60 s, {high - low + 1:,} ephemeral ports, {counters.get('time_wait_overflow', 'unknown')} TIME-WAIT "
        f"overflows in the last round (beyond tcp_max_tw_buckets); the counters are the whole machine's"
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


ROWS: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
    ("lifecycles/s", lambda p: f"{p['rate']:,.0f}"),
    ("spread", lambda p: f"{min(p['rates']):,.0f} to {max(p['rates']):,.0f}"),
    ("connect-to-closed p50", lambda p: f"{p['p50_us']:,.0f} us"),
    ("connect-to-closed p99", lambda p: f"{p['p99_us']:,.0f} us"),
    ("segments/lifecycle", lambda p: f"{p['segments_per_lifecycle']:.2f}"),
    ("CPU/lifecycle, both sides", lambda p: f"{p['cpu_us_per_lifecycle']:,.1f} us"),
    ("retransmissions", lambda p: f"{p['retransmissions']:,}"),
    ("TIME-WAIT alive at the end", lambda p: f"{p['time_wait']:,.0f}"),
    ("pairs reused", lambda p: "unknown" if p["pairs_reused"] is None else f"{p['pairs_reused']:,}"),
    ("peak memory client", lambda p: _mib(p["peak_rss_client"])),
    ("peak memory server", lambda p: _mib(p["peak_rss_server"])),
    ("errors", lambda p: f"{p['errors']:,}"),
    ("unfinished", lambda p: f"{p['unfinished']:,}"),
]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        rounds = asyncio.run(measure(options))
    except (RuntimeError, OSError) as error:
        print(f"teardown: {error}", file=sys.stderr)
        return 1
    whole = summary(options, rounds)
    if options.pcap is not None and Path(options.pcap).is_file():
        try:
            captured = read(options.pcap)
        except ValueError as error:  # a disk was full
            print(f"teardown: {options.pcap}: {error}", file=sys.stderr)
            return 1
        whole["capture"] = captured.as_dict()
        print(f"{options.pcap}: {captured}", file=sys.stderr)
    if options.json:
        print(json.dumps(whole, indent=2))
    else:
        print_table(whole, CHOICES[options.peer])
    return 0


if __name__ == "__main__":
    sys.exit(main())
