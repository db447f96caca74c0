"""The command line as a whole: its commands, its errors, its exit codes.

A command's module says what it takes and what it does, and imports what it does it with only then:
help and usage errors load no zmq.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import DaemonNotFound, InvalidRequest, SupervisorUnavailable
from . import (
    config,
    env,
    events,
    lifecycle,
    logs,
    metrics,
    ps,
    python,
    pythons,
    run,
    status,
    supervisor,
    version,
    why,
)
from .exits import FAILED, INTERRUPTED, NO_DAEMON, NO_SUPERVISOR, OK, USAGE

_EPILOG = f"""\
exit codes:
  {OK:<4} it is done
  {FAILED:<4} it failed
  {USAGE:<4} the command line makes no sense
  {NO_DAEMON:<4} there is no such daemon
  {NO_SUPERVISOR:<4} the supervisor cannot be reached or started
  {INTERRUPTED:<4} interrupted with Ctrl-C

environment:
  SPAWNY_HOME   keep everything under this directory
  SPAWNY_DEBUG  show the traceback of an error
  NO_COLOR      no colours
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    _prepare_output()
    options = parser().parse_args(arguments)
    try:
        code: int = options.perform(options)
        sys.stdout.flush()  # or a closed pipe would be noticed where nobody can catch it
        return code
    except BrokenPipeError:
        # `spawny ps | head` is no error. The interpreter flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("SPAWNY_DEBUG"):
            raise
        return report(error)


def _prepare_output() -> None:
    """Have something to print to, which takes every text."""
    if sys.stdout is None:  # it was closed, as by >&-
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for as long as the process lives)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's encoding lacks is shown escaped: logs have any text.
        sys.stdout.reconfigure(errors="backslashreplace")


def report(error: Exception) -> int:
    """Say what went wrong on stderr; the exit code for it."""
    print(f"spawny: {str(error) or type(error).__name__}", file=sys.stderr)
    match error:
        case DaemonNotFound():
            return NO_DAEMON
        case SupervisorUnavailable():
            return NO_SUPERVISOR
        case InvalidRequest():
            return USAGE
    return FAILED


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    found = argparse.ArgumentParser(
        prog="spawny",
        description="Python objects in daemons of their own: see them, start them, end them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--version", action="version", version=f"spawny {__version__}")
    commands = found.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        ps,
        status,
        why,
        run,
        python,
        lifecycle,
        logs,
        events,
        metrics,
        pythons,
        env,
        config,
        supervisor,
        version,
    ):
        module.register(commands)
    return found
