"""Options: MSS, window scale, timestamps with PAWS, SACK blocks (RFC 9293 3.2, RFC 7323, RFC 2018)."""

from __future__ import annotations

import pytest

from support.script import A_MSS, Script
from support.states import ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, Stage, established, fin_wait_2, listen, syn_sent
from utcp.core.config import Config
from utcp.core.states import State

DAY = 86400


class TestSyn:
    def test_the_order_on_the_wire(self) -> None:
        s = Script(Config(receive_buffer=1 << 20))
        s.connect()
        sent = s.expect("S seq=a-1 mss=* ws=* sackok ts=*/0")
        mss = A_MSS.to_bytes(2, "big").hex()
        ts = int(sent.seg.ts_val).to_bytes(4, "big").hex()
        assert sent.seg.to_bytes()[20:].hex() == f"0204{mss}01010402" + f"0101080a{ts}00000000" + "01030305"
        assert sent.seg.buf[20:].hex() == sent.seg.to_bytes()[20:].hex()

    @pytest.mark.parametrize(
        ("config", "options"),
        [
            (Config(window_scaling=False), "sackok ts=*/0"),
            (Config(timestamps=False), "sackok ws=7"),
            (Config(sack=False), "ts=*/0 ws=7"),
            (Config(window_scaling=False, timestamps=False, sack=False), ""),
        ],
    )
    def test_what_is_off_is_not_offered_and_not_accepted(self, config: Config, options: str) -> None:
        s = Script(config)
        s.connect()
        s.expect(f"S seq=a-1 mss={A_MSS} {options}")
        s = listen(config)
        s.recv("S seq=b-1 mss=1000 sackok ts=1/0 ws=5")
        s.expect(f"S. seq=a-1 ack=b mss={A_MSS} {options.replace('/0', '/1')}")

    @pytest.mark.parametrize("offered", ["", "sackok", "ts=77/0", "ws=3", "sackok ts=77/0 ws=3"])
    def test_a_syn_ack_answers_only_what_was_offered(self, offered: str) -> None:
        s = listen()
        s.recv(f"S seq=b-1 mss=1000 {offered}")
        s.expect(f"S. seq=a-1 ack=b mss={A_MSS} " + offered.replace("77/0", "*/77").replace("ws=3", "ws=7"))

    def test_an_unknown_option_changes_nothing(self) -> None:
        s = listen()
        syn = bytearray(s.segment("S seq=b-1 mss=1000").to_bytes())
        syn[12] = 7 << 4
        s.recv_bytes(bytes(syn) + bytes([253, 4, 1, 2]))
        s.expect(f"S. seq=a-1 ack=b mss={A_MSS}")


class TestMss:
    def test_it_is_what_the_path_carries(self) -> None:
        for mtu in (576, 1280, 1500, 9000):
            s = Script(mtu=mtu)
            s.connect()
            s.expect(f"S seq=a-1 mss={mtu - 48} ws=* sackok ts=*/0")

    def test_max_segment_size_limits_both_directions(self) -> None:
        s = Script(Config(max_segment_size=700))
        s.connect()
        s.expect("S seq=a-1 mss=700 ws=* sackok ts=*/0")
        s.recv("S. seq=b-1 ack=a mss=1400")
        s.expect(". seq=a ack=b")
        s.send(700)
        s.expect("P. seq=a ack=b len=700")

    def test_MUST_16_the_smaller_of_theirs_and_the_paths(self) -> None:
        for mss, sent in ((500, 500), (9000, A_MSS)):
            s = established(mss=mss)
            s.send(20_000)
            assert s.take()[0].seg.data_len == sent

    def test_RFC_6691_options_come_out_of_the_segment(self) -> None:
        s = established(mss=1000, options="ts=9/0")
        s.send(5000)
        assert s.take()[0].seg.data_len == 988

    @pytest.mark.parametrize("mss", [1, 8, 40])
    def test_a_tiny_mss_does_not_make_tiny_segments(self, mss: int) -> None:
        s = established(mss=mss, options="ts=9/0")
        s.send(500)
        assert s.take()[0].seg.data_len >= 40

    def test_it_may_be_lowered_before_the_handshake(self) -> None:
        s = syn_sent()
        s.set_option("max_segment_size", 300)
        s.recv("S. seq=b-1 ack=a mss=1000")
        s.expect(". seq=a ack=b")
        s.send(300)
        s.expect("P. seq=a ack=b len=300")

    def test_it_may_be_lowered_on_a_connection(self) -> None:
        s = established()
        s.set_option("max_segment_size", 300)
        s.send(600)
        s.expect(". seq=a ack=b len=300")
        s.expect("P. seq=a+300 ack=b len=300")


class TestWindowScale:
    def test_both_ways(self) -> None:
        s = established(Config(receive_buffer=1 << 20), options="ws=7", wnd=5000)
        s.recv(". seq=b ack=a wnd=10")  # 1280 bytes
        s.send(5000)
        s.expect(". seq=a ack=b len=1000 wnd=32768")  # 1 MiB >> 5

    @pytest.mark.parametrize("passive", [False, True])
    def test_the_window_of_a_syn_is_never_scaled(self, passive: bool) -> None:
        """RFC 7323 2.2."""
        s = listen(Config(receive_buffer=1 << 20)) if passive else syn_sent(Config(receive_buffer=1 << 20))
        if passive:
            s.recv("S seq=b-1 mss=1000 ws=7 wnd=2000")
            assert s.take()[0].seg.wnd == 65535
            s.recv(". seq=b ack=a wnd=16")
            s.accept()
        else:
            s.recv("S. seq=b-1 ack=a mss=1000 ws=7 wnd=2000")
            s.expect(". seq=a ack=b wnd=32768")
        s.send(5000)
        assert sum(out.seg.data_len for out in s.take()) == 2000

    def test_without_theirs_neither_is_scaled(self) -> None:
        s = established(Config(receive_buffer=1 << 20), wnd=1500)
        s.send(5000)
        s.expect(". seq=a ack=b len=1000 wnd=65535")

    def test_a_shift_above_14_counts_as_14(self) -> None:
        """RFC 7323 2.3."""
        s = established(Config(initial_window=100), options="ws=200")
        s.recv(". seq=b ack=a wnd=1")
        s.send(50_000)
        assert [out.seg.data_len for out in s.take()] == [1000] * 16
        assert s.engine.counters.bad_window_scales == 1

    @pytest.mark.parametrize(("buffer", "shift"), [(1, 0), (65535, 0), (65536, 1), (1 << 20, 5), (1 << 30, 14)])
    def test_the_shift_is_the_smallest_that_does(self, buffer: int, shift: int) -> None:
        s = Script(Config(receive_buffer=buffer))
        s.connect()
        s.expect(f"S seq=a-1 mss=* sackok ts=*/0 ws={shift}")

    def test_a_scaled_edge_moves_left_by_rounding_only(self) -> None:
        """SHLD-14; but nobody reads here, and a full buffer may cost less than 2**shift bytes (RFC 7323 2.4)."""
        s = established(Config(receive_buffer=1 << 20), options="ws=7")
        edge = 0
        for i in range(300):
            s.recv(f"P. seq=b+{i * 7} ack=a len=7")
            s.advance(0.04)
            for out in s.take():
                now_at = (out.seg.ack - s.seq("b")) % 2**32 + (out.seg.wnd << 5)
                assert now_at > edge - (1 << 5)
                edge = max(edge, now_at)
        assert edge <= (1 << 20) + (1 << 5)  # and never runs ahead of the buffer

    def test_small_segments_cannot_grow_the_buffer(self) -> None:
        """Rounding the window up at each of them would let the right edge follow the sender for ever."""
        s = established(Config(receive_buffer=1 << 16, delayed_ack=0), options="ws=7")
        for _ in range(3000):
            s.recv("P. seq=B ack=a len=31")
            s.take()
        assert s.conn.readable_bytes <= (1 << 16) + 2

    def test_a_peer_that_offers_no_shift_still_takes_ours(self) -> None:
        """RFC 7323 2.2: an offer of 0 is an offer."""
        s = listen(Config(receive_buffer=1 << 20))
        s.recv("S seq=b-1 mss=1000 ws=0")
        s.expect(f"S. seq=a-1 ack=b mss={A_MSS} ws=5")
        s.recv("P. seq=b ack=a len=10")
        s.accept()
        s.expect_after(0.04, ". seq=a ack=b+10 wnd=32767")


class TestTimestamps:
    def test_every_segment_carries_them(self) -> None:
        s = established(options="ts=100/0")
        s.send(b"x")
        s.expect("P. seq=a ack=b len=1 ts=*/*")
        s.recv("P. seq=b ack=a+1 len=5 ts=200/0")
        s.expect_after(0.04, ". seq=a+1 ack=b+5 ts=*/200")

    def test_the_clock_ticks_in_milliseconds(self) -> None:
        s = established(options="ts=100/0")
        s.send(b"x")
        first = s.take()[0].seg.ts_val
        s.silent_for(0.25)
        s.recv(". seq=b ack=a+1")
        s.send(b"x")
        assert s.take()[0].seg.ts_val - first == 250

    def test_a_delayed_ack_echoes_the_first_segment(self) -> None:
        """RFC 7323 4.3 (2): TS.Recent moves only with a segment at or before Last.ACK.sent."""
        s = established(options="ts=100/0")
        s.recv("P. seq=b ack=a len=500 ts=200/0")
        s.recv("P. seq=b+500 ack=a len=10 ts=210/0")
        s.expect_after(0.04, ". seq=a ack=b+510 ts=*/200")

    def test_a_segment_behind_a_hole_is_not_echoed(self) -> None:
        s = established(options="ts=100/0")
        s.recv("P. seq=b+10 ack=a len=10 ts=200/0")
        s.expect(". seq=a ack=b ts=*/100")
        s.recv("P. seq=b ack=a len=10 ts=201/0")
        s.expect(". seq=a ack=b+20 ts=*/201")

    @pytest.mark.parametrize("stage", [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2], ids=str)
    def test_PAWS_an_older_timestamp_is_dropped_and_answered(self, stage: Stage) -> None:
        """RFC 7323 5.3 R1."""
        s = established(options="ts=1000/0")
        if stage is not ESTABLISHED:
            s.shutdown()
            s.take()
        if stage is FIN_WAIT_2:
            s.recv(". seq=b ack=a+1 ts=1000/0")
        s.recv("P. seq=b ack=A len=10 ts=999/0")
        s.expect(f". seq={stage.a} ack=b ts=*/1000")
        assert s.conn.readable_bytes == 0
        s.recv("P. seq=b ack=A len=10 ts=1000/0")
        assert s.conn.readable_bytes == 10
        s.expect_after(0.04, f". seq={stage.a} ack=b+10")

    def test_PAWS_holds_across_the_wrap_of_the_clock(self) -> None:
        s = established(options=f"ts={2**32 - 5}/0")
        s.recv("P. seq=b ack=a len=10 ts=3/0")
        assert s.conn.readable_bytes == 10
        s.expect_after(0.04, ". seq=a ack=b+10 ts=*/3")
        s.recv(f"P. seq=b+10 ack=a len=10 ts={2**32 - 1}/0")
        s.expect(". seq=a ack=b+10 ts=*/3")
        assert s.conn.readable_bytes == 10

    def test_PAWS_a_fin_too(self) -> None:
        s = established(options="ts=1000/0")
        s.recv("F. seq=b ack=a ts=999/0")
        s.expect(". seq=a ack=b")
        s.expect_state(State.ESTABLISHED)

    def test_PAWS_not_for_resets(self) -> None:
        """RFC 7323 5.2: RSTs are not subject to it."""
        s = established(options="ts=1000/0")
        s.recv("R. seq=b ack=a ts=1/0")
        s.expect_gone(ConnectionResetError)

    def test_PAWS_is_forgotten_after_24_days_of_idleness(self) -> None:
        """RFC 7323 5.5."""
        s = established(options="ts=1000/0")
        s.silent_for(25 * DAY)
        s.recv("P. seq=b ack=a len=10 ts=500/0")
        assert s.conn.readable_bytes == 10
        s.expect_after(0.04, ". seq=a ack=b+10 ts=*/500")

    def test_a_segment_without_them_is_dropped(self) -> None:
        """RFC 7323 3.2: SHOULD, silently."""
        s = established(options="ts=1000/0")
        s.recv("P. seq=b ack=a len=10 nots")
        s.silent_for(1)
        assert s.conn.readable_bytes == 0

    def test_a_reset_without_them_is_heard(self) -> None:
        s = established(options="ts=1000/0")
        s.recv("R. seq=b ack=a nots")
        s.expect_gone(ConnectionResetError)

    def test_they_are_ignored_when_not_agreed_on(self) -> None:
        s = established()
        s.recv("P. seq=b ack=a len=10 ts=5/0")
        s.recv("P. seq=b+10 ack=a len=10 ts=4/0")
        s.expect(". seq=a ack=b+20")
        assert s.conn.readable_bytes == 20

    @pytest.mark.parametrize("cause", ["abort", "unread data", "linger", "late data", "syn"])
    def test_R_16_our_reset_carries_them(self, cause: str) -> None:
        """RFC 7323 3.2: SHOULD."""
        s = established(Config(linger=0 if cause == "linger" else None, rfc5961_syn=False), options="ts=1000/0")
        if cause == "unread data":
            s.recv("P. seq=b ack=a len=1 ts=1000/0")
        if cause == "late data":
            s.close()
            s.expect("F. seq=a ack=b ts=*/1000")
            s.recv("P. seq=b ack=a len=1 ts=1000/0")
            s.expect("R. seq=a+1 ack=b ts=*/1000")
        elif cause == "syn":
            s.recv("S seq=b+1 mss=1000 ts=1000/0")
            s.expect("R. seq=a ack=b ts=*/1000")
        else:
            s.abort() if cause == "abort" else s.close()
            s.expect(f"R. seq=a ack={'b+1' if cause == 'unread data' else 'b'} ts=*/1000")


class TestSack:
    def test_the_block_of_the_latest_segment_comes_first(self) -> None:
        """RFC 2018 4."""
        s = established(options="sackok")
        s.recv("P. seq=b+1000 ack=a len=1000")
        s.expect(". seq=a ack=b sack=b+1000:b+2000")
        s.recv("P. seq=b+3000 ack=a len=1000")
        s.expect(". seq=a ack=b sack=b+3000:b+4000,b+1000:b+2000")
        s.recv("P. seq=b+5000 ack=a len=1000")
        s.expect(". seq=a ack=b sack=b+5000:b+6000,b+3000:b+4000,b+1000:b+2000")
        s.recv("P. seq=b+2000 ack=a len=1000")
        s.expect(". seq=a ack=b sack=b+1000:b+4000,b+5000:b+6000")
        s.recv("P. seq=b ack=a len=1000")
        s.expect(". seq=a ack=b+4000 sack=b+5000:b+6000")
        s.recv("P. seq=b+4000 ack=a len=1000")
        s.expect(". seq=a ack=b+6000")

    @pytest.mark.parametrize(("options", "blocks"), [("sackok", 4), ("sackok ts=1/0", 3)])
    def test_as_many_as_fit(self, options: str, blocks: int) -> None:
        s = established(options=options)
        for i in range(1, 10):
            s.recv(f"P. seq=b+{i * 2000} ack=a len=1000")
            sent = s.expect(". seq=a ack=b *")
        assert [left - s.seq("b") for left, _ in sent.seg.sack] == [18000 - 2000 * i for i in range(blocks)]

    def test_none_without_permission(self) -> None:
        s = established()
        s.recv("P. seq=b+1000 ack=a len=1000")
        s.expect(". seq=a ack=b")

    def test_across_the_wrap(self) -> None:
        s = established(options="sackok", b_iss=2**32 - 1001)
        s.recv("P. seq=b+500 ack=a len=1000")
        s.expect(f". seq=a ack=b sack={2**32 - 500}:500")

    def test_they_ride_on_data_and_leave_room_for_themselves(self) -> None:
        s = established(options="sackok")
        s.recv("P. seq=b+1000 ack=a len=1000")
        s.take()
        s.send(3000)
        for out in s.take():
            assert len(out.seg.sack) == 1
            assert out.seg.data_len + 12 <= 1000

    def test_they_go_on_after_our_fin(self) -> None:
        s = established(options="sackok")
        s.shutdown()
        s.take()
        s.recv(". seq=b ack=a+1")
        s.recv("P. seq=b+1000 ack=a+1 len=1000")
        s.expect(". seq=a+1 ack=b sack=b+1000:b+2000")

    @pytest.mark.parametrize(
        "blocks", ["a+0:a+5000", "a+9000:a+9500", "a-500:a-100", "a+500:a+100", "a+100:a+100", "b:b+9"]
    )
    def test_no_block_that_is_received_does_harm(self, blocks: str) -> None:
        s = established(options="sackok")
        s.send(1000)
        s.take()
        s.recv(f". seq=b ack=a sack={blocks}")
        s.advance(5)
        assert {out.seg.seq for out in s.take()} == {s.seq("a")}
        s.recv(". seq=b ack=a+1000")
        s.silent_for(10)


def test_the_options_of_a_syn_do_nothing_later() -> None:
    """MUST-65."""
    s = fin_wait_2()
    s.recv("P. seq=b ack=a+1 len=10")
    late = bytearray(s.segment(". seq=b+10 ack=a+1 len=0").to_bytes())
    late[12] = 6 << 4
    s.recv_bytes(bytes(late) + bytes([2, 4, 0, 1]))
    s.expect_after(0.04, ". seq=a+1 ack=b+10")
