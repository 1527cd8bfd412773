"""What the engine says of an end: how long each closing state took, and who closed first."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import utcp
from support.script import Script
from support.states import close_wait, established, fin_wait_1, syn_received
from utcp.core.states import State


def info(s: Script) -> utcp.CloseInfo:
    return utcp.CloseInfo.of(s.conn)


def after(s: Script, seconds: float) -> None:
    """B acknowledges all that comes due meanwhile by silence: only time passes."""
    s.advance(seconds)
    s.take()


@dataclass
class Close:
    """A: a close of ours, B: the peer's FIN, K: its ACK of our FIN. Each a second after the one before."""

    order: str
    by_peer: bool
    seconds: dict[State, float]


CLOSES = [
    Close("AKB", False, {State.FIN_WAIT_1: 1, State.FIN_WAIT_2: 1}),
    Close("ABK", False, {State.FIN_WAIT_1: 1, State.CLOSING: 1}),
    Close("AX", False, {State.FIN_WAIT_1: 1, State.FIN_WAIT_2: 0}),  # FIN and ACK in one segment
    Close("BAK", True, {State.CLOSE_WAIT: 1, State.LAST_ACK: 1}),
]


@pytest.mark.parametrize("case", CLOSES, ids=lambda case: case.order)
def test_seconds_in_each_closing_state(case: Close) -> None:
    s = established()
    s.advance(7)
    fin, acked = 0, 0
    for step in case.order:
        if step == "A":
            s.shutdown()
        elif step == "B":
            s.recv(f"F. seq=b ack=a+{acked}")
            fin = 1
        elif step == "K":
            s.recv(f". seq=b+{fin} ack=a+1")
            acked = 1
        else:
            s.recv("F. seq=b ack=a+1")
        s.take()
        if not s.conn.closed:
            after(s, 1)
    found = info(s)
    assert (found.reason, found.by_peer, found.error) == ("graceful", case.by_peer, None)
    assert found.seconds_in == case.seconds
    assert list(found.seconds_in) == list(case.seconds)
    s.advance(300)  # TIME-WAIT and all that follows is no part of it
    assert info(s) == found
    assert s.conn.info().seconds_in == case.seconds


def test_until_now_while_it_goes_on() -> None:
    s = established()
    assert s.conn.info().seconds_in == {}
    s.recv("F. seq=b ack=a")
    s.expect(". seq=a ack=b+1")
    began = s.now
    s.advance(2)
    assert s.conn.info(s.now).seconds_in == {State.CLOSE_WAIT: 2}
    assert s.conn.info(began).seconds_in[State.CLOSE_WAIT] < 2  # until the latest instant that the engine was told
    s.send(b"x")
    s.take()
    assert s.conn.info().seconds_in == {State.CLOSE_WAIT: 2}
    with pytest.raises(ValueError, match="is not closed"):
        info(s)


def test_an_abort_in_ESTABLISHED_passes_through_none() -> None:
    s = established()
    s.abort()
    s.expect("R. seq=a ack=b")
    found = info(s)
    assert (found.reason, found.by_peer, found.seconds_in) == ("aborted", False, {})


def test_an_abort_in_CLOSE_WAIT() -> None:
    s = close_wait()
    s.advance(3)
    s.abort()
    s.expect("R. seq=a ack=b+1")
    found = info(s)
    assert (found.reason, found.by_peer, found.seconds_in) == ("aborted", True, {State.CLOSE_WAIT: 3})


def test_a_reset_in_ESTABLISHED_is_the_peer_s_close() -> None:
    s = established()
    s.recv("R seq=b")
    found = info(s)
    assert (found.reason, found.by_peer, found.seconds_in) == ("reset-by-peer", True, {})


def test_a_reset_after_our_FIN_is_not() -> None:
    s = fin_wait_1()
    s.advance(0.1)
    s.recv("R seq=b")
    found = info(s)
    assert (found.reason, found.by_peer, found.seconds_in) == ("reset-by-peer", False, {State.FIN_WAIT_1: 0.1})


def test_from_SYN_RECEIVED() -> None:
    s = syn_received(passive=False)
    s.close()
    s.advance(0.2)  # queued until the handshake is complete: not closing yet
    s.recv("F. seq=b ack=a")
    s.take()
    s.advance(0.1)
    s.recv(". seq=b+1 ack=a+1")
    found = info(s)
    assert found.reason == "graceful"
    assert list(found.seconds_in) == [State.FIN_WAIT_1, State.CLOSING]
    assert found.seconds_in[State.FIN_WAIT_1] == 0
    assert found.seconds_in[State.CLOSING] == 0.1


def test_bytes_and_retransmissions() -> None:
    s = established()
    s.recv("P. seq=b ack=a", b"unread")
    s.expect_after(0.04, ". seq=a ack=b+6")
    s.send(b"gone")
    s.expect("P. seq=a ack=b+6", b"gone")
    s.advance(0.3)
    assert s.take()[-1].retransmission
    s.recv("R seq=b+6")
    found = info(s)
    assert (found.unacked_bytes, found.unread_bytes, found.retransmissions) == (4, 6, 1)
    assert not found.last_ack_missing
    assert str(found) == (
        "reset-by-peer, closed first by the peer, 4 bytes unacknowledged, 6 bytes unread, 1 retransmission"
    )


def test_in_a_line() -> None:
    s = established()
    s.shutdown()
    s.expect("F. seq=a ack=b")
    s.advance(0.1)
    s.recv(". seq=b ack=a+1")
    s.advance(2)
    s.recv("F. seq=b ack=a+1")
    s.take()
    assert str(info(s)) == "graceful, closed first here, 0 retransmissions, FIN-WAIT-1 100.0 ms, FIN-WAIT-2 2.0 s"
