"""When an endpoint wants to be woken next: one moment, by the event loop's own timers or by a timer of the kernel's.

An event loop that sleeps while it has a timer of its own makes the kernel arm and cancel one each time, which takes a
microsecond. A timerfd(2) is armed once and stays, however often the loop sleeps until then; and it counts nanoseconds,
where uvloop's clock ticks in milliseconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from typing import Final, Protocol

MILLISECOND: Final = 1_000_000
MAX_SLEEP: Final = 3600 * 1_000_000_000  # nanoseconds; event loops do not take timers of any length

Settime = Callable[[int, int], None]  # of a timerfd: (file descriptor, nanoseconds from now; 0: never)


class Alarm(Protocol):
    """Calls back once, some time after ``set``; a later ``set`` replaces the one before. Times are in nanoseconds."""

    def set(self, wait: int) -> None:
        """Call back in ``wait``; sooner if it is too long for the alarm to wait, or if the loop's clock lags behind."""

    def close(self) -> None:
        """Never call back again; safe to call twice."""

    def abandon(self) -> None:
        """The same in a forked child, where the event loop is the parent's."""


MakeAlarm = Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Alarm]


class LoopAlarm:
    """By ``loop.call_later``: for loops whose time is not the system's, and for systems without timerfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._context = contextvars.copy_context()
        self._timer: asyncio.TimerHandle | None = None

    def set(self, wait: int) -> None:
        self.close()
        # Rounded up to milliseconds, the tick of uvloop's clock: less would wake again and again before its time
        ticks = -(-min(max(wait, 0), MAX_SLEEP) // MILLISECOND)
        self._timer = self._loop.call_later(ticks / 1000, self._ring, context=self._context)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abandon(self) -> None:
        self._timer = None


class TimerFd:
    """By a timer of the kernel's that is a file to the loop. Linux; raises OSError where there is none to be had."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        create, self._settime = timerfd_calls()
        self._file = io.FileIO(create())  # closes what nobody closed, and warns of it
        self._loop = loop
        self._ring = ring
        try:
            self._settime(self._file.fileno(), 0)  # a sandbox that allows one call may forbid the other
            loop.add_reader(self._file.fileno(), self._on_readable)
        except BaseException:
            self._file.close()
            raise

    def set(self, wait: int) -> None:
        self._settime(self._file.fileno(), min(max(wait, 1), MAX_SLEEP))

    def close(self) -> None:
        if not self._file.closed:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._file.fileno())
            self._file.close()

    def abandon(self) -> None:
        self._file.close()

    def _on_readable(self) -> None:
        if self._file.read(8) is not None:  # else it was set anew since the loop has looked
            self._ring()


def system_alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
    """The best alarm of this system, for a loop whose time is the system's."""
    with suppress(OSError, ImportError):
        return TimerFd(loop, ring)
    return LoopAlarm(loop, ring)


def timerfd_calls() -> tuple[Callable[[], int], Settime]:
    """timerfd_create(2) and timerfd_settime(2). Raises OSError or ImportError on a system without them."""
    if sys.platform != "linux":
        raise OSError("no timerfd on this system")
    if sys.version_info >= (3, 13) and hasattr(os, "timerfd_create"):

        def settime(fd: int, wait: int) -> None:
            os.timerfd_settime_ns(fd, initial=wait)

        return lambda: os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC), settime
    return _by_ctypes()


def _by_ctypes() -> tuple[Callable[[], int], Settime]:
    """The same from the C library, for a Python that does not have them."""
    import ctypes

    if sys.maxsize < 1 << 32:
        raise OSError("what time_t is, is known of 64-bit systems only")
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        timerfd_create, timerfd_settime = libc.timerfd_create, libc.timerfd_settime
    except AttributeError:
        raise OSError("no timerfd in this C library") from None
    itimerspec = Struct("@4l")  # the interval, and then the time to the first: seconds, nanoseconds

    def create() -> int:
        fd: int = timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return fd

    def settime(fd: int, wait: int) -> None:
        if timerfd_settime(fd, 0, itimerspec.pack(0, 0, *divmod(wait, 1_000_000_000)), None) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return create, settime
