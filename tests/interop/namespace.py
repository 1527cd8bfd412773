"""A network namespace of the tests' own, with a Linux kernel's TCP in it and nothing else."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from utcp.gateway import loopback_up

_CLONE_NEWNET: Final = 0x40000000


@contextmanager
def private_namespace() -> Iterator[None]:
    """Move the calling thread, and all it starts, into a new network namespace with ``lo`` up; then back.

    The same as running under ``unshare -n``, but other tests of the same process keep their network. Skips the
    test where the system does not allow it.
    """
    if sys.platform != "linux":
        pytest.skip("no network namespaces on this system")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET) != 0:
            pytest.skip(f"a private network namespace is not allowed here: {os.strerror(ctypes.get_errno())}")
        try:
            loopback_up()
            yield
        finally:
            if libc.setns(before, _CLONE_NEWNET) != 0:
                pytest.exit(f"cannot return to the network namespace: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(before)


def require_tun() -> None:
    """Skip the test where TUN devices cannot be opened."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as exc:
        pytest.skip(f"/dev/net/tun cannot be opened: {exc.strerror}")


@contextmanager
def sysctl(name: str, value: object) -> Iterator[None]:
    """Set a kernel parameter of this namespace, such as ``net.ipv4.tcp_fin_timeout``, while the context lasts."""
    path = Path("/proc/sys", *name.split("."))
    before = path.read_text()
    path.write_text(str(value))
    try:
        yield
    finally:
        path.write_text(before)


def ip(command: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


def kernel_states(remote_port: int, remote_host: str, local_port: int) -> list[str]:
    """States of the kernel's sockets with that peer, as ss(8) spells them, sorted.

    A peer's host is made from its UDP port: it may be that of one before, whose sockets are in TIME-WAIT for a minute.
    """
    return sorted(
        state
        for state, _, _, local, remote, *_ in ss_rows()
        if _matches(remote, remote_port, remote_host) and local.endswith(f":{local_port}")
    )


def ss_rows() -> list[list[str]]:
    """The columns of ``ss -tan``: state, receive queue, send queue, local and peer address."""
    return [line.split() for line in subprocess.check_output(["ss", "-tanH"], text=True).splitlines()]


def _matches(address: str, port: int, host: str) -> bool:
    found_host, _, found_port = address.rpartition(":")
    return found_port == str(port) and found_host.strip("[]") == host


def tcp_counters() -> dict[str, int]:
    """The kernel's TCP counters of this namespace, SNMP's and Linux' own, by their names in nstat(8)."""
    counters: dict[str, int] = {}
    for path in ("/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"):
        lines = Path(path).read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            prefix, *keys = names.split()
            if prefix in ("Tcp:", "TcpExt:"):
                counters.update(zip(keys, map(int, values.split()[1:]), strict=True))
    return counters
