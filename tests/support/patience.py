"""Waiting, in tests whose outcome is not to depend on how busy the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

PATIENCE: Final = 30.0  # seconds: what has not happened by then does not happen. Less than a test may take

# Options of a connection that repeats nothing because of an answer that is slow to come: its peer, or the whole
# process, may have been waiting for a processor. What ICMP or a SACK says is lost is sent again all the same.
UNHURRIED: Final[dict[str, Any]] = {"rto_initial": 60.0, "rto_min": 60.0, "tlp": False}


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds that nobody tells of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
