"""Starting, watching and signalling processes.

One rule: a signal goes only to the very process that is meant, never to a pid that may since be
another's. Watching is by pidfd, which also works for processes that an earlier supervisor started;
where the system has none, `exited` looks for itself every `interval` seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from signal import Signals

from .. import control, kernel
from ..paths import Paths
from . import interpreters, logs, proctable
from .events import ChildSpawned, Event, ProcessExited, SessionSwept, SpawnFailed
from .values import Identity, Interpreter

BOOT = os.path.join(os.path.dirname(os.path.abspath(kernel.__file__ or "")), "boot.py")

# They speak of the supervisor, not of what it starts.
_SUPERVISORS_OWN = ("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")

# They select another interpreter, or packages of another one.
_INTERPRETERS_OWN = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONEXECUTABLE",
    "VIRTUAL_ENV",
    "CONDA_",
    "__PYVENV_LAUNCHER__",
)

_POLL_SECONDS = 0.1


@dataclass(slots=True)
class _Watched:
    """A process whose exit is to be told: a daemon, or what one left in its session."""

    name: str
    identity: Identity
    pidfd: int | None
    child: subprocess.Popen[bytes] | None = None
    leader: Identity | None = None  # of the session that it was left in


class Processes:
    """The processes of the daemons.

    Args:
        paths: For the logs, and what a daemon is told.
        boot: The file that a daemon's interpreter is started with, where the client names none.
        has_pidfd: False takes the portable way.
    """

    def __init__(
        self, paths: Paths, boot: str = BOOT, *, has_pidfd: bool = hasattr(os, "pidfd_open")
    ) -> None:
        self._paths = paths
        self._boot = boot
        self._has_pidfd = has_pidfd
        self._watched: dict[Identity, _Watched] = {}
        self._snapshots: dict[Identity, set[Identity]] = {}

    # --- starting -------------------------------------------------------------------------------

    def spawn(self, request: control.StartDaemon, interpreter: Interpreter) -> Event:
        """Start a daemon's process and watch it."""
        log_fd = logs.open_for_append(self._paths.log_file(request.name))
        try:
            offset = os.fstat(log_fd).st_size
            child = subprocess.Popen(
                self._command(request, interpreter),
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                close_fds=True,
                start_new_session=True,
                cwd=request.cwd,
                env=daemon_environ(request, interpreter),
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the environment
            return SpawnFailed(request.name, _why_not_spawned(request, interpreter, error))
        finally:
            os.close(log_fd)
        # It is our child and not reaped: its pid is its own even if it is dead by now.
        identity = proctable.identify(child.pid)
        if identity is None:
            raise RuntimeError(f"process {child.pid} was started, but is not in the process table")
        self._watch(_Watched(request.name, identity, None, child))
        return ChildSpawned(request.name, identity, offset)

    def _command(self, request: control.StartDaemon, interpreter: Interpreter) -> list[str]:
        runtime = str(self._paths.runtime)
        boot = request.kernel if _is_there(request.kernel) else self._boot
        return [interpreter.executable, boot, request.name, request.token, runtime]

    # --- watching -------------------------------------------------------------------------------

    @property
    def interval(self) -> float | None:
        """How often to call `exited` without a reason; None: only when a descriptor is readable."""
        return _POLL_SECONDS if any(each.pidfd is None for each in self._watched.values()) else None

    def fds(self) -> Mapping[int, Identity]:
        """Descriptors that become readable when a process ends, and whose."""
        return {
            each.pidfd: each.identity for each in self._watched.values() if each.pidfd is not None
        }

    def watch(self, name: str, identity: Identity) -> None:
        """Watch a process that we did not start."""
        self._watch(_Watched(name, identity, None))

    def _watch(self, watched: _Watched) -> None:
        if self._has_pidfd:
            # It is gone: `exited` will find out, without a descriptor.
            with suppress(ProcessLookupError):
                watched.pidfd = os.pidfd_open(watched.identity.pid)
        self._watched[watched.identity] = watched

    def exited(self) -> list[ProcessExited | SessionSwept]:
        """What has ended since the last time."""
        events: list[ProcessExited | SessionSwept] = []
        for watched in list(self._watched.values()):
            if watched.child is not None:
                # Not by its state in the process table: it may be a zombie with living threads.
                if watched.child.poll() is None:
                    continue
            elif proctable.is_alive(watched.identity):
                continue
            self._forget(watched)
            if watched.leader is None:
                events.append(_exit_of(watched))
            elif not any(each.leader == watched.leader for each in self._watched.values()):
                events.append(SessionSwept(watched.name, watched.leader, 0))
        return events

    def _forget(self, watched: _Watched) -> None:
        del self._watched[watched.identity]
        if watched.pidfd is not None:
            os.close(watched.pidfd)

    # --- signalling -----------------------------------------------------------------------------

    def snapshot(self, identity: Identity) -> None:
        """Remember its descendants, for the SIGKILL that may come."""
        self._snapshots.setdefault(identity, set()).update(proctable.descendants(identity))

    def signal(self, identity: Identity, signal_name: str) -> None:
        """Signal a daemon's process group; SIGKILL also its session and its descendants."""
        number = Signals[signal_name]
        if proctable.is_alive(identity):
            # A daemon leads its own group: the number is its pid.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(identity.pid, number)
                if number == signal.SIGTERM:
                    # A stopped process gets to see it only when it goes on.
                    os.killpg(identity.pid, signal.SIGCONT)
        if number == signal.SIGKILL:
            more = self._snapshots.get(identity, set())
            for each in more.union(proctable.session_members(identity)):
                self._signal_one(each, number)

    def sweep(self, name: str, leader: Identity, signal_name: str) -> SessionSwept:
        """Signal what a dead daemon left in its session, and watch it end."""
        self._snapshots.pop(leader, None)
        left = proctable.session_members(leader)
        for each in left:
            self._signal_one(each, Signals[signal_name])
            if each not in self._watched:
                self._watch(_Watched(name, each, None, leader=leader))
        return SessionSwept(name, leader, len(left))

    def _signal_one(self, identity: Identity, number: Signals) -> None:
        """Signal one process, if it is still that one."""
        with suppress(ProcessLookupError, PermissionError):
            if not self._has_pidfd:
                if proctable.is_alive(identity):
                    os.kill(identity.pid, number)
                return
            pidfd = os.pidfd_open(identity.pid)
            try:
                # Asked once the pidfd holds the process: no reuse of the pid comes between.
                if proctable.is_alive(identity):
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)


def _is_there(kernel: str) -> bool:
    """Whether the client's own kernel (still) exists: its spawny may have been uninstalled."""
    return os.path.isabs(kernel) and os.path.isfile(kernel)


def daemon_environ(request: control.StartDaemon, interpreter: Interpreter) -> dict[str, str]:
    """The client's environment, without what is meant for another process or interpreter."""
    dropped: tuple[str, ...] = _SUPERVISORS_OWN
    if interpreters.key_of(request.caller_python) != interpreter.key:
        dropped += _INTERPRETERS_OWN
    return {name: value for name, value in request.environ.items() if not name.startswith(dropped)}


def _why_not_spawned(
    request: control.StartDaemon, interpreter: Interpreter, error: OSError | ValueError
) -> str:
    if not os.path.isdir(request.cwd):
        return f"its working directory {request.cwd} does not exist"
    reason = getattr(error, "strerror", None) or str(error)
    return f"{interpreter.executable} could not be executed: {reason}"


def _exit_of(watched: _Watched) -> ProcessExited:
    if watched.child is None:
        return ProcessExited(watched.name, watched.identity, None, None)
    code = watched.child.wait()  # at once: it is reaped already
    if code >= 0:
        return ProcessExited(watched.name, watched.identity, code, None)
    try:
        name = Signals(-code).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-code}"
    return ProcessExited(watched.name, watched.identity, None, name)
