"""Receive buffers that grow to what the path carries, and send buffers that bound what is in flight."""

from __future__ import annotations

import pytest

from support.transfer import Transfer
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.sim import Network
from utcp.wire.seq import seq_le

INITIAL, MOST = Config().initial_receive_buffer, Config().max_receive_buffer


def receiver(transfer: Transfer) -> Connection:
    (connection,) = transfer.network.hosts["server"].engine.connections()
    return connection


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize(("rate", "rtt"), [(100e6, 0.1), (20e6, 0.5)])
def test_the_window_hardly_limits_a_long_path(rate: float, rtt: float, timestamps: bool) -> None:
    """A bandwidth-delay product of 1.25 MB, which slow start reaches as fast as with a window without bounds."""

    def time_of(config: Config) -> int:
        network = Network(delay=rtt / 2, rate=rate, queue=round(rate * rtt / 8), record=False)
        transfer = Transfer(network, config, mtu=9000)
        network.run_until(lambda: transfer.received > 6_000_000)
        return network.now

    assert time_of(Config(timestamps=timestamps)) < 1.08 * time_of(
        Config(timestamps=timestamps, receive_buffer=1 << 24)
    )


def test_the_edge_of_a_growing_window_never_moves_left() -> None:
    """SHLD-14, while the buffer grows, is fixed at less than it has grown to, and let go again."""
    network = Network(delay=0.025, rate=100e6, record=False)
    transfer = Transfer(network, Config())
    network.run_until(lambda: transfer.received > 0)
    conn = receiver(transfer)
    sizes, edge = set(), conn.rcv_adv
    for fixed in (-1, INITIAL, None):
        if fixed != -1:
            conn.set_option("receive_buffer", fixed, network.now)
        for _ in range(60):
            network.run_for(0.01)
            assert seq_le(edge, conn.rcv_adv)
            edge = conn.rcv_adv
            sizes.add(conn.info().receive_buffer)
    assert sizes >= {INITIAL, max(sizes)} and max(sizes) > 4 * INITIAL
    assert network.hosts["server"].engine.counters.drops == {}


def test_a_buffer_of_a_byte_may_grow() -> None:
    network = Network(delay=0.01, record=False)
    transfer = Transfer(network, Config(initial_receive_buffer=1))
    network.run_until(lambda: transfer.received > 1_000)
    assert receiver(transfer).info().receive_buffer > 1


def test_it_stays_small_on_a_short_path() -> None:
    """5 Mbit/s times 20 ms are 12.5 kB, and as much in the queue."""
    network = Network(delay=0.01, rate=5e6, queue=12_500, record=False)
    transfer = Transfer(network, Config())
    network.run_for(5)
    assert INITIAL <= receiver(transfer).info().receive_buffer < MOST / 10
    assert receiver(transfer).info().rcv_rtt == pytest.approx(0.03, abs=0.01)  # half of the queue is full


def test_it_follows_a_path_that_becomes_longer() -> None:
    """Of what is read in the round trip of before it would hold too little for the one of now."""
    network = Network(delay=0.005, rate=100e6, record=False)
    transfer = Transfer(network, Config(), mtu=9000)
    network.run_for(1)
    before = receiver(transfer).info()
    assert before.rcv_rtt is not None and before.rcv_rtt < 0.04  # 262,144 bytes of queue
    network.delay = 0.1
    network.run_for(4)
    after = receiver(transfer).info()
    assert after.rcv_rtt == pytest.approx(0.2, rel=0.1)
    assert after.receive_buffer > 2 * transfer.connection.info().cwnd


def test_a_buffer_that_is_set_is_not_touched() -> None:
    network = Network(delay=0.1, rate=100e6, record=False)
    transfer = Transfer(network, Config(receive_buffer=200_000), mtu=9000)
    network.run_for(2)
    assert receiver(transfer).info().receive_buffer == 200_000
    assert transfer.rate(1) == pytest.approx(200_000 * 8 / 0.2, rel=0.05)


def test_a_slow_reader_does_not_make_it_grow() -> None:
    """However fast the peer sends: what counts is what was read. 10 kB each 50 ms over a path of 50 ms."""
    network = Network(delay=0.025, rate=1e9, record=False)
    transfer = Transfer(network, Config())
    transfer.reads = False
    network.run_for(1)
    conn = receiver(transfer)
    for _ in range(100):
        assert conn.receive(10_000)
        network.hosts["server"].pump()
        network.run_for(0.05)
    assert conn.info().receive_buffer == INITIAL
    assert conn.readable_bytes <= INITIAL


def test_no_buffer_grows_while_others_hold_all_the_memory() -> None:
    network = Network(delay=0.025, rate=1e8, record=False)
    transfer = Transfer(network, Config(max_memory=INITIAL // 2))
    client, server = network.hosts["client"], network.hosts["server"]
    server.listen(81, accept=lambda connection: lambda connection, bits: None)  # nobody reads
    hog = client.connect(server, 81)
    network.run_until(lambda: hog.state.name == "ESTABLISHED")
    hog.send(bytes(INITIAL), network.now)
    network.run_for(0.3)
    reading, other = sorted(server.engine.connections(), key=lambda connection: connection.local_port)
    assert other.readable_bytes > 0
    assert server.engine.memory <= INITIAL // 2 + 4 * 1452
    received, size = transfer.received, reading.info().receive_buffer
    network.run_for(2)
    assert transfer.received > received + 50_000
    assert reading.info().receive_buffer == size < 2 * INITIAL
    other.abort(network.now)
    network.run_for(2)
    assert reading.info().receive_buffer > 2 * size


def test_pauses_of_the_sender_do_not_pass_for_round_trips() -> None:
    """100 kB a second, at once each, over 10 ms: of a round trip of a second the buffer would have to hold more."""
    network = Network(delay=0.005, rate=1e9, record=False)
    transfer = Transfer(network, Config(), endless=False)
    for _ in range(30):
        transfer.connection.send(bytes(100_000), network.now)
        network.hosts["client"].pump()
        network.run_for(1)
    assert transfer.received == 3_000_000
    assert receiver(transfer).info().receive_buffer <= 4 * 100_000 + 16 * 1452
    assert receiver(transfer).info().rcv_rtt == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize("bound", [300_000, MOST])
def test_what_is_in_flight_grows_with_the_congestion_window_up_to_the_send_buffer(bound: int) -> None:
    network = Network(delay=0.05, rate=100e6, queue=10_000_000, record=False)
    transfer = Transfer(network, Config(receive_buffer=1 << 24, send_buffer=bound), mtu=9000)
    most = 0
    for _ in range(75):
        network.run_for(0.02)
        info = transfer.connection.info()
        most = max(most, info.bytes_in_flight)
        assert info.bytes_in_flight <= bound
    assert most > min(bound - info.snd_mss, 1_500_000)
