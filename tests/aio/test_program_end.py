"""Programs that end right after ``close``: what was written, and the FIN, still arrive."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time

import pytest

import utcp
from aio.protocols import HOST, Accepted, Recorder, serving


async def run(program: str, *arguments: object) -> tuple[int, str, str]:
    """Run a program in another process, with every warning shown; returns its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",
        "-c",
        PREAMBLE + textwrap.dedent(program),
        *map(str, arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 20)
    except TimeoutError:
        process.kill()
        raise
    return process.returncode or 0, output.decode(), errors.decode()


PREAMBLE = """
import asyncio, sys, utcp, uvloop
port, kind = int(sys.argv[1]), sys.argv[2]
new_loop = uvloop.new_event_loop if kind == "uvloop" else asyncio.SelectorEventLoop
def run(coroutine):
    with asyncio.Runner(loop_factory=new_loop, debug=False) as runner:
        runner.run(coroutine)
"""

LOOPS = pytest.mark.parametrize("kind", ["asyncio", "uvloop"])


@LOOPS
async def test_a_program_that_ends_right_after_close(kind: str) -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        result = await run(
            """
            async def main():
                reader, writer = await utcp.open_connection("127.0.0.1", port)
                writer.write(bytes(3_000_000))
                writer.close()
            run(main())
            """,
            port,
            kind,
        )
        assert result == (0, "", "")
        server = await accepted.get()
        assert await server.lost is None
        assert len(server.data) == 3_000_000
        assert server.events == ["made", "data", "eof", "lost"]


@LOOPS
async def test_a_program_that_forgets_to_close(kind: str) -> None:
    """As with a kernel socket: the end of the process is the end of the stream, not a reset."""
    accepted = Accepted()
    async with serving(accepted) as port:
        code, _, errors = await run(
            """
            async def main():
                transport, _ = await utcp.create_connection(asyncio.Protocol, "127.0.0.1", port)
                transport.write(b"forgotten")
            run(main())
            """,
            port,
            kind,
        )
        assert (code, errors) == (0, "")
        server = await accepted.get()
        assert await server.lost is None
        assert bytes(server.data) == b"forgotten"


@LOOPS
async def test_a_program_that_ends_with_an_exception(kind: str) -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        code, _, errors = await run(
            """
            async def main():
                reader, writer = await utcp.open_connection("127.0.0.1", port)
                writer.write(bytes(500_000))
                writer.close()
                raise ZeroDivisionError
            run(main())
            """,
            port,
            kind,
        )
        assert code == 1
        assert errors.rstrip().endswith("ZeroDivisionError")
        assert "Warning" not in errors
        server = await accepted.get()
        assert await server.lost is None
        assert len(server.data) == 500_000


@LOOPS
@pytest.mark.parametrize("ending", ["loop.close()", "pass"])
async def test_a_loop_run_by_hand(kind: str, ending: str) -> None:
    """Neither shutdown_asyncgens nor, in the second case, even close is called."""
    accepted = Accepted()
    async with serving(accepted) as port:
        code, _, errors = await run(
            f"""
            async def main():
                reader, writer = await utcp.open_connection("127.0.0.1", port)
                writer.write(bytes(500_000))
                writer.close()
            loop = new_loop()
            loop.run_until_complete(main())
            {ending}
            """,
            port,
            kind,
        )
        assert code == 0
        assert "unclosed <socket.socket" not in errors
        server = await accepted.get()
        assert await server.lost is None
        assert len(server.data) == 500_000


@LOOPS
async def test_the_end_of_a_program_is_bounded(kind: str) -> None:
    class Deaf(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            assert isinstance(transport, utcp.Transport)
            transport.pause_reading()

    accepted = Accepted(Deaf)
    async with serving(accepted) as port:
        begun = time.monotonic()
        result = await run(
            """
            utcp.Endpoint.shutdown_timeout = 0.3
            async def main():
                reader, writer = await utcp.open_connection("127.0.0.1", port)
                writer.write(bytes(8_000_000))
                writer.close()
            run(main())
            """,
            port,
            kind,
        )
        assert result == (0, "", "")
        assert time.monotonic() - begun < 10
        server = await accepted.get()
        assert server.transport is not None
        server.transport.resume_reading()
        assert isinstance(await server.lost, ConnectionResetError)


@LOOPS
async def test_server_and_clients_in_one_program(kind: str) -> None:
    result = await run(
        """
        async def handle(reader, writer):
            data = await reader.read()
            print(len(data))
            writer.close()
        async def main():
            server = await utcp.start_server(handle, "127.0.0.1", 0)
            for _ in range(3):
                reader, writer = await utcp.open_connection(*server.sockets[0].getsockname())
                writer.write(bytes(1000))
                writer.write_eof()
                await reader.read()
                writer.close()
            await utcp.shutdown()
        run(main())
        """,
        0,
        kind,
    )
    assert result == (0, "1000\n" * 3, "")


@LOOPS
async def test_one_loop_after_another(kind: str) -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        result = await run(
            """
            async def main():
                reader, writer = await utcp.open_connection("127.0.0.1", port)
                writer.write(b"x")
                writer.close()
                await writer.wait_closed()
            for _ in range(3):
                run(main())
            """,
            port,
            kind,
        )
        assert result == (0, "", "")
        for _ in range(3):
            assert await (await accepted.get()).lost is None


async def test_a_fork_starts_afresh() -> None:
    """The child's sockets are its own, and what it does leaves the parent's connections alone."""
    accepted = Accepted(lambda: Recorder(keep_open=True))
    async with serving(accepted) as port:
        result = await run(
            """
            import os
            async def parent():
                reader, writer = await utcp.open_connection("127.0.0.1", port)
                writer.write(b"parent ")
                await writer.transport.drained()
                pid = os.fork()
                if pid == 0:
                    os._exit(child())
                _, status = await asyncio.to_thread(os.waitpid, pid, 0)
                assert status == 0, status
                writer.write(b"again")
                writer.close()
                await writer.wait_closed()
            def child():
                asyncio._set_running_loop(None)
                async def main():
                    reader, writer = await utcp.open_connection("127.0.0.1", port)
                    writer.write(b"child")
                    writer.close()
                    await writer.wait_closed()
                run(main())
                return 0
            run(parent())
            """,
            port,
            "asyncio",
        )
        assert result == (0, "", "")
        parent, child = await accepted.get(), await accepted.get()
        await parent.eof
        await child.eof
        assert bytes(parent.data) == b"parent again"
        assert bytes(child.data) == b"child"


async def test_the_client_endpoint_goes_with_its_loop() -> None:
    def run_a_loop(port: int) -> utcp.Endpoint:
        async def main() -> utcp.Endpoint:
            await utcp.create_connection(asyncio.Protocol, HOST, port)
            from utcp.aio.loops import endpoints_of

            return next(iter(endpoints_of(asyncio.get_running_loop()).endpoints))

        return asyncio.run(main())

    async with serving(Recorder) as port:
        endpoint = await asyncio.to_thread(run_a_loop, port)
        assert not endpoint.is_open
