"""Path MTU discovery (RFC 8899, RFC 4821): probes of a connection's own data, black holes, and what ICMP may say.

The link at A's end takes packets of 1,500 bytes, that is an MSS of 1,452; segments begin at 1,180 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from support.script import A_PORT, B_PORT, RTO, RTT, Script
from utcp.core.config import Config
from utcp.core.congestion import Ack, CongestionControl
from utcp.core.engine import Engine
from utcp.core.mtu_search import PROBE_TIMER, SEARCH_COMPLETE
from utcp.core.paths import PathError

PLAIN = Config(congestion_control="reno", pacing=False, tlp=False)
BASE, PROBE = 1180, 1452
BASE_MTU = 1228
FOLLOWERS = 3


LinkMtu = Callable[[object, object], int]


class Still(CongestionControl):
    """A window that stays as it is: 10 segments."""

    def on_ack(self, ack: Ack) -> None:
        pass


def connected(
    config: Config = PLAIN, *, link: int | LinkMtu = 1500, mss: int = 1452, options: str = "sackok", wnd: int = 65535
) -> Script:
    s = Script(config, link_mtu=link)
    s.connect()
    s.expect("S seq=a-1 *")
    s.advance(RTT)
    s.ts = "ts=" in options
    s.recv(f"S. seq=b-1 ack=a mss={mss} wnd={wnd} {options}")
    s.expect(". seq=a ack=b")
    return s


def sizes(s: Script) -> list[int]:
    return [sent.seg.data_len for sent in s.take()]


def confirmed(s: Script) -> Script:
    """One segment of the base size has been sent and acknowledged."""
    s.send(BASE)
    assert sizes(s) == [BASE]
    s.advance(RTT)
    s.recv(f". seq=b ack=a+{BASE}")
    return s


def probing(s: Script | None = None) -> Script:
    """A probe is out, at a+1180, with three ordinary segments behind it."""
    s = confirmed(s or connected())
    s.send(PROBE + FOLLOWERS * BASE)
    s.expect(f". seq=a+1180 ack=b len={PROBE}")
    s.expect(f". seq=a+2632 ack=b len={BASE}")
    s.expect(f". seq=a+3812 ack=b len={BASE}")
    s.expect(f"P. seq=a+4992 ack=b len={BASE}")
    return s


def probes(s: Script) -> tuple[int, int]:
    return s.engine.counters.mtu_probes, s.engine.counters.mtu_probes_lost


def lose_probe(s: Script) -> None:
    """The three segments behind the probe are reported, and it is sent again in two pieces."""
    s.advance(RTT)
    with s.together():
        for end in (3812, 4992, 6172):
            s.recv(f". seq=b ack=a+1180 sack=a+2632:a+{end}")
    first = s.expect(f". seq=a+1180 ack=b len={BASE}")
    second = s.expect(f". seq=a+2360 ack=b len={PROBE - BASE}")
    assert first.retransmission and second.retransmission


def quote(s: Script, seq: str, *, src: int = A_PORT, dst: int = B_PORT) -> bytes:
    return struct.pack("!HHI", src, dst, s.seq(seq))


class TestStartingMss:
    @pytest.mark.parametrize(("link", "announced", "first"), [(1500, 1452, 1180), (9000, 8952, 1180), (1000, 952, 952)])
    def test_announced_is_what_we_can_receive_and_sent_is_what_any_path_carries(
        self, link: int, announced: int, first: int
    ) -> None:
        """RFC 9293 3.7.1 (MUST-67), RFC 8899 5.1.2."""
        s = Script(PLAIN, link_mtu=link)
        s.connect()
        s.expect(f"S seq=a-1 mss={announced} ws=* sackok ts=*/*")
        s.recv(f"S. seq=b-1 ack=a mss={announced}")
        s.expect(". seq=a ack=b")
        s.send(3 * first)
        assert sizes(s) == [first] * 3
        info = s.conn.info()
        assert (info.snd_mss, info.advmss, info.pmtu) == (first, announced, first + 48)

    def test_over_ipv6(self) -> None:
        engine = Engine(PLAIN, link_mtu=1500)
        path = engine.path(("fd00::1", 9000), ("fd00::2", 9000))
        conn = engine.connect(path, 80, 0)
        assert (conn.info().advmss, conn.info().pmtu) == (1432, 1248)

    @pytest.mark.parametrize("mode", [0, 1])
    def test_the_link_s_from_the_beginning(self, mode: int) -> None:
        s = connected(Config(mtu_probing=mode, pacing=False))
        s.send(3 * PROBE)
        assert sizes(s) == [PROBE] * 3

    def test_another_base(self) -> None:
        s = connected(Config(base_mss=1024))
        s.send(2048)
        assert sizes(s) == [1024, 1024]

    def test_a_link_nobody_knows(self) -> None:
        s = Script(PLAIN, mtu=0)
        s.connect()
        s.expect(f"S seq=a-1 mss={BASE} *")
        s.recv(f"S. seq=b-1 ack=a mss={PROBE} sackok")
        s.expect(". seq=a ack=b")
        s.send(BASE)
        s.take()
        s.recv(f". seq=b ack=a+{BASE}")
        s.send(20 * BASE)
        assert set(sizes(s)) == {BASE}


class TestMtuProbe:
    def test_it_is_acknowledged(self) -> None:
        s = probing()
        assert s.conn.info().pmtu == BASE_MTU
        s.advance(RTT)
        s.recv(". seq=b ack=a+2632")
        s.silent()
        s.send(2 * PROBE)
        assert sizes(s) == [PROBE] * 2
        info = s.conn.info()
        assert (info.pmtu, info.snd_mss, probes(s)) == (1500, PROBE, (1, 0))

    def test_it_is_reported_by_sack(self) -> None:
        s = self.behind_another()
        s.recv(". seq=b ack=a+1180 sack=a+2360:a+3812")
        assert s.conn.info().pmtu == 1500

    def test_a_part_of_it_proves_nothing(self) -> None:
        s = self.behind_another()
        s.recv(". seq=b ack=a+1180 sack=a+2360:a+3811")
        assert s.conn.info().pmtu == BASE_MTU

    def behind_another(self) -> Script:
        s = confirmed(connected())
        s.send(BASE)
        assert sizes(s) == [BASE]
        s.send(PROBE + FOLLOWERS * BASE)
        s.expect(f". seq=a+2360 ack=b len={PROBE}")
        s.take()
        s.advance(RTT)
        return s

    def test_the_observer_is_told(self) -> None:
        s = probing()
        s.advance(RTT)
        s.recv(". seq=b ack=a+2632")
        assert s.recorder.path_mtus == [(BASE_MTU, 1500)]

    def test_timestamps_are_part_of_the_datagram(self) -> None:
        s = connected(options="sackok ts=1/0")
        s.send(BASE - 12)
        assert sizes(s) == [BASE - 12]
        s.advance(RTT)
        s.recv(f". seq=b ack=a+{BASE - 12}")
        s.send(PROBE + FOLLOWERS * BASE)
        sent = s.take()
        assert [len(one.seg.to_bytes()) for one in sent[:2]] == [1472, 1200]
        s.advance(RTT)
        s.recv(f". seq=b ack=a+{BASE - 12 + PROBE - 12}")
        assert s.conn.info().snd_mss == PROBE - 12

    def test_the_peer_s_mss_is_the_end_of_it(self) -> None:
        """RFC 9293 3.7.1 (MUST-16)."""
        s = confirmed(connected(mss=1300))
        s.send(1300 + FOLLOWERS * BASE)
        assert sizes(s) == [1300, BASE, BASE, BASE]
        s.advance(RTT)
        s.recv(f". seq=b ack=a+{BASE + 1300 + FOLLOWERS * BASE}")
        s.send(20_000)
        assert set(sizes(s)) <= {1300, 20_000 % 1300}
        assert probes(s) == (1, 0)

    def test_a_jumbo_path_in_one_step(self) -> None:
        s = confirmed(connected(link=9000, mss=8952))
        for sent in range(1, 4):  # the window opens far enough
            s.send(10 * BASE)
            assert set(sizes(s)) == {BASE}
            s.recv(f". seq=b ack=a+{BASE + 10 * BASE * sent}")
        s.send(8952 + FOLLOWERS * BASE)
        assert sizes(s) == [8952, BASE, BASE, BASE]
        s.recv(f". seq=b ack=a+{BASE + 30 * BASE + 8952}")
        assert s.conn.info().pmtu == 9000

    def test_other_connections_of_the_path_follow(self) -> None:
        s = probing()
        other = s.engine.connect(s.path, 80, s.now, local_port=1)
        s.advance(RTT)
        s.recv(". seq=b ack=a+2632")
        s.take()
        assert other.info().pmtu == 1500


class TestWhenToProbe:
    """RFC 4821 7.4: what a probe needs."""

    def refused(self, s: Script, data: int = PROBE + FOLLOWERS * BASE) -> None:
        s.send(data)
        assert max(sizes(s)) <= BASE
        assert probes(s) == (0, 0)

    def test_not_before_anything_was_acknowledged(self) -> None:
        self.refused(connected())

    def test_not_without_data_behind_it(self) -> None:
        self.refused(confirmed(connected()), PROBE + FOLLOWERS * BASE - 1)

    def test_not_without_SACK(self) -> None:
        self.refused(confirmed(connected(options="")))

    def test_not_when_it_is_off(self) -> None:
        """For one connection, on a path that others search."""
        s = Script(PLAIN, link_mtu=1500)
        s.connect(Config(mtu_probing=0, pacing=False, tlp=False))
        s.expect("S seq=a-1 *")
        s.recv(f"S. seq=b-1 ack=a mss={PROBE} sackok")
        s.expect(". seq=a ack=b")
        self.refused(confirmed(s))

    def test_not_into_a_small_window_of_the_peer(self) -> None:
        s = connected()
        s.send(BASE)
        s.take()
        s.recv(f". seq=b ack=a+{BASE} wnd={PROBE + FOLLOWERS * BASE - 1}")
        self.refused(s)

    def test_not_when_the_peer_takes_no_more(self) -> None:
        self.refused(confirmed(connected(mss=BASE)))

    def test_not_in_a_recovery(self) -> None:
        s = confirmed(connected())
        s.send(PROBE + FOLLOWERS * BASE - 1)
        s.take()
        s.recv(". seq=b ack=a+1180 sack=a+2360:a+5900")
        s.expect(f". seq=a+1180 ack=b len={BASE}")
        s.send(20_000)
        assert max(sizes(s)) <= BASE

    def test_not_while_one_is_out(self) -> None:
        s = probing()
        s.send(20_000)
        assert max(sizes(s)) <= BASE

    def test_the_window_is_left_to_make_room_for_it(self) -> None:
        """It waits for ACKs, not for the window to be wide open."""
        s = connected(Config(congestion_control=Still, pacing=False, tlp=False))
        s.send(30 * BASE)
        assert sizes(s) == [BASE] * 10
        s.recv(f". seq=b ack=a+{BASE}")
        s.silent()
        s.recv(f". seq=b ack=a+{2 * BASE}")
        assert sizes(s) == [PROBE]


class TestLostMtuProbe:
    def test_it_is_sent_again_and_nothing_else_happens(self) -> None:
        """RFC 8899 3: no congestion, no recovery, no time-out."""
        s = probing()
        before = s.conn.info()
        lose_probe(s)
        after = s.conn.info()
        assert after.cwnd >= before.cwnd
        assert (after.ssthresh, after.rto) == (before.ssthresh, before.rto)
        assert s.engine.counters.fast_recoveries == 0
        assert (after.pmtu, probes(s)) == (BASE_MTU, (1, 1))
        s.advance(RTT)
        s.recv(". seq=b ack=a+6172")
        assert "retransmit" not in s.recorder.timers
        s.silent_for(60)

    def test_what_was_sent_again_is_lost_and_that_is_congestion(self) -> None:
        s = probing()
        lose_probe(s)
        s.advance(0.01)
        s.send(3 * BASE)
        s.take()
        s.advance(RTT)
        s.recv(". seq=b ack=a+1180 sack=a+2632:a+9712")
        assert s.engine.counters.fast_recoveries == 1
        assert sizes(s)[0] == BASE

    def test_another_loss_beside_it_is_congestion(self) -> None:
        s = probing()
        s.send(5 * BASE)
        assert sizes(s)
        s.advance(RTT)
        s.recv(". seq=b ack=a+1180 sack=a+3812:a+8532")
        assert s.engine.counters.fast_recoveries == 1
        assert probes(s) == (1, 1)
        assert sizes(s)[0] == BASE

    def test_another_loss_beside_a_part_of_it_is_congestion(self) -> None:
        """Less of it is lost than it had: what is excused is no more than that."""
        s = probing(connected(Config(congestion_control="reno", pacing=False, tlp=False, nodelay=True)))
        s.send(500)
        s.expect("P. seq=a+6172 ack=b len=500")
        s.send(3 * BASE)
        assert sizes(s) == [BASE] * 3
        s.advance(RTT)
        s.recv(". seq=b ack=a+1180 sack=a+1680:a+6172,a+6672:a+10212")
        assert s.engine.counters.fast_recoveries == 1
        assert probes(s) == (1, 1)
        assert sizes(s) == [500, 500]

    def test_a_part_of_it_is_none(self) -> None:
        """Its head was sent again, and arrives; its tail is found lost then."""
        s = probing(connected(Config(congestion_control="reno", pacing=False, tlp=False)))
        r = s.conn.recovery
        assert r is not None
        r.runs.sent_again(r.mtu_probe, r.mtu_probe + 500, s.now)
        s.advance(RTT)
        s.recv(". seq=b ack=a+1180 sack=a+2632:a+6172")
        assert s.engine.counters.fast_recoveries == 0
        assert probes(s) == (1, 1)
        assert sum(sizes(s)) == PROBE - 500

    def test_three_of_a_size_and_a_smaller_one_is_tried(self) -> None:
        s = connected()
        confirmed(s)
        at = BASE
        tried = []
        for probe in (1452, 1452, 1452, 1316):
            s.send(probe + FOLLOWERS * BASE)
            sent = sizes(s)
            tried.append(sent[0])
            s.advance(RTT)
            end = at + sum(sent)
            s.recv(f". seq=b ack=a+{at} sack=a+{at + probe}:a+{end}")
            assert len(sizes(s)) == 2
            s.advance(RTT)
            s.recv(f". seq=b ack=a+{end}")
            s.silent_for(5 * RTT)
            at = end
        assert tried == [1452, 1452, 1452, 1316]

    def test_five_round_trips_until_the_next_one(self) -> None:
        """What is behind a lost one waits at the receiver: not one stall after the other."""
        s = probing()
        lose_probe(s)
        s.recv(". seq=b ack=a+6172")
        s.advance(4 * RTT)
        s.send(PROBE + FOLLOWERS * BASE)
        sent = sizes(s)
        assert max(sent) == BASE
        s.recv(f". seq=b ack=a+{6172 + sum(sent)}")
        s.take()
        s.advance(RTT)
        s.send(PROBE + FOLLOWERS * BASE)
        assert PROBE in sizes(s)

    def test_a_time_out_with_one_out(self) -> None:
        """RFC 4821 7.6.4: an ordinary one, and the probe counts as lost."""
        s = probing()
        s.advance(RTO + 0.1)
        assert s.take()[0].seg.data_len == BASE
        assert probes(s) == (1, 1)
        assert "retransmit" in s.recorder.timers

    def test_its_connection_goes_and_another_one_goes_on(self) -> None:
        s = probing()
        s.abort()
        s.take()
        search = s.conn.route.search
        assert search is not None and search.probed > 0
        assert search.wanted(1200, 1200, 1472, 1472, s.now + PROBE_TIMER, 0) == 1472


class TestSearchComplete:
    def test_it_begins_anew_after_ten_minutes(self) -> None:
        s = connected(Config(congestion_control="reno", pacing=False, tlp=False, mtu_probe_interval=60.0))
        s = probing(s)
        s.path_error(PathError.PACKET_TOO_BIG, BASE_MTU, quote(s, "a+1180"))
        assert sizes(s) == [BASE, PROBE - BASE]
        s.recv(". seq=b ack=a+6172")
        search = s.conn.route.search
        s.send(6 * BASE)
        assert set(sizes(s)) == {BASE}
        assert search is not None and search.state == SEARCH_COMPLETE
        s.recv(f". seq=b ack=a+{6172 + 6 * BASE}")
        s.silent_for(60)
        s.send(6 * BASE)
        assert sizes(s)[0] == PROBE

    def test_the_link_is_asked_for_anew(self) -> None:
        links = [1300, 1500]
        s = connected(Config(congestion_control="reno", pacing=False, tlp=False), link=lambda local, peer: links[0])
        confirmed(s)
        s.send(1252 + FOLLOWERS * BASE)
        assert sizes(s)[0] == 1252
        s.recv(f". seq=b ack=a+{BASE + 1252 + FOLLOWERS * BASE}")
        links.pop(0)
        at = BASE + 1252 + FOLLOWERS * BASE
        for wait, first in ((0, 1252), (601, PROBE)):
            s.silent_for(wait)
            s.send(8 * 1252)
            sent = sizes(s)
            assert sent[0] == first
            at += sum(sent)
            s.recv(f". seq=b ack=a+{at}")
            at += sum(sizes(s))
            s.recv(f". seq=b ack=a+{at}")
        assert s.conn.info().pmtu == 1500


class TestPacketTooBig:
    """RFC 8899 4.6."""

    def test_of_a_probe(self) -> None:
        s = probing()
        s.path_error(PathError.PACKET_TOO_BIG, 1400, quote(s, "a+1180"))
        s.expect(f". seq=a+1180 ack=b len={BASE}")
        s.expect(f". seq=a+2360 ack=b len={PROBE - BASE}")
        assert (s.conn.info().pmtu, probes(s)) == (BASE_MTU, (1, 1))
        s.advance(RTT)
        s.recv(". seq=b ack=a+6172")
        s.send(PROBE + FOLLOWERS * BASE)
        assert sizes(s)[0] == 1352
        s.advance(RTT)
        s.recv(f". seq=b ack=a+{6172 + 1352}")
        assert s.conn.info().pmtu == 1400

    def test_of_an_ordinary_segment(self) -> None:
        """4.6.2: back to the base, what was too big is sent again, and its word is tried."""
        s = probing()
        s.advance(RTT)
        s.recv(". seq=b ack=a+6172")
        s.send(2 * PROBE)
        assert sizes(s) == [PROBE, PROBE]
        before = s.conn.info().cwnd
        s.path_error(PathError.PACKET_TOO_BIG, 1400, quote(s, "a+6172"))
        assert sizes(s) == [BASE, BASE, 2 * PROBE - 2 * BASE]
        assert s.conn.info().cwnd >= before
        assert s.recorder.path_mtus == [(BASE_MTU, 1500), (1500, BASE_MTU)]
        s.advance(RTT)
        s.recv(f". seq=b ack=a+{6172 + 2 * PROBE}")
        s.send(6000)
        assert sizes(s)[0] == 1352

    @pytest.mark.parametrize(
        ("mtu", "seq"),
        [
            (576, "a+1180"),  # below the base: for black-hole detection to find
            (68, "a+1180"),
            (0, "a+1180"),
            (1500, "a+1180"),  # no smaller than what was sent
            (9000, "a+1180"),
            (1400, "a+1179"),  # acknowledged
            (1400, "a+6172"),  # never sent
        ],
    )
    def test_what_cannot_be_is_ignored(self, mtu: int, seq: str) -> None:
        s = probing()
        s.path_error(PathError.PACKET_TOO_BIG, mtu, quote(s, seq))
        counters = s.engine.counters
        assert (counters.packets_too_big, counters.packets_too_big_ignored) == (0, 1)
        s.advance(RTT)
        s.recv(". seq=b ack=a+6172")
        assert s.conn.info().pmtu == 1500

    def test_of_somebody_else_s_connection(self) -> None:
        s = probing()
        s.path_error(PathError.PACKET_TOO_BIG, 1400, quote(s, "a+1180", src=1))
        assert s.engine.counters.packets_too_big_ignored == 1

    def test_without_a_quotation(self) -> None:
        """Some routers repeat no more than the UDP header; it is bounded all the same."""
        s = probing()
        s.path_error(PathError.PACKET_TOO_BIG, 1400)
        assert s.engine.counters.packets_too_big == 1
        assert sizes(s) == [BASE, PROBE - BASE]

    def test_where_nothing_is_searched(self) -> None:
        s = connected(Config(mtu_probing=0, pacing=False))
        s.send(2 * PROBE)
        s.take()
        s.path_error(PathError.PACKET_TOO_BIG, 1000, quote(s, "a"))
        assert sizes(s) == [952, 952, 952, 2 * PROBE - 3 * 952]
        s.path_error(PathError.PACKET_TOO_BIG, 575, quote(s, "a"))
        assert s.conn.info().pmtu == 1000


class TestSentAgainForItsSize:
    """Outside of any recovery: what becomes of it proves no recovery spurious."""

    def cut(self, *, options: str = "sackok") -> Script:
        """14 segments of 1,000 bytes are out, and were sent again in smaller ones."""
        s = connected(Config(mtu_probing=0, congestion_control="reno", pacing=False, tlp=False), options=options)
        s.send(10 * PROBE)
        assert len(s.take()) == 10
        s.advance(0.01)
        s.path_error(PathError.PACKET_TOO_BIG, 1000)
        assert sizes(s) == [952] * 15 + [240]
        return s

    def test_its_dsacks_are_not_those_of_a_recovery_that_begins_later(self) -> None:
        s = self.cut()
        s.advance(0.09)
        s.recv(". seq=b ack=a sack=a+1904:a+14520")
        s.send(3 * 952)
        assert len(s.take()) == 3
        s.advance(RTT)
        s.recv(". seq=b ack=a sack=a+1904:a+17376")
        assert sizes(s) == [952, 952]  # lost twice
        for left in (1904, 2856):
            s.recv(f". seq=b ack=a sack=a+{left}:a+{left + 952},a+1904:a+17376")
        assert (s.engine.counters.fast_recoveries, s.engine.counters.spurious_recoveries) == (1, 0)
        s.recv(". seq=b ack=A")

    def test_nor_of_one_that_is_over(self) -> None:
        s = connected(Config(mtu_probing=0, congestion_control="reno", pacing=False, tlp=False))
        s.send(10 * PROBE)
        s.take()
        s.advance(RTT)
        s.recv(f". seq=b ack=a sack=a+{PROBE}:a+{10 * PROBE}")
        assert sizes(s) == [PROBE]
        s.advance(RTT)
        at = 10 * PROBE
        s.recv(f". seq=b ack=a+{at}")
        s.send(2 * PROBE)
        s.take()
        s.path_error(PathError.PACKET_TOO_BIG, 1000)
        assert len(s.take()) == 4
        second = f"a+{at + PROBE}:a+{at + 2 * PROBE}"
        s.recv(f". seq=b ack=a+{at} sack={second}")
        for _ in range(3):  # the network has multiplied it
            s.recv(f". seq=b ack=a+{at} sack={second},{second}")
        assert s.engine.counters.spurious_recoveries == 0
        s.recv(". seq=b ack=A")


class TestMessageTooLong:
    def test_the_link_says_so(self) -> None:
        s = probing()
        s.path_error(PathError.MESSAGE_TOO_LONG, 1400)
        assert sizes(s) == [BASE, PROBE - BASE]
        s.advance(RTT)
        s.recv(". seq=b ack=a+6172")
        s.send(6000)
        assert sizes(s)[0] == 1352

    def test_a_link_smaller_than_any_should_be(self) -> None:
        s = connected()
        s.send(2 * BASE)
        s.take()
        s.path_error(PathError.MESSAGE_TOO_LONG, 1000)
        assert sizes(s) == [952, 952, 2 * BASE - 2 * 952]
        assert s.conn.info().pmtu == 1000

    @pytest.mark.parametrize("mtu", [0, 1500, 9000])
    def test_no_news(self, mtu: int) -> None:
        s = probing()
        s.path_error(PathError.MESSAGE_TOO_LONG, mtu)
        s.silent()
        assert s.conn.info().pmtu == BASE_MTU


class TestBlackHole:
    """RFC 8899 4.3."""

    def found(self) -> Script:
        """The path carries 1,500 bytes; then it no longer does."""
        s = probing()
        s.advance(RTT)
        s.recv(". seq=b ack=a+6172")
        s.send(4 * PROBE)
        assert sizes(s) == [PROBE] * 4
        return s

    def test_the_second_time_out_in_a_row_is_one(self) -> None:
        s = self.found()
        s.advance(RTO)
        assert sizes(s)[0] == PROBE
        assert s.engine.counters.black_holes == 0
        s.advance(2 * RTO)
        assert sizes(s)[0] == BASE
        assert (s.engine.counters.black_holes, s.conn.info().pmtu) == (1, BASE_MTU)

    def test_what_follows_is_as_small_and_the_search_goes_on(self) -> None:
        s = self.found()
        s.advance(RTO)
        s.take()
        s.advance(2 * RTO)
        s.take()
        end = 6172 + 4 * PROBE
        at = 6172 + BASE
        while at < end:
            s.advance(RTT)
            s.recv(f". seq=b ack=a+{at}")
            sent = s.take()
            assert all(one.seg.data_len <= BASE for one in sent)
            if not sent:
                break
            at = max(at, *(one.seg.seq + one.seg.data_len - s.seq("a") for one in sent))
        s.advance(RTT)
        s.recv(f". seq=b ack=a+{end}")
        s.send(20 * BASE)
        seen = sizes(s)
        s.advance(RTT)
        s.recv(f". seq=b ack=a+{end + sum(seen)}")
        seen += sizes(s)
        assert sorted(seen)[-2:] == [BASE, PROBE]

    def test_nothing_gets_through(self) -> None:
        """ERROR: as small as RFC 1122 has it, once the base has failed as well."""
        s = self.found()
        for wait in (1, 2, 4, 8):
            s.advance(wait * RTO)
            last = sizes(s)[0]
        assert (last, s.conn.info().pmtu, s.engine.counters.black_holes) == (528, 576, 2)
        s.advance(16 * RTO)
        assert sizes(s)[0] == 528

    def test_small_segments_say_nothing_of_size(self) -> None:
        s = probing()
        s.advance(RTT)
        s.recv(". seq=b ack=a+6172")
        s.send(100)
        assert sizes(s) == [100]
        for wait in (1, 2, 4, 8):
            s.advance(wait * RTO)
            assert sizes(s) == [100]
        assert (s.conn.info().pmtu, s.engine.counters.black_holes) == (1500, 0)

    def test_a_path_that_is_known_has_none(self) -> None:
        s = Script(PLAIN, mtu=9000)
        s.connect()
        s.expect("S seq=a-1 mss=8952 *")
        s.recv("S. seq=b-1 ack=a mss=8952 sackok")
        s.expect(". seq=a ack=b")
        s.send(8952)
        s.take()
        for wait in (5, 10, 20, 40):
            s.advance(wait)
            assert set(sizes(s)) == {8952}

    def test_other_connections_follow_when_they_send(self) -> None:
        s = self.found()
        s.conn.route.max_payload = 1200
        s.advance(RTO)
        assert sizes(s)[0] == BASE
