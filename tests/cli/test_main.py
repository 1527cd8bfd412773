"""The ``utcp`` command itself."""

from __future__ import annotations

import platform
import re

import pytest

import utcp
from utcp.cli.main import main


def test_version_says_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    build = "compiled" if utcp.__compiled__ else "interpreted"
    pattern = rf"utcp \d+\.\d+\.\d+\S* \({build}\), \w+ {re.escape(platform.python_version())}\n"
    assert re.fullmatch(pattern, capsys.readouterr().out)


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "demo" in out
    assert "gateway" in out


@pytest.mark.parametrize("argv", [[], ["nonsense"]])
def test_what_is_no_command_is_an_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(argv)
    assert exit_info.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


BAD = [
    (["--msl", "-1"], "argument --msl: msl: -1.0 is not in [0.0, 86400.0]"),
    (["--msl", "nan"], "argument --msl: msl: nan is not in"),
    (["--msl", "soon"], "argument --msl: invalid seconds value: 'soon'"),
    (["--loss", "1"], "argument --loss: 1 is not in [0, 0.9]"),
    (["--loss", "-0.1"], "argument --loss: -0.1 is not in [0, 0.9]"),
    (["--loss", "nan"], "argument --loss: nan is not in [0, 0.9]"),
    (["--drain", "-1"], "argument --drain: -1 is not in"),
    (["--drain", "x"], "argument --drain: invalid byte_count value: 'x'"),
    (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
    (["--close", "nobody"], "argument --close: invalid choice: 'nobody'"),
    (["--loop", "trio"], "argument --loop: invalid choice: 'trio'"),
    (["--pcap", "/nowhere/x.pcapng"], "argument --pcap: /nowhere/x.pcapng: No such file or directory"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_a_bad_value_is_named_and_nothing_runs(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["demo", *options])
    assert exit_info.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
