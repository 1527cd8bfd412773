"""``Policy``: the numbers of a ``Config`` in the form that the engine's hot paths read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from mypy_extensions import i64

from utcp.core.congestion.algorithms import Factory, factory_of

if TYPE_CHECKING:
    from utcp.core.config import Config

# Config.ecn, in the numbers of Linux's tcp_ecn
ECN_OFF: Final = 0
ECN_ASK: Final = 1
ECN_PASSIVE: Final = 2

MAX_WSCALE: Final = 14  # RFC 7323 2.3
MAX_MSS: Final = 65_535  # that the option can say


@final
class Policy:
    """A Config for the hot paths: the same names, durations in integer nanoseconds, None as -1 or the largest limit."""

    def __init__(self, config: Config) -> None:
        self.config: Config = config
        self.rto_initial: i64 = _ns(config.rto_initial)
        self.rto_min: i64 = _ns(config.rto_min)
        self.rto_max: i64 = _ns(config.rto_max)
        self.delayed_ack: i64 = _ns(config.delayed_ack)
        self.r1: i64 = config.r1
        self.r2: i64 = _ns(config.r2)
        self.syn_r2: i64 = _ns(config.syn_r2)
        self.syn_ack_timeout: i64 = _ns(config.syn_ack_timeout)
        self.persist_max: i64 = _ns(config.persist_max)
        self.initial_window: i64 = config.initial_window
        self.congestion_control: Factory = factory_of(config.congestion_control)
        self.pacing: bool = config.pacing
        self.pacing_ss_ratio: i64 = config.pacing_ss_ratio
        self.pacing_ca_ratio: i64 = config.pacing_ca_ratio

        self.user_timeout: i64 = _ns(config.user_timeout)
        self.user_timeout_option: bool = config.user_timeout_option
        self.keepalive: bool = config.keepalive
        self.keepalive_idle: i64 = _ns(config.keepalive_idle)
        self.keepalive_interval: i64 = _ns(config.keepalive_interval)
        self.keepalive_count: i64 = config.keepalive_count

        self.connect_timeout: i64 = _ns(config.connect_timeout)
        self.msl: i64 = _ns(config.msl)
        self.fin_timeout: i64 = _ns(config.fin_timeout)
        self.orphan_timeout: i64 = _ns(config.orphan_timeout)
        self.close_timeout: i64 = _ns(config.close_timeout)
        self.linger: i64 = _ns(config.linger)
        self.max_orphans: i64 = config.max_orphans
        self.max_connections: i64 = config.max_connections
        self.max_half_open: i64 = config.max_half_open

        self.nodelay: bool = config.nodelay
        self.max_segment_size: i64 = config.max_segment_size or MAX_MSS
        self.mtu_probing: i64 = config.mtu_probing
        self.base_mss: i64 = config.base_mss
        self.mtu_probe_interval: i64 = _ns(config.mtu_probe_interval)
        self.receive_buffer: i64 = -1 if config.receive_buffer is None else config.receive_buffer
        self.initial_receive_buffer: i64 = config.initial_receive_buffer
        self.max_receive_buffer: i64 = config.max_receive_buffer
        self.send_buffer: i64 = config.send_buffer
        self.max_memory: i64 = config.max_memory
        self.window_scaling: bool = config.window_scaling
        # Not by methods: they would have to look whether each attribute from here on is set, ever after
        self.first_receive_buffer: i64 = _first_receive_buffer(config)  # of a new connection
        self.receive_wscale: i64 = _wscale_for(config.receive_buffer or config.max_receive_buffer)
        self.timestamps: bool = config.timestamps
        self.sack: bool = config.sack
        self.dsack: bool = config.dsack
        self.rack: bool = config.rack
        self.tlp: bool = config.tlp
        self.frto: bool = config.frto
        self.undo: bool = config.undo
        self.ecn: i64 = _ecn(config.ecn)

        self.rfc5961_rst: bool = config.rfc5961_rst
        self.rfc5961_syn: bool = config.rfc5961_syn
        self.challenge_ack_limit: i64 = config.challenge_ack_limit
        self.challenge_ack_interval: i64 = _ns(config.challenge_ack_interval)
        self.syn_cookies: bool = config.syn_cookies
        self.drop_syn_fin: bool = config.drop_syn_fin
        self.rfc1337: bool = config.rfc1337
        self.time_wait_reuse: bool = config.time_wait_reuse
        self.max_time_wait: i64 = config.max_time_wait


def _first_receive_buffer(config: Config) -> i64:
    if config.receive_buffer is not None:
        return config.receive_buffer
    return min(config.initial_receive_buffer, config.max_receive_buffer)


def _wscale_for(buffer: i64) -> i64:
    """The smallest shift with which the whole buffer can be advertised, also when it has grown."""
    shift: i64 = 0
    while shift < MAX_WSCALE and (buffer >> shift) > 65_535:
        shift += 1
    return shift


def _ecn(choice: bool | str) -> i64:
    if isinstance(choice, str):
        return ECN_PASSIVE
    return ECN_ASK if choice else ECN_OFF


def _ns(seconds: float | None) -> i64:
    return -1 if seconds is None else round(seconds * 1e9)
