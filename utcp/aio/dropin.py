"""An event loop that takes chosen hosts by utcp, so that libraries which know only asyncio run over it unmodified.

    asyncio.Runner(loop_factory=utcp.new_event_loop)

``create_connection`` and ``create_server`` of such a loop go by utcp for every host whose name ends in ``.utcp``:
``127.0.0.1.utcp`` and ``localhost.utcp`` are utcp on this machine, ``example.org.utcp`` is utcp at whatever addresses
``example.org`` has. ``getaddrinfo`` leaves the ending on the addresses it finds, so a library that resolves names
by itself brings it back when it connects. More hosts may be chosen by name, by address or by a function.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from asyncio import transports
from collections.abc import Callable, Collection
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, final

from utcp.aio import connecting, server, tls
from utcp.aio.addresses import literal_family, normal
from utcp.aio.connection_socket import ConnectionSocket
from utcp.aio.endpoint import without_nagle
from utcp.aio.transport import ProtocolFactory, Transport
from utcp.core.config import Config

SUFFIX: Final = ".utcp"

Port = int | str | None
Chooser = Callable[[str, Port], bool]
Base = Literal["uvloop", "asyncio"]


def new_event_loop(
    hosts: Collection[str] | Chooser | None = None, *, base: Base | None = None, config: Config | None = None
) -> asyncio.AbstractEventLoop:
    """A new event loop whose ``create_connection`` and ``create_server`` take chosen hosts by utcp.

    Those are the hosts that end in ``.utcp``, and beyond them ``hosts``: names and addresses (a name that resolves
    to one of these addresses is meant too), or a function of host and port that says whether utcp is to be used.
    Both are as the program gives them; the host is "" where a server means all interfaces. UDP sockets given as
    ``sock=`` go by utcp too.

    ``base`` is the loop underneath: by default uvloop's where it is installed, else asyncio's. ``config`` holds for
    every connection and server that goes by utcp.

    Raises TypeError when ``hosts`` is neither, ImportError when uvloop is asked for and not there.
    """
    if isinstance(hosts, str) or not (hosts is None or callable(hosts) or isinstance(hosts, Collection)):
        raise TypeError(f"hosts must be a collection of hosts or a function, not {type(hosts).__name__!r}")
    loop: asyncio.AbstractEventLoop = over(_base_class(base), Hosts(hosts), config)
    return loop


def over(base: Any, hosts: Hosts, config: Config | None, *arguments: Any) -> Any:
    """A loop of class ``base``, made with ``arguments``, that takes ``hosts`` by utcp."""
    return _dropin_class(base)(hosts, None if config is None else without_nagle(config), *arguments)


def _base_class(base: str | None) -> Any:
    if base not in (None, "uvloop", "asyncio"):
        raise ValueError(f"base: {base!r} is not 'uvloop' or 'asyncio'")
    if base != "asyncio":
        try:
            import uvloop
        except ImportError:
            if base is not None:
                raise
        else:
            return uvloop.Loop
    return asyncio.SelectorEventLoop


@cache
def _dropin_class(base: Any) -> Any:
    return type(f"Utcp{base.__name__}", (_DropInLoop, base), {"__module__": __name__})


@final
class Hosts:
    """Which hosts are taken by utcp."""

    def __init__(self, more: Collection[str] | Chooser | None) -> None:
        self._choose: Chooser | None = more if callable(more) else None
        self._more: frozenset[str] = frozenset() if more is None or callable(more) else frozenset(map(_key, more))

    def chosen(self, host: str, port: Port) -> bool:
        """Whether ``host``, as it is spelled, goes by utcp."""
        if _marked(host):
            return True
        if self._choose is not None:
            return bool(self._choose(host, port))
        return bool(self._more) and _key(host) in self._more

    @property
    def may_be_addresses(self) -> bool:
        """Whether a name that is not chosen may resolve to an address that is."""
        return self._choose is not None or any(literal_family(host) for host in self._more)


@lru_cache(maxsize=4096)
def _key(host: str) -> str:
    """The same for all spellings of a host."""
    return normal((host, 0))[0] if literal_family(host) else host.rstrip(".").casefold()


def _text(host: Any) -> str:
    """A host as asyncio takes it: text, bytes, or None for all interfaces."""
    return host.decode("ascii", "replace") if isinstance(host, bytes) else host or ""


def _marked(host: str) -> bool:
    return host.rstrip(".").casefold().endswith(SUFFIX)


def _plain(host: Any) -> Any:
    """The host behind the ending."""
    name = _text(host)
    return name.rstrip(".")[: -len(SUFFIX)] if _marked(name) else host


def _is_udp(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_DGRAM and sock.family in (socket.AF_INET, socket.AF_INET6)


if TYPE_CHECKING:
    _Loop = asyncio.SelectorEventLoop
else:
    _Loop = object  # in front of any event loop


class _DropInLoop(_Loop):
    """What ``new_event_loop`` puts in front of a loop's own methods."""

    def __init__(self, hosts: Hosts, config: Config | None, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._hosts = hosts
        self._config = config
        # TCP sockets that were "connected" to hosts taken by utcp: where to
        self._promised: weakref.WeakKeyDictionary[socket.socket, tuple[Any, ...]] = weakref.WeakKeyDictionary()

    # Connections and servers

    async def create_connection(
        self,
        protocol_factory: ProtocolFactory,
        host: Any = None,
        port: Port = None,
        *,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """As the base loop's; by utcp for hosts that are chosen. The certificate is that of the host without
        ``.utcp``."""
        by_utcp = False
        if sock is None:
            by_utcp = await self._goes_by_utcp(host, port, kwargs)
        elif _is_udp(sock):
            by_utcp = True
        elif host is None and port is None and sock in self._promised:
            address = self._promised.pop(sock)
            return await self._connect_in_place_of(
                sock, protocol_factory, *address[:2], server_hostname=server_hostname, **kwargs
            )
        base: Any = super()
        connect = self._connect if by_utcp else base.create_connection
        made: tuple[Any, Any] = await connect(
            protocol_factory, host, port, sock=sock, server_hostname=server_hostname, **kwargs
        )
        return made

    async def create_server(
        self,
        protocol_factory: ProtocolFactory,
        host: Any = None,
        port: Port = None,
        *,
        sock: socket.socket | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the base loop's; by utcp for hosts that are chosen. Raises ValueError when some are and some are not."""
        if host is not None and not isinstance(host, (str, bytes)):
            host = list(host)
        if sock is not None:
            by_utcp = _is_udp(sock)
        else:
            hosts = host if isinstance(host, list) else [host]
            ways = {await self._goes_by_utcp(one, port, kwargs) for one in hosts}
            if len(ways) > 1:
                raise ValueError(f"one server goes by utcp or by kernel TCP, not by both: {host!r}")
            by_utcp = ways == {True}
        if not by_utcp:
            base: Any = super()
            return await base.create_server(protocol_factory, host, port, sock=sock, **kwargs)
        kwargs.setdefault("config", self._config)
        plain = [_plain(one) for one in host] if isinstance(host, list) else _plain(host)
        return await server.create_server(protocol_factory, plain, port, sock=sock, **kwargs)

    async def _connect(
        self,
        protocol_factory: ProtocolFactory,
        host: Any,
        port: Port,
        *,
        server_hostname: str | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        kwargs.setdefault("config", self._config)
        return await connecting.create_connection(
            protocol_factory, _plain(host), port, server_hostname=_plain(server_hostname), **kwargs
        )

    async def _goes_by_utcp(self, host: Any, port: Port, kwargs: dict[str, Any]) -> bool:
        """Whether a host is chosen, as it is spelled or by an address that it stands for."""
        name, hosts = _text(host), self._hosts
        if hosts.chosen(name, port):
            return True
        if not name or literal_family(name) or not hosts.may_be_addresses:
            return False
        try:
            found = await super().getaddrinfo(
                name, port, family=kwargs.get("family", 0), type=socket.SOCK_STREAM, flags=kwargs.get("flags", 0)
            )
        except OSError:
            return False  # the base loop says why
        return any(hosts.chosen(str(info[4][0]), port) for info in found)

    # For libraries that resolve and connect by themselves

    async def getaddrinfo(self, host: Any, port: Any, **kwargs: Any) -> Any:
        """As the base loop's; addresses of chosen hosts end in ``.utcp``, for TCP and if nothing else chooses them."""
        found = await super().getaddrinfo(_plain(host), port, **kwargs)
        chosen = self._hosts.chosen
        if not chosen(_text(host), port):
            return found
        return [info if chosen(str(info[4][0]), port) else _mark(*info) for info in found]

    async def utcp_getaddrinfo(self, host: Any, port: Any, **kwargs: Any) -> Any:
        """What utcp itself asks: the addresses of ``host``, which may end in ``.utcp``."""
        return await super().getaddrinfo(_plain(host), port, **kwargs)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """As the base loop's. For a host that is chosen the socket stays as it is: ``create_connection(sock=...)``,
        which is what it is for, connects by utcp, and closes it."""
        is_tcp = sock.type == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6)
        if is_tcp and self._hosts.chosen(_text(address[0]), address[1]):
            self._promised[sock] = address
        else:
            await super().sock_connect(sock, address)

    async def _connect_in_place_of(
        self, sock: socket.socket, protocol_factory: ProtocolFactory, host: str, port: Port, **kwargs: Any
    ) -> tuple[Any, Any]:
        with sock:
            here = sock.getsockname()[:2]
            if here[0] not in ("0.0.0.0", "::"):
                kwargs["local_addr"] = here  # bound by the caller
        return await self._connect(protocol_factory, host, port, family=sock.family, **kwargs)

    def utcp_socket(self, transport: Transport) -> ConnectionSocket:
        """What ``transport.get_extra_info("socket")`` gives."""
        return ConnectionSocket(transport)

    # Upgrades of a connection

    async def start_tls(self, transport: Any, protocol: Any, sslcontext: Any, **kwargs: Any) -> Any:
        """As the base loop's."""
        if isinstance(transport, Transport):
            kwargs["server_hostname"] = _plain(kwargs.get("server_hostname"))
            return await tls.start_tls(transport, protocol, sslcontext, **kwargs)
        return await super().start_tls(transport, protocol, sslcontext, **kwargs)

    async def sendfile(
        self, transport: Any, file: Any, offset: int = 0, count: int | None = None, *, fallback: bool = True
    ) -> int:
        """As asyncio's, which uvloop does not have: by reading and writing."""
        if isinstance(transport, transports._FlowControlMixin):
            return await asyncio.BaseEventLoop.sendfile(self, transport, file, offset, count, fallback=fallback)
        return await super().sendfile(transport, file, offset, count, fallback=fallback)

    _sendfile_fallback = asyncio.BaseEventLoop._sendfile_fallback  # type: ignore[attr-defined]


def _mark(family: int, kind: int, proto: int, canonname: str, address: tuple[Any, ...]) -> tuple[Any, ...]:
    if kind == socket.SOCK_STREAM:
        address = (f"{address[0]}{SUFFIX}", *address[1:])
    return (family, kind, proto, canonname, address)
