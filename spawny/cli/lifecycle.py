"""`spawny stop`, `restart`, `interrupt` and `shutdown`: what is done to daemons that run."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import SpawnyError
from . import reach
from .exits import FAILED, OK


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    stop = commands.add_parser(
        "stop",
        help="end daemons",
        description="End daemons: each is asked, then sent SIGTERM, then SIGKILL.",
    )
    which = stop.add_mutually_exclusive_group(required=True)
    # An empty default: argparse would take None for a name that was given.
    which.add_argument("names", metavar="NAME", nargs="*", default=[], help="those to end")
    which.add_argument("--all", action="store_true", help="end every daemon, not the supervisor")
    stop.set_defaults(perform=perform_stop)

    restart = commands.add_parser(
        "restart",
        help="end a daemon and start it anew",
        description="End a daemon if it runs, and start it anew from its own definition, under its"
        " own interpreter and in its own environment. Proxies of objects of the old one become"
        " stale.",
    )
    restart.add_argument("name", metavar="NAME")
    restart.set_defaults(perform=perform_restart)

    interrupt = commands.add_parser(
        "interrupt",
        help="interrupt the call that a daemon runs",
        description="Raise KeyboardInterrupt in the call that a daemon runs, as Ctrl-C in its"
        f" client would; the daemon serves on. Exit code {FAILED} when it runs none.",
    )
    interrupt.add_argument("name", metavar="NAME")
    interrupt.set_defaults(perform=perform_interrupt)

    shutdown = commands.add_parser(
        "shutdown",
        help="end every daemon, then the supervisor",
        description="End every daemon, then the supervisor itself.",
    )
    shutdown.set_defaults(perform=perform_shutdown)


def perform_stop(options: argparse.Namespace) -> int:
    """End the named daemons, each though another one failed; the code of the first failure."""
    from .command import report

    names = options.names
    if options.all:
        supervisor = reach.supervisor_if_needed()
        names = [each.name for each in supervisor.list()] if supervisor else []
        if not names:
            print("no daemons run")
    code = OK
    for name in names:
        try:
            print(reach.supervisor_of(name).stop(name), flush=True)
        except SpawnyError as error:
            code = code or report(error)
    return code


def perform_restart(options: argparse.Namespace) -> int:
    """Start a daemon anew."""
    # Its definition may be known to the journal alone, so that the supervisor is started.
    started = reach.supervisor().restart(options.name)
    print(f"daemon {started.name!r} restarted, pid {started.pid}")
    return OK


def perform_interrupt(options: argparse.Namespace) -> int:
    """Interrupt a call."""
    if reach.supervisor_of(options.name).interrupt(options.name):
        print(f"the call that daemon {options.name!r} ran was interrupted")
        return OK
    print(f"daemon {options.name!r} runs no call")
    return FAILED


def perform_shutdown(options: argparse.Namespace) -> int:
    """End everything, telling of each step."""
    supervisor = reach.supervisor_if_needed()
    if supervisor is None:
        print("no supervisor runs")
        return OK
    supervisor.shutdown(lambda step: print(step, flush=True))
    print("the supervisor has ended")
    return OK
