"""One attempt to connect, awaited: what ``create_connection`` does once it knows where to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from utcp.aio.addresses import Address
from utcp.aio.transport import ProtocolFactory, Transport
from utcp.core.config import Config

if TYPE_CHECKING:
    from utcp.aio.endpoint import Endpoint

Made = tuple[Transport, Any]
Outcome = Made | OSError  # a value where a connection could not be had; what is raised is somebody else's doing


class TooLateError(OSError):
    """Another attempt was faster."""


async def attempt(
    endpoint: Endpoint,
    protocol_factory: ProtocolFactory,
    where: Address,
    port: int,
    local: Address | None,
    config: Config | None,
) -> Outcome:
    """Connect to TCP port ``port`` at the UDP address ``where``. A future is all it costs: no task, no hop."""
    waiter: asyncio.Future[Any] = endpoint.loop.create_future()  # gets the protocol
    try:
        transport = endpoint.connect(protocol_factory, where, port, local_addr=local, config=config, waiter=waiter)
    except OSError as error:
        return error if local is None or not local[1] else bind_error(error, local)
    try:
        protocol = await waiter
    except TooLateError as error:
        return error
    except OSError as error:
        if transport._channel.connected:
            raise  # the protocol factory's
        if error.errno is None:
            return error
        return OSError(error.errno, f"Connect call failed {(where[0], port)}: {error.strerror}")
    except BaseException:
        transport.abort()
        raise
    return transport, protocol


def bind_error(error: OSError, address: Address) -> OSError:
    """As asyncio tells that a local address cannot be had."""
    reason = (error.strerror or str(error)).lower()
    return OSError(error.errno, f"error while attempting to bind on address {address!r}: {reason}")
