"""A patient driver: the ACK of a SYN-ACK or of a FIN waits for the user's answer to carry it (RFC 9293 3.8.6.3)."""

from __future__ import annotations

import pytest

from support.script import Script
from support.states import established, fin_wait_1, fin_wait_2, syn_sent
from utcp.core.config import Config
from utcp.core.states import State


def syn_ack_arrives(s: Script) -> None:
    s.recv("S. seq=b-1 ack=a mss=1000")
    s.silent()
    s.expect_state(State.ESTABLISHED)


def test_the_answer_to_a_syn_ack_carries_its_ack() -> None:
    s = syn_sent()
    with s.patient():
        syn_ack_arrives(s)
        s.send(b"hello")
        s.expect("P. seq=a ack=b len=5")
    s.silent_for(0.1)


def test_so_does_a_FIN() -> None:
    s = syn_sent()
    with s.patient():
        syn_ack_arrives(s)
        s.shutdown()
        s.expect("F. seq=a ack=b")
    s.silent_for(0.1)


def test_without_an_answer_it_leaves_when_patience_ends() -> None:
    s = syn_sent()
    with s.patient():
        syn_ack_arrives(s)
        assert s.engine.pending()
    s.expect(". seq=a ack=b")
    assert not s.engine.pending()
    s.silent_for(100)


def test_the_answer_to_a_FIN_carries_its_ack() -> None:
    s = established()
    with s.patient():
        s.recv("F. seq=b ack=a")
        s.silent()
        s.expect_state(State.CLOSE_WAIT)
        s.close()
        s.expect("F. seq=a ack=b+1")
    s.recv(". seq=b+1 ack=a+1")
    s.expect_gone()


def test_a_FIN_without_an_answer() -> None:
    s = established()
    with s.patient():
        s.recv("F. seq=b ack=a")
        s.silent()
    s.expect(". seq=a ack=b+1")
    s.silent_for(100)


def test_patience_is_not_lost_on_what_comes_again() -> None:
    """Whatever comes before it ends, one ACK answers for all."""
    s = established()
    with s.patient():
        s.recv("F. seq=b ack=a")
        s.recv("F. seq=b ack=a")
        s.silent()
    s.expect(". seq=a ack=b+1")
    s.silent_for(100)


def test_an_abort_does_not_overtake_it() -> None:
    """The peer is in SYN-RECEIVED: a RST alone would have it forget us, and its user never hear of a connection."""
    s = syn_sent()
    with s.patient():
        syn_ack_arrives(s)
        s.abort()
        s.expect(". seq=a ack=b")
        s.expect("R. seq=a ack=b")
    s.silent_for(1)


def test_a_connection_that_has_ended_meanwhile() -> None:
    s = established()
    with s.patient():
        s.recv("F. seq=b ack=a")
        s.recv("R seq=b+1")
    s.expect_gone(ConnectionResetError)
    s.silent_for(1)


def test_data_of_a_peer_that_does_not_wait_for_it() -> None:
    """The window is the one that our SYN has offered."""
    s = syn_sent(Config(receive_buffer=7))
    with s.patient():
        syn_ack_arrives(s)
        s.recv("P. seq=b ack=a", b"hello")
        s.recv("P. seq=b+5 ack=a", b"world")
        assert s.read() == b"hellowo"
    s.expect(". seq=a ack=b+7 wnd=7")
    s.silent_for(1)


def test_what_the_SYN_has_offered_is_kept_when_the_buffer_shrinks() -> None:
    s = syn_sent(Config(receive_buffer=7))
    s.conn.set_option("receive_buffer", 2, s.now)
    with s.patient():
        syn_ack_arrives(s)
        s.recv("P. seq=b ack=a", b"hello")
        assert s.read() == b"hello"
    s.expect(". seq=a ack=b+5 wnd=2")
    s.silent_for(1)


@pytest.mark.parametrize("patience", [False, True])
def test_what_nobody_will_answer_does_not_wait(patience: bool) -> None:
    closing, ended, hole = fin_wait_1(), fin_wait_2(), established()
    for s in (closing, ended, hole):
        s._patient = patience
    closing.recv("F. seq=b ack=a")
    closing.expect(". seq=a+1 ack=b+1")
    closing.expect_state(State.CLOSING)
    ended.recv("F. seq=b ack=a+1")
    ended.expect(". seq=a+1 ack=b+1")
    ended.expect_state(State.TIME_WAIT)
    hole.recv(". seq=b+1000 ack=a len=1000")
    hole.expect(". seq=a ack=b")
