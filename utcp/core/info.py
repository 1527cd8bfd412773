"""A connection's variables at one instant, in the spirit of Linux's tcp_info."""

from __future__ import annotations

from typing import NamedTuple

from mypy_extensions import i64

from utcp.core.congestion.algorithms import name_of
from utcp.core.deadlines import unacked_data
from utcp.core.pacing import pacing_rate
from utcp.core.paths import mtu_of_payload
from utcp.core.states import CLOSE_WAIT, FIN_WAIT_1, LAST_ACK, State
from utcp.core.tcb import Tcb, queued_bytes
from utcp.wire.seq import MASK, seq_sub


class ConnectionInfo(NamedTuple):
    """Durations in seconds, sizes in bytes, sequence variables by their RFC 9293 3.3.1 names.

    ``pmtu``: bytes of IP packet that the path is believed to carry; ``advmss``: the MSS we announced.
    ``seconds_in``: how long the connection has been in each of the states FIN-WAIT-1, FIN-WAIT-2, CLOSING,
    CLOSE-WAIT and LAST-ACK that it has reached, in their order.
    ``pacing_rate`` and ``delivery_rate`` in bytes a second, 0 while nothing is paced or measured; ``app_limited``: the
    latter is the application's own rate, the path may carry more.
    ``receive_buffer``: how much is held for the reader at present; ``rcv_rtt``: the round trip as the receiver of bulk
    data sees it, None before it has looked.
    ``ecn``: both ends have agreed on it; ``ce_in``: data segments that arrived with congestion experienced;
    ``ecn_reductions``: how often the window was reduced because the peer reported such.
    """

    state: State
    snd_una: int
    snd_nxt: int
    snd_wnd: int
    rcv_nxt: int
    rcv_wnd: int
    iss: int
    irs: int
    snd_mss: int
    rcv_mss: int
    advmss: int
    pmtu: int
    snd_wscale: int
    rcv_wscale: int
    timestamps: bool
    sack: bool
    ecn: bool
    srtt: float | None
    rttvar: float | None
    rto: float
    cwnd: int
    ssthresh: int
    congestion_control: str
    pacing_rate: int
    delivery_rate: int
    app_limited: bool
    bytes_in_flight: int
    send_queue: int
    unacked_bytes: int
    unread_bytes: int
    receive_buffer: int
    rcv_rtt: float | None
    discarded_bytes: int
    bytes_sent: int
    bytes_received: int
    segments_out: int
    segments_in: int
    retransmissions: int
    ce_in: int
    ecn_reductions: int
    age: float
    seconds_in: dict[State, float]


def snapshot(tcb: Tcb, now: i64) -> ConnectionInfo:
    stack = tcb.stack
    state = State(tcb.st)
    if state is State.TIME_WAIT and stack.time_wait.find(tcb.key) < 0:
        state = State.CLOSED
    unread = tcb.receive_queue
    measured = tcb.srtt >= 0
    rate = tcb.rate
    sizing = tcb.sizing
    ecn = tcb.ecn
    return ConnectionInfo(
        state=state,
        snd_una=tcb.snd_una,
        snd_nxt=tcb.snd_nxt,
        snd_wnd=tcb.snd_wnd,
        rcv_nxt=tcb.rcv_nxt,
        rcv_wnd=max(seq_sub(tcb.rcv_adv, tcb.rcv_nxt), 0),
        iss=tcb.iss,
        irs=tcb.irs,
        snd_mss=tcb.smss,
        rcv_mss=tcb.rcv_mss,
        advmss=tcb.rmss,
        pmtu=mtu_of_payload(tcb.route.max_payload, tcb.route.ipv6),
        snd_wscale=tcb.snd_wscale,
        rcv_wscale=tcb.rcv_wscale,
        timestamps=tcb.ts_on,
        sack=tcb.sack_on,
        ecn=ecn is not None and tcb.syn_acked,
        srtt=int(tcb.srtt) / 1e9 if measured else None,
        rttvar=int(tcb.rttvar) / 1e9 if measured else None,
        rto=int(tcb.rto) / 1e9,
        cwnd=tcb.cwnd,
        ssthresh=tcb.ssthresh,
        congestion_control=name_of(tcb.policy.config.congestion_control),
        pacing_rate=pacing_rate(tcb),
        delivery_rate=0 if rate is None else rate.latest,
        app_limited=rate is not None and rate.latest_app_limited,
        bytes_in_flight=(tcb.snd_nxt - tcb.snd_una) & MASK,
        send_queue=queued_bytes(tcb),
        unacked_bytes=unacked_data(tcb),
        unread_bytes=0 if unread is None else unread.size,
        receive_buffer=tcb.rcv_buf,
        rcv_rtt=None if sizing is None or sizing.rtt < 0 else int(sizing.rtt) / 1e9,
        discarded_bytes=tcb.discarded,
        bytes_sent=tcb.bytes_out,
        bytes_received=tcb.bytes_in,
        segments_out=tcb.segments_out,
        segments_in=tcb.segments_in,
        retransmissions=tcb.retransmissions,
        ce_in=0 if ecn is None else ecn.ce_in,
        ecn_reductions=0 if ecn is None else ecn.reductions,
        age=int(now - tcb.opened_at) / 1e9,
        seconds_in=seconds_in(tcb, now),
    )


def seconds_in(tcb: Tcb, now: i64) -> dict[State, float]:
    """How long each closing state took that the connection has been in, until ``now`` for the last: in their order."""
    end = now
    if tcb.done:
        end = tcb.ended_at
    states = [State(st) for st in range(FIN_WAIT_1, LAST_ACK + 1) if (tcb.closing_states >> st) & 1]
    if not states:
        return {}
    instants = [tcb.closing_at, tcb.half_closed_at, end] if len(states) == 2 else [tcb.closing_at, end]
    return {state: int(instants[i + 1] - instants[i]) / 1e9 for i, state in enumerate(states)}


def closed_by_peer(tcb: Tcb) -> bool:
    """Whether the other side closed first: its FIN, or its RST, came before our close."""
    if tcb.closing_states == 0:
        return tcb.reset_received
    return (tcb.closing_states >> CLOSE_WAIT) & 1 != 0


def last_ack_missing(tcb: Tcb) -> bool:
    """Everything but our FIN is acknowledged and the peer's FIN is here: both sides have every byte."""
    return tcb.fin_received and tcb.fin_sent and not tcb.fin_acked and unacked_data(tcb) == 0
