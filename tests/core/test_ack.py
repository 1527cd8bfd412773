"""RFC 9293 3.10.7.4, fifth: what an acknowledgment leaves behind, for every small flight and every part of it."""

from __future__ import annotations

from itertools import product

import pytest

from support.script import RTO, RTT, Script, ns
from support.states import close_wait, established
from utcp.core.config import Config
from utcp.core.congestion import Ack, CongestionControl
from utcp.core.stack import NEVER
from utcp.core.states import ACKED, FIN_ACKED, State

NODELAY = Config(nodelay=True)


def in_flight(data: int, fin: bool) -> Script:
    """Data, 2 bytes a segment, and a FIN, all out, a while after the handshake."""
    s = established(NODELAY, mss=1000)
    s.conn.smss = 2
    s.advance(5)
    with s.together():
        s.send(data)
        if fin:
            s.conn.shutdown(1, s.now)
    s.take()
    s.events()
    assert s.conn.snd_nxt == s.seq(f"a+{data + fin}")
    return s


@pytest.mark.parametrize("options", ["", "sackok"])
@pytest.mark.parametrize("fin", [False, True])
def test_every_part_of_every_small_flight(fin: bool, options: str) -> None:
    for data, acked in product(range(5), range(6)):
        if not 0 < acked <= data + fin:
            continue
        s = in_flight(data, fin)
        s.conn.sack_on = bool(options)
        s.advance(0.1)
        s.conn.rtx_count = 3  # as if there had been time-outs; these are over
        s.recv(f". seq=b ack=a+{acked}")
        c = s.conn
        everything = acked == data + fin
        assert (c.snd_una, c.snd_nxt) == (s.seq(f"a+{acked}"), s.seq(f"a+{data + fin}"))
        assert c.unacked_bytes == data - min(acked, data)
        assert c.fin_acked == (everything and fin)
        assert s.events() == (ACKED if 0 < data <= acked else 0) | (FIN_ACKED if c.fin_acked else 0)
        assert c.progress_at == c.heard_at == s.now
        assert c.rtx_count == 0
        # An algorithm is made once data was acknowledged, not for a FIN alone
        assert (c.congestion is None, c.rate is None) == (data == 0, data == 0)
        assert c.rtx_at == (NEVER if everything else s.now + c.rto)
        assert everything is False or c.tlp_at == NEVER
        s.expect_state(State.FIN_WAIT_2 if c.fin_acked else State.FIN_WAIT_1 if fin else State.ESTABLISHED)


def test_the_ack_of_a_fin_alone_is_no_news_of_data() -> None:
    s = in_flight(2, True)
    s.recv(". seq=b ack=a+2")
    assert s.events() == ACKED
    s.recv(". seq=b ack=a+3")
    assert s.events() == FIN_ACKED


def test_what_was_acknowledged_leaves_the_queue_and_the_rest_stays() -> None:
    """A part of a segment, then the rest of it: what is sent again begins where the acknowledgment ended."""
    s = established(NODELAY)
    s.send(b"abcdef")
    s.expect("P. seq=a ack=b", b"abcdef")
    s.recv(". seq=b ack=a+1")
    assert s.conn.unacked_bytes == 5
    s.expect_after(s.conn.info().rto, "P. seq=a+1 ack=b", b"bcdef")
    s.recv(". seq=b ack=a+5")
    s.expect_after(s.conn.info().rto, "P. seq=a+5 ack=b", b"f")
    s.recv(". seq=b ack=a+6")
    s.silent_for(100)


def test_the_window_grows_by_what_was_acknowledged() -> None:
    """RFC 5681 3.1: in slow start by the data of each ACK, SMSS at most; a FIN is no data."""
    for data, fin in ((1, False), (2, True), (1000, False), (1000, True)):
        s = established(Config(nodelay=True, congestion_control="reno", pacing=False))
        before = s.conn.cwnd
        with s.together():
            s.send(data)
            if fin:
                s.conn.shutdown(1, s.now)
        s.take()
        s.recv(f". seq=b ack=a+{data + fin}")
        assert s.conn.cwnd - before in (0, data)
        assert s.conn.info().cwnd == s.conn.cwnd


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_the_first_data_has_a_delivery_rate(size: int) -> None:
    """Counted from when it left, a single byte too."""
    s = established(NODELAY)
    s.advance(1)
    s.send(size)
    s.take()
    s.advance(0.1)
    s.recv(f". seq=b ack=a+{size}")
    assert s.conn.info().delivery_rate == 10 * size


class Told(CongestionControl):
    """Writes down what it is told."""

    told: list[tuple[int, int, int, int, bool]]

    def on_ack(self, ack: Ack) -> None:
        self.told = [*getattr(self, "told", []), (ack.acked, ack.delivered, ack.lost, ack.flight, ack.in_recovery)]

    def on_congestion_event(self, kind: int, flight: int, now: int) -> None:
        raise AssertionError


def test_what_is_acknowledged_without_ado_is_told_as_it_is() -> None:
    s = established(Config(nodelay=True, congestion_control=Told))
    s.send(5)
    s.take()
    s.recv(". seq=b ack=a+2")
    s.recv(". seq=b ack=a+5")
    with s.together():
        s.send(1)
        s.conn.shutdown(1, s.now)
    s.take()
    s.recv(". seq=b ack=a+7")
    assert isinstance(s.conn.congestion, Told)
    assert s.conn.congestion.told == [(2, 2, 0, 5, False), (3, 3, 0, 3, False), (1, 1, 0, 2, False)]


def test_whatever_is_heard_puts_keepalive_off() -> None:
    """RFC 9293 3.8.4: an ACK of nothing new too."""
    s = established(Config(keepalive=True, keepalive_idle=10, keepalive_interval=2))
    s.expect_after(10, ". seq=a-1 ack=b")
    s.expect_after(2, ". seq=a-1 ack=b")
    assert s.conn.keepalive_probes == 2
    s.recv(". seq=b ack=a")
    assert (s.conn.keepalive_probes, s.conn.heard_at) == (0, s.now)
    s.silent_for(9.999_999_999)
    s.expect_after(0.000_000_001, ". seq=a-1 ack=b")


@pytest.mark.parametrize("window", [0, 1])
def test_a_closed_window_that_is_said_again_is_patience_renewed(window: int) -> None:
    """MUST-37, also around what is in flight (SHLD-17); one byte is not closed."""
    s = established(NODELAY)
    s.send(2)
    s.take()
    s.advance(0.1)
    s.recv(f". seq=b ack=a wnd={window}")
    s.take()
    assert s.conn.persist_at == NEVER
    assert s.conn.progress_at == (s.now if window == 0 else s.now - ns(0.1))


def test_an_orphan_s_patience_is_not_renewed() -> None:
    s = established(Config(nodelay=True, orphan_timeout=60))
    with s.together():
        s.send(2)
        s.conn.close(s.now, flush=True)
    s.take()
    closed = s.now
    s.advance(0.1)
    s.recv(". seq=b ack=a wnd=0")
    s.take()
    assert s.conn.progress_at == closed


def test_patience_is_not_renewed_while_the_window_is_open() -> None:
    s = established()
    s.advance(3)
    began = s.conn.progress_at
    s.recv(". seq=b ack=a")
    assert s.conn.progress_at == began


def has_scoreboard(s: Script) -> bool:
    return s.conn.recovery is not None


@pytest.mark.parametrize("options", ["", "sackok"])
def test_an_ack_of_nothing_new_opens_no_scoreboard(options: str) -> None:
    """It is made when something is in flight and the peer reports a hole, with SACK or by a duplicate ACK."""
    s = established(options=options)
    s.recv(". seq=b ack=a")
    assert not has_scoreboard(s)
    s.recv(f". seq=b ack=a {'sack=a+1:a+2' if options else ''}")
    assert not has_scoreboard(s)
    s.send(1)
    s.expect("P. seq=a ack=b len=1")
    s.recv(". seq=b ack=a wnd=60000")  # says something new: no duplicate
    assert not has_scoreboard(s)
    s.recv(". seq=b ack=a wnd=60000")
    assert has_scoreboard(s) == (not options)


def test_what_came_twice_is_no_news_when_nothing_is_in_flight() -> None:
    """A late D-SACK: there is no scoreboard to look it up in, and none is made for it."""
    s = established(options="sackok")
    s.send(1000)
    s.take()
    s.recv(". seq=b ack=a+1000")
    s.recv(". seq=b ack=a+1000 sack=a:a+1000")
    assert not has_scoreboard(s)


def test_without_sack_the_option_is_not_looked_at() -> None:
    s = established()
    s.send(3000)
    s.take()
    s.recv(". seq=b ack=a wnd=60000 sack=a+1000:a+2000")
    assert not has_scoreboard(s)


def test_a_scoreboard_goes_when_all_is_acknowledged() -> None:
    s = established(options="sackok")
    s.send(3000)
    s.take()
    s.recv(". seq=b ack=a+1000")
    s.recv(". seq=b ack=a+1000 sack=a+2000:a+3000")
    assert has_scoreboard(s)
    assert s.conn.tlp_at == NEVER  # RFC 8985 7.2: RACK is at work
    s.take()
    s.recv(". seq=b ack=a+2000")
    s.recv(". seq=b ack=a+3000")
    s.send(1000)
    s.take()
    s.recv(". seq=b ack=a+4000")
    assert not has_scoreboard(s)
    s.silent_for(RTO * 100)


@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_reported_puts_an_end_to_the_probe(size: int) -> None:
    """RFC 8985 7.2: RACK's timer is at work then, for a single byte too. An ACK that reports nothing leaves it."""
    s = established(NODELAY, options="sackok")
    for _ in range(2):
        s.send(size)
        s.take()
        s.silent_for(0.001)
    s.silent_for(RTT - 0.001)
    s.recv(f". seq=b ack=a sack=a+{size}:a+{2 * size}")
    s.silent()
    assert s.conn.tlp_at == NEVER
    assert s.conn.reo_at < NEVER
    s.recv(". seq=b ack=A")
    assert has_scoreboard(s)  # which remembers the reordering
    s.send(size)
    s.take()
    probe_at = s.conn.tlp_at
    assert probe_at < NEVER
    s.recv(f". seq=b ack=a+{2 * size} wnd=60000")
    assert s.conn.tlp_at == probe_at


def test_a_scoreboard_that_waited_for_news_of_a_probe_goes_with_it() -> None:
    """RFC 8985 7.4: a D-SACK says that both arrived, when nothing is in flight any more."""
    s = established(Config(rto_min=1.0), options="sackok ts=1000/0")
    s.send(988)
    s.expect("P. seq=a ack=b len=988")
    s.expect_after(0.402, "P. seq=a ack=b len=988")
    s.advance(0.1)
    s.recv(". seq=b ack=a+988")
    assert has_scoreboard(s)
    s.recv(". seq=b ack=a+988 sack=a:a+988")
    assert not has_scoreboard(s)


def test_the_ack_of_a_fin_that_is_not_out_is_none() -> None:
    """In CLOSE-WAIT with a FIN queued behind data that the window holds back: the data's ACK is not the FIN's."""
    s = close_wait(Config(nodelay=True))
    s.recv(". seq=b+1 ack=a wnd=1")
    with s.together():
        s.send(2)
        s.conn.close(s.now, flush=True)
    s.expect_after(0.2, ". seq=a ack=b+1 len=1")
    s.recv(". seq=b+1 ack=a+1 wnd=0")
    assert not s.conn.fin_acked
    s.expect_state(State.LAST_ACK)
    s.recv(". seq=b+1 ack=a+1 wnd=100")
    s.expect("FP. seq=a+1 ack=b+1 len=1")
    s.recv(". seq=b+1 ack=a+2")
    s.expect_state(State.LAST_ACK)
    s.recv(". seq=b+1 ack=a+3")
    s.expect_gone(None)
