"""`spawny events`: what happens to daemons, as it happens."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import SupervisorUnavailable
from ..paths import check_name
from . import reach
from .exits import OK

if TYPE_CHECKING:
    from ..control import Event


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "events",
        help="show what happens to daemons",
        description="Show what happens to daemons from now on, a line each, until Ctrl-C or the"
        " end of the supervisor.",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="of these only (default: of all)")
    parser.add_argument("--json", action="store_true", help="for programs: an object per line")
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Show events, to the end."""
    names = {check_name(name) for name in options.names}
    events = reach.supervisor().events()
    try:
        for event in events:
            # What concerns the supervisor concerns every daemon.
            if not names or not event.name or event.name in names:
                print(json.dumps(asdict(event)) if options.json else line(event), flush=True)
    except SupervisorUnavailable as end:  # of all that there was to show
        print(f"spawny: {end}", file=sys.stderr)
    return OK


def line(event: Event) -> str:
    """An event for people."""
    at = time.strftime("%H:%M:%S", time.localtime(event.time))
    pid = f" (pid {event.pid})" if event.pid else ""
    detail = f": {event.detail}" if event.detail else ""
    return f"{at}  {event.name or 'the supervisor'}{pid} {event.kind}{detail}"
