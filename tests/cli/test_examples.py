"""The examples run as they are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("name", ["echo_server.py", "half_close.py"])
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
    with server.stdout:
        url = re.findall(r"http://127\.0\.0\.1\.utcp:\d+", server.stdout.readline())[0]
        assert run("http_server.py", "get", f"{url}/files/page.txt") == (0, "a page")
        assert run("http_server.py", "get", f"{url}/none") == (1, "404: Not Found")
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0
        assert "Traceback" not in server.stdout.read()
    code, out = run("http_server.py", "get", url)
    assert (code, len(out.splitlines())) == (1, 1)
    assert "Connection refused" in out
