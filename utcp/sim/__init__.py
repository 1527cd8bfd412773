"""A seeded network in virtual time: engines that talk to each other, the same way every time."""

from utcp.sim.network import App, Fate, Host, Network, Packet

__all__ = ["App", "Fate", "Host", "Network", "Packet"]
