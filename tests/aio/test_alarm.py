"""The alarms of an endpoint: the event loop's, and the kernel's by either way to it."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

import utcp
from support.patience import PATIENCE, until
from utcp.aio import alarm
from utcp.aio.alarm import MILLISECOND, Alarm, LoopAlarm, MakeAlarm, TimerFd, system_alarm

LINUX: Final = sys.platform == "linux"
SOON: Final = 20 * MILLISECOND


def by_ctypes(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alarm, "timerfd_calls", alarm._by_ctypes)
        return TimerFd(loop, ring)


on_linux = pytest.mark.skipif(not LINUX, reason="timerfd is Linux's")
ALARMS: Final = [
    LoopAlarm,
    pytest.param(system_alarm, id="system_alarm"),
    pytest.param(TimerFd, marks=on_linux),
    pytest.param(by_ctypes, id="timerfd by ctypes", marks=on_linux),
]


class Rings:
    """What an alarm calls, and when it did."""

    def __init__(self) -> None:
        self.times: list[int] = []

    def __call__(self) -> None:
        self.times.append(time.monotonic_ns())


@pytest.mark.parametrize("make", ALARMS)
async def test_an_alarm_rings_once_and_not_before_its_time(make: MakeAlarm) -> None:
    rings = Rings()
    clock = make(asyncio.get_running_loop(), rings)
    began = time.monotonic_ns()
    await asyncio.sleep(0)  # uvloop counts from the millisecond in which it last woke
    clock.set(SOON)
    await until(lambda: bool(rings.times))
    assert rings.times[0] - began > SOON - 2 * MILLISECOND
    await asyncio.sleep(3 * SOON / 1e9)
    assert len(rings.times) == 1
    clock.set(SOON)
    await until(lambda: len(rings.times) == 2)
    clock.close()


@pytest.mark.parametrize("make", ALARMS)
@pytest.mark.parametrize("wait", [0, -1, -MILLISECOND])
async def test_a_time_that_has_passed_rings_at_once(make: MakeAlarm, wait: int) -> None:
    rings = Rings()
    clock = make(asyncio.get_running_loop(), rings)
    clock.set(wait)
    await until(lambda: bool(rings.times))
    clock.close()


@pytest.mark.parametrize("make", ALARMS)
async def test_a_new_time_replaces_the_one_before(make: MakeAlarm) -> None:
    rings = Rings()
    clock = make(asyncio.get_running_loop(), rings)
    clock.set(SOON)
    clock.set(1 << 62)  # longer than any of them can wait
    await asyncio.sleep(3 * SOON / 1e9)
    assert not rings.times
    clock.set(SOON)
    await until(lambda: bool(rings.times))
    clock.close()


@on_linux
async def test_a_time_that_has_come_can_still_be_replaced() -> None:
    """The loop has seen that it has come, but something else that came with it set the alarm anew."""
    rings = Rings()
    clock = TimerFd(asyncio.get_running_loop(), rings)
    clock.set(1 << 62)
    clock._on_readable()
    assert not rings.times
    clock.set(0)
    assert select.select([clock._file], [], [], PATIENCE)[0]
    clock._on_readable()
    assert len(rings.times) == 1
    clock.close()


@on_linux
async def test_a_forked_child_leaves_the_parents_alarm_alone() -> None:
    """The child has a copy of the file, but the parent's epoll is the same one."""
    rings = Rings()
    clock = TimerFd(asyncio.get_running_loop(), rings)
    clock.set(SOON)
    child = os.fork()
    if child == 0:
        try:
            clock.abandon()
        finally:  # whatever happens, there are no two of pytest
            os._exit(int(not clock._file.closed))
    assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222
    await until(lambda: bool(rings.times))
    clock.close()


@pytest.mark.parametrize("make", ALARMS)
async def test_a_closed_alarm_does_not_ring(make: MakeAlarm) -> None:
    rings = Rings()
    clock = make(asyncio.get_running_loop(), rings)
    clock.set(MILLISECOND)
    clock.close()
    clock.close()
    await asyncio.sleep(SOON / 1e9)
    assert not rings.times


@on_linux
async def test_an_endpoint_leaves_no_file_open() -> None:
    before = timers()
    async with await utcp.Endpoint.create(("127.0.0.1", 0)):
        assert len(timers() - before) == 1
    assert timers() == before


def timers() -> set[str]:
    """The file descriptors of this process that are timers."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return {link.name for link in links if "timerfd" in os.readlink(link)}


async def test_without_timerfd_the_loop_is_the_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("as a sandbox may")

    monkeypatch.setattr(alarm, "timerfd_calls", refuse)
    assert isinstance(system_alarm(asyncio.get_running_loop(), Rings()), LoopAlarm)


@on_linux
async def test_without_a_timer_that_can_be_set_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left open."""
    create, _ = alarm._by_ctypes()

    def refuse(fd: int, wait: int) -> None:
        raise PermissionError

    before = timers()
    monkeypatch.setattr(alarm, "timerfd_calls", lambda: (create, refuse))
    assert isinstance(system_alarm(asyncio.get_running_loop(), Rings()), LoopAlarm)
    assert timers() == before


@on_linux
def test_a_failure_to_set_it_is_told() -> None:
    _, settime = alarm._by_ctypes()
    with open(os.devnull, "rb") as file, pytest.raises(OSError, match="Invalid argument"):
        settime(file.fileno(), 1)


@on_linux
async def test_what_ends_within_a_millisecond_shares_a_wake_up() -> None:
    """TIME-WAIT records that expire one shortly after the other."""
    async with await utcp.Endpoint.create(("127.0.0.1", 0)) as endpoint:
        stack = endpoint.engine.stack
        now = time.monotonic_ns()
        for n in range(2000):
            stack.time_wait.insert(n << 16 | 1, 1, 1, 1, False, 0, 0, now + 20_000 * n, SOON)  # all of them in 40 ms
        began = endpoint.stats().wakeups
        endpoint._pump.flush()
        await until(lambda: len(stack.time_wait) == 0)
        took = time.monotonic_ns() - now
        assert 1 <= endpoint.stats().wakeups - began <= took / MILLISECOND + 2


@on_linux
def test_the_kernel_tells_why_it_has_no_timer_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.O_CLOEXEC", 1)  # no flag of timerfd_create(2)
    create, _ = alarm._by_ctypes()
    with pytest.raises(OSError, match="Invalid argument"):
        create()
