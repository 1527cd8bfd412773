"""The transmission control block: every variable of one connection, flat, by its RFC 9293 3.3.1 name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mypy_extensions import i64

from utcp.core.buffers import ReceiveQueue, SendQueue
from utcp.core.config import Policy
from utcp.core.congestion.control import UNLIMITED, CongestionControl
from utcp.core.delivery_rate import DeliveryRate
from utcp.core.paths import Path
from utcp.core.reassembly import Reassembly
from utcp.core.stack import NEVER, Stack
from utcp.core.states import CLOSED
from utcp.core.trains import NOBODY

if TYPE_CHECKING:
    from utcp.core.ecn import Ecn
    from utcp.core.listener import Listener
    from utcp.core.receive_buffer import RightSizing
    from utcp.core.recovery_state import Recovery


class Tcb:
    """State only: the functions that act on it are the RFC's steps, a module for each mechanism.

    Instants (``..._at``) and durations are nanoseconds; a deadline that is not set is NEVER.
    """

    # Interpreted, a dict for each of this many attributes would be three times the size
    __slots__ = (
        "ack_can_wait",
        "ack_held",
        "ack_now",
        "adopted_timeout",
        "armed_at",
        "bytes_in",
        "bytes_out",
        "challenged_at",
        "closing_at",
        "closing_states",
        "congestion",
        "context",
        "cwnd",
        "delack_at",
        "dirty",
        "discarded",
        "done",
        "dsack",
        "dup_acks_due",
        "ecn",
        "ended_at",
        "error",
        "fin_acked",
        "fin_at",
        "fin_known",
        "fin_queued",
        "fin_received",
        "fin_sent",
        "fin_wait_2_at",
        "flushing",
        "half_closed_at",
        "heard_at",
        "held",
        "in_ready",
        "irs",
        "iss",
        "keepalive_at",
        "keepalive_probes",
        "key",
        "last_ack_sent",
        "let_go_at",
        "linger_at",
        "lingering",
        "listener",
        "local_port",
        "max_snd_wnd",
        "min_rtt",
        "no_room",
        "opened_at",
        "orphan",
        "pace_at",
        "paced_until",
        "passive",
        "path",
        "peer_mss",
        "persist_at",
        "plpmtu",
        "policy",
        "probed_at",
        "progress_at",
        "push_now",
        "rate",
        "rcv_adv",
        "rcv_buf",
        "rcv_mss",
        "rcv_nxt",
        "rcv_up",
        "rcv_wscale",
        "ready_bits",
        "reason",
        "reassembly",
        "receive_queue",
        "recovery",
        "remote_port",
        "reo_at",
        "reset_received",
        "reset_when_flushed",
        "retransmissions",
        "rmss",
        "route",
        "rto",
        "rtt_at",
        "rtt_round",
        "rtt_seq",
        "rttvar",
        "rtx_at",
        "rtx_count",
        "rtx_ts",
        "sack_on",
        "segments_in",
        "segments_out",
        "send_queue",
        "sent_at",
        "shut_rd",
        "sizing",
        "slot",
        "smss",
        "snd_nxt",
        "snd_una",
        "snd_up",
        "snd_wl1",
        "snd_wl2",
        "snd_wnd",
        "snd_wscale",
        "srtt",
        "ssthresh",
        "st",
        "stack",
        "syn_acked",
        "syn_count",
        "syn_due",
        "syn_lost",
        "tlp_at",
        "train_serial",
        "ts_offset",
        "ts_on",
        "ts_recent",
        "ts_recent_at",
        "unacked_in",
        "urgent_in",
        "urgent_out",
        "user_timeout_due",
        "window_update",
        "wscale_on",
    )

    def __init__(self, stack: Stack, route: Path, local_port: i64, remote_port: i64, key: i64, policy: Policy) -> None:
        self.stack: Stack = stack
        self.route: Path = route
        self.path: i64 = route.index
        self.local_port: i64 = local_port
        self.remote_port: i64 = remote_port
        self.key: i64 = key
        self.slot: i64 = NOBODY  # its number in stack.connections while the engine holds the connection
        self.policy: Policy = policy
        self.st: i64 = CLOSED
        self.passive: bool = False
        self.listener: Listener | None = None
        self.context: Any = None

        # Send sequence variables
        self.iss: i64 = 0
        self.syn_acked: bool = False
        self.snd_una: i64 = 0
        self.snd_nxt: i64 = 0
        self.snd_wnd: i64 = 0
        self.snd_wl1: i64 = 0
        self.snd_wl2: i64 = 0
        self.max_snd_wnd: i64 = 0
        self.snd_wscale: i64 = 0
        self.peer_mss: i64 = 536  # the MSS option of the peer's SYN
        self.smss: i64 = 536  # data bytes in a full segment, options already taken off (RFC 6691)
        self.plpmtu: i64 = 0  # the path's, when ``smss`` was last set
        self.send_queue: SendQueue | None = None  # byte 0 is the first unacknowledged one
        self.fin_queued: bool = False  # the user has closed the sending side
        self.fin_sent: bool = False
        self.fin_acked: bool = False

        # Receive sequence variables
        self.irs: i64 = 0
        self.rcv_nxt: i64 = 0
        self.rcv_adv: i64 = 0  # right edge of the window we have advertised; never moves left (SHLD-14)
        self.rcv_wscale: i64 = 0
        self.rmss: i64 = 536  # the MSS we announced
        self.rcv_mss: i64 = 0  # the largest segment received
        self.rcv_buf: i64 = policy.first_receive_buffer  # the most that is held for the reader, out of order included
        self.sizing: RightSizing | None = None  # how it grows, once data comes in bulk
        self.receive_queue: ReceiveQueue | None = None
        self.reassembly: Reassembly | None = None
        self.held: i64 = 0  # what these two cost, as ``stack.held`` has counted it
        self.no_room: bool = False  # ... is what all may cost: the peer has been told to wait
        self.fin_known: bool = False  # a FIN has been seen, at sequence number fin_at
        self.fin_at: i64 = 0
        self.fin_received: bool = False  # ... and reached
        self.shut_rd: bool = False  # arriving data is acknowledged and discarded
        self.discarded: i64 = 0  # bytes the user will never read

        # Urgent data (RFC 6093)
        self.urgent_out: bool = False
        self.snd_up: i64 = 0  # the number behind the last urgent byte we sent
        self.urgent_in: bool = False
        self.rcv_up: i64 = 0  # the same, of the peer

        # Options in use
        self.wscale_on: bool = False
        self.sack_on: bool = False
        self.ecn: Ecn | None = None  # asked for, or agreed on
        self.ts_on: bool = False
        self.ts_offset: i64 = 0
        self.ts_recent: i64 = 0
        self.ts_recent_at: i64 = 0
        self.last_ack_sent: i64 = 0

        # Intents, which ``output`` turns into segments
        self.dirty: bool = False
        self.syn_due: bool = False
        self.ack_now: bool = False
        self.ack_can_wait: bool = False  # it is for a SYN-ACK or a FIN: the user is likely to answer
        self.ack_held: bool = False  # ... and does wait, in ``stack.held_acks``
        self.dsack: tuple[int, int] | None = None  # what came twice, for the next ACK to say (RFC 2883)
        self.dup_acks_due: i64 = 0  # one for each out-of-order segment (RFC 5681 4.2)
        self.unacked_in: i64 = 0  # bytes received since the last ACK we sent
        self.push_now: bool = False  # send what there is, full segment or not
        self.window_update: bool = False  # the user has read: see whether the window opened enough to say so
        self.train_serial: i64 = 0

        # Round-trip time and retransmission (RFC 6298)
        self.srtt: i64 = -1
        self.min_rtt: i64 = NEVER
        self.rttvar: i64 = 0
        self.rto: i64 = policy.rto_initial
        self.rtt_seq: i64 = 0
        self.rtt_round: i64 = 0  # SND.NXT when the last sample was taken
        self.rtt_at: i64 = NEVER  # when the timed segment left; NEVER: none is timed
        self.rtx_ts: i64 = 0  # TSval of the last time-out; at first our SYN's
        self.rtx_count: i64 = 0  # time-outs or probes in a row
        self.recovery: Recovery | None = None  # what is in flight, if ``sent_at`` does not say it all
        self.progress_at: i64 = stack.now  # when the peer last acknowledged something new
        self.syn_lost: bool = False

        # Congestion control (RFC 5681)
        self.cwnd: i64 = 0
        self.ssthresh: i64 = UNLIMITED
        self.congestion: CongestionControl | None = None  # once data has been acknowledged
        self.rate: DeliveryRate | None = None  # the same
        self.paced_until: i64 = 0  # the next train shall not leave before
        self.sent_at: i64 = stack.now  # when new data or a FIN last left

        # Deadlines; 2MSL lives in the TIME-WAIT table
        self.rtx_at: i64 = NEVER
        self.tlp_at: i64 = NEVER
        self.reo_at: i64 = NEVER
        self.persist_at: i64 = NEVER
        self.pace_at: i64 = NEVER
        self.probed_at: i64 = -NEVER  # when the last window probe left
        self.delack_at: i64 = NEVER
        self.fin_wait_2_at: i64 = NEVER
        self.linger_at: i64 = NEVER
        self.armed_at: i64 = NEVER  # the entry in the timer wheel that counts

        # Keepalive (RFC 9293 3.8.4) and user timeout (RFC 5482)
        self.keepalive_at: i64 = NEVER
        self.keepalive_probes: i64 = 0
        self.heard_at: i64 = stack.now  # when the last segment came
        self.adopted_timeout: i64 = -1  # from the peer's option
        self.user_timeout_due: bool = False  # the next segment shall say ours

        # Closing
        self.orphan: bool = False  # the user has closed: the engine owns what is left
        self.let_go_at: i64 = 0  # ... since when
        self.flushing: bool = False  # close(flush=True): unacknowledged data comes before any RST
        self.reset_when_flushed: bool = False
        self.lingering: bool = False  # lingering_close: arriving data is discarded, and no reason for a RST
        self.closing_states: i64 = 0  # those of FIN-WAIT-1 ... LAST-ACK it has been in, a bit each
        self.closing_at: i64 = 0  # when it entered the first of them
        self.half_closed_at: i64 = 0  # ... and the second
        self.ended_at: i64 = 0
        self.done: bool = False  # the teardown is complete on this side
        self.error: Exception | None = None
        self.reason: str = ""
        self.reset_received: bool = False

        # Readiness
        self.ready_bits: i64 = 0
        self.in_ready: bool = False

        # Challenge ACKs (RFC 5961)
        self.challenged_at: i64 = -NEVER

        # Statistics
        self.opened_at: i64 = stack.now
        self.segments_in: i64 = 0
        self.segments_out: i64 = 0
        self.bytes_in: i64 = 0
        self.bytes_out: i64 = 0
        self.retransmissions: i64 = 0
        self.syn_count: i64 = 0


def mark_dirty(tcb: Tcb) -> None:
    """Have ``output`` look at the connection before the next trains leave."""
    if not tcb.dirty:
        tcb.dirty = True
        tcb.stack.dirty.append(tcb)


def mark_ready(tcb: Tcb, bits: i64) -> None:
    """Tell the user of the connection, by way of ``Engine.ready``."""
    tcb.ready_bits |= bits
    if not tcb.in_ready:
        tcb.in_ready = True
        tcb.stack.ready.append(tcb)


def count_held(tcb: Tcb) -> None:
    """Keep ``stack.held`` right; to be called when the connection has received or its user has read."""
    if tcb.slot < 0:
        return  # the bytes are the user's, with the object
    held: i64 = 0
    queue = tcb.receive_queue
    if queue is not None:
        held = queue.size
    waiting = tcb.reassembly
    if waiting is not None:
        held += waiting.cost()
    tcb.stack.held += held - tcb.held
    tcb.held = held


def short_of_memory(tcb: Tcb) -> bool:
    """All connections together hold what they may: this one is to do with little."""
    return tcb.stack.held >= tcb.stack.policy.max_memory


def sent_bytes(tcb: Tcb) -> i64:
    """Data bytes sent and not acknowledged: SND.NXT - SND.UNA less the SYN's and the FIN's number."""
    flight: i64 = (tcb.snd_nxt - tcb.snd_una) & 0xFFFFFFFF
    if not tcb.syn_acked and flight > 0:
        flight -= 1
    if tcb.fin_sent and not tcb.fin_acked:
        flight -= 1
    return flight


def queued_bytes(tcb: Tcb) -> i64:
    """Bytes written and not yet sent once."""
    queue = tcb.send_queue
    if queue is None:
        return 0
    return queue.size - sent_bytes(tcb)
