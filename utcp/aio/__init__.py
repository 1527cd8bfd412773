"""The asyncio face: UDP sockets, the pump that drives an engine, transports, servers and streams."""
