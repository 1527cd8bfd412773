"""What docs/libraries.md shows works."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

import utcp.contrib.anyio
from libraries.carried import HOST

PAGE = (Path(__file__).parents[2] / "docs" / "libraries.md").read_text()


def example(after: str, ports: list[int]) -> str:
    """The first piece of Python after a heading, with ports that are free."""
    source = re.findall(r"```python\n(.*?)```", PAGE[PAGE.index(f"\n## {after}\n") :], re.DOTALL)[0]
    return str(source.replace("9000", str(ports[0])).replace("8000", str(ports[1])))


@pytest.fixture
def ports() -> list[int]:
    """Two UDP ports that are free."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        for sock in sockets:
            sock.bind((HOST, 0))
        return [sock.getsockname()[1] for sock in sockets]


def test_servers_and_clients(ports: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example("An example", ports), "docs/libraries.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.splitlines() == ["HELLO", "hello over utcp"]


def test_anyio(ports: list[int]) -> None:
    """In any asyncio loop, also in one that has never heard of utcp."""
    names: dict[str, object] = {}
    exec(compile(example("anyio", ports), "docs/libraries.md", "exec"), names)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(names["main"])  # type: ignore[arg-type]
            await anyio.wait_all_tasks_blocked()
            async with await utcp.contrib.anyio.connect_tcp(HOST, ports[0]) as client:
                await client.send(b"hello")
                await client.send_eof()
                assert b"".join([data async for data in client]) == b"HELLO"
            tasks.cancel_scope.cancel()

    anyio.run(main)
