"""What belongs to an event loop: its endpoints, the shared client sockets, and their end with the loop's.

A kernel finishes sending for a program that has gone; here nobody is left to do it. So the end of a loop waits,
for a bounded time, until what was written and the FINs behind it are acknowledged:

- ``asyncio.run`` and everything else that calls ``loop.shutdown_asyncgens`` finalizes an asynchronous generator
  of ours, which closes the loop's endpoints;
- a bare ``loop.close()`` does the same before it closes;
- and so does the end of the interpreter for a loop that nobody closed.

Each of them warns (ResourceWarning) of the servers, transports and endpoints that are still open then.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from utcp.aio.addresses import Address
from utcp.aio.hosts import Host

if TYPE_CHECKING:
    from utcp.aio.endpoint import Endpoint


class LoopEndpoints:
    """All open endpoints of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.endpoints: dict[Endpoint, None] = {}  # in the order of their making
        self.clients: dict[tuple[Host, int], Endpoint] = {}  # shared by all clients of a host, by address family
        self.servers: dict[tuple[Host, Address], Endpoint] = {}  # shared by servers on one UDP address
        self._guard: AsyncGenerator[None, None] | None = None
        self._close_with(loop)

    def guard(self) -> None:
        """Have ``loop.shutdown_asyncgens`` close the endpoints. Called while the loop runs."""
        if self._guard is None:
            self._guard = self._until_shutdown()
            try:
                self._guard.__anext__().send(None)  # up to its yield: now the loop knows of it
            except StopIteration:
                pass

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._guard = None
            self._warn_of_unclosed()
            await self.aclose()

    async def aclose(self) -> None:
        """Close every endpoint gracefully, all at the same time."""
        await asyncio.gather(*[endpoint.aclose() for endpoint in self.endpoints])

    def abort(self) -> None:
        for endpoint in list(self.endpoints):
            endpoint.abort()

    def _close_with(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wrap ``loop.close`` so that it closes the endpoints first."""
        close: Callable[[], None] = loop.close
        ref = weakref.ref(self)

        def close_after_endpoints() -> None:
            endpoints = ref()
            if endpoints is not None and not loop.is_running() and not loop.is_closed():
                endpoints.finish(loop)
            close()

        anything: Any = loop
        anything.close = close_after_endpoints

    def _warn_of_unclosed(self) -> None:
        """What the program should have closed: in asyncio's words, which has the garbage collector say them."""
        ours = self.clients.values()
        for endpoint in list(self.endpoints):
            for kind, source in endpoint.unclosed(owned=endpoint not in ours):
                message = f"unclosed {kind} {source!r}"
                try:
                    warnings.warn(message, ResourceWarning, stacklevel=1, source=source)
                except ResourceWarning as error:  # -W error; the closing goes on
                    endpoint.loop.call_exception_handler({"message": message, "exception": error})

    def finish(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run ``loop`` until the endpoints are closed."""
        if not self.endpoints:
            return
        self._warn_of_unclosed()
        closing = self.aclose()
        try:
            loop.run_until_complete(closing)
        except RuntimeError:  # another loop is running in this thread
            closing.close()
            self.abort()


_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopEndpoints] = weakref.WeakKeyDictionary()


def endpoints_of(loop: asyncio.AbstractEventLoop) -> LoopEndpoints:
    found = _loops.get(loop)
    if found is None:
        found = _loops[loop] = LoopEndpoints(loop)
    return found


def register(endpoint: Endpoint) -> None:
    """An endpoint was opened."""
    found = endpoints_of(endpoint.loop)
    found.endpoints[endpoint] = None
    if endpoint.loop.is_running():
        found.guard()


def unregister(endpoint: Endpoint) -> None:
    """An endpoint has closed its socket."""
    found = endpoints_of(endpoint.loop)
    found.endpoints.pop(endpoint, None)
    found.clients = {key: shared for key, shared in found.clients.items() if shared is not endpoint}
    found.servers = {key: shared for key, shared in found.servers.items() if shared is not endpoint}


async def shutdown() -> None:
    """Close all endpoints of the running loop gracefully; each waits for at most its ``shutdown_timeout``.

    The end of ``asyncio.run`` does it too; call it to do it earlier.
    """
    await endpoints_of(asyncio.get_running_loop()).aclose()


def _at_exit() -> None:
    for loop, endpoints in list(_loops.items()):
        if not loop.is_closed() and not loop.is_running():
            endpoints.finish(loop)


def _after_fork_in_child() -> None:
    """The sockets and event loops are the parent's: begin anew."""
    for endpoints in list(_loops.values()):
        for endpoint in endpoints.endpoints:
            endpoint.abandon()
        endpoints.endpoints.clear()
        endpoints.clients.clear()
        endpoints.servers.clear()
    _loops.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
