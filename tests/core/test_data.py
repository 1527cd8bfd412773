"""Bytes: cutting into segments, PSH, order, overlap, duplicates, acknowledgments (RFC 9293 3.10.7.4)."""

from __future__ import annotations

import random
import socket

import pytest

from support.script import Script
from support.states import established
from utcp.core.config import Config
from utcp.core.states import ACKED, READABLE, SENT


def stream(n: int) -> bytes:
    """n bytes that show where they belong."""
    return bytes((i * 31 + (i >> 8)) & 0xFF for i in range(n))


def collect(s: Script, n: int) -> bytes:
    """What A has sent so far, put together by sequence number."""
    out = bytearray(n)
    for sent in s.take():
        at = (sent.seg.seq - s.seq("a")) % 2**32
        out[at : at + sent.seg.data_len] = sent.seg.data
    return bytes(out)


class TestSending:
    def test_SHLD_28_full_segments_and_MUST_61_psh_on_the_last(self) -> None:
        s = established(Config(initial_window=20))
        s.send(stream(10_000))
        for i in range(9):
            s.expect(f". seq=a+{i * 1000} ack=b len=1000")
        s.expect("P. seq=a+9000 ack=b", stream(10_000)[9000:])

    def test_the_bytes_are_the_ones_written(self) -> None:
        s = established(Config(initial_window=20, nodelay=True))
        data = stream(9000)
        for i in range(0, 9000, 450):
            s.send(data[i : i + 450])
            for sent in s.take():
                at = (sent.seg.seq - s.seq("a")) % 2**32
                assert sent.seg.data == data[at : at + sent.seg.data_len]
        assert s.conn.send_queue_size == 0

    def test_MUST_15_without_an_mss_option_536(self) -> None:
        s = established(mss=0)
        s.send(1000)
        s.expect(". seq=a ack=b len=536")

    def test_SHLD_27_writes_under_nagle_share_a_segment(self) -> None:
        s = established()
        s.send(b"x")
        s.expect("P. seq=a ack=b", b"x")
        for part in (b"a", b"bc", b"def"):
            s.send(part)
        s.recv(". seq=b ack=a+1")
        s.expect("P. seq=a+1 ack=b", b"abcdef")

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_bytes_may_be_written_and_changed_afterwards(self, kind: type) -> None:
        s = established()
        source = bytearray(b"hello")
        s.conn.send(source if kind is bytearray else kind(bytes(source)), s.now)
        source[:] = b"XXXXX"
        with s.together():
            pass
        s.expect("P. seq=a ack=b", b"hello")

    def test_writing_nothing_sends_nothing(self) -> None:
        s = established()
        s.send(b"")
        s.silent_for(10)

    def test_readiness_when_sent_and_when_acknowledged(self) -> None:
        s = established(wnd=1000)
        s.events()
        s.send(1500)
        assert (s.conn.send_queue_size, s.conn.unacked_bytes) == (500, 1500)
        assert s.events() & SENT
        s.take()
        s.recv(". seq=b ack=a+1000 wnd=1000")
        assert (s.conn.send_queue_size, s.conn.unacked_bytes) == (0, 500)
        assert s.events() & (SENT | ACKED) == SENT
        s.take()
        s.recv(". seq=b ack=a+1500")
        assert s.events() & ACKED
        assert s.conn.unacked_bytes == 0

    def test_a_fin_alone_is_no_news_of_bytes_sent(self) -> None:
        s = established()
        s.events()
        s.shutdown()
        s.expect("F. seq=a ack=b")
        assert not s.events() & SENT

    def test_an_ack_in_the_middle_of_a_segment(self) -> None:
        s = established()
        s.send(stream(2000))
        s.take()
        s.recv(". seq=b ack=a+700")
        assert s.conn.unacked_bytes == 1300
        s.advance(0.5)
        assert collect(s, 2000)[700:1700] == stream(2000)[700:1700]

    def test_an_old_ack_is_ignored(self) -> None:
        s = established()
        s.send(2000)
        s.take()
        s.recv(". seq=b ack=a+2000")
        s.recv(". seq=b ack=a+1000")
        assert s.conn.unacked_bytes == 0
        s.silent_for(10)

    def test_MAY_12_an_ack_far_below_is_challenged(self) -> None:
        """RFC 5961 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT."""
        s = established(wnd=1000)
        for i in range(5):
            s.send(1000)
            s.take()
            s.recv(f". seq=b ack=a+{1000 * (i + 1)} wnd=1000")
        s.recv("P. seq=b ack=a+4000 len=5 wnd=1000")
        s.take()
        assert s.conn.readable_bytes == 5
        s.advance(1)
        s.take()
        s.recv("P. seq=b+5 ack=a+3999 len=5 wnd=1000")
        s.expect(". seq=a+5000 ack=b+5")
        assert s.conn.readable_bytes == 5


class TestReceiving:
    def test_data_in_order(self) -> None:
        s = established()
        s.events()
        s.recv("P. seq=b ack=a", b"hello ")
        assert s.events() & READABLE
        s.recv("P. seq=b+6 ack=a", b"world")
        assert s.conn.readable_bytes == 11
        assert s.conn.peek(5) == b"hello"
        assert s.read(5) == b"hello"
        assert s.read() == b" world"
        assert s.read() == b"" and not s.conn.at_eof
        s.advance(0.04)
        s.expect(". seq=a ack=b+11")

    def test_a_duplicate_is_acknowledged_and_not_delivered(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"hello")
        s.expect_after(0.04, ". seq=a ack=b+5")
        s.recv("P. seq=b ack=a", b"hello")
        s.expect(". seq=a ack=b+5")
        assert s.read() == b"hello"

    def test_overlap_in_front_is_cut_off(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a", b"hello")
        s.recv("P. seq=b+2 ack=a", b"llo world")
        s.expect(". seq=a ack=b+11")
        assert s.read() == b"hello world"

    def test_data_in_reverse_order(self) -> None:
        s = established()
        data = stream(5000)
        for i in range(4000, 0, -1000):
            s.recv(f"P. seq=b+{i} ack=a", data[i : i + 1000])
            s.expect(". seq=a ack=b")
            assert s.conn.readable_bytes == 0
        s.recv("P. seq=b ack=a", data[:1000])
        s.expect(". seq=a ack=b+5000")
        assert s.read() == data

    @pytest.mark.parametrize("seed", range(20))
    def test_random_pieces_overlapping_and_repeated(self, seed: int) -> None:
        rng = random.Random(seed)
        s = established(b_iss=rng.choice([0xFFFFFFFF - 3000, 5]))
        data = stream(6000)
        pieces = [(i, min(6000, i + rng.randrange(1, 900))) for i in range(0, 6000, 300)]
        pieces += [(i, min(i + 300, 6000)) for i in range(0, 6000, 300)]
        rng.shuffle(pieces)
        for left, right in pieces:
            s.recv(f"P. seq=b+{left} ack=a", data[left:right])
            s.take()
        assert s.read() == data
        s.advance(0.04)
        s.take()
        assert s.names["B"] == s.seq("b+6000")

    def test_data_far_beyond_the_window_is_dropped_and_answered(self) -> None:
        s = established()
        s.recv("P. seq=b+70000 ack=a len=10")
        s.expect(". seq=a ack=b")
        s.recv("P. seq=b-10 ack=a len=10")
        s.expect(". seq=a ack=b")
        assert s.conn.readable_bytes == 0

    def test_data_that_reaches_beyond_the_window_is_cut_off(self) -> None:
        s = established(Config(receive_buffer=1000))
        s.recv("P. seq=b ack=a", stream(1400))
        s.take()
        assert s.read() == stream(1000)
        s.take()

    def test_bytes_held_out_of_order_win_over_later_ones(self) -> None:
        """Whichever: but one of them, and the same in the end."""
        s = established()
        s.recv("P. seq=b+5 ack=a", b"world")
        s.expect(". seq=a ack=b")
        s.recv("P. seq=b ack=a", b"helloWORLD!")
        s.expect(". seq=a ack=b+11")
        assert s.read() in (b"helloworld!", b"helloWORLD!")

    def test_the_window_counts_what_is_unread(self) -> None:
        s = established(Config(receive_buffer=5000))
        s.recv("P. seq=b ack=a len=1000")
        s.expect_after(0.04, ". seq=a ack=b+1000 wnd=4000")

    def test_data_while_only_the_sending_side_is_shut(self) -> None:
        s = established()
        s.shutdown(socket.SHUT_WR)
        s.expect("F. seq=a ack=b")
        s.recv("P. seq=b ack=a+1", b"still reading")
        assert s.read() == b"still reading"
        s.expect_after(0.04, ". seq=a+1 ack=b+13")


class TestTrains:
    def test_a_gro_buffer_is_many_segments(self) -> None:
        s = established()
        pieces = {i: stream(5500)[i : i + 1000] for i in range(0, 5500, 1000)}
        segments = [s.segment(f". seq=b+{i} ack=a", piece).to_bytes() for i, piece in pieces.items()]
        assert {len(x) for x in segments[:-1]} == {1020}
        s.recv_bytes(b"".join(segments), 1020)
        s.expect(". seq=a ack=b+5500")
        assert s.read() == stream(5500)

    def test_what_leaves_is_in_order_and_of_equal_length(self) -> None:
        s = established(Config(initial_window=50, nodelay=True))
        with s.together():
            s.send(stream(20_500))
        lengths = [out.seg.data_len for out in s.take()]
        assert lengths == [1000] * 20 + [500]

    def test_a_train_is_cut_into_the_datagrams_it_is_made_of(self) -> None:
        s = established(Config(initial_window=50, nodelay=True))
        s.conn.send(stream(20_500), s.now)
        trains = s.engine.transmit(s.now)
        for train in trains:
            datagrams = train.datagrams()
            assert len(datagrams) == train.count
            assert b"".join(datagrams) == train.payload()
            assert all(len(datagram) == train.segment_size for datagram in datagrams[:-1])
            assert len(datagrams[-1]) <= train.segment_size
        assert sum(train.count for train in trains) == 21
        assert len(trains) == 1
