"""`spawny logs`: what a daemon has written."""

from __future__ import annotations

import argparse
from typing import Any

from .exits import OK

# With -f, as tail has it.
FOLLOWED_LINES = 10


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "logs",
        help="show what a daemon has written",
        description="Show the log of a daemon that runs or ran: what it prints, what its C code"
        " writes to stdout and stderr, and what became of it.",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with what it writes, until Ctrl-C"
    )
    parser.add_argument(
        "-n",
        "--lines",
        type=_count,
        metavar="N",
        help=f"the last N lines alone (default: all; with -f {FOLLOWED_LINES})",
    )
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Show a log."""
    from ..client.supervisor import Supervisor
    from ..paths import locate

    lines = options.lines
    if lines is None and options.follow:
        lines = FOLLOWED_LINES
    # Not connected: a log needs no supervisor.
    supervisor = Supervisor(locate(), start=False)
    for line in supervisor.logs(options.name, follow=options.follow, lines=lines):
        print(line, flush=options.follow)
    return OK


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)
