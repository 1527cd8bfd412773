"""Deadlines: every one of them wakes its connection, on the instant, is told by name, and ends with it."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from support.script import Script
from support.states import established, fin_wait_1, fin_wait_2, syn_received, syn_sent
from utcp.core.config import Config
from utcp.core.deadlines import disarm, earliest_deadline
from utcp.core.output import output
from utcp.core.stack import NEVER
from utcp.core.states import State
from utcp.core.user_timeout import on_user_timeout_option, patience_with

DEADLINES = (
    *("rtx_at", "tlp_at", "reo_at", "persist_at", "delack_at", "pace_at", "fin_wait_2_at", "linger_at", "keepalive_at"),
)
JUST = 1e-9


def idle() -> Script:
    s = established()
    assert earliest_deadline(s.conn) == NEVER
    return s


@pytest.mark.parametrize("name", DEADLINES)
def test_each_of_them_may_be_the_earliest(name: str) -> None:
    s = idle()
    for other in DEADLINES:
        setattr(s.conn, other, s.now + 2)
    setattr(s.conn, name, s.now + 1)
    assert earliest_deadline(s.conn) == s.now + 1
    output(s.conn)
    assert s.engine.next_timeout() == s.now + 1
    disarm(s.conn)
    assert earliest_deadline(s.conn) == NEVER


def test_a_deadline_that_has_its_entry_gets_no_other_one() -> None:
    s = established()
    s.send(1)
    s.take()
    entries = len(s.engine.stack.wheel)
    for at in (s.conn.armed_at, s.conn.armed_at + 1, NEVER):
        s.conn.rtx_at = at
        output(s.conn)
        assert len(s.engine.stack.wheel) == entries
    s.conn.rtx_at = s.conn.armed_at - 1
    output(s.conn)
    assert len(s.engine.stack.wheel) == entries + 1
    assert s.engine.next_timeout() == s.conn.rtx_at


@pytest.mark.parametrize("name", DEADLINES)
def test_each_of_them_ends_with_the_connection(name: str) -> None:
    s = idle()
    setattr(s.conn, name, s.now + 1_000_000_000)
    s.abort()
    s.expect("R. seq=a ack=b")
    assert (getattr(s.conn, name), s.conn.armed_at) == (NEVER, NEVER)
    s.silent_for(600)
    s.expect_gone(None)


def test_a_delayed_ack_is_told_once_and_on_time() -> None:
    s = idle()
    s.recv("P. seq=b ack=a len=10")
    s.expect_after(0.04, ". seq=a ack=b+10")
    assert s.recorder.timers == ["delayed-ack"]
    s.silent_for(600)
    assert s.recorder.timers == ["delayed-ack"]


def test_the_end_of_FIN_WAIT_2_is_told_once() -> None:
    s = fin_wait_2(Config(fin_timeout=5), close=True)
    s.silent_for(5 - JUST)
    s.expect_state(State.FIN_WAIT_2)
    s.silent_for(JUST)
    s.expect_gone(None)
    assert s.recorder.timers == ["fin-wait-2"]
    assert s.recorder.closed_reasons == ["fin-wait-2-expired"]


def test_a_window_that_stays_small_is_filled_after_the_override() -> None:
    """RFC 9293 3.8.6.2.1: 200 ms; that is the persist timer's too. One byte of window is not closed."""
    s = established()
    s.recv(". seq=b ack=a wnd=1")
    s.send(10)
    s.expect_after(0.2, ". seq=a ack=b len=1")
    assert s.recorder.timers == ["persist"]


def test_a_keepalive_is_told_and_what_it_ends_is_counted() -> None:
    config = Config(keepalive=True, keepalive_idle=10, keepalive_interval=2, keepalive_count=2)
    s = established(config)
    s.expect_after(10, ". seq=a-1 ack=b")
    s.expect_after(2, ". seq=a-1 ack=b")
    s.expect_after(2, "R. seq=a ack=b")
    s.expect_gone(TimeoutError)
    assert s.recorder.timers == ["keepalive"] * 3
    assert s.engine.counters.timeouts == 1
    assert str(s.conn.error).endswith("2 keepalive probes unanswered")


def test_one_unanswered_keepalive_is_never_enough() -> None:
    """MUST-29, whatever the user timeout."""
    s = established(Config(keepalive=True, keepalive_idle=10, keepalive_interval=2, user_timeout=5))
    s.expect_after(10, ". seq=a-1 ack=b")
    s.expect_after(2, ". seq=a-1 ack=b")
    s.expect_after(2, "R. seq=a ack=b")
    s.expect_gone(TimeoutError)


def test_a_user_timeout_ends_keepalive_on_the_instant() -> None:
    """RFC 9293 3.8.3: idle for as long as the timeout is enough, however many probes there were."""
    config = Config(keepalive=True, keepalive_idle=10, keepalive_interval=2, keepalive_count=100, user_timeout=14)
    s = established(config)
    s.expect_after(10, ". seq=a-1 ack=b")
    s.expect_after(2, ". seq=a-1 ack=b")
    s.expect_after(2, "R. seq=a ack=b")
    s.expect_gone(TimeoutError)


def test_giving_up_says_what_was_not_answered() -> None:
    s = syn_sent(Config(syn_r2=180))
    s.advance(180)
    s.take()
    s.expect_gone(TimeoutError)
    assert "no answer to" in str(s.conn.error) and "SYNs" in str(s.conn.error)
    assert s.engine.counters.timeouts == 1
    s = syn_received(Config(syn_ack_timeout=5))
    s.advance(5)
    s.take()
    assert s.conn.error is not None
    assert "no answer to" in str(s.conn.error)
    s = fin_wait_1(Config(r2=100))
    s.advance(100)
    s.take()
    s.expect_gone(TimeoutError)
    assert "nothing acknowledged for 100 s" in str(s.conn.error)
    assert s.engine.counters.timeouts == 1


@pytest.mark.parametrize("seconds", [0.001, 3])
def test_the_connect_timeout_is_exact(seconds: float) -> None:
    s = syn_sent(Config(connect_timeout=seconds))
    s.advance(seconds - JUST)
    s.take()
    s.expect_state(State.SYN_SENT)
    s.advance(JUST)
    s.take()
    s.expect_gone(TimeoutError)


def test_failed_opens_are_counted() -> None:
    s = syn_sent()
    s.recv("R. seq=0 ack=a")
    s.expect_gone(ConnectionRefusedError)
    assert s.engine.counters.failed_opens == 1
    s = syn_received()
    s.recv("R seq=b")
    assert s.engine.counters.failed_opens == 1
    s = fin_wait_1()
    s.recv("R. seq=b ack=a+1")
    s.expect_gone(ConnectionResetError)
    assert s.engine.counters.failed_opens == 0


@pytest.mark.parametrize(("written", "seconds"), [(0, 10), (1, 5)])
def test_close_timeout_is_for_data_and_orphan_timeout_for_the_fin(written: int, seconds: float) -> None:
    s = established(Config(close_timeout=5, orphan_timeout=10))
    with s.together():
        s.send(written)
        s.close(flush=True)
    s.take()
    s.advance(seconds - JUST)
    s.take()
    s.expect_state(State.FIN_WAIT_1)
    s.advance(JUST)
    s.expect_gone(TimeoutError)


@pytest.mark.parametrize(
    ("r2", "field", "seconds"),
    [
        (120, -1, None),  # absent
        (120, 0, None),  # reserved
        (120, 0x8000, None),
        (120, 1, 120),  # ADV_UTO is R2
        (120, 121, 121),
        (120, 122, 122),
        (120, 3600, 3600),
        (120, 3601, 3600),  # U_LIMIT
        (120, 0x7FFF, 3600),
        (120, 0x8003, 180),  # minutes
        (120, 0x803D, 3600),
        (50, 1, 100),  # L_LIMIT
    ],
)
def test_the_peers_user_timeout_is_adopted_within_limits(r2: int, field: int, seconds: int | None) -> None:
    """RFC 5482 3.1."""
    s = established(Config(r2=r2, user_timeout_option=True))
    said = s.segment(". seq=b ack=a")
    said.user_timeout = field
    on_user_timeout_option(s.conn, said)
    assert s.conn.adopted_timeout == (-1 if seconds is None else seconds * 1_000_000_000)
    assert patience_with(s.conn) == (r2 if seconds is None else seconds) * 1_000_000_000


@pytest.mark.parametrize("config", [Config(), Config(user_timeout_option=True, user_timeout=5)])
def test_not_without_the_option_nor_against_the_users_own(config: Config) -> None:
    s = established(config)
    said = s.segment(". seq=b ack=a")
    said.user_timeout = 200
    on_user_timeout_option(s.conn, said)
    assert s.conn.adopted_timeout == -1


def test_there_is_no_probe_when_patience_is_over() -> None:
    """A user timeout that comes before the PTO: both are due at the same instant, and the end is all there is."""
    s = established(Config(user_timeout=0.2), options="sackok")
    s.send(1)
    s.expect("P. seq=a ack=b len=1")
    assert s.conn.tlp_at == s.conn.rtx_at == s.now + 200_000_000
    s.silent_for(0.2)
    s.expect_gone(TimeoutError)
    assert s.recorder.timers == ["retransmit"]
    assert s.engine.counters.loss_probes == 0


@pytest.mark.parametrize("make", [established, fin_wait_1])
def test_who_is_given_up_waits_for_nothing_and_counts_no_further(make: Callable[[Config], Script]) -> None:
    s = make(Config(r2=1))
    if s.conn.state is State.ESTABLISHED:
        s.send(1)
        s.take()
    s.advance(1 - JUST)
    s.take()
    count, rto = s.conn.rtx_count, s.conn.rto
    s.silent_for(JUST)
    s.expect_gone(TimeoutError)
    assert (s.conn.rtx_count, s.conn.rto) == (count, rto)
    assert {getattr(s.conn, name) for name in DEADLINES} == {NEVER}
    assert not s.engine.pending()
    assert str(s.conn.error).startswith("[Errno 110] Connection timed out: nothing acknowledged for 1 s, ")


def test_giving_up_says_since_when_and_how_often() -> None:
    s = established(Config(r2=2.5))
    s.advance(1000)
    s.send(1)
    s.take()
    s.advance(2.5)
    s.take()
    text = f"Connection timed out: nothing acknowledged for 2.5 s, {s.conn.rtx_count} retransmissions"
    assert s.conn.error is not None
    assert s.conn.error.args == (errno.ETIMEDOUT, text)


@pytest.mark.parametrize(("closed_after", "waited"), [(20, 80), (100, 120), (119, 120)])
def test_giving_up_an_orphan_says_since_when_too(closed_after: float, waited: float) -> None:
    """Its own time begins with the close, and R2 goes on; what is said is how long nothing was acknowledged."""
    s = established(Config(r2=120, orphan_timeout=60))
    s.advance(1000)
    s.send(1)
    s.take()
    s.advance(closed_after)
    s.take()
    s.close()
    s.take()
    s.advance(waited - closed_after - JUST)
    s.take()
    assert not s.conn.closed
    s.advance(JUST)
    s.expect_gone(TimeoutError)
    assert f"nothing acknowledged for {waited} s, " in str(s.conn.error)


def test_a_single_syn_is_no_plural() -> None:
    s = syn_sent(Config(connect_timeout=0.5))
    s.silent_for(0.5)
    assert s.conn.error is not None
    assert s.conn.error.args == (errno.ETIMEDOUT, "Connection timed out: no answer to 1 SYN")


def test_the_interval_of_window_probes_doubles_sixteen_times_at_most() -> None:
    """Which is a minute at least, whatever the RTO; shifted further it would not fit into 64 bits."""
    s = established(Config(rto_min=0.001, persist_max=3600, r2=86_400), rtt=0)
    assert s.conn.rto == 1_000_000
    s.recv(". seq=b ack=a wnd=0")
    s.send(1)
    for doubled in [*range(17), 16, 16]:
        s.expect_after(0.001 * 2**doubled, ". seq=a-1 ack=b")


def test_a_deadline_that_has_passed_is_over_before_anything_is_sent() -> None:
    """Between handle_timeout and transmit somebody may look; nothing is due any more."""
    for case, s in waiting_scripts().items():
        name = case.split(",")[0]
        s.now = getattr(s.conn, name)
        assert s.now < NEVER, name
        with s.together():
            s.engine.handle_timeout(s.now)
            assert getattr(s.conn, name) > s.now, name
            assert s.engine.pending(), name
        s.take()


def waiting_scripts() -> dict[str, Script]:
    """For each of these deadlines a connection that waits for it."""
    scripts = {}
    scripts["delack_at"] = s = established()
    s.recv("P. seq=b ack=a len=10")
    scripts["tlp_at"] = s = established(options="sackok")
    s.send(1)
    scripts["rtx_at"] = s = established(Config(tlp=False))
    s.send(1)
    scripts["persist_at"] = s = established(wnd=0)
    s.send(1)
    scripts["persist_at, window of one byte"] = s = established()
    s.recv(". seq=b ack=a wnd=1")
    s.send(10)
    scripts["keepalive_at"] = established(Config(keepalive=True))
    scripts["pace_at"] = s = established(Config(congestion_control="reno"))
    s.send(10_000)
    s.take()
    s.advance(0.1)
    s.recv(". seq=b ack=A")
    s.send(20_000)
    for s in scripts.values():
        s.take()
    return scripts
