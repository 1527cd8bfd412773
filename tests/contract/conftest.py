"""Every test of the contract runs four ways: over the kernel's TCP and over utcp, on the default loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop

from contract.stacks import KERNEL, UTCP, Stack


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=[KERNEL, UTCP], ids=lambda stack: str(stack.name))
def stack(request: pytest.FixtureRequest) -> Stack:
    found: Stack = request.param
    return found
