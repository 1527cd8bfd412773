"""The search of DPLPMTUD (RFC 8899 5): what size to probe next, and when it is over.

Sizes are bytes of UDP payload, as RFC 8899's PLPMTU. Nothing here knows of connections; they are in
``utcp.core.path_mtu``.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

# RFC 8899 5.2. A path that is not searched has no MtuSearch: that is DISABLED
BASE: Final = 0  # data of PLPMTU's present size has yet to be acknowledged
SEARCHING: Final = 1
SEARCH_COMPLETE: Final = 2
ERROR: Final = 3  # not even BASE_PLPMTU gets through

MAX_PROBES: Final = 3  # RFC 8899 5.1.2: of one size, before it counts as too large
PROBE_TIMER: Final = 15_000_000_000  # RFC 8899 5.1.1: ns until a probe of which nothing is heard is given up
# Bytes: to be more exact is not worth a probe (Linux tcp_probe_threshold). Beyond Ethernet's size: an eighth more
NEAR: Final = 8
ETHERNET: Final = 1_500  # the size of packet that most paths carry, whatever the link at their end takes


@final
class MtuSearch:
    """One path's variables. PLPMTU itself is ``Path.max_payload``, here ``low``; ``link`` is MAX_PLPMTU."""

    __slots__ = ("count", "counted", "high", "hint", "pause_until", "probed", "probed_at", "raise_at", "state")

    def __init__(self, state: i64, link: i64) -> None:
        self.state: i64 = state
        self.high: i64 = link + 1  # this much is believed not to get through
        self.hint: i64 = 0  # PL_PTB_SIZE: a router named it
        self.probed: i64 = 0  # PROBED_SIZE of the probe that is out; 0: none is
        self.probed_at: i64 = 0
        self.count: i64 = 0  # PROBE_COUNT: probes of ``counted`` that were lost
        self.counted: i64 = 0
        self.pause_until: i64 = 0  # a lost probe holds up what comes behind it: not one after the other
        self.raise_at: i64 = 0  # SEARCH_COMPLETE until then (PMTU_RAISE_TIMER)

    def wanted(self, low: i64, base: i64, link: i64, ethernet: i64, now: i64, raise_after: i64) -> i64:
        """The size of the probe that should leave now; 0 for none."""
        if self.state == SEARCH_COMPLETE:
            if now < self.raise_at:
                return 0
            self.high = link + 1
            self.hint = 0
            self.state = SEARCHING
        if self.probed > 0:
            if now - self.probed_at < PROBE_TIMER:
                return 0
            self.probed = 0  # its connection has gone
        if now < self.pause_until:
            return 0
        if self.state == BASE:
            self.state = SEARCHING
        size = self._next(low, base, link, ethernet)
        if size == 0:
            self.state = SEARCH_COMPLETE
            self.raise_at = now + raise_after
        return size

    def _next(self, low: i64, base: i64, link: i64, ethernet: i64) -> i64:
        """RFC 8899 5.3.2: what is likely first, then halves."""
        high = self.high
        if self.state == ERROR and low < base < high:
            return base
        if low < self.hint < high:
            return self.hint
        if low < link < high:
            return link
        if low < ethernet < high:
            return ethernet
        near = max(NEAR, low // 8) if high > ethernet else NEAR
        return (low + high) // 2 if high - low > near else 0

    def sent(self, size: i64, now: i64) -> None:
        self.probed = size
        self.probed_at = now

    def arrived(self) -> None:
        self.probed = 0
        self.count = 0
        self.state = SEARCHING

    def lost(self, pause_until: i64) -> None:
        """RFC 8899 5.3.3: one loss may have other reasons."""
        self.pause_until = pause_until
        size = self.probed
        self.probed = 0
        if size != self.counted:
            self.counted = size
            self.count = 0
        self.count += 1
        if self.count >= MAX_PROBES:
            self.too_large(size)

    def too_large(self, size: i64) -> None:
        """Nothing of ``size`` gets through."""
        self.high = min(self.high, size)
        self.count = 0
