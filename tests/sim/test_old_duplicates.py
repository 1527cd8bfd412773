"""T-17: segments of an earlier incarnation in a later one on the same ports (RFC 1337's hazards H1 to H3).

The runs are those of examples/why_time_wait.py. Each hazard must strike without TIME-WAIT, or TIME-WAIT would
prove nothing by preventing it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from examples.why_time_wait import FIRST, HAZARDS, MSL, OLD, Outcome, Protection, World, find, h1, h2, h3
from utcp.wire.segment import RST

UNPROTECTED = [Protection.NONE, Protection.ASSASSINATED]


@pytest.mark.parametrize("protection", UNPROTECTED, ids=lambda protection: protection.name)
class TestWithoutTimeWait:
    def test_h1_old_data_is_accepted_and_nobody_notices(self, protection: Protection) -> None:
        outcome = h1(protection)
        assert outcome.received == FIRST + OLD != outcome.expected
        assert outcome.error is None, outcome.segments
        assert " R" not in second_connection(outcome)

    def test_h2_the_ends_disagree_for_ever(self, protection: Protection) -> None:
        outcome = h2(protection)
        assert outcome.acks > 10_000  # one each 10 ms, until the client gives up
        assert isinstance(outcome.error, TimeoutError)

    def test_h3_the_new_connection_dies(self, protection: Protection) -> None:
        outcome = h3(protection)
        assert isinstance(outcome.error, ConnectionResetError)
        assert outcome.received == b""


@pytest.mark.parametrize("hazard", HAZARDS)
def test_time_wait_prevents_it(hazard: Callable[[Protection], Outcome]) -> None:
    outcome = hazard(Protection.TIME_WAIT)
    assert not outcome.harmed, outcome.segments
    assert outcome.received == outcome.expected != b""
    assert outcome.acks <= 3
    # The wait began a second before the second connection was asked for; it is tried each second
    assert 2 * MSL - 1 <= outcome.waited <= 2 * MSL
    assert outcome.segments.count("(replayed)") == 1  # the old segment did come, while nobody would have it


def test_rfc1337_is_what_the_assassin_fails_at() -> None:
    """RFC 1337 3, fix F1: the old ACK that ends TIME-WAIT with ``rfc1337=False`` leaves it alone by default."""
    for protection, time_wait in ((Protection.ASSASSINATED, 0), (Protection.TIME_WAIT, 1)):
        world = World(protection, iter((1000,)))
        trace = world.old_connection(OLD)
        world.network.replay(find(trace, "server", lambda packet: packet.segment.seq == 301))
        world.network.run_for(1)
        assert world.client.engine.time_wait_count == time_wait
        if time_wait:
            assert world.network.trace[-1].src == "server" and world.network.trace[-1].segment.flags & RST


def second_connection(outcome: Outcome) -> str:
    """From its SYN on."""
    return outcome.segments[outcome.segments.rindex(" S seq=") :]
