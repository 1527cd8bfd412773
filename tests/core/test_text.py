"""RFC 9293 3.10.7.4, seventh and eighth: every small segment in front of, at, in and beyond the window.

What arrives is told byte by byte; what is answered, when and how often, is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from support.script import Script
from support.states import close_wait, closing, established, fin_wait_1, fin_wait_2, last_ack
from utcp.core.config import Config
from utcp.core.states import State
from utcp.wire.seq import seq_add

DELAY = 0.04
STREAM = bytes(range(100, 200))  # B's bytes from b on


def piece(left: int, right: int) -> bytes:
    """What B has sent between two offsets from b; what lies before b was other text."""
    return bytes(max(0, -left)) + STREAM[max(left, 0) : max(right, 0)]


def with_window(window: int) -> Script:
    s = established()
    s.conn.rcv_adv = seq_add(s.conn.rcv_nxt, window)
    return s


CASES = [
    (window, offset, length, fin)
    for window, offset, length, fin in product((0, 1, 2, 3, 50), range(-3, 4), range(6), (False, True))
    if (length or fin) and (offset == 0 or (offset < window and offset + length + fin > 0 < window))
]


@pytest.mark.parametrize("window", [0, 1, 2, 3, 50])
def test_every_small_segment_around_the_window(window: int) -> None:
    for _, offset, length, fin in [case for case in CASES if case[0] == window]:
        s = with_window(window)
        end = offset + length
        left, right = max(offset, 0), min(end, window)
        fin_fits = fin and end <= window
        flags = "FP." if fin else "P."
        s.recv(f"{flags} seq=b{offset:+} ack=a len={length}", piece(offset, end)[:length])
        if left == 0:
            taken = max(right, 0)
            if offset < 0 or end > window or fin_fits:
                s.expect(f". seq=a ack=b+{taken + fin_fits}")
            else:
                s.expect_after(DELAY, f". seq=a ack=b+{taken}")
        else:
            s.expect(". seq=a ack=b")  # once
            taken = right
            s.recv(f"P. seq=b ack=a len={left}", piece(0, left))
            s.expect(f". seq=a ack=b+{taken + fin_fits}")
        s.silent_for(1)
        s.expect_state(State.CLOSE_WAIT if fin_fits else State.ESTABLISHED)
        assert s.conn.fin_received == fin_fits
        assert s.read() == STREAM[:taken], (offset, length, fin)
        assert s.conn.at_eof == fin_fits
        assert s.engine.counters.bytes_in == s.conn.bytes_in
        s.take()


def test_a_segment_without_text_and_fin_is_an_acknowledgment() -> None:
    for make in (established, fin_wait_1, fin_wait_2):
        for offset in (0, 1, 10):
            s = make()
            before = s.conn.state
            s.recv(f". seq=b+{offset} ack=A")
            s.silent_for(0.2)
            assert s.conn.state in (before, State.FIN_WAIT_2)
            assert s.conn.rcv_nxt == s.seq("b")


@pytest.mark.parametrize("make", [close_wait, closing, last_ack])
@pytest.mark.parametrize("flags", ["P.", "FP."])
def test_after_its_fin_the_peer_has_nothing_to_say(make: Callable[[], Script], flags: str) -> None:
    """Should not occur; the text is ignored, and so is a second FIN."""
    s = make()
    for offset in (1, 2):
        s.recv(f"{flags} seq=b+{offset} ack=a len=10")
        s.silent()
    assert (s.conn.rcv_nxt, s.conn.bytes_in, s.conn.readable_bytes) == (s.seq("b+1"), 0, 0)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_fin_beyond_a_hole_waits_for_it(length: int) -> None:
    """Each is answered by one duplicate ACK, and the FIN is reached with the byte before it."""
    s = established()
    s.recv(f"F. seq=b+3 ack=a len={length}", piece(3, 3 + length))
    s.expect(". seq=a ack=b")
    assert s.conn.fin_known
    assert not s.conn.fin_received
    s.recv("P. seq=b ack=a len=2", piece(0, 2))
    s.expect(". seq=a ack=b+2") if length else s.expect_after(DELAY, ". seq=a ack=b+2")
    s.expect_state(State.ESTABLISHED)
    s.recv("P. seq=b+2 ack=a len=1", piece(2, 3))
    s.expect(f". seq=a ack=b+{3 + length + 1}")
    s.expect_state(State.CLOSE_WAIT)
    assert s.read() == STREAM[: 3 + length]


def test_a_fin_that_was_cut_off_is_not_remembered() -> None:
    s = with_window(2)
    s.recv("F. seq=b ack=a len=3", piece(0, 3))
    s.expect(". seq=a ack=b+2")
    assert not s.conn.fin_known
    s.recv("P. seq=b+2 ack=a len=1", piece(2, 3))
    s.expect_after(DELAY, ". seq=a ack=b+3")
    s.expect_state(State.ESTABLISHED)


@pytest.mark.parametrize(("size", "dropped"), [(1000, 0), (1001, 1)])
def test_short_of_memory_a_connection_has_room_for_two_segments(size: int, dropped: int) -> None:
    """What there is no room for is dropped as if it was lost: FIN, ACK and all."""
    config = Config(max_memory=1000)
    s = established(config)
    s.conn.rmss = 1000
    s.recv("P. seq=b ack=a len=1000")
    s.recv(f"F. seq=b+1000 ack=a len={size}")
    s.take()
    assert s.engine.counters.memory_drops == dropped
    assert s.conn.readable_bytes == (1000 if dropped else 1000 + size)
    s.expect_state(State.ESTABLISHED if dropped else State.CLOSE_WAIT)


@pytest.mark.parametrize("written", [0, 1, 2])
def test_text_for_a_user_who_has_closed(written: int) -> None:
    """Flushing, our own bytes come first, even a single one: then the RST takes the place of the FIN."""
    s = established(Config(nodelay=True))
    with s.together():
        s.send(written)
        s.conn.close(s.now, flush=True)
    s.take()
    s.recv("P. seq=b ack=a len=10")
    if written == 0:
        s.expect("R. seq=a+1 ack=b *")
        s.expect_gone(None)
        assert s.conn.discarded == 10
        return
    s.take()
    s.expect_state(State.FIN_WAIT_1)
    s.recv(f". seq=b+10 ack=a+{written}")
    s.expect(f"R. seq=a+{written + 1} ack=b+10")
    s.expect_gone(None)
    assert s.recorder.closed_reasons == ["unread-data"]
    assert s.conn.discarded == 10
