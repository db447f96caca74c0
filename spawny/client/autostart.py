"""Making sure that a supervisor serves, whoever has to start it.

The one rule: of any number of clients that find none at the same moment, one starts it and the
others wait for that one. They queue at a file lock, look again when it is their turn, and find it
running.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..address import DAEMON_VARIABLE
from ..errors import SupervisorUnavailable, UnsafePath
from ..paths import Paths, check_private, check_socket_path, make_private

# From exec to READY takes 0.3 s on an idle machine; a cold disk under load takes many times that.
READY_SECONDS = 20.0

# Whoever holds the start lock gives up after READY_SECONDS; some more, so that its own error, which
# says why, comes before that of those who wait for it.
START_LOCK_SECONDS = 30.0

# What lives says something to whoever connects, within a millisecond or two.
GREETING_SECONDS = 1.0

LOG_TAIL_BYTES = 4096

# Run by an interpreter of its own between the client and the supervisor, which is thereby nobody's
# child: it can be no zombie of a client that outlives it, and no os.wait() of user code meets it.
# A fork of the client itself would be one of a process with threads. The signal mask of the
# client's thread would otherwise reach the supervisor, and through it every daemon.
_DETACH = """\
import os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, ())
if os.fork() == 0:
    os.execv(sys.argv[1], sys.argv[1:])
"""

# What a service manager told the client is not meant for the supervisor.
_SERVICE_VARIABLES = ("NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_")

# What is dropped from the supervisor's environment. Where the client is a daemon, or came out of
# one, the supervisor does not end with it.
_DROPPED = (*_SERVICE_VARIABLES, DAEMON_VARIABLE)


def is_socket_there(paths: Paths) -> bool:
    """Whether the supervisor's socket exists; raises `UnsafePath` when it may be another user's."""
    path = check_socket_path(paths.supervisor_socket)
    try:
        check_private(paths.runtime)
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
        raise UnsafePath(f"refusing to use {path}: it is no socket of yours; remove it")
    return True


def supervisor_listens(paths: Paths) -> bool:
    """Whether a supervisor takes connections here; raises `UnsafePath` as above."""
    if not is_socket_there(paths):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(paths.supervisor_socket))
        except BlockingIOError:
            return True  # its backlog is full: busy, not absent
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        # One that was killed listens until the system has come to close that. What lives greets.
        probe.settimeout(GREETING_SECONDS)
        try:
            return probe.recv(1) != b""
        except ConnectionResetError:
            return False
        except TimeoutError:
            return True  # it is stopped, say


def ensure_supervisor(paths: Paths) -> None:
    """Return once a supervisor serves; start one where there is none.

    Raises `SupervisorUnavailable` with the end of its log when it does not come up, `UnsafePath`
    when a directory is not private.
    """
    if supervisor_listens(paths):
        return
    for directory in (paths.runtime, paths.state, paths.logs):
        try:
            make_private(directory)
        except OSError as error:
            raise SupervisorUnavailable(
                f"cannot create {directory} ({error.strerror}): set SPAWNY_HOME to a directory"
                " that you can write"
            ) from error
    with _held(paths.start_lock, START_LOCK_SECONDS):
        if not supervisor_listens(paths):
            _start(paths)


@contextmanager
def _held(path: Path, seconds: float) -> Iterator[None]:
    """Hold the lock file at `path`, or raise `SupervisorUnavailable` after so many seconds."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _wait_for(lock, path, seconds)
    try:
        yield
    finally:
        _release(lock)


def _release(lock: int) -> None:
    # Closing alone is not enough: a process that another thread forked meanwhile shares the lock.
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _wait_for(lock: int, path: Path, seconds: float) -> None:
    # flock() waits without a timeout, and only a signal ends it, which is the application's. So a
    # thread waits; when its patience ends here first, it gives the lock back as soon as it has it.
    taken = threading.Event()
    decision = threading.Lock()  # the first to acquire it settles who owns the descriptor

    def wait() -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if decision.acquire(blocking=False):
            taken.set()
        else:
            _release(lock)

    threading.Thread(target=wait, name="spawny-start-lock", daemon=True).start()
    try:
        in_time = taken.wait(seconds)
    except BaseException:  # Ctrl-C: the lock must not stay with a thread that nobody waits for
        if not decision.acquire(blocking=False):
            _release(lock)
        raise
    if not in_time and decision.acquire(blocking=False):
        raise SupervisorUnavailable(
            f"another process has been starting the supervisor for {seconds:.0f} s; see which holds"
            f" {path} (fuser -v), end it and try again"
        )


def _start(paths: Paths) -> None:
    if not sys.executable:
        raise SupervisorUnavailable(
            "this program embeds Python and does not say where its interpreter is: run"
            " spawny-supervisor yourself"
        )
    log = os.open(paths.supervisor_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    log_start = os.fstat(log).st_size
    ready, supervisor_end = os.pipe()
    deadline = time.monotonic() + READY_SECONDS
    supervisor = [sys.executable, "-m", "spawny.supervisor", "--ready-fd", str(supervisor_end)]
    try:
        try:
            subprocess.run(
                [sys.executable, "-S", "-c", _DETACH, *supervisor],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(paths),
                start_new_session=True,
                pass_fds=(supervisor_end,),
                timeout=READY_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise _failed(paths, log_start, f"did not start: {error}") from error
        finally:
            os.close(supervisor_end)
            os.close(log)
        fault = _wait_ready(ready, deadline)
    finally:
        os.close(ready)
    # One that a person started by hand may have won meanwhile.
    if fault and not supervisor_listens(paths):
        raise _failed(paths, log_start, fault)


def _wait_ready(ready: int, deadline: float) -> str | None:
    """None once the supervisor serves, otherwise what it did instead."""
    waiter = select.poll()
    waiter.register(ready, select.POLLIN)
    said = b""
    while not said.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not waiter.poll(left * 1000):
            return f"was not ready within {READY_SECONDS:.0f} s"
        chunk = os.read(ready, 64)
        if not chunk:
            return "ended before it was ready"
        said += chunk
    return None if said == b"READY\n" else f"said {said!r} where READY was expected"


def _failed(paths: Paths, log_start: int, what: str) -> SupervisorUnavailable:
    """The error to raise, with what the supervisor wrote since `log_start`."""
    with open(paths.supervisor_log, "rb") as log:
        log.seek(max(log_start, os.fstat(log.fileno()).st_size - LOG_TAIL_BYTES))
        tail = log.read().decode(errors="replace").strip()
    return SupervisorUnavailable(
        f"the supervisor {what}; its log is {paths.supervisor_log}" + (f"\n{tail}" if tail else "")
    )


def _environment(paths: Paths) -> dict[str, str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
    if environ.get("SPAWNY_HOME"):
        # It may be relative, and the supervisor's directory is another one.
        environ["SPAWNY_HOME"] = os.fspath(paths.runtime.parent)
    if path := python_path():
        environ["PYTHONPATH"] = path
    return environ


def python_path() -> str:
    """The PYTHONPATH with which this interpreter imports this very spawny; empty for none."""
    known = os.environ.get("PYTHONPATH", "")
    package_home = os.fspath(Path(__file__).resolve().parents[2])
    if package_home in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return known
    # A checkout, or a vendored copy: this interpreter found it by other means.
    return package_home + (os.pathsep + known if known else "")
