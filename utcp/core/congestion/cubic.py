"""CUBIC (RFC 9438): the window is a cubic function of the time since it was last reduced."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from utcp.core.congestion.control import ECN, TIMEOUT, Ack, CongestionControl

# C = 0.4 segments / s**3 and beta = 0.7 (RFC 9438 4.6, 5), the latter 0.85 on ECN (RFC 8511 3.1), as fractions
_C_ABOVE: Final = 2
_C_BELOW: Final = 5
_BETA: Final = 14
_BETA_ECN: Final = 17
_BETA_BELOW: Final = 20
# alpha = 3 (1 - beta) / (1 + beta) = 9/17 (RFC 9438 4.3)
_ALPHA_ABOVE: Final = 9
_ALPHA_BELOW: Final = 17

_NO_EPOCH: Final = -1
_MICROSECOND: Final = 1_000
_MILLION: Final = 1_000_000
_FAR: Final = 1 << 27  # microseconds from K: 134 s, whose cube is the largest that fits; the target is clamped by then


@final
class Cubic(CongestionControl):
    """Variables by their names in RFC 9438 4.1.2, windows in bytes."""

    def __init__(self, mss: i64, cwnd: i64) -> None:
        super().__init__(mss, cwnd)
        self.w_max: i64 = 0  # before the last reduction; 0: not defined
        self.k: i64 = 0  # ns from the epoch until the window is w_max again
        self.w_est: i64 = 0  # what Reno's window would be
        self.cwnd_prior: i64 = 0
        self.epoch: i64 = _NO_EPOCH  # when this stage of congestion avoidance began
        self._acked_at: i64 = 0  # when the last acknowledgment came
        # Remainders of divisions, so that growth does not depend on how it is divided into ACKs
        self._est_rest: i64 = 0
        self._rest: i64 = 0
        self._prior: tuple[int, int, int, int, int] = (0, 0, 0, 0, _NO_EPOCH)

    def on_ack(self, ack: Ack) -> None:
        since = self._acked_at
        self._acked_at = ack.now
        if ack.in_recovery or ack.ece:
            return
        if not ack.window_limited:
            if self.epoch != _NO_EPOCH:
                self.epoch += ack.now - since  # t does not include such periods (RFC 9438 5.8)
            return
        acked = ack.acked
        if self.cwnd < self.ssthresh:
            acked = self.slow_start(ack)
        if acked > 0:
            self._avoid_congestion(acked, ack)

    def _avoid_congestion(self, acked: i64, ack: Ack) -> None:
        if self.epoch == _NO_EPOCH:
            self._start_epoch(ack.now)
        self._grow_estimate(acked)
        t = ack.now - self.epoch
        cwnd = self.cwnd
        if self.w_cubic(t) < self.w_est:
            self.cwnd = max(cwnd, self.w_est)  # the Reno-friendly region (RFC 9438 4.3)
            return
        # The concave and the convex region (RFC 9438 4.4, 4.5)
        target = self.w_cubic(t + max(ack.srtt, 0))
        target = max(target, cwnd)
        target = min(target, cwnd + cwnd // 2)
        self._rest += (target - cwnd) * acked
        growth = self._rest // cwnd
        self._rest -= growth * cwnd
        self.cwnd = cwnd + growth

    def _start_epoch(self, now: i64) -> None:
        """A stage of congestion avoidance begins (RFC 9438 4.2; with no w_max 4.8 and 4.10)."""
        self.epoch = now
        self.w_est = self.cwnd
        self._est_rest = 0
        self._rest = 0
        if self.w_max <= self.cwnd:
            self.w_max = self.cwnd
            self.k = 0
        else:
            segments_above: int = (self.w_max - self.cwnd) * _C_BELOW
            self.k = cube_root(segments_above * 10**27 // (int(self.mss) * _C_ABOVE))

    def _grow_estimate(self, acked: i64) -> None:
        """RFC 9438 4.3: W_est += alpha * segments_acked / cwnd."""
        above: i64 = _ALPHA_ABOVE if self.w_est < self.cwnd_prior else _ALPHA_BELOW
        self._est_rest += above * acked * self.mss
        unit = _ALPHA_BELOW * self.cwnd
        growth = self._est_rest // unit
        self._est_rest -= growth * unit
        self.w_est += growth

    def w_cubic(self, t: i64) -> i64:
        """RFC 9438 4.2, equation (1): C (t - K)**3 + W_max, ``t`` in ns."""
        d = (t - self.k) // _MICROSECOND
        d = max(min(d, _FAR), -_FAR)
        cube = d * d // _MILLION * d // _MILLION  # s**3 / 10**6
        return self.w_max + cube * _C_ABOVE * self.mss // (_C_BELOW * _MILLION)

    def on_congestion_event(self, kind: i64, flight: i64, now: i64) -> None:
        """RFC 9438 4.6 to 4.8. From FlightSize: an application that sent less has not tried its cwnd (4.6)."""
        self.remember()
        self._prior = (self.w_max, self.k, self.w_est, self.cwnd_prior, self.epoch)
        beta: i64 = _BETA_ECN if kind == ECN else _BETA
        self.ssthresh = max(flight * beta // _BETA_BELOW, 2 * self.mss)
        self.cwnd_prior = self.cwnd
        self.epoch = _NO_EPOCH
        if kind == TIMEOUT:
            self.w_max = 0
            self.cwnd = self.mss
            return
        # Fast convergence (4.7): a window that no longer reaches the last one makes room for others
        self.w_max = self.cwnd if self.cwnd >= self.w_max else self.cwnd * 17 // 20
        self.cwnd = self.ssthresh

    def on_spurious(self, now: i64) -> None:
        """RFC 9438 4.9."""
        if self.cwnd < self.prior_cwnd:
            self.cwnd = self.prior_cwnd
            self.ssthresh = self.prior_ssthresh
            self.w_max, self.k, self.w_est, self.cwnd_prior, self.epoch = self._prior

    def on_idle(self, idle: i64, window: i64, now: i64) -> None:
        super().on_idle(idle, window, now)
        self.epoch = _NO_EPOCH


def cube_root(n: int) -> int:
    """The largest integer whose cube is not above ``n``, by Newton's method. Of any size: once per reduction."""
    if n <= 0:
        return 0
    x = 1 << -(-n.bit_length() // 3)  # not below the root
    while True:
        y = (2 * x + n // (x * x)) // 3
        if y >= x:
            return x
        x = y
