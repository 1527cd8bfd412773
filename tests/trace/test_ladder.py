"""The records of two hosts merged into one story, and the ladder drawn of it."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from utcp.core.states import State
from utcp.trace import LadderObserver
from utcp.trace.ladder import Ladder
from utcp.trace.merge import Merge, Note, Passage, Step
from utcp.trace.records import Record, Recorder
from utcp.wire.segment import ACK, FIN, PSH, SYN, Segment

C, S = 40001, 9000
MS = 1_000_000


class Story:
    """Tells a Merge what two hosts see; ``client`` and ``server`` are their observers."""

    def __init__(self) -> None:
        self.merge = Merge({"client": "CLOSED", "server": "LISTEN"})
        self.client = _Feeder(lambda record: self.merge.feed("client", record))
        self.server = _Feeder(lambda record: self.merge.feed("server", record))

    def cross(self, at: int, segment: Segment, *, again: bool = False) -> None:
        """One segment leaves at ``at`` and arrives 0.1 ms later."""
        sender, receiver = self._ends(segment)
        sender.segment_out(at, 0, segment.to_bytes(), retransmission=again)
        receiver.segment_in(at + MS // 10, 0, segment.to_bytes())

    def lose(self, at: int, segment: Segment, event: str) -> None:
        sender, receiver = self._ends(segment)
        sender.segment_out(at, 0, segment.to_bytes(), retransmission=False)
        if event:
            loser = sender if event == "lost_out" else receiver
            loser.lost(at, event, segment.to_bytes())

    def _ends(self, segment: Segment) -> tuple[_Feeder, _Feeder]:
        return (self.client, self.server) if segment.src_port == C else (self.server, self.client)

    def change(self, host: _Feeder, at: int, old: State, new: State) -> None:
        ports = (C, S) if host is self.client else (S, C)
        host.state_change(at, 0, *ports, old, new)


class _Feeder(Recorder):
    def __init__(self, write: Callable[[Record], None]) -> None:
        super().__init__()
        self._write = write

    def write(self, record: Record) -> None:
        self._write(record)

    def lost(self, at: int, event: str, segment: bytes) -> None:
        self.write(self.segment_record(at, event, 0, segment))


def open_and_close() -> Story:
    story = Story()
    client, server, cross, change = story.client, story.server, story.cross, story.change
    client.user_call(0, 0, C, S, "connect")
    change(client, 0, State.CLOSED, State.SYN_SENT)
    cross(0, Segment(C, S, 1000, 0, SYN, mss=1460))
    change(server, MS // 10, State.LISTEN, State.SYN_RECEIVED)
    cross(MS, Segment(S, C, 2**32 - 1, 1001, SYN | ACK))
    change(client, MS, State.SYN_SENT, State.ESTABLISHED)
    cross(2 * MS, Segment(C, S, 1001, 0, ACK))
    change(server, 2 * MS, State.SYN_RECEIVED, State.ESTABLISHED)
    cross(3 * MS, Segment(C, S, 1001, 0, PSH | ACK, data=b"hello"))
    client.user_call(4 * MS, 0, C, S, "shutdown")
    change(client, 4 * MS, State.ESTABLISHED, State.FIN_WAIT_1)
    story.lose(4 * MS, Segment(C, S, 1006, 0, FIN | ACK), "lost_out")
    client.timer(204 * MS, 0, C, S, "retransmit")
    cross(204 * MS, Segment(C, S, 1006, 0, FIN | ACK), again=True)
    change(server, 204 * MS, State.ESTABLISHED, State.CLOSE_WAIT)
    cross(205 * MS, Segment(S, C, 0, 1007, ACK))
    change(client, 205 * MS, State.FIN_WAIT_1, State.FIN_WAIT_2)
    server.write({"t": 206 * MS, "event": "note", "local_port": S, "remote_port": C, "text": "drains 3 bytes"})
    cross(206 * MS, Segment(S, C, 0, 1007, PSH | ACK, data=b"abc"))
    server.user_call(207 * MS, 0, S, C, "close")
    change(server, 207 * MS, State.CLOSE_WAIT, State.LAST_ACK)
    cross(207 * MS, Segment(S, C, 3, 1007, FIN | ACK))
    change(client, 207 * MS, State.FIN_WAIT_2, State.TIME_WAIT)
    cross(208 * MS, Segment(C, S, 1007, 4, ACK))
    change(server, 208 * MS, State.LAST_ACK, State.CLOSED)
    server.closed(208 * MS, 0, S, C, "graceful")
    client.timer(2208 * MS, 0, C, S, "2msl")
    change(client, 2208 * MS, State.TIME_WAIT, State.CLOSED)
    return story


EXPECTED = """\
  time ms client                                                                        server
     0.00 SYN-SENT     · client calls connect()                                         LISTEN
     0.00 SYN-SENT     ─ S   SYN         seq=0 ───────────────────────────────────────▶ SYN-RECEIVED
     1.00 ESTABLISHED  ◀ S.  SYN,ACK     seq=0 ack=1 ────────────────────────────────── SYN-RECEIVED
     2.00 ESTABLISHED  ─ .   ACK         seq=1 ack=1 ─────────────────────────────────▶ ESTABLISHED
     3.00 ESTABLISHED  ─ P.  PSH,ACK     seq=1 ack=1 len=5 ───────────────────────────▶ ESTABLISHED
     4.00 FIN-WAIT-1   · client calls shutdown(): it has nothing more to send           ESTABLISHED
     4.00 FIN-WAIT-1   ─ F.  FIN,ACK     seq=6 ack=1 lost ────────────────────────────╳ ESTABLISHED
   204.00 FIN-WAIT-1   · client retransmission timer fired                              ESTABLISHED
   204.00 FIN-WAIT-1   ─ F.  FIN,ACK     seq=6 ack=1 resent ──────────────────────────▶ CLOSE-WAIT
   205.00 FIN-WAIT-2   ◀ .   ACK         seq=1 ack=7 ────────────────────────────────── CLOSE-WAIT
   206.00 FIN-WAIT-2                                            server drains 3 bytes · CLOSE-WAIT
   206.00 FIN-WAIT-2   ◀ P.  PSH,ACK     seq=1 ack=7 len=3 ──────────────────────────── CLOSE-WAIT
   207.00 FIN-WAIT-2                                             server calls close() · LAST-ACK
   207.00 TIME-WAIT    ◀ F.  FIN,ACK     seq=4 ack=7 ────────────────────────────────── LAST-ACK
   208.00 TIME-WAIT    ─ .   ACK         seq=7 ack=5 ─────────────────────────────────▶ CLOSED
  2208.00 CLOSED       · client 2 MSL are over                                          CLOSED
"""


def simultaneous_close() -> Story:
    """RFC 9293 Figure 13."""
    story = Story()
    client, server, change = story.client, story.server, story.change
    ours, theirs = Segment(C, S, 100, 300, FIN | ACK).to_bytes(), Segment(S, C, 300, 100, FIN | ACK).to_bytes()
    for host, ports in ((client, (C, S)), (server, (S, C))):
        host.user_call(0, 0, *ports, "shutdown")
        change(host, 0, State.ESTABLISHED, State.FIN_WAIT_1)
    client.segment_out(1 * MS, 0, ours, retransmission=False)
    server.segment_out(2 * MS, 0, theirs, retransmission=False)
    client.segment_in(3 * MS, 0, theirs)
    change(client, 3 * MS, State.FIN_WAIT_1, State.CLOSING)
    server.segment_in(4 * MS, 0, ours)
    change(server, 4 * MS, State.FIN_WAIT_1, State.CLOSING)
    story.cross(5 * MS, Segment(C, S, 101, 301, ACK))
    change(server, 5 * MS, State.CLOSING, State.TIME_WAIT)
    return story


CROSSING = """\
  time ms client                                                                        server
     0.00 FIN-WAIT-1   · client calls shutdown(): it has nothing more to send           LISTEN
     0.00 FIN-WAIT-1             server calls shutdown(): it has nothing more to send · FIN-WAIT-1
     1.00 FIN-WAIT-1   ─ F.  FIN,ACK     seq=0 ack=0 ─────────────────────────────────… FIN-WAIT-1
     2.00 CLOSING      ◀ F.  FIN,ACK     seq=0 ack=0 ────────────────────────────────── FIN-WAIT-1
     4.00 CLOSING      … F.  FIN,ACK     seq=0 ack=0 ─────────────────────────────────▶ CLOSING
     5.00 CLOSING      ─ .   ACK         seq=1 ack=1 ─────────────────────────────────▶ TIME-WAIT
"""


def draw(steps: list[Step], *, width: int = 100, bulk: int = 24, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    ladder = Ladder(Console(file=file, width=width), "client", "server", time_wait=2000 * MS, bulk=bulk)
    for step in steps:
        ladder.show(step)
    ladder.finish()
    file.seek(0)
    return file.read()


def test_a_lifecycle_is_drawn_with_the_states_of_both_sides() -> None:
    assert draw(open_and_close().merge.take()) == EXPECTED


def test_segments_that_cross_are_drawn_leaving_and_arriving() -> None:
    assert draw(simultaneous_close().merge.take()) == CROSSING


def test_no_line_is_wider_than_100_columns_even_on_a_wide_terminal() -> None:
    assert max(len(line) for line in draw(open_and_close().merge.take(), width=250).splitlines()) <= 100


def test_a_narrow_terminal_shortens_the_arrows() -> None:
    assert max(len(line) for line in draw(open_and_close().merge.take(), width=80).splitlines()) <= 80


def test_an_ascii_terminal_gets_ascii() -> None:
    text = draw(open_and_close().merge.take(), encoding="ascii")
    assert "-> CLOSE-WAIT" in text
    assert "x ESTABLISHED" in text


def test_a_terminal_gets_colours() -> None:
    file = io.StringIO()
    ladder = Ladder(Console(file=file, width=100, force_terminal=True, color_system="standard"), "client", "server")
    for step in open_and_close().merge.take():
        ladder.show(step)
    assert "\x1b[" in file.getvalue()


def test_a_long_run_of_data_is_counted_instead_of_drawn() -> None:
    story = Story()
    story.cross(0, Segment(C, S, 0, 0, SYN))
    for i in range(30):
        story.cross(MS + i, Segment(C, S, 1 + 100 * i, 1, ACK, data=bytes(100)), again=i == 20)
    story.lose(40 * MS, Segment(C, S, 9001, 1, ACK, data=bytes(50)), "lost_out")
    story.cross(50 * MS, Segment(C, S, 9001, 1, FIN | ACK))
    lines = draw(story.merge.take(), bulk=3).splitlines()
    assert len(lines) == 1 + 1 + 3 + 1 + 1
    assert lines[-2].strip() == "⋮ 28 more segments, 2,750 bytes; 1 lost, 1 resent"


@pytest.mark.parametrize("event", ["lost_out", "lost_in", ""])
def test_a_segment_that_does_not_arrive_is_lost_wherever_it_got_lost(event: str) -> None:
    story = Story()
    story.lose(0, Segment(C, S, 0, 0, SYN), event)
    story.cross(1000 * MS, Segment(C, S, 0, 0, SYN), again=True)
    first, second = (step for step in story.merge.take() if isinstance(step, Passage))
    assert (first.lost, second.lost) == ((True, False) if event else (False, True)), "equal segments: first come"


def test_nothing_is_told_before_it_is_certain() -> None:
    story = Story()
    syn = Segment(C, S, 0, 0, SYN).to_bytes()
    story.client.segment_out(0, 0, syn, retransmission=False)
    assert story.merge.take(before=50 * MS) == []
    story.server.segment_in(60 * MS, 0, syn)
    assert story.merge.take(before=55 * MS) == []
    (step,) = story.merge.take(before=70 * MS)
    assert isinstance(step, Passage)
    assert step.arrived_at == 60 * MS


def test_without_news_for_a_second_a_segment_counts_as_lost() -> None:
    story = Story()
    story.client.segment_out(0, 0, Segment(C, S, 0, 0, SYN).to_bytes(), retransmission=False)
    assert story.merge.take(before=1000 * MS) == []
    (step,) = story.merge.take(before=1001 * MS)
    assert isinstance(step, Passage)
    assert step.lost


def test_an_answer_comes_after_its_cause_even_when_the_clocks_were_read_early() -> None:
    story = Story()
    data, ack = Segment(C, S, 5, 0, ACK, data=b"x").to_bytes(), Segment(S, C, 0, 6, ACK).to_bytes()
    story.server.segment_in(90, 0, data)  # the server's clock was read before the segment was there
    story.server.segment_out(90, 0, ack, retransmission=False)
    story.client.segment_out(100, 0, data, retransmission=False)
    story.client.segment_in(110, 0, ack)
    assert [step.sender for step in story.merge.take() if isinstance(step, Passage)] == ["client", "server"]


def test_a_strangers_segment_does_not_stop_the_story() -> None:
    story = Story()
    story.server.segment_in(0, 0, Segment(7, S, 0, 0, SYN).to_bytes())
    story.server.drop(0, 0, Segment(7, S, 0, 0, SYN).to_bytes(), "no-listener")
    story.server.segment_in(0, 0, b"garbage")
    story.cross(1, Segment(C, S, 0, 0, SYN))
    assert [step.sender for step in story.merge.take() if isinstance(step, Passage)] == ["client"]


def test_comments_tell_causes_and_effects() -> None:
    steps = [step for step in open_and_close().merge.take() if isinstance(step, Passage)]
    fins = [step.comments for step in steps if "F" in step.record["flags"]]
    assert fins == [
        ["client: state ESTABLISHED -> FIN-WAIT-1", "lost"],
        ["client: RTO fired", "retransmission", "server: state ESTABLISHED -> CLOSE-WAIT"],
        ["server: state CLOSE-WAIT -> LAST-ACK", "client: state FIN-WAIT-2 -> TIME-WAIT"],
    ]


def test_transitions_are_kept_for_each_side() -> None:
    story = open_and_close()
    story.merge.take()
    assert [new for _, _, new in story.merge.transitions["server"]] == [
        "SYN-RECEIVED",
        "ESTABLISHED",
        "CLOSE-WAIT",
        "LAST-ACK",
        "CLOSED",
    ]


def test_the_countdown_runs_in_time_wait_and_starts_again_when_the_fin_is_repeated() -> None:
    story = Story()
    ladder = Ladder(Console(file=io.StringIO(), width=100), "client", "server", time_wait=2000 * MS)

    def left(now: int) -> str:
        for step in story.merge.take():
            ladder.show(step)
        return ladder.countdown(now).plain.partition("  ")[0]

    fin = Segment(S, C, 3, 1007, FIN | ACK)
    story.cross(0, fin)
    story.change(story.client, MS // 10, State.FIN_WAIT_2, State.TIME_WAIT)
    assert left(500 * MS) == "client in TIME-WAIT, CLOSED in 1.5 s"
    story.cross(500 * MS, fin, again=True)
    assert left(500 * MS) == "client in TIME-WAIT, CLOSED in 2.0 s"
    story.lose(800 * MS, fin, "lost_in")
    assert left(1500 * MS) == "client in TIME-WAIT, CLOSED in 1.0 s"
    story.client.timer(2500 * MS, 0, C, S, "2msl")
    story.change(story.client, 2500 * MS, State.TIME_WAIT, State.CLOSED)
    assert left(2500 * MS) == ""


def test_abnormal_ends_are_named() -> None:
    story = Story()
    story.client.timer(0, 0, C, S, "retransmit")
    story.client.closed(0, 0, C, S, "timed-out")
    story.server.closed(1, 0, S, C, "aborted")
    notes = [step for step in story.merge.take() if isinstance(step, Note)]
    assert [(note.host, note.text) for note in notes] == [
        ("client", "retransmission timer fired"),
        ("server", "closed: aborted"),
    ]


def test_the_ladder_of_one_engine_names_each_connection_and_leaves_the_peers_states_open() -> None:
    file = io.StringIO()
    observer = LadderObserver(file, lambda path: (("10.0.0.1", 1), ("10.0.0.2", 2)))
    observer.segment_out(0, 0, Segment(C, S, 1000, 0, SYN).to_bytes(), retransmission=False)
    observer.segment_in(MS, 0, Segment(S, C, 7, 1001, SYN | ACK).to_bytes())
    observer.state_change(MS, 0, C, S, State.SYN_SENT, State.ESTABLISHED)
    observer.segment_out(2 * MS, 0, Segment(C, 9001, 1, 0, SYN).to_bytes(), retransmission=False)
    observer.close()
    lines = file.getvalue().splitlines()
    assert lines[1] == "── 10.0.0.1:40001 ⇄ 10.0.0.2:9000 ──"
    assert "S.  SYN,ACK     seq=0 ack=1" in lines[3]
    assert lines[3].split()[1] == "ESTABLISHED"
    assert lines[4] == "── 10.0.0.1:40001 ⇄ 10.0.0.2:9001 ──"
