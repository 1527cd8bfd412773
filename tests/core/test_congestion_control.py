"""The interface: what an algorithm is told by the engine, when, and what becomes of its answer (docs/congestion.md)."""

from __future__ import annotations

from typing import Any

import pytest

from support.script import RTO, Script
from support.states import established
from utcp.core.config import Config
from utcp.core.congestion import ECN, LOSS, TIMEOUT, UNLIMITED, Ack, CongestionControl, Cubic, NewReno, register
from utcp.core.congestion.window import leave_recovery, on_acked, on_congestion_event, on_spurious, recovers_by_itself
from utcp.wire.segment import RST

RTT_NS = 100_000_000


class Diary(CongestionControl):
    """Writes down what it is told; the window is as it was."""

    def __init__(self, mss: int, cwnd: int) -> None:
        super().__init__(mss, cwnd)
        self.acks: list[dict[str, Any]] = []
        self.events: list[tuple[Any, ...]] = []

    def on_ack(self, ack: Ack) -> None:
        names = (name for name in dir(Ack) if not name.startswith("_"))
        self.acks.append({name: getattr(ack, name) for name in names})

    def on_congestion_event(self, kind: int, flight: int, now: int) -> None:
        self.remember()
        self.events.append(("event", kind, flight, now))
        self.ssthresh = self.cwnd = flight // 4

    def on_spurious(self, now: int) -> None:
        super().on_spurious(now)
        self.events.append(("spurious", now))

    def on_idle(self, idle: int, window: int, now: int) -> None:
        self.events.append(("idle", idle, window, now))


class Unlimited(Diary):
    """Without PRR, as a model-based algorithm might want it."""

    def __init__(self, mss: int, cwnd: int) -> None:
        super().__init__(mss, cwnd)
        self.prr = False

    def on_ack(self, ack: Ack) -> None:
        self.cwnd += 1


class Broken(CongestionControl):
    def on_ack(self, ack: Ack) -> None:
        raise ZeroDivisionError("no such window")


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, mss: int, cwnd: int) -> CongestionControl:
        return Diary(mss, cwnd)

    def __repr__(self) -> str:
        return "Unhashable"


def algorithm(s: Script) -> Any:
    return s.conn.congestion


def kept(s: Script) -> Diary:
    control = s.conn.congestion
    assert isinstance(control, Diary)
    return control


def acknowledged(s: Script, segments: int = 10) -> Script:
    s.send(1000 * segments)
    assert len(s.take()) == segments
    s.recv(". seq=b ack=A")
    return s


class TestChoice:
    @pytest.mark.parametrize(
        ("choice", "kind"), [("cubic", Cubic), ("reno", NewReno), (NewReno, NewReno), (Diary, Diary)]
    )
    def test_by_name_or_factory(self, choice: Any, kind: type) -> None:
        s = acknowledged(established(Config(congestion_control=choice)))
        assert type(algorithm(s)) is kind

    def test_a_factory_is_any_callable(self) -> None:
        made: list[CongestionControl] = []

        def factory(mss: int, cwnd: int) -> CongestionControl:
            made.append(Diary(mss, cwnd))
            return made[-1]

        s = acknowledged(established(Config(congestion_control=factory)))
        assert made == [algorithm(s)]
        assert (made[0].mss, made[0].cwnd, made[0].ssthresh, made[0].paced) == (1000, 10_000, UNLIMITED, True)

    def test_a_registered_name(self) -> None:
        register("diary", Diary)
        register("diary", Diary)  # again: no harm
        with pytest.raises(ValueError, match="'diary' is taken"):
            register("diary", NewReno)
        with pytest.raises(TypeError, match="3 is not callable"):
            register("three", 3)  # type: ignore[arg-type]
        s = acknowledged(established(Config(congestion_control="diary")))
        assert isinstance(algorithm(s), Diary)

    @pytest.mark.parametrize("bad", ["vegas", "", "Cubic"])
    def test_an_unknown_name(self, bad: str) -> None:
        with pytest.raises(ValueError, match=r"^congestion_control: .* is not one of .*cubic.*reno"):
            Config(congestion_control=bad)

    @pytest.mark.parametrize("bad", [None, 1, b"cubic", ["cubic"], Unhashable()], ids=repr)
    def test_no_algorithm(self, bad: Any) -> None:
        with pytest.raises(TypeError, match=r"^congestion_control: .* is neither a name nor a \(hashable\) factory"):
            Config(congestion_control=bad)

    def test_before_data_is_acknowledged_there_is_none(self) -> None:
        """A connection that only opens and closes needs no algorithm."""
        s = established()
        assert algorithm(s) is None
        s.close()
        s.expect("F. seq=a ack=b")
        s.recv("F. seq=b ack=a+1")
        s.expect(". seq=a+1 ack=b+1")
        assert algorithm(s) is None

    def test_an_option_of_the_connection_before_it_is_needed(self) -> None:
        s = established()
        s.set_option("congestion_control", "reno")
        acknowledged(s)
        assert type(algorithm(s)) is NewReno

    def test_an_option_of_the_connection_later(self) -> None:
        """The new one goes on from the window as it is."""
        s = acknowledged(established(Config(congestion_control="reno", pacing=False)))
        before = s.conn.info()
        s.set_option("congestion_control", "cubic")
        assert type(algorithm(s)) is Cubic
        assert (algorithm(s).cwnd, algorithm(s).ssthresh, algorithm(s).paced) == (before.cwnd, UNLIMITED, False)
        with pytest.raises(ValueError, match=r"^congestion_control: "):
            s.set_option("congestion_control", "vegas")
        assert type(algorithm(s)) is Cubic


class TestAcks:
    def test_what_an_acknowledgment_tells(self) -> None:
        s = established(Config(congestion_control=Diary))
        s.send(10_000)
        s.take()
        s.advance(0.1)
        s.recv(". seq=b ack=a+4000")
        s.advance(0.02)
        s.recv(". seq=b ack=a+10000")
        first, second = kept(s).acks
        assert first == {
            "now": s.now - 20_000_000,
            "acked": 4000,
            "delivered": 4000,
            "lost": 0,
            "flight": 10_000,
            "rtt": RTT_NS,
            "srtt": RTT_NS,
            "rate": 40_000,  # 4000 bytes in 100 ms
            "app_limited": False,
            "delivered_total": 4000,
            "sent_at_total": 0,
            "window_limited": True,
            "in_recovery": False,
            "ece": False,
        }
        assert (second["acked"], second["flight"], second["delivered_total"]) == (6000, 6000, 10_000)
        assert (second["rtt"], second["rate"]) == (120_000_000, 10_000 * 10**9 // 120_000_000)

    def test_one_call_for_each_acknowledgment_not_for_each_segment(self) -> None:
        s = acknowledged(established(Config(congestion_control=Diary)))
        assert [ack["acked"] for ack in kept(s).acks] == [10_000]

    def test_the_fin_is_no_data(self) -> None:
        s = established(Config(congestion_control=Diary))
        s.send(500)
        s.expect("P. seq=a ack=b len=500")
        s.close()
        s.expect("F. seq=a+500 ack=b")
        s.recv(". seq=b ack=a+501")
        assert [ack["acked"] for ack in kept(s).acks] == [500]

    def test_nor_is_it_behind_two_departures(self) -> None:
        s = established(Config(congestion_control=Diary, nodelay=True), options="sackok")
        for _ in range(2):
            s.send(500)
            s.take()
            s.silent_for(0.01)
        s.close()
        s.expect("F. seq=a+1000 ack=b")
        s.recv(". seq=b ack=a+500")
        s.recv(". seq=b ack=a+1001")
        assert [(ack["acked"], ack["lost"]) for ack in kept(s).acks] == [(500, 0), (500, 0)]

    def test_duplicates_and_window_updates_are_not_told(self) -> None:
        s = acknowledged(established(Config(congestion_control=Diary)))
        s.recv(". seq=b ack=A")
        s.recv(". seq=b ack=A wnd=30000")
        assert len(kept(s).acks) == 1

    def test_where_the_window_is_not_the_limit(self) -> None:
        """RFC 7661: half of it or more must have been in use."""
        s = acknowledged(established(Config(congestion_control=Diary)))
        for segments, limited in ((4, False), (5, True)):
            acknowledged(s, segments)
            assert kept(s).acks[-1]["window_limited"] is limited

    def test_after_a_timeout_an_acknowledgment_counts_for_one_segment(self) -> None:
        """RFC 3465 2.3: it may cover what left the network long ago."""
        s = established(Config(congestion_control=Diary))
        s.send(10_000)
        s.take()
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        s.recv(". seq=b ack=a+5000")
        ack = kept(s).acks[0]
        assert (ack["acked"], ack["delivered"], ack["rtt"]) == (1000, 5000, -1)
        s.take()
        s.recv(". seq=b ack=A")

    def test_after_a_timeout_with_sack_it_counts_for_what_it_tells_anew(self) -> None:
        """A receiver that answers whole trains would otherwise slow us down to a segment for each round trip."""
        s = established(Config(congestion_control=Diary, tlp=False, frto=False), options="sackok")
        s.send(10_000)
        s.take()
        s.expect_after(RTO, ". seq=a ack=b len=1000")
        s.silent_for(0.1)
        s.recv(". seq=b ack=a sack=a+8000:a+10000")
        assert kept(s).acks[-1]["acked"] == 0
        s.take()
        s.recv(". seq=b ack=a+4000 sack=a+8000:a+10000")
        assert (kept(s).acks[-1]["acked"], kept(s).acks[-1]["delivered"]) == (4000, 4000)
        s.take()
        s.recv(". seq=b ack=A")  # two of the six were known to have arrived
        assert (kept(s).acks[-1]["acked"], kept(s).acks[-1]["delivered"]) == (4000, 4000)
        s.take()

    def test_a_smaller_segment_size_is_passed_on(self) -> None:
        s = acknowledged(established(Config(congestion_control=Diary)))
        s.set_option("max_segment_size", 500)
        assert kept(s).mss == 500


class TestEvents:
    def test_a_timeout(self) -> None:
        s = acknowledged(established(Config(congestion_control=Diary)))
        s.send(8_000)
        s.take()
        s.expect_after(s.conn.info().rto, ". seq=a+10000 ack=b len=1000")
        assert kept(s).events == [("event", TIMEOUT, 8_000, s.now)]
        info = s.conn.info()
        assert (info.cwnd, info.ssthresh) == (1000, 2000)
        s.expect_after(s.conn.info().rto, ". seq=a+10000 ack=b len=1000")
        assert len(kept(s).events) == 1  # ssthresh is set once per loss event
        s.recv(". seq=b ack=A")

    def test_loss_and_its_end(self) -> None:
        """What loss recovery tells, and who holds the window meanwhile."""
        s = acknowledged(established(Config(congestion_control=Diary)))
        conn: Any = s.conn
        on_congestion_event(conn, LOSS, 8_000)
        assert kept(s).events == [("event", LOSS, 8_000, s.now)]
        assert (conn.cwnd, conn.ssthresh) == (2000, 2000)
        conn.cwnd = 7777  # PRR
        on_acked(conn, 0, 1000, 2000, 8_000, True, False)
        ack = kept(s).acks[-1]
        assert (ack["acked"], ack["delivered"], ack["lost"], ack["in_recovery"]) == (0, 1000, 2000, True)
        assert conn.cwnd == 7777
        assert not recovers_by_itself(conn)
        leave_recovery(conn)
        assert conn.cwnd == 2000
        on_spurious(conn)
        assert (conn.cwnd, conn.ssthresh) == (10_000, UNLIMITED)

    @pytest.mark.parametrize(("choice", "loss", "ecn"), [("reno", 5_000, 8_000), ("cubic", 7_000, 8_500)])
    def test_less_on_ECN_than_on_a_loss(self, choice: str, loss: int, ecn: int) -> None:
        """RFC 8511 3.1."""
        for kind, window in ((LOSS, loss), (ECN, ecn)):
            s = established(Config(congestion_control=choice))
            s.send(1000)
            s.take()
            s.recv(". seq=b ack=A")
            conn: Any = s.conn
            on_congestion_event(conn, kind, 10_000)
            assert (conn.cwnd, conn.ssthresh) == (window, window)

    def test_limited_transmit_does_not_count(self) -> None:
        """RFC 5681 3.2: what it has sent beyond the window is no part of FlightSize."""
        s = acknowledged(established(Config(congestion_control=Diary)))
        conn: Any = s.conn
        on_congestion_event(conn, LOSS, 12_000)
        assert kept(s).events[0][2] == 10_000

    def test_an_algorithm_may_keep_the_window_in_recovery(self) -> None:
        s = acknowledged(established(Config(congestion_control=Unlimited)))
        conn: Any = s.conn
        assert recovers_by_itself(conn)
        on_congestion_event(conn, LOSS, 8_000)
        on_acked(conn, 1000, 1000, 0, 8_000, True, False)
        assert conn.cwnd == 2001

    def test_idleness(self) -> None:
        """RFC 5681 4.1: nothing was sent for longer than an RTO."""
        s = acknowledged(established(Config(congestion_control=Diary)))
        s._advance_to(s.now + int(s.conn.rto))
        acknowledged(s)
        assert kept(s).events == []
        idle = int(s.conn.rto) + 1
        s._advance_to(s.now + idle)
        s.send(1000)
        s.expect("P. seq=a+20000 ack=b len=1000")
        assert kept(s).events == [("idle", idle, 10_000, s.now)]
        s.recv(". seq=b ack=A")

    @pytest.mark.parametrize("choice", ["reno", "cubic"])
    def test_what_the_restart_after_idleness_is(self, choice: str) -> None:
        """RFC 5681 4.1: the initial window; RFC 7661 4.4.3: ssthresh remembers three quarters of what it was."""
        s = acknowledged(established(Config(congestion_control=choice)))
        s.send(20_000)
        s.take()
        s._advance_to(s.now + 100_000_000)
        s.take()
        s.recv(". seq=b ack=A")
        cwnd = s.conn.info().cwnd
        assert cwnd == 40_000
        s.conn.ssthresh = algorithm(s).ssthresh = 15_000
        s.advance(10.0)
        s.send(1000)
        s.expect("P. seq=a+30000 ack=b len=1000")
        assert (s.conn.info().cwnd, s.conn.info().ssthresh) == (10_000, 30_000)
        s.recv(". seq=b ack=A")

    @pytest.mark.parametrize(("said", "read"), [(0, 1000), (-5, 1000), (999, 1000), (1 << 60, 1 << 31)])
    def test_a_window_below_a_segment_or_beyond_all_measure(self, said: int, read: int) -> None:
        s = acknowledged(established(Config(congestion_control=Diary)))
        kept(s).cwnd = said
        acknowledged(s, 1)
        assert s.conn.info().cwnd == read
        s.send(60_000)
        assert s.take()
        s.recv(". seq=b ack=A")
        s.take()


class TestFailure:
    """An algorithm from outside that raises ends its connection, with that error, and nothing else."""

    def test_in_on_ack(self) -> None:
        s = established(Config(congestion_control=Broken))
        s.send(5000)
        s.take()
        s.recv(". seq=b ack=a+2000")
        s.expect("R. *")
        s.expect_gone(ConnectionAbortedError)
        assert "ZeroDivisionError('no such window')" in str(s.conn.error)
        assert s.conn.error is not None
        assert isinstance(s.conn.error.__cause__, ZeroDivisionError)

    def test_in_the_factory(self) -> None:
        s = established(Config(congestion_control=lambda mss, cwnd: Diary(mss)))  # type: ignore[call-arg]
        s.send(5000)
        s.take()
        s.recv(". seq=b ack=a+2000")
        s.expect("R. *")
        s.expect_gone(ConnectionAbortedError)

    def test_what_is_no_algorithm(self) -> None:
        s = established(Config(congestion_control=lambda mss, cwnd: 10))  # type: ignore[arg-type,return-value]
        s.send(5000)
        s.take()
        s.recv(". seq=b ack=a+2000")
        s.expect("R. *")
        s.expect_gone(ConnectionAbortedError)

    def test_at_a_timeout(self) -> None:
        class NoEvents(CongestionControl):
            """``on_congestion_event`` is missing."""

            def on_ack(self, ack: Ack) -> None:
                pass

        s = acknowledged(established(Config(congestion_control=NoEvents)))
        s.send(1000)
        s.take()
        s.advance(s.conn.info().rto)
        assert s.take()[-1].seg.flags & RST
        s.expect_gone(ConnectionAbortedError)
