"""An echo server and its client under TLS: what they agreed on, and how both ends of the connection went.

    python examples/tls_echo.py                                       # both sides in one process
    python examples/tls_echo.py server --cert cert.pem --key key.pem  # or each in a terminal of its own
    python examples/tls_echo.py client --ca cert.pem hello

Without --cert the server makes a certificate that lives as long as the program; the standard ``openssl`` command does
that, there is nothing to install. By TLS 1.3 the client half-closes: close_notify, the FIN behind it, and the rest of
the echo is still to come. ``--tls 1.2`` has no half-close, so there the client counts bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path

import utcp
import utcp.trace

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def agreement(writer: utcp.StreamWriter) -> str:
    """What a handshake came to."""
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    name, _, bits = writer.get_extra_info("cipher")
    return f"{tls.version()}, {name} ({bits} bits), ALPN {tls.selected_alpn_protocol()}"


async def echo(reader: utcp.StreamReader, writer: utcp.StreamWriter) -> None:
    """The server's side of a connection."""
    print(f"server  {agreement(writer)}")
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        print(f"server  {writer.transport.state}: the client's close_notify is here")
        writer.close()
        await writer.wait_closed()
    except OSError as error:
        print(f"server  {error}")
    print(f"server  {await writer.transport.closed()}")


@asynccontextmanager
async def serving(host: str, port: int, context: ssl.SSLContext, pcap: str | None) -> AsyncIterator[int]:
    async with await utcp.Endpoint.create(local_addr=(host, port)) as endpoint:
        with utcp.trace.capture(endpoint, pcap) if pcap else nullcontext():
            async with await utcp.start_server(echo, endpoint=endpoint, ssl=context):
                yield endpoint.local_addr[1]


async def ask(host: str, port: int, context: ssl.SSLContext, name: str, message: bytes) -> None:
    """The client."""
    reader, writer = await utcp.open_connection(host, port, ssl=context, server_hostname=name)
    subject = dict(pair for part in writer.get_extra_info("peercert")["subject"] for pair in part)
    print(f"client  {agreement(writer)}")
    print(f"client  the certificate is {subject.get('commonName')}'s")
    writer.write(message)
    if writer.can_write_eof():
        writer.write_eof()
        print(f"client  {writer.transport.state}: {len(message):,} bytes written, and half-closed")
        answer = await reader.read()
    else:
        answer = await reader.readexactly(len(message))
    writer.close()
    await writer.wait_closed()
    print(f"client  {await writer.transport.closed()}")
    if answer != message:
        raise ValueError("the echo is not what was said")
    print(answer.decode(errors="replace") if len(answer) < 1000 else f"{len(answer):,} bytes")


@contextmanager
def certificate(cert: str | None, key: str | None, host: str) -> Iterator[tuple[str, str]]:
    """The files of the server's certificate and key, made for the occasion if there are none."""
    if cert is not None:
        yield cert, key or cert
        return
    with tempfile.TemporaryDirectory(prefix="tls_echo-") as folder:
        made, secret = str(Path(folder, "cert.pem")), str(Path(folder, "key.pem"))
        kind = "IP" if host.replace(".", "").isdigit() or ":" in host else "DNS"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "1", "-subj", "/CN=localhost", "-addext", f"subjectAltName=DNS:localhost,{kind}:{host}"]
        try:
            subprocess.run([*command, "-out", made, "-keyout", secret], check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise ValueError("no openssl command to make a certificate with: give --cert and --key") from None
        except subprocess.CalledProcessError as error:
            raise ValueError(f"openssl made no certificate: {error.stderr.strip()}") from None
        yield made, secret


def context(server_side: bool, version: str | None) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH if server_side else ssl.Purpose.SERVER_AUTH)
    made.set_alpn_protocols(["echo"])
    if version is not None:
        made.minimum_version = made.maximum_version = VERSIONS[version]
    return made


async def main(args: argparse.Namespace) -> None:
    client = context(False, args.tls)
    if args.role == "client":
        if args.ca:
            client.load_verify_locations(args.ca)
        await ask(args.host, args.port, client, args.name, args.message.encode())
        return
    with certificate(args.cert, args.key, args.host) as (cert, key):
        server = context(True, args.tls)
        server.load_cert_chain(cert, key)
        port = args.port if args.role == "server" else 0
        async with serving(args.host, port, server, args.pcap) as port:
            if args.role == "server":
                print(f"echoing by TLS on {args.host}, UDP and TCP port {port}; clients take --ca {cert}", flush=True)
                await asyncio.Event().wait()
            client.load_verify_locations(args.ca or cert)
            await ask(args.host, port, client, args.name, args.message.encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Echo under TLS, and tell what was agreed on and how it ended.")
    parser.add_argument("role", nargs="?", default="both", choices=["both", "server", "client"])
    parser.add_argument("message", nargs="?", default="hello", help="what the client says (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="the server's address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9443, help="its UDP and TCP port (default: %(default)s)")
    parser.add_argument("--cert", metavar="FILE.pem", help="the server's certificate (default: one is made)")
    parser.add_argument("--key", metavar="FILE.pem", help="its private key, if that is not in the same file")
    parser.add_argument("--ca", metavar="FILE.pem", help="whom the client trusts (default: whom the system trusts)")
    parser.add_argument("--name", default="localhost", help="whose certificate it has to be (default: %(default)s)")
    parser.add_argument("--tls", choices=sorted(VERSIONS), help="this version only")
    parser.add_argument("--pcap", metavar="FILE.pcapng", help="write the server's side as a capture for Wireshark")
    args = parser.parse_args()
    if args.pcap and args.role == "client":
        parser.error("--pcap is the server's")
    if args.key and not args.cert:
        parser.error("--key goes with --cert")
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(main(args))
    except (OSError, ValueError) as exc:
        sys.exit(f"tls_echo: {exc}")
