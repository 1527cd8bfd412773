"""An asyncio program in a simulated network: clients upload over bad links to a server that crashes and comes back.

Nothing here knows that it is simulated but `experiment`. Time is virtual, so minutes pass in a moment, and
everything follows from the seed: the same one prints the same digest.

    python examples/simulated.py
    python examples/simulated.py --seed 2 --loss 0.2 --clients 50 --segments
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import time

import utcp
from utcp.sim import Network, run

PORT = 9000
SIZE = 100_000  # bytes each client uploads


async def serve() -> None:
    """Answer each upload with its digest, when the client's FIN says that it is complete."""

    async def answer(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        try:
            writer.write(hashlib.sha256(await reader.read()).digest())
            writer.close()
            await writer.wait_closed()
        except OSError:
            pass  # that client will try again

    async with await utcp.start_server(answer, None, PORT, config=patience()) as server:
        await server.serve_forever()


async def upload(data: bytes) -> int:
    """Upload until the server confirms it. Returns how many connections that took."""
    tries = 0
    while True:
        tries += 1
        try:
            reader, writer = await utcp.open_connection("server", PORT, config=patience())
            writer.write(data)
            writer.write_eof()
            digest = await reader.read()
            writer.close()
            await writer.wait_closed()
        except OSError:
            await asyncio.sleep(1)
            continue
        if digest == hashlib.sha256(data).digest():
            return tries


def patience() -> utcp.Config:
    """Keepalive finds out a peer that has vanished while there is nothing to retransmit."""
    return utcp.Config(keepalive=True, keepalive_idle=5.0, keepalive_interval=1.0, connect_timeout=10.0)


def experiment(network: Network, clients: int) -> None:
    """The hosts, the links, the crash."""
    server = network.host("server")
    hosts = [network.host(f"client{number}") for number in range(clients)]
    for number, host in enumerate(hosts):
        network.link(host, server, delay=0.005 * (number + 1), rate=1e6)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server.start(serve)
        await asyncio.sleep(0.1)
        tasks = [host.start(upload(bytes([number % 256]) * SIZE)) for number, host in enumerate(hosts)]
        loop.call_later(0.5, server.crash)
        loop.call_later(3.0, server.restart, serve)
        tries = await asyncio.gather(*tasks)
        print(f"{clients} uploads of {SIZE:,} bytes confirmed after {loop.time():.1f} s")
        print(f"connections each took: {', '.join(map(str, tries))}")
        await asyncio.sleep(3600)  # waiting costs nothing: TIME-WAIT runs out, everything is forgotten

    run(main, network=network)


def main() -> None:
    parser = argparse.ArgumentParser(description="Uploads over a bad simulated network to a server that crashes.")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--loss", type=float, default=0.05, metavar="P", help="of each segment (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--segments", action="store_true", help="print the last 100 segments")
    args = parser.parse_args()
    network = Network(args.seed, jitter=0.002, loss=args.loss, duplicate=0.01, reorder=0.01)
    began = time.perf_counter()
    experiment(network, args.clients)
    print(f"{network.now / 1e9:,.0f} virtual seconds in {time.perf_counter() - began:.1f} real ones")
    print(f"segments: {', '.join(f'{count:,} {fate}' for fate, count in sorted(network.counts.items()))}")
    sent = [(packet.sent_at, packet.src, packet.payload, packet.fate) for packet in network.trace]
    print(f"digest of the run: {hashlib.sha256(repr(sent).encode()).hexdigest()[:16]}")
    if args.segments:
        print(network.ladder())


if __name__ == "__main__":
    main()
