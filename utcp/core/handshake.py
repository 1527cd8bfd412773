"""What both kinds of open share: the options agreed on in the SYNs, and the step into ESTABLISHED."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.congestion.window import start_congestion_control
from utcp.core.ecn import agree_on_ecn, use_ecn
from utcp.core.policy import ECN_ASK, MAX_WSCALE
from utcp.core.stack import NEVER
from utcp.core.states import ACKED, CONNECTED, ESTABLISHED, FIN_WAIT_1, READABLE
from utcp.core.tcb import Tcb, mark_dirty, mark_ready
from utcp.core.transition import set_state
from utcp.wire.segment import ECE, HEADER_SIZE, Segment
from utcp.wire.seq import MASK

DEFAULT_MSS: Final = 536  # MUST-15
DEFAULT_MSS_IPV6: Final = 1220
MIN_SMSS: Final = 64  # below this a peer's MSS is an attack, not a network (Linux: TCP_MIN_SND_MSS 48)
TIMESTAMPS_SIZE: Final = 12


def offer_options(tcb: Tcb) -> None:
    """What our SYN will say: taken from the connection's policy."""
    policy = tcb.policy
    tcb.ts_on = policy.timestamps
    tcb.sack_on = policy.sack
    tcb.wscale_on = policy.window_scaling
    if policy.window_scaling:
        tcb.rcv_wscale = policy.receive_wscale
    tcb.rmss = tcb.route.link_payload - HEADER_SIZE  # what we can receive (MUST-67, RFC 6691 2)
    if policy.max_segment_size < tcb.rmss:
        tcb.rmss = policy.max_segment_size
    if policy.ecn == ECN_ASK and not tcb.passive:
        use_ecn(tcb)


def accept_options(tcb: Tcb, seg: Segment) -> None:
    """Keep of what we offered what the peer's SYN has too (RFC 7323 2.2, 3.2; RFC 2018 2; RFC 3168 6.1.1)."""
    if tcb.wscale_on and seg.wscale >= 0:
        tcb.snd_wscale = seg.wscale
        if seg.wscale > MAX_WSCALE:
            tcb.snd_wscale = MAX_WSCALE
            tcb.stack.counters.bad_window_scales += 1  # "SHOULD log the error" (RFC 7323 2.3)
    else:
        tcb.wscale_on = False
        tcb.snd_wscale = 0
        tcb.rcv_wscale = 0
    tcb.sack_on = tcb.sack_on and seg.sack_permitted
    tcb.ts_on = tcb.ts_on and seg.ts
    if tcb.ts_on:
        tcb.ts_recent = seg.ts_val
        tcb.ts_recent_at = tcb.stack.now
    if tcb.ecn is not None or seg.flags & ECE:
        agree_on_ecn(tcb, seg)
    default: i64 = DEFAULT_MSS_IPV6 if tcb.route.ipv6 else DEFAULT_MSS
    tcb.peer_mss = seg.mss if seg.mss > 0 else default
    set_smss(tcb)


def set_smss(tcb: Tcb) -> None:
    """Eff.snd.MSS (MUST-16): what the peer takes and the path carries, less the options of every segment."""
    tcb.plpmtu = tcb.route.max_payload
    mss = tcb.plpmtu - HEADER_SIZE
    if tcb.policy.max_segment_size < mss:
        mss = tcb.policy.max_segment_size
    if tcb.peer_mss < mss:
        mss = tcb.peer_mss
    if tcb.ts_on:
        mss -= TIMESTAMPS_SIZE
    if mss < MIN_SMSS:
        mss = MIN_SMSS
    tcb.smss = mss
    if tcb.cwnd > 0 and tcb.cwnd < mss:
        tcb.cwnd = mss  # a window below one segment would send nothing
    control = tcb.congestion
    if control is not None:
        control.mss = tcb.smss


def start_receiving(tcb: Tcb, seg: Segment) -> None:
    """Take IRS and the first window from the peer's SYN; ours is as wide as our SYN has said, if it was the first."""
    offered: i64 = (tcb.rcv_adv - tcb.rcv_nxt) & MASK  # by our SYN, if it has left
    tcb.irs = seg.seq
    tcb.rcv_nxt = (seg.seq + 1) & MASK
    tcb.rcv_adv = (tcb.rcv_nxt + offered) & MASK
    tcb.last_ack_sent = tcb.rcv_nxt
    tcb.snd_wnd = seg.wnd  # never scaled in a SYN (RFC 7323 2.2)
    tcb.max_snd_wnd = seg.wnd
    tcb.snd_wl1 = seg.seq
    tcb.snd_wl2 = seg.ack


def establish(tcb: Tcb) -> None:
    """The handshake is complete. A close that came early is now carried out (RFC 9293 3.10.4)."""
    stack = tcb.stack
    start_congestion_control(tcb)
    if tcb.syn_lost:
        # RFC 6298 5.7: which of the SYNs was acknowledged nobody knows, but 1 s may be too short
        tcb.rto = min(3_000_000_000, tcb.policy.rto_max)
    tcb.rtx_count = 0
    tcb.rtx_at = NEVER
    tcb.progress_at = stack.now
    stack.counters.established += 1
    tcb.heard_at = stack.now
    start_keepalive(tcb)
    set_state(tcb, ESTABLISHED)
    bits: i64 = CONNECTED
    queue = tcb.receive_queue
    if queue is not None and queue.size > 0:
        bits |= READABLE
    send_queue = tcb.send_queue
    if send_queue is None or send_queue.size == 0:
        bits |= ACKED
    mark_ready(tcb, bits)
    if tcb.fin_queued:
        set_state(tcb, FIN_WAIT_1)
    mark_dirty(tcb)


def start_keepalive(tcb: Tcb) -> None:
    """Watch an idle connection, if the user wants that (MUST-24 to MUST-28)."""
    policy = tcb.policy
    tcb.keepalive_at = tcb.heard_at + policy.keepalive_idle if policy.keepalive else NEVER
