"""utcp: a genuine TCP (RFC 9293) in a Python process, inside UDP datagrams, for asyncio."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from utcp.aio.close_info import CloseInfo
    from utcp.aio.connecting import create_connection
    from utcp.aio.dropin import new_event_loop
    from utcp.aio.endpoint import Endpoint, EndpointStats
    from utcp.aio.loops import shutdown
    from utcp.aio.server import Server, create_server
    from utcp.aio.streams import StreamReader, StreamReaderProtocol, StreamWriter, open_connection, start_server
    from utcp.aio.tls import start_tls
    from utcp.aio.tls_transport import TlsTransport
    from utcp.aio.transport import Transport
    from utcp.core.config import Config
    from utcp.core.connection import Connection
    from utcp.core.engine import Engine
    from utcp.core.info import ConnectionInfo
    from utcp.core.observer import Observer
    from utcp.core.states import State

    __compiled__: bool
    """Whether the engine runs compiled by mypyc, or interpreted."""

__version__ = "0.1.0"

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

# A name brings its module, and what that needs, when somebody first asks for it: whoever wants the codec, the version
# or a Config waits neither for asyncio nor for the engine. The type checker reads the imports above.
_HOMES: Final = {
    "utcp.aio.close_info": ("CloseInfo",),
    "utcp.aio.connecting": ("create_connection",),
    "utcp.aio.dropin": ("new_event_loop",),
    "utcp.aio.endpoint": ("Endpoint", "EndpointStats"),
    "utcp.aio.loops": ("shutdown",),
    "utcp.aio.server": ("Server", "create_server"),
    "utcp.aio.streams": ("StreamReader", "StreamReaderProtocol", "StreamWriter", "open_connection", "start_server"),
    "utcp.aio.tls": ("start_tls",),
    "utcp.aio.tls_transport": ("TlsTransport",),
    "utcp.aio.transport": ("Transport",),
    "utcp.core.config": ("Config",),
    "utcp.core.connection": ("Connection",),
    "utcp.core.engine": ("Engine",),
    "utcp.core.info": ("ConnectionInfo",),
    "utcp.core.observer": ("Observer",),
    "utcp.core.states": ("State",),
}
_HOME: Final = {name: home for home, names in _HOMES.items() for name in names}
_PARTS: Final = ("aio", "core", "sim", "trace", "wire")  # `import utcp` is enough for utcp.trace, too


def __getattr__(name: str) -> Any:
    value: Any
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _PARTS:
        return import_module(f"utcp.{name}")
    elif name == "__compiled__":
        value = str(import_module("utcp.core.engine").__file__).endswith((".so", ".pyd"))
    else:
        raise AttributeError(f"module 'utcp' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_PARTS, "__compiled__"})
