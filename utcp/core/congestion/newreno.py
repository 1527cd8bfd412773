"""NewReno: additive increase, multiplicative decrease (RFC 5681), with HyStart++ and ABE (RFC 8511)."""

from __future__ import annotations

from typing import final

from mypy_extensions import i64

from utcp.core.congestion.control import ECN, TIMEOUT, Ack, CongestionControl


@final
class NewReno(CongestionControl):
    """One segment more in every round trip, half the window after a loss."""

    def __init__(self, mss: i64, cwnd: i64) -> None:
        super().__init__(mss, cwnd)
        self._acked: i64 = 0  # since the window last grew

    def on_ack(self, ack: Ack) -> None:
        if ack.in_recovery or ack.ece or not ack.window_limited:
            return
        acked = ack.acked
        if self.cwnd < self.ssthresh:
            acked = self.slow_start(ack)
        # By bytes, not by ACKs (RFC 3465 2.1): dividing an ACK gains a peer nothing, one for a train loses nothing
        self._acked += acked
        if self._acked >= self.cwnd:
            self._acked -= self.cwnd
            self.cwnd += self.mss

    def on_congestion_event(self, kind: i64, flight: i64, now: i64) -> None:
        """RFC 5681 3.1, equation (4); on ECN 0.8 in place of 0.5 (RFC 8511 3.1)."""
        self.remember()
        window = 4 * flight // 5 if kind == ECN else flight // 2
        self.ssthresh = max(window, 2 * self.mss)
        self.cwnd = self.mss if kind == TIMEOUT else self.ssthresh
        self._acked = 0
