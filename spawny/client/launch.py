"""Attaching to daemons, and asking for them: `attach`, `run_script`, `run_module`, `run_object`.

A warm daemon is reached straight at its socket, whose path follows from its name: then no
supervisor is asked and no zmq is loaded. Only when nobody answers there does the supervisor decide
what is to be done, for all clients, one at a time (`start.py`).

Every script that attaches loads this file, so what only a start needs is imported where it is used.
"""

from __future__ import annotations

import os
import sys

from ..address import call_socket, check_name, runtime_directory
from ..errors import CallTimeout, DaemonExists, DaemonNotFound, InvalidRequest
from .channel import Channel
from .session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping
    from typing import Any, Unpack

    from ..definitions import Definition
    from ..environments.requirements import Requirements
    from .options import OnDrift, Options
    from .proxy import ObjectProxy

ON_DRIFT = ("warn", "restart", "error")

# A daemon that is being restarted (its backoff is at most 30 s) is waited for by attach.
ATTACH_SECONDS = 60.0


def run_script(
    script_str: str,
    python_exe: str | os.PathLike[str] | None = None,
    logger: logging.Logger | None = None,
    **options: Unpack[Options],
) -> ObjectProxy:
    """Run the text of a script in a daemon; the proxy of the module that it makes.

    `python_exe` is a path, the directory or the name of an environment, a version such as `"3.9"`,
    `">=3.8,<3.12"` or `"pypy"`, or an alias; default is the caller's interpreter. See `Options` for
    the rest. An exception in the script is raised here as itself, with the remote traceback as its
    cause; `DaemonStartError` is raised where the interpreter did not come up, `InterpreterNotFound`
    where there is none.
    """
    from ..definitions import ScriptDefinition

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
    from ..definitions import ModuleDefinition

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
    from ..definitions import Definition, InstanceDefinition, ObjectDefinition

    definition = object_instance_or_definition
    if isinstance(definition, InstanceDefinition):
        # As documented since the first spawny: without a module, the class is looked up here.
        definition = definition.resolved(sys._getframe(1).f_globals)
    elif not isinstance(definition, Definition):
        from .serialize import dumps_object

        kind = type(definition)
        name = f"{kind.__module__}.{kind.__qualname__}"
        pickled, interpreter, by_source, refusal = dumps_object(definition)
        definition = ObjectDefinition(pickled, name, interpreter, by_source, refusal)
    return run_definition(definition, python_exe, logger, **options)


def attach(name: str, on_drift: OnDrift = "warn") -> ObjectProxy:
    """The root proxy of the daemon of this name; starts nothing but a missing supervisor.

    Raises `DaemonNotFound` where there is none; waits for one that is starting or restarting.
    `on_drift` is what to do where its script, modules of the caller's, its interpreter or what is
    installed for that have changed since it was loaded: `"warn"` with `DriftWarning`, `"restart"`
    it as soon as no call runs there, or raise the `"error"` `DaemonDrifted`.
    """
    if on_drift not in ON_DRIFT:
        raise InvalidRequest(f"on_drift is one of {', '.join(ON_DRIFT)}, not {on_drift!r}")
    session = Session(name, call_socket(runtime_directory(), name))
    return enter(session, reach(session), on_drift)


def enter(session: Session, channel: Channel, on_drift: OnDrift = "warn") -> ObjectProxy:
    """The root's proxy, once the definition is ready; what it prints is shown meanwhile."""
    drift = session.started.get("drift")
    if drift and on_drift != "warn":
        from .drift import refusal, renewed

        if on_drift == "error":
            channel.close()
            raise refusal(session.name, drift)
        channel = renewed(session, channel, drift)
        drift = session.started.get("drift")  # of what a restart does not help against
    try:
        proxy = session.wait_ready(channel)
        session.listen()
        if drift:
            from .drift import warn

            warn(session.name, drift)
    except BaseException as error:
        session.leave_unused(channel)
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            from .obituary import start_failed

            raise start_failed(session.name, "it ended meanwhile", session.pid) from error
        raise
    return proxy


class Unanswered(DaemonNotFound):
    """The supervisor knows of a process, which does not answer; it may be ending."""


def reach(session: Session) -> Channel:
    """A connection to the daemon of the session's name, whatever it takes short of starting it."""
    try:
        return session.connect()
    except CallTimeout:
        raise  # somebody does listen there
    except OSError:
        pass
    from .supervisor import connect

    with connect() as supervisor:
        supervisor.find(session.name, ATTACH_SECONDS)
    try:
        return session.connect()
    except CallTimeout:
        raise
    except OSError as error:
        raise Unanswered(
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
    if options:
        from .options import check_options

        check_options(options)
    python = absolute_python(python_exe)
    name, replaces = options.get("name"), None
    if name is not None:
        check_name(name)
    wanted = None
    if options.get("requirements") is not None:
        from .environment import required

        wanted = required(options["requirements"], definition)
    if name is not None and options.get("if_exists", "attach") == "attach":
        session = Session(name, call_socket(runtime_directory(), name))
        channel = _connected(session)
        if channel is not None:
            on_drift = options.get("on_drift", "warn")
            differences = _differences(session.started, definition, python, wanted)
            if not differences:
                return enter(session, channel, on_drift)
            channel.close()
            if on_drift != "restart":
                raise DaemonExists(
                    f"daemon {name!r} exists and differs: {'; '.join(differences)}. Use another"
                    ' name, if_exists="replace", or spawny.attach to use it as it is'
                )
            replaces = session.pid
    from .start import start

    return start(definition, python, logger, options, wanted, replaces)


def _connected(session: Session) -> Channel | None:
    """A connection to the daemon of this name; None where none runs."""
    try:
        return session.connect()
    except CallTimeout:
        raise
    except OSError:
        return None


def _differences(
    found: dict[str, Any],
    definition: Definition,
    python: str | None,
    wanted: Requirements | None,
) -> list[str]:
    """What keeps a running daemon from being the one asked for, in words."""
    differences = []
    if found["digest"] != definition.digest():
        differences.append(f"it runs {found['summary']}, not this {definition.summary()}")
    return differences + other_interpreter(found, python, wanted)


def other_interpreter(
    found: dict[str, Any], python: str | None, wanted: Requirements | None
) -> list[str]:
    """The same of its interpreter and what is installed for it; `python` as `absolute_python`."""
    differences = []
    if wanted is not None:
        from .environment import base_of, difference

        differences += difference(wanted, found["executable"])
        found = base_of(found, python)
    if python is not None and not _is_interpreter(python, found):
        differences.append(f"it runs under {found['executable']}, not {python}")
    return differences


def absolute_python(python_exe: str | os.PathLike[str] | None) -> str | None:
    """A path as an absolute one, since the supervisor works elsewhere; all else as it is."""
    if python_exe is None:
        return None
    if not isinstance(python_exe, (str, os.PathLike)):
        raise InvalidRequest(
            "python_exe is a path, a version such as '3.9', or the name of an environment or an"
            f" alias, not {python_exe!r}"
        )
    python = os.path.expanduser(os.fspath(python_exe))
    is_path = os.sep in python or isinstance(python_exe, os.PathLike)
    if is_path or (os.path.exists(python) and _is_here(python)):
        return os.path.abspath(python)  # not resolved: a venv is told by its own path
    return python


def _is_here(name: str) -> bool:
    """Whether a name means what the directory has of that name: not where it is an alias or looks
    like a version, nor if that is no interpreter or environment."""
    from ..interpreters.choose import at_path, dealiased

    return dealiased(name) == name and at_path(name, os.environ, os.getcwd()) is not None


def _is_interpreter(python: str, found: Mapping[str, Any]) -> bool:
    """Is the interpreter that a daemon reports the one asked for? Nothing is executed for this."""
    executable: str = found["executable"]
    if python in (executable, os.path.dirname(os.path.dirname(executable))):
        return True
    from ..interpreters import spec

    wanted = None if os.sep in python else spec.parse(python)
    if wanted is not None:
        return wanted.allows(found["implementation"], tuple(found["version"]))
    from ..interpreters.choose import dealiased, look
    from ..interpreters.places import key_of

    meant = dealiased(python)
    if meant != python:
        return _is_interpreter(meant, found)
    try:
        path = look(python, os.environ, os.getcwd())
    except FileNotFoundError:  # the directory was deleted
        path = None
    return path is not None and key_of(path) == key_of(executable)
