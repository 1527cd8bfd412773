"""utcp: a genuine TCP (RFC 9293) in a Python process, inside UDP datagrams, for asyncio."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from utcp.aio.close_info import CloseInfo
from utcp.aio.connecting import create_connection
from utcp.aio.endpoint import Endpoint, EndpointStats
from utcp.aio.loops import shutdown
from utcp.aio.server import Server, create_server
from utcp.aio.streams import StreamReader, StreamReaderProtocol, StreamWriter, open_connection, start_server
from utcp.aio.transport import Transport
from utcp.core import engine as _engine
from utcp.core.config import Config
from utcp.core.connection import Connection
from utcp.core.engine import Engine
from utcp.core.info import ConnectionInfo
from utcp.core.observer import Observer
from utcp.core.states import State

if TYPE_CHECKING:
    from utcp.aio.dropin import new_event_loop
    from utcp.aio.tls import start_tls
    from utcp.aio.tls_transport import TlsTransport

__version__ = "0.1.0"

__compiled__: bool = _engine.__file__.endswith((".so", ".pyd"))
"""Whether the engine runs compiled by mypyc, or interpreted."""

__all__ = [
    "CloseInfo",
    "Config",
    "Connection",
    "ConnectionInfo",
    "Endpoint",
    "EndpointStats",
    "Engine",
    "Observer",
    "Server",
    "State",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "TlsTransport",
    "Transport",
    "__compiled__",
    "__version__",
    "create_connection",
    "create_server",
    "new_event_loop",
    "open_connection",
    "shutdown",
    "start_server",
    "start_tls",
]

# Imported by whoever asks for them: TLS and the loop for other libraries are not everybody's
_LATER: Final = {
    "TlsTransport": "utcp.aio.tls_transport",
    "new_event_loop": "utcp.aio.dropin",
    "start_tls": "utcp.aio.tls",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'utcp' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
