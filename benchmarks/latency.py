"""How long a small request and its answer take between two processes, over utcp, kernel TCP and QUIC (aioquic).

    python -m benchmarks.latency --seconds 3 --json

One request at a time on each connection, on the loopback interface, through asyncio's Protocol. The peers take turns
in several rounds; the figures are medians over the rounds, and ratios are of medians: below 1 means that utcp
answers sooner.
"""

from __future__ import annotations

import sys

from benchmarks.transfer import Benchmark

LATENCY = Benchmark(
    name="latency",
    doc=__doc__,
    kind="request",
    size=64,
    figure=lambda p: p["p50_us"],
    unit="us, p50",
    rows=[
        ("p99", lambda p: f"{p['p99_us']:,.0f} us"),
        ("requests/s", lambda p: f"{p['rate']:,.0f}"),
        ("CPU/request, both sides", lambda p: f"{p['cpu_us_per_lifecycle']:,.1f} us"),
        ("segments/request", lambda p: f"{p['segments_per_lifecycle']:.2f}" if p["segments_per_lifecycle"] else "-"),
        ("retransmissions", lambda p: f"{p['retransmissions']:,}"),
        ("errors, unfinished", lambda p: f"{p['errors']}, {p['unfinished']}"),
    ],
)

if __name__ == "__main__":
    sys.exit(LATENCY.main())
