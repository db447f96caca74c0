"""`spawny supervisor upgrade`: what is done to the supervisor itself, apart from ending it."""

from __future__ import annotations

import argparse
from typing import Any

from . import reach
from .exits import OK


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "supervisor",
        help="upgrade the supervisor",
        description="What is done to the supervisor itself.",
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    upgrade = actions.add_parser(
        "upgrade",
        help="replace it by the one of this version and interpreter",
        description="Have the supervisor that runs become the one of the spawny that this command"
        " belongs to, under the same interpreter, in place: its process id stays, daemons and their"
        " calls go on, clients wait for a moment. The new version is tried first; where that fails"
        " the old one serves on.",
    )
    upgrade.set_defaults(perform=perform_upgrade)


def perform_upgrade(options: argparse.Namespace) -> int:
    """Upgrade it and say to what."""
    if not reach.is_running():
        print("no supervisor runs; the next one will be of this version")
        return OK
    after = reach.supervisor().upgrade()
    print(f"the supervisor is spawny {after.version}, {after.python}, pid {after.pid}")
    return OK
