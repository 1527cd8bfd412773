"""What an engine counted, in the spirit of ``nstat``."""

from __future__ import annotations

from typing import final

from mypy_extensions import i64


@final
class Counters:
    """Totals since the engine began. ``drops`` maps a reason to how many segments it cost."""

    def __init__(self) -> None:
        self.segments_in: i64 = 0
        self.segments_out: i64 = 0
        self.bytes_in: i64 = 0
        self.bytes_out: i64 = 0
        self.retransmissions: i64 = 0
        self.fast_recoveries: i64 = 0
        self.loss_probes: i64 = 0
        self.spurious_recoveries: i64 = 0
        self.ce_in: i64 = 0
        self.ecn_reductions: i64 = 0
        self.ecn_ignored: i64 = 0
        self.mtu_probes: i64 = 0
        self.mtu_probes_lost: i64 = 0
        self.black_holes: i64 = 0
        self.packets_too_big: i64 = 0
        self.packets_too_big_ignored: i64 = 0
        self.resets_in: i64 = 0
        self.resets_out: i64 = 0
        self.challenge_acks: i64 = 0
        self.challenge_acks_suppressed: i64 = 0
        self.old_segments_unanswered: i64 = 0
        self.active_opens: i64 = 0
        self.passive_opens: i64 = 0
        self.failed_opens: i64 = 0
        self.established: i64 = 0
        self.accept_overflows: i64 = 0
        self.connections_refused: i64 = 0
        self.syn_cookies_sent: i64 = 0
        self.syn_cookies_accepted: i64 = 0
        self.timeouts: i64 = 0
        self.time_wait_reused: i64 = 0
        self.time_wait_evicted: i64 = 0
        self.time_wait_restarted: i64 = 0
        self.orphans_dropped: i64 = 0
        self.memory_drops: i64 = 0
        self.bad_window_scales: i64 = 0
        self.paths_released: i64 = 0
        self.drops: dict[str, int] = {}

    def drop(self, reason: str) -> None:
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def as_dict(self) -> dict[str, object]:
        """All counters by name."""
        return {
            "segments_in": self.segments_in,
            "segments_out": self.segments_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "retransmissions": self.retransmissions,
            "fast_recoveries": self.fast_recoveries,
            "loss_probes": self.loss_probes,
            "spurious_recoveries": self.spurious_recoveries,
            "ce_in": self.ce_in,
            "ecn_reductions": self.ecn_reductions,
            "ecn_ignored": self.ecn_ignored,
            "mtu_probes": self.mtu_probes,
            "mtu_probes_lost": self.mtu_probes_lost,
            "black_holes": self.black_holes,
            "packets_too_big": self.packets_too_big,
            "packets_too_big_ignored": self.packets_too_big_ignored,
            "resets_in": self.resets_in,
            "resets_out": self.resets_out,
            "challenge_acks": self.challenge_acks,
            "challenge_acks_suppressed": self.challenge_acks_suppressed,
            "old_segments_unanswered": self.old_segments_unanswered,
            "active_opens": self.active_opens,
            "passive_opens": self.passive_opens,
            "failed_opens": self.failed_opens,
            "established": self.established,
            "accept_overflows": self.accept_overflows,
            "connections_refused": self.connections_refused,
            "syn_cookies_sent": self.syn_cookies_sent,
            "syn_cookies_accepted": self.syn_cookies_accepted,
            "timeouts": self.timeouts,
            "time_wait_reused": self.time_wait_reused,
            "time_wait_evicted": self.time_wait_evicted,
            "time_wait_restarted": self.time_wait_restarted,
            "orphans_dropped": self.orphans_dropped,
            "memory_drops": self.memory_drops,
            "bad_window_scales": self.bad_window_scales,
            "paths_released": self.paths_released,
            "drops": dict(self.drops),
        }
