"""RST: what is heard, what is ignored, what is sent (RFC 9293 3.5.2, 3.5.3, 3.10.7; RFC 5961 3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.script import RTO, Script
from support.states import (
    CLOSE_WAIT,
    CLOSING,
    CONNECTED,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    Stage,
    close_wait,
    closing,
    established,
    fin_wait_1,
    fin_wait_2,
    last_ack,
    listen,
    syn_received,
    syn_sent,
)
from utcp.core.config import Config
from utcp.core.states import CLOSED_BIT, EOF, READABLE, State

TOLD = [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT]
RFC_793 = Config(rfc5961_rst=False)


class TestSynchronized:
    """R-01 to R-06."""

    @pytest.mark.parametrize("flags", ["R", "R."])
    @pytest.mark.parametrize("stage", TOLD, ids=str)
    def test_R_01_at_RCV_NXT_it_ends_the_connection(self, stage: Stage, flags: str) -> None:
        s = stage.make()
        s.events()
        s.recv(f"{flags} seq={stage.b} ack={stage.a}" if flags == "R." else f"R seq={stage.b}")
        s.expect_gone(ConnectionResetError)
        assert s.events() & CLOSED_BIT
        assert s.recorder.closed_reasons == ["reset-by-peer"]

    @pytest.mark.parametrize("stage", [CLOSING, LAST_ACK], ids=str)
    def test_R_05_where_only_the_ack_of_our_fin_was_missing_it_is_no_error(self, stage: Stage) -> None:
        """3.10.7.4, second: CLOSING, LAST-ACK, TIME-WAIT: enter the CLOSED state, and no word of errors."""
        s = stage.make()
        s.recv(f"R seq={stage.b}")
        s.expect_gone(None)

    def test_R_05_but_with_data_unacknowledged_it_is(self) -> None:
        s = close_wait()
        with s.together():
            s.send(b"lost")
            s.close()
        s.expect("FP. seq=a ack=b+1 len=4")
        s.recv("R seq=b+1")
        s.expect_gone(ConnectionResetError)

    def test_R_05_and_with_data_acknowledged_before_it_is_not(self) -> None:
        s = close_wait()
        with s.together():
            s.send(b"kept")
            s.close()
        s.expect("FP. seq=a ack=b+1 len=4")
        s.recv(". seq=b+1 ack=a+4")
        s.recv("R seq=b+1")
        s.expect_gone(None)

    @pytest.mark.parametrize("stage", CONNECTED, ids=str)
    @pytest.mark.parametrize("offset", [1, 65534])
    def test_R_01_elsewhere_in_the_window_it_is_challenged(self, stage: Stage, offset: int) -> None:
        """RFC 5961 3.2."""
        s = stage.make()
        if stage in (CLOSE_WAIT, CLOSING, LAST_ACK):
            offset -= offset > 1  # the FIN took a number of the window
        s.recv(f"R seq=b+{int(stage.b == 'b+1') + offset}")
        s.expect(f". seq={stage.a} ack={stage.b}")
        s.expect_state(stage.state)
        s.recv(f"R seq={stage.b}")  # which B, if it is B, answers by this
        s.expect_state(State.CLOSED)

    @pytest.mark.parametrize("stage", CONNECTED, ids=str)
    @pytest.mark.parametrize("seq", ["b-1", "b+70000", "b-70000"])
    def test_R_01_outside_the_window_it_is_dropped(self, stage: Stage, seq: str) -> None:
        s = stage.make()
        s.recv(f"R seq={seq}")
        s.expect_state(stage.state)
        assert len(s.recorder.drops) == 1

    @pytest.mark.parametrize("make", [established, fin_wait_1, fin_wait_2, close_wait, closing, last_ack])
    def test_R_01_by_RFC_793_anywhere_in_the_window_will_do(self, make: Callable[[Config], Script]) -> None:
        s = make(RFC_793)
        s.recv("R seq=b+65534")  # the window's last number, whether or not B's FIN took the first
        s.expect_gone(None if make in (closing, last_ack) else ConnectionResetError)
        s = make(RFC_793)
        before = s.conn.state
        s.recv("R seq=b+65535")
        s.expect_state(before)
        assert len(s.recorder.drops) == 1

    def test_the_ack_of_a_reset_does_not_matter(self) -> None:
        s = established()
        s.recv("R. seq=b ack=a+1000000")
        s.expect_gone(ConnectionResetError)

    def test_the_end_stops_the_timers(self) -> None:
        s = established()
        s.send(5000)
        s.take()
        s.recv("R seq=b")
        s.silent_for(600)
        assert s.engine.next_timeout() is None

    def test_R_13_a_reset_may_carry_text(self) -> None:
        """SHLD-2."""
        s = established()
        s.recv("R. seq=b ack=a", b"out of memory")
        s.expect_gone(ConnectionResetError)
        assert s.conn.readable_bytes == 0

    def test_R_14_what_came_before_the_reset_stays_readable(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"hello")
        assert s.events() & READABLE
        s.recv("R. seq=b+5 ack=a")
        assert s.conn.closed
        assert s.read() == b"hello"
        assert not s.conn.at_eof and not s.conn.fin_received
        with pytest.raises(ConnectionResetError):
            s.conn.send(b"x", s.now)

    def test_R_14_reset_after_the_end_of_file(self) -> None:
        s = close_wait()
        assert s.events() & EOF
        s.recv("R. seq=b+1 ack=a")
        s.expect_gone(ConnectionResetError)
        assert s.conn.at_eof

    def test_X_05_the_peer_crashed_and_answers_data_by_a_reset(self) -> None:
        s = established()
        s.send(b"hello")
        s.expect("P. seq=a ack=b", b"hello")
        s.recv("R seq=b")  # B has no connection: <SEQ=SEG.ACK>, and SEG.ACK was b
        s.expect_gone(ConnectionResetError)
        assert s.conn.unacked_bytes == 5


class TestHandshake:
    def test_R_07_in_SYN_SENT_with_an_acceptable_ack_the_open_was_refused(self) -> None:
        s = syn_sent()
        s.recv("R. seq=0 ack=a")
        s.expect_gone(ConnectionRefusedError)
        assert s.recorder.closed_reasons == ["refused"]

    @pytest.mark.parametrize("text", ["R seq=0", "R seq=b", "R. seq=0 ack=a-1", "R. seq=0 ack=a+1"])
    def test_R_07_in_SYN_SENT_otherwise_it_is_dropped(self, text: str) -> None:
        s = syn_sent()
        s.recv(text)
        s.expect_state(State.SYN_SENT)
        assert len(s.recorder.drops) == 1
        s.recv("S. seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")

    def test_R_08_in_SYN_RECEIVED_after_a_passive_open_back_to_LISTEN_silently(self) -> None:
        """MUST-11."""
        s = syn_received()
        s.recv("R seq=b")
        s.expect_state(State.CLOSED)
        assert s.listener is not None and s.listener.accept() is None
        assert s.engine.ready() == [] and s.engine.ready_listeners() == []
        s.recv("S seq=b+5000 mss=1000")
        s.expect("S. seq=a-1 ack=b+5001 *")

    def test_R_08_in_SYN_RECEIVED_after_an_active_open_it_was_refused(self) -> None:
        s = syn_received(passive=False)
        s.recv("R seq=b")
        s.expect_gone(ConnectionRefusedError)

    @pytest.mark.parametrize("passive", [False, True])
    def test_R_08_in_SYN_RECEIVED_elsewhere_in_the_window_it_is_challenged(self, passive: bool) -> None:
        s = syn_received(passive=passive)
        s.recv("R seq=b+1")
        s.expect(". seq=a ack=b")
        s.expect_state(State.SYN_RECEIVED)
        s.recv("R seq=b-1")
        s.expect_state(State.SYN_RECEIVED)

    @pytest.mark.parametrize("text", ["R seq=b", "R. seq=b ack=a"])
    def test_R_09_in_LISTEN_and_CLOSED_it_is_ignored(self, text: str) -> None:
        for s in (listen(), Script()):
            s.recv(text)
            s.silent()
            assert len(s.recorder.drops) == 1
            assert list(s.engine.connections()) == []
        s = listen()
        s.recv(text)
        s.recv("S seq=b-1 mss=1000")  # it listens still
        s.expect("S. seq=a-1 ack=b *")

    def test_SYN_RECEIVED_a_new_syn_in_the_window_returns_a_passive_open_to_LISTEN(self) -> None:
        """3.10.7.4, fourth. B began anew; it will repeat its SYN."""
        s = syn_received()
        s.recv("S seq=b+100 mss=1000")
        s.expect_state(State.CLOSED)
        assert s.recorder.drops == ["syn-on-synchronized"]
        s.recv("S seq=b+100 mss=1000")
        s.expect("S. seq=a-1 ack=b+101 *")

    def test_SYN_RECEIVED_nothing_else_of_that_syn_is_looked_at(self) -> None:
        s = syn_received()
        s.recv("S. seq=b+100 ack=a mss=1000 len=10")
        s.expect_state(State.CLOSED)
        s.silent()
        assert s.recorder.drops == ["syn-on-synchronized"]
        assert s.recorder.closed_reasons == ["replaced"]


class TestGeneration:
    """R-15: for a connection that does not exist (3.5.2 group 1, 3.10.7.1)."""

    @pytest.mark.parametrize("flags", [".", "P.", "F.", "S.", "FP."])
    def test_with_ack_it_takes_its_number_from_there(self, flags: str) -> None:
        s = Script()
        s.recv(f"{flags} seq=b ack=12345 len=7")
        s.expect("R seq=12345 wnd=0")

    @pytest.mark.parametrize(("text", "ack"), [("S seq=b-1", "b"), ("S seq=b-1 len=9", "b+9"), ("SF seq=b-1", "b+1")])
    def test_without_ack_it_acknowledges_everything(self, text: str, ack: str) -> None:
        s = Script()
        s.recv(text)
        s.expect(f"R. seq=0 ack={ack} wnd=0")

    def test_at_the_wrap(self) -> None:
        s = Script()
        s.recv("S seq=4294967295 len=3")
        s.expect("R. seq=0 ack=3")

    @pytest.mark.parametrize("text", ["R seq=b", "R. seq=b ack=a", "RF. seq=b ack=a len=5", "RS. seq=b ack=a"])
    def test_never_for_a_reset(self, text: str) -> None:
        s = Script()
        s.recv(text)

    @pytest.mark.parametrize("text", ["F seq=b", "P seq=b len=5", "none seq=b", "U seq=b"])
    def test_none_of_ack_rst_syn_is_dropped_silently(self, text: str) -> None:
        s = Script()
        s.recv(text)
        assert len(s.recorder.drops) == 1

    def test_the_old_connection_is_unknown_once_it_is_gone(self) -> None:
        s = last_ack()
        s.recv(". seq=b+1 ack=a+1")
        s.recv("F. seq=b ack=a+1")
        s.expect("R seq=a+1")

    def test_two_engines_do_not_answer_each_other_for_ever(self) -> None:
        """A RST to nobody is answered by nobody."""
        s = Script()
        s.recv(". seq=b ack=12345")
        sent = s.expect("R seq=12345")
        other = Script(a_port=sent.seg.dst_port, b_port=sent.seg.src_port)
        other.recv_bytes(sent.seg.to_bytes())
        other.silent()


def test_a_reset_does_not_harm_another_connection() -> None:
    s = listen()
    for port in (1, 2):
        s.recv("S seq=b-1 mss=1000", port=port)
        s.expect("S. seq=a-1 ack=b *", port=port)
        s.recv(". seq=b ack=a", port=port)
    s.recv("R seq=b", port=1)
    states = {conn.remote_port: conn.state for conn in s.engine.connections()}
    assert states == {2: State.ESTABLISHED}


def test_a_reset_in_CLOSING_while_data_waits() -> None:
    s = closing()
    s.recv("R seq=b+1")
    s.expect_gone(None)
    s.silent_for(10 * RTO)


@pytest.mark.parametrize("text", ["R. seq=b+1 ack=a+10", "S. seq=b+1 ack=a+10 mss=1000"])
def test_what_is_challenged_acknowledges_nothing(text: str) -> None:
    s = established()
    s.send(10)
    s.take()
    s.recv(text)
    s.expect(". seq=a+10 ack=b")
    assert s.conn.unacked_bytes == 10
    assert s.recorder.drops == (["syn-on-synchronized"] if text[0] == "S" else [])


@pytest.mark.parametrize("text", ["R. seq=b ack=a+10", "S. seq=b+1 ack=a+10 mss=1000"])
def test_nor_does_what_ends_the_connection(text: str) -> None:
    s = established(Config(rfc5961_syn=False))
    s.send(10)
    s.take()
    s.recv(text)
    s.take()
    s.expect_gone(ConnectionResetError)
    assert s.conn.unacked_bytes == 10
    assert s.recorder.drops == (["syn-on-synchronized"] if text[0] == "S" else [])


def test_a_reset_without_ack_that_ended_something_was_not_dropped() -> None:
    s = established()
    s.recv("R seq=b")
    s.expect_gone(ConnectionResetError)
    assert s.recorder.drops == []


def test_R_05_one_byte_unacknowledged_is_lost_data() -> None:
    s = established()
    with s.together():
        s.send(b"!")
        s.shutdown()
    s.take()
    s.recv("F. seq=b ack=a")
    s.take()
    s.expect_state(State.CLOSING)
    s.recv("R seq=b+1")
    s.expect_gone(ConnectionResetError)
