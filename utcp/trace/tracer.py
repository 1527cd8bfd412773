"""What the observers of this package have in common: the addresses of paths, and a file that may fill up."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from typing import BinaryIO, TypeAlias

from utcp.core.observer import Observer

Target: TypeAlias = str | os.PathLike[str] | BinaryIO
PathAddresses: TypeAlias = Callable[[int], tuple[object, object]]

log = logging.getLogger("utcp.trace")


class Tracer(Observer):
    """An observer that can be closed and knows, once ``capture`` has attached it, the addresses of paths."""

    addresses: PathAddresses | None = None  # Engine.path_addresses: path -> (local, peer)

    def close(self) -> None:
        """Write what is still held back and let go of the file, if it was opened here. More than once is harmless."""

    def endpoints(self, path: int, local_port: int, remote_port: int) -> tuple[str, str]:
        """Both ends of a connection as ``address:tcp-port``; the bare ports where addresses are not known."""
        if self.addresses is None:
            return f":{local_port}", f":{remote_port}"
        local, peer = self.addresses(path)
        return _end(local, local_port), _end(peer, remote_port)

    def hosts(self, path: int) -> tuple[str, str]:
        """Both ends of a path; empty where addresses are not known."""
        if self.addresses is None:
            return "", ""
        local, peer = self.addresses(path)
        return _host(local), _host(peer)


def ports(segment: bytes) -> tuple[int, int]:
    """Source and destination port of a segment (anything at all when it is cut short)."""
    return int.from_bytes(segment[:2], "big"), int.from_bytes(segment[2:4], "big")


def _end(address: object, port: int) -> str:
    host = _host(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(address: object) -> str:
    return str(address[0]) if isinstance(address, tuple) and address else str(address)


class Output:
    """The file a trace goes to. When writing fails (a full disk, a closed pipe) the trace ends with one message
    in the log ``utcp.trace``, and the connections that are traced go on.
    """

    def __init__(self, target: Target) -> None:
        """Open ``target``, a path (an OSError is the caller's), or use it, a binary file that stays the caller's."""
        self.complete = True  # so far everything has been written
        self._file: BinaryIO | None
        if isinstance(target, (str, os.PathLike)):
            self._name = os.fspath(target)
            self._owned = True
            self._file = open(target, "wb")  # noqa: SIM115 - open until close()
        else:
            self._name = str(getattr(target, "name", target))
            self._owned = False
            self._file = target

    def write(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(data)
        except (OSError, ValueError) as exc:  # ValueError: somebody closed the file under us
            self._stop(exc)

    def flush(self) -> None:
        if self._file is None:
            return
        try:
            self._file.flush()
        except (OSError, ValueError) as exc:
            self._stop(exc)

    def close(self) -> None:
        self.flush()
        if self._file is not None and self._owned:
            self._file.close()
        self._file = None

    def _stop(self, exc: Exception) -> None:
        self.complete = False
        file, self._file = self._file, None
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        log.error("capture stopped: %s: %s", self._name, reason)
        if file is not None and self._owned:
            _discard(file)


def _discard(file: BinaryIO) -> None:
    """Close the descriptor without another try to write what is still buffered."""
    (file.raw if isinstance(file, io.BufferedWriter) else file).close()
