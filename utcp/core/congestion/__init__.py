"""Congestion control: the interface, and the algorithms that come with utcp (docs/congestion.md)."""

from utcp.core.congestion.algorithms import Factory, register
from utcp.core.congestion.control import ECN, LOSS, TIMEOUT, UNLIMITED, Ack, CongestionControl
from utcp.core.congestion.cubic import Cubic
from utcp.core.congestion.newreno import NewReno

__all__ = [
    "ECN",
    "LOSS",
    "TIMEOUT",
    "UNLIMITED",
    "Ack",
    "CongestionControl",
    "Cubic",
    "Factory",
    "NewReno",
    "register",
]
