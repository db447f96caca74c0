"""`spawny ps`: what runs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import reach, show
from .exits import OK

if TYPE_CHECKING:
    from ..control import DaemonStatus

STATE_COLOURS = {
    "ready": "green",
    "busy": "cyan",
    "starting": "yellow",
    "loading": "yellow",
    "waiting": "yellow",
    "stopping": "yellow",
    "unlinked": "yellow",
    "failed": "red",
    "stopped": "red",
    "zombie": "red",
    "uninterruptible": "red",
    "unresponsive": "red",
}

# What it runs is not what it would run if it were started now; `spawny status` says more.
_DRIFTED = ", drifted"

_HEAD = (
    "NAME",
    "STATE",
    "PID",
    "PYTHON",
    "UPTIME",
    "MEMORY",
    "CPU",
    "CLIENTS",
    "CALLS",
    "WHAT",
)
_NUMBERS = frozenset(_HEAD) - {"NAME", "STATE", "PYTHON", "WHAT"}


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser("ps", help="list the daemons that run", description=_DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="for programs: a list of objects")
    parser.set_defaults(perform=perform)


_DESCRIPTION = (
    "List the daemons that run, with what they are doing. Programs take --json, whose sizes are in"
    " bytes and times in seconds."
)


def perform(options: argparse.Namespace) -> int:
    """List the daemons."""
    supervisor = reach.supervisor_if_needed()
    daemons = supervisor.list() if supervisor else []
    if options.json:
        print(json.dumps([asdict(each) for each in daemons], indent=2))
    elif daemons:
        print(listing(daemons, show.terminal_width()))
    else:
        print("no daemons run; start one with spawny run, or run_script(..., name=...)")
    return OK


def listing(daemons: list[DaemonStatus], width: int | None = None) -> str:
    """The daemons as a table."""

    def colour_of(title: str, cell: str) -> str:
        if title != "STATE":
            return ""
        return "yellow" if cell.endswith(_DRIFTED) else STATE_COLOURS.get(cell, "")

    rows = [_row(each) for each in daemons]
    return show.table(_HEAD, rows, numbers=_NUMBERS, colour_of=colour_of, width=width)


def _row(daemon: DaemonStatus) -> list[str]:
    is_there = daemon.pid is not None
    return [
        daemon.name,
        daemon.state + (_DRIFTED if daemon.drift else ""),
        str(daemon.pid) if is_there else "-",
        daemon.version.removeprefix("cpython ") or daemon.python,
        show.duration(daemon.uptime_seconds) if is_there else "-",
        show.size(daemon.rss_bytes) if is_there else "-",
        f"{daemon.cpu_percent:.0f} %" if is_there else "-",
        str(daemon.clients),
        str(daemon.calls),
        _what(daemon),
    ]


def _what(daemon: DaemonStatus) -> str:
    """What it is doing or, where it is not well, why."""
    if daemon.busy_call:
        since = f" for {show.duration(daemon.busy_seconds)}" if daemon.busy_seconds else ""
        caller = f", called by {daemon.busy_client_pid}" if daemon.busy_client_pid else ""
        return f"{daemon.busy_call}{since}{caller}"
    if daemon.reason and daemon.state not in ("ready", "busy"):
        return daemon.reason
    if daemon.restarts:
        times = "once" if daemon.restarts == 1 else f"{daemon.restarts} times"
        return f"{daemon.summary}, restarted {times}"
    return daemon.summary
