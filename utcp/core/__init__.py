"""The engine: TCP (RFC 9293) without sockets, clock, asyncio or logging. See docs/engine.md for the contract."""
