"""The plots of a comparison's report."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

Series = dict[str, list[tuple[int, float]]]  # points by name


def draw(whole: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Whatever there are figures for. Returns the files by title. ImportError without matplotlib."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = import_module("matplotlib.pyplot")
    # The same figures make the same small file
    pyplot.rcParams.update({"svg.hashsalt": "utcp", "svg.fonttype": "none"})
    folder.mkdir(exist_ok=True)
    drawn = {}
    for title, name, figure in figures(pyplot, whole):
        drawn[title] = folder / f"{name}.svg"
        figure.savefig(drawn[title], bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)
    return drawn


def figures(pyplot: Any, whole: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Title, name of the file, figure."""
    measured = [goal for goal in whole["goals"] if goal["ratio"] is not None]
    if measured:
        title = "Ratios, and what was to be reached"
        yield title, "goals", draw_goals(pyplot, measured, title)
    for payload in sorted({contest["payload"] for contest in whole["contests"] if contest["rows"]}):
        chosen = [contest for contest in whole["contests"] if contest["payload"] == payload]
        title = f"Lifecycles per second, {payload} bytes"
        yield title, f"teardown-{payload}", draw_rates(pyplot, chosen, title)
    if rows := whole["parts"].get("live", {}).get("rows"):
        title = "Cost of a lifecycle beside idle connections or TIME-WAIT records"
        yield title, "live", draw_live(pyplot, rows, title)


def draw_goals(pyplot: Any, goals: list[dict[str, Any]], title: str) -> Any:
    """A bar each, with the range of single rounds, and marks at what it had to be and tried to be."""
    figure, axes = pyplot.subplots(figsize=(9, 4))
    places = range(len(goals), 0, -1)
    ratios = [goal["ratio"] for goal in goals]
    singles = [goal["ratios"] or [goal["ratio"]] for goal in goals]
    below = [max(ratio - min(single), 0) for ratio, single in zip(ratios, singles, strict=True)]
    above = [max(max(single) - ratio, 0) for ratio, single in zip(ratios, singles, strict=True)]
    axes.barh(places, ratios, xerr=(below, above), color="tab:blue", alpha=0.5, height=0.6)
    axes.plot([goal["least"] for goal in goals], places, "|", color="tab:red", markersize=18, label="at least")
    axes.plot([goal["aim"] for goal in goals], places, "|", color="tab:green", markersize=18, label="aim")
    axes.axvline(1, color="black", linewidth=0.5)
    names = [f"{goal['in_flight']}, {goal['workload']} / {goal['theirs']}" for goal in goals]
    axes.set_yticks(places, names, fontsize=8)
    axes.set(xscale="log", xlabel="utcp / the other", title=title)
    axes.legend(fontsize=7)
    return figure


def draw_rates(pyplot: Any, contests: list[dict[str, Any]], title: str) -> Any:
    """Over the number in flight."""
    series: Series = {}
    for contest in contests:
        for row in contest["rows"]:
            series.setdefault(row["name"], []).append((contest["in_flight"], row["rate"]))
    figure, axes = pyplot.subplots(figsize=(9, 5))
    plot_series(pyplot, axes, series)
    axes.set(xscale="log", yscale="log", xlabel="in flight", ylabel="lifecycles/s", title=title)
    counts = sorted({contest["in_flight"] for contest in contests})
    axes.set_xticks(counts, map(str, counts))
    axes.minorticks_off()
    return figure


def draw_live(pyplot: Any, rows: list[dict[str, Any]], title: str) -> Any:
    """Over the number of idle connections or TIME-WAIT records there are."""
    series: Series = {}
    for row in rows:
        series.setdefault(f"beside {row['kind']}", []).append((row["live"], row["us per lifecycle"]))
    figure, axes = pyplot.subplots(figsize=(9, 3))
    plot_series(pyplot, axes, series)
    counts = sorted({row["live"] for row in rows})
    axes.set_xscale("symlog", linthresh=max(counts[:2]) or 1)
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    highest = 1.2 * max(row["us per lifecycle"] for row in rows)
    axes.set(xlabel="so many", ylabel="us/lifecycle", title=title, ylim=(0, highest))
    return figure


def plot_series(pyplot: Any, axes: Any, series: Series) -> None:
    axes.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
    for name, points in series.items():
        style = "--" if name.startswith("kernel") else "-"
        axes.plot(*zip(*sorted(points), strict=True), style, marker="o", markersize=3, label=name)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
