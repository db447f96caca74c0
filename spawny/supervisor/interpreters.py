"""From what a user writes to the interpreter that a daemon is to have.

One rule: the supervisor's loop looks up only what takes no more than a look at a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from .. import control
from ..errors import InterpreterNotFound
from ..interpreters.choose import at_path, locate
from ..interpreters.places import key_of
from ..paths import check_name
from .events import StartRequested
from .values import Caller, Interpreter

__all__ = ["describe", "key_of", "requested", "requested_at_once", "resolve", "resolve_at_once"]


def requested_at_once(caller: Caller, request: control.StartDaemon) -> StartRequested | None:
    """The event for a request that makes no sense, or whose interpreter need not be looked for;
    None for all others."""
    try:
        check_name(request.name)
        found = resolve_at_once(request.python, request.environ, request.cwd)
    except ValueError as error:  # the name, or a NUL byte or lone surrogate in a path
        return StartRequested(caller, request, None, str(error), "InvalidRequest")
    return None if found is None else StartRequested(caller, request, found)


def requested(caller: Caller, request: control.StartDaemon) -> StartRequested:
    """The event for any of the others, in seconds perhaps."""
    try:
        found = resolve(request.python, request.environ, request.cwd)
    except InterpreterNotFound as error:
        return StartRequested(caller, request, None, str(error))
    except ValueError as error:  # as above, or an alias that makes no sense
        return StartRequested(caller, request, None, str(error), "InvalidRequest")
    return StartRequested(caller, request, found)


def resolve_at_once(spec: str, environ: Mapping[str, str], cwd: str) -> Interpreter | None:
    """The interpreter at a path, or of an environment's directory; None where that has to be
    looked for, or for what there is not. Most requests name a path: their client's own."""
    if os.sep not in spec:
        return None
    path = at_path(spec, environ, cwd)
    return None if path is None else describe(path)


def resolve(spec: str, environ: Mapping[str, str], cwd: str) -> Interpreter:
    """The interpreter that this means to a client with this environment and directory.

    It may execute others, which takes seconds where some are broken. Raises `InterpreterNotFound`,
    which lists what there is, and `InvalidRequest` for aliases that make no sense.
    """
    return describe(locate(spec, environ, cwd))


def describe(executable: str) -> Interpreter:
    """The interpreter at a path that is known to be one."""
    return Interpreter(executable, key_of(executable))
