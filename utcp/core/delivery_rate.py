"""How fast the path delivers: a sample with each acknowledgment (draft-cheng-iccrg-delivery-rate-estimation).

What the draft keeps with each packet is kept once for all segments that left at one instant: it is the same for them.
"""

from __future__ import annotations

from typing import Final, final

from librt.vecs import append, vec
from mypy_extensions import i64

from utcp.core.congestion.control import Ack
from utcp.wire.seq import seq_ge, seq_gt, seq_le, seq_lt

# The words of a record
_END: Final = 0  # the sequence number behind it
_SENT_AT: Final = 1
_DELIVERED: Final = 2  # bytes delivered when it left
_DELIVERED_AT: Final = 3
_FIRST_SENT_AT: Final = 4  # when the flight began that is being measured
_APP_LIMITED: Final = 5
_WORDS: Final = 6

_FAR: Final = 1 << 61
_SECOND: Final = 1_000_000_000


@final
class DeliveryRate:
    """C.delivered, C.delivered_time, C.first_sent_time, C.app_limited of the draft; a record for each departure."""

    __slots__ = (
        "_app_limited",
        "_delivered",
        "_delivered_at",
        "_first_sent_at",
        "_head",
        "_karn",
        "_min_rtt",
        "_records",
        "_sacked",
        "_start",
        "latest",
        "latest_app_limited",
    )

    def __init__(self, una: i64, now: i64) -> None:
        self.latest: i64 = 0  # the last sample, bytes per second; 0 before the first
        self.latest_app_limited: bool = False
        self._delivered: i64 = 0
        self._delivered_at: i64 = now
        self._first_sent_at: i64 = now
        self._app_limited: i64 = 0  # until so many bytes are delivered the application is the limit; 0: it is not
        self._min_rtt: i64 = _FAR
        self._records: vec[i64] = vec[i64]()
        self._head: i64 = 0  # the first word in use
        self._start: i64 = una  # where the first record begins
        self._sacked: i64 = una  # the end of the highest bytes newly reported by SACK
        self._karn: i64 = una  # below it something was sent twice: no round-trip time from there

    def on_first_flight(self, end: i64, first_at: i64, last_at: i64) -> None:
        """What left from ``first_at`` to ``last_at``, with nothing delivered in between, ends at ``end``."""
        self._delivered_at = first_at
        self._first_sent_at = first_at
        self.on_sent(end, False, first_at)
        if last_at != first_at:
            self._karn = end  # the rate is right all the same, a round-trip time would not be

    def on_sent(self, end: i64, idle: bool, now: i64) -> None:
        """New data up to ``end`` has left; ``idle``: nothing was in flight."""
        if idle:
            self._first_sent_at = now
            self._delivered_at = now
        records = self._records
        last: i64 = len(records) - _WORDS
        if last >= self._head and records[last + _SENT_AT] == now and records[last + _DELIVERED] == self._delivered:
            records[last + _END] = end
            return
        limited: i64 = 0
        if self._app_limited > 0:
            limited = 1
        if self._head == _WORDS and len(records) == _WORDS:
            # One record, and done with: requests and answers take turns in its place
            records[_END] = end
            records[_SENT_AT] = now
            records[_DELIVERED] = self._delivered
            records[_DELIVERED_AT] = self._delivered_at
            records[_FIRST_SENT_AT] = self._first_sent_at
            records[_APP_LIMITED] = limited
            self._head = 0
            return
        records = append(append(append(records, end), now), self._delivered)
        records = append(append(records, self._delivered_at), self._first_sent_at)
        self._records = append(records, limited)

    def on_retransmitted(self, end: i64) -> None:
        if seq_gt(end, self._karn):
            self._karn = end

    def on_sacked(self, end: i64) -> None:
        """The peer reports to hold what comes before ``end``, which it did not before."""
        if seq_gt(end, self._sacked):
            self._sacked = end

    def on_app_limited(self, flight: i64) -> None:
        """Everything the application gave us has been sent, and the window had room for more."""
        self._app_limited = max(self._delivered + flight, 1)

    def on_ack(self, una: i64, delivered: i64, now: i64, ack: Ack) -> None:
        """``delivered`` bytes have newly arrived, everything before ``una`` has: fills in ``ack``."""
        ack.rate = 0
        ack.rtt = -1
        ack.app_limited = self._app_limited > 0
        self._delivered += delivered
        ack.delivered_total = self._delivered
        if delivered > 0:
            self._delivered_at = now
        once = seq_ge(self._start, self._karn)
        newest = self._newest(una)
        if newest >= 0:
            self._sample(newest, once or seq_gt(self._sacked, self._karn), now, ack)
        self._drop_before(una)
        if self._app_limited > 0 and self._delivered > self._app_limited:
            self._app_limited = 0

    def _newest(self, una: i64) -> i64:
        """Where the record is that left last of those that (in part) have newly arrived; -1 if there is none."""
        end = una
        if seq_gt(self._sacked, una):
            end = self._sacked
        if seq_le(end, self._start):
            return -1
        records = self._records
        low: i64 = self._head // _WORDS
        high: i64 = len(records) // _WORDS
        beyond = high
        while low < high:
            middle = (low + high) // 2
            if seq_lt(records[middle * _WORDS + _END], end):
                low = middle + 1
            else:
                high = middle
        return -1 if low == beyond else low * _WORDS

    def _sample(self, record: i64, once: bool, now: i64, ack: Ack) -> None:
        records = self._records
        sent_at = records[record + _SENT_AT]
        if once:
            ack.rtt = now - sent_at
            self._min_rtt = min(self._min_rtt, ack.rtt)
        prior = records[record + _DELIVERED]
        ack.sent_at_total = prior
        ack.app_limited = records[record + _APP_LIMITED] != 0
        interval = sent_at - records[record + _FIRST_SENT_AT]
        interval = max(interval, now - records[record + _DELIVERED_AT])
        self._first_sent_at = sent_at
        if interval > 0 and (self._min_rtt == _FAR or interval >= self._min_rtt):
            # Shorter than a round trip: ACKs that arrived together say nothing of the path
            ack.rate = (self._delivered - prior) * _SECOND // interval  # of a window, at most 2**30 bytes
            self.latest = ack.rate
            self.latest_app_limited = ack.app_limited

    def _drop_before(self, una: i64) -> None:
        records = self._records
        head = self._head
        n: i64 = len(records)
        while head < n and seq_le(records[head + _END], una):
            head += _WORDS
        if seq_gt(una, self._start):
            self._start = una
        self._sacked = self._start
        if seq_gt(una, self._karn):
            self._karn = una
        if n > _WORDS and 2 * head >= n:
            self._records = records[head:]
            head = 0
        self._head = head
