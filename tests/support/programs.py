"""Programs that run in processes of their own, with every warning shown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

# What every program finds: its arguments, its kind of loop, and asyncio's names over the TCP it is to use
PREAMBLE = """
import asyncio, sys, utcp, uvloop
utcp.Endpoint.shutdown_timeout = 60  # seconds: a busy machine is no reason to lose anything
port, kind = int(sys.argv[1]), sys.argv[2]
net = asyncio if sys.argv[3:] == ["kernel"] else utcp
new_loop = uvloop.new_event_loop if kind == "uvloop" else asyncio.SelectorEventLoop
def create_connection(*args):
    return (utcp if net is utcp else asyncio.get_running_loop()).create_connection(*args)
def run(coroutine):
    with asyncio.Runner(loop_factory=new_loop, debug=False) as runner:
        return runner.run(coroutine)
"""


def kind_of_loop() -> str:
    """The running one's, as programs take it for an argument."""
    return "uvloop" if isinstance(asyncio.get_running_loop(), uvloop.Loop) else "asyncio"


@asynccontextmanager
async def running(program: str, *arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that runs; it is killed when it has not ended with the block."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.py"  # a file, so that its own processes can import it
        path.write_text(PREAMBLE + textwrap.dedent(program))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-X", "dev", path, *map(str, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def ended(process: asyncio.subprocess.Process, timeout: float = 120) -> tuple[int, str, str]:
    """Wait for the end; returns exit code, output and errors."""
    output, errors = await asyncio.wait_for(process.communicate(), timeout)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def run(program: str, *arguments: object) -> tuple[int, str, str]:
    """Run a program to its end; returns exit code, output and errors."""
    async with running(program, *arguments) as process:
        return await ended(process)
