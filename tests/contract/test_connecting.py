"""create_connection and open_connection: addresses, their order, what is refused and in which words."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import Any

import pytest

from contract.stacks import HOST, Stack, deaf, on_uvloop, port_of
from support.names import resolve_to
from support.patience import PATIENCE, until
from support.ports import free_port
from support.recorder import Accepted, Recorder

SEVERAL = ["127.0.0.2", "127.0.0.3", HOST]  # only the last one is served


async def test_several_addresses_are_tried_in_turn(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop_resolves_for_itself(stack)
    made: list[Recorder] = []
    async with stack.serving(Recorder) as port:
        resolve_to(monkeypatch, SEVERAL, port)
        transport, client = await stack.create_connection(counting(made), "many.example", port)
        assert transport.get_extra_info("peername") == (HOST, port)
        assert made == [client]
        transport.close()
        await client.lost


async def test_several_addresses_and_nobody_there(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop_resolves_for_itself(stack)
    made: list[Recorder] = []
    port = free_port(stack.socket_type)
    resolve_to(monkeypatch, ["127.0.0.2", "127.0.0.1"], port)
    for happy_eyeballs_delay in (None, 10):
        kwargs = {"happy_eyeballs_delay": happy_eyeballs_delay}
        text = r"Multiple exceptions: .*Connect call failed \('127\.0\.0\.2', .*Connect call failed \('127\.0\.0\.1'"
        with pytest.raises(OSError, match=text) as caught:
            await stack.create_connection(counting(made), "many.example", port, **kwargs)
        assert caught.value.errno is None
        if knows_all_errors(stack):
            with pytest.raises(ExceptionGroup, match="create_connection failed") as group:
                await stack.create_connection(counting(made), "many.example", port, all_errors=True, **kwargs)
            assert [type(error) for error in group.value.exceptions] == [ConnectionRefusedError] * 2
    assert made == []


async def test_all_errors_of_one_address(stack: Stack) -> None:
    if not knows_all_errors(stack):
        pytest.skip("create_connection has all_errors from Python 3.12 on, uvloop's not yet")
    with pytest.raises(ExceptionGroup) as caught:
        await stack.create_connection(Recorder, HOST, free_port(stack.socket_type), all_errors=True)
    assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError]


async def test_happy_eyeballs(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address takes its time, so the next one gets its chance; the protocol is made once."""
    uvloop_resolves_for_itself(stack)
    made: list[Recorder] = []
    async with stack.serving(Recorder) as port:
        with deaf(stack, "127.0.0.2", port):
            resolve_to(monkeypatch, ["127.0.0.2", HOST], port)
            async with asyncio.timeout(PATIENCE):
                transport, client = await stack.create_connection(
                    counting(made), "many.example", port, happy_eyeballs_delay=0.05
                )
            assert transport.get_extra_info("peername") == (HOST, port)
            assert made == [client]
            transport.close()
            assert await client.lost is None
            assert client.events == ["made", "lost"]


async def test_happy_eyeballs_with_several_winners(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both addresses answer in the same turn of the loop: one connection, one protocol, and its stream is whole."""
    uvloop_resolves_for_itself(stack)
    async with await stack.start_server(echo, ["127.0.0.2", HOST], free_port(stack.socket_type)) as server:
        port = port_of(server)
        resolve_to(monkeypatch, ["127.0.0.2", HOST, "127.0.0.2", HOST], port)
        for _ in range(10):
            reader, writer = await stack.open_connection("many.example", port, happy_eyeballs_delay=0)
            writer.write(b"whole\n")
            assert await reader.readline() == b"whole\n"
            writer.close()
            await writer.wait_closed()


async def test_local_addr(stack: Stack) -> None:
    accepted = Accepted()
    async with stack.serving(accepted) as port:
        transport, client = await stack.create_connection(Recorder, HOST, port, local_addr=("127.0.0.5", 0))
        assert transport.get_extra_info("sockname")[0] == "127.0.0.5"
        assert (await accepted.get()).transport.get_extra_info("peername") == transport.get_extra_info("sockname")
        with pytest.raises(OSError, match="address") as caught:
            await stack.create_connection(Recorder, HOST, port, local_addr=transport.get_extra_info("sockname"))
        if stack.is_utcp or not on_uvloop():
            assert "error while attempting to bind on address ('127.0.0.5'" in str(caught.value)
            assert caught.value.errno == errno.EADDRINUSE
        transport.close()
        await client.lost


async def test_local_addr_that_is_not_ours(stack: Stack) -> None:
    text = r"error while attempting to bind on address \('192.0.2.1', 0\): .*cannot assign requested address"
    if not stack.is_utcp and on_uvloop():
        text = "annot assign requested address"
    with pytest.raises(OSError, match=text) as caught:
        await stack.create_connection(Recorder, HOST, 9, local_addr=("192.0.2.1", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_a_socket_of_one_s_own(stack: Stack) -> None:
    """The kernel's is connected already; utcp's is a UDP socket that knows its peer."""
    accepted = Accepted()
    async with stack.serving(accepted) as port:
        sock = socket.socket(socket.AF_INET, stack.socket_type)
        sock.connect((HOST, port))
        sock.setblocking(False)
        transport, client = await stack.create_connection(Recorder, sock=sock)
        server = await accepted.get()
        transport.write(b"mine")
        assert await server.received(4) == b"mine"
        server.transport.close()
        await client.lost
        await until(lambda: sock.fileno() == -1)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({}, "host and port was not specified and no sock specified"),
        ({"host": HOST, "port": 1, "server_hostname": "x"}, "server_hostname is only meaningful with ssl"),
        ({"host": HOST, "port": 1, "ssl_handshake_timeout": 1.0}, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"host": HOST, "port": 1, "ssl_shutdown_timeout": 1.0}, "ssl_shutdown_timeout is only meaningful with ssl"),
        ({"port": 1, "ssl": True}, "You must set server_hostname when using ssl without a host"),
    ],
)
async def test_arguments_that_make_no_sense(stack: Stack, kwargs: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        await stack.create_connection(Recorder, **kwargs)


async def test_an_unknown_host(stack: Stack) -> None:
    with pytest.raises(socket.gaierror):
        await stack.open_connection("no.such.host.invalid", 9)


async def test_the_words_of_a_refusal(stack: Stack) -> None:
    port = free_port(stack.socket_type)
    text = "refused" if not stack.is_utcp and on_uvloop() else rf"Connect call failed \('{HOST}', {port}\)"
    with pytest.raises(ConnectionRefusedError, match=text) as caught:
        await stack.open_connection(HOST, port)
    assert caught.value.errno == errno.ECONNREFUSED


async def echo(reader: Any, writer: Any) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


def counting(made: list[Recorder]) -> Any:
    """A factory that keeps what it made."""

    def factory() -> Recorder:
        made.append(Recorder())
        return made[-1]

    return factory


def uvloop_resolves_for_itself(stack: Stack) -> None:
    if on_uvloop() and not stack.is_utcp:
        pytest.skip("uvloop resolves names where no test can reach, and knows nothing of happy eyeballs or all_errors")


def knows_all_errors(stack: Stack) -> bool:
    return stack.is_utcp or (sys.version_info >= (3, 12) and not on_uvloop())
