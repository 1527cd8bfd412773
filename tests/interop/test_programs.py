"""Everybody's programs on the kernel's side, asyncio programs on utcp's."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable

import pytest

import utcp
from interop.matrix import Row
from interop.net import KERNEL, UTCP, Net
from utcp.gateway import Endpoint

SECTION = "Programs"
BODY = bytes(range(256)) * 4000
Handler = Callable[[utcp.StreamReader, utcp.StreamWriter], Awaitable[None]]


def require(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


async def program(*command: str, stdin: bytes = b"") -> bytes:
    """What a program writes to standard output; it must succeed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    output, _ = await asyncio.wait_for(process.communicate(stdin), 20)
    assert process.returncode == 0
    return output


async def http(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
    """One request of HTTP/1.0: GET answers with BODY, anything else with the digest of what came."""
    head = await reader.readuntil(b"\r\n\r\n")
    answer = BODY
    if not head.startswith(b"GET "):
        size = int(head.lower().partition(b"content-length:")[2].split()[0])
        answer = hashlib.sha256(await reader.readexactly(size)).hexdigest().encode()
    writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + answer)
    writer.close()
    await writer.wait_closed()


async def digest(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
    """The digest of everything up to the client's FIN."""
    writer.write(hashlib.sha256(await reader.read()).hexdigest().encode())
    writer.close()
    await writer.wait_closed()


async def with_server(net: Net, handler: Handler, client: Callable[[str, int], Awaitable[None]]) -> None:
    """Call ``client`` with the address under which the kernel reaches a utcp server."""
    async with await utcp.start_server(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await client(net.gateway.routes.host_address(Endpoint("127.0.0.1", port)), port)


@pytest.mark.row(SECTION, "curl downloads and uploads 1 MB, HTTP server on utcp streams", KERNEL)
def test_curl(net: Net, row: Row) -> None:
    require("curl")

    async def client(host: str, port: int) -> None:
        url = f"http://{host}:{port}/"
        assert await program("curl", "-sS", url) == BODY
        uploaded = await program("curl", "-sS", "-H", "Expect:", "--data-binary", "@-", url, stdin=BODY)
        assert uploaded.decode() == hashlib.sha256(BODY).hexdigest()

    asyncio.run(with_server(net, http, client))
    row.note("every byte, twice")


@pytest.mark.row(SECTION, "nc sends 1 MB and half-closes, utcp answers with a digest", KERNEL)
def test_nc_connects(net: Net, row: Row) -> None:
    require("nc")

    async def client(host: str, port: int) -> None:
        answer = await program("nc", "-N", host, str(port), stdin=BODY)
        assert answer.decode() == hashlib.sha256(BODY).hexdigest()

    asyncio.run(with_server(net, digest, client))
    row.note("the digest comes after the FIN")


@pytest.mark.row(SECTION, "nc listens, utcp sends 1 MB and half-closes", UTCP)
def test_nc_listens(net: Net, row: Row) -> None:
    require("nc")

    async def connect() -> tuple[utcp.StreamReader, utcp.StreamWriter]:
        udp = net.gateway.kernel[0].udp
        for _ in range(100):  # until nc listens
            try:
                return await utcp.open_connection(udp.host, 8000, udp_port=udp.port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
        raise AssertionError("nc does not listen")

    async def main() -> None:
        nc = asyncio.create_task(program("nc", "-N", "-l", net.address(), "8000", stdin=b"hello from nc"))
        reader, writer = await connect()
        writer.write(BODY)
        writer.write_eof()
        assert await reader.read() == b"hello from nc"
        writer.close()
        await writer.wait_closed()
        assert await nc == BODY

    asyncio.run(main())
    row.note("every byte; both ends of the file seen")
