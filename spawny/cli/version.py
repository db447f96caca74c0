"""`spawny version`: who is who."""

from __future__ import annotations

import argparse
import platform
import sys
from typing import Any

from .. import __version__
from . import reach
from .exits import OK


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "version",
        help="show the versions of the client and the supervisor",
        description="Show the versions of the client and, where one runs, of the supervisor.",
    )
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Show the versions."""
    print(f"spawny      {__version__}, {sys.executable} ({platform.python_version()})")
    if not reach.is_running():
        print("supervisor  none runs")
        return OK
    found = reach.supervisor().version()
    kind = ", a service" if found.service else ""
    print(f"supervisor  {found.version}, {found.python}, pid {found.pid}{kind}")
    if found.version != __version__:
        print(
            "The supervisor is of another version: spawny supervisor upgrade replaces it by this"
            " one, with its daemons running on."
        )
    return OK
