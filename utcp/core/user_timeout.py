"""The user timeout and its TCP option (RFC 9293 3.8.3, RFC 5482)."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from utcp.core.tcb import Tcb
from utcp.wire.segment import Segment

_SECOND: Final = 1_000_000_000
_MINUTES: Final = 0x8000  # the option's granularity bit
# RFC 5482 3.1: what a peer can make of our timeout
L_LIMIT: Final = 100 * _SECOND
U_LIMIT: Final = 3600 * _SECOND


def patience_with(tcb: Tcb) -> i64:
    """How long to go without an acknowledgment: USER TIMEOUT if there is one, else R2."""
    policy = tcb.policy
    if policy.user_timeout >= 0:
        return policy.user_timeout
    if tcb.adopted_timeout >= 0:
        return tcb.adopted_timeout
    return policy.r2


def advertised_timeout(tcb: Tcb) -> i64:
    """ADV_UTO as the option's 16 bits: seconds, or minutes where seconds do not fit."""
    policy = tcb.policy
    timeout = policy.user_timeout if policy.user_timeout >= 0 else policy.r2
    seconds = max(timeout // _SECOND, 1)
    if seconds < _MINUTES:
        return seconds
    return _MINUTES | min(seconds // 60, _MINUTES - 1)


def on_user_timeout_option(tcb: Tcb, seg: Segment) -> None:
    """USER_TIMEOUT = min(U_LIMIT, max(ADV_UTO, REMOTE_UTO, L_LIMIT)), unless the user has set one (RFC 5482 3.1)."""
    policy = tcb.policy
    value: i64 = seg.user_timeout & (_MINUTES - 1)
    if seg.user_timeout < 0 or value == 0 or not policy.user_timeout_option or policy.user_timeout >= 0:
        return  # absent, or 0, which is reserved (RFC 5482 3.4)
    remote: i64 = value * (60 if seg.user_timeout & _MINUTES else 1) * _SECOND
    tcb.adopted_timeout = min(U_LIMIT, max(max(policy.r2, remote), L_LIMIT))  # noqa: PLW3301 - mypyc likes two
