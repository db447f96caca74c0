"""`spawny status`: all about one daemon, or about the supervisor."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import reach, show
from .exits import OK
from .ps import STATE_COLOURS

if TYPE_CHECKING:
    from ..client.supervisor import Supervisor
    from ..control import DaemonStatus, ZygoteStatus

_HEAD = ("STATE", "PID", "AGE", "IDLE", "FORKS", "DAEMONS", "MEMORY", "PYTHON", "PRELOAD", "REASON")
_NUMBERS = frozenset({"PID", "AGE", "IDLE", "FORKS", "DAEMONS", "MEMORY"})


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "status",
        help="show all about one daemon, or about the supervisor",
        description="Show all about one daemon that runs or ran; without a name, about the"
        " supervisor and its zygotes: the interpreters that it keeps warm to fork daemons from.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.add_argument("--json", action="store_true", help="for programs: an object")
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Show it."""
    if options.name is None:
        return _show_supervisor(options.json)
    found = reach.supervisor_of(options.name).status(options.name)
    if options.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print("\n".join(f"{title:<9} {text}" for title, text in rows(found) if text))
    return OK


def _show_supervisor(is_json: bool) -> int:
    if not reach.is_running():
        print(json.dumps(None) if is_json else "no supervisor runs; it starts when it is needed")
        return OK
    supervisor = reach.supervisor()
    about, zygotes = supervisor.version(), _zygotes(supervisor)
    if is_json:
        print(
            json.dumps({**asdict(about), "zygotes": [asdict(each) for each in zygotes]}, indent=2)
        )
        return OK
    kind = "a service" if about.service else "started when it was needed"
    print(f"spawny {about.version}, pid {about.pid}, {kind}")
    print(f"python  {about.python}")
    print(zygote_table(zygotes, show.terminal_width()) if zygotes else "no zygotes")
    return OK


def _zygotes(supervisor: Supervisor) -> list[ZygoteStatus]:
    from ..errors import VersionMismatch

    try:
        return supervisor.zygotes()
    except VersionMismatch:  # an older one has none
        return []


def zygote_table(zygotes: list[ZygoteStatus], width: int | None = None) -> str:
    """The zygotes, and what cannot be forked."""

    def row(each: ZygoteStatus) -> list[str]:
        if each.pid is None:
            figures = ["-"] * 6
        else:
            ages = show.duration(each.age_seconds), show.duration(each.idle_seconds)
            counts = str(each.forks), str(each.daemons)
            figures = [str(each.pid), *ages, *counts, show.size(each.rss_bytes)]
        return [each.state, *figures, each.python, " ".join(each.preload) or "-", each.reason]

    return show.table(_HEAD, [row(each) for each in zygotes], numbers=_NUMBERS, width=width)


def rows(daemon: DaemonStatus) -> list[tuple[str, str]]:
    """What is to be said of it, under which title; empty where there is nothing to say."""
    is_there = daemon.pid is not None
    state = show.paint(daemon.state, STATE_COLOURS.get(daemon.state, "dim"))
    since = f", pid {daemon.pid}, for {show.duration(daemon.uptime_seconds)}" if is_there else ""
    load = f"{show.size(daemon.rss_bytes)}, {daemon.cpu_percent:.0f} % of a core"
    version = f" ({daemon.version})" if daemon.version else ""
    return [
        ("name", daemon.name),
        ("state", state + since),
        ("reason", daemon.reason),
        ("ended", _end(daemon)),
        ("what", daemon.summary),
        ("drift", "; ".join(daemon.drift)),
        ("busy", _busy(daemon)),
        ("python", daemon.python + version),
        ("memory", load if is_there else ""),
        ("clients", str(daemon.clients) if is_there else ""),
        ("calls", _calls(daemon)),
        ("restarts", f"{daemon.restarts} (restart: {daemon.restart})"),
        ("log", daemon.log),
    ]


def _end(daemon: DaemonStatus) -> str:
    if daemon.signal_name is not None:
        return f"killed by {daemon.signal_name}"
    return "" if daemon.exit_code is None else f"exit code {daemon.exit_code}"


def _busy(daemon: DaemonStatus) -> str:
    if not daemon.busy_call:
        return ""
    caller = f", called by {daemon.busy_client_pid}" if daemon.busy_client_pid else ""
    return f"{daemon.busy_call} for {show.duration(daemon.busy_seconds or 0.0)}{caller}"


def _calls(daemon: DaemonStatus) -> str:
    text = f"{daemon.calls}, of which {daemon.calls_failed} raised"
    if daemon.call_p50_seconds is None:
        return text
    shares = (
        f"{share} % within {_brief(seconds or 0.0)}"
        for share, seconds in (
            (50, daemon.call_p50_seconds),
            (90, daemon.call_p90_seconds),
            (99, daemon.call_p99_seconds),
        )
    )
    return f"{text}; {', '.join(shares)}"


def _brief(seconds: float) -> str:
    """With the two digits that are known."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.2g} us" if seconds < 99.5e-6 else f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.2g} ms" if seconds < 99.5e-3 else f"{seconds * 1e3:.0f} ms"
    return show.duration(seconds)
