"""create_connection: names to addresses, addresses to attempts, the first that succeeds."""

from __future__ import annotations

import asyncio
import collections
import socket
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from utcp.aio.addresses import Address, Resolved, interleave, literal, resolve
from utcp.aio.attempt import Made, Outcome, TooLateError, attempt, bind_error
from utcp.aio.datagrams import UdpSocket
from utcp.aio.endpoint import Endpoint
from utcp.aio.hosts import Host, host_of
from utcp.aio.loops import endpoints_of
from utcp.aio.transport import ProtocolFactory, Transport
from utcp.core.config import Config

if TYPE_CHECKING:
    import ssl as ssl_module


async def create_connection(
    protocol_factory: ProtocolFactory,
    host: str | None = None,
    port: int | str | None = None,
    *,
    ssl: bool | ssl_module.SSLContext | None = None,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    sock: socket.socket | None = None,
    local_addr: tuple[str | None, int] | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    happy_eyeballs_delay: float | None = None,
    interleave: int | None = None,
    all_errors: bool = False,
    udp_port: int | None = None,
    connect_timeout: float | None = None,
    config: Config | None = None,
    endpoint: Endpoint | None = None,
) -> tuple[Transport, Any]:
    """As ``loop.create_connection``, for a TCP connection inside UDP: returns (transport, protocol).

    ``port`` is the TCP port, and the UDP port too unless ``udp_port`` names another. All clients of an event loop
    share a UDP socket for each address family; ``endpoint`` is another one to use, ``sock`` a UDP socket bound
    (and, without a host, connected) by the caller. ``local_addr`` is (host, TCP port). ``connect_timeout``, in
    seconds, is the config's field of this name.

    With ``ssl`` both are TLS's, once the handshake is done: the transport is a ``TlsTransport``.

    Raises ConnectionRefusedError when the UDP port or the TCP port is closed, TimeoutError naming the number of
    tries when nobody answers, other OSErrors as asyncio does.
    """
    if ssl:
        from utcp.aio import tls

        secure = tls.client(ssl, host, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        _, layer = await create_connection(
            secure.under(protocol_factory),
            host,
            port,
            family=family,
            proto=proto,
            flags=flags,
            sock=sock,
            local_addr=local_addr,
            happy_eyeballs_delay=happy_eyeballs_delay,
            interleave=interleave,
            all_errors=all_errors,
            udp_port=udp_port,
            connect_timeout=connect_timeout,
            config=config,
            endpoint=endpoint,
        )
        secured: tuple[Transport, Any] = await layer.secured()
        return secured
    if server_hostname is not None:
        raise ValueError("server_hostname is only meaningful with ssl")
    if ssl_handshake_timeout is not None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if ssl_shutdown_timeout is not None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")
    if connect_timeout is not None:
        config = replace(config or (endpoint.engine.config if endpoint else Config()), connect_timeout=connect_timeout)
    loop = asyncio.get_running_loop()
    if sock is not None:
        if endpoint is not None:
            raise ValueError("sock and endpoint can not be specified at the same time")
        if host is None and port is None:
            try:
                host, port = sock.getpeername()[:2]
            except OSError:
                raise ValueError("host and port was not specified and sock is not connected") from None
        endpoint = _own_endpoint(sock)
    elif host is None and port is None:
        raise ValueError("host and port was not specified and no sock specified")
    try:
        if endpoint is not None:
            family = endpoint.family
        known = literal(host, port, family)  # no coroutine for the most frequent case
        addresses = [known] if known is not None else await resolve(loop, host, port, family=family, flags=flags)
        locals_ = None if local_addr is None else await resolve(loop, *local_addr, family=family)
        if happy_eyeballs_delay is not None and interleave is None:
            interleave = 1
        if interleave:
            addresses = _interleave(addresses, interleave)

        if len(addresses) == 1:
            outcome = await _connect(endpoint, protocol_factory, addresses[0], udp_port, locals_, config)
            outcomes = [outcome] if isinstance(outcome, OSError) else outcome
        else:
            make = _for_the_first(protocol_factory)
            attempts = [_connect(endpoint, make, address, udp_port, locals_, config) for address in addresses]
            outcomes = await _race(attempts, happy_eyeballs_delay)
        if isinstance(outcomes, list):
            raise _failure(outcomes, all_errors)
        return outcomes
    finally:
        if sock is not None and endpoint is not None:
            endpoint.retire()


_interleave = interleave  # create_connection has an argument of this name


def _own_endpoint(sock: socket.socket) -> Endpoint:
    datagrams = UdpSocket(sock)
    try:
        return Endpoint(datagrams)
    except BaseException:
        datagrams.close()
        raise


def client_endpoint(loop: asyncio.AbstractEventLoop, family: int) -> Endpoint:
    """The UDP socket that all clients of this loop share; it closes with the loop."""
    clients = endpoints_of(loop).clients
    host = host_of(loop)
    endpoint = clients.get((host, family))
    if endpoint is None or endpoint.is_closing():
        wildcard = "0.0.0.0" if family == socket.AF_INET else "::"
        datagrams = host.bind(family, (wildcard, 0))
        try:
            endpoint = clients[host, family] = Endpoint(datagrams)
        except BaseException:
            datagrams.close()
            raise
    return endpoint


def _local_for(host: Host, family: int, candidates: list[Resolved]) -> Address:
    """The first local address of the right family that is ours."""
    problems: list[OSError] = []
    for candidate in candidates:
        if candidate.family != family:
            continue
        try:
            host.check_local(family, candidate.at(0))
        except OSError as error:
            problems.append(bind_error(error, (candidate.host, candidate.port)))
            continue
        return (candidate.host, candidate.port)
    if problems:
        raise problems.pop()
    raise OSError(f"no matching local address with {family=} found")


async def _connect(
    endpoint: Endpoint | None,
    protocol_factory: ProtocolFactory,
    address: Resolved,
    udp_port: int | None,
    locals_: list[Resolved] | None,
    config: Config | None,
) -> Outcome:
    """One attempt, through ``endpoint`` or the one that this loop's clients share."""
    loop = asyncio.get_running_loop()
    local: Address | None = None
    try:
        if endpoint is None:
            endpoint = client_endpoint(loop, address.family)
        if locals_ is not None:
            local = _local_for(host_of(loop), address.family, locals_)
    except OSError as error:
        return error
    where = address.at(address.port if udp_port is None else udp_port)
    return await attempt(endpoint, protocol_factory, where, address.port, local, config)


def _for_the_first(protocol_factory: ProtocolFactory) -> ProtocolFactory:
    """A factory that makes one protocol; whichever attempt comes second is turned away, and its connection reset."""
    taken = False

    def make() -> asyncio.BaseProtocol:
        nonlocal taken
        if taken:
            raise TooLateError
        taken = True
        return protocol_factory()

    return make


async def _race(attempts: list[Coroutine[Any, Any, Outcome]], delay: float | None) -> Made | list[OSError]:
    """Happy eyeballs (RFC 8305 5): the next attempt starts when the last one fails, or takes longer than ``delay``."""
    waiting = collections.deque(attempts)
    started: list[asyncio.Task[Outcome]] = []
    made: Made | None = None
    try:
        while made is None and (waiting or not all(task.done() for task in started)):
            if waiting:
                started.append(asyncio.create_task(waiting.popleft()))
            running = [task for task in started if not task.done()]
            timeout = delay if waiting else None
            await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for task in started:
                if task.done() and not isinstance(outcome := task.result(), OSError):
                    made = outcome
        return made or [error for task in started if isinstance(error := task.result(), OSError)]
    finally:
        for attempt in waiting:
            attempt.close()
        for task in started:
            if task.cancel() or task.cancelled() or task.exception() is not None:
                continue
            outcome = task.result()
            if made is None and not isinstance(outcome, OSError):
                outcome[0].abort()  # it succeeded just when we were cancelled


def _failure(errors: list[OSError], all_errors: bool) -> Exception:
    """All attempts failed: what asyncio raises then."""
    if all_errors:
        return ExceptionGroup("create_connection failed", errors)
    if len({str(error) for error in errors}) == 1:
        return errors[0]
    return OSError(f"Multiple exceptions: {', '.join(str(error) for error in errors)}")
