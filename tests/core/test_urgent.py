"""Urgent data: RFC 9293 3.8.5 and RFC 6093 (MUST-30 to MUST-33, MUST-62, SHLD-13 is for applications)."""

from __future__ import annotations

from support.states import close_wait, established, syn_sent
from utcp.core.states import READABLE, URGENT


class TestSending:
    def test_MUST_62_the_pointer_points_behind_the_last_urgent_byte(self) -> None:
        s = established()
        s.conn.send_urgent(b"abc", s.now)
        with s.together():
            pass
        s.expect("PU. seq=a ack=b urg=3", b"abc")

    def test_what_comes_later_is_not_urgent(self) -> None:
        s = established()
        with s.together():
            s.conn.send_urgent(b"abc", s.now)
            s.send(b"defgh")
        s.expect("PU. seq=a ack=b urg=3", b"abcdefgh")

    def test_what_was_queued_before_is(self) -> None:
        """The pointer tells where the urgent data ends; the reader hurries up to there."""
        s = established(wnd=1000)
        s.send(1500)
        s.expect(". seq=a ack=b len=1000")
        s.conn.send_urgent(b"abc", s.now)
        with s.together():
            pass
        s.recv(". seq=b ack=a+1000 wnd=1000")
        s.expect("PU. seq=a+1000 ack=b len=503 urg=503")

    def test_MUST_31_any_length(self) -> None:
        s = established()
        s.conn.send_urgent(bytes(3000), s.now)
        with s.together():
            pass
        s.expect("U. seq=a ack=b len=1000 urg=3000")
        s.expect("U. seq=a+1000 ack=b len=1000 urg=2000")
        s.expect("PU. seq=a+2000 ack=b len=1000 urg=1000")

    def test_farther_than_the_field_can_say(self) -> None:
        s = established()
        s.conn.send_urgent(bytes(100_000), s.now)
        with s.together():
            pass
        assert {out.seg.urg for out in s.take()} == {65_535}

    def test_it_does_not_wait_for_nagle(self) -> None:
        s = established()
        s.send(b"a")
        s.expect("P. seq=a ack=b", b"a")
        s.conn.send_urgent(b"b", s.now)
        with s.together():
            pass
        s.expect("PU. seq=a+1 ack=b urg=1", b"b")

    def test_a_retransmission_says_it_again(self) -> None:
        s = established()
        s.conn.send_urgent(b"abc", s.now)
        with s.together():
            pass
        s.expect("PU. seq=a ack=b urg=3", b"abc")
        s.expect_after(0.3, "PU. seq=a ack=b urg=3", b"abc")
        s.recv(". seq=b ack=a+3")
        s.send(b"calm")
        s.expect("P. seq=a+3 ack=b", b"calm")

    def test_before_the_handshake(self) -> None:
        s = syn_sent()
        s.conn.send_urgent(b"abc", s.now)
        s.recv("S. seq=b-1 ack=a mss=1000")
        s.expect("PU. seq=a ack=b urg=3", b"abc")


class TestReceiving:
    def test_MUST_32_the_user_is_told_at_once_and_MUST_33_how_much(self) -> None:
        s = established()
        s.events()
        s.recv("PU. seq=b ack=a urg=6", b"abc")  # the rest of it has not arrived
        assert s.events() & (URGENT | READABLE) == URGENT | READABLE
        assert s.conn.urgent_bytes == 6
        assert s.read() == b"abc"
        assert s.conn.urgent_bytes == 3
        s.recv("PU. seq=b+3 ack=a urg=3", b"def and more")
        s.advance(0.04)
        s.expect(". seq=a ack=b+15")
        assert not s.events() & URGENT
        assert s.read(3) == b"def"
        assert s.conn.urgent_bytes == 0
        assert s.read() == b" and more"

    def test_the_data_stays_in_line(self) -> None:
        """RFC 6093 6: SO_OOBINLINE in effect."""
        s = established()
        s.recv("PU. seq=b ack=a urg=3", b"abcdef")
        assert s.read() == b"abcdef"
        s.expect_after(0.04, ". seq=a ack=b+6")

    def test_a_later_pointer_is_news_and_an_earlier_is_not(self) -> None:
        s = established()
        s.recv("U. seq=b ack=a urg=10")
        assert s.events() & URGENT and s.conn.urgent_bytes == 10
        s.recv("U. seq=b ack=a urg=5")
        assert not s.events() & URGENT
        s.recv("U. seq=b ack=a urg=20")
        assert s.events() & URGENT
        assert s.conn.info().state == s.conn.state

    def test_MUST_66_it_is_heard_though_our_window_is_shut(self) -> None:
        s = established()
        s.recv("U. seq=b ack=a urg=1 wnd=0")
        assert s.events() & URGENT

    def test_a_pointer_without_the_bit_or_to_what_was_received_is_nothing(self) -> None:
        s = established()
        s.events()
        s.recv("P. seq=b ack=a urg=9", b"abc")
        s.recv("PU. seq=b ack=a urg=3", b"abc")
        s.expect(". seq=a ack=b+3")
        assert not s.events() & URGENT
        assert s.conn.urgent_bytes == 0

    def test_after_the_peers_fin_it_is_ignored(self) -> None:
        """3.10.7.4, sixth: CLOSE-WAIT and later: this should not occur."""
        s = close_wait()
        s.events()
        s.recv("U. seq=b+1 ack=a urg=5")
        assert not s.events() & URGENT
        assert s.conn.urgent_bytes == 0
