"""What a reader of a comparison's figures has to know of where they were made."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.teardown import header

PACKAGES = ("asyncio-utcp", "uvloop", "aioquic", "qh3", "pyenet", "aiortc")
CPUINFO, MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
MAX_TW_BUCKETS = Path("/proc/sys/net/ipv4/tcp_max_tw_buckets")


def about(tables: list[dict[str, Any]], load: float | None) -> dict[str, Any]:
    """The machine, with its load when the run began; the kernel; what is installed and how it runs."""
    return {
        **header(),
        **machine(),
        "load": load,
        "versions": versions(),
        "kernel_max_time_wait": max_time_wait(),
        **installed(tables),
    }


def installed(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """What the processes said of themselves: all Python ones of their garbage collection, utcp's of the rest."""
    rows = [row for table in tables for row in table["rows"]]
    collections: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    for row in rows:
        for side in (row["client"], row["server"]):
            if "gc" in side and side["gc"] not in collections:
                collections.append(side["gc"])
        if "compiled" in row["client"] and not row["workload"]["interpreted"]:
            found |= {name: row["client"][name] for name in ("compiled", "receive_buffer", "timestamps", "sack")}
    return {**found, "gc": collections}


def machine() -> dict[str, Any]:
    """Processor and bytes of memory, where the system tells."""
    found: dict[str, Any] = {}
    try:
        models = [line.partition(":")[2].strip() for line in CPUINFO.read_text().splitlines() if "model name" in line]
        found["processor"] = models[0]
        found["memory"] = int(MEMINFO.read_text().split("MemTotal:")[1].split()[0]) * 1024
    except (OSError, LookupError):
        pass
    return found


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def max_time_wait() -> int | None:
    try:
        return int(MAX_TW_BUCKETS.read_text())
    except OSError:
        return None
