"""Every script of a test must end in silence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import script


@pytest.fixture(autouse=True)
def silence_at_the_end() -> Iterator[None]:
    script.OPEN.clear()
    yield
    for open_script in script.OPEN:
        open_script.done()
