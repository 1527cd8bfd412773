"""Closing without loss: active, passive, both at once, early, twice (RFC 9293 3.6, 3.10.4)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from support.script import RTO, Script
from support.states import (
    close_wait,
    closing,
    established,
    fin_wait_1,
    fin_wait_2,
    last_ack,
    listen,
    syn_received,
    syn_sent,
    time_wait,
)
from utcp.core.config import Config
from utcp.core.states import CLOSED_BIT, EOF, FIN_ACKED, READABLE, State


def test_N_01_active_close() -> None:
    s = established()
    s.close()
    s.expect("F. seq=a ack=b")
    s.expect_state(State.FIN_WAIT_1)
    s.recv(". seq=b ack=a+1")
    s.expect_state(State.FIN_WAIT_2)
    assert s.events() & FIN_ACKED
    assert (s.conn.closed, s.conn.fin_received) == (False, False)
    s.recv("F. seq=b ack=a+1")
    s.expect(". seq=a+1 ack=b+1")
    s.expect_state(State.TIME_WAIT)
    assert s.events() & (EOF | CLOSED_BIT) == EOF | CLOSED_BIT
    assert (s.conn.closed, s.conn.error) == (True, None)
    assert (s.conn.fin_received, s.conn.fin_acked, s.conn.at_eof) == (True, True, True)
    assert list(s.engine.connections()) == []  # what is left is a record
    s.silent_for(59.999_999_999)
    s.expect_state(State.TIME_WAIT)
    s.silent_for(0.000_000_001)
    s.expect_gone()
    assert s.visited() == ["SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSED"]
    assert s.recorder.closed_reasons == ["graceful"]


def test_N_02_fin_and_ack_of_ours_in_one_segment() -> None:
    s = fin_wait_1(close=True)
    s.recv("F. seq=b ack=a+1")
    s.expect(". seq=a+1 ack=b+1")
    s.expect_state(State.TIME_WAIT)
    # 3.10.7.4, fifth: "enter FIN-WAIT-2 and continue processing in that state"
    assert s.visited()[-3:] == ["FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT"]
    assert (s.conn.closed, s.conn.fin_acked, s.conn.error) == (True, True, None)
    s.silent_for(60 - 1e-9)
    s.expect_state(State.TIME_WAIT)
    s.silent_for(1e-9)
    s.expect_gone()


def test_N_03_passive_close() -> None:
    s = established(passive=True)
    s.recv("F. seq=b ack=a")
    s.expect(". seq=a ack=b+1")
    s.expect_state(State.CLOSE_WAIT)
    assert s.events() & EOF and s.conn.at_eof
    s.silent_for(3600)
    s.close()
    s.expect("F. seq=a ack=b+1")
    s.expect_state(State.LAST_ACK)
    s.recv(". seq=b+1 ack=a+1")
    s.expect_gone()
    assert s.visited() == ["SYN-RECEIVED", "ESTABLISHED", "CLOSE-WAIT", "LAST-ACK", "CLOSED"]
    assert s.recorder.closed_reasons == ["graceful"]


def test_N_04_fin_arrives_and_user_closes_before_anything_is_sent() -> None:
    """One segment answers both."""
    s = established()
    with s.together():
        s.recv("F. seq=b ack=a")
        s.close()
    s.expect("F. seq=a ack=b+1")
    s.expect_state(State.LAST_ACK)
    s.recv(". seq=b+1 ack=a+1")
    s.expect_gone()


def test_N_05_fin_rides_on_the_last_data() -> None:
    s = established()
    with s.together():
        s.send(b"bye")
        s.close()
    s.expect("FP. seq=a ack=b", b"bye")
    s.expect_state(State.FIN_WAIT_1)
    s.recv(". seq=b ack=a+4")
    s.expect_state(State.FIN_WAIT_2)


def test_N_05_fin_rides_on_the_last_of_many_segments() -> None:
    s = established()
    with s.together():
        s.send(2500)
        s.close()
    s.expect(". seq=a ack=b len=1000")
    s.expect(". seq=a+1000 ack=b len=1000")
    s.expect("FP. seq=a+2000 ack=b len=500")
    s.expect_state(State.FIN_WAIT_1)
    s.recv(". seq=b ack=a+2501")
    s.expect_state(State.FIN_WAIT_2)
    s.silent_for(59)  # nothing of it is sent again


def test_N_06_data_with_the_fin() -> None:
    s = established()
    s.recv("FP. seq=b ack=a", b"hello")
    s.expect(". seq=a ack=b+6")
    s.expect_state(State.CLOSE_WAIT)
    assert s.events() & (READABLE | EOF) == READABLE | EOF
    assert (s.conn.fin_received, s.conn.at_eof) == (True, False)
    assert (s.read(2), s.conn.at_eof) == (b"he", False)
    assert (s.read(), s.conn.at_eof) == (b"llo", True)
    assert s.read() == b""


def test_N_07_simultaneous_close() -> None:
    s = fin_wait_1(close=True)
    s.recv("F. seq=b ack=a")
    s.expect(". seq=a+1 ack=b+1")  # a bare ACK: our FIN is not sent again before its time
    s.expect_state(State.CLOSING)
    s.recv(". seq=b+1 ack=a+1")
    s.expect_state(State.TIME_WAIT)
    assert s.visited()[-3:] == ["FIN-WAIT-1", "CLOSING", "TIME-WAIT"]
    s.silent_for(60)
    s.expect_gone()


def test_N_08_simultaneous_close_with_the_ack_of_our_fin_lost() -> None:
    s = closing()
    s.expect_after(RTO, "F. seq=a ack=b+1")
    s.expect_after(2 * RTO, "F. seq=a ack=b+1")
    s.expect_state(State.CLOSING)
    s.recv(". seq=b+1 ack=a+1")
    s.expect_state(State.TIME_WAIT)
    s.silent_for(60)  # from now on, and without another FIN
    s.expect_gone()


def test_N_09_crossing_fins_with_data_both_ways() -> None:
    s = established(wnd=1000)
    s.send(1500)
    s.expect(". seq=a ack=b len=1000")  # all that B's window takes
    s.close()
    s.silent()
    s.recv("FP. seq=b ack=a", b"late")
    # A was closed with data unread: it may not claim an orderly end (RFC 9293 SHLD-3)
    s.expect("R. seq=a+1000")
    s.expect_gone()


def test_N_09_crossing_fins_with_data_both_ways_after_a_half_close() -> None:
    s = established(wnd=1000)
    s.send(1500)
    s.expect(". seq=a ack=b len=1000")
    s.shutdown()
    s.expect_state(State.FIN_WAIT_1)
    s.recv("FP. seq=b ack=a wnd=1000", b"late")
    s.expect(". seq=a+1000 ack=b+5")
    s.expect_state(State.CLOSING)
    s.recv(". seq=b+5 ack=a+1000 wnd=1000")
    s.expect("FP. seq=a+1000 ack=b+5 len=500")
    s.expect_state(State.CLOSING)
    s.recv(". seq=b+5 ack=a+1501")
    s.expect_state(State.TIME_WAIT)
    assert s.read() == b"late" and s.conn.at_eof


def test_N_10_close_in_SYN_SENT() -> None:
    s = syn_sent()
    s.close()
    s.expect_gone()
    s.silent_for(600)  # no SYN is sent again
    assert s.engine.next_timeout() is None
    s.recv("S. seq=b-1 ack=a mss=1000")
    s.expect("R seq=a wnd=0")


def test_N_11_close_in_SYN_RECEIVED_waits_for_the_handshake() -> None:
    s = syn_received(passive=False)
    s.close()
    s.silent_for(0.9)
    s.expect_state(State.SYN_RECEIVED)
    s.recv(". seq=b ack=a")
    s.expect("F. seq=a ack=b")
    s.expect_state(State.FIN_WAIT_1)
    assert s.visited()[-3:] == ["SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1"]


def test_N_11_close_in_SYN_RECEIVED_after_data() -> None:
    """RFC 9293 3.10.4: otherwise queue for processing after entering ESTABLISHED state."""
    s = syn_received(passive=False)
    s.send(b"hi")
    s.close()
    s.silent()
    s.recv(". seq=b ack=a")
    s.expect("FP. seq=a ack=b", b"hi")
    s.expect_state(State.FIN_WAIT_1)


def test_N_12_closing_a_listener_resets_what_nobody_accepted() -> None:
    s = listen()
    assert s.listener is not None
    for port in (1, 2, 3):
        s.recv("S seq=b-1 mss=1000", port=port)
        s.expect("S. seq=a-1 ack=b *", port=port)
    for port in (1, 2):
        s.recv(". seq=b ack=a", port=port)
    accepted = s.listener.accept()
    assert accepted is not None and accepted.remote_port == 1
    with s.together():
        s.listener.close(s.now)
    s.expect("R. seq=a ack=b", port=3)  # in SYN-RECEIVED
    s.expect("R. seq=a ack=b", port=2)  # ESTABLISHED
    assert s.listener.closed
    s.silent_for(600)
    assert list(s.engine.connections()) == [accepted]
    assert accepted.state == State.ESTABLISHED
    s.recv("S seq=b-1 mss=1000", port=4)  # and nobody listens any more
    s.expect("R. seq=0 ack=b", port=4)


def test_N_13_what_is_done_twice_changes_nothing() -> None:
    s = fin_wait_1()
    s.shutdown()
    s.silent()
    s.expect_state(State.FIN_WAIT_1)
    with pytest.raises(BrokenPipeError):
        s.send(b"more")
    s.silent()
    s.close()
    with pytest.raises(BrokenPipeError):
        s.send(b"more")
    s.close()
    s.silent()
    s.expect_state(State.FIN_WAIT_1)
    assert s.conn.unacked_bytes == 0


@pytest.mark.parametrize("make", [fin_wait_2, closing, close_wait, last_ack])
def test_N_13_close_twice_in_every_closing_state(make: Callable[[], Script]) -> None:
    s = make()
    s.close()
    s.take()
    before = s.engine.states()
    s.close()
    s.shutdown(socket.SHUT_RDWR)
    s.silent()
    assert s.engine.states() == before


def test_N_13_after_the_end_there_is_nothing_to_shut_down() -> None:
    s = time_wait()
    s.close()
    with pytest.raises(OSError, match="closed") as raised:
        s.shutdown(socket.SHUT_RDWR)
    assert raised.value.errno == errno.ENOTCONN
    s.silent()
    s.expect_state(State.TIME_WAIT)


def test_N_14_the_fin_of_a_syn_fin_is_ignored_in_LISTEN() -> None:
    s = listen()
    s.recv("SF seq=b-1 mss=1000")
    s.expect("S. seq=a-1 ack=b *")
    s.recv(". seq=b ack=a")
    s.accept()
    s.expect_state(State.ESTABLISHED)
    assert not s.conn.fin_received
    s.recv("F. seq=b ack=a")  # the FIN itself comes again, with its own number
    s.expect(". seq=a ack=b+1")


def test_N_14_the_fin_of_a_syn_fin_is_ignored_in_SYN_SENT() -> None:
    s = syn_sent()
    s.recv("SF. seq=b-1 ack=a mss=1000")
    s.expect(". seq=a ack=b")
    s.expect_state(State.ESTABLISHED)


def test_N_14_a_syn_fin_may_be_dropped() -> None:
    s = listen(Config(drop_syn_fin=True))
    s.recv("SF seq=b-1 mss=1000")
    assert len(s.recorder.drops) == 1
    s = syn_sent(Config(drop_syn_fin=True))
    s.recv("SF. seq=b-1 ack=a mss=1000")
    assert len(s.recorder.drops) == 1
    s.expect_state(State.SYN_SENT)


def test_the_other_end_of_file_is_seen_while_we_still_send() -> None:
    s = close_wait()
    s.send(b"still here")
    s.expect("P. seq=a ack=b+1", b"still here")
    s.recv(". seq=b+1 ack=a+10")
    s.shutdown()
    s.expect("F. seq=a+10 ack=b+1")
    s.expect_state(State.LAST_ACK)
    s.recv(". seq=b+1 ack=a+11")
    s.expect_gone()


def test_unread_bytes_outlive_the_connection() -> None:
    s = established()
    s.recv("FP. seq=b ack=a", b"last words")
    s.expect(". seq=a ack=b+11")
    s.shutdown()
    s.expect("F. seq=a ack=b+11")
    s.recv(". seq=b+11 ack=a+1")
    s.expect_gone()
    assert s.read() == b"last words" and s.conn.at_eof


def test_X_12_simultaneous_open_then_simultaneous_close() -> None:
    s = syn_received(passive=False)
    s.recv("S. seq=b-1 ack=a mss=1000")
    s.expect(". seq=a ack=b")
    s.expect_state(State.ESTABLISHED)
    s.close()
    s.expect("F. seq=a ack=b")
    s.recv("F. seq=b ack=a")
    s.expect(". seq=a+1 ack=b+1")
    s.recv(". seq=b+1 ack=a+1")
    s.expect_state(State.TIME_WAIT)
    assert s.visited() == [
        "SYN-SENT",
        "SYN-RECEIVED",
        "ESTABLISHED",
        "FIN-WAIT-1",
        "CLOSING",
        "TIME-WAIT",
    ]
