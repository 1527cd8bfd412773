"""Half-close: one direction ends, the other goes on for as long as it likes (RFC 9293 3.6)."""

from __future__ import annotations

import socket

from support.script import RTO
from support.states import close_wait, established, fin_wait_1, fin_wait_2
from utcp.core.config import Config
from utcp.core.states import ACKED, State
from utcp.wire.segment import FIN

MEGABYTE = 1_000_000


def test_H_01_fin_waits_for_the_last_byte() -> None:
    """The state is FIN-WAIT-1 from the call; the FIN leaves behind 10 MB that B takes 4000 bytes at a time."""
    s = established(wnd=4000)
    s.send(bytes(10 * MEGABYTE))
    s.take()
    s.shutdown()
    s.expect_state(State.FIN_WAIT_1)
    sent = 0
    while not s.conn.fin_acked:
        s.recv(". seq=b ack=A wnd=4000")
        for out in s.take():
            sent = max(sent, (out.seg.seq - s.seq("a")) % 2**32 + out.seg.data_len)
            assert not out.seg.flags & FIN or sent == 10 * MEGABYTE
    assert sent == 10 * MEGABYTE
    s.expect_state(State.FIN_WAIT_2)


def test_H_06_after_our_fin_the_other_side_sends_on() -> None:
    s = fin_wait_2()
    total = 0
    for i in range(0, 200_000, 2000):  # every second segment is acknowledged
        s.recv(f"P. seq=b+{i} ack=a+1 len=1000")
        s.silent()
        s.recv(f"P. seq=b+{i + 1000} ack=a+1 len=1000")
        s.expect(f". seq=a+1 ack=b+{i + 2000} wnd=65535")
        total += len(s.read())
    assert total == 200_000
    s.silent_for(1)
    s.recv("F. seq=b+200000 ack=a+1")
    s.expect(". seq=a+1 ack=b+200001")
    s.expect_state(State.TIME_WAIT)


def test_H_06_window_updates_in_FIN_WAIT_2() -> None:
    s = fin_wait_2(Config(receive_buffer=4000))
    for i in range(4):
        s.recv(f". seq=b+{1000 * i} ack=a+1 len=1000")
        s.take()
    s.advance(0.04)
    s.take()
    assert s.conn.readable_bytes == 4000
    s.read()
    s.expect(". seq=a+1 ack=b+4000 wnd=4000")


def test_H_07_CLOSE_WAIT_sends_and_sends_again() -> None:
    s = close_wait()
    s.send(2000)
    s.expect(". seq=a ack=b+1 len=1000")
    s.expect("P. seq=a+1000 ack=b+1 len=1000")
    for n in range(4):
        sent = s.expect_after(RTO * 2**n, ". seq=a ack=b+1 len=1000")
        assert sent.retransmission
    s.recv(". seq=b+1 ack=a+1000")
    s.take()
    s.recv(". seq=b+1 ack=a+2000")
    s.silent_for(3600)
    s.expect_state(State.CLOSE_WAIT)
    s.send(b"more")
    s.expect("P. seq=a+2000 ack=b+1", b"more")
    s.recv(". seq=b+1 ack=a+2004")


def test_H_08_no_window_update_once_the_peer_has_closed() -> None:
    s = established(Config(receive_buffer=4000))
    for i in range(4):
        s.recv(f". seq=b+{1000 * i} ack=a len=1000")
        s.take()
    s.recv("F. seq=b+4000 ack=a")
    s.expect(". seq=a ack=b+4001")
    assert len(s.read()) == 4000
    s.silent_for(10)


def test_H_08_no_window_update_in_TIME_WAIT() -> None:
    s = established(Config(receive_buffer=4000))
    s.shutdown()
    s.expect("F. seq=a ack=b")
    for i in range(4):
        s.recv(f". seq=b+{1000 * i} ack=a+1 len=1000")
        s.take()
    s.recv("F. seq=b+4000 ack=a+1")
    s.expect(". seq=a+1 ack=b+4001")
    s.expect_state(State.TIME_WAIT)
    assert len(s.read()) == 4000
    s.silent_for(10)


def test_H_09_data_after_shutdown_of_reading_is_acknowledged_and_discarded() -> None:
    s = established()
    s.shutdown(socket.SHUT_RD)
    s.silent()
    s.recv("P. seq=b ack=a len=100")
    s.expect_after(0.04, ". seq=a ack=b+100")
    assert s.conn.readable_bytes == 0 and s.read() == b""
    s.send(b"x")
    s.expect("P. seq=a ack=b+100", b"x")
    s.close()
    s.expect("R. seq=a+1 ack=b+100")  # B must not believe that its data was read
    s.expect_gone()


def test_H_09_shutdown_of_reading_and_no_data_is_an_orderly_close() -> None:
    s = established()
    s.shutdown(socket.SHUT_RD)
    s.close()
    s.expect("F. seq=a ack=b")
    s.recv("F. seq=b ack=a+1")
    s.expect(". seq=a+1 ack=b+1")
    s.expect_state(State.TIME_WAIT)


def test_H_09_what_was_unread_at_the_shutdown_of_reading_is_lost() -> None:
    s = established()
    s.recv("P. seq=b ack=a len=100")
    s.shutdown(socket.SHUT_RD)
    s.expect_after(0.04, ". seq=a ack=b+100")
    assert s.read() == b""
    s.close()
    s.expect("R. seq=a ack=b+100")
    s.expect_gone(None)


def test_H_09_shutdown_of_reading_opens_a_closed_window() -> None:
    s = established(Config(receive_buffer=2000))
    for i in (0, 1000):
        s.recv(f"P. seq=b+{i} ack=a len=1000")
        s.take()
    s.advance(0.04)
    s.take()
    assert s.conn.readable_bytes == 2000
    s.shutdown(socket.SHUT_RD)
    s.expect(". seq=a ack=b+2000 wnd=2000")


def test_shutdown_of_both_sends_a_fin() -> None:
    s = established()
    s.shutdown(socket.SHUT_RDWR)
    s.expect("F. seq=a ack=b")
    s.recv(". seq=b ack=a+1")
    s.expect_state(State.FIN_WAIT_2)


def test_H_11_fin_does_not_wait_for_nagle() -> None:
    s = established()
    s.send(b"one")
    s.expect("P. seq=a ack=b", b"one")
    s.send(b"two")
    s.silent()  # held by Nagle
    s.shutdown()
    s.expect("FP. seq=a+3 ack=b", b"two")
    s.expect_state(State.FIN_WAIT_1)


def test_H_12_fin_waits_for_the_congestion_window() -> None:
    s = established(Config(initial_window=2))
    with s.together():
        s.send(2000)
        s.shutdown()
    s.expect(". seq=a ack=b len=1000")
    out = s.expect("P. seq=a+1000 ack=b len=1000")
    assert out.at == s.now
    s.silent()
    s.recv(". seq=b ack=a+1000")
    s.expect("F. seq=a+2000 ack=b")


def test_X_02_after_a_half_close_FIN_WAIT_2_has_no_timer() -> None:
    s = fin_wait_2()
    s.silent_for(30 * 86400)
    s.expect_state(State.FIN_WAIT_2)
    s.recv("P. seq=b ack=a+1", b"at last")
    assert s.read() == b"at last"
    s.expect_after(0.04, ". seq=a+1 ack=b+7")


def test_X_01_after_a_close_FIN_WAIT_2_ends_at_fin_timeout() -> None:
    s = fin_wait_2(close=True)
    s.silent_for(59.999_999_999)
    s.expect_state(State.FIN_WAIT_2)
    s.silent_for(0.000_000_001)
    s.expect_gone()
    s.recv("P. seq=b ack=a+1 len=10")
    s.expect("R seq=a+1")


def test_X_01_closing_in_FIN_WAIT_2_starts_fin_timeout() -> None:
    s = fin_wait_2(Config(fin_timeout=5))
    s.silent_for(100)
    s.close()
    s.silent_for(4.999_999_999)
    s.expect_state(State.FIN_WAIT_2)
    s.silent_for(0.000_000_001)
    s.expect_gone()


def test_X_01_fin_timeout_may_be_changed() -> None:
    s = fin_wait_1(close=True)
    s.set_option("fin_timeout", 2.0)
    s.recv(". seq=b ack=a+1")
    s.silent_for(1.999_999_999)
    s.expect_state(State.FIN_WAIT_2)
    s.silent_for(0.000_000_001)
    s.expect_gone()


def test_fin_acked_and_everything_acked_are_told_apart() -> None:
    s = established()
    s.send(b"data")
    s.expect("P. seq=a ack=b", b"data")
    assert s.conn.unacked_bytes == 4 and s.conn.send_queue_size == 0
    s.events()
    s.recv(". seq=b ack=a+4")
    assert s.events() & ACKED
    assert s.conn.unacked_bytes == 0 and not s.conn.fin_acked


def test_a_second_shutdown_does_not_renew_the_patience() -> None:
    s = established(Config(r2=100))
    s.shutdown()
    s.take()
    s.advance(60)
    s.take()
    s.shutdown()
    s.take()
    s.advance(40 - 1e-9)
    s.take()
    s.expect_state(State.FIN_WAIT_1)
    s.advance(1e-9)
    s.expect_gone(TimeoutError)


def test_nor_does_it_behind_a_closed_window() -> None:
    """Where nothing is in flight patience counts from the shutdown: the first one."""
    s = established()
    s.recv(". seq=b ack=a wnd=0")
    s.send(1)
    s.silent_for(0.1)
    s.shutdown()
    began = s.conn.progress_at
    assert began == s.now
    s.silent_for(0.1)
    s.shutdown()
    s.silent()
    assert s.conn.progress_at == began


def test_the_patience_for_the_fin_counts_from_the_shutdown() -> None:
    s = established(Config(r2=100))
    s.silent_for(60)
    s.shutdown()
    s.take()
    s.advance(100 - 1e-9)
    s.take()
    s.expect_state(State.FIN_WAIT_1)
    s.advance(1e-9)
    s.expect_gone(TimeoutError)


def test_a_shutdown_does_not_renew_the_patience_with_what_is_in_flight() -> None:
    """R2 is about retransmissions of the same segment (RFC 9293 3.8.3), whatever the user calls meanwhile."""
    s = established(Config(r2=100))
    s.send(10)
    s.take()
    s.advance(60)
    s.take()
    s.shutdown()
    s.take()
    s.advance(40 - 1e-9)
    s.take()
    s.expect_state(State.FIN_WAIT_1)
    s.advance(1e-9)
    s.expect_gone(TimeoutError)
