"""Programs that end right after ``close``: what was written, and the FIN, still arrive."""

from __future__ import annotations

import asyncio
import re
import signal

import pytest

import utcp
from aio.protocols import HOST, Accepted, Recorder, serving
from support.patience import PATIENCE
from support.programs import ended, kind_of_loop, run, running


@pytest.fixture
async def kind() -> str:
    """The kind of loop for the program: that of the test."""
    return kind_of_loop()


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
        assert code == 0
        assert re.fullmatch(
            r".*: ResourceWarning: unclosed transport <utcp.Transport ESTABLISHED local=.* peer=.*>\n.*", errors, re.S
        )
        assert errors.count("Warning: unclosed") == 1
        server = await accepted.get()
        assert await server.lost is None
        assert bytes(server.data) == b"forgotten"


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


async def test_the_end_of_a_program_is_bounded(kind: str) -> None:
    class Deaf(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            assert isinstance(transport, utcp.Transport)
            transport.pause_reading()

    accepted = Accepted(Deaf)
    async with serving(accepted) as port:
        code, out, errors = await run(
            """
            utcp.Endpoint.shutdown_timeout = 0.3
            async def main():
                reader, writer = await utcp.open_connection("127.0.0.1", port)
                writer.write(bytes(8_000_000))
                writer.close()
                print(time.monotonic())
            import time
            run(main())
            print(time.monotonic())
            """,
            port,
            kind,
        )
        assert (code, errors) == (0, "")
        began, over = map(float, out.split())
        assert 0.3 <= over - began < PATIENCE
        server = await accepted.get()
        assert server.transport is not None
        server.transport.resume_reading()
        assert isinstance(await server.lost, ConnectionResetError)


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
                if os.path.isdir("/proc/self/fd"):
                    links = ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")]
                    if [link for link in links if os.path.islink(link) and "timerfd" in os.readlink(link)]:
                        return 1
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


async def test_everything_left_open(kind: str) -> None:
    """A server, its clients, a client and an endpoint: all ends are orderly, and each thing is warned of once."""
    async with running(
        """
        async def main():
            arrived = asyncio.Event()
            class Greeter(asyncio.Protocol):
                def connection_made(self, transport):
                    transport.write(bytes(1_000_000))
                    arrived.set()
            global server, endpoint  # nobody closes them
            server = await utcp.create_server(Greeter, "127.0.0.1", 0)
            endpoint = await utcp.Endpoint.create(("127.0.0.1", 0))
            print(server.sockets[0].port, flush=True)
            await arrived.wait()
        run(main())
        """,
        0,
        kind,
    ) as process:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        _, client = await utcp.create_connection(Recorder, HOST, port)
        assert await client.lost is None
        assert len(client.data) == 1_000_000
        assert client.events == ["made", "data", "eof", "lost"]
        code, _, errors = await ended(process)
        assert code == 0
        warned = re.findall(r"ResourceWarning: unclosed (\w+) <(\S+)", errors)
        assert sorted(warned) == [("endpoint", "utcp.Endpoint"), ("server", "Server"), ("transport", "utcp.Transport")]
        assert errors.count("Warning: unclosed") == 3


async def test_warnings_that_are_errors_do_not_stop_the_end(kind: str) -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        code, _, errors = await run(
            """
            import warnings
            warnings.simplefilter("error")
            async def main():
                transport, _ = await utcp.create_connection(asyncio.Protocol, "127.0.0.1", port)
                transport.write(bytes(500_000))
            run(main())
            """,
            port,
            kind,
        )
        assert code == 0
        assert "unclosed transport <utcp.Transport" in errors
        server = await accepted.get()
        assert await server.lost is None
        assert len(server.data) == 500_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal(kind: str, number: signal.Signals) -> None:
    """SIGINT as asyncio.Runner has it; SIGTERM cancels, as a program that wants an orderly end has to arrange."""
    accepted = Accepted()
    async with (
        serving(accepted) as port,
        running(
            """
            import signal
            async def main():
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
                reader, writer = await utcp.open_connection("127.0.0.1", port)
                try:
                    writer.write(bytes(2_000_000))
                    print("ready", flush=True)
                    await asyncio.sleep(60)
                finally:
                    writer.close()
            run(main())
            """,
            port,
            kind,
        ) as process,
    ):
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(number)
        code, _, errors = await ended(process)
        assert code != 0
        last = "KeyboardInterrupt" if number == signal.SIGINT else "CancelledError"
        assert errors.rstrip().splitlines()[-1].endswith(last)
        assert "Warning" not in errors
        server = await accepted.get()
        assert await server.lost is None
        assert len(server.data) == 2_000_000


async def test_sys_exit_inside_a_coroutine(kind: str) -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        code, _, errors = await run(
            """
            async def main():
                reader, writer = await utcp.open_connection("127.0.0.1", port)
                writer.write(bytes(500_000))
                writer.close()
                sys.exit(3)
            run(main())
            """,
            port,
            kind,
        )
        assert (code, errors) == (3, "")
        server = await accepted.get()
        assert await server.lost is None
        assert len(server.data) == 500_000


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_processes_of_multiprocessing(kind: str, method: str) -> None:
    """Both connect to a server in the parent, and to one outside; all ends are graceful, the parent's lives on."""
    accepted = Accepted()
    async with serving(accepted) as port:
        result = await run(
            """
            import multiprocessing
            def child(inner, outer):
                async def main():
                    for one in (inner, outer):
                        reader, writer = await utcp.open_connection("127.0.0.1", one)
                        writer.write(b"child")
                        writer.close()
                run(main())
            async def parent():
                received = asyncio.Queue()
                async def handle(reader, writer):
                    received.put_nowait(await reader.read())
                    writer.close()
                    await writer.wait_closed()
                async with await utcp.start_server(handle, "127.0.0.1", 0) as server:
                    reader, writer = await utcp.open_connection("127.0.0.1", port)
                    inner = server.sockets[0].port
                    process = multiprocessing.get_context(METHOD).Process(target=child, args=(inner, port))
                    process.start()
                    print(await received.get())
                    while process.is_alive():
                        await asyncio.sleep(0.01)
                    assert process.exitcode == 0, process.exitcode
                    writer.write(b"parent")
                    writer.close()
                    await writer.wait_closed()
            if __name__ == "__main__":
                run(parent())
            """.replace("METHOD", repr(method)),
            port,
            kind,
        )
        assert result == (0, "b'child'\n", "")
        both = [await accepted.get(), await accepted.get()]
        assert [await one.lost for one in both] == [None, None]
        assert [bytes(one.data) for one in both] == [b"parent", b"child"]


async def test_two_loops_in_two_threads(kind: str) -> None:
    accepted = Accepted()
    async with serving(accepted) as port:
        result = await run(
            """
            import threading
            async def main():
                for _ in range(3):
                    reader, writer = await utcp.open_connection("127.0.0.1", port)
                    writer.write(bytes(300_000))
                    writer.close()
            threads = [threading.Thread(target=lambda: run(main())) for _ in range(2)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
            """,
            port,
            kind,
        )
        assert result == (0, "", "")
        for _ in range(6):
            server = await accepted.get()
            assert await server.lost is None
            assert len(server.data) == 300_000


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
