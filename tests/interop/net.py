"""A kernel, a gateway and engines: what the rows of the matrix are made of."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from ipaddress import ip_interface
from types import TracebackType
from typing import Final, Self

import pytest

from interop.engine_peer import EnginePeer, UtcpConnection
from interop.matrix import Row
from interop.namespace import kernel_states, sysctl
from utcp.core.config import Config
from utcp.core.states import State
from utcp.gateway import Direction, Endpoint, Gateway, KernelAddress, Rule, Rules, Tun
from utcp.wire.segment import ACK, FIN, RST, SYN, Segment, decode

MTU: Final = 1500
WAIT_S: Final = 10.0
MS: Final = 1_000_000

# Who sends the SYN; the rows' second column
UTCP: Final = "utcp"
KERNEL: Final = "kernel"
BOTH_ROLES: Final = pytest.mark.parametrize("opened_by", [UTCP, KERNEL])

_INTERFACES: Final = (ip_interface("10.99.0.1/16"), ip_interface("fd99::1/64"))


class Net:
    """A network namespace's gateway. Index 0 is IPv4, 1 is IPv6, on both sides of it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        # The congestion control that every kernel has, and nothing remembered from one connection to the next
        self._stack.enter_context(sysctl("net.ipv4.tcp_congestion_control", "reno"))
        self._stack.enter_context(sysctl("net.ipv4.tcp_no_metrics_save", 1))
        self.rules = Rules()
        tun = Tun("utcp0", list(_INTERFACES), MTU - 8)
        hosts = ("127.0.0.1", "::1")
        kernel = [KernelAddress(i, Endpoint(host, 0)) for i, host in zip(_INTERFACES, hosts, strict=True)]
        self._marked: tuple[Direction, Callable[[Segment], bool]] | None = None
        self.gateway = Gateway(tun, kernel, mtu=MTU, impair=self.rules, mark=self._mark)
        self._thread = threading.Thread(target=self.gateway.run, name="gateway")
        self._thread.start()

    def close(self) -> None:
        self.gateway.stop()
        self._thread.join()
        self.gateway.close()
        self._stack.close()

    def address(self, index: int = 0) -> str:
        """The kernel's address."""
        return str(_INTERFACES[index].ip)

    def peer(self, config: Config | None = None, index: int = 0, *, link_mtu: int = 0) -> EnginePeer:
        """A new engine on a UDP socket of its own, hence a host of its own to the kernel."""
        return EnginePeer(self.gateway.kernel[index].udp, config, mtu=MTU, link_mtu=link_mtu)

    def host(self, peer: EnginePeer, index: int = 0) -> str:
        """The address under which the kernel knows the engine."""
        return self.gateway.routes.host_address(peer.endpoint, index)

    @contextmanager
    def rule(
        self,
        direction: Direction,
        predicate: Callable[[Segment], bool],
        *,
        delays_ms: Sequence[int] = (),
        times: int | None = 1,
    ) -> Iterator[Rule]:
        """Lose the segments picked, or delay their copies, while the context lasts."""
        rule = self.rules.add(direction, predicate, delays=[ms * MS for ms in delays_ms], times=times)
        try:
            yield rule
        finally:
            rule.lift()

    @contextmanager
    def marking(self, direction: Direction, predicate: Callable[[Segment], bool]) -> Iterator[None]:
        """A congested router: of the ECN-capable segments it marks those picked, while the context lasts."""
        self._marked = direction, predicate
        try:
            yield
        finally:
            self._marked = None

    def _mark(self, direction: Direction, segment: bytes) -> bool:
        marked = self._marked
        return marked is not None and marked[0] is direction and marked[1](decode(segment))

    def silence(self, direction: Direction) -> AbstractContextManager[Rule]:
        """Lose everything that goes in one direction while the context lasts."""
        return self.rule(direction, anything, times=None)

    def pair(
        self,
        opened_by: str,
        config: Config | None = None,
        *,
        index: int = 0,
        link_mtu: int = 0,
        prepare: Callable[[socket.socket], None] = lambda sock: None,
    ) -> Pair:
        """A connection between an engine and a kernel socket. ``prepare`` sets options before the handshake.

        ``link_mtu``: the engine searches for the path MTU, up to that; else it knows it.
        """
        peer = self.peer(config, index, link_mtu=link_mtu)
        try:
            opened = (
                self._utcp_opens(peer, index, prepare)
                if opened_by == UTCP
                else self._kernel_opens(peer, index, prepare)
            )
        except BaseException:
            peer.__exit__(None, None, None)
            raise
        return Pair(peer, self.host(peer, index), *opened)

    def _utcp_opens(
        self, peer: EnginePeer, index: int, prepare: Callable[[socket.socket], None]
    ) -> tuple[UtcpConnection, socket.socket]:
        with self.listen(index, prepare) as listener:
            connection = peer.connect(listener.getsockname()[1])
            sock, _ = listener.accept()
        sock.settimeout(WAIT_S)
        connection.wait_for(State.ESTABLISHED)
        return connection, sock

    def _kernel_opens(
        self, peer: EnginePeer, index: int, prepare: Callable[[socket.socket], None]
    ) -> tuple[UtcpConnection, socket.socket]:
        peer.listen(7)
        sock = self.kernel_socket(index)
        try:
            prepare(sock)
            sock.connect((self.host(peer, index), 7))
            return peer.accept(7), sock
        except BaseException:
            sock.close()
            raise

    def kernel_socket(self, index: int = 0) -> socket.socket:
        """A kernel TCP socket."""
        sock = socket.socket(socket.AF_INET6 if index else socket.AF_INET)
        sock.settimeout(WAIT_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return sock

    def listen(
        self, index: int = 0, prepare: Callable[[socket.socket], None] = lambda sock: None, port: int = 0
    ) -> socket.socket:
        """A kernel listener; accepted sockets inherit the options."""
        listener = self.kernel_socket(index)
        prepare(listener)
        listener.bind((self.address(index), port))
        listener.listen(1024)
        return listener


class Pair:
    """Both ends of one connection: ``conn`` is utcp's, ``sock`` the kernel's."""

    def __init__(self, peer: EnginePeer, host: str, conn: UtcpConnection, sock: socket.socket) -> None:
        self.peer = peer
        self.host = host
        self.conn = conn
        self.sock = sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.sock.close()
        self.peer.__exit__(kind, exc, tb)

    def check(self, row: Row, utcp: State, kernel: str) -> None:
        core = self.conn.core

        def kernel_state() -> str:
            return ", ".join(kernel_states(core.local_port, self.host, core.remote_port))

        row.check(lambda: self.conn.state, kernel_state, utcp, kernel)

    def reset_by_kernel(self) -> None:
        """The kernel's abort: SO_LINGER with a time of 0, and close."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def kernel_error(self) -> int:
        """The errno that the next read of the kernel socket fails with, 0 if it does not."""
        try:
            self.sock.recv(1)
        except OSError as exc:
            return exc.errno or errno.ETIMEDOUT
        return 0


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the peer's FIN."""
    data = bytearray()
    while chunk := sock.recv(1 << 16):
        data += chunk
    return bytes(data)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk, f"end of file after {len(data)} of {size} bytes"
        data += chunk
    return bytes(data)


class Background:
    """A function in a thread; leaving the context waits for it and raises what it raised."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function,))

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as exc:
            self._error = exc

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._thread.join()
        if self._error is not None and exc is None:
            raise self._error


# Predicates for rules


def is_fin(seg: Segment) -> bool:
    return bool(seg.flags & FIN)


def is_syn(seg: Segment) -> bool:
    return bool(seg.flags & SYN)


def is_rst(seg: Segment) -> bool:
    return bool(seg.flags & RST)


def is_pure_ack(seg: Segment) -> bool:
    return seg.flags == ACK and seg.data_len == 0


def has_data(seg: Segment) -> bool:
    return seg.data_len > 0


def anything(seg: Segment) -> bool:
    return True
