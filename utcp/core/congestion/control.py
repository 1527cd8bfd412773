"""What an algorithm of congestion control is to the engine (docs/congestion.md).

The engine decides what is in flight, what arrived, what is lost, and when a congestion event begins and ends; the
algorithm answers with a window. Everything is an integer: bytes, nanoseconds, bytes per second.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64, mypyc_attr

from utcp.core.congestion.hystart import HyStart

# Kinds of congestion event
LOSS: Final = 0  # segments were lost, others arrived
ECN: Final = 1  # the path says that it is congested, nothing was lost (RFC 3168)
TIMEOUT: Final = 2  # the retransmission timer ran out

UNLIMITED: Final = 1 << 40  # ssthresh before the first congestion event: arbitrarily high (RFC 5681 3.1)


@final
class Ack:
    """What one acknowledgment told. The engine fills the same object anew for each: keep numbers, not the object."""

    __slots__ = (
        "acked",
        "app_limited",
        "delivered",
        "delivered_total",
        "ece",
        "flight",
        "in_recovery",
        "lost",
        "now",
        "rate",
        "rtt",
        "sent_at_total",
        "srtt",
        "window_limited",
    )

    def __init__(self) -> None:
        self.now: i64 = 0
        self.acked: i64 = 0  # bytes newly acknowledged in sequence: what a window may grow by (RFC 3465)
        self.delivered: i64 = 0  # bytes newly known to have arrived, in sequence or by SACK
        self.lost: i64 = 0  # bytes newly believed lost
        self.flight: i64 = 0  # FlightSize before this acknowledgment (RFC 5681 2)
        self.rtt: i64 = -1  # of the latest segment this acknowledges, never of a retransmission; -1: none
        self.srtt: i64 = -1  # RFC 6298's; -1: none yet
        self.rate: i64 = 0  # delivery rate, bytes per second; 0: no sample
        self.app_limited: bool = False  # the rate is that of the application, the path may carry more
        self.delivered_total: i64 = 0  # bytes of the connection that have arrived, this acknowledgment included
        self.sent_at_total: i64 = 0  # what delivered_total was when the latest segment this acknowledges was sent
        self.window_limited: bool = False  # the window was what kept us from sending more (RFC 7661 4.1)
        self.ece: bool = False  # it says ECE: the window shall not grow (RFC 3168 6.1.2)
        self.in_recovery: bool = False  # fast recovery: what may be sent is not the algorithm's (RFC 6937)


@mypyc_attr(allow_interpreted_subclasses=True)
class CongestionControl:
    """Base of all algorithms: one object for each connection, made when its first data is acknowledged.

    Override ``on_ack`` and ``on_congestion_event``; what the engine reads after every call are the attributes.
    """

    def __init__(self, mss: i64, cwnd: i64) -> None:
        """``mss`` and the window so far, in bytes."""
        self.mss: i64 = mss  # data bytes in a full segment; the engine changes it with the path MTU
        self.cwnd: i64 = cwnd  # bytes; below one segment the engine reads one segment
        self.ssthresh: i64 = UNLIMITED
        self.pacing_rate: i64 = 0  # bytes per second; 0: the engine's own, a multiple of cwnd / SRTT
        self.paced: bool = False  # whether this connection's segments are paced at all
        # Fast recovery sends by proportional rate reduction (RFC 6937); False: by cwnd, which the algorithm then
        # keeps up to date in recovery too
        self.prr: bool = True
        self.hystart: HyStart | None = None
        self.prior_cwnd: i64 = 0
        self.prior_ssthresh: i64 = UNLIMITED

    def on_ack(self, ack: Ack) -> None:
        """Called once for every acknowledgment of something new."""
        raise NotImplementedError

    def on_congestion_event(self, kind: i64, flight: i64, now: i64) -> None:
        """Called once when an event begins: LOSS, ECN or TIMEOUT, with ``flight`` bytes out.

        Sets ``ssthresh`` and ``cwnd``; after a TIMEOUT the window is one segment, whatever ``cwnd`` says.
        ``remember`` comes first, so that it can be undone.
        """
        raise NotImplementedError

    def on_spurious(self, now: i64) -> None:
        """The last event was none, nothing had been lost: back to what ``remember`` saw (RFC 5682, RFC 4015 3)."""
        self.cwnd = max(self.cwnd, self.prior_cwnd)
        self.ssthresh = self.prior_ssthresh

    def on_idle(self, idle: i64, window: i64, now: i64) -> None:
        """Nothing was in flight for ``idle`` ns, longer than an RTO; ``window`` is the initial one.

        RFC 5681 4.1: the window says little of the path now. That it was three quarters of it is worth a trial
        (RFC 7661 4.4.3).
        """
        self.ssthresh = max(self.ssthresh, 3 * self.cwnd // 4)
        self.cwnd = min(self.cwnd, window)

    # What algorithms have in common

    def remember(self) -> None:
        self.prior_cwnd = self.cwnd
        self.prior_ssthresh = self.ssthresh

    def slow_start(self, ack: Ack) -> i64:
        """Grow by what was acknowledged, up to ssthresh (RFC 5681 3.1); HyStart++ looks for the end of the first one.

        Returns how many of the acknowledged bytes are left for congestion avoidance.
        """
        if self.ssthresh == UNLIMITED:
            self._first_slow_start(ack)
            return 0
        self.hystart = None
        growth = min(ack.acked, self.ssthresh - self.cwnd)
        self.cwnd += growth
        return ack.acked - growth

    def _first_slow_start(self, ack: Ack) -> None:
        hystart = self.hystart
        if hystart is None:
            hystart = HyStart()
            self.hystart = hystart
        hystart.on_ack(ack.rtt, ack.delivered_total, ack.flight - ack.acked)
        self.cwnd += hystart.growth(ack.acked, self.mss, self.paced)
        if hystart.finished:
            self.ssthresh = self.cwnd
            self.hystart = None
