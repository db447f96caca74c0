"""From a `[daemons.NAME]` to what a client's request would be, with its interpreter looked up."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import config, control
from ..errors import InterpreterNotFound, InvalidRequest
from ..settings import Settings
from . import interpreters
from .events import Declared, ReloadRequested
from .values import Caller


def read(
    path: Path, idle_exit: float | None
) -> tuple[Settings, Mapping[str, config.DeclaredDaemon]]:
    """The figures and the daemons of a file; raises `InvalidRequest`."""
    found = config.load(path)
    figures = found.settings
    if idle_exit is not None:
        figures = replace(figures, idle_exit_seconds=idle_exit)
    return figures, found.daemons


def resolve(daemons: Mapping[str, config.DeclaredDaemon], folder: str) -> dict[str, Declared]:
    """With their interpreters, which may take seconds to be found; `folder` is the file's."""
    return {name: _declared(each, folder) for name, each in daemons.items()}


def reload(
    path: Path, idle_exit: float | None, caller: Caller | None, dry_run: bool
) -> ReloadRequested:
    """Both for a supervisor that runs."""
    try:
        figures, daemons = read(path, idle_exit)
    except InvalidRequest as error:
        return not_reloaded(caller, dry_run, str(error))
    return ReloadRequested(caller, dry_run, figures, resolve(daemons, str(path.parent)))


def not_reloaded(caller: Caller | None, dry_run: bool, problem: str) -> ReloadRequested:
    """That it could not be read."""
    return ReloadRequested(caller, dry_run, Settings(), {}, problem)


def _declared(daemon: config.DeclaredDaemon, folder: str) -> Declared:
    environ: Mapping[str, str] = {**os.environ, **daemon.env}
    python = daemon.python or sys.executable
    interpreter, problem, keys = None, "", daemon.keys
    try:
        if daemon.requirements:
            python, problem, keys = _with_requirements(daemon, folder)
        if not problem:
            interpreter = interpreters.resolve(python, environ, folder)
    except (InterpreterNotFound, ValueError) as error:
        problem = str(error)
    request = control.StartDaemon(
        name=daemon.name,
        token=secrets.token_hex(16),
        digest=daemon.definition.digest(),
        summary=daemon.definition.summary(),
        python=python,
        python_is_default=daemon.python is None,
        caller_python=sys.executable,
        environ=dict(environ),
        cwd=daemon.cwd,
        sys_path=list(daemon.sys_path),
        idle_timeout=daemon.idle_timeout,
        restart=daemon.restart,  # type: ignore[arg-type]  # checked when it was read
        start_timeout=daemon.start_timeout,
        max_rss=daemon.max_rss,
        max_calls=daemon.max_calls,
        max_age=daemon.max_age,
        call_deadline=daemon.call_deadline,
        output=daemon.output,  # type: ignore[arg-type]  # as well
        preload=list(daemon.preload),
        definition=daemon.definition.payload(),
    )
    return Declared(request, interpreter, problem, daemon.autostart, keys)


def _with_requirements(
    daemon: config.DeclaredDaemon, folder: str
) -> tuple[str, str, Mapping[str, Any]]:
    """The interpreter that has what it requires; a problem where there is none; and the keys of its
    table, in which requirements change with the files that they name, and with their environment.
    """
    from ..environments import declared  # most configurations require nothing

    wanted = declared.required(daemon, folder)
    if wanted is None:
        return daemon.python or sys.executable, "", daemon.keys
    found = declared.environment(daemon, wanted, folder, sys.executable)
    path = os.fspath(found.python) if found else ""
    keys = {**daemon.keys, "requirements": (wanted, path)}
    if found:
        return path, "", keys
    missing = f"there is no environment with {wanted.summary()} yet: spawny reload builds it"
    return path, missing, keys
