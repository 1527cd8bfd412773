"""What an idle connection costs: engine, look-up tables and timers included."""

from __future__ import annotations

import gc
import tracemalloc

from utcp.core.engine import Engine

CONNECTIONS = 10_000


def test_an_idle_connection_takes_less_than_3_kB() -> None:
    client, server = Engine(), Engine()
    out = client.path("client", "server")
    back = server.path("server", "client")
    listener = server.listen(80, backlog=CONNECTIONS)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        held = [client.connect(out, 80, now) for now in range(CONNECTIONS)]
        for _ in range(2):
            for train in client.transmit(CONNECTIONS):
                server.receive(back, train.payload(), CONNECTIONS, train.segment_size)
            for train in server.transmit(CONNECTIONS):
                client.receive(out, train.payload(), CONNECTIONS, train.segment_size)
        while accepted := listener.accept():
            held.append(accepted)
        client.ready(), server.ready()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(held) == 2 * CONNECTIONS
    # The packed tables (timers) are outside tracemalloc's sight
    tables = client.stack.wheel.memory() + server.stack.wheel.memory()
    assert (after - before + tables) / len(held) < 3000
