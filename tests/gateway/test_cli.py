"""``utcp gateway``: its arguments, its errors, its summary."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import utcp
from interop.namespace import ip, private_namespace, require_tun
from utcp.cli import gateway as cli
from utcp.gateway import tun

_MAIN = """
import argparse, sys
from utcp.cli import gateway
parser = argparse.ArgumentParser(prog="utcp")
gateway.add_parser(parser.add_subparsers(required=True))
args = parser.parse_args()
sys.exit(args.run(args))
"""
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(utcp.__path__[0]).parent)}


def command(*args: str) -> list[str]:
    return [sys.executable, "-c", _MAIN, "gateway", *args]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), env=_ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False)


def parse(*args: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    return parser.parse_args(["gateway", *args])


def require_root() -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("SKIPPED: only root has capabilities to drop")


@pytest.fixture(scope="module")
def namespace() -> Iterator[None]:
    require_tun()
    with private_namespace():
        yield


# Arguments


def test_defaults() -> None:
    args = parse()
    assert (args.utcp, args.kernel, args.device, args.mtu) == ([], None, "utcp0", 1500)
    assert str(cli._default_kernel()[0]) == "10.99.0.1/16=127.0.0.1:9100"


def test_addresses_and_impairments() -> None:
    args = parse("--utcp", "127.0.0.1:1", "--utcp", "[::1]:2", "--kernel", "10.1.0.1/24=[::1]:3", "--loss", "0.1,0.2")
    assert [str(e) for e in args.utcp] == ["127.0.0.1:1", "[::1]:2"]
    assert [str(k) for k in args.kernel] == ["10.1.0.1/24=[::1]:3"]
    assert args.loss == (0.1, 0.2)
    assert parse("--delay", "0.5").delay == (0.5, 0.5)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--utcp", "localhost"], "'localhost' is not HOST:PORT"),
        (["--utcp", "127.0.0.1:65536"], "'127.0.0.1:65536' is not HOST:PORT"),
        (["--utcp", "0.0.0.0:9000"], "stands for any address"),
        (["--kernel", "10.99.0.1/16"], "'' is not HOST:PORT"),
        (["--kernel", "10.99.0/16=127.0.0.1:1"], "does not appear to be an IPv4 or IPv6 interface"),
        (["--kernel", "10.99.0.1/31=127.0.0.1:1"], "10.99.0.0/31 has no room for utcp hosts"),
        (["--mtu", "1279"], "'1279' is not in [1280, 65535] (bytes)"),
        (["--mtu", "x"], "'x' is not in [1280, 65535] (bytes)"),
        (["--loss", "a,b"], "'a,b' is not a number, or two joined by a comma"),
    ],
)
def test_bad_arguments(args: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*args)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_a_bad_probability_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    args = parse("--loss", "0,2")
    assert args.run(args) == 2
    assert capsys.readouterr().err == "utcp gateway: loss: 2.0 is not in [0, 1]\n"


# What the system does not allow


def test_no_permission_for_the_device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    args = parse()
    assert args.run(args) == 1
    assert capsys.readouterr().err == "utcp gateway: no permission to open /dev/net/tun: become root\n"


def test_no_devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tun, "_TUN_PATH", "/nowhere/tun")
    args = parse()
    assert args.run(args) == 1
    error = "utcp gateway: /nowhere/tun: No such file or directory: this system has no TUN devices\n"
    assert capsys.readouterr().err == error


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "a b", "a/b"])
def test_bad_device_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = parse("--device", name)
    assert args.run(args) == 1
    assert "is no name for a network device" in capsys.readouterr().err


@pytest.mark.usefixtures("namespace")
def test_a_device_name_that_is_taken() -> None:
    for name in ("lo", "mine"):
        if name == "mine":
            ip("tuntap add mine mode tun")
        result = run("--device", name)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"utcp gateway: a network device {name} exists already: choose another --device\n"
    ip("tuntap del mine mode tun")


@pytest.mark.usefixtures("namespace")
def test_nothing_is_left_of_a_device_when_the_rest_fails() -> None:
    result = run("--device", "half", "--kernel", "10.99.0.1/16=192.0.2.1:9100")
    assert result.returncode == 1
    assert result.stderr == "utcp gateway: cannot bind UDP 192.0.2.1:9100: Cannot assign requested address\n"
    result = run("--device", "half", *["--kernel", "10.99.0.1/16=127.0.0.1:9100"] * 2)
    assert (result.returncode, result.stderr) == (1, "utcp gateway: cannot give 10.99.0.1/16 to half: File exists\n")
    assert "half" not in subprocess.check_output(["ip", "-br", "link"], text=True)


def run_without(capability: str, *program: str) -> subprocess.CompletedProcess[str]:
    limits = [f"--bounding-set=-{capability}", f"--inh-caps=-{capability}"]
    return subprocess.run(
        ["setpriv", *limits, *program], env=_ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.usefixtures("namespace")
def test_without_the_capability_for_devices() -> None:
    result = run_without("net_admin", *command())
    text = "a TUN device needs CAP_NET_ADMIN: become root, or use a namespace of your own (unshare -rn)"
    assert (result.returncode, result.stderr) == (1, f"utcp gateway: {text}\n")


def test_without_namespaces_the_tests_say_so_and_the_network_stays_as_it_is() -> None:
    """What takes the interop suite to a namespace of its own skips loudly, and changes nothing."""
    require_root()
    script = "from interop.namespace import private_namespace\nwith private_namespace(): print('moved')"
    result = run_without("sys_admin", sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{script}")
    assert "Skipped: a private network namespace is not allowed here: Operation not permitted" in result.stderr
    assert (result.returncode, result.stdout) == (1, "")


# A run


@pytest.mark.usefixtures("namespace")
def test_a_command_runs_behind_the_gateway_and_ends_it() -> None:
    script = "import socket, sys; s = socket.socket(); sys.exit(40 + s.connect_ex(('10.99.0.2', 7)))"
    result = run("--utcp", "127.0.0.1:9000", "--json", "--", sys.executable, "-c", script)
    assert result.returncode == 40 + errno.ECONNREFUSED
    summary = json.loads(result.stdout)
    assert summary["hosts"] == {"127.0.0.1:9000": ["10.99.0.2", "fd99::2"]}
    assert summary["icmp"] == {"to-kernel port unreachable": 1}
    assert summary["segments_to_utcp"] == 1
    assert "utcp0: utcp at UDP 127.0.0.1:9000 is 10.99.0.2 and fd99::2 to the kernel\n" in result.stderr


@pytest.mark.usefixtures("namespace")
def test_a_command_that_does_not_exist() -> None:
    result = run("--", "/nowhere/command")
    assert result.returncode == 1
    assert result.stderr.endswith("utcp gateway: cannot run /nowhere/command: No such file or directory\n")


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_summary(number: signal.Signals, tmp_path: Path) -> None:
    pcap = tmp_path / "gateway.pcapng"
    process = subprocess.Popen(command("--pcap", str(pcap)), env=_ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        while "ready" not in process.stderr.readline():
            pass
        started = time.monotonic()
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 0
    assert rest.startswith("to utcp    0 segments, 0 bytes\nto kernel  0 segments, 0 bytes\n")
    assert time.monotonic() - started < 5
    assert pcap.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"


@pytest.mark.usefixtures("namespace")
def test_a_device_that_is_deleted_under_it_ends_it_and_the_command() -> None:
    result = run("--device", "mine", "--", "sh", "-c", "ip link del mine; exec sleep 60")
    assert result.returncode == 1
    assert result.stderr.endswith("ready\nutcp gateway: somebody has deleted the TUN device mine\n")


@pytest.mark.usefixtures("namespace")
def test_a_capture_that_cannot_be_written() -> None:
    result = run("--pcap", "/nowhere/file.pcapng")
    assert (result.returncode, result.stderr) == (1, "utcp gateway: /nowhere/file.pcapng: No such file or directory\n")


@pytest.mark.usefixtures("namespace")
def test_a_disk_that_is_full_ends_the_capture_only() -> None:
    script = "import socket; [socket.socket().connect_ex(('10.99.0.2', 7)) for _ in range(200)]"
    result = run("--pcap", "/dev/full", "--utcp", "127.0.0.1:9000", "--", sys.executable, "-c", script)
    assert result.returncode == 1, "the capture that was asked for is not complete"
    assert result.stderr.count("No space left on device") == 1
    assert "to utcp    200 segments" in result.stderr
