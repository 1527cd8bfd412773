"""User calls that are wrong raise at once and change nothing; right ones say what they did (docs/engine.md)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from support import states
from support.script import A_ADDRESS, B_ADDRESS, Script
from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.core.states import CLOSED_BIT, CONNECTED, READABLE, State


def picture(engine: Engine) -> object:
    """All that a failed call must not have changed."""
    return (
        {state: n for state, n in engine.states().items() if n},
        [repr(connection) for connection in engine.connections()],
        engine.next_timeout(),
        engine.pending(),
        engine.counters.as_dict(),
    )


class TestEngine:
    @pytest.mark.parametrize("port", [0, -1, 65_536, 10**10])
    def test_ports_out_of_range(self, port: int) -> None:
        engine = Engine()
        path = engine.path("a", "b")
        before = picture(engine)
        with pytest.raises(ValueError, match="port"):
            engine.connect(path, port, 0)
        with pytest.raises(ValueError, match="port"):
            engine.listen(port)
        if port != 0:
            with pytest.raises(ValueError, match="local_port"):
                engine.connect(path, 80, 0, local_port=port)
        assert picture(engine) == before

    @pytest.mark.parametrize("port", ["80", None, 80.5])
    def test_ports_that_are_no_numbers(self, port: object) -> None:
        engine = Engine()
        path = engine.path("a", "b")
        before = picture(engine)
        with pytest.raises(TypeError):
            engine.connect(path, port, 0)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            engine.listen(port)  # type: ignore[arg-type]
        assert picture(engine) == before

    @pytest.mark.parametrize("path", [-1, 1, 99])
    def test_connecting_on_an_unknown_path(self, path: int) -> None:
        engine = Engine()
        engine.path("a", "b")
        before = picture(engine)
        with pytest.raises(ValueError, match="path"):
            engine.connect(path, 80, 0)
        assert picture(engine) == before

    def test_the_addresses_of_an_unknown_path(self) -> None:
        with pytest.raises(KeyError):
            Engine().path_addresses(3)

    def test_a_pair_of_ports_in_use(self) -> None:
        s = states.established()
        before = picture(s.engine)
        with pytest.raises(OSError, match=str(s.a_port)) as raised:
            s.connect()
        assert raised.value.errno == errno.EADDRINUSE
        assert picture(s.engine) == before

    def test_a_port_that_has_a_listener(self) -> None:
        s = states.listen()
        before = picture(s.engine)
        with pytest.raises(OSError, match=str(s.a_port)) as raised:
            s.listen()
        assert raised.value.errno == errno.EADDRINUSE
        assert picture(s.engine) == before
        assert s.listener is not None
        s.engine.listeners()[0].close(s.now)
        s.listen()

    @pytest.mark.parametrize("backlog", [0, -1])
    def test_a_backlog_for_nobody(self, backlog: int) -> None:
        with pytest.raises(ValueError, match="backlog"):
            Engine().listen(80, 0, backlog)

    def test_a_secret_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="secret"):
            Engine(secret=b"short")

    def test_paths_are_interned(self) -> None:
        engine = Engine()
        path = engine.path(A_ADDRESS, B_ADDRESS)
        assert engine.path(A_ADDRESS, B_ADDRESS) == path
        assert engine.path(B_ADDRESS, A_ADDRESS) != path
        assert engine.path_addresses(path) == (A_ADDRESS, B_ADDRESS)

    def test_the_number_of_a_path_stays_good_while_it_is_used(self) -> None:
        """However many others come and go: those are forgotten."""
        s = states.established()
        waiting = states.time_wait()
        for script in (s, waiting):
            for n in range(20_000):
                script.engine.path(A_ADDRESS, n)
                if n % 5000 == 0:
                    script.silent_for(2)
                    script.engine.handle_timeout(script.now)  # tells it the time
            assert script.engine.path_addresses(script.path) == (A_ADDRESS, B_ADDRESS)
            assert script.engine.path(A_ADDRESS, B_ADDRESS) == script.path
            assert script.engine.counters.paths_released > 5000
        s.recv("P. seq=b ack=a len=1")
        assert s.conn.readable_bytes == 1
        s.expect_after(0.04, ". seq=a ack=b+1")
        waiting.recv("F. seq=b ack=a+1")
        waiting.expect(". seq=a+1 ack=b+1")

    def test_a_connection_can_be_looked_up(self) -> None:
        s = states.established()
        assert s.engine.connection(s.path, s.a_port, s.b_port) is s.conn
        assert s.engine.connection(s.path, s.a_port, s.b_port + 1) is None
        assert list(s.engine.connections()) == [s.conn]

    def test_ready_names_each_connection_once(self) -> None:
        s = states.established()
        assert s.engine.ready() == [s.conn]
        assert s.engine.ready() == []
        assert s.conn.take_ready() & CONNECTED
        assert s.conn.take_ready() == 0
        s.recv("P. seq=b ack=a len=1")
        s.recv("P. seq=b+1 ack=a len=1")
        s.take()
        assert s.engine.ready() == [s.conn]
        assert s.conn.take_ready() & READABLE
        s.abort()
        s.take()
        assert s.engine.ready() == [s.conn]
        assert s.conn.take_ready() & CLOSED_BIT

    def test_pending_says_whether_transmit_would_do_something(self) -> None:
        s = states.established()
        assert not s.engine.pending()
        s.conn.send(b"x", s.now)
        assert s.engine.pending()
        assert len(s.engine.transmit(s.now)) == 1
        assert not s.engine.pending()
        assert s.engine.transmit(s.now) == []

    def test_an_observer_may_come_later(self) -> None:
        s = states.established()
        s.engine.observer = None
        s.recv("P. seq=b ack=a len=10")
        assert s.recorder.received == 1
        s.engine.observer = s.recorder
        s.recv("P. seq=b+10 ack=a len=2000")
        s.expect_after(0.04, ". seq=a ack=b+2010")
        assert s.recorder.received == 2

    def test_counters(self) -> None:
        s = states.established(Config(nodelay=True))
        s.send(1500)
        assert len(s.take()) == 2
        s.advance(0.3)
        assert len(s.take()) == 1
        s.recv("P. seq=b ack=a+1500 len=700")
        s.recv_bytes(b"garbage")
        s.recv("R. seq=b+700 ack=a+1500")
        counted = s.engine.counters.as_dict()
        expected = {
            "segments_in": 4,
            "segments_out": 5,
            "bytes_in": 700,
            "bytes_out": 2500,
            "retransmissions": 1,
            "resets_in": 1,
            "resets_out": 0,
            "active_opens": 1,
            "established": 1,
            "drops": {"too-short": 1},
        }
        assert {name: counted[name] for name in expected} == expected
        info = s.conn.info()
        assert (info.segments_in, info.segments_out, info.bytes_received, info.bytes_sent) == (3, 5, 700, 2500)
        assert info.retransmissions == 1

    def test_nothing_is_due_in_an_idle_engine(self) -> None:
        """Deadlines of the past may wake it for nothing, once."""
        s = states.established()
        s.silent_for(5)
        assert s.engine.next_timeout() is None
        s.engine.handle_timeout(s.now)
        s.silent()


class TestConnection:
    @pytest.mark.parametrize("make", [states.fin_wait_1, states.fin_wait_2, states.closing, states.last_ack])
    def test_writing_after_our_end(self, make: Callable[[], Script]) -> None:
        s = make()
        before = picture(s.engine), s.conn.unacked_bytes
        with pytest.raises(BrokenPipeError):
            s.conn.send(b"more", s.now)
        assert (picture(s.engine), s.conn.unacked_bytes) == before

    def test_writing_after_the_teardown(self) -> None:
        for make, error in ((states.time_wait, BrokenPipeError), (aborted, OSError), (reset, ConnectionResetError)):
            s = make()
            before = picture(s.engine)
            with pytest.raises(error):
                s.conn.send(b"more", s.now)
            assert picture(s.engine) == before

    @pytest.mark.parametrize("data", ["text", 5, None, [1, 2]])
    def test_writing_what_is_no_bytes(self, data: object) -> None:
        s = states.established()
        before = picture(s.engine)
        with pytest.raises(TypeError):
            s.conn.send(data, s.now)  # type: ignore[arg-type]
        assert picture(s.engine) == before

    @pytest.mark.parametrize("how", [-1, 3, 100])
    def test_shutting_down_what_there_is_not(self, how: int) -> None:
        s = states.established()
        before = picture(s.engine)
        with pytest.raises(ValueError, match="how"):
            s.conn.shutdown(how, s.now)
        assert picture(s.engine) == before

    @pytest.mark.parametrize(
        ("name", "value", "error"),
        [
            ("no_such_option", 1, ValueError),
            ("rto_initial", 1.0, ValueError),  # there is one, but not for a connection that lives
            ("linger", -1.0, ValueError),
            ("nodelay", 1, TypeError),
            ("r2", "long", TypeError),
            ("max_segment_size", 1, ValueError),
            ("msl", float("nan"), ValueError),
        ],
    )
    def test_options_that_are_wrong(self, name: str, value: object, error: type[Exception]) -> None:
        s = states.established()
        before = picture(s.engine)
        with pytest.raises(error, match=name):
            s.conn.set_option(name, value, s.now)
        assert picture(s.engine) == before

    @pytest.mark.parametrize("make", [states.syn_sent, lambda: states.syn_received(passive=False)])
    def test_sending_and_half_closing_before_the_handshake(self, make: Callable[[], Script]) -> None:
        s = make()
        s.send(b"early")
        s.shutdown()
        s.silent()
        with pytest.raises(BrokenPipeError):
            s.conn.send(b"more", s.now)
        s.recv("S. seq=b-1 ack=a mss=1000" if s.conn.state == State.SYN_SENT else ". seq=b ack=a")
        s.expect("FP. seq=a ack=b", b"early")
        s.expect_state(State.FIN_WAIT_1)

    @pytest.mark.parametrize(
        "make",
        [states.established, states.close_wait, states.fin_wait_2, states.last_ack, states.time_wait, states.syn_sent],
    )
    def test_reading_is_allowed_in_every_state(self, make: Callable[[], Script]) -> None:
        s = make()
        assert s.conn.receive() == b"" and s.conn.receive(5) == b"" and s.conn.peek() == b""
        assert s.conn.receive(0) == b""

    def test_limits_of_reading(self) -> None:
        s = states.established()
        s.recv("P. seq=b ack=a", b"abcdef")
        assert s.conn.receive(0) == b""
        assert s.conn.peek(2) == b"ab" and s.conn.peek() == b"abcdef"
        assert s.conn.receive(2) == b"ab"
        assert s.conn.receive(100) == b"cdef"
        s.advance(0.04)
        s.take()

    @pytest.mark.parametrize(
        "make",
        [
            states.syn_sent,
            states.established,
            states.close_wait,
            states.fin_wait_2,
            states.closing,
            states.last_ack,
            states.time_wait,
        ],
    )
    def test_info_is_a_snapshot(self, make: Callable[[], Script]) -> None:
        s = make()
        info = s.conn.info()
        assert info.state == s.conn.state
        with pytest.raises((AttributeError, TypeError)):
            setattr(info, "state", State.CLOSED)  # noqa: B010  (mypy knows that it cannot be)
        s.abort()
        s.take()
        assert info.state != State.CLOSED

    def test_the_users_slot(self) -> None:
        s = states.established()
        assert s.conn.context is None
        mine = object()
        s.conn.context = mine
        s.abort()
        s.take()
        assert s.conn.context is mine

    def test_the_observer_hears_of_user_calls(self) -> None:
        s = states.syn_sent()
        s.recv("S. seq=b-1 ack=a mss=1000")
        s.take()
        s.send(b"x")
        s.take()
        s.shutdown(socket.SHUT_WR)
        s.take()
        s.close()
        s.abort()
        s.take()
        assert s.recorder.calls == ["connect", "send", "shutdown", "close", "abort"]


class TestListener:
    def test_closing_twice(self) -> None:
        s = states.listen()
        assert s.listener is not None
        s.listener.close(s.now)
        s.listener.close(s.now)
        assert s.listener.closed and s.listener.accept() is None
        assert s.engine.states() == {}

    def test_ready_once_for_what_waits(self) -> None:
        s = states.listen()
        for port in (1, 2):
            s.recv("S seq=b-1 mss=1000", port=port)
            s.expect("S. seq=a-1 ack=b *", port=port)
            s.recv(". seq=b ack=a", port=port)
        assert s.engine.ready_listeners() == [s.listener]
        assert s.engine.ready_listeners() == []
        assert s.listener is not None and s.listener.pending == 2
        assert [s.accept().remote_port, s.accept().remote_port] == [1, 2]
        assert s.listener.accept() is None
        s.recv("S seq=b-1 mss=1000", port=3)
        s.expect("S. seq=a-1 ack=b *", port=3)
        s.recv(". seq=b ack=a", port=3)
        assert s.engine.ready_listeners() == [s.listener]  # and again for the next

    def test_its_connections_take_its_config(self) -> None:
        s = Script()
        s.listen(Config(max_segment_size=333))
        s.recv("S seq=b-1 mss=1000")
        s.expect("S. seq=a-1 ack=b mss=333")


def aborted() -> Script:
    s = states.established()
    s.abort()
    s.take()
    return s


def reset() -> Script:
    s = states.established()
    s.recv("R seq=b")
    return s
