"""A seeded network in virtual time: engines and asyncio programs that talk to each other the same way every time."""

from utcp.sim.host import App, Host
from utcp.sim.link import Fate, Link
from utcp.sim.loop import SimLoop, run
from utcp.sim.network import Flow, Network, Packet, Router

__all__ = ["App", "Fate", "Flow", "Host", "Link", "Network", "Packet", "Router", "SimLoop", "run"]
