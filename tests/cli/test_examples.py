"""The examples run as they are."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import utcp

EXAMPLES = Path(__file__).parents[2] / "examples"
ENV = {**os.environ, "PYTHONPATH": str(Path(utcp.__file__).parents[1]), "PYTHONUNBUFFERED": "1"}


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(name: str, *arguments: str) -> tuple[int, str]:
    process = start(name, *arguments)
    out, _ = process.communicate(timeout=50)
    return process.returncode, out


@contextmanager
def running(name: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server: the process, and the port that its first line names. It does not outlive the test."""
    process = start(name, *arguments)
    assert process.stdout is not None
    with process.stdout:
        try:
            yield process, re.findall(r"port (\d+)", process.stdout.readline())[0]
        finally:
            process.kill()
            process.wait()


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it still printed."""
    assert process.stdout is not None
    return process.wait(timeout=20), process.stdout.read()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_explains_itself(name: str) -> None:
    code, out = run(name, "--help")
    assert code == 0
    assert out.startswith(f"usage: {name}")


def test_the_echo_client_hears_itself_and_the_servers_capture_is_written(tmp_path: Path) -> None:
    server = start("echo_server.py", "--port", "0", "--pcap", str(tmp_path / "echo.pcapng"))
    assert server.stdout is not None
    with server.stdout:
        port = re.findall(r"port (\d+)", server.stdout.readline())[0]
        code, out = run("echo_client.py", "--port", port, "hello", "there")
        assert (code, out.splitlines()[1]) == (0, "hello there"), out
        assert re.search(r"'127\.0\.0\.1', \d+\): closed", server.stdout.readline())
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0
        assert server.stdout.read() == ""
    assert (tmp_path / "echo.pcapng").stat().st_size > 500


def test_the_echo_client_says_in_one_line_that_nobody_is_there() -> None:
    code, out = run("echo_client.py", "--port", "9")
    assert code == 1
    assert len(out.splitlines()) == 1
    assert "127.0.0.1:9" in out


@pytest.mark.parametrize("name", ["echo_server.py", "half_close.py", "slow_drain.py"])
@pytest.mark.parametrize(
    ("capture", "complaint"),
    [("/nowhere/x.pcapng", "No such file or directory"), ("x.pcap", "the name of a trace ends in .pcapng or .jsonl")],
)
def test_a_capture_that_cannot_be_written_is_one_line(name: str, capture: str, complaint: str) -> None:
    code, out = run(name, "--port", "0", "--pcap", capture)
    assert (code, len(out.splitlines())) == (1, 1)
    assert complaint in out and capture in out


def test_only_a_server_captures() -> None:
    code, out = run("half_close.py", "client", "--pcap", "x.pcapng")
    assert code == 2
    assert "--pcap is the server's" in out


def test_half_close_shows_both_sides(tmp_path: Path) -> None:
    capture = tmp_path / "half.pcapng"
    code, out = run("half_close.py", "--upload", "300000", "--pcap", str(capture))
    assert code == 0, out
    assert capture.stat().st_size > 1_300_000
    assert b"state LAST-ACK -> CLOSED" in capture.read_bytes()
    assert "client FIN-WAIT-1: 300,000 bytes written, and half-closed" in out
    assert "server CLOSE-WAIT: the upload is complete, answering" in out
    assert "digest and 1,000,000 bytes received" in out


def test_the_web_site_fetches_from_itself() -> None:
    code, out = run("http_server.py")
    assert code == 0, out
    assert out.startswith("Hello over utcp!\nYou are ('127.0.0.1', ")
    assert "The connection is ESTABLISHED" in out


def test_the_web_site_serves_files(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("a page")
    server = start("http_server.py", "server", "--port", "0", "--directory", str(tmp_path))
    assert server.stdout is not None
    try:
        url = re.findall(r"http://127\.0\.0\.1\.utcp:\d+", server.stdout.readline())[0]
        assert run("http_server.py", "get", f"{url}/files/page.txt") == (0, "a page")
        assert run("http_server.py", "get", f"{url}/none") == (1, "404: Not Found")
        server.send_signal(signal.SIGINT)
        out, _ = server.communicate(timeout=20)
        assert (server.returncode, "Traceback" in out) == (0, False)
    finally:
        server.kill()
        server.communicate()
    code, out = run("http_server.py", "get", url)
    assert (code, len(out.splitlines())) == (1, 1)
    assert "Connection refused" in out


class TestFileTransfer:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "file"
        path.write_bytes(os.urandom(1_000_003))
        return path

    @pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 300_000])
    def test_copy(self, file: Path, tmp_path: Path, size: int) -> None:
        file.write_bytes(os.urandom(size))
        copy = tmp_path / "copy"
        code, out = run("file_transfer.py", "copy", str(file), str(copy))
        assert code == 0, out
        assert copy.read_bytes() == file.read_bytes()
        assert hashlib.sha256(file.read_bytes()).hexdigest() in out
        assert "graceful, closed first here, 0 retransmissions, FIN-WAIT-1 " in out
        assert "graceful, closed first by the peer, 0 retransmissions, CLOSE-WAIT " in out

    def test_two_processes(self, file: Path, tmp_path: Path) -> None:
        copy, capture = tmp_path / "copy", tmp_path / "transfer.pcapng"
        arguments = ("receive", str(copy), "--port", "0", "--pcap", str(capture))
        with running("file_transfer.py", *arguments) as (receiver, port):
            code, out = run("file_transfer.py", "send", str(file), "--port", port)
            assert code == 0, out
            assert end_of(receiver)[0] == 0
        assert copy.read_bytes() == file.read_bytes()
        assert capture.stat().st_size > 1_000_003

    def test_it_overwrites_only_when_told(self, file: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        copy.write_bytes(b"precious")
        for arguments in (("copy", str(file), str(copy)), ("receive", str(copy))):
            code, out = run("file_transfer.py", *arguments)
            assert (code, len(out.splitlines())) == (1, 1), out
            assert "copy exists; --force overwrites it" in out
        assert copy.read_bytes() == b"precious"
        code, out = run("file_transfer.py", "copy", str(file), str(copy), "--force")
        assert code == 0, out
        assert copy.read_bytes() == file.read_bytes()

    @pytest.mark.parametrize("how", ["killed", "no digest"])
    def test_half_a_file_is_no_file(self, tmp_path: Path, how: str) -> None:
        target = tmp_path / "target"
        with running("file_transfer.py", "receive", str(target), "--port", "0") as (receiver, port):
            asyncio.run(self.send_half(int(port), aborts=how == "killed"))
            code, out = end_of(receiver)
        assert code == 1
        assert ("Connection reset" if how == "killed" else "what arrived is not what was sent") in out
        assert list(tmp_path.iterdir()) == []

    async def send_half(self, port: int, aborts: bool) -> None:
        _, writer = await utcp.open_connection("127.0.0.1", port)
        writer.write(bytes(100_000))
        await writer.transport.drained()
        if aborts:
            writer.transport.abort()
        else:
            writer.write_eof()
            await writer.transport.closed()

    def test_interrupted_it_leaves_nothing_and_says_so(self, tmp_path: Path) -> None:
        with running("file_transfer.py", "receive", str(tmp_path / "target"), "--port", "0") as (receiver, _):
            receiver.send_signal(signal.SIGINT)
            code, out = end_of(receiver)
        assert code == 130
        assert "Traceback" not in out
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "code", "complaint"),
        [
            (("send", "/nowhere/file"), 1, "No such file or directory"),
            (("copy", "/nowhere/file", "copy"), 1, "No such file or directory"),
            (("receive", "/nowhere/file", "--pcap", "x.pcap"), 1, "the name of a trace ends in .pcapng or .jsonl"),
            (("copy", "one"), 2, "copy takes two files"),
            (("send", "one", "two"), 2, "send takes one file"),
            (("send", "one", "--pcap", "x.pcapng"), 2, "--pcap is the receiver's"),
        ],
    )
    def test_complaints(self, arguments: tuple[str, ...], code: int, complaint: str) -> None:
        found, out = run("file_transfer.py", *arguments)
        assert found == code
        assert complaint in out and "Traceback" not in out

    def test_nobody_is_there(self, file: Path) -> None:
        code, out = run("file_transfer.py", "send", str(file), "--port", "9")
        assert code == 1
        assert "127.0.0.1" in out and "Traceback" not in out


class TestSlowDrain:
    FAST = ("--size", "500000", "--rate", "500000", "--interval", "0.1")

    def test_in_one_process(self, tmp_path: Path) -> None:
        capture = tmp_path / "drain.pcapng"
        code, out = run("slow_drain.py", *self.FAST, "--pcap", str(capture))
        assert code == 0, out
        assert re.search(r"server  CLOSE-WAIT  Recv-Q +0  Send-Q +[\d,]{6,}  in flight", out), out
        assert re.search(r"client  FIN-WAIT-2  Recv-Q +[1-9][\d,]*  Send-Q +0 ", out), out
        assert "500,000 bytes read; graceful, closed first here, " in out
        assert "graceful, closed first by the peer, " in out
        assert b"state LAST-ACK -> CLOSED" in capture.read_bytes()

    def test_two_processes(self) -> None:
        with running("slow_drain.py", "server", "--port", "0", "--interval", "0.1") as (server, port):
            code, out = run("slow_drain.py", "client", "--port", port, *self.FAST)
            assert code == 0, out
            assert "client  FIN-WAIT-2" in out and "server" not in out
            assert server.stdout is not None
            assert any("graceful" in line for line in server.stdout)  # read up to there
            server.send_signal(signal.SIGINT)
            code, out = end_of(server)
        assert code == 0
        assert "Traceback" not in out

    def test_a_server_that_does_not_deliver(self) -> None:
        """Whoever listens there closes without a byte: the client counts, and fails."""
        with running("echo_server.py", "--port", "0") as (_, port):
            code, out = run("slow_drain.py", "client", "--port", port, *self.FAST)
        assert code == 1
        assert "slow_drain: 8 of 500,000 bytes came, or others: graceful" in out

    def test_numbers_that_make_no_sense(self) -> None:
        code, out = run("slow_drain.py", "--rate", "0")
        assert code == 2
        assert "--rate at least 1" in out


class TestTlsEcho:
    def test_in_one_process(self, tmp_path: Path) -> None:
        capture = tmp_path / "tls.pcapng"
        code, out = run("tls_echo.py", "both", "hello there", "--pcap", str(capture))
        assert code == 0, out
        assert re.search(r"client  TLSv1\.3, TLS_\w+ \(\d+ bits\), ALPN echo", out), out
        assert re.search(r"server  TLSv1\.3, TLS_\w+ \(\d+ bits\), ALPN echo", out), out
        assert "client  FIN-WAIT-1: 11 bytes written, and half-closed" in out
        assert "server  CLOSE-WAIT: the client's close_notify is here" in out
        assert "client  graceful, closed first here, 0 retransmissions" in out
        assert "server  graceful, closed first by the peer, 0 retransmissions" in out
        assert "hello there\n" in out
        assert capture.stat().st_size > 1000 and b"hello there" not in capture.read_bytes()

    def test_without_half_close(self) -> None:
        code, out = run("tls_echo.py", "both", "x" * 20_000, "--tls", "1.2")
        assert code == 0, out
        assert "client  TLSv1.2, " in out
        assert "20,000 bytes\n" in out
        assert "half-closed" not in out

    def test_two_processes(self) -> None:
        server = start("tls_echo.py", "server", "--port", "0")
        assert server.stdout is not None
        with server.stdout:
            port, certificate = re.findall(r"port (\d+); clients take --ca (.*)", server.stdout.readline())[0]
            code, out = run("tls_echo.py", "client", "--port", port, "--ca", certificate)
            assert code == 0, out
            code, out = run("tls_echo.py", "client", "--port", port)
            assert (code, len(out.splitlines())) == (1, 1)
            assert "certificate verify failed" in out
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=20) == 0
            assert "Traceback" not in server.stdout.read()
        assert not Path(certificate).exists()

    def test_another_name(self) -> None:
        code, out = run("tls_echo.py", "--name", "other.example")
        assert code == 1
        assert "Hostname mismatch, certificate is not valid for 'other.example'" in out and "Traceback" not in out

    @pytest.mark.parametrize(
        ("arguments", "code", "complaint"),
        [
            (("server", "--cert", "/nowhere/cert.pem"), 1, "No such file or directory"),
            (("client", "--port", "9"), 1, "Connection refused"),
            (("client", "--pcap", "x.pcapng"), 2, "--pcap is the server's"),
            (("server", "--key", "key.pem"), 2, "--key goes with --cert"),
        ],
    )
    def test_complaints(self, arguments: tuple[str, ...], code: int, complaint: str) -> None:
        found, out = run("tls_echo.py", *arguments)
        assert found == code
        assert complaint in out and "Traceback" not in out
