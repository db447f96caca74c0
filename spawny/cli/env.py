"""`spawny env`: the environments that were made for what daemons require."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import InterpreterNotFound, InvalidRequest
from ..paths import locate
from . import reach, show
from .exits import OK

if TYPE_CHECKING:
    from ..environments.requirements import Requirements
    from ..environments.store import Built, Environment, Store

# What is pruned without a word about it: nobody has started a daemon in it for so long.
DEFAULT_AGE = "30d"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

_HEAD = ("NAME", "PYTHON", "SIZE", "USED", "DAEMONS", "REQUIREMENTS")


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    parser = commands.add_parser(
        "env",
        help="list, build and remove the environments of daemons",
        description="Environments are made when a daemon is started that requires packages, and"
        " kept for the next one that requires the same.",
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = actions.add_parser("ls", help="list them", description="List the environments.")
    listing.add_argument("--json", action="store_true", help="for programs: a list of objects")
    listing.set_defaults(perform=perform_ls)
    _register_prune(actions)
    _register_build(actions)


def _register_prune(actions: argparse._SubParsersAction[Any]) -> None:
    prune = actions.add_parser(
        "prune",
        help="remove those that are not used",
        description="Remove environments, and say what that frees. One that a daemon runs in is"
        " kept, whatever is asked for.",
    )
    prune.add_argument("names", metavar="NAME", nargs="*", help="remove these, or what begins so")
    prune.add_argument(
        "--older-than",
        type=_age_seconds,
        metavar="AGE",
        help="remove those that no daemon was started in for so long, such as 12h, 30d or 8w"
        f" (default: {DEFAULT_AGE})",
    )
    prune.add_argument("--all", action="store_true", help="remove all of them")
    prune.add_argument(
        "--dry-run", action="store_true", help="only show what would be removed; remove nothing"
    )
    prune.set_defaults(perform=perform_prune)


def _register_build(actions: argparse._SubParsersAction[Any]) -> None:
    build = actions.add_parser(
        "build",
        help="build one now",
        description="Build an environment, or find the one that is there, and print its directory:"
        " it is what run_*(requirements=...) of the same will use.",
    )
    build.add_argument(
        "requirements", metavar="REQ", nargs="*", help="a requirement such as numpy or 'numpy<2'"
    )
    add_files_option(build)
    build.add_argument(
        "--python",
        metavar="SPEC",
        help="the interpreter to make it with (default: the one that runs this command)",
    )
    build.set_defaults(perform=perform_build)


def add_files_option(parser: argparse.ArgumentParser) -> None:
    """The option for requirements in files; `spawny run` has it, too."""
    parser.add_argument(
        "--with-requirements",
        metavar="FILE",
        action="append",
        default=[],
        help="a requirements file, or a pyproject.toml: pyproject.toml[EXTRA] with an extra,"
        " pyproject.toml:GROUP for a dependency group; may be repeated",
    )


def required(lines: list[str], files: list[str]) -> Requirements | None:
    """What these lines and files require together; None for nothing."""
    from ..environments.requirements import read

    found = [read(lines, os.getcwd()), *(read(each, os.getcwd()) for each in files)]
    return sum_of(found)


def sum_of(found: list[Requirements | None]) -> Requirements | None:
    """What all of these require together."""
    whole = None
    for each in found:
        whole = each if whole is None else whole if each is None else whole + each
    return whole


def show_progress(logger: logging.Logger) -> None:
    """Have what is built shown on stderr; not the rest of what this logger says."""
    progress = logger.getChild("environments")
    progress.setLevel(logging.INFO)
    progress.handlers[:] = [logging.StreamHandler(sys.stderr)]
    progress.propagate = False


def perform_ls(options: argparse.Namespace) -> int:
    """List them, those used last first."""
    daemons = _daemons_by_environment()
    found = sorted(_whole(_store()), key=lambda each: each[0].used_at(), reverse=True)
    if options.json:
        print(json.dumps([_object(*each, daemons) for each in found], indent=2))
    elif found:
        rows = [_row(*each, daemons) for each in found]
        print(show.table(_HEAD, rows, numbers={"SIZE"}, width=show.terminal_width()))
    else:
        print("there are no environments; run_script(..., requirements=[...]) makes one")
    return OK


def perform_prune(options: argparse.Namespace) -> int:
    """Remove what is not used, and say what that frees."""
    if options.names and (options.all or options.older_than is not None):
        raise InvalidRequest("say which to remove by name, by --older-than or by --all")
    asked_at = time.time()
    daemons, declared = _daemons_by_environment(), _declared_environments()
    own = shared = 0
    for environment in _chosen(options):
        name = environment.name
        if name in daemons or name in declared:
            environment.touch()  # who knows how long the daemon has run: it is used now
            if options.names or options.all:
                users = daemons.get(name) or [f"{declared[name]}, which is declared"]
                print(f"kept {name}: used by {', '.join(users)}")
            continue
        built, size = environment.built(), environment.size()
        if not _remove(environment, asked_at, options.dry_run):
            print(f"kept {name}: it is in use at this moment")
            continue
        what = f"Python {built.version} with {_summary(built)}" if built else "not built whole"
        verb = "would remove" if options.dry_run else "removed"
        print(f"{verb} {name} ({what}): {show.size(size.total)}")
        own, shared = own + size.own, shared + size.shared
    rest = f"; {show.size(shared)} more were shared with the cache of uv" if shared else ""
    print(f"{'would free' if options.dry_run else 'freed'} {show.size(own)}{rest}")
    return OK


def perform_build(options: argparse.Namespace) -> int:
    """Build one; its directory is all that goes to stdout."""
    from ..client.environment import interpreter_with
    from ..client.launch import absolute_python

    wanted = required(options.requirements, options.with_requirements)
    if wanted is None:
        raise InvalidRequest("what is to be in it? Give requirements, or --with-requirements")
    logger = logging.getLogger(__name__)
    show_progress(logger)
    with interpreter_with(wanted, absolute_python(options.python), os.environ, logger) as python:
        print(os.path.dirname(os.path.dirname(python)))
    return OK


def _store() -> Store:
    from ..environments.store import Store

    return Store(locate())


def _whole(store: Store) -> Iterator[tuple[Environment, Built]]:
    for environment in store.all():
        built = environment.built()
        if built is not None:
            yield environment, built


def _chosen(options: argparse.Namespace) -> list[Environment]:
    """Those to remove, and what is left of builds that did not end."""
    found = list(_store().all())
    if options.names:
        for name in options.names:
            if not name or not any(each.name.startswith(name) for each in found):
                raise InvalidRequest(f"there is no environment {name!r}; see: spawny env ls")
        return [each for each in found if each.name.startswith(tuple(options.names))]
    age = options.older_than
    age = _age_seconds(DEFAULT_AGE) if age is None else age
    then = time.time() - (0 if options.all else age)
    return [each for each in found if each.built() is None or each.used_at() <= then]


def _remove(environment: Environment, asked_at: float, dry_run: bool) -> bool:
    """Remove it, unless somebody builds it or is starting a daemon in it, or has done so since we
    asked which daemons there are. A dry run only says whether it would."""
    lock = environment.lock()
    is_free = lock.try_own() and environment.used_at() < asked_at
    try:
        if is_free and not dry_run:
            lock.tell(f"process {os.getpid()}")
            environment.remove()
    except BaseException:
        lock.close()
        raise
    lock.close(remove=is_free and not dry_run)
    return is_free


def _daemons_by_environment() -> dict[str, list[str]]:
    """The names of the daemons that run in each environment, or will be restarted there."""
    from ..environments import key

    directory = os.fspath(locate().environments)
    supervisor = reach.supervisor_if_needed()
    found: dict[str, list[str]] = {}
    for daemon in supervisor.list() if supervisor else ():
        name = key.name_in(daemon.python, directory)
        if name is not None:
            found.setdefault(name, []).append(daemon.name)
    return found


def _declared_environments() -> dict[str, str]:
    """The environments of declared daemons, each with the name of one; raises `InvalidRequest`
    where the configuration is not to be read."""
    from .. import config

    path = locate().config_file
    found = {}
    for name, daemon in config.load(path).daemons.items():
        if daemon.requirements:
            from ..environments import declared

            python = reach.supervisor_python()
            wanted = declared.required(daemon, str(path.parent))
            with suppress(InterpreterNotFound):
                if wanted and (
                    there := declared.environment(daemon, wanted, str(path.parent), python)
                ):
                    found[there.name] = name
    return found


def _row(environment: Environment, built: Built, daemons: dict[str, list[str]]) -> list[str]:
    implementation = "" if built.implementation == "cpython" else f"{built.implementation} "
    return [
        environment.name,
        implementation + built.version,
        show.size(environment.size().total),
        show.duration(max(0.0, time.time() - environment.used_at())) + " ago",
        ", ".join(daemons.get(environment.name, ())) or "-",
        _summary(built),
    ]


def _object(
    environment: Environment, built: Built, daemons: dict[str, list[str]]
) -> dict[str, Any]:
    return {
        "name": environment.name,
        "path": os.fspath(environment.path),
        "python": os.fspath(environment.python),
        **asdict(built),
        "used_at": environment.used_at(),
        "size_bytes": environment.size().total,
        "daemons": daemons.get(environment.name, []),
    }


def _summary(built: Built) -> str:
    return ", ".join(built.requirements) or "no packages"


def _age_seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 30d, 12h or 8w")
    return float(match[1]) * _UNITS[match[2]]
