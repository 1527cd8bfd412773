"""A translator between utcp datagrams and TCP packets on a TUN device (docs/gateway.md)."""

from utcp.gateway.gateway import Capture, Counters, Gateway, PacketDevice
from utcp.gateway.impair import LOSE, PASS, Direction, Impair, Impairments, LinkQuality, Mark, Marks, Rule, Rules
from utcp.gateway.routes import Endpoint, KernelAddress
from utcp.gateway.tun import Tun, loopback_up

__all__ = [
    "LOSE",
    "PASS",
    "Capture",
    "Counters",
    "Direction",
    "Endpoint",
    "Gateway",
    "Impair",
    "Impairments",
    "KernelAddress",
    "LinkQuality",
    "Mark",
    "Marks",
    "PacketDevice",
    "Rule",
    "Rules",
    "Tun",
    "loopback_up",
]
