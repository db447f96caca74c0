"""Starting a daemon: what a client tells the supervisor, and the wait for the definition.

Nothing of this is loaded by a script that attaches to a warm daemon.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from ..address import call_socket, runtime_directory
from ..control import StartDaemon
from ..definitions import Definition
from ..errors import CallTimeout, DaemonStartError, InvalidRequest
from ..kernel import wire
from ..paths import locate
from ..sizes import size_bytes
from .asker import asker
from .channel import Channel
from .ending import wait_gone
from .launch import enter
from .log import default_logger
from .obituary import start_failed
from .options import Options
from .proxy import ObjectProxy
from .run import END_SECONDS, end_daemon
from .session import Session
from .supervisor import Supervisor

if TYPE_CHECKING:
    from ..environments.requirements import Requirements

# The supervisor enforces start_timeout; this is for its own reaction on top.
READY_GRACE_SECONDS = 15.0

# Ours, whatever the supervisor's: so the daemon speaks the call protocol that this client does.
_KERNEL = os.path.join(os.path.dirname(os.path.abspath(wire.__file__)), "boot.py")


def start(
    definition: Definition,
    python: str | None,
    logger: logging.Logger | None,
    options: Options,
    wanted: Requirements | None = None,
    replaces: int | None = None,
) -> ObjectProxy:
    """Have the supervisor start a daemon, in place of the one with the pid `replaces` if that still
    runs, or find the one of this name; its root's proxy."""
    logger = logger or default_logger()
    with _interpreter(python, wanted, options, logger) as python:
        request = _request(definition, python, options)
        if replaces is not None:
            request = replace(request, if_exists="replace", replaces=replaces)
        session = Session(request.name, call_socket(runtime_directory(), request.name))
        logger.info("[DaemonProxy] spawning child process...")
        # Not by connect(): to ask whether one serves costs as much as to ask it.
        started = Supervisor(locate()).start(request)
    try:
        channel = session.connect(request.start_timeout + READY_GRACE_SECONDS)
    except CallTimeout:
        raise
    except OSError as error:
        raise start_failed(
            request.name, "it ended before it could be reached", started.pid
        ) from error
    python_there = session.started["executable"]
    logger.info("[%s] Daemon started using python interpreter: %s", session.pid, python_there)
    if started.existing:
        proxy = enter(session, channel, options.get("on_drift", "warn"))
    else:
        proxy = _enter_new(session, channel)
    logger.info("[DaemonProxy] spawning child process... DONE. PID=%s", session.pid)
    return proxy


def _interpreter(
    python: str | None, wanted: Requirements | None, options: Options, logger: logging.Logger
) -> AbstractContextManager[str | None]:
    """Where packages are required, that of an environment, which stays as long as this lasts."""
    if wanted is None:
        return nullcontext(python)
    from .environment import interpreter_with

    return interpreter_with(wanted, python, _environment(options.get("env", {})), logger)


def _request(definition: Definition, python: str | None, options: Options) -> StartDaemon:
    name = options.get("name")
    return StartDaemon(
        name=name or f"anonymous-{os.getpid()}-{secrets.token_hex(4)}",
        token=secrets.token_hex(16),
        digest=definition.digest(),
        summary=definition.summary(),
        python=python or sys.executable,
        python_is_default=python is None,
        caller_python=sys.executable,
        environ=_environment(options.get("env", {})),
        cwd=_directory(options.get("cwd")),
        sys_path=source_directories(),
        if_exists=options.get("if_exists", "attach"),
        idle_timeout=options.get("idle_timeout", 0.0 if name is None else None),
        restart=options.get("restart", "never"),
        start_timeout=options.get("start_timeout", 60.0),
        output=options.get("output", "forward"),
        preload=list(options.get("preload", ())),
        is_named=name is not None,
        max_rss=size_bytes(options.get("max_rss")),
        max_calls=options.get("max_calls"),
        max_age=options.get("max_age"),
        call_deadline=options.get("call_deadline"),
        kernel=_KERNEL,
        asked_by=asker(),
        definition=definition.payload(),
    )


def _enter_new(session: Session, channel: Channel) -> ObjectProxy:
    """As `enter`, for a daemon that we have started: where that fails, none stays behind."""
    with wait_gone(session.pid) as wait:
        try:
            return enter(session, channel)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, TimeoutError)):
                end_daemon(session, "its start was given up")
            wait(END_SECONDS)
            if isinstance(error, TimeoutError):
                raise DaemonStartError(
                    f"daemon {session.name!r} is not ready in time; see: spawny logs {session.name}"
                ) from error
            raise


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    environ = dict(os.environ)
    for variable, value in changes.items():
        if value is None:
            environ.pop(variable, None)
        elif isinstance(value, str):
            environ[variable] = value
        else:
            raise InvalidRequest(f"env: {variable} is text or None, not {value!r}")
    return environ


def _directory(cwd: str | os.PathLike[str] | None) -> str:
    if cwd is None:
        try:
            return os.getcwd()
        except FileNotFoundError:
            raise InvalidRequest(
                "the current directory was deleted: say where the daemon is to run, with cwd="
            ) from None
    path = os.path.abspath(os.path.expanduser(os.fspath(cwd)))
    if not os.path.isdir(path):
        raise InvalidRequest(f"cwd: there is no directory {path}")
    return path


def source_directories() -> list[str]:
    """The caller's own places on `sys.path`: not the interpreter's, nor any site-packages."""
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    found = []
    for entry in sys.path:
        try:
            path = os.path.abspath(entry)  # "" is the current directory, which may be gone
        except FileNotFoundError:
            continue
        if path not in found and not _is_installed(path, prefixes) and os.path.exists(path):
            found.append(path)
    return found


@cache
def _is_installed(path: str, prefixes: tuple[str, ...]) -> bool:
    real = os.path.realpath(path)
    parts = real.split(os.sep)
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    inside = {os.path.realpath(prefix) for prefix in prefixes}
    return any(real == prefix or real.startswith(prefix + os.sep) for prefix in inside)
