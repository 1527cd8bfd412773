"""TIME-WAIT: RFC 9293 3.10.7.4 and 3.6.1, RFC 1337, RFC 6191, RFC 5961."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from support.script import Script
from support.states import established, time_wait
from utcp.core.config import Config
from utcp.core.engine import Engine
from utcp.core.states import State
from utcp.core.time_wait import expire_time_wait
from utcp.wire.seq import seq_gt

JUST = 1e-9
TS = "ts=1000/0"


def waiting(config: Config | None = None, options: str = "") -> Script:
    """TIME-WAIT on a port that has a listener."""
    return time_wait(config, passive=True, options=options)


class TestOldSegments:
    def test_T_01_with_the_timestamp_that_is_known_already(self) -> None:
        """PAWS is about older ones: a FIN sent again within a tick restarts the wait."""
        s = waiting(options=TS)
        s.silent_for(50)
        s.recv(f"F. seq=b ack=a+1 ts={s.b_ts + 100}/0")
        s.take()
        s.silent_for(50)
        s.recv(f"F. seq=b ack=a+1 ts={s.b_ts + 100}/0")
        s.take()
        assert s.engine.counters.time_wait_restarted == 2
        s.recv(f"F. seq=b ack=a+1 ts={s.b_ts + 99}/0")
        s.take()
        assert s.engine.counters.time_wait_restarted == 2

    def test_T_01_a_repeated_fin_is_acknowledged_and_restarts_the_wait(self) -> None:
        s = time_wait()
        s.silent_for(59)
        s.recv("F. seq=b ack=a+1")
        s.expect(". seq=a+1 ack=b+1")
        s.silent_for(60 - JUST)
        s.expect_state(State.TIME_WAIT)
        s.silent_for(JUST)
        s.expect_gone()
        assert s.engine.counters.time_wait_restarted == 1
        assert s.recorder.timers.count("2msl") == 1

    def test_T_01_with_data_too(self) -> None:
        """The last data and the FIN came in one segment."""
        s = time_wait()
        s.silent_for(50)
        s.recv("FP. seq=b-9 ack=a+1 len=9")
        s.expect(". seq=a+1 ack=b+1")
        s.silent_for(60 - JUST)
        s.expect_state(State.TIME_WAIT)
        s.silent_for(JUST)
        s.expect_gone()

    @pytest.mark.parametrize(
        "text",
        [
            "P. seq=b-10 ack=a len=10",  # old data
            ". seq=b ack=a",  # an old ACK
            ". seq=b-1 ack=a+1",  # a late window probe
            "P. seq=b+1 ack=a+1 len=10",  # what B cannot have sent
            "P. seq=b ack=a+1 len=1",  # a byte where its FIN was
            "F. seq=b+1 ack=a+1",  # a second FIN
            ". seq=b+100000 ack=a+1",
            "P. seq=b-100000 ack=a+1 len=10",
        ],
    )
    def test_T_02_T_03_others_are_answered_and_do_not_prolong_it(self, text: str) -> None:
        s = time_wait()
        s.silent_for(59)
        s.recv(text)
        s.expect(". seq=a+1 ack=b+1")
        s.silent_for(1 - JUST)
        s.expect_state(State.TIME_WAIT)
        s.silent_for(JUST)
        s.expect_gone()

    def test_T_02_an_ack_in_order_is_not_answered(self) -> None:
        """Or two ends that both wait would answer each other for 2MSL."""
        s = time_wait()
        s.recv(". seq=b+1 ack=a+1")
        s.silent_for(60 - JUST)
        s.expect_state(State.TIME_WAIT)
        s.silent_for(JUST)
        s.expect_gone()

    @pytest.mark.parametrize("flags", ["F", "P", "none", "U"])
    def test_a_segment_without_ack_is_dropped(self, flags: str) -> None:
        s = time_wait()
        s.silent_for(30)
        s.recv(f"{flags} seq=b len=3")
        s.silent_for(30 - JUST)
        s.expect_state(State.TIME_WAIT)
        s.silent_for(JUST)  # and has not prolonged it
        s.expect_gone()

    def test_PAWS_an_old_fin_does_not_prolong_the_wait(self) -> None:
        s = time_wait(options=TS)
        s.silent_for(59)
        s.recv("F. seq=b ack=a+1 ts=999/0")
        s.expect(". seq=a+1 ack=b+1")
        s.silent_for(1)
        s.expect_gone()

    def test_the_answer_carries_timestamps_and_the_window(self) -> None:
        s = time_wait(options=TS)
        s.silent_for(1)
        s.recv("F. seq=b ack=a+1 ts=9999999/0")
        sent = s.expect(". seq=a+1 ack=b+1 ts=*/9999999")
        assert sent.seg.ts_val == s.now // 1_000_000 + 5_000_000
        assert sent.seg.wnd > 0


class TestReset:
    @pytest.mark.parametrize("text", ["R seq=b+1", "R. seq=b+1 ack=a+1", "R seq=b", "R seq=b+1000"])
    def test_R_10_T_11_is_ignored(self, text: str) -> None:
        """RFC 1337, fix F1: it must not be assassinated."""
        s = time_wait()
        s.silent_for(30)
        s.recv(text)
        s.silent_for(30 - JUST)
        s.expect_state(State.TIME_WAIT)
        s.silent_for(JUST)
        s.expect_gone()

    def test_R_10_by_the_text_of_RFC_9293_it_deletes_the_record(self) -> None:
        s = time_wait(Config(rfc1337=False))
        s.recv("R seq=b+1000")
        s.expect_state(State.TIME_WAIT)
        s.recv("R seq=b+1")
        s.expect_gone()


class TestNewIncarnation:
    """RFC 6191 and MAY-2: which SYN may take over the pair before 2MSL have passed."""

    @staticmethod
    def accepts(s: Script, text: str) -> None:
        seq = s.segment(text).seq
        s.recv(text)
        (sent,) = s.take()
        assert sent.seg.flags == 0x12, s.failure("no SYN,ACK")
        assert sent.seg.ack == (seq + 1) % 2**32
        assert seq_gt(sent.seg.seq, s.seq("a+1")), "the new ISN is not above the old SND.NXT"
        counts = s.engine.states()
        assert counts.get(State.TIME_WAIT, 0) == 0 and counts[State.SYN_RECEIVED] == 1
        assert s.engine.counters.time_wait_reused == 1
        iss, b = int(sent.seg.seq), int(sent.seg.ack)
        options = " ".join(word for word in text.split() if "ts" in word)
        s.recv(f". seq={b} ack={(iss + 1) % 2**32} {options}")
        assert s.accept().state == State.ESTABLISHED

    @staticmethod
    def refuses(s: Script, text: str) -> None:
        s.recv(text)
        s.expect(". seq=a+1 ack=b+1")
        s.expect_state(State.TIME_WAIT)

    def test_T_04_no_timestamps_higher_number(self) -> None:
        self.accepts(waiting(), "S seq=b+2 mss=1000")

    def test_T_04_the_ISN_is_above_even_when_the_clock_gives_a_lower_one(self) -> None:
        s = waiting()
        s.iss = s.seq("a-100000")
        self.accepts(s, "S seq=b+2 mss=1000")

    def test_T_04_the_ISN_of_the_clock_is_kept_when_it_is_above(self) -> None:
        s = waiting()
        s.iss = s.seq("a+7777777")
        s.recv("S seq=b+2 mss=1000")
        s.expect("S. seq=a+7777777 ack=b+3 *")

    @pytest.mark.parametrize("seq", ["b+1", "b", "b-1", "b-1000", "b-100000"])
    def test_T_05_no_timestamps_no_higher_number(self, seq: str) -> None:
        self.refuses(waiting(), f"S seq={seq} mss=1000")

    def test_T_05_the_peer_resets_upon_the_challenge_and_the_wait_goes_on(self) -> None:
        s = waiting()
        s.silent_for(59)
        self.refuses(s, "S seq=b mss=1000")
        s.recv("R seq=b+1")
        s.silent_for(1 - JUST)
        s.expect_state(State.TIME_WAIT)
        s.silent_for(JUST)
        s.expect_state(State.CLOSED)

    @pytest.mark.parametrize("seq", ["b+2", "b+1", "b-100000", "b+1000000"])
    def test_T_06_a_newer_timestamp_whatever_the_number(self, seq: str) -> None:
        self.accepts(waiting(options=TS), f"S seq={seq} mss=1000 ts=8000000/0")

    def test_T_07_the_same_timestamp_and_a_higher_number(self) -> None:
        s = waiting(options=TS)
        last = s.b_ts + s.now // 1_000_000
        self.accepts(s, f"S seq=b+2 mss=1000 ts={last}/0")

    def test_T_07_the_same_timestamp_and_no_higher_number(self) -> None:
        s = waiting(options=TS)
        last = s.b_ts + s.now // 1_000_000
        self.refuses(s, f"S seq=b+1 mss=1000 ts={last}/0")

    @pytest.mark.parametrize("seq", ["b+2", "b", "b+1000000"])
    def test_T_08_an_older_timestamp_whatever_the_number(self, seq: str) -> None:
        self.refuses(waiting(options=TS), f"S seq={seq} mss=1000 ts=500/0")

    def test_T_06_T_08_across_the_wrap_of_the_timestamp_clock(self) -> None:
        options = f"ts={2**32 - 5}/0"
        for text, verdict in ((f"ts={2**32 - 6}/0", self.refuses), ("ts=3/0", self.accepts)):
            s = Script()
            s.listen()
            s.recv(f"S seq=b-1 mss=1000 {options}")
            s.expect("S. seq=a-1 ack=b *")
            s.recv(f". seq=b ack=a {options}")
            s.accept()
            s.ts = True
            s.close()
            s.expect("F. seq=a ack=b")
            s.recv(f"F. seq=b ack=a+1 {options}")
            s.expect(". seq=a+1 ack=b+1")
            verdict(s, f"S seq=b-500 mss=1000 {text}")

    def test_T_09_timestamps_before_and_none_now(self) -> None:
        self.accepts(waiting(options=TS), "S seq=b+2 mss=1000 nots")
        self.refuses(waiting(options=TS), "S seq=b+1 mss=1000 nots")

    @pytest.mark.parametrize("seq", ["b+2", "b+1", "b-1000"])
    def test_RFC_6191_none_before_and_timestamps_now(self, seq: str) -> None:
        self.accepts(waiting(), f"S seq={seq} mss=1000 ts=1/0")

    def test_T_10_no_listener(self) -> None:
        s = time_wait()
        s.recv("S seq=b+2 mss=1000")
        s.expect("R. seq=0 ack=b+3")
        s.recv("S seq=b mss=1000")
        s.expect(". seq=a+1 ack=b+1")
        s.expect_state(State.TIME_WAIT)

    def test_T_10_a_full_backlog_leaves_the_record(self) -> None:
        s = Script()
        s.listen(backlog=1)
        s.recv("S seq=b-1 mss=1000")
        s.expect("S. seq=a-1 ack=b *")
        s.recv(". seq=b ack=a")
        s.accept()
        s.recv("S seq=b-1 mss=1000", port=77)
        s.expect("S. seq=a-1 ack=b *", port=77)
        s.close()
        s.expect("F. seq=a ack=b")
        s.recv("F. seq=b ack=a+1")
        s.expect(". seq=a+1 ack=b+1")
        s.recv("S seq=b+2 mss=1000")
        s.silent()
        assert s.engine.counters.accept_overflows == 1
        assert s.engine.states()[State.TIME_WAIT] == 1

    @pytest.mark.parametrize("text", ["S. seq=b-1 ack=a", "S. seq=b+2 ack=a+1", "SF. seq=b+2 ack=a+1"])
    def test_T_12_a_syn_with_an_ack_is_challenged(self, text: str) -> None:
        self.refuses(waiting(), f"{text} mss=1000")

    def test_T_12_a_syn_fin_opens_as_a_syn_does(self) -> None:
        self.accepts(waiting(), "SF seq=b+2 mss=1000")
        self.refuses(waiting(), "SF seq=b mss=1000")

    def test_T_17_old_data_does_not_get_into_the_new_incarnation(self) -> None:
        """RFC 1337 H1: 2MSL later, or above the old numbers, it cannot."""
        s = waiting()
        s.recv("S seq=b+100000 mss=1000")
        (sent,) = s.take()
        s.recv(f". seq=b+100001 ack={(sent.seg.seq + 1) % 2**32}")
        conn = s.accept()
        next_one = (sent.seg.seq + 1) % 2**32
        s.recv(f"P. seq=b-50 ack={next_one} len=40")
        s.expect(f". seq={next_one} ack=b+100001")
        assert conn.readable_bytes == 0
        s.recv("P. seq=b-50 ack=a len=40")  # with the old ACK
        s.expect(f". seq={next_one} ack=b+100001")
        assert conn.readable_bytes == 0 and conn.state == State.ESTABLISHED

    def test_T_17_an_old_duplicate_ack_does_not_bring_about_a_reset_that_kills(self) -> None:
        """RFC 1337 H2, H3: the old connection's segments meet a SYN-SENT or an ESTABLISHED of the new one."""
        s = waiting()
        s.recv("S seq=b+100000 mss=1000")
        (sent,) = s.take()
        s.recv(f". seq=b+100001 ack={(sent.seg.seq + 1) % 2**32}")
        conn = s.accept()
        s.recv("R seq=b+1")  # a RST to the old incarnation, late
        s.silent()
        assert conn.state == State.ESTABLISHED


class TestLocalReuse:
    """T-13: our own connect over a pair in TIME-WAIT, a stated deviation."""

    def test_with_timestamps_once_the_clock_has_advanced(self) -> None:
        s = time_wait(options=TS)
        with pytest.raises(OSError, match="in use") as raised:
            s.connect()
        assert raised.value.errno == errno.EADDRINUSE
        s.expect_state(State.TIME_WAIT)
        s.silent_for(0.001)
        s.iss = s.seq("a-5000")
        last = s.a_ts
        s.ts = False
        s.connect()
        (sent,) = s.take()
        assert seq_gt(sent.seg.seq, s.seq("a+1"))
        assert sent.seg.ts_val > last
        s.expect_state(State.SYN_SENT)

    def test_not_before_an_answer_that_used_the_clock(self) -> None:
        s = time_wait(options=TS)
        s.silent_for(5)
        s.recv("F. seq=b ack=a+1")
        s.expect(". seq=a+1 ack=b+1")
        with pytest.raises(OSError, match="in use"):
            s.connect()
        s.silent_for(0.001)
        s.connect()
        s.take()

    def test_without_timestamps_never(self) -> None:
        s = time_wait()
        s.silent_for(59)
        with pytest.raises(OSError, match="in use"):
            s.connect()
        s.silent_for(1)
        s.connect()
        s.take()

    def test_it_can_be_switched_off(self) -> None:
        s = time_wait(Config(time_wait_reuse=False), options=TS)
        s.silent_for(59)
        with pytest.raises(OSError, match="in use"):
            s.connect()

    def test_ephemeral_ports_pass_over_what_waits(self) -> None:
        s = time_wait()
        ports = iter([s.a_port, s.a_port, 5000])
        engine = Engine(port_source=lambda: next(ports))
        path = engine.path("a", "b")
        first = engine.connect(path, 80, 0)
        assert first.local_port == s.a_port
        assert engine.connect(path, 80, 0).local_port == 5000

    def test_when_none_is_left_it_says_so(self) -> None:
        engine = Engine(port_source=lambda: 5000)
        path = engine.path("a", "b")
        engine.connect(path, 80, 0)
        with pytest.raises(OSError, match="no free TCP port") as raised:
            engine.connect(path, 80, 0)
        assert raised.value.errno == errno.EADDRNOTAVAIL


class TestDuration:
    @pytest.mark.parametrize("msl", [0.0, 0.0005, 0.001, 30.0, 120.0])
    def test_T_14_twice_the_MSL_never_early(self, msl: float) -> None:
        s = time_wait_with(Config(msl=msl))
        if msl:
            s.silent_for(2 * msl - JUST)
            s.expect_state(State.TIME_WAIT)
            s.silent_for(JUST)
        else:
            s.silent_for(0)
        s.expect_gone()

    def test_T_14_a_change_holds_for_records_made_after_it(self) -> None:
        s = Script(Config(msl=30))
        s.listen()

        def close_one(port: int, change: float | None = None) -> None:
            s.recv("S seq=b-1 mss=1000", port=port)
            s.expect("S. seq=a-1 ack=b *", port=port)
            s.recv(". seq=b ack=a", port=port)
            conn = s.accept()
            if change is not None:
                conn.set_option("msl", change, s.now)
            conn.close(s.now)
            with s.together():
                pass
            s.expect("F. seq=a ack=b", port=port)
            s.recv("F. seq=b ack=a+1", port=port)
            s.expect(". seq=a+1 ack=b+1", port=port)

        close_one(1)
        close_one(2, 5.0)
        close_one(3)
        assert s.engine.states()[State.TIME_WAIT] == 3
        s.silent_for(10)
        assert s.engine.states()[State.TIME_WAIT] == 2
        s.silent_for(50 - JUST)
        assert s.engine.states()[State.TIME_WAIT] == 2
        s.silent_for(JUST)
        assert State.TIME_WAIT not in s.engine.states()

    def test_T_14_a_clock_that_jumps_past_it(self) -> None:
        s = time_wait()
        s.now += 3600 * 10**9
        s.engine.handle_timeout(s.now)
        s.expect_gone()
        assert s.engine.next_timeout() is None

    def test_the_state_of_the_connection_object_follows_its_record(self) -> None:
        s = time_wait()
        conn = s.conn
        assert str(conn.state) == "TIME-WAIT"
        s.silent_for(60)
        assert str(conn.state) == "CLOSED"

    def test_many_expire_together(self) -> None:
        """However many steps the engine takes for it, `next_timeout` leads through all of them."""
        s = Script(Config(msl=1))
        s.listen(backlog=10_000)
        for port in range(1, 10_001):
            for text in ("S seq=b-1 mss=1000", ". seq=b ack=a", "F. seq=b ack=a+1"):
                s.engine.receive(s.path, s.segment(text, port=port).to_bytes(), s.now)
                if text.startswith("."):
                    s.accept().close(s.now)
                s.engine.transmit(s.now)
        assert s.engine.states()[State.TIME_WAIT] == 10_000
        s.now += 2 * 10**9
        steps = 0
        while (due := s.engine.next_timeout()) is not None:
            assert due <= s.now
            s.engine.handle_timeout(s.now)
            steps += 1
        assert s.engine.states() == {State.LISTEN: 1}
        assert 1 < steps < 100  # none of them long
        assert s.recorder.timers.count("2msl") == 10_000


class TestMany:
    def test_T_15_a_cap_evicts_what_would_end_first(self) -> None:
        s = Script(Config(max_time_wait=3))
        s.listen()
        for port in range(1, 6):
            wait_on(s, port)
            s.advance(1)
        assert s.engine.states()[State.TIME_WAIT] == 3
        assert s.engine.counters.time_wait_evicted == 2
        for port in range(1, 6):
            s.recv("F. seq=b ack=a+1", port=port)
            s.expect("R seq=a+1" if port < 3 else ". seq=a+1 ack=b+1", port=port)

    def test_T_15_a_cap_of_none_keeps_none(self) -> None:
        s = Script(Config(max_time_wait=0))
        s.listen()
        wait_on(s, 1)
        s.recv("F. seq=b ack=a+1", port=1)
        s.expect("R seq=a+1", port=1)

    def test_T_01_each_restart_is_its_own(self) -> None:
        s = Script()
        s.listen()
        for port in (1, 2, 3):
            wait_on(s, port)
            s.silent_for(10)
        s.recv("F. seq=b ack=a+1", port=1)  # at 30 s: ends at 90 s, the others at 70 and 80
        s.expect(". seq=a+1 ack=b+1", port=1)
        for wait, left in ((40, 2), (10, 1), (10, 0)):
            s.silent_for(wait - JUST)
            assert s.engine.states()[State.TIME_WAIT] == left + 1
            s.silent_for(JUST)
            assert s.engine.states().get(State.TIME_WAIT, 0) == left


def wait_on(s: Script, port: int) -> None:
    """A connection from that port of B's comes, is closed by A, and waits."""
    s.recv("S seq=b-1 mss=1000", port=port)
    s.expect("S. seq=a-1 ack=b *", port=port)
    s.recv(". seq=b ack=a", port=port)
    s.accept().close(s.now)
    with s.together():
        pass
    s.expect("F. seq=a ack=b", port=port)
    s.recv("F. seq=b ack=a+1", port=port)
    s.expect(". seq=a+1 ack=b+1", port=port)


def time_wait_with(config: Config) -> Script:
    """TIME-WAIT without looking at its state: it may be over at once."""
    s = Script(config)
    s.connect()
    s.expect("S seq=a-1 *")
    s.recv("S. seq=b-1 ack=a mss=1000")
    s.expect(". seq=a ack=b")
    s.close()
    s.expect("F. seq=a ack=b")
    s.recv("F. seq=b ack=a+1")
    s.expect(". seq=a+1 ack=b+1")
    return s


@pytest.mark.parametrize("make", [time_wait, waiting])
def test_nothing_of_the_connection_is_left_but_the_record(make: Callable[[], Script]) -> None:
    s = make()
    assert list(s.engine.connections()) == []
    assert s.engine.connection(s.path, s.a_port, s.b_port) is None
    assert s.engine.states()[State.TIME_WAIT] == 1
    s.close()
    s.abort()
    s.silent()
    s.expect_state(State.TIME_WAIT)


def test_the_window_of_an_answer_is_the_last_one_advertised() -> None:
    """In the wire's 16 bits: shifted as it was on the connection, and less what is unread."""
    s = established(Config(receive_buffer=100_000), options="ws=5")
    s.recv("P. seq=b ack=a len=1000")
    s.advance(1)
    s.take()
    s.shutdown()
    s.take()
    s.recv("F. seq=b+1000 ack=a+1")
    (last,) = s.take()
    s.expect_state(State.TIME_WAIT)
    s.recv("F. seq=b+1000 ack=a+1")
    (answer,) = s.take()
    assert answer.seg.wnd == last.seg.wnd > 0
    assert not answer.retransmission


@pytest.mark.parametrize("b_iss", [0xFFFFFF00, 0x7FFFFF00], ids=["wraps", "signed"])
def test_the_window_of_an_answer_across_the_wrap(b_iss: int) -> None:
    """An odd number of bytes, no scale."""
    s = time_wait(Config(receive_buffer=5001, window_scaling=False), b_iss=b_iss)
    s.recv("F. seq=b ack=a+1")
    assert s.expect(". seq=a+1 ack=b+1").seg.wnd == 5000
    s = time_wait(Config(receive_buffer=5002, window_scaling=False), b_iss=b_iss)
    s.recv("F. seq=b ack=a+1")
    assert s.expect(". seq=a+1 ack=b+1").seg.wnd == 5001


def test_an_old_SND_NXT_of_zero_is_a_number_like_any_other() -> None:
    s = time_wait(passive=True, a_iss=0xFFFFFFFE)
    assert s.seq("a+1") == 0
    s.recv("S seq=b+1000 mss=1000")
    assert [out.seg.ack for out in s.take()] == [s.seq("b+1001")]
    assert s.engine.counters.time_wait_reused == 1


@pytest.mark.parametrize("options", ["", TS])
def test_answers_of_one_instant_leave_together(options: str) -> None:
    """Each is as long as it says, in one train."""
    s = waiting(options=options)
    wait_on(s, 77) if not options else None
    with s.together():
        for _ in range(3):
            s.engine.receive(s.path, s.segment("F. seq=b ack=a+1").to_bytes(), s.now)
    for _ in range(3):
        s.expect(". seq=a+1 ack=b+1")


def test_an_answer_and_a_reset_share_a_train_the_short_one_last() -> None:
    """Neither is of a connection: both are NOBODY's."""
    s = waiting(options=TS)
    repeated, stray = s.segment("F. seq=b ack=a+1"), s.segment(". seq=5 ack=6 nots", port=99)
    s.engine.receive(s.path, repeated.to_bytes(), s.now)
    s.engine.receive(s.path, stray.to_bytes(), s.now)
    (train,) = s.engine.transmit(s.now)
    assert [len(datagram) for datagram in train.datagrams()] == [32, 20]
    s = waiting()
    s.engine.receive(s.path, s.segment("F. seq=b ack=a+1").to_bytes(), s.now)
    s.engine.receive(s.path, stray.to_bytes(), s.now)
    (train,) = s.engine.transmit(s.now)
    assert [len(datagram) for datagram in train.datagrams()] == [20, 20]


def test_answers_that_are_suppressed_are_counted() -> None:
    s = waiting(Config(challenge_ack_limit=0))
    for _ in range(3):
        s.recv("S seq=b-100 mss=1000")
        s.silent()
    assert s.engine.counters.challenge_acks_suppressed == 3
    s.recv("P. seq=b ack=a+1 len=1")
    s.expect(". seq=a+1 ack=b+1")
    assert s.engine.counters.challenge_acks_suppressed == 3


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7])
def test_no_more_than_so_many_expire_in_one_call(limit: int) -> None:
    """A bound on the pause; the call says whether there may be more."""
    s = Script(Config(msl=10))
    s.listen()
    for port in range(1, 6):
        wait_on(s, port)
    s.now += 20_000_000_000
    s.engine.stack.now = s.now
    left = 5
    while left > 0:
        more = expire_time_wait(s.engine.stack, limit)
        assert more == (left >= limit)
        left = max(left - limit, 0)
        assert s.engine.states().get(State.TIME_WAIT, 0) == left
    assert not expire_time_wait(s.engine.stack, limit)
    assert s.recorder.timers.count("2msl") == 5


@pytest.mark.parametrize("port", [1000, 40_000])
def test_the_end_is_told_to_the_path_it_was_on(port: int) -> None:
    """Whatever its number and the ports: a path with no user is given up."""
    s = Script(Config(msl=10), a_port=port)
    paths = [s.path] + [s.engine.path(("10.0.0.1", 9000), (f"10.0.0.{n}", 9000)) for n in (3, 4, 5)]
    assert paths == [0, 1, 2, 3]
    s.listen()
    for path in paths:
        s.recv("S seq=b-1 mss=1000", path=path)
        s.expect("S. seq=a-1 ack=b *", path=path)
        s.recv(". seq=b ack=a", path=path)
        s.accept().close(s.now)
        with s.together():
            pass
        s.expect("F. seq=a ack=b", path=path)
        s.recv("F. seq=b ack=a+1", path=path)
        s.expect(". seq=a+1 ack=b+1", path=path)
    users = [path.users for path in s.engine.stack.paths.paths if path is not None]
    assert users == [1, 1, 1, 1]
    s.silent_for(20)
    users = [path.users for path in s.engine.stack.paths.paths if path is not None]
    assert users == [0] * len(users)
    assert s.engine.states().get(State.TIME_WAIT, 0) == 0


def test_with_drop_syn_fin_a_plain_syn_still_opens_anew() -> None:
    s = waiting(Config(drop_syn_fin=True))
    s.recv("SF seq=b+1000 mss=1000")
    s.silent()
    s.expect_state(State.TIME_WAIT)
    s.recv("S seq=b+1000 mss=1000")
    assert [out.seg.ack for out in s.take()] == [s.seq("b+1001")]


def test_an_answer_to_old_data_uses_the_clock_too() -> None:
    """The next incarnation's first timestamp must be newer than any that the peer has seen."""
    s = time_wait(options=TS)
    s.advance(1)
    s.recv("P. seq=b-10 ack=a len=10")
    s.expect(". seq=a+1 ack=b+1")
    with pytest.raises(OSError, match="in use"):
        s.connect()
    s.advance(0.001)
    s.connect()
    s.expect("S *")
