"""Opening a connection: RFC 9293 3.5, 3.10.1, 3.10.7.1 to 3.10.7.3, and SYN-RECEIVED."""

from __future__ import annotations

import pytest

from support.script import A_ADDRESS, A_MSS, B_ADDRESS, Script
from support.states import established, listen, syn_received, syn_sent
from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.core.observer import Observer
from utcp.core.states import CONNECTED, READABLE, State
from utcp.sim import Network
from utcp.wire.segment import SYN, decode


def test_active_open() -> None:
    s = Script()
    s.connect()
    s.expect_state(State.SYN_SENT)
    s.expect(f"S seq=a-1 ack=0 mss={A_MSS} sackok ws=* ts=*/0")
    s.recv("S. seq=b-1 ack=a mss=1000")
    s.expect(". seq=a ack=b")
    s.expect_state(State.ESTABLISHED)
    assert s.events() & CONNECTED
    assert not s.conn.passive
    assert s.visited() == ["SYN-SENT", "ESTABLISHED"]


def test_passive_open() -> None:
    s = listen()
    assert s.listener is not None
    s.recv("S seq=b-1 mss=1000")
    s.expect(f"S. seq=a-1 ack=b mss={A_MSS}")
    s.embryo()
    s.expect_state(State.SYN_RECEIVED)
    assert s.listener.pending == 0 and s.listener.accept() is None
    s.recv(". seq=b ack=a")
    assert s.engine.ready_listeners() == [s.listener]
    conn = s.accept()
    s.expect_state(State.ESTABLISHED)
    assert conn.take_ready() & CONNECTED
    assert conn.passive and conn.listener is s.listener
    assert (conn.local_port, conn.remote_port) == (s.a_port, s.b_port)


@pytest.mark.parametrize("passive", [False, True], ids=["active", "passive"])
def test_both_opens_across_the_wrap_of_sequence_numbers(passive: bool) -> None:
    s = established(passive=passive, a_iss=0xFFFFFFFF, b_iss=0xFFFFFFFF)
    assert s.seq("a") == s.seq("b") == 0
    s.send(b"x")
    s.expect("P. seq=0 ack=0 len=1")


def test_MUST_10_simultaneous_open_answered_by_syn_ack() -> None:
    """RFC 9293 Figure 8: both SYNs cross, then both SYN,ACKs do."""
    s = syn_sent()
    s.recv("S seq=b-1 mss=1000")
    s.expect("S. seq=a-1 ack=b *")
    s.expect_state(State.SYN_RECEIVED)
    s.recv("S. seq=b-1 ack=a mss=1000")
    s.take()  # an ACK is allowed here (3.10.7.4, first), and not needed
    s.expect_state(State.ESTABLISHED)
    assert s.visited() == ["SYN-SENT", "SYN-RECEIVED", "ESTABLISHED"]
    s.send(b"hello")
    s.expect("P. seq=a ack=b len=5")


def test_MUST_10_simultaneous_open_answered_by_ack() -> None:
    s = syn_received(passive=False)
    s.recv(". seq=b ack=a")
    s.expect_state(State.ESTABLISHED)


def test_the_first_data_may_come_with_the_last_ack_of_the_handshake() -> None:
    s = syn_received()
    s.recv("P. seq=b ack=a", b"hello")
    s.accept()
    assert s.conn.take_ready() & (CONNECTED | READABLE) == CONNECTED | READABLE
    assert s.read() == b"hello"
    s.expect_after(0.04, ". seq=a ack=b+5")


def test_data_may_come_with_the_syn_ack() -> None:
    s = syn_sent()
    s.recv("S. seq=b-1 ack=a mss=1000", b"hello")
    (ack,) = s.take()
    assert s.seq("b") <= ack.seg.ack <= s.seq("b+5")
    if ack.seg.ack == s.seq("b"):  # not taken, so B has to repeat it
        s.recv("P. seq=b ack=a", b"hello")
        s.expect_after(0.04, ". seq=a ack=b+5")
    assert s.read() == b"hello"


def test_data_with_a_syn_is_delivered_once_and_after_the_handshake() -> None:
    """RFC 9293 3.10.7.2, third: it may be queued, or left to the peer to repeat."""
    s = listen()
    s.recv("S seq=b-1 mss=1000", b"hello")
    (syn_ack,) = s.take()
    taken = syn_ack.seg.ack - s.seq("b")
    assert taken in (0, 5)
    s.embryo()
    s.recv(f"P. seq=b+{taken} ack=a", b"hello"[taken:] + b"!")
    s.accept()
    assert s.read() == b"hello!"
    s.expect_after(0.04, ". seq=a ack=b+6")


def test_data_written_before_the_handshake_leaves_with_its_last_ack() -> None:
    s = syn_sent()
    s.send(b"hello")
    s.silent()
    s.recv("S. seq=b-1 ack=a mss=1000")
    s.expect("P. seq=a ack=b", b"hello")


@pytest.mark.parametrize("ack", ["a-1", "a+1", "a-100000", "0"])
def test_SYN_SENT_an_ack_of_what_was_never_sent_is_reset(ack: str) -> None:
    """3.10.7.3, first: unless it is a RST, `<SEQ=SEG.ACK><CTL=RST>`, with or without a SYN."""
    s = syn_sent()
    s.recv(f"S. seq=b-1 ack={ack} mss=1000")
    s.expect(f"R seq={ack}")
    s.recv(f". seq=b ack={ack}")
    s.expect(f"R seq={ack}")
    s.recv(f"R. seq=b ack={ack}")
    s.expect_state(State.SYN_SENT)


def test_SYN_SENT_an_acceptable_ack_alone_says_nothing() -> None:
    """3.10.7.3, fifth."""
    s = syn_sent()
    s.recv(". seq=b ack=a")
    s.recv("P. seq=b ack=a len=5")
    s.recv("F. seq=b ack=a")
    s.expect_state(State.SYN_SENT)


def test_SYN_RECEIVED_a_wrong_ack_is_reset() -> None:
    """3.10.7.4, fifth: `<SEQ=SEG.ACK><CTL=RST>`; the connection stays."""
    s = syn_received()
    for ack in ("a-1", "a+1"):
        s.recv(f". seq=b ack={ack}")
        s.expect(f"R seq={ack}")
    s.expect_state(State.SYN_RECEIVED)


def test_SYN_RECEIVED_a_repeated_syn_is_answered_by_the_syn_ack_again() -> None:
    """The SYN,ACK was lost. A bare ACK (3.10.7.4, first) would not help a peer in SYN-SENT."""
    s = syn_received()
    s.advance(0.5)
    s.recv("S seq=b-1 mss=1000")
    s.expect("S. seq=a-1 ack=b *")
    s.recv(". seq=b ack=a")
    s.expect_state(State.ESTABLISHED)


def test_SYN_RECEIVED_fin_before_accept() -> None:
    s = syn_received()
    s.recv("F. seq=b ack=a")
    s.expect(". seq=a ack=b+1")
    s.accept()
    s.expect_state(State.CLOSE_WAIT)
    assert s.conn.at_eof
    assert s.visited() == ["SYN-RECEIVED", "ESTABLISHED", "CLOSE-WAIT"]


@pytest.mark.parametrize("flags", ["F", "P", "U", "none"])
@pytest.mark.parametrize("make", [listen, syn_sent], ids=["LISTEN", "SYN-SENT"])
def test_neither_syn_nor_ack_nor_rst_is_dropped(make: object, flags: str) -> None:
    """3.10.7.2, fourth; 3.10.7.3, fifth."""
    assert callable(make)
    s = make()
    s.recv(f"{flags} seq=b len=1")
    assert s.recorder.drops


def test_LISTEN_an_ack_is_reset() -> None:
    """3.10.7.2, second."""
    s = listen()
    for flags in (".", "S.", "F.", "P."):
        s.recv(f"{flags} seq=b ack=a+77 len=3")
        s.expect("R seq=a+77")
    s.expect_state(State.CLOSED)


def test_a_listener_has_a_backlog() -> None:
    s = Script()
    s.listen(backlog=2)
    for port in (1, 2):
        s.recv("S seq=b-1 mss=1000", port=port)
        s.expect("S. seq=a-1 ack=b *", port=port)
        s.recv(". seq=b ack=a", port=port)
    s.recv("S seq=b-1 mss=1000", port=3)
    s.silent()
    s.accept()
    s.recv("S seq=b-1 mss=1000", port=3)
    s.expect("S. seq=a-1 ack=b *", port=3)


def test_MUST_42_many_connections_on_one_port() -> None:
    s = listen()
    for port in range(1, 200):
        s.recv("S seq=b-1 mss=1000", port=port)
        s.expect("S. seq=a-1 ack=b *", port=port)
        s.recv(". seq=b ack=a", port=port)
        assert s.accept().remote_port == port
    assert s.engine.states()[State.ESTABLISHED] == 199


def test_a_listener_may_be_opened_beside_its_connections() -> None:
    """MUST-41: a passive OPEN does not interfere with connections on that port."""
    s = established()
    s.listen()
    s.recv("S seq=b-1 mss=1000", port=77)
    s.expect("S. seq=a-1 ack=b *", port=77)
    s.recv("P. seq=b ack=a", b"x")
    assert s.read() == b"x"
    s.expect_after(0.04, ". seq=a ack=b+1")


def test_X_10_another_udp_port_is_another_path() -> None:
    s = established()
    elsewhere = s.engine.path(A_ADDRESS, (B_ADDRESS[0], B_ADDRESS[1] + 1))
    s.recv("P. seq=b ack=a len=5", path=elsewhere)
    s.expect("R seq=a", path=elsewhere)  # to that path it is CLOSED
    s.recv("R. seq=b ack=a", path=elsewhere)
    s.expect_state(State.ESTABLISHED)
    assert s.conn.readable_bytes == 0


def test_X_13_connecting_to_oneself_is_a_simultaneous_open() -> None:
    net = Network(delay=0.01)
    states: list[str] = []

    class Watcher(Observer):
        def state_change(self, now: int, path: int, local_port: int, remote_port: int, old: State, new: State) -> None:
            states.append(str(new))

    host = net.host("a", observer=Watcher())
    conn = host.connect(host, 80, local_port=80)
    assert net.run_until(lambda: conn.state == State.ESTABLISHED, limit=10)
    conn.send(b"echo", net.now)
    assert net.run_until(lambda: conn.readable_bytes == 4, limit=10)
    assert conn.receive() == b"echo"
    conn.close(net.now)
    assert net.run_to_the_end()
    assert conn.closed and conn.error is None
    assert not any(host.engine.states().values())
    opened = ["SYN-SENT", "SYN-RECEIVED", "ESTABLISHED"]
    assert states == [*opened, "FIN-WAIT-1", "CLOSING", "TIME-WAIT", "CLOSED"]


class TestInitialSequenceNumbers:
    """RFC 6528: a clock of 4 us ticks plus a keyed function of the four-tuple."""

    @staticmethod
    def iss(secret: bytes, now: int, local_port: int = 1000, remote_port: int = 2000, peer: str = "b") -> int:
        engine = Engine(secret=secret)
        engine.connect(engine.path("a", peer), remote_port, now, local_port=local_port)
        (train,) = engine.transmit(now)
        syn = decode(train.payload())
        assert syn.flags == SYN
        return int(syn.seq)

    @pytest.mark.parametrize("now", [0, 10**18])
    def test_MUST_8_it_rises_by_250_000_in_a_second(self, now: int) -> None:
        rise = self.iss(b"k" * 16, now + 10**9) - self.iss(b"k" * 16, now)
        assert rise % 2**32 == 250_000

    def test_MUST_9_it_depends_on_the_secret_and_each_part_of_the_tuple(self) -> None:
        numbers = {
            self.iss(b"k" * 16, 0),
            self.iss(b"q" * 16, 0),
            self.iss(b"k" * 16, 0, local_port=1001),
            self.iss(b"k" * 16, 0, remote_port=2001),
            self.iss(b"k" * 16, 0, peer="c"),
        }
        assert len(numbers) == 5

    def test_without_a_secret_engines_differ(self) -> None:
        def iss() -> int:
            engine = Engine()
            engine.connect(engine.path("a", "b"), 1, 0, local_port=1)
            return int(decode(engine.transmit(0)[0].payload()).seq)

        assert iss() != iss()


class TestEphemeralPorts:
    """RFC 6056."""

    def test_they_differ_and_are_in_the_dynamic_range(self) -> None:
        engine = Engine(secret=b"k" * 16)
        path = engine.path("a", "b")
        ports = [engine.connect(path, 80, 0).local_port for _ in range(1000)]
        assert len(set(ports)) == 1000
        assert min(ports) >= 1024 and max(ports) <= 65535
        assert ports != sorted(ports)

    def test_they_come_from_the_source_that_was_injected(self) -> None:
        source = iter([5000, 5000, 5001])
        engine = Engine(port_source=lambda: next(source))
        path = engine.path("a", "b")
        assert engine.connect(path, 80, 0).local_port == 5000
        assert engine.connect(path, 80, 0).local_port == 5001  # 5000 is taken

    def test_a_port_in_use_towards_one_peer_serves_another(self) -> None:
        engine = Engine(port_source=lambda: 5000)
        assert engine.connect(engine.path("a", "b"), 80, 0).local_port == 5000
        assert engine.connect(engine.path("a", "c"), 80, 0).local_port == 5000
        assert engine.connect(engine.path("a", "b"), 81, 0).local_port == 5000


def test_connect_timeout_ends_the_attempt() -> None:
    s = Script(Config(connect_timeout=2.5))
    s.connect()
    s.expect("S seq=a-1 *")
    s.expect_after(1, "S seq=a-1 *")
    s.silent_for(1.499_999_999)
    assert not s.conn.closed
    s.silent_for(0.000_000_001)
    s.expect_gone(TimeoutError)
