"""An asyncio event loop in virtual time, over a simulated network."""

from __future__ import annotations

import asyncio
import contextvars
import math
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from utcp.aio.addresses import literal_family, normal
from utcp.aio.dropin import Hosts, over
from utcp.aio.endpoint import Endpoint
from utcp.aio.loops import endpoints_of
from utcp.sim.host import Host, Main
from utcp.sim.life import LOOPBACK, WILDCARDS, Life, current, family_of
from utcp.sim.link import SECOND
from utcp.sim.network import Network

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run(main: Main[T], *, network: Network | None = None, host: Host | None = None, debug: bool | None = None) -> T:
    """As ``asyncio.run``, in virtual time: ``main``, a coroutine or a function that makes one, runs on ``host``.

    ``network`` is a perfect one with a delay of 10 ms by default, ``host`` one named "main" (made if there is
    none). Time stands still while code runs, and jumps to the next segment or timer when all tasks wait;
    ``network.now`` and ``loop.time()`` say what it is. The same program over a network of the same seed does the
    same to the last segment, if it asks neither the real clock nor real randomness.

    Raises RuntimeError when all tasks wait and nothing is left to happen: a real program would wait for ever.
    """
    network = network if network is not None else Network()
    if host is None:
        host = network.hosts.get("main") or network.host("main")
    home = host
    everything = Hosts(lambda host, port: True)
    with asyncio.Runner(debug=debug, loop_factory=lambda: over(SimLoop, everything, None, network, home)) as runner:
        return runner.run(_main(main))


async def _main(main: Main[T]) -> T:
    """Run the program. At its end its own host ends first, with what it has written flushed, then all others.

    Tasks are cancelled in the order of their making; asyncio.run does it in any.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    home = loop.utcp_host
    try:
        return await (main() if callable(main) else main)
    finally:
        loop.cancel_tasks(home)
        await asyncio.gather(*[endpoint.aclose() for endpoint in loop.endpoints(home)])
        loop.cancel_tasks()


class SimLoop(asyncio.BaseEventLoop):
    """A virtual-time event loop: it waits for nothing. Made by `run`, which has all hosts taken by utcp.

    It has no file descriptors, no kernel sockets, no subprocesses, no signals. What is given to an executor
    (``asyncio.to_thread``) is called at once, in this thread: virtual time stands still meanwhile.
    """

    def __init__(self, network: Network, home: Host) -> None:
        super().__init__()
        self._network = network
        self._home = home
        self._selector = self  # BaseEventLoop waits by select(); here the time jumps instead
        self._thread = threading.get_ident()
        self._owners: weakref.WeakKeyDictionary[asyncio.Task[Any], Life] = weakref.WeakKeyDictionary()
        network.loop = self

    # --- time and events -----------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the network began."""
        return self._network.now / SECOND

    def select(self, timeout: float | None) -> list[Any]:
        """BaseEventLoop waits: do what comes next in the network, or let ``timeout`` seconds pass."""
        network = self._network
        limit = None if timeout is None else network.now + math.ceil(timeout * SECOND)
        if not network.step(limit):
            if limit is None:
                self._stalled()
            network.now = max(network.now, limit)
        # How far ahead of the clock timers fire: in an hour the next float is a picosecond away, in a year 4 ns
        self._clock_resolution = max(1 / SECOND, 2 * math.ulp(self.time()))
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing to do: the network calls the sockets itself."""

    def _write_to_self(self) -> None:
        """Nothing to do: nobody sleeps in `select`."""

    def _stalled(self) -> NoReturn:
        waiting = "".join(f"\n  {task!r}" for task in self.tasks())
        raise RuntimeError(f"nothing is left to happen at {self.time():.6f} s of virtual time; these wait:{waiting}")

    def close(self) -> None:
        super().close()
        self._network.loop = None

    # --- hosts ---------------------------------------------------------------------------------------------

    @property
    def utcp_host(self) -> Life:
        """Where utcp's endpoints that are made now get their sockets."""
        return current() or self._home.life

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **kwargs)
        self._owners[task] = current(kwargs.get("context")) or self._home.life
        return task

    def tasks(self) -> list[asyncio.Task[Any]]:
        """All tasks that are not done, in the order of their making."""
        return [task for task in self._owners if not task.done()]

    def cancel_tasks(self, life: Life | None = None) -> None:
        """Cancel all tasks but the current one, or those of one host."""
        own = asyncio.current_task(self)
        for task in self.tasks():
            if task is not own and life in (None, self._owners[task]):
                task.cancel()

    def endpoints(self, life: Life) -> list[Endpoint]:
        """The open endpoints of a host."""
        return [endpoint for endpoint in endpoints_of(self).endpoints if endpoint.host is life]

    def end_life(self, life: Life) -> None:
        """A host has crashed: abort its endpoints and cancel its tasks, of which nobody hears."""
        for endpoint in self.endpoints(life):
            endpoint.abort()
        self.cancel_tasks(life)

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - asyncio's name
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """The network's hosts by name, "localhost", and addresses. Raises ``socket.gaierror`` for others."""
        here = self.utcp_host.host
        name = host.decode() if isinstance(host, bytes) else host
        try:
            number = int(port or 0)
        except ValueError:
            raise socket.gaierror(socket.EAI_SERVICE, f"a simulated network has no service names: {port!r}") from None
        if not name:
            address = (WILDCARDS if flags & socket.AI_PASSIVE else LOOPBACK)[family_of(here.address)]
        elif name == "localhost":
            address = LOOPBACK[socket.AddressFamily(family or socket.AF_INET)]
        elif name in self._network.hosts:
            address = self._network.hosts[name].address
        elif literal_family(name):
            address = normal((name, number))[0]
        else:
            raise socket.gaierror(socket.EAI_NONAME, f"no host is called {name!r} in the simulated network")
        found = family_of(address)
        if family not in (0, found):
            raise socket.gaierror(socket.EAI_NONAME, f"{name!r} has no address of this family")
        return [(found, socket.SOCK_STREAM, proto, "", (address, number))]

    # --- what there is not ---------------------------------------------------------------------------------

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As ``call_soon``. Raises RuntimeError in another thread: what it does would come at no certain time."""
        if threading.get_ident() != self._thread:
            raise RuntimeError("a simulated event loop takes no calls from other threads")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Call ``func`` at once, in this thread."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        _no_sockets()

    def add_writer(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        _no_sockets()

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        _no_sockets()

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        _no_sockets()

    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> Any:
        _no_sockets()


def _no_sockets() -> NoReturn:
    raise RuntimeError("a simulated event loop has no kernel sockets: only utcp's connections work in it")
