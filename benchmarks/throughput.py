"""How many bits per second one process sends to another, over utcp, kernel TCP and QUIC (aioquic).

    python -m benchmarks.throughput --seconds 3 --json

Bulk on the loopback interface through asyncio's Protocol: the client writes whenever it may, the server counts what
it is handed. The peers take turns in several rounds; the figures are medians over the rounds, and ratios are of
medians: above 1 means that utcp is faster. Both processes and the kernel share the machine's processors.
"""

from __future__ import annotations

import sys

from benchmarks.transfer import Benchmark

THROUGHPUT = Benchmark(
    name="throughput",
    doc=__doc__,
    kind="bulk",
    size=65_536,
    figure=lambda p: p["rate"] * 8 / 1e9,
    unit="Gbit/s",
    rows=[
        ("CPU/GB, both sides", lambda p: f"{p['cpu_us_per_lifecycle'] * 1000:,.2f} s"),
        ("segments/MB", lambda p: f"{p['segments_per_lifecycle'] * 1e6:,.1f}" if p["segments_per_lifecycle"] else "-"),
        ("retransmissions", lambda p: f"{p['retransmissions']:,}"),
        ("peak memory client", lambda p: f"{p['peak_rss_client'] / 2**20:,.0f} MiB"),
        ("peak memory server", lambda p: f"{p['peak_rss_server'] / 2**20:,.0f} MiB"),
        ("errors, unfinished", lambda p: f"{p['errors']}, {p['unfinished']}"),
    ],
)

if __name__ == "__main__":
    sys.exit(THROUGHPUT.main())
