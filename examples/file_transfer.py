"""Send a file, and know that it has arrived: its end is the sender's FIN, no length is sent, and nothing is resumed.

    python examples/file_transfer.py receive photo.jpg                  # waits for one sender
    python examples/file_transfer.py send photo.jpg --host 192.0.2.1    # in another terminal, or on another machine
    python examples/file_transfer.py copy photo.jpg copy.jpg            # or both in one process

The stream is the file and behind it its SHA-256. The receiver compares, puts the file in its place, and only then
answers with the digest it has computed: so both ends know. The sender's bar shows what the other TCP has acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

import utcp
import utcp.trace

CHUNK = 256 * 1024
DIGEST_SIZE = hashlib.sha256().digest_size

Streams = tuple[utcp.StreamReader, utcp.StreamWriter]


class TransferError(Exception):
    """The file has not arrived as it was."""


async def send(source: BinaryIO, progress: Progress, host: str, port: int) -> utcp.CloseInfo:
    reader, writer = await utcp.open_connection(host, port)
    bar = progress.add_task("sent", total=os.fstat(source.fileno()).st_size)
    try:
        digest, sent = hashlib.sha256(), 0
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
            sent += len(chunk)
            await writer.drain()
            progress.update(bar, completed=sent - writer.transport.info().unacked_bytes)
        writer.write(digest.digest())
        writer.write_eof()  # FIN: this was all; the answer comes on the other half
        await writer.transport.drained()
        progress.update(bar, completed=sent)
        if await reader.read() != digest.digest():
            raise TransferError("the receiver does not confirm the digest")
        writer.close()
        return await writer.transport.closed()
    except BaseException:
        writer.transport.abort()  # a FIN would look like the file's end
        raise


async def receive(streams: Streams, target: BinaryIO, progress: Progress) -> bytes:
    """Up to the sender's FIN. Returns the digest, which is the one that the sender has computed."""
    reader, _ = streams
    bar = progress.add_task("received", total=None)
    digest, held = hashlib.sha256(), b""
    while chunk := await reader.read(CHUNK):
        held += chunk
        data, held = held[:-DIGEST_SIZE], held[-DIGEST_SIZE:]  # the last bytes may be the digest
        digest.update(data)
        target.write(data)
        progress.update(bar, advance=len(data))
    if held != digest.digest():
        raise TransferError("what arrived is not what was sent")
    return held


async def confirm(streams: Streams, digest: bytes) -> utcp.CloseInfo:
    _, writer = streams
    writer.write(digest)
    writer.close()
    return await writer.transport.closed()


def must_not_exist(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists; --force overwrites it")


@contextmanager
def new_file(path: Path, force: bool) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is complete; one that is there is replaced only by ``force``."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("xb") as file:
            yield file
        if force:
            part.replace(path)
        else:
            path.hardlink_to(part)  # fails if it has appeared meanwhile
    finally:
        part.unlink(missing_ok=True)


@asynccontextmanager
async def one_sender(host: str, port: int, pcap: str | None) -> AsyncIterator[tuple[int, asyncio.Future[Streams]]]:
    """The port listened on, and the first connection to it. Later ones are reset."""
    first: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()

    def take(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
        if first.done():
            writer.transport.abort()
        else:
            first.set_result((reader, writer))

    async with await utcp.Endpoint.create(local_addr=(host, port)) as endpoint:
        with utcp.trace.capture(endpoint, pcap) if pcap else nullcontext():
            async with await utcp.start_server(take, endpoint=endpoint):
                yield endpoint.local_addr[1], first


async def take_file(first: asyncio.Future[Streams], path: Path, force: bool, progress: Progress) -> str:
    streams = await first
    try:
        with new_file(path, force) as file:
            digest = await receive(streams, file, progress)
        info = await confirm(streams, digest)
    except BaseException:
        streams[1].transport.abort()
        raise
    return f"received {path}, SHA-256 {digest.hex()}\n  {info}"


async def send_file(path: Path, host: str, port: int, progress: Progress) -> str:
    with path.open("rb") as file:
        info = await send(file, progress, host, port)
    return f"sent {path}\n  {info}"


async def receive_file(path: Path, args: argparse.Namespace, progress: Progress) -> str:
    async with one_sender(args.host, args.port, args.pcap) as (port, first):
        print(f"waiting for a sender on {args.host}, UDP and TCP port {port}", flush=True)
        return await take_file(first, path, args.force, progress)


async def copy_file(args: argparse.Namespace, progress: Progress) -> str:
    async with one_sender(args.host, 0, args.pcap) as (port, first):
        sending = send_file(args.file, args.host, port, progress)
        return "\n".join(await asyncio.gather(sending, take_file(first, args.target, args.force, progress)))


def run(args: argparse.Namespace) -> str:
    """Returns what there is to say at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    if args.role != "send" and not args.force:
        must_not_exist(args.target or args.file)  # before anything is sent
    with Progress(*columns, console=Console(stderr=True)) as progress:
        match args.role:
            case "send":
                return asyncio.run(send_file(args.file, args.host, args.port, progress))
            case "receive":
                return asyncio.run(receive_file(args.file, args, progress))
            case _:
                return asyncio.run(copy_file(args, progress))


def main() -> None:
    parser = argparse.ArgumentParser(description="Send a file and know that it has arrived.")
    parser.add_argument("role", choices=["send", "receive", "copy"])
    parser.add_argument("file", type=Path, help="to send, or to receive into")
    parser.add_argument("target", type=Path, nargs="?", help="for copy: where to")
    parser.add_argument("--host", default="127.0.0.1", help="the receiver's address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9002, help="its UDP and TCP port (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    parser.add_argument("--pcap", metavar="FILE.pcapng", help="write the receiver's side as a capture for Wireshark")
    args = parser.parse_args()
    if (args.role == "copy") != (args.target is not None):
        parser.error("copy takes two files" if args.role == "copy" else f"{args.role} takes one file")
    if args.pcap and args.role == "send":
        parser.error("--pcap is the receiver's")
    try:
        print(run(args))
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, ValueError, TransferError) as exc:
        sys.exit(f"file_transfer: {exc}")


if __name__ == "__main__":
    main()
