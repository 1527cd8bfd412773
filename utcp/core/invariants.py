"""What must hold after every step, for tests and exhaustive checks (docs/engine.md)."""

from __future__ import annotations

from utcp.core.deadlines import earliest_deadline, unacked_data
from utcp.core.engine import Engine
from utcp.core.recovery_state import OPEN, TIMED_OUT
from utcp.core.scoreboard import LOST, RETRANSMITTED, SACKED
from utcp.core.stack import NEVER
from utcp.core.states import CLOSE_WAIT, CLOSED, ESTABLISHED, FIN_WAIT_2, LISTEN, SYN_RECEIVED, TIME_WAIT
from utcp.core.tcb import Tcb
from utcp.wire.seq import MASK, seq_le, seq_sub


def check(engine: Engine) -> None:
    """Raise AssertionError, naming the connection, when an invariant does not hold.

    To be called when nothing is ``pending``: between two steps a connection may owe its output.
    """
    stack = engine.stack
    wheel_at = stack.wheel.next_deadline()
    for tcb in stack.connections.values():
        if tcb.dirty:
            continue
        _check_sequence_variables(tcb)
        deadline = earliest_deadline(tcb)
        # I1: sequence space in flight or queued has a live timer that leads to a transmission
        waiting = tcb.snd_una != tcb.snd_nxt or unacked_data(tcb) > 0 or (tcb.fin_queued and not tcb.fin_acked)
        if waiting:
            assert min(tcb.rtx_at, tcb.persist_at) < NEVER, f"I1: {tcb!r} waits for an ACK without a timer"
        # I2: every closing state has a deadline, but for FIN-WAIT-2 while the user holds the connection
        if tcb.st not in (ESTABLISHED, CLOSE_WAIT) and not (tcb.st == FIN_WAIT_2 and not tcb.orphan):
            assert deadline < NEVER, f"I2: {tcb!r} has no deadline"
        if deadline < NEVER:
            assert tcb.armed_at <= deadline, f"{tcb!r}: its deadline is not armed"
            assert 0 <= wheel_at <= deadline, f"{tcb!r}: the engine would sleep past its deadline"
        assert tcb.st not in (CLOSED, LISTEN, TIME_WAIT), f"{tcb!r} should have left the engine"
        unread = 0 if tcb.receive_queue is None else tcb.receive_queue.size
        assert tcb.held == unread + (0 if tcb.reassembly is None else tcb.reassembly.cost()), f"{tcb!r}: miscounted"
        assert stack.connections.slots[tcb.slot] is tcb, f"{tcb!r} is not in its slot"
    live = sum(1 for tcb in stack.connections.slots if tcb is not None)
    assert live == len(stack.connections), "slots and keys disagree"
    assert stack.half_open == sum(1 for tcb in stack.connections.values() if tcb.passive and tcb.st == SYN_RECEIVED)
    assert stack.half_open == sum(listener.embryonic for listener in stack.listeners.values()), "the backlogs disagree"
    users = sum(path.users for path in stack.paths.paths if path is not None)
    assert users == len(stack.connections) + len(stack.time_wait), "users of paths are miscounted"
    assert stack.held == sum(tcb.held for tcb in stack.connections.values()), "bytes held are miscounted"
    assert stack.orphans == sum(1 for tcb in stack.connections.values() if tcb.orphan), "orphans are miscounted"


def _check_sequence_variables(tcb: Tcb) -> None:
    assert seq_le(tcb.snd_una, tcb.snd_nxt), f"{tcb!r}: SND.UNA is beyond SND.NXT"
    assert tcb.cwnd >= 0
    if tcb.syn_acked:
        queue = tcb.send_queue
        flight = seq_sub(tcb.snd_nxt, tcb.snd_una) - (1 if tcb.fin_sent and not tcb.fin_acked else 0)
        assert flight <= (0 if queue is None else queue.size), f"{tcb!r}: sent more than was queued"
    _check_scoreboard(tcb)


def _check_scoreboard(tcb: Tcb) -> None:
    r = tcb.recovery
    if r is None:
        return
    runs = r.runs
    assert (runs.una & MASK, runs.nxt() & MASK) == (tcb.snd_una, tcb.snd_nxt), f"{tcb!r}: the runs are not the flight"
    totals = {SACKED: 0, LOST: 0, RETRANSMITTED: 0, 0: 0}
    for i in range(runs.count):
        flags = runs.flags(i)
        assert runs.left(i) < runs.right(i), f"{tcb!r}: an empty run"
        assert runs.sent_at(i) <= tcb.stack.now
        totals[flags & SACKED or flags & LOST or flags] += runs.right(i) - runs.left(i)
    assert runs.blocks == sum(runs.flags(i) & SACKED for i in range(runs.count))
    counted = (runs.sacked, runs.lost, runs.resent)
    assert counted == (totals[SACKED], totals[LOST], totals[RETRANSMITTED]), f"{tcb!r}: the runs are miscounted"
    assert OPEN <= r.phase <= TIMED_OUT
    assert r.phase == OPEN or runs.una < r.recover, f"{tcb!r}: a recovery has no end"
    assert runs.lost == 0 or r.frto_new_data or runs.lost + runs.sacked + r.dup_bytes <= runs.nxt() - runs.una
