"""HyStart++ (RFC 9406): a round-trip time that grows ends the first slow start before the queue overflows."""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

# RFC 9406 4.3
MIN_RTT_THRESH: Final = 4_000_000
MAX_RTT_THRESH: Final = 16_000_000
MIN_RTT_DIVISOR: Final = 8
N_RTT_SAMPLE: Final = 8
CSS_GROWTH_DIVISOR: Final = 4
CSS_ROUNDS: Final = 5
L: Final = 8  # segments an acknowledgment may add where nothing is paced

_NONE: Final = 1 << 61  # no round-trip time yet: RFC 9406's infinity


@final
class HyStart:
    """Rounds and their lowest round-trip times, in slow start and in conservative slow start (CSS)."""

    __slots__ = (
        "_baseline",
        "_css_rounds",
        "_current",
        "_last",
        "_round_end",
        "_samples",
        "finished",
        "in_css",
    )

    def __init__(self) -> None:
        self.finished: bool = False  # the first slow start is over: ssthresh is the window as it is
        self.in_css: bool = False
        self._round_end: i64 = -1  # the round is over once so many bytes in all have arrived
        self._current: i64 = _NONE  # currentRoundMinRTT
        self._last: i64 = _NONE  # lastRoundMinRTT
        self._samples: i64 = 0  # rttSampleCount
        self._baseline: i64 = _NONE  # cssBaselineMinRtt
        self._css_rounds: i64 = 0

    def growth(self, acked: i64, mss: i64, paced: bool) -> i64:
        """What the window grows by for ``acked`` bytes (RFC 9406 4.2)."""
        if not paced:
            acked = min(acked, L * mss)
        return acked // CSS_GROWTH_DIVISOR if self.in_css else acked

    def on_ack(self, rtt: i64, delivered: i64, outstanding: i64) -> None:
        """``delivered`` bytes have arrived in all, ``outstanding`` more are out; ``rtt`` is -1 if none was measured."""
        if self._round_end < 0:
            self._round_end = delivered + outstanding
        if rtt >= 0:
            self._current = min(self._current, rtt)
            self._samples += 1
            self._look()
        if delivered >= self._round_end:
            self._next_round(delivered + outstanding)

    def _look(self) -> None:
        if self._samples < N_RTT_SAMPLE:
            return
        if self.in_css:
            if self._current < self._baseline:
                # The round-trip time has come down again: the growth was none of ours
                self.in_css = False
                self._baseline = _NONE
        elif self._last != _NONE:
            threshold: i64 = min(self._last // MIN_RTT_DIVISOR, MAX_RTT_THRESH)
            threshold = max(threshold, MIN_RTT_THRESH)
            if self._current >= self._last + threshold:
                self.in_css = True
                self._baseline = self._current
                self._css_rounds = 0

    def _next_round(self, end: i64) -> None:
        self._round_end = end
        self._last = self._current
        self._current = _NONE
        self._samples = 0
        if self.in_css:
            # The round in which it began counts, however little of it was left (RFC 9406 4.2)
            self._css_rounds += 1
            self.finished = self._css_rounds >= CSS_ROUNDS
