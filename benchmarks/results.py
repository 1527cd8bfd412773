"""What benchmarks.compare found out, as Markdown: on the terminal, and with plots as benchmarks/RESULTS.md."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

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
)


def print_tables(whole: dict[str, Any]) -> None:
    print("\n".join(lines(whole)))


def lines(whole: dict[str, Any]) -> Iterator[str]:
    """The whole report."""
    yield from machine(whole)
    for name, why in whole["skipped"].items():
        yield f"- SKIPPED: {name}: {why}"
    for failure in whole["failed"]:
        yield f"- FAILED: {failure}"
    if whole["left_out"]:
        yield f"- LEFT OUT for lack of time: {whole['left_out']} measurements; medians are of the rounds made"
    for contest in whole["contests"]:
        yield from contest_lines(contest)
    for part, figures in whole["parts"].items():
        yield from part_lines(part, figures)


def machine(whole: dict[str, Any]) -> Iterator[str]:
    facts = whole["header"]
    low, high = facts["kernel_ephemeral_ports"]
    compiled = {True: "compiled", False: "INTERPRETED, no compiled build is installed"}.get(facts.get("compiled"), "?")
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    yield f"- {facts['cpus']} CPUs, {facts['system']}, Python {facts['python']}; utcp is {compiled}; {versions}"
    hurry = ", in a hurry: the figures mean little" if whole["quick"] else ""
    yield f"- {whole['rounds']} rounds, medians of them{hurry}"
    if "gc" in facts:
        yield f"- garbage collection on in all processes, threshold {facts['gc']['threshold']} (Python's default)"
        yield f"- utcp's UDP receive buffer as granted: {facts['receive_buffer']:,} bytes"
    yield f"- kernel: ephemeral ports {low} to {high}, TIME-WAIT 60 s, at most {facts['kernel_max_time_wait']} records"


def contest_lines(contest: dict[str, Any]) -> Iterator[str]:
    yield f"\n## Teardown: {contest['name']}\n"
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|---|" + "--:|" * (len(COLUMNS) - 1)
    for row in contest["rows"]:
        yield "| " + " | ".join(cells(row)) + " |"
    yield ""
    for row in contest["rows"]:
        if row["note"]:
            yield f"- {row['name']}: {row['note']}"
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


def ratio(row: Row) -> str:
    if row["ratio"] is not None:
        return f"{row['ratio']:.2f} x {row['against'].removeprefix('kernel TCP, ')}"
    if row["utcp_ratio"] is not None:
        return f"utcp is {row['utcp_ratio']:.2f} x this"
    return "-"


def circumstances(rows: list[Row]) -> Iterator[str]:
    """What the run of a contest was like, for both kinds of TCP."""
    ours = [row for row in rows if row["name"].startswith("utcp")]
    theirs = [row["counters"] for row in rows if "time_wait_overflow" in row["counters"]]
    if ours:
        client, workload = ours[0]["client"], ours[0]["workload"]
        drained = sum(row["client"].get("time_wait_after_2msl", 0) for row in ours)
        yield (
            f"- utcp: MSL {workload['msl']:g} s, {client['server_ports']} server ports behind one UDP socket, "
            f"{drained} TIME-WAIT records after 2MSL"
        )
    if theirs:
        overflows = sum(one["time_wait_overflow"] for one in theirs)
        yield f"- kernel: {overflows:,} TIME-WAIT records over its limit in the last round (the whole machine's)"
    yield "- not like for like: the kernel's TIME-WAIT lasts 60 s, utcp's 2MSL; its column counts the machine's"


def part_lines(part: str, figures: dict[str, Any]) -> Iterator[str]:
    yield f"\n## {part.capitalize()}\n"
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
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def write_results(whole: dict[str, Any], target: Path = RESULTS, plots: Path = PLOTS) -> None:
    """The report with its plots. ImportError without matplotlib."""
    drawn = draw(whole, plots)
    images = [f"![{title}]({plots.name}/{file.name})" for title, file in drawn.items()]
    intro = [
        "# Results",
        "",
        "Written by `python -m benchmarks.compare --write`. Ratios count; the rest holds for this machine.",
        "",
    ]
    body = list(lines(whole))
    first = next((place for place, line in enumerate(body) if is_title(line)), len(body))
    target.write_text("\n".join([*intro, *body[:first], "", *images, *body[first:]]) + "\n")


def is_title(line: str) -> bool:
    return line.startswith("\n## ")


def draw(whole: dict[str, Any], plots: Path) -> dict[str, Path]:
    """A plot for each payload, of the rates over the number in flight. Returns their files by title."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = import_module("matplotlib.pyplot")
    # The same figures make the same small file
    pyplot.rcParams.update({"svg.hashsalt": "utcp", "svg.fonttype": "none"})
    plots.mkdir(exist_ok=True)
    drawn = {}
    for payload in sorted({contest["payload"] for contest in whole["contests"]}):
        chosen = [contest for contest in whole["contests"] if contest["payload"] == payload]
        series: dict[str, list[tuple[int, float]]] = {}
        for contest in chosen:
            for row in contest["rows"]:
                series.setdefault(row["name"], []).append((contest["in_flight"], row["rate"]))
        figure, axes = pyplot.subplots(figsize=(9, 5))
        axes.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
        for name, points in series.items():
            style = "-" if name.startswith("utcp") else "--"
            axes.plot(*zip(*sorted(points), strict=True), style, marker="o", markersize=3, label=name)
        title = f"Lifecycles per second, {payload} bytes"
        axes.set(xscale="log", yscale="log", xlabel="in flight", ylabel="lifecycles/s", title=title)
        counts = [contest["in_flight"] for contest in chosen]
        axes.set_xticks(counts, map(str, counts))
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
        path = plots / f"teardown-{payload}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)
        drawn[title] = path
    return drawn
