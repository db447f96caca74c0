"""`spawny reload` and `spawny config check`: the file that declares daemons and sets figures."""

from __future__ import annotations

import argparse
from typing import Any

from ..paths import locate
from . import reach
from .exits import OK


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    reload = commands.add_parser(
        "reload",
        help="have the supervisor read its configuration again",
        description="Have the supervisor read its configuration again, and show what changes."
        " Figures count at once; of the declared daemons those added with autostart start, those"
        " removed stop, and those changed restart if they run. A file with anything wrong changes"
        " nothing.",
    )
    reload.add_argument(
        "--dry-run", action="store_true", help="only show what would change; change nothing"
    )
    reload.set_defaults(perform=perform_reload)

    parser = commands.add_parser(
        "config",
        help="check the configuration",
        description="What concerns the configuration itself.",
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = actions.add_parser(
        "check",
        help="say what is wrong with the file",
        description="Say everything that is wrong with the configuration, with its line. Needs no"
        " supervisor.",
    )
    check.set_defaults(perform=perform_check)


def perform_reload(options: argparse.Namespace) -> int:
    """Reload, and show what changes."""
    if not reach.is_running():
        print("no supervisor runs; the next one will read its configuration when it starts")
        return OK
    changes = reach.supervisor().reload(options.dry_run)
    for change in changes:
        print(change)
    if not changes:
        print("nothing has changed")
    return OK


def perform_check(options: argparse.Namespace) -> int:
    """Read it as the supervisor does."""
    from .. import config

    path = locate().config_file
    found = config.load(path)
    count = len(found.daemons)
    if path.exists():
        print(f"{path}: good, declares {count} daemon{'' if count == 1 else 's'}")
    else:
        print(f"{path}: there is none, and none is needed")
    return OK
