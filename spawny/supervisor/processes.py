"""Starting, watching and signalling processes.

One rule: every process is known by its identity, never by a pid that may since be another's.
Watching is by pidfd, which also works for processes that an earlier supervisor started; where the
system has none, `exited` looks for itself every `interval` seconds.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from signal import Signals

from .. import children, control, kernel
from ..address import DAEMON_VARIABLE
from ..paths import Paths
from . import descriptors, interpreters, logs, proctable
from .events import ChildSpawned, Event, ProcessExited, SessionSwept, SpawnFailed
from .families import Families
from .memory import OutOfMemory
from .values import Identity, Interpreter
from .watch import Watch

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

# Of each daemon: its pidfd and its link.
_LASTING_DESCRIPTORS = 2


@dataclass(slots=True)
class _Watched:
    """A process whose exit is to be told: a daemon, or what one left."""

    name: str
    identity: Identity
    pidfd: int | None
    child: subprocess.Popen[bytes] | None = None
    is_forked: bool = False  # by a zygote: our child, as soon as the process between has ended
    leader: Identity | None = None  # the daemon that left it


class Processes:
    """The processes of the daemons.

    Args:
        paths: For the logs, and what a daemon is told.
        watch: What the loop waits for.
        boot: The file that a daemon's interpreter is started with, where the client names none.
        has_pidfd: False takes the portable way.
        descriptor_limit: How many descriptors a daemon may have; None: as many as we.
    """

    def __init__(
        self,
        paths: Paths,
        watch: Watch,
        boot: str = BOOT,
        *,
        has_pidfd: bool = hasattr(os, "pidfd_open"),
        descriptor_limit: int | None = None,
    ) -> None:
        self._paths = paths
        self._ends = watch
        self._boot = boot
        self._has_pidfd = has_pidfd
        self._descriptor_limit = descriptor_limit
        self._watched: dict[Identity, _Watched] = {}
        self._by_pidfd: dict[int, _Watched] = {}
        self.memory = OutOfMemory()
        self._families = Families(has_pidfd=has_pidfd)
        # Whether there may be children of ours that we have not been told of yet.
        self.expects_orphans: Callable[[], bool] = lambda: False

    # --- starting -------------------------------------------------------------------------------

    def spawn(self, request: control.StartDaemon, interpreter: Interpreter) -> Event:
        """Start a daemon's process and watch it."""
        try:
            descriptors.check_room(_LASTING_DESCRIPTORS)
            log_fd = logs.open_for_append(self._paths.log_file(request.name))
        except OSError as error:
            return SpawnFailed(request.name, _why_no_log(error))
        try:
            offset = os.fstat(log_fd).st_size
            child = children.start(
                self.command(request, interpreter),
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
        descriptors.limit_to(self._descriptor_limit, child.pid)
        # It is our child and not reaped: its pid is its own even if it is dead by now.
        try:
            identity = proctable.identify(child.pid)
        except OSError as error:
            child.kill()
            child.wait()
            return SpawnFailed(request.name, _why_not_spawned(request, interpreter, error))
        if identity is None:
            raise RuntimeError(f"process {child.pid} was started, but is not in the process table")
        self._watch(_Watched(request.name, identity, None, child))
        return ChildSpawned(request.name, identity, offset, request.mark)

    def command(self, request: control.StartDaemon, interpreter: Interpreter) -> list[str]:
        """What a daemon is executed with."""
        runtime = str(self._paths.runtime)
        boot = self.boot_of(request)
        return [interpreter.executable, boot, request.name, request.token, runtime]

    def boot_of(self, request: control.StartDaemon) -> str:
        """The file that its interpreter is started with."""
        return request.kernel if _is_there(request.kernel) else self._boot

    # --- watching -------------------------------------------------------------------------------

    @property
    def interval(self) -> float | None:
        """How often to call `exited` without a reason; None: only when a descriptor is readable."""
        return None if len(self._by_pidfd) == len(self._watched) else _POLL_SECONDS

    def have_ended(self, ready: Iterable[int]) -> bool:
        """Whether one of these descriptors tells of an end."""
        return not self._by_pidfd.keys().isdisjoint(ready)

    def watch(self, name: str, identity: Identity) -> None:
        """Watch a process that we did not start."""
        self._watch(_Watched(name, identity, None))

    def adopt(self, name: str, pid: int) -> Identity:
        """Watch a daemon that a zygote has forked; dead or alive, its pid is still its own."""
        identity = proctable.identify(pid)
        if identity is None:
            raise RuntimeError(f"process {pid} was forked, but is not in the process table")
        self._watch(_Watched(name, identity, None, is_forked=True))
        return identity

    def _watch(self, watched: _Watched) -> None:
        self._open_pidfd(watched)
        if watched.leader is None:
            self.memory.note(watched.identity)
        self._watched[watched.identity] = watched

    def _open_pidfd(self, watched: _Watched) -> None:
        if self._has_pidfd:
            # It is gone, or there are no descriptors: `exited` will find out, without one.
            with suppress(OSError):
                watched.pidfd = descriptors.put_away(os.pidfd_open(watched.identity.pid))
                self._by_pidfd[watched.pidfd] = watched
                self._ends.put(watched.pidfd)

    def exited(self, ready: Iterable[int]) -> list[ProcessExited | SessionSwept]:
        """What has ended since the last time; these descriptors can be read."""
        events: list[ProcessExited | SessionSwept] = []
        told = [self._by_pidfd[fd] for fd in ready if fd in self._by_pidfd]
        told += [each for each in self._watched.values() if each.pidfd is None]
        for watched in told:
            has_ended, code = _ended(watched)
            if not has_ended:
                if watched.pidfd is None:
                    self._open_pidfd(watched)
                continue
            self._forget(watched)
            if watched.leader is None:
                exited = _exit_event(watched, code)
                is_starved = self.memory.has_killed(watched.identity)
                is_killed = exited.signal_name == "SIGKILL"
                events.append(replace(exited, is_out_of_memory=is_killed and is_starved))
            elif not any(each.leader == watched.leader for each in self._watched.values()):
                self._families.forget(watched.leader)
                events.append(SessionSwept(watched.name, watched.leader, 0))
        self._reap_strangers()
        return events

    def _reap_strangers(self) -> None:
        """As pid 1 of a container, or a subreaper, we inherit orphans: nobody else waits for them.

        Those that somebody waits for are left: their exit status is still to be told.
        """
        if not hasattr(os, "waitid"):
            return  # macOS, which has neither
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if any(each.identity.pid == found.si_pid for each in self._watched.values()):
                    return  # it has ended a moment ago
                if children.is_awaited(found.si_pid):
                    return
                if self.expects_orphans():
                    return  # it may be a daemon that we are about to be told of
                os.waitpid(found.si_pid, 0)

    def _forget(self, watched: _Watched) -> None:
        del self._watched[watched.identity]
        if watched.pidfd is not None:
            del self._by_pidfd[watched.pidfd]
            self._ends.drop(watched.pidfd)
            os.close(watched.pidfd)

    # --- signalling -----------------------------------------------------------------------------

    def snapshot(self, identity: Identity, mark: str) -> None:
        """Remember what came out of it, for the signals that may come."""
        self._families.snapshot(identity, mark, self._daemons() - {identity})

    def signal(self, identity: Identity, signal_name: str, mark: str) -> None:
        """Signal a daemon's process group; SIGKILL all that came out of it."""
        self._families.signal(identity, signal_name, mark, self._daemons() - {identity})

    def sweep(self, name: str, leader: Identity, signal_name: str, mark: str) -> SessionSwept:
        """Signal what a dead daemon left, and watch it end."""
        left = self._families.sweep(leader, signal_name, mark, self._daemons())
        for each in left:
            if each not in self._watched:
                self._watch(_Watched(name, each, None, leader=leader))
        if not left:
            self._families.forget(leader)
        return SessionSwept(name, leader, len(left))

    def _daemons(self) -> set[Identity]:
        return {each.identity for each in self._watched.values() if each.leader is None}


def _is_there(kernel: str) -> bool:
    """Whether the client's own kernel (still) exists: its spawny may have been uninstalled."""
    return os.path.isabs(kernel) and os.path.isfile(kernel)


def daemon_environ(request: control.StartDaemon, interpreter: Interpreter) -> dict[str, str]:
    """The client's environment, without what is meant for another process or interpreter."""
    dropped: tuple[str, ...] = _SUPERVISORS_OWN
    is_callers = request.caller_python == interpreter.executable
    if not is_callers and interpreters.key_of(request.caller_python) != interpreter.key:
        dropped += _INTERPRETERS_OWN
    environ = {
        name: value for name, value in request.environ.items() if not name.startswith(dropped)
    }
    # In place of the caller's, which may be a daemon itself: this one is none of its children. And
    # last, where a forked daemon has it shown even if there is no room for all.
    environ.pop(DAEMON_VARIABLE, None)
    environ[DAEMON_VARIABLE] = request.mark
    return environ


def _why_no_log(error: OSError) -> str:
    return _want_of_descriptors(error) or f"its log cannot be opened: {error}"


def _want_of_descriptors(error: Exception) -> str | None:
    if not descriptors.are_exhausted(error):
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"the supervisor has no file descriptors left ({limit} are allowed): end daemons, or raise"
        " the limit (ulimit -n, or LimitNOFILE= of the service) and restart the supervisor"
    )


def _why_not_spawned(
    request: control.StartDaemon, interpreter: Interpreter, error: OSError | ValueError
) -> str:
    if not os.path.isdir(request.cwd):
        return f"its working directory {request.cwd} does not exist"
    if (why := _want_of_descriptors(error)) is not None:
        return why
    reason = getattr(error, "strerror", None) or str(error)
    return f"{interpreter.executable} could not be executed: {reason}"


def _ended(watched: _Watched) -> tuple[bool, int | None]:
    """Whether it has ended, and with which code: below 0 a signal, None where nobody tells us."""
    if watched.child is not None:
        # Not by its state in the process table: it may be a zombie with living threads.
        code = watched.child.poll()
        return code is not None, code
    if watched.is_forked:
        with suppress(ChildProcessError):  # not yet ours
            pid, status = os.waitpid(watched.identity.pid, os.WNOHANG)
            return pid != 0, os.waitstatus_to_exitcode(status) if pid else None
        return proctable.identify(watched.identity.pid) != watched.identity, None
    if proctable.is_alive(watched.identity):
        return False, None
    # A zombie of ours, though we did not start it: as pid 1, or after we have executed ourselves.
    # Not asked where its pid is another's by now.
    with suppress(OSError):
        if proctable.identify(watched.identity.pid) == watched.identity:
            pid, status = os.waitpid(watched.identity.pid, os.WNOHANG)
            return pid != 0, os.waitstatus_to_exitcode(status) if pid else None
    return True, None


def _exit_event(watched: _Watched, code: int | None) -> ProcessExited:
    if code is None or code >= 0:
        return ProcessExited(watched.name, watched.identity, code, None)
    try:
        name = Signals(-code).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-code}"
    return ProcessExited(watched.name, watched.identity, None, name)
