"""Bounds per engine, each with its counter (docs/engine.md, "Limits"), and options changed while it runs."""

from __future__ import annotations

import errno

import pytest

from support.script import Script
from support.states import established
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine
from utcp.core.states import State
from utcp.sim import Network

JUST = 1e-9


def open_from(s: Script, port: int) -> None:
    """B opens a connection from ``port``, which becomes the one under test."""
    s.recv("S seq=b-1 mss=1000", port=port)
    s.expect("S. seq=a-1 ack=b *", port=port)
    s.recv(". seq=b ack=a", port=port)
    s.accept()


def listening(config: Config) -> Script:
    s = Script(config)
    s.listen()
    return s


class TestConnections:
    def test_a_syn_beyond_them_is_not_answered(self) -> None:
        s = listening(Config(max_connections=2))
        open_from(s, 1)
        open_from(s, 2)
        s.recv("S seq=b-1 mss=1000", port=3)
        s.silent_for(10)
        assert s.engine.counters.connections_refused == 1
        assert s.recorder.drops == ["too-many-connections"]
        s.recv("R seq=b", port=2)
        open_from(s, 3)  # there is room again

    def test_a_connect_beyond_them_says_so(self) -> None:
        engine = Engine(Config(max_connections=1))
        path = engine.path("a", "b")
        first = engine.connect(path, 80, 0)
        with pytest.raises(OSError, match="max_connections") as raised:
            engine.connect(path, 80, 0)
        assert raised.value.errno == errno.ENOBUFS
        assert (engine.connection_count(), engine.counters.connections_refused) == (1, 1)
        first.abort(0)
        engine.connect(path, 80, 0)

    def test_a_record_in_TIME_WAIT_is_not_one_and_stays_when_there_is_no_room(self) -> None:
        s = listening(Config(max_connections=1))
        open_from(s, 1)
        s.close()
        s.expect("F. seq=a ack=b", port=1)
        s.recv("F. seq=b ack=a+1", port=1)
        s.expect(". seq=a+1 ack=b+1", port=1)
        open_from(s, 2)
        s.recv("S seq=b+2 mss=1000", port=1)
        s.silent()
        assert s.engine.states()[State.TIME_WAIT] == 1
        assert s.engine.counters.connections_refused == 1


class TestHalfOpen:
    @pytest.mark.parametrize("cookies", [True, False])
    def test_beyond_them_it_goes_on_with_cookies_or_not_at_all(self, cookies: bool) -> None:
        s = listening(Config(max_half_open=2, syn_cookies=cookies))
        for port in (1, 2):
            s.recv("S seq=b-1 mss=1000", port=port)
            s.expect("S. seq=a-1 ack=b *", port=port)
        s.recv("S seq=b-1 mss=1000", port=3)
        if cookies:
            s.expect("S. ack=b *", port=3)
        s.silent()
        counters = s.engine.counters
        assert s.engine.states() == {State.SYN_RECEIVED: 2, State.LISTEN: 1}
        assert (counters.accept_overflows, counters.syn_cookies_sent) == (1, int(cookies))
        s.recv(". seq=b ack=a", port=1)
        s.recv("S seq=b-1 mss=1000", port=4)
        s.expect("S. seq=a-1 ack=b *", port=4)  # one has been completed: there is room

    def test_of_all_listeners_together(self) -> None:
        engine = Engine(Config(max_half_open=1, syn_cookies=False))
        path = engine.path("a", "b")
        s = Script()
        for port in (80, 81):
            engine.listen(port)
            s.a_port = port
            engine.receive(path, s.segment("S seq=b-1").to_bytes(), 0)
        assert engine.states() == {State.SYN_RECEIVED: 1, State.LISTEN: 2}
        for listener in engine.listeners():
            listener.close(0)
        assert engine.stack.half_open == 0


class TestMemory:
    CONFIG = Config(max_memory=3000, receive_buffer=100_000, max_segment_size=1000, delayed_ack=0)

    def test_beyond_it_two_segments_each(self) -> None:
        """Window and acceptance alike; what is dropped is not acknowledged, so that it comes again, in its time."""
        s = listening(self.CONFIG)
        open_from(s, 1)
        hog = s.conn
        for i in range(3):
            s.recv(f"P. seq=b+{i * 1000} ack=a len=1000", port=1)
            s.take()
        assert s.engine.memory == 3000
        s.recv("P. seq=b+3000 ack=a len=1000", port=1)  # in the window that was promised
        s.expect(". seq=a ack=b+3000 wnd=0", port=1)
        assert (hog.readable_bytes, s.engine.counters.memory_drops) == (3000, 1)
        open_from(s, 2)
        other = s.conn
        for i in range(2):
            s.recv(f"P. seq=b+{i * 1000} ack=a len=1000", port=2)
            s.take()
        s.recv("P. seq=b+2000 ack=a len=1000", port=2)
        s.expect(". seq=a ack=b+2000 wnd=0", port=2)
        assert (other.readable_bytes, s.engine.memory, s.engine.counters.memory_drops) == (2000, 5000, 2)
        assert len(other.receive()) == 2000  # whoever reads gets on
        with s.together():
            pass
        s.expect(". seq=a ack=b+2000 wnd=63535", port=2)
        s.recv("P. seq=b+2000 ack=a len=1000", port=2)
        s.take()
        assert (other.readable_bytes, s.engine.memory) == (1000, 4000)
        assert len(hog.receive()) == 3000
        s.recv("P. seq=b+3000 ack=a len=1000", port=1)
        s.expect(". seq=a ack=b+4000 wnd=65535", port=1)  # the window is as large as it was

    def test_the_window_is_small_while_it_lasts(self) -> None:
        s = listening(self.CONFIG)
        open_from(s, 1)
        for i in range(3):
            s.recv(f"P. seq=b+{i * 1000} ack=a len=1000", port=1)
            s.take()
        s.recv("S seq=b-1 mss=1000", port=2)
        s.expect("S. seq=a-1 ack=b *", port=2)
        s.recv("P. seq=b ack=a len=10", port=2)
        assert s.take()[-1].seg.wnd < 65_535

    def test_a_peer_that_is_told_to_wait_does_for_as_long_as_it_takes(self) -> None:
        """MUST-37: not given up after R2, as one that hears nothing would be."""
        network = Network(1, delay=0.01)
        server = network.host("server", self.CONFIG)
        client = network.host("client")
        accepted: list[Connection] = []
        server.listen(80, accepted.append)
        sending = [client.connect(server, 80) for _ in range(3)]
        network.run_for(1)
        for connection in sending:
            connection.send(bytes(20_000), network.now)
        network.run_for(3600)
        assert server.engine.counters.memory_drops > 0
        assert [connection.error for connection in sending] == [None] * 3
        received = [0, 0, 0]

        def all_arrived() -> bool:
            for i, connection in enumerate(accepted):
                received[i] += len(connection.receive())
            return received == [20_000] * 3

        assert network.run_until(all_arrived), received

    def test_a_buffer_made_smaller_than_a_segment_opens_when_it_is_empty(self) -> None:
        s = established(self.CONFIG)
        for i in range(3):
            s.recv(f"P. seq=b+{i * 1000} ack=a len=1000")
            s.take()
        s.recv("P. seq=b+3000 ack=a len=1000")
        s.expect(". seq=a ack=b+3000 wnd=0")
        with s.together():
            s.conn.set_option("receive_buffer", 512, s.now)
        with s.together():
            assert len(s.conn.receive()) == 3000
        s.expect(". seq=a ack=b+3000 *")
        s.recv("P. seq=b+3000 ack=a len=512")
        s.take()
        assert s.conn.readable_bytes == 512

    def test_what_waits_behind_a_hole_does_not_keep_the_hole_open(self) -> None:
        s = established(self.CONFIG, options="sackok")
        for i in (1000, 2500, 4000):
            s.recv(f"P. seq=b+{i} ack=a len=1000")
            s.take()
        assert s.engine.memory == 3000
        s.recv("P. seq=b ack=a len=1000")
        s.expect(". seq=a ack=b+2000 *")
        assert (s.conn.readable_bytes, s.engine.counters.memory_drops) == (2000, 0)

    def test_out_of_order_data_counts_and_waits_for_nobody(self) -> None:
        s = established(self.CONFIG, options="sackok")
        for i in (5000, 3000, 7000):
            s.recv(f"P. seq=b+{i} ack=a len=1000")
            s.take()
        assert s.engine.memory == 3000
        s.recv("P. seq=b+9000 ack=a len=1000")
        s.silent()
        assert s.engine.counters.memory_drops == 1

    @pytest.mark.parametrize("how", ["abort", "reset", "read", "time-wait", "shutdown"])
    def test_it_is_given_back(self, how: str) -> None:
        s = established(self.CONFIG)
        s.recv("P. seq=b ack=a len=1000")
        s.take()
        s.recv("P. seq=b+2000 ack=a len=600")
        s.take()
        assert s.engine.memory == 1600
        if how == "abort":
            s.abort()
        elif how == "reset":
            s.recv("R. seq=b+1000 ack=a")
        elif how == "read":
            s.read()
        elif how == "shutdown":
            s.shutdown(0)
        else:
            s.shutdown()
            s.take()
            s.recv("P. seq=b+1000 ack=a+1 len=1000")
            s.take()
            s.recv("F. seq=b+2600 ack=a+1")
        s.take()
        assert s.engine.memory == (600 if how in ("read", "shutdown") else 0)
        assert s.conn.readable_bytes == {"read": 0, "shutdown": 0, "time-wait": 2600}.get(how, 1000)


class TestOptionsAtRunTime:
    """T-14: MSL, and everything else."""

    def test_T_14_for_living_connections_and_new_ones_not_for_records(self) -> None:
        s = listening(Config(msl=30))

        def end(port: int) -> None:
            s.close()
            s.expect("F. seq=a ack=b", port=port)
            s.recv("F. seq=b ack=a+1", port=port)
            s.expect(". seq=a+1 ack=b+1", port=port)

        open_from(s, 1)
        end(1)  # 60 s
        open_from(s, 2)  # closed after the change
        s.engine.set_option("msl", 5.0, s.now)
        end(2)
        open_from(s, 3)  # opened after it, on the same listener
        end(3)
        for wait, left in ((10, 1), (50, 0)):
            s.silent_for(wait - JUST)
            assert s.engine.states()[State.TIME_WAIT] > left
            s.silent_for(JUST)
            assert s.engine.states().get(State.TIME_WAIT, 0) == left

    def test_T_14_setting_config_holds_for_what_begins_after_it(self) -> None:
        s = listening(Config(msl=30))
        own = s.engine.listen(7, config=Config(msl=1))
        open_from(s, 1)
        s.engine.config = Config(msl=5)
        first = s.conn
        open_from(s, 2)
        assert [conn.policy.config.msl for conn in (first, s.conn)] == [30, 5]
        assert own.policy.config.msl == 1

    def test_a_lower_cap_evicts_at_once(self) -> None:
        s = listening(Config())
        for port in (1, 2, 3):
            open_from(s, port)
            s.close()
            s.expect("F. seq=a ack=b", port=port)
            s.recv("F. seq=b ack=a+1", port=port)
            s.expect(". seq=a+1 ack=b+1", port=port)
            s.advance(1)
        s.engine.set_option("max_time_wait", 1, s.now)
        assert s.engine.states()[State.TIME_WAIT] == 1
        assert s.engine.counters.time_wait_evicted == 2
        s.recv("F. seq=b ack=a+1", port=3)
        s.expect(". seq=a+1 ack=b+1", port=3)  # the youngest is left

    def test_what_is_wrong_changes_nothing(self) -> None:
        s = established(Config(rto_min=0.5))
        s.set_option("rto_min", 3.0)
        before = s.engine.config, s.conn.policy
        for name, value, error in (
            ("msl", -1.0, ValueError),
            ("msl", "30", TypeError),
            ("no_such_option", 1, ValueError),
            ("rto_max", 2.0, ValueError),  # good for the engine, less than the connection's own rto_min
        ):
            with pytest.raises(error, match=name):
                s.engine.set_option(name, value, s.now)
        assert (s.engine.config, s.conn.policy) == before
