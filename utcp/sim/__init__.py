"""A seeded network in virtual time: engines and asyncio programs that talk to each other the same way every time."""

from utcp.sim.host import App, Host
from utcp.sim.link import Fate, Link
from utcp.sim.loop import SimLoop, run
from utcp.sim.network import Network, Packet

__all__ = ["App", "Fate", "Host", "Link", "Network", "Packet", "SimLoop", "run"]
