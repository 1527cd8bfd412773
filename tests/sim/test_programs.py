"""asyncio programs over the simulated network: time, repetition, hosts and names, faults, crashes."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import utcp
from utcp.sim import Fate, Host, Network, run

PORT = 9000


async def upper(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
    """Answer with upper case when the client has said everything."""
    writer.write((await reader.read()).upper())
    writer.close()
    await writer.wait_closed()


async def serve(handle: Callable[..., Coroutine[Any, Any, None]] = upper, config: utcp.Config | None = None) -> None:
    async with await utcp.start_server(handle, None, PORT, config=config) as server:
        await server.serve_forever()


async def ask(host: str, data: bytes, **options: Any) -> tuple[bytes, utcp.CloseInfo]:
    reader, writer = await utcp.open_connection(host, PORT, **options)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer, await writer.transport.closed()


def two(network: Network) -> tuple[Host, Host]:
    return network.host("client"), network.host("server")


class TestTime:
    def test_sleep_takes_none(self) -> None:
        async def main() -> float:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await asyncio.sleep(365 * 86_400)
            return loop.time() - began

        began = time.monotonic()
        assert run(main) == pytest.approx(365 * 86_400)
        assert time.monotonic() - began < 30  # a year: no speed is asserted, only that nothing waited

    def test_an_hour_of_2msl(self) -> None:
        network = Network()
        client, server = two(network)

        async def main() -> None:
            config = utcp.Config(msl=1800.0)
            server.start(serve)
            await asyncio.sleep(0.1)
            async with await utcp.Endpoint.create(config=config) as endpoint:
                transport, _ = await endpoint.create_connection(asyncio.Protocol, "server", PORT)
                transport.write_eof()
                assert (await transport.closed()).reason == "graceful"
                loop = asyncio.get_running_loop()
                began = loop.time()
                assert endpoint.stats().states == {utcp.State.TIME_WAIT: 1}
                await asyncio.sleep(3599)
                assert endpoint.stats().states == {utcp.State.TIME_WAIT: 1}
                await endpoint.aclose(time_wait="linger")
                assert loop.time() - began == pytest.approx(3600, abs=0.1)

        run(main, network=network, host=client)

    def test_a_round_trip_takes_what_the_network_says(self) -> None:
        network = Network(delay=0.25)
        client, server = two(network)

        async def main() -> float:
            server.start(serve)
            await asyncio.sleep(1)
            began = network.now
            _, writer = await utcp.open_connection("server", PORT)
            writer.close()
            return (network.now - began) / 1e9

        assert run(main, network=network, host=client) == 0.5

    def test_timeouts_are_virtual_too(self) -> None:
        async def main() -> None:
            async with asyncio.timeout(1000):
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            run(main)

    def test_code_takes_no_time(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            time.sleep(0.002)  # noqa: ASYNC251 - that is the point
            for _ in range(100):
                await asyncio.sleep(0)
            assert loop.time() == began

        run(main)

    def test_timers_fire_in_their_order_and_at_their_instant(self) -> None:
        async def main() -> list[tuple[str, float]]:
            loop = asyncio.get_running_loop()
            fired: list[tuple[str, float]] = []

            def fire(name: str) -> None:
                fired.append((name, round(loop.time(), 9)))

            for name, delay in (("c", 0.3), ("a", 0.1), ("b", 0.2), ("d", 0.3)):
                loop.call_later(delay, fire, name)
            await asyncio.sleep(1)
            return fired

        assert run(main) == [("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.3)]

    def test_waiting_for_what_never_comes_is_an_error_that_names_the_task(self) -> None:
        async def main() -> None:
            await asyncio.create_task(asyncio.Event().wait(), name="the one that waits")

        with pytest.raises(RuntimeError, match=r"(?s)nothing is left to happen at 0\.0.*the one that waits"):
            run(main)


def lossy_run(seed: int) -> str:
    """Ten connections over a bad network; the digest of everything that was sent, with instants and fates."""
    network = Network(seed, delay=0.02, jitter=0.01, loss=0.1, corrupt=0.02, duplicate=0.1, reorder=0.1, rate=2e6)
    client, server = two(network)

    async def main() -> None:
        server.start(serve)
        await asyncio.sleep(0.1)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask("server", b"x%d" % n * 1000 * n)) for n in range(10)]
        for n, task in enumerate(tasks):
            assert task.result()[0] == b"X%d" % n * 1000 * n

    run(main, network=network, host=client)
    assert network.counts[Fate.LOST] > 10
    seen = [(packet.sent_at, packet.src, packet.payload, packet.fate) for packet in network.trace]
    return hashlib.sha256(repr(seen).encode()).hexdigest()


class TestRepetition:
    def test_a_seed_repeats_itself_to_the_last_segment_and_another_does_not(self) -> None:
        assert lossy_run(1) == lossy_run(1)
        assert lossy_run(1) != lossy_run(2)

    def test_so_it_does_in_other_processes_whose_hashes_differ(self) -> None:
        root = Path(__file__).parents[2]
        script = "from tests.sim.test_programs import lossy_run; print(lossy_run(3))"
        digests = set()
        for hash_seed in ("1", "2"):
            paths = os.pathsep.join([str(Path(utcp.__file__).parents[1]), str(root)])
            environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": paths}
            command = [sys.executable, "-c", script]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            digests.add(done.stdout)
        assert len(digests) == 1


class TestHosts:
    def test_names_addresses_and_who_one_is(self) -> None:
        network = Network()
        client = network.host("client", address="192.0.2.1")
        server = network.host("server")
        six = network.host("six", address="2001:DB8:0::6")
        assert (server.address, six.address) == ("10.0.0.1", "2001:db8::6")

        async def main() -> None:
            with server:
                listening = await utcp.start_server(upper, "server", PORT)
                assert listening.sockets[0].getsockname() == ("10.0.0.1", PORT)
            for name in ("server", "10.0.0.1"):
                _, writer = await utcp.open_connection(name, PORT)
                assert writer.get_extra_info("peername") == ("10.0.0.1", PORT)
                assert writer.get_extra_info("sockname")[0] == "192.0.2.1"
                writer.close()
            for name in ("localhost", "127.0.0.1", "client"):  # nobody listens on this host
                with pytest.raises(ConnectionRefusedError):
                    await utcp.open_connection(name, PORT)
            with pytest.raises(socket.gaierror, match="nosuchhost"):
                await utcp.open_connection("nosuchhost", PORT)
            with pytest.raises(OSError, match="unreachable"):
                await utcp.open_connection("six", PORT)

        run(main, network=network, host=client)

    def test_a_host_talks_to_itself_without_the_network(self) -> None:
        network = Network(loss=1)
        one = network.host("one")

        async def main() -> None:
            one.start(serve)
            await asyncio.sleep(0.1)
            for name in ("localhost", "one", "127.0.0.1"):
                assert (await ask(name, b"hello"))[0] == b"HELLO"

        run(main, network=network, host=one)
        assert network.now < 10**9

    def test_ipv6(self) -> None:
        network = Network()
        a, b = network.host("a", address="fd00::a"), network.host("b", address="fd00::b")

        async def main() -> None:
            b.start(serve)
            await asyncio.sleep(0)
            assert (await ask("b", b"hello"))[0] == b"HELLO"
            with b:
                assert (await ask("::1", b"hello"))[0] == b"HELLO"

        run(main, network=network, host=a)

    def test_each_has_its_own_ports(self) -> None:
        network = Network()
        a, b = network.host("a"), network.host("b")

        async def main() -> None:
            a.start(serve)
            b.start(serve)
            await asyncio.sleep(0.1)
            for name in ("a", "b"):
                assert (await ask(name, b"hello"))[0] == b"HELLO"
            with pytest.raises(OSError, match="address already in use"):
                await utcp.Endpoint.create(("0.0.0.0", PORT))
            with pytest.raises(OSError, match="cannot assign"):
                await utcp.start_server(upper, "b", PORT + 1)

        run(main, network=network, host=a)
        assert {packet.src for packet in network.trace} == {"a", "b"}

    def test_tasks_and_callbacks_stay_where_they_began(self) -> None:
        network = Network()
        client, server = two(network)
        relay = network.host("relay")
        seen: list[str] = []

        async def forward(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            answer, _ = await ask("server", await reader.read())
            writer.write(answer)
            writer.close()

        async def note(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            seen.append(writer.get_extra_info("peername")[0])
            await upper(reader, writer)

        async def main() -> None:
            server.start(serve(note))
            relay.start(serve(forward))
            await asyncio.sleep(0)
            with server:  # not where main's other connections come from
                pass
            assert (await ask("relay", b"through"))[0] == b"THROUGH"
            assert (await ask("server", b"straight"))[0] == b"STRAIGHT"

        run(main, network=network, host=client)
        assert seen == [relay.address, client.address]

    def test_the_default_host_is_called_main(self) -> None:
        network = Network()

        async def main() -> str:
            endpoint = await utcp.Endpoint.create(("main", 0))
            return str(endpoint.local_addr[0])

        assert run(main(), network=network) == network.hosts["main"].address
        assert run(main(), network=network) == network.hosts["main"].address  # a network outlives its runs

    def test_addresses_that_cannot_be(self) -> None:
        network = Network()
        network.host("a", address="10.0.0.1")
        with pytest.raises(ValueError, match="taken"):
            network.host("b", address="10.0.0.1")
        with pytest.raises(ValueError, match="taken"):
            network.host("b", address="127.0.0.1")
        with pytest.raises(ValueError, match="not appear"):
            network.host("b", address="somewhere")
        assert network.host("b").address == "10.0.0.2"

    def test_a_task_in_a_context_of_ours_is_where_the_context_is(self) -> None:
        network = Network()
        client, server = two(network)

        async def main() -> None:
            with server:
                here = contextvars.copy_context()
            task = asyncio.get_running_loop().create_task(asyncio.sleep(1e6), context=here)
            again = asyncio.get_running_loop().create_task(asyncio.sleep(0), context=here)
            await again
            server.crash()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main, network=network, host=client)


class TestFaults:
    def test_a_partition_and_its_healing(self) -> None:
        network = Network()
        client, server = two(network)

        async def main() -> tuple[bytes, utcp.CloseInfo]:
            server.start(serve)
            await asyncio.sleep(0)
            network.partition(client, server)
            asyncio.get_running_loop().call_later(20, network.heal)
            return await ask("server", b"patience")

        answer, info = run(main, network=network, host=client)
        assert (answer, info.reason) == (b"PATIENCE", "graceful")
        assert network.counts[Fate.PARTITIONED] > 2
        assert network.now > 20 * 10**9

    def test_nobody_at_that_address(self) -> None:
        network = Network()

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await utcp.open_connection("192.0.2.99", PORT)

        run(main, network=network)
        assert network.now >= 180 * 10**9  # R2 of a SYN (RFC 9293 MUST-23)
        assert network.counts.keys() == {Fate.UNREACHABLE}

    def test_a_refusal_takes_a_round_trip(self) -> None:
        network = Network(delay=0.25)
        client, _ = two(network)

        async def main() -> None:
            with pytest.raises(ConnectionRefusedError):
                await utcp.open_connection("server", PORT)
            assert network.now == 500_000_000

        run(main, network=network, host=client)

    def test_a_rate_is_what_is_reached(self) -> None:
        network = Network(delay=0.005, rate=8e6, queue=4_000_000)  # a megabyte a second
        client, server = two(network)

        async def main() -> float:
            server.start(serve)
            await asyncio.sleep(0)
            began = network.now
            await ask("server", bytes(2_000_000))
            return (network.now - began) / 1e9

        assert 4.0 < run(main, network=network, host=client) < 4.6  # there and back, and headers


class TestCrashes:
    def test_silence_then_a_reset_from_its_next_life(self) -> None:
        """X-05: a peer that has forgotten the connection answers with RST."""
        network = Network()
        client, server = two(network)
        ends: list[str] = []

        async def hold(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                writer.write(b"last words")
                ends.append("cancelled")

        async def main() -> None:
            task = server.start(serve(hold))
            await asyncio.sleep(0)
            reader, writer = await utcp.open_connection("server", PORT)
            await asyncio.sleep(1)
            crashed = len(network.trace)
            server.crash()
            assert not server.up
            writer.write(b"are you there")
            await asyncio.sleep(5)
            assert ends == ["cancelled"] and task.cancelled()
            assert writer.transport.state is utcp.State.ESTABLISHED
            assert {packet.src for packet in network.trace[crashed:]} == {"client"}  # no last words, no RST
            with pytest.raises(RuntimeError, match="down"):
                server.start(serve)
            server.restart(serve)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert (await ask("server", b"hello again"))[0] == b"HELLO AGAIN"

        run(main, network=network, host=client)

    def test_code_of_a_past_life_gets_no_socket(self) -> None:
        network = Network()
        client, server = two(network)

        async def main() -> None:
            with server:
                server.restart()
                with pytest.raises(OSError, match="crashed"):
                    await utcp.open_connection("client", PORT)
            with server, pytest.raises(ConnectionRefusedError):
                await utcp.open_connection("client", PORT)

        run(main, network=network, host=client)

    def test_a_reboot_with_the_same_ports(self) -> None:
        """X-04: the client comes back and its SYN meets the server's half-open connection."""
        network = Network()
        client, server = two(network)
        control = network.host("control")

        async def connect() -> utcp.StreamWriter:
            endpoint = await utcp.Endpoint.create(("client", 5000))
            transport, protocol = await endpoint.create_connection(
                lambda: utcp.StreamReaderProtocol(utcp.StreamReader()), "server", PORT, local_addr=("client", 6000)
            )
            return utcp.StreamWriter(transport, protocol, protocol._stream_reader, asyncio.get_running_loop())

        async def quiet(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            with pytest.raises(ConnectionResetError):
                await reader.read()

        async def main() -> None:
            server.start(serve(quiet))
            await asyncio.sleep(0)
            first = await client.start(connect)
            after = len(network.trace)
            again = client.restart(connect)
            first.close()  # reaches nobody
            assert again is not None
            writer = await again
            assert writer.transport.state is utcp.State.ESTABLISHED
            flags = [str(packet.segment).split()[2] for packet in network.trace[after:]]
            assert flags[:4] == ["S", ".", "R", "S"]  # SYN, challenge ACK, RST, SYN again
            writer.close()

        run(main, network=network, host=control)


class TestTheLoop:
    def test_executors_run_inline(self) -> None:
        async def main() -> int:
            assert await asyncio.to_thread(threading.get_ident) == threading.get_ident()
            with pytest.raises(ZeroDivisionError):
                await asyncio.to_thread(lambda: 1 // 0)
            return await asyncio.get_running_loop().run_in_executor(None, len, "four")

        assert run(main) == 4

    def test_other_threads_may_not_call(self) -> None:
        errors: list[Exception] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            called = asyncio.Event()
            loop.call_soon_threadsafe(called.set)
            await called.wait()

            def call() -> None:
                try:
                    loop.call_soon_threadsafe(called.set)
                except RuntimeError as error:
                    errors.append(error)

            thread = threading.Thread(target=call)
            thread.start()
            thread.join()

        run(main)
        assert "other threads" in str(errors[0])

    def test_kernel_sockets_are_refused(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            with pytest.raises(RuntimeError, match="no kernel sockets"):
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
            with socket.create_server(("127.0.0.1", 0)) as sock:
                for attempt in (
                    loop.create_connection(asyncio.Protocol, sock=sock),
                    loop.create_server(asyncio.Protocol, sock=sock),
                ):
                    with pytest.raises(RuntimeError, match="no kernel sockets"):
                        await attempt
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                with pytest.raises(RuntimeError, match="no kernel sockets"):
                    await utcp.create_connection(asyncio.Protocol, "127.0.0.1", PORT, sock=sock)

        run(main)

    def test_asyncio_s_own_functions_go_by_utcp(self) -> None:
        async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.read()).upper())
            writer.close()

        async def main() -> bytes:
            async with await asyncio.start_server(upper, "main", PORT):
                reader, writer = await asyncio.open_connection("main", PORT)
                assert isinstance(writer.transport, utcp.Transport)
                writer.write(b"hello")
                writer.write_eof()
                answer = await reader.read()
                writer.close()
                await writer.wait_closed()
                return answer

        assert run(main) == b"HELLO"

    def test_the_end_cancels_in_order_and_flushes(self) -> None:
        network = Network()
        client, server = two(network)
        cancelled: list[int] = []
        received: list[bytes] = []

        async def keep(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
            received.append(await reader.read())
            writer.close()

        async def forever(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(number)

        async def main() -> str:
            with server:
                await utcp.start_server(keep, None, PORT)
            tasks = [asyncio.create_task(forever(number)) for number in range(50)]
            await asyncio.sleep(0.1)
            assert len(tasks) == 50
            _, writer = await utcp.open_connection("server", PORT)
            writer.write(b"x" * 100_000)
            writer.close()
            return "done"

        assert run(main, network=network, host=client) == "done"
        assert cancelled == list(range(50))
        assert received == [b"x" * 100_000]  # the other hosts end later

    def test_an_exception_is_mains(self) -> None:
        async def main() -> None:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            run(main)
