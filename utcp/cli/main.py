"""The ``utcp`` command: its subcommands are the modules beside this one."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence

from utcp.cli import demo, gateway

COMMANDS = (demo, gateway)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for a failure, 2 for a wrong option, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="utcp", description="A genuine TCP (RFC 9293) in a Python process, inside UDP datagrams."
    )
    parser.add_argument("--version", action="version", version=version())
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    return code


def version() -> str:
    """Which utcp this is, whether its engine is compiled, and the Python it runs on."""
    import utcp

    build = "compiled" if utcp.__compiled__ else "interpreted"
    return f"utcp {utcp.__version__} ({build}), {platform.python_implementation()} {platform.python_version()}"
