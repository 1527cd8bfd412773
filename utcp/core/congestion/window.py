"""The congestion window of a connection: what its algorithm is told, and when.

Loss recovery calls these functions; ``tcb.cwnd`` and ``tcb.ssthresh`` are what the rest of the engine reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

from utcp.core.congestion.control import LOSS, TIMEOUT, CongestionControl
from utcp.core.congestion.newreno import NewReno
from utcp.core.delivery_rate import DeliveryRate
from utcp.core.stack import NEVER
from utcp.core.tcb import Tcb, mark_dirty
from utcp.wire.segment import ECE

MAX_WINDOW: Final = 1 << 31  # more than any peer can offer (RFC 7323 2.3)


def start_congestion_control(tcb: Tcb) -> None:
    """One segment if the SYN or SYN-ACK was lost (RFC 5681 3.1), else the initial window."""
    tcb.cwnd = tcb.smss if tcb.syn_lost else initial_window(tcb)


def initial_window(tcb: Tcb) -> i64:
    """RFC 6928 2."""
    smss = tcb.smss
    segments = tcb.policy.initial_window
    window = 2 * smss
    if segments * 1460 > window:
        window = segments * 1460
    return segments * smss if segments * smss < window else window


def restart_after_idle(tcb: Tcb) -> None:
    """Nothing is in flight, and something is about to be sent."""
    idle = tcb.stack.now - tcb.sent_at
    if idle > tcb.rto:
        _restart(tcb, idle)


def _restart(tcb: Tcb, idle: i64) -> None:
    control = _of(tcb)
    _tell(tcb, lambda: control.on_idle(idle, initial_window(tcb), tcb.stack.now))


def on_acked(
    tcb: Tcb, acked: i64, delivered: i64, lost: i64, flight: i64, in_recovery: bool, after_timeout: bool
) -> None:
    """One acknowledgment has been processed; called once for each that told something new.

    Bytes, the FIN's number left out: ``acked`` in sequence, ``delivered`` in sequence or by SACK, ``lost`` newly
    believed lost, ``flight`` SND.NXT - SND.UNA before it. ``in_recovery``: fast recovery was on before it and still
    is; tcb.cwnd is then the caller's (PRR), unless ``recovers_by_itself``. ``after_timeout``: what a time-out made
    us send again is not all acknowledged.
    """
    if delivered == 0 and lost == 0:
        return
    control = _of(tcb)
    ack = tcb.stack.ack
    ack.now = tcb.stack.now
    ack.acked = acked
    if after_timeout:
        # Such an ACK may cover what left the network long ago. With SACK that is known, and one ACK for a train counts
        # for the train; without it one segment is the limit (RFC 3465 2.3)
        ack.acked = min(acked, delivered if tcb.sack_on else tcb.smss)
    ack.delivered = delivered
    ack.lost = lost
    ack.flight = flight
    ack.srtt = tcb.srtt
    ack.window_limited = 2 * flight >= tcb.cwnd
    ack.in_recovery = in_recovery
    ack.ece = False
    ecn = tcb.ecn
    if ecn is not None:
        ack.ece = tcb.stack.seg.flags & ECE != 0
        ecn.reduced(tcb.snd_una)  # look now: sequence numbers are used again
    rate = tcb.rate
    if rate is not None:
        rate.on_ack(tcb.snd_una, delivered, tcb.stack.now, ack)
    try:
        control.on_ack(ack)
    except Exception as error:
        _fail(tcb, error)
        return
    if not in_recovery or not control.prr:
        _take(tcb, control)


def on_congestion_event(tcb: Tcb, kind: i64, flight: i64) -> None:
    """A congestion event (LOSS or ECN) begins: sets tcb.ssthresh, and tcb.cwnd to it.

    Loss recovery that reduces in proportion keeps tcb.cwnd itself from here on, until ``leave_recovery``. A loss in a
    window of data that was reduced because of ECN is the same event (RFC 3168 6.1.2).
    """
    control = _of(tcb)
    ecn = tcb.ecn
    if ecn is not None:
        if kind == LOSS and ecn.covers(tcb.snd_una):
            return
        ecn.on_reduction(kind, tcb.snd_nxt)
    # What limited transmit has sent beyond the window does not count (RFC 5681 3.2)
    flight = min(flight, algorithm_window(tcb, control))
    _tell(tcb, lambda: control.on_congestion_event(kind, flight, tcb.stack.now))


def on_timeout(tcb: Tcb, flight: i64, again: bool) -> None:
    """The retransmission timer ran out; ``again``: for what was sent again after the last time-out, or lost already.

    RFC 5681 3.1: ssthresh is set once per loss event, the window is one segment every time.
    """
    ecn = tcb.ecn
    if ecn is not None:
        again = again or ecn.covers(tcb.snd_una)
        if again:
            ecn.on_time_out(tcb.snd_nxt)
        else:
            ecn.on_reduction(TIMEOUT, tcb.snd_nxt)
    if not again:
        control = _of(tcb)
        _tell(tcb, lambda: control.on_congestion_event(TIMEOUT, flight, tcb.stack.now))
    _of(tcb).cwnd = tcb.smss
    tcb.cwnd = tcb.smss


def leave_recovery(tcb: Tcb) -> None:
    """Fast recovery is over: the window is the algorithm's again."""
    _take(tcb, _of(tcb))


def on_spurious(tcb: Tcb) -> None:
    """The last congestion event (LOSS or TIMEOUT) was none: what it changed is restored."""
    control = _of(tcb)
    ecn = tcb.ecn
    if ecn is not None:
        if ecn.echoed:
            _take(tcb, control)  # not lost, and congested all the same
            return
        ecn.on_undo()
    _tell(tcb, lambda: control.on_spurious(tcb.stack.now))


def algorithm_window(tcb: Tcb, control: CongestionControl) -> i64:
    """The window as its algorithm wants it; tcb.cwnd is loss recovery's for a while, and may be next to nothing.

    One below a segment would send nothing.
    """
    return min(max(control.cwnd, tcb.smss), MAX_WINDOW)


def recovers_by_itself(tcb: Tcb) -> bool:
    """Whether the algorithm wants its own window obeyed in fast recovery too, in place of PRR's."""
    control = tcb.congestion
    return control is not None and not control.prr


def start_algorithm(tcb: Tcb) -> None:
    """The connection's first data is about to be acknowledged; before that nothing happens that would need one."""
    _make(tcb)
    rate = DeliveryRate(tcb.snd_una, tcb.stack.now)
    tcb.rate = rate
    if tcb.rtt_at != NEVER:
        # What is out left at the instant that is being timed, or later: until now nothing was kept of it
        rate.on_first_flight(tcb.snd_nxt, tcb.rtt_at, tcb.sent_at)


def follow_policy(tcb: Tcb, name: str) -> None:
    """The option ``name`` of the connection's policy has changed."""
    control = tcb.congestion
    if control is None:
        return
    if name == "congestion_control":
        _make(tcb)  # from the window as it is
    elif name == "pacing":
        control.paced = tcb.policy.pacing


def _make(tcb: Tcb) -> None:
    policy = tcb.policy
    try:
        control = policy.congestion_control(tcb.smss, tcb.cwnd)
        if not isinstance(control, CongestionControl):
            raise TypeError(f"{control!r} is not a CongestionControl")
    except Exception as error:
        _fail(tcb, error)
        return
    control.ssthresh = tcb.ssthresh
    control.paced = policy.pacing
    tcb.congestion = control


def _of(tcb: Tcb) -> CongestionControl:
    if tcb.congestion is None:
        start_algorithm(tcb)
    control = tcb.congestion
    assert control is not None
    return control


def _tell(tcb: Tcb, event: Callable[[], None]) -> None:
    try:
        event()
    except Exception as error:
        _fail(tcb, error)
        return
    control = tcb.congestion
    assert control is not None
    _take(tcb, control)


def _fail(tcb: Tcb, error: Exception) -> None:
    """An algorithm from outside has raised: the connection ends with that error, nothing else suffers."""
    control = NewReno(tcb.smss, tcb.cwnd)
    control.ssthresh = tcb.ssthresh
    tcb.congestion = control
    tcb.stack.failed.append((tcb, error))
    mark_dirty(tcb)


def _take(tcb: Tcb, control: CongestionControl) -> None:
    tcb.cwnd = algorithm_window(tcb, control)
    tcb.ssthresh = control.ssthresh
