"""`spawny reload` and `spawny config check`: the file that declares daemons and sets figures."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from ..paths import locate
from . import env, reach
from .exits import OK

if TYPE_CHECKING:
    from ..config import Config, DeclaredDaemon
    from ..environments.requirements import Requirements


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    reload = commands.add_parser(
        "reload",
        help="have the supervisor read its configuration again",
        description="Have the supervisor read its configuration again, and show what changes."
        " The environments of declared daemons are built first, where there are none yet."
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
    """Build what is required, reload, and show what changes."""
    if not options.dry_run:
        _build()
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
    for _ in _required(found, path):
        pass
    count = len(found.daemons)
    if path.exists():
        print(f"{path}: good, declares {count} daemon{'' if count == 1 else 's'}")
    else:
        print(f"{path}: there is none, and none is needed")
    return OK


def _build() -> None:
    """Build the environments of the declared daemons, or find them."""
    from .. import config
    from ..client.environment import interpreter_with
    from ..environments import declared

    path = locate().config_file
    found = config.load(path)
    logger = logging.getLogger(__name__)
    env.show_progress(logger)
    folder = str(path.parent)
    for daemon, wanted in _required(found, path):
        python = daemon.python or reach.supervisor_python()
        if declared.environment(daemon, wanted, folder, python) is None:
            environ = declared.variables(daemon)
            with interpreter_with(wanted, python, environ, logger, folder):
                pass


def _required(found: Config, path: Path) -> Iterator[tuple[DeclaredDaemon, Requirements]]:
    """The declared daemons that require packages; raises `InvalidRequest`, which names the one."""
    for name, daemon in found.daemons.items():
        if daemon.requirements:
            from ..environments import declared

            try:
                wanted = declared.required(daemon, str(path.parent))
            except InvalidRequest as error:
                raise InvalidRequest(f"{path}: [daemons.{name}] {error}") from error
            if wanted is not None:
                yield daemon, wanted
