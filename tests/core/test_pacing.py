"""Pacing: what leaves when, to the nanosecond (the rates are Linux's ratios of cwnd / SRTT)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from support.script import Script, ns
from support.states import established
from utcp.core.config import Config
from utcp.core.congestion import Ack, CongestionControl

MILLISECOND = 1_000_000


class Fixed(CongestionControl):
    """A window and a pacing rate that never change."""

    WINDOW = 100_000
    RATE = 0

    def on_ack(self, ack: Ack) -> None:
        self.cwnd = self.WINDOW
        self.ssthresh = self.WINDOW
        self.pacing_rate = self.RATE

    def on_congestion_event(self, kind: int, flight: int, now: int) -> None:
        self.ssthresh = self.cwnd


class Fast(Fixed):
    RATE = 5_000_000  # bytes a second: 5 segments a millisecond


class Slow(Fixed):
    RATE = 100_000  # a segment in 10 ms


def started(config: Config) -> Script:
    """The initial window has been acknowledged after 100 ms, and there is more to send; SRTT is 100 ms."""
    s = established(config)
    s.send(10_000)
    assert len(s.take()) == 10
    s.advance(0.1)
    s.recv(". seq=b ack=A")
    assert s.conn.info().srtt == pytest.approx(0.1)
    return s


def departures(s: Script, seconds: float) -> list[tuple[float, int]]:
    """Trains from now on: (milliseconds from now, segments)."""
    start = s.now
    s._advance_to(s.now + ns(seconds))
    trains: dict[int, int] = {}
    for sent in s.take():
        trains[sent.at] = trains.get(sent.at, 0) + 1
    return [((at - start) / MILLISECOND, count) for at, count in trains.items()]


def test_info_tells_the_rates() -> None:
    s = established(Config(congestion_control=Fast))
    info = s.conn.info()
    assert (info.congestion_control, info.pacing_rate, info.delivery_rate) == ("Fast", 0, 0)
    s = started(Config(congestion_control=Fast))
    info = s.conn.info()
    assert (info.pacing_rate, info.delivery_rate, info.app_limited) == (5_000_000, 100_000, False)
    s = started(Config())
    info = s.conn.info()
    assert (info.congestion_control, info.pacing_rate) == ("cubic", 20_000 * 2 * 10)  # 200 percent of cwnd / SRTT
    s = started(Config(pacing=False, congestion_control="reno"))
    assert (s.conn.info().congestion_control, s.conn.info().pacing_rate) == ("reno", 0)


def test_nothing_is_paced_within_the_initial_window() -> None:
    s = started(Config(congestion_control=Slow))
    for _ in range(5):
        s.send(10_000)
        assert len(s.take()) == 10
        s.recv(". seq=b ack=A")
    assert "pacing" not in s.recorder.timers


def test_beyond_it_a_train_leaves_each_millisecond() -> None:
    """Ten segments at once, then five a millisecond; the first two trains together, as none has left before."""
    s = started(Config(congestion_control=Fast))
    s.send(40_000)
    assert departures(s, 0.01) == [(0.0, 20), (1.0, 5), (2.0, 5), (3.0, 5), (4.0, 5)]
    assert s.recorder.timers.count("pacing") == 4
    s.recv(". seq=b ack=A")


def test_a_train_is_no_shorter_than_two_segments() -> None:
    s = started(Config(congestion_control=Slow))
    s.send(16_000)
    assert departures(s, 0.1) == [(0.0, 12), (19.0, 2), (39.0, 2)]
    s.recv(". seq=b ack=A")


@pytest.mark.parametrize(
    ("ssthresh", "percent"),
    [
        (1_000_000, 200),  # the window may still double
        (200_001, 200),
        (200_000, 120),
        (50_000, 120),
    ],
)
def test_the_rate_is_a_multiple_of_the_window_per_round_trip(ssthresh: int, percent: int) -> None:
    """100 segments in 100 ms: at 100 percent one a millisecond, so two in 2 ms."""

    class Window(Fixed):
        def on_ack(self, ack: Ack) -> None:
            self.cwnd = 100_000
            self.ssthresh = ssthresh

    s = started(Config(congestion_control=Window))
    s.send(30_000)
    trains = departures(s, 0.05)
    assert [count for _, count in trains] == [12 if percent == 120 else 14, *[2] * (9 if percent == 120 else 8)]
    steps = [later - earlier for (earlier, _), (later, _) in pairwise(trains[1:])]
    assert steps == pytest.approx([200 / percent] * len(steps), abs=1e-5)
    s.recv(". seq=b ack=A")


def test_the_ratios_are_options() -> None:
    s = started(Config(congestion_control=Fixed, pacing_ca_ratio=400))
    s.send(30_000)
    trains = departures(s, 0.05)
    assert [count for _, count in trains] == [18, 4, 4, 4]
    s.recv(". seq=b ack=A")


def test_without_pacing_the_window_leaves_at_once() -> None:
    s = started(Config(congestion_control=Slow, pacing=False))
    s.send(100_000)
    assert len(s.take()) == 65  # the peer's window
    s.recv(". seq=b ack=A")
    s.take()


def test_it_may_be_switched_while_the_connection_lives() -> None:
    s = started(Config(congestion_control=Slow))
    s.send(100_000)
    assert len(s.take()) == 12
    s.set_option("pacing", False)
    assert len(s.take()) == 65 - 12  # the peer's window
    s.set_option("pacing", True)
    s.recv(". seq=b ack=A")
    assert len(s.take()) == 10  # the rate has not caught up with the first train yet


def test_a_late_timer_is_made_up_for_but_not_an_idle_time() -> None:
    """The engine is told of the time late: the trains of up to a millisecond are caught up."""
    s = started(Config(congestion_control=Fast))
    s.send(60_000)
    assert len(s.take()) == 20
    s.now += ns(0.002)  # two trains are due
    s.engine.handle_timeout(s.now)
    s._settle()
    assert len(s.take()) == 10
    s.now += ns(0.005)
    s.engine.handle_timeout(s.now)
    s._settle()
    assert len(s.take()) == 10
    s.recv(". seq=b ack=A")
    s.take()


def test_an_acknowledgment_does_not_hurry_a_train() -> None:
    s = started(Config(congestion_control=Fast))
    s.send(60_000)
    assert len(s.take()) == 20
    s.recv(". seq=b ack=a+15000")  # 15 in flight: above the initial window
    s.silent_for(0.000_999_999)
    s._advance_to(s.now + 1)
    assert len(s.take()) == 5
    s.recv(". seq=b ack=A")
    s.take()


def test_a_round_trip_below_a_millisecond_is_not_paced() -> None:
    """A user-space timer would only slow it down: what a millisecond carries leaves at once."""
    s = established(Config(congestion_control=Fixed), rtt=0.000_5)
    s.send(10_000)
    s.take()
    s.advance(0.000_5)
    s.recv(". seq=b ack=A")
    for _ in range(4):
        s.send(60_000)
        assert len(s.take()) == 60
        s.advance(0.000_5)
        s.recv(". seq=b ack=A")
    assert "pacing" not in s.recorder.timers


def test_the_fin_behind_paced_data_leaves_with_the_last_of_it() -> None:
    s = started(Config(congestion_control=Fast))
    s.send(22_000)
    s.take()
    s.close()
    s.silent()
    s.advance(0.001)
    first, last = s.take()
    assert not first.seg.flags & 1
    assert last.seg.flags & 1
    s.recv(". seq=b ack=A")


def test_a_deadline_of_pacing_does_not_outlive_the_connection() -> None:
    s = started(Config(congestion_control=Slow))
    s.send(20_000)
    s.take()
    s.abort()
    s.expect("R. *")
    assert departures(s, 1.0) == []
