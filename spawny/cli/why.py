"""`spawny why` and `spawny stacks`: what is the matter with a daemon."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from . import reach, show
from .exits import FAILED, OK

if TYPE_CHECKING:
    from ..control import Ending, Explanation


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    why = commands.add_parser(
        "why",
        help="say why a daemon is in its state, and how it ended",
        description="Say why a daemon is in its state, how its last processes ended and who asked"
        " for it, with the last output of the latest.",
    )
    why.add_argument("name", metavar="NAME")
    why.set_defaults(perform=perform_why)

    stacks = commands.add_parser(
        "stacks",
        help="show what the threads of a daemon do",
        description="Show the stack of each thread of a daemon, which goes on meanwhile. Where it"
        f" cannot answer, what the system knows of its threads is shown, and the exit code is"
        f" {FAILED}.",
    )
    stacks.add_argument("name", metavar="NAME")
    stacks.set_defaults(perform=perform_stacks)


def perform_why(options: argparse.Namespace) -> int:
    """Explain a daemon."""
    # Of one that has ended only the journal may know, so that the supervisor is started.
    print(explanation(reach.supervisor().why(options.name), time.time()))
    return OK


def perform_stacks(options: argparse.Namespace) -> int:
    """Show stacks."""
    found = reach.supervisor_of(options.name).stacks(options.name)
    if found.text:
        print(found.text.rstrip("\n"))
    if found.problem:
        print(f"spawny: {found.problem}", file=sys.stderr)
    return FAILED if found.problem else OK


def explanation(found: Explanation, now: float) -> str:
    """It, in lines; `now` is the time of day."""
    lines = [f"daemon {found.name!r} is {found.state}: {found.why}"]
    for number, each in enumerate(found.endings):
        lines.append(_ending(each, now, "it last ended" if number == 0 else "before that"))
    if found.output:
        lines += ["its last output then:", textwrap.indent(found.output.rstrip("\n"), "    ")]
    if found.log:
        lines.append(f"its whole log: {found.log}")
    return "\n".join(lines)


def _ending(ending: Ending, now: float, when: str) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now - ending.seconds_ago))
    process = f", pid {ending.pid}" if ending.pid is not None else ""
    asked = f"; asked by {ending.asked_by}" if ending.asked_by else ""
    return (
        f"{when} {show.duration(ending.seconds_ago)} ago, at {at}, after"
        f" {show.duration(ending.uptime_seconds)}{process}: {ending.how}{asked}"
    )
