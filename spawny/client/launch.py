"""Starting daemons and attaching to them: `run_script`, `run_module`, `run_object`, `attach`.

A warm daemon is reached straight at its socket, whose path follows from its name: then no
supervisor is asked and no zmq is loaded. Only when nobody answers there does the supervisor decide
what is to be done, for all clients, one at a time.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ..definitions import (
    Definition,
    InstanceDefinition,
    ModuleDefinition,
    ObjectDefinition,
    ScriptDefinition,
    digest,
)
from ..errors import (
    DaemonExists,
    DaemonNotFound,
    DaemonStartError,
    InvalidRequest,
)
from ..paths import Paths, check_name, check_private, check_socket_path, locate
from .channel import Channel, ChannelClosed
from .ending import wait_gone
from .obituary import start_failed
from .run import END_SECONDS, end_daemon
from .session import Session

if TYPE_CHECKING:
    import logging
    from typing import Unpack

    from ..control import Started
    from .proxy import ObjectProxy

# The supervisor enforces start_timeout; this is for its own reaction on top.
READY_GRACE_SECONDS = 15.0
# A daemon that is being restarted (its backoff is at most 30 s) is waited for by attach.
ATTACH_SECONDS = 60.0


class Options(TypedDict, total=False):
    """What `run_script`, `run_module` and `run_object` take besides the definition."""

    name: str | None
    """A named daemon outlives this script, and others attach to it. Default: a generated name, and
    an end with the last proxy."""
    if_exists: Literal["attach", "replace", "error"]
    """What to do where a daemon of this name runs: attach if it has the same definition (else
    `DaemonExists`), replace it, or raise `DaemonExists`. Default: attach."""
    idle_timeout: float | None
    """Seconds without any client until it ends, None for never. Default: 0 without a name, None
    with one."""
    env: Mapping[str, str | None]
    """Environment variables on top of the caller's; None takes one away."""
    cwd: str | os.PathLike[str]
    """Its working directory. Default: the caller's."""
    restart: Literal["never", "on-failure", "always"]
    """Start it anew when it dies. Default: never."""
    start_timeout: float
    """Seconds for interpreter and definition to be ready. Default: 60."""
    output: Literal["forward", "log"]
    """Where prints go besides the log: forward to the clients, or nowhere. Default: forward."""


_CHOICES = {
    "if_exists": ("attach", "replace", "error"),
    "restart": ("never", "on-failure", "always"),
    "output": ("forward", "log"),
}


def run_script(
    script_str: str,
    python_exe: str | os.PathLike[str] | None = None,
    logger: logging.Logger | None = None,
    **options: Unpack[Options],
) -> ObjectProxy:
    """Run the text of a script in a daemon; the proxy of the module that it makes.

    `python_exe` is a path, a directory of a virtual environment or a version such as `"3.9"`;
    default is the caller's interpreter. See `Options` for the rest. An exception in the script is
    raised here as itself, with the remote traceback as its cause; `DaemonStartError` is raised
    where the interpreter did not come up, `InterpreterNotFound` where there is none.
    """
    return run_definition(ScriptDefinition(script_str), python_exe, logger, **options)


def run_module(
    module_name: str,
    module_path: str | os.PathLike[str] | None = None,
    python_exe: str | os.PathLike[str] | None = None,
    logger: logging.Logger | None = None,
    **options: Unpack[Options],
) -> ObjectProxy:
    """Import a module in a daemon; its proxy. `module_path` is for one that no import finds.

    The daemon finds what the caller's own imports find, but for site-packages, which are those of
    its own interpreter. Arguments and errors otherwise as for `run_script`.
    """
    definition = ModuleDefinition(module_name, module_path)
    return run_definition(definition, python_exe, logger, **options)


def run_object(
    object_instance_or_definition: Any,
    python_exe: str | os.PathLike[str] | None = None,
    logger: logging.Logger | None = None,
    **options: Unpack[Options],
) -> ObjectProxy:
    """Move an object into a daemon, or create the one of a definition there; its proxy.

    Arguments and errors otherwise as for `run_script`; `SerializationError` where the object
    cannot travel.
    """
    definition = object_instance_or_definition
    if isinstance(definition, InstanceDefinition):
        # As documented since the first spawny: without a module, the class is looked up here.
        definition = definition.resolved(sys._getframe(1).f_globals)
    elif not isinstance(definition, Definition):
        from .serialize import dumps_object

        kind = type(definition)
        pickled, interpreter = dumps_object(definition)
        definition = ObjectDefinition(
            pickled, f"{kind.__module__}.{kind.__qualname__}", interpreter
        )
    return run_definition(definition, python_exe, logger, **options)


def attach(name: str) -> ObjectProxy:
    """The root proxy of the daemon of this name; starts nothing but a missing supervisor.

    Raises `DaemonNotFound` where there is none; waits for one that is starting or restarting.
    """
    paths = locate()
    session = Session(check_name(name), _call_socket(paths, name))
    return _enter(session, reach(session))


def reach(session: Session) -> Channel:
    """A connection to the daemon of the session's name, whatever it takes short of starting it."""
    try:
        return session.connect()
    except (OSError, ChannelClosed):
        pass
    from .supervisor import connect

    with connect() as supervisor:
        supervisor.find(session.name, ATTACH_SECONDS)
    try:
        return session.connect()
    except (OSError, ChannelClosed) as error:
        raise DaemonNotFound(
            f"daemon {session.name!r} runs, but does not answer at {session.path};"
            f" see: spawny logs {session.name}"
        ) from error


def run_definition(
    definition: Definition,
    python_exe: str | os.PathLike[str] | None = None,
    logger: logging.Logger | None = None,
    **options: Unpack[Options],
) -> ObjectProxy:
    """What `run_script`, `run_module` and `run_object` come down to."""
    _check_options(options)
    python = _absolute_python(python_exe)
    payload = definition.payload()
    name = options.get("name")
    paths = locate()
    if name is not None and options.get("if_exists", "attach") == "attach":
        proxy = _attach_to_same(paths, check_name(name), definition, digest(payload), python)
        if proxy is not None:
            return proxy
    return _start(paths, definition, payload, python, logger, options)


def _attach_to_same(
    paths: Paths, name: str, definition: Definition, definition_digest: str, python: str | None
) -> ObjectProxy | None:
    """The proxy of a running daemon of this name and definition; None where none runs."""
    session = Session(name, _call_socket(paths, name))
    try:
        channel = session.connect()
    except (OSError, ChannelClosed):
        return None
    found = session.started
    differences = []
    if found["digest"] != definition_digest:
        differences.append(f"it runs {found['summary']}, not this {definition.summary()}")
    if python is not None and not _is_interpreter(python, found):
        differences.append(f"it runs under {found['executable']}, not {python}")
    if differences:
        channel.close()
        raise DaemonExists(
            f"daemon {name!r} exists and differs: {'; '.join(differences)}."
            ' Use another name, if_exists="replace", or spawny.attach to use it as it is'
        )
    return _enter(session, channel)


def _start(
    paths: Paths,
    definition: Definition,
    payload: bytes,
    python: str | None,
    logger: logging.Logger | None,
    options: Options,
) -> ObjectProxy:
    from ..control import StartDaemon
    from .log import default_logger
    from .supervisor import connect

    logger = logger or default_logger()
    name = options.get("name")
    start_timeout = options.get("start_timeout", 60.0)
    request = StartDaemon(
        name=name or f"anonymous-{os.getpid()}-{secrets.token_hex(4)}",
        token=secrets.token_hex(16),
        digest=digest(payload),
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
        start_timeout=start_timeout,
        output=options.get("output", "forward"),
        definition=payload,
    )
    session = Session(request.name, _call_socket(paths, request.name))
    logger.info("[DaemonProxy] spawning child process...")
    with connect() as supervisor:
        started = supervisor.start(request)
    try:
        channel = session.connect(start_timeout + READY_GRACE_SECONDS)
    except (OSError, ChannelClosed) as error:
        raise start_failed(request.name, "it ended before it could be reached") from error
    python_there = session.started["executable"]
    logger.info("[%s] Daemon started using python interpreter: %s", session.pid, python_there)
    proxy = _enter(session, channel, started)
    logger.info("[DaemonProxy] spawning child process... DONE. PID=%s", session.pid)
    return proxy


def _enter(session: Session, channel: Channel, started: Started | None = None) -> ObjectProxy:
    """Wait for the definition, showing what it prints; the root's proxy."""
    ours = started is not None and not started.existing
    with wait_gone(session.pid if ours else 0) as wait:
        try:
            proxy = session.wait_ready(channel)
        except BaseException as error:
            channel.close()
            if ours:
                if isinstance(error, KeyboardInterrupt):
                    end_daemon(session, "its start was interrupted")
                # Whatever went wrong, its process does not stay behind.
                wait(END_SECONDS)
            if isinstance(error, ChannelClosed):
                raise start_failed(session.name, "it ended while its definition ran") from error
            if isinstance(error, TimeoutError):
                raise DaemonStartError(
                    f"daemon {session.name!r} is not ready in time; see: spawny logs {session.name}"
                ) from error
            raise
    session.listen()
    return proxy


def _call_socket(paths: Paths, name: str) -> str:
    path = check_socket_path(paths.call_socket(name))
    if paths.runtime.exists():
        check_private(paths.runtime)
    return str(path)


# --- the caller's side of the request -----------------------------------------------------------


def _check_options(options: Mapping[str, Any]) -> None:
    known = Options.__annotations__
    for key, value in options.items():
        if key not in known:
            raise InvalidRequest(f"there is no option {key!r}; there are {', '.join(known)}")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise InvalidRequest(f"{key} is one of {', '.join(_CHOICES[key])}, not {value!r}")
    for key in ("idle_timeout", "start_timeout"):
        value = options.get(key)
        if value is not None and (not isinstance(value, (int, float)) or value < 0):
            raise InvalidRequest(f"{key} is a number of seconds, not {value!r}")


def _absolute_python(python_exe: str | os.PathLike[str] | None) -> str | None:
    """A path as an absolute one, since the supervisor works elsewhere; a version as it is."""
    if python_exe is None:
        return None
    python = os.path.expanduser(os.fspath(python_exe))
    if os.sep in python or os.path.exists(python):
        return os.path.abspath(python)  # not resolved: a venv is told by its own path
    return python


def _is_interpreter(python: str, found: Mapping[str, Any]) -> bool:
    """Is the interpreter that a daemon reports the one asked for?"""
    if os.sep in python:
        executable = found["executable"]
        return executable == python or os.path.dirname(os.path.dirname(executable)) == python
    match = re.fullmatch(r"(python|pypy|)-?([\d.]*)", python)
    if match is None:
        return False
    implementation = {"": None, "python": "cpython"}.get(match[1], match[1])
    wanted = [int(part) for part in match[2].split(".") if part]
    return implementation in (None, found["implementation"]) and wanted == list(
        found["version"][: len(wanted)]
    )


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
        return os.getcwd()
    path = os.path.abspath(os.path.expanduser(os.fspath(cwd)))
    if not os.path.isdir(path):
        raise InvalidRequest(f"cwd: there is no directory {path}")
    return path


def source_directories() -> list[str]:
    """The caller's own places on `sys.path`: not the interpreter's, nor any site-packages."""
    prefixes = {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    found = []
    for entry in sys.path:
        path = os.path.abspath(entry or os.getcwd())
        real = os.path.realpath(path)
        if "site-packages" in real.split(os.sep) or "dist-packages" in real.split(os.sep):
            continue
        if any(real == prefix or real.startswith(prefix + os.sep) for prefix in prefixes):
            continue
        if os.path.exists(path) and path not in found:
            found.append(path)
    return found
