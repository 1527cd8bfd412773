"""Every test of a library runs in a drop-in loop, over asyncio's and over uvloop's."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import trustme

import utcp
from libraries.carried import Carried


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {base: partial(utcp.new_event_loop, base=base) for base in ("asyncio", "uvloop")}


@pytest.fixture
async def carried() -> Carried:
    """What utcp has carried in this loop."""
    return Carried()


@pytest.fixture
def udp_socket() -> socket.socket:
    """Bound to a port of the system's choice."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    """For a host by its name and address, without ".utcp"."""
    return authority.issue_cert("localhost", "127.0.0.1")


@pytest.fixture
def server_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
