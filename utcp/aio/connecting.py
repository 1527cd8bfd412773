"""create_connection: names to addresses, addresses to attempts, the first that succeeds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from utcp.aio.addresses import Address, Resolved, interleave, literal, resolve
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

        def attempt(address: Resolved) -> Coroutine[Any, Any, tuple[Transport, Any]]:
            where = address.at(address.port if udp_port is None else udp_port)
            local = _local_for(host_of(loop), address.family, locals_)
            through = endpoint if endpoint is not None else _client_endpoint(loop, address.family)
            return _connect(through, protocol_factory, where, address.port, local, config)

        if len(addresses) == 1 and not all_errors:
            return await attempt(addresses[0])
        if happy_eyeballs_delay is None:
            return await _one_after_the_other(attempt, addresses, all_errors)
        return await _race(attempt, addresses, happy_eyeballs_delay, all_errors)
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


def _client_endpoint(loop: asyncio.AbstractEventLoop, family: int) -> Endpoint:
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


def _local_for(host: Host, family: int, candidates: list[Resolved] | None) -> Address | None:
    """The first local address of the right family that is ours."""
    if candidates is None:
        return None
    problems: list[OSError] = []
    for candidate in candidates:
        if candidate.family != family:
            continue
        try:
            host.check_local(family, candidate.at(0))
        except OSError as error:
            problems.append(_bind_error(error, (candidate.host, candidate.port)))
            continue
        return (candidate.host, candidate.port)
    if problems:
        raise problems.pop()
    raise OSError(f"no matching local address with {family=} found")


def _bind_error(error: OSError, address: Address) -> OSError:
    reason = (error.strerror or str(error)).lower()
    return OSError(error.errno, f"error while attempting to bind on address {address!r}: {reason}")


async def _connect(
    endpoint: Endpoint,
    protocol_factory: ProtocolFactory,
    where: Address,
    port: int,
    local: Address | None,
    config: Config | None,
) -> tuple[Transport, Any]:
    """One attempt. The future is all it costs: no task, no callback through the loop."""
    waiter: asyncio.Future[None] = endpoint.loop.create_future()
    try:
        transport = endpoint.connect(protocol_factory, where, port, local_addr=local, config=config, waiter=waiter)
    except OSError as error:
        if local is not None and local[1]:
            raise _bind_error(error, local) from None
        raise
    try:
        await waiter
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, f"Connect call failed {(where[0], port)}: {error.strerror}") from None
    except BaseException:
        transport.abort()
        raise
    return transport, transport.get_protocol()


Attempt = Callable[[Resolved], Coroutine[Any, Any, tuple[Transport, Any]]]


async def _one_after_the_other(attempt: Attempt, addresses: list[Resolved], all_errors: bool) -> tuple[Transport, Any]:
    errors: list[OSError] = []
    for address in addresses:
        try:
            return await attempt(address)
        except OSError as error:
            errors.append(error)
    raise _failure(errors, all_errors)


async def _race(attempt: Attempt, addresses: list[Resolved], delay: float, all_errors: bool) -> tuple[Transport, Any]:
    """Happy eyeballs (RFC 8305 5): the next attempt starts when the last one fails, or takes too long."""
    errors: list[OSError] = []
    running: set[asyncio.Task[tuple[Transport, Any]]] = set()
    waiting = list(addresses)
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(attempt(waiting.pop(0))))
            done, running = await asyncio.wait(
                running, timeout=delay if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            winner: tuple[Transport, Any] | None = None
            for task in done:
                error = task.exception()
                if isinstance(error, OSError):
                    errors.append(error)
                elif error is not None:
                    raise error
                elif winner is None:
                    winner = task.result()
                else:
                    task.result()[0].abort()
            if winner is not None:
                return winner
    finally:
        for task in running:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                task.result()[0].abort()  # it had just succeeded
    raise _failure(errors, all_errors)


def _failure(errors: list[OSError], all_errors: bool) -> Exception:
    """All attempts failed: what asyncio raises then."""
    if all_errors:
        return ExceptionGroup("create_connection failed", errors)
    if len({str(error) for error in errors}) == 1:
        return errors[0]
    return OSError(f"Multiple exceptions: {', '.join(str(error) for error in errors)}")
