"""Every policy number of the engine, for users; ``utcp.core.policy`` is what the engine's hot paths read.

This module stays interpreted in the compiled build: a compiled dataclass loses its docstrings, and the TypeErrors
of its attributes do not name the field.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, Final, Literal

from utcp.core.congestion.algorithms import Factory, factory_of
from utcp.core.policy import Policy

__all__ = ["CONNECTION_OPTIONS", "Config", "Policy", "changed", "policy_of"]

# What ``Connection.set_option`` may change on a living connection.
CONNECTION_OPTIONS: Final = frozenset(
    {
        "max_segment_size",
        "nodelay",
        "linger",
        "fin_timeout",
        "orphan_timeout",
        "close_timeout",
        "msl",
        "r2",
        "delayed_ack",
        "receive_buffer",
        "max_receive_buffer",
        "send_buffer",
        "rto_min",
        "rto_max",
        "user_timeout",
        "keepalive",
        "keepalive_idle",
        "keepalive_interval",
        "keepalive_count",
        "congestion_control",
        "pacing",
        "pacing_ss_ratio",
        "pacing_ca_ratio",
    }
)

_DAY: Final = 86_400.0


def _seconds(default: float | None, lo: float, hi: float) -> Any:
    return field(default=default, metadata={"kind": float, "lo": lo, "hi": hi, "unit": "seconds"})


def _count(default: int | None, lo: int, hi: int, unit: str) -> Any:
    return field(default=default, metadata={"kind": int, "lo": lo, "hi": hi, "unit": unit})


def _switch(default: bool) -> Any:
    return field(default=default, metadata={"kind": bool})


@dataclass(frozen=True, kw_only=True)
class Config:
    """What may be tuned, with default, unit and source. ``dataclasses.replace`` makes a changed copy.

    A number out of its bounds is a ValueError, a value of another type a TypeError; both name the field.

    Retransmission and acknowledgment
        rto_initial: 1.0 s, RTO before the first RTT sample (RFC 6298 2.1).
        rto_min: 0.2 s, lower bound of the RTO (Linux; RFC 6298 2.4 says 1 s).
        rto_max: 60.0 s, upper bound of the RTO, not below rto_min (RFC 6298 2.5: at least 60 s; less is for
            experiments).
        delayed_ack: 0.04 s, how long an ACK may wait for company (Linux; RFC 9293 MUST-40: less than 0.5 s);
            0 acknowledges at once.
        r1: 3 retransmissions of one segment before the path is doubted (RFC 9293 3.8.3, SHLD-10).
        r2: 120.0 s of retransmitting one segment before the connection is given up (RFC 9293 3.8.3, SHLD-11: at
            least 100 s).
        syn_r2: 180.0 s, the same for a SYN (RFC 9293 MUST-23: at least 3 minutes).
        syn_ack_timeout: 63.0 s, the same for a SYN-ACK, whose receiver may never have existed (Linux: 5 retries).
        persist_max: 60.0 s, upper bound of the interval between zero-window probes (RFC 9293 3.8.6.1).
        initial_window: 10 segments (RFC 6928).
        congestion_control: cubic (RFC 9438), "reno" (RFC 5681, RFC 6582), a name made known by
            ``utcp.core.congestion.register``, or a factory: docs/congestion.md.
        pacing: True, what exceeds the initial window leaves in trains of about 1 ms, not as one burst.
        pacing_ss_ratio: 200 percent of cwnd / SRTT is the pacing rate below half of ssthresh (Linux
            tcp_pacing_ss_ratio).
        pacing_ca_ratio: 120 percent, above (Linux tcp_pacing_ca_ratio).
        user_timeout: None, or seconds without an acknowledgment after which the connection is given up, in place
            of r2; also bounds keepalive (RFC 9293 3.8.3, Linux TCP_USER_TIMEOUT).
        user_timeout_option: False; True tells the peer our user timeout and, if user_timeout is None, adopts the
            peer's, within 100 s to 1 h (RFC 5482 3.1).
        keepalive: False, probe an idle connection (RFC 9293 MUST-24, MUST-25: off by default, SO_KEEPALIVE).
        keepalive_idle: 7200.0 s of silence before the first probe (RFC 9293 MUST-28, TCP_KEEPIDLE).
        keepalive_interval: 75.0 s between probes (Linux TCP_KEEPINTVL).
        keepalive_count: 9 unanswered probes end the connection (Linux TCP_KEEPCNT; MUST-29: one is not enough).

    Opening and closing
        connect_timeout: None, or seconds after which an active open is given up, whatever syn_r2 says.
        msl: 30.0 s, maximum segment lifetime; TIME-WAIT lasts twice as long. 60 s is what Linux does; RFC 9293
            3.4.2 says MSL 2 minutes. 0 leaves no TIME-WAIT.
        fin_timeout: 60.0 s in FIN-WAIT-2 once nobody holds the connection (Linux tcp_fin_timeout).
        orphan_timeout: 60.0 s without progress for which a connection nobody holds keeps retransmitting its data
            and FIN.
        close_timeout: 30.0 s without progress before ``close(flush=True)`` gives up.
        linger: None, the close goes on in the background; 0, close sends RST; else RST after so many seconds if
            not everything is acknowledged by then (SO_LINGER).
        max_orphans: 65_536 connections nobody holds, per engine (Linux tcp_max_orphans).
        max_connections: 1_048_576 connections, per engine; TIME-WAIT records have a limit of their own.
        max_half_open: 65_536 connections in SYN-RECEIVED that came from listeners, per engine (Linux
            tcp_max_syn_backlog is per listener, as the backlog is here).

    Sending and receiving
        nodelay: False, Nagle's algorithm is on (RFC 9293 3.7.4, TCP_NODELAY).
        max_segment_size: None, from the path MTU; else bytes, a cap in both directions (RFC 9293 3.7.1,
            TCP_MAXSEG).
        mtu_probing: 2, segments begin at base_mss, and the path MTU is searched for with larger ones (RFC 8899); 1
            begins at the link's MTU, and searches once large segments vanish; 0 never searches, ICMP alone is believed
            (RFC 1191). Of a path whose MTU the system knows, as the loopback's, nothing is searched (Linux
            tcp_mtu_probing). Per engine; 0 for a connection: it does not probe.
        base_mss: 1_180 bytes, the MSS that any path is taken to carry: 1,200 with the TCP header (RFC 8899 5.1.2
            BASE_PLPMTU, Linux tcp_base_mss). Per engine.
        mtu_probe_interval: 600.0 s after a search until the next one, for paths change (RFC 8899 5.1.1
            PMTU_RAISE_TIMER, Linux tcp_probe_interval).
        receive_buffer: None, the buffer grows with what is read in a round trip; else bytes, the most that is held for
            the reader and so the largest window offered (SO_RCVBUF, which fixes it likewise).
        initial_receive_buffer: 131_072 bytes before it has grown (Linux tcp_rmem[1]).
        max_receive_buffer: 6_291_456 bytes to which it may grow (Linux tcp_rmem[2]); the window scale of our SYN is
            chosen for it (RFC 7323 2.3).
        send_buffer: 4_194_304 bytes that may be in flight, for they are kept until they are acknowledged (Linux
            tcp_wmem[2], SO_SNDBUF). Within it their number is the congestion window's affair.
        max_memory: 1_073_741_824 bytes received and not yet read, in order or not, per engine (Linux tcp_mem). Beyond
            it a connection is given room for two segments.
        window_scaling: True, offer and accept the option (RFC 7323 2).
        timestamps: True, offer and accept the option (RFC 7323 3).
        sack: True, offer and accept SACK-permitted (RFC 2018 2).
        dsack: True, report by SACK what came twice (RFC 2883).
        rack: True, a segment is lost when a later one has arrived and the reordering window is over (RFC 8985); False
            counts what was reported behind it (RFC 6675). Without SACK: three duplicate ACKs (RFC 6582).
        tlp: True, a flight's missing ACK is asked for by a tail loss probe before the RTO (RFC 8985 7; needs SACK).
        frto: True, detect spurious time-outs by the ACKs that follow (RFC 5682).
        undo: True, restore the congestion window when D-SACKs or timestamps show that a recovery was spurious
            (RFC 3708, RFC 3522, RFC 4015); False leaves it to frto.
        ecn: passive, use ECN (RFC 3168) with a peer that asks for it, do not ask; True asks, False refuses (Linux
            tcp_ecn 2, 1 and 0).

    Attacks and old segments
        rfc5961_rst: True, a RST in the window but not at RCV.NXT is challenged (RFC 5961 3.2); False resets.
        rfc5961_syn: True, a SYN on a synchronized connection is challenged (RFC 5961 4.2); False resets when it
            is in the window (RFC 793).
        challenge_ack_limit: 1_000 challenge ACKs a second, per engine (RFC 5961 7); 0 sends none.
        challenge_ack_interval: 0.5 s between challenge ACKs of one connection (Linux tcp_invalid_ratelimit); 0 is
            no limit.
        syn_cookies: True, a backlog full of half-open connections goes on with cookies (RFC 4987 3.6; Linux
            tcp_syncookies); False drops the SYNs.
        drop_syn_fin: False, the FIN of a SYN+FIN is ignored in LISTEN and SYN-SENT; True drops the segment.
        rfc1337: True, a RST in TIME-WAIT is ignored (RFC 1337 3, fix F1); False ends TIME-WAIT (RFC 9293 3.10.7.4).
        time_wait_reuse: True, a local connect may reuse a pair in TIME-WAIT once our timestamp clock has advanced
            (Linux tcp_tw_reuse; RFC 9293 MAY-2 speaks of the remote side only).
        max_time_wait: 1_048_576 TIME-WAIT records, per engine.
    """

    rto_initial: float = _seconds(1.0, 0.001, 60.0)
    rto_min: float = _seconds(0.2, 0.001, 60.0)
    rto_max: float = _seconds(60.0, 1.0, 3600.0)
    delayed_ack: float = _seconds(0.04, 0.0, 0.499)
    r1: int = _count(3, 1, 255, "retransmissions")
    r2: float = _seconds(120.0, 0.001, _DAY)
    syn_r2: float = _seconds(180.0, 0.001, _DAY)
    syn_ack_timeout: float = _seconds(63.0, 0.001, _DAY)
    persist_max: float = _seconds(60.0, 0.001, 3600.0)
    initial_window: int = _count(10, 1, 1000, "segments")
    congestion_control: str | Factory = field(default="cubic", metadata={"kind": Factory})
    pacing: bool = _switch(True)
    pacing_ss_ratio: int = _count(200, 100, 1000, "percent")
    pacing_ca_ratio: int = _count(120, 100, 1000, "percent")

    user_timeout: float | None = _seconds(None, 0.001, _DAY)
    user_timeout_option: bool = _switch(False)
    keepalive: bool = _switch(False)
    keepalive_idle: float = _seconds(7200.0, 0.001, 7 * _DAY)
    keepalive_interval: float = _seconds(75.0, 0.001, _DAY)
    keepalive_count: int = _count(9, 2, 127, "probes")

    connect_timeout: float | None = _seconds(None, 0.001, _DAY)
    msl: float = _seconds(30.0, 0.0, _DAY)
    fin_timeout: float = _seconds(60.0, 0.0, _DAY)
    orphan_timeout: float = _seconds(60.0, 0.0, _DAY)
    close_timeout: float = _seconds(30.0, 0.0, _DAY)
    linger: float | None = _seconds(None, 0.0, _DAY)
    max_orphans: int = _count(65_536, 0, 1 << 26, "connections")
    max_connections: int = _count(1_048_576, 0, 1 << 26, "connections")
    max_half_open: int = _count(65_536, 0, 1 << 26, "connections")

    nodelay: bool = _switch(False)
    max_segment_size: int | None = _count(None, 64, 65_495, "bytes")
    mtu_probing: int = _count(2, 0, 2, "mode")
    base_mss: int = _count(1_180, 528, 65_487, "bytes")
    mtu_probe_interval: float = _seconds(600.0, 0.001, _DAY)
    receive_buffer: int | None = _count(None, 1, 1 << 30, "bytes")
    initial_receive_buffer: int = _count(131_072, 1, 1 << 30, "bytes")
    max_receive_buffer: int = _count(6_291_456, 1, 1 << 30, "bytes")
    send_buffer: int = _count(4_194_304, 1, 1 << 30, "bytes")
    max_memory: int = _count(1 << 30, 0, 1 << 50, "bytes")
    window_scaling: bool = _switch(True)
    timestamps: bool = _switch(True)
    sack: bool = _switch(True)
    dsack: bool = _switch(True)
    rack: bool = _switch(True)
    tlp: bool = _switch(True)
    frto: bool = _switch(True)
    undo: bool = _switch(True)
    ecn: bool | Literal["passive"] = field(default="passive", metadata={"kind": Literal, "words": ("passive",)})

    rfc5961_rst: bool = _switch(True)
    rfc5961_syn: bool = _switch(True)
    challenge_ack_limit: int = _count(1_000, 0, 1_000_000, "per second")
    challenge_ack_interval: float = _seconds(0.5, 0.0, 60.0)
    syn_cookies: bool = _switch(True)
    drop_syn_fin: bool = _switch(False)
    rfc1337: bool = _switch(True)
    time_wait_reuse: bool = _switch(True)
    max_time_wait: int = _count(1_048_576, 0, 1 << 26, "records")

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None or one.default is not None:
                _check(one.name, value, **one.metadata)
        _check("rto_max", self.rto_max, float, self.rto_min, 3600.0, "seconds; from rto_min")

    @classmethod
    def linux(cls, **overrides: Any) -> Config:
        """As Linux does by default.

        A RST ends TIME-WAIT (tcp_rfc1337 0), SYN+FIN is dropped, RTO and probe intervals up to 120 s, data is
        retransmitted for 924.6 s (tcp_retries2 15), a SYN for 127 s (tcp_syn_retries 6), an orphan's data for
        102.2 s (tcp_orphan_retries 8).
        """
        ours = {
            "rfc1337": False,
            "drop_syn_fin": True,
            "rto_max": 120.0,
            "persist_max": 120.0,
            "r2": 924.6,
            "syn_r2": 127.0,
            "orphan_timeout": 102.2,
        }
        return cls(**{**ours, **overrides})

    @classmethod
    def rfc9293(cls, **overrides: Any) -> Config:
        """To the letter of RFC 9293 and the standards it requires.

        MSL 2 minutes (3.4.2), a RST ends TIME-WAIT (3.10.7.4), every unacceptable segment is answered (3.10.7.4,
        first), no local reuse of a pair in TIME-WAIT, RTO not below 1 s (RFC 6298 2.4), an initial window of
        3 segments (RFC 5681 3.1), Reno's congestion control, no pacing.
        """
        ours = {
            "msl": 120.0,
            "rfc1337": False,
            "challenge_ack_interval": 0.0,
            "time_wait_reuse": False,
            "rto_min": 1.0,
            "initial_window": 3,
            "congestion_control": "reno",
            "pacing": False,
        }
        return cls(**{**ours, **overrides})

    @classmethod
    def freebsd(cls, **overrides: Any) -> Config:
        """As FreeBSD does by default.

        No challenge-ACK limit per connection, no local reuse of a pair in TIME-WAIT, RTO from 30 ms
        (net.inet.tcp.rexmit_min) to 64 s, an active open is given up after 75 s (net.inet.tcp.keepinit).
        """
        ours = {
            "challenge_ack_interval": 0.0,
            "time_wait_reuse": False,
            "rto_min": 0.03,
            "rto_max": 64.0,
            "connect_timeout": 75.0,
        }
        return cls(**{**ours, **overrides})


@lru_cache(maxsize=256)
def policy_of(config: Config) -> Policy:
    """The Policy of a Config; equal configs share one."""
    return Policy(config)


def changed(policy: Policy, name: str, value: object) -> Policy:
    """The policy with one field of its Config changed. Raises TypeError or ValueError as Config does."""
    make = _changed if value is None or isinstance(value, (bool, int, float)) else _changed.__wrapped__
    return make(policy, name, value)


@lru_cache(maxsize=256, typed=True)  # a server may set the same options on each of its connections
def _changed(policy: Policy, name: str, value: object) -> Policy:
    changes: dict[str, Any] = {name: value}
    return policy_of(replace(policy.config, **changes))


def _check(
    name: str, value: object, kind: Any, lo: float = 0, hi: float = 0, unit: str = "", words: tuple[str, ...] = ()
) -> None:
    if kind is Factory:
        factory_of(value)
        return
    if kind is Literal:
        _check_choice(name, value, words)
        return
    if kind is bool:
        if not isinstance(value, bool):
            raise TypeError(f"{name}: {value!r} is not a bool")
        return
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        raise TypeError(f"{name}: {value!r} is not {'a float' if kind is float else 'an int'}")
    if not lo <= value <= hi:  # false for nan as well
        raise ValueError(f"{name}: {value!r} is not in [{lo}, {hi}] ({unit})")


def _check_choice(name: str, value: object, words: tuple[str, ...]) -> None:
    """False, True or one of ``words``."""
    if not isinstance(value, (bool, str)):
        raise TypeError(f"{name}: {value!r} is neither a bool nor a str")
    if isinstance(value, str) and value not in words:
        raise ValueError(f"{name}: {value!r} is not in {[False, True, *words]}")
