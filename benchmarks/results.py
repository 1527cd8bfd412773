"""What benchmarks.compare found out, as Markdown: on the terminal, and with plots as benchmarks/RESULTS.md."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.goals import BULK
from benchmarks.parts import PARTS

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
PLOTS = FOLDER / "results"

Row = dict[str, Any]
COLUMNS = (
    "",
    "lifecycles/s",
    "spread",
    "ratio",
    "p50, p99",
    "CPU/lifecycle",
    "segments",
    "TIME-WAIT",
    "pairs reused",
    "errors, unfinished",
    "peak memory",
)
IDLE_LOAD = 0.5
UNLIKE = """\
- TIME-WAIT lasts 60 s in the kernel and 2MSL in utcp; the kernel's column counts the whole machine's records
- where more would wait than the kernel allows (its limit, and how often, are stated) it lets them go at once and does
  less; utcp keeps all, and after each run waits until they have ended
- the kernel does part of its work in interrupts, and CPU/lifecycle has only what was charged to the two processes
- the C program has nothing above epoll, and one thread a side: utcp's callbacks without awaiting are compared with it
- utcp's FINs go with ACKs that are due anyway, which the kernel sends by themselves: see the segments of a lifecycle
- utcp's 1,000 UDP peers are compared with the kernel's one address, which makes no difference to the kernel"""


def print_tables(whole: dict[str, Any]) -> None:
    print("\n".join(lines(whole)))


def lines(whole: dict[str, Any], images: list[str] | None = None) -> Iterator[str]:
    """The whole report, with the lines of its pictures."""
    yield from machine(whole)
    for name, why in whole["skipped"].items():
        yield f"- SKIPPED: {name}: {why}"
    for failure in whole["failed"]:
        yield f"- FAILED: {failure}"
    if whole["left_out"]:
        yield f"- LEFT OUT for lack of time: {whole['left_out']} measurements; medians are of the rounds made"
    if whole["contests"] or BULK in whole["parts"]:
        yield from goal_lines(whole)
    yield from images or []
    if whole["contests"]:
        yield from unlike(whole)
    for contest in whole["contests"]:
        yield from contest_lines(contest)
    for part, figures in whole["parts"].items():
        yield from part_lines(part, figures)


def machine(whole: dict[str, Any]) -> Iterator[str]:
    facts = whole["header"]
    low, high = facts["kernel_ephemeral_ports"]
    compiled = {True: "compiled", False: "INTERPRETED, no compiled build is installed"}.get(facts.get("compiled"), "?")
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    processor = f"{facts['processor']}, " if "processor" in facts else ""
    memory = f"{facts['memory'] / 2**30:.0f} GiB, " if "memory" in facts else ""
    yield f"- {facts['cpus']} CPUs, {processor}{memory}{facts['system']}, Python {facts['python']}"
    yield f"- utcp is {compiled}; {versions}"
    if facts["load"] is not None:
        idle = "" if facts["load"] < IDLE_LOAD else ": THE MACHINE WAS NOT IDLE"
        yield f"- load average when the run began: {facts['load']:.2f}{idle}"
    hurry = ", in a hurry: the figures mean little" if whole["quick"] else ""
    rounds = "one round" if whole["rounds"] == 1 else f"{whole['rounds']} rounds, medians of them"
    yield f"- {rounds}{hurry}; those who are compared take turns"
    yield from collections(facts["gc"])
    if "receive_buffer" in facts:
        options = " and ".join(name for name in ("timestamps", "sack") if facts[name])
        yield f"- utcp's UDP receive buffer as granted: {facts['receive_buffer']:,} bytes; TCP options: {options}"
    yield f"- kernel: ephemeral ports {low} to {high}, TIME-WAIT 60 s, at most {facts['kernel_max_time_wait']} records"


def collections(found: list[dict[str, Any]]) -> Iterator[str]:
    """One line where all processes said the same of their garbage collection, as they should."""
    for one in found:
        where = "all Python processes of both sides" if len(found) == 1 else "SOME of the Python processes"
        default = " (Python's default)" if tuple(one["threshold"]) == gc.get_threshold() else ""
        state = "on" if one["enabled"] else "OFF"
        yield (
            f"- garbage collection {state} in {where}, threshold {tuple(one['threshold'])}{default}, "
            f"{one['frozen']} objects frozen"
        )


def goal_lines(whole: dict[str, Any]) -> Iterator[str]:
    yield "\n## Goals\n"
    yield "| in flight | workload | beside | ratio | in single rounds | at least | aim | reached |"
    yield "|--:|---|---|--:|--:|--:|--:|---|"
    for goal in whole["goals"]:
        found = "-" if goal["ratio"] is None else f"{goal['ratio']:.2f}"
        rounds = f"{min(goal['ratios']):.2f} to {max(goal['ratios']):.2f}" if goal["ratios"] else "-"
        yield (
            f"| {goal['in_flight']} | {goal['workload']} | {goal['theirs']} | {found} | {rounds} "
            f"| {goal['least']:g} | {goal['aim']:g} | {goal['reached']} |"
        )
    yield "\n0 bytes, and of rates the ratio of the medians; bulk: Gbit/s of one connection, beside asyncio's protocol."


def unlike(whole: dict[str, Any]) -> Iterator[str]:
    """What is not the same on both sides of a comparison."""
    yield "\n## Not like for like\n"
    yield from UNLIKE.splitlines()
    notes = {row["name"]: row["note"] for contest in whole["contests"] for row in contest["rows"] if row["note"]}
    for name, note in notes.items():
        yield f"- {name}: {note}"


def contest_lines(contest: dict[str, Any]) -> Iterator[str]:
    yield f"\n## Teardown: {contest['name']}\n"
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|---|" + "--:|" * (len(COLUMNS) - 1)
    for row in contest["rows"]:
        yield "| " + " | ".join(cells(row)) + " |"
    yield ""
    yield from circumstances(contest["rows"])


def cells(row: Row) -> Iterator[str]:
    yield row["name"]
    yield f"{row['rate']:,.0f}"
    yield f"{min(row['rates']):,.0f} to {max(row['rates']):,.0f}"
    yield ratio(row)
    yield f"{row['p50_us'] / 1000:,.2f}, {row['p99_us'] / 1000:,.2f} ms"
    yield f"{row['cpu_us_per_lifecycle']:,.1f} us"
    yield f"{row['segments_per_lifecycle']:.2f}" if row["segments_per_lifecycle"] else "-"
    yield f"{row['time_wait']:,.0f}"
    yield "-" if row["pairs_reused"] is None else f"{row['pairs_reused']:,}"
    yield f"{row['errors']}, {row['unfinished']}"
    yield f"{row['peak_rss_client'] / 2**20:,.0f} + {row['peak_rss_server'] / 2**20:,.0f} MiB"


def ratio(row: Row) -> str:
    if row["ratio"] is not None:
        return f"{row['ratio']:.2f} x {row['against'].removeprefix('kernel TCP, ')}"
    if row["utcp_ratio"] is not None:
        return f"utcp is {row['utcp_ratio']:.2f} x this"
    return "-"


def circumstances(rows: list[Row]) -> Iterator[str]:
    """What the run of a contest was like, for both kinds of TCP."""
    ours = [row for row in rows if row["name"].startswith("utcp")]
    theirs = [row["kernel"] for row in rows if row["kernel"]]
    if ours:
        client, workload = ours[0]["client"], ours[0]["workload"]
        drained = sum(row["client"].get("time_wait_after_2msl", 0) for row in ours)
        yield (
            f"- utcp: MSL {workload['msl']:g} s, {client['server_ports']} server ports behind one UDP socket, "
            f"{drained} TIME-WAIT records after 2MSL"
        )
        yield f"- utcp: {sum(row['retransmissions'] for row in ours):,} retransmissions in all rounds"
    if theirs:
        overflows, refused = (sum(one[name] for one in theirs) for name in ("time_wait_overflow", "listen_overflows"))
        yield (
            f"- kernel (the whole machine), all rounds: {overflows:,} TIME-WAIT records over its limit, "
            f"{refused:,} overflows of a listen queue"
        )


def part_lines(part: str, figures: dict[str, Any]) -> Iterator[str]:
    yield f"\n## {PARTS[part].title}\n"
    yield f"{PARTS[part].note}\n"
    if "failed" in figures:
        yield f"FAILED: {figures['failed']}"
    elif "ratios" in figures:
        yield f"| | {figures['unit']} | spread | utcp / this |"
        yield "|---|--:|--:|--:|"
        for peer in [name for name in figures if isinstance(figures[name], dict) and "figures" in figures[name]]:
            one = figures[peer]
            spread = f"{min(one['figures']):,.2f} to {max(one['figures']):,.2f}"
            quotient = figures["ratios"].get(f"utcp/{peer}")
            yield f"| {peer} | {one['figure']:,.2f} | {spread} | {'-' if quotient is None else f'{quotient:.2f}'} |"
        for peer in figures.get("skipped", []):
            yield f"\nSKIPPED: {peer} is not installed"
    elif figures.get("rows"):
        yield "| " + " | ".join(figures["rows"][0]) + " |"
        yield "|" + "--:|" * len(figures["rows"][0])
        for row in figures["rows"]:
            yield "| " + " | ".join(show(value) for value in row.values()) + " |"
    else:
        yield "| | |"
        yield "|---|--:|"
        for name, value in figures.items():
            yield f"| {name} | {show(value)} |"


def show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def write_results(whole: dict[str, Any], target: Path = RESULTS, plots: Path = PLOTS) -> None:
    """The report with its plots. ImportError without matplotlib."""
    from benchmarks.plots import draw

    images = [f"\n![{title}]({plots.name}/{file.name})" for title, file in draw(whole, plots).items()]
    command = "python -m benchmarks.compare --write" + (" --quick" if whole["quick"] else "")
    intro = f"# Results\n\nWritten by `{command}`. Ratios count; the rest holds for this machine.\n"
    target.write_text("\n".join([intro, *lines(whole, images)]) + "\n")
