"""Delivery-rate samples and round-trip times, by hand (draft-cheng-iccrg-delivery-rate-estimation)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.congestion import MILLISECOND, MSS, SECOND
from utcp.core.congestion import Ack
from utcp.core.delivery_rate import DeliveryRate
from utcp.wire.seq import MASK

UNA = MASK - 2500  # numbers wrap early on


def seq(segments: float) -> int:
    return (UNA + round(segments * MSS)) & MASK


class Flight:
    """Segments of a sender, by number; milliseconds."""

    def __init__(self) -> None:
        self.rate = DeliveryRate(UNA, 0)
        self.una = self.nxt = 0.0

    def send(self, count: float, at: float) -> None:
        idle = self.nxt == self.una
        self.nxt += count
        self.rate.on_sent(seq(self.nxt), idle, round(at * MILLISECOND))

    def ack(self, upto: float, at: float, delivered: float | None = None) -> Ack:
        ack = Ack()
        new = upto - self.una if delivered is None else delivered
        self.una = upto
        self.rate.on_ack(seq(upto), round(new * MSS), round(at * MILLISECOND), ack)
        return ack

    def sack(self, upto: float, at: float, delivered: float) -> Ack:
        self.rate.on_sacked(seq(upto))
        return self.ack(self.una, at, delivered)


def per_second(segments: float, milliseconds: float) -> int:
    return round(segments * MSS) * SECOND // round(milliseconds * MILLISECOND)


def test_a_burst_acknowledged_at_once() -> None:
    flight = Flight()
    flight.send(10, 0)
    ack = flight.ack(10, 50)
    assert (ack.rate, ack.rtt) == (per_second(10, 50), 50 * MILLISECOND)
    assert (ack.delivered_total, ack.sent_at_total, ack.app_limited) == (10 * MSS, 0, False)


def test_one_departure_after_the_other_says_nothing_of_the_one_before() -> None:
    """A request at a time: each takes the place of the last one's record, also after several were out at once."""
    flight = Flight()
    for turn in range(6):
        at = 100 * turn
        limited = turn % 2 == 1
        if limited:
            flight.rate.on_app_limited(0)
        flight.send(1, at)
        several = turn == 3
        if several:
            flight.send(2, at + 10)
        delivered = round(flight.una * MSS)
        ack = flight.ack(flight.nxt, at + 50 + turn)
        assert ack.rtt == (40 + turn if several else 50 + turn) * MILLISECOND
        assert ack.rate == per_second(3 if several else 1, 50 + turn)
        assert (ack.sent_at_total, ack.app_limited) == (delivered, limited)
        assert flight.ack(flight.nxt, at + 60).rtt == -1  # nothing is left to measure


def test_a_bottleneck_spaces_acknowledgments_and_the_next_round_shows_its_rate() -> None:
    """2 segments a millisecond: the first round is limited by the burst of ten, the next by the path."""
    flight = Flight()
    flight.send(10, 0)
    rates = []
    for i in range(1, 11):
        ack = flight.ack(i, 50 + i / 2)
        rates.append(ack.rate)
        flight.send(10, 50 + i / 2)
    assert rates == [per_second(i, 50 + i / 2) for i in range(1, 11)]
    ack = flight.ack(110, 105.5)  # sent at 55, when ten were delivered
    assert (ack.sent_at_total, ack.rtt) == (10 * MSS, round(50.5 * MILLISECOND))
    assert ack.rate == per_second(100, 55)  # delivered in 50.5 ms, sent in 55


def test_the_longer_of_the_two_intervals_counts() -> None:
    """ACKs that were held up and come together do not show more than was sent in the time."""
    flight = Flight()
    flight.send(1, 0)
    for i in range(1, 10):
        flight.send(1, 10 * i)  # one in 10 ms
    flight.ack(1, 50)
    flight.send(1, 100)
    ack = flight.ack(10, 141)  # nine at once
    assert ack.rate == per_second(10, 141)
    flight.send(1, 141)
    ack = flight.ack(12, 191)
    assert ack.rate == per_second(2, 51)  # sent in 51 ms, delivered in 50


def test_an_interval_shorter_than_a_round_trip_is_no_sample() -> None:
    """An ACK after 2 ms, where none has taken less than 50: of what was sent before the retransmission."""
    flight = Flight()
    flight.send(1, 0)
    assert flight.ack(1, 50).rate == per_second(1, 50)
    flight.send(1, 50)
    flight.rate.on_retransmitted(seq(2))
    ack = flight.ack(2, 52)
    assert (ack.rate, ack.rtt) == (0, -1)


def test_samples_of_the_application_s_own_rate_say_so() -> None:
    flight = Flight()
    flight.send(2, 0)
    flight.rate.on_app_limited(2 * MSS)
    assert not flight.ack(2, 50).app_limited  # it had not been when they left
    flight.send(2, 60)
    flight.rate.on_app_limited(2 * MSS)
    flight.send(4, 61)
    assert flight.ack(4, 110).app_limited
    flight.send(4, 111)
    assert flight.ack(8, 112).app_limited
    flight.send(1, 113)
    assert not flight.ack(13, 170).app_limited


def test_sacked_segments_count_when_they_arrive() -> None:
    """Segment 0 is lost; the others' rate shows before it is mended, and is not counted twice."""
    flight = Flight()
    flight.send(1, 0)
    flight.send(9, 1)
    ack = flight.sack(5, 51, 4)
    assert (ack.delivered_total, ack.rtt, ack.rate) == (4 * MSS, 50 * MILLISECOND, per_second(4, 51))
    ack = flight.sack(10, 52, 5)
    assert (ack.delivered_total, ack.rtt) == (9 * MSS, 51 * MILLISECOND)
    flight.rate.on_retransmitted(seq(1))
    ack = flight.ack(10, 102, 1)
    assert (ack.delivered_total, ack.rtt) == (10 * MSS, -1)


def test_karn() -> None:
    """No round-trip time where a retransmission may be meant; beyond it again."""
    flight = Flight()
    flight.send(5, 0)
    flight.rate.on_retransmitted(seq(2))
    assert flight.ack(1, 50).rtt == -1
    flight.send(5, 50)
    assert flight.sack(7, 101, 2).rtt == 51 * MILLISECOND  # sent once, whatever is missing before it
    assert flight.ack(7, 102, 4).rtt == -1
    assert flight.ack(8, 103).rtt == 53 * MILLISECOND


def test_nothing_new_is_no_sample() -> None:
    flight = Flight()
    flight.send(5, 0)
    flight.ack(3, 50)
    ack = flight.ack(3, 60, 0)
    assert (ack.rate, ack.rtt) == (0, -1)


def test_after_idleness_the_clock_starts_anew() -> None:
    flight = Flight()
    flight.send(5, 0)
    flight.ack(5, 50)
    flight.send(5, 10_000)
    assert flight.ack(10, 10_050).rate == per_second(5, 50)


@pytest.mark.parametrize(("last", "rtt"), [(0, 50 * MILLISECOND), (1, -1)])
def test_the_first_flight_is_known_from_its_first_and_last_departure(last: float, rtt: int) -> None:
    rate = DeliveryRate(UNA, 40 * MILLISECOND)
    rate.on_first_flight(seq(10), 0, round(last * MILLISECOND))
    ack = Ack()
    rate.on_ack(seq(5), 5 * MSS, 50 * MILLISECOND, ack)
    assert (ack.rate, ack.rtt) == (per_second(5, 50), rtt)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 30)), max_size=80))
def test_against_the_draft_packet_by_packet(steps: list[tuple[int, int, int]]) -> None:
    """Any order of sending and acknowledging: the same as with all of the draft's variables for each packet."""
    flight = Flight()
    sent: list[tuple[int, int, int, int]] = []  # P.sent_time, P.delivered, P.delivered_time, P.first_sent_time
    delivered = delivered_time = first_sent_time = 0
    acked = 0
    now = 1
    shortest = 1 << 60
    for send, confirm, passed in steps:
        now += passed
        confirmed = min(confirm, len(sent) - acked)
        if confirmed:
            ack = flight.ack(acked + confirmed, now)
            acked += confirmed
            delivered += confirmed
            delivered_time = now
            p_sent, p_delivered, p_delivered_time, p_first = sent[acked - 1]
            interval = max(p_sent - p_first, delivered_time - p_delivered_time)
            first_sent_time = p_sent
            shortest = min(shortest, now - p_sent)
            assert ack.rtt == (now - p_sent) * MILLISECOND
            assert ack.sent_at_total == p_delivered * MSS
            expected = per_second(delivered - p_delivered, interval) if 0 < interval >= shortest else 0
            assert ack.rate == expected
        if send:
            if len(sent) == acked:
                first_sent_time = delivered_time = now
            flight.send(send, now)
            sent += [(now, delivered, delivered_time, first_sent_time)] * send
