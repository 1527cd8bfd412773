"""Where the end of a program differs from the kernel's; what utcp promises about it is in tests/aio."""

from __future__ import annotations

import asyncio
import signal

from contract.stacks import Stack
from support.programs import ended, kind_of_loop, run, running
from support.recorder import Accepted, Recorder


async def test_queued_megabytes_when_asyncio_run_returns(stack: Stack) -> None:
    """asyncio drops what its transport still has; only what the kernel has taken is sent."""
    accepted = Accepted()
    size = 30_000_000  # more than a kernel's socket buffers take
    async with stack.serving(accepted) as port:
        code, _, errors = await run(
            f"""
            async def main():
                reader, writer = await net.open_connection("127.0.0.1", port)
                writer.write(bytes({size}))
                writer.close()
            run(main())
            """,
            port,
            kind_of_loop(),
            stack.name,
        )
        assert code == 0
        assert "Error" not in errors
        server = await accepted.get()
        assert await server.lost is None
        # All of it; over the kernel's TCP what it had room for by then, on a fast reader's side that may be all
        assert len(server.data) == size if stack.is_utcp else len(server.data) <= size


async def test_what_nobody_closed(stack: Stack) -> None:
    accepted = Accepted()
    async with stack.serving(accepted) as port:
        code, _, errors = await run(
            """
            async def main():
                global transport
                transport, _ = await create_connection(asyncio.Protocol, "127.0.0.1", port)
                transport.write(b"last words")
            run(main())
            """,
            port,
            kind_of_loop(),
            stack.name,
        )
        assert code == 0
        if stack.is_utcp:
            assert "ResourceWarning: unclosed transport <utcp.Transport ESTABLISHED " in errors
        elif kind_of_loop() == "asyncio":
            assert "ResourceWarning: unclosed transport <_SelectorSocketTransport " in errors
        else:
            assert "ResourceWarning: unclosed resource <TCPTransport " in errors
        server = await accepted.get()
        assert await server.lost is None
        assert bytes(server.data) == b"last words"


async def test_a_program_that_is_killed(stack: Stack) -> None:
    """A kernel ends the connections of the dead. Here nobody is left to do it: the peer has its timers."""
    accepted = Accepted()
    async with (
        stack.serving(accepted) as port,
        running(
            """
            async def main():
                transport, _ = await create_connection(asyncio.Protocol, "127.0.0.1", port)
                print("ready", flush=True)
                await asyncio.sleep(60)
            run(main())
            """,
            port,
            kind_of_loop(),
            stack.name,
        ) as process,
    ):
        assert process.stdout is not None
        await process.stdout.readline()
        server: Recorder = await accepted.get()
        process.send_signal(signal.SIGTERM)  # for which it has no handler
        code, _, _ = await ended(process)
        assert code == -signal.SIGTERM
        await (asyncio.sleep(0.2) if stack.is_utcp else server.lost)
        assert server.events == (["made"] if stack.is_utcp else ["made", "eof", "lost"])
