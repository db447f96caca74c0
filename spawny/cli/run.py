"""`spawny run`: starting a named daemon."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tokenize
from typing import TYPE_CHECKING, Any

from ..errors import DaemonStartError, InvalidRequest, RemoteTraceback
from . import env, reach, show
from .exits import OK

if TYPE_CHECKING:
    from ..client.proxy import ObjectProxy
    from ..definitions import ModuleDefinition, ScriptDefinition
    from ..environments.requirements import Requirements


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="start a daemon from a script or a module",
        description="Start a daemon under a name, or find the one that runs the same already."
        " It stays when this command has ended; scripts use it through spawny.attach(NAME).",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("script", metavar="SCRIPT.py", nargs="?", help="the script to run")
    what.add_argument(
        "-m", dest="module", metavar="MODULE", help="the module to import, as python -m finds it"
    )
    parser.add_argument("--name", required=True, help="the daemon's name")
    parser.add_argument(
        "--python",
        metavar="SPEC",
        help="its interpreter: a path, the directory or name of an environment, a version such as"
        " 3.9, pypy or '>=3.8', or an alias (default: the one that runs this command)",
    )
    parser.add_argument(
        "--with",
        dest="packages",
        metavar="REQ",
        action="append",
        default=[],
        help="a package that it requires, such as numpy or 'numpy<2', on top of what the header of"
        " the script says (# /// script); may be repeated",
    )
    env.add_files_option(parser)
    parser.add_argument(
        "--preload",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module to import before; may be repeated",
    )
    parser.add_argument(
        "--if-exists",
        choices=("attach", "replace", "error"),
        default="attach",
        help="what to do when a daemon of this name runs; attach fails if it runs something else"
        " (default: attach)",
    )
    parser.add_argument(
        "--on-drift",
        choices=("warn", "restart", "error"),
        default="warn",
        help="what to do when what runs is not what would run if it were started now; restart"
        " replaces another script or interpreter, too (default: warn)",
    )
    parser.add_argument(
        "--restart",
        choices=("never", "on-failure", "always"),
        default="never",
        help="when to start it anew after its end (default: never)",
    )
    parser.add_argument(
        "--idle-timeout",
        type=float,
        metavar="S",
        help="end it after S seconds without any client (default: never)",
    )
    parser.add_argument(
        "--start-timeout",
        type=float,
        metavar="S",
        default=60.0,
        help="seconds until it has to be ready (default: 60)",
    )
    parser.add_argument(
        "--max-rss",
        metavar="SIZE",
        help="start it anew between calls when it has more memory than this, such as 2GB",
    )
    parser.add_argument(
        "--max-calls", type=int, metavar="N", help="start it anew after so many requests"
    )
    parser.add_argument(
        "--max-age", type=float, metavar="S", help="start it anew between calls after S seconds"
    )
    parser.add_argument(
        "--call-deadline",
        type=float,
        metavar="S",
        help="interrupt a call that takes more than S seconds; end the daemon if that is ignored",
    )
    parser.add_argument("--cwd", metavar="DIR", help="its directory (default: this one)")
    parser.add_argument(
        "--env",
        type=_assignment,
        action="append",
        default=[],
        metavar="K=V",
        help="an environment variable on top of those that are set here; may be repeated",
    )
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Start it and say what came of it."""
    from ..client.run import daemon

    with show.warnings_as_messages():
        found = daemon(_start(options))
    status = reach.supervisor().status(found.name)
    python = f"{found.python} ({status.version})" if status.version else found.python
    print(f"daemon {found.name!r} is {status.state}, pid {found.pid}, {python}")
    return OK


def _start(options: argparse.Namespace) -> ObjectProxy:
    from ..client.launch import run_definition
    from ..definitions import ModuleDefinition, ScriptDefinition

    chosen: dict[str, Any] = {"cwd": options.cwd} if options.cwd else {}
    logger = logging.getLogger(__name__)  # its progress is not for a terminal
    env.show_progress(logger)
    definition: ScriptDefinition | ModuleDefinition
    if options.module:
        definition = ModuleDefinition(options.module)
        _import_from(options.cwd or os.getcwd())
    else:
        definition = ScriptDefinition(_text(options.script), os.path.abspath(options.script))
        _import_from(os.path.dirname(os.path.abspath(options.script)))
    chosen["requirements"] = _required(options, definition)
    try:
        return run_definition(
            definition,
            options.python,
            logger,
            name=options.name,
            if_exists=options.if_exists,
            on_drift=options.on_drift,
            restart=options.restart,
            idle_timeout=options.idle_timeout,
            start_timeout=options.start_timeout,
            max_rss=options.max_rss,
            max_calls=options.max_calls,
            max_age=options.max_age,
            call_deadline=options.call_deadline,
            env=dict(options.env),
            preload=options.preload,
            **chosen,
        )
    except (Exception, SystemExit) as error:
        if not isinstance(error.__cause__, RemoteTraceback):
            raise
        # The definition's own exception, of whatever class: its traceback says all.
        raise DaemonStartError(
            f"daemon {options.name!r} did not start", remote_traceback=error.__cause__.text
        ) from error


def _required(
    options: argparse.Namespace, definition: ScriptDefinition | ModuleDefinition
) -> Requirements | None:
    """What the header of the script says, and what the options say on top of it."""
    from ..definitions import ScriptDefinition
    from ..environments import script

    header = None
    if isinstance(definition, ScriptDefinition):
        folder = os.path.dirname(os.path.abspath(options.script))
        header = script.header(definition.script, folder)
    return env.sum_of([header, env.required(options.packages, options.with_requirements)])


def _text(path: str) -> str:
    try:
        with tokenize.open(path) as file:  # in the encoding that it declares
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest(f"cannot read {path}: {reason}") from error


def _import_from(directory: str) -> None:
    """Have the daemon find its modules where python itself would look for them first."""
    # sys.path[0] is the folder of this command, or what -m made of it.
    sys.path[0] = os.path.abspath(directory)


def _assignment(text: str) -> tuple[str, str]:
    variable, equals, value = text.partition("=")
    if not variable or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form K=V")
    return variable, value
