"""Zygotes from outside: their processes, and what is said to them (see kernel/zygote.py).

One rule: of each request for a daemon there is one process at most. A request that was sent is out
until the zygote has answered, or nothing that could answer is left: neither the zygote nor what it
has forked for the next requests. Nothing here ever waits.
"""

from __future__ import annotations

import array
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .. import children, control
from ..address import DAEMON_VARIABLE
from ..paths import Paths
from . import descriptors, logs, proctable
from .events import ChildSpawned, Event, ForkRefused, ZygoteGone, ZygoteReady
from .processes import Processes, daemon_environ
from .sysfiles import contents
from .values import Interpreter
from .watch import Watch

logger = logging.getLogger(__name__)

PROTOCOL = 2

# Whoever imports for longer is taken for one that hangs.
PREPARE_SECONDS = 120.0

# A fork takes a millisecond or two. A zygote that says nothing for so long was stopped, say.
FORK_SECONDS = 10.0

# A daemon that waits for its zygote to be ready waits so long at most, and for half of the time
# that it may take to start.
PATIENCE_SECONDS = 30.0

# Larger ones might not fit the socket's buffer, where they must go as a whole.
_MESSAGE_BYTES = 96 * 1024

# What a daemon's command line and environment may need beyond the zygote's own: its name and token,
# and variables of another terminal.
_ROOM_COMMAND_BYTES = 160
_ROOM_MARK = "-" * 1024

# Between the end of its socket and its own.
_END_SECONDS = 0.5

_RECEIVE_BYTES = 64 * 1024
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(slots=True)
class _Fork:
    """A daemon that is to be forked; not `is_wanted`: its process is to be killed."""

    request: control.StartDaemon
    message: bytes
    log_fd: int | None  # until it is sent
    log_offset: int
    until: float
    is_wanted: bool = True

    def close(self) -> None:
        if self.log_fd is not None:
            os.close(self.log_fd)
            self.log_fd = None


@dataclass(slots=True)
class _Zygote:
    number: int
    child: subprocess.Popen[bytes]
    socket: socket.socket
    until: float | None  # when it is to be ready
    unsent: deque[int] = field(default_factory=deque)
    forks: dict[int, _Fork] = field(default_factory=dict)  # not yet answered
    is_ending: bool = False
    problem: str = ""
    lasts: bool = False  # the next one would have the same problem


class Zygotes:
    """The zygotes of this supervisor, by the numbers that the core gives them.

    Args:
        paths: For logs.
        watch: What the loop waits for.
        processes: Where their daemons are watched.
        descriptor_limit: As for daemons.
    """

    def __init__(
        self,
        paths: Paths,
        watch: Watch,
        processes: Processes,
        *,
        descriptor_limit: int | None = None,
    ) -> None:
        self._paths = paths
        self._watch = watch
        self._processes = processes
        self._descriptor_limit = descriptor_limit
        self._zygotes: dict[int, _Zygote] = {}
        self._last_fork = 0
        processes.expects_orphans = lambda: any(
            len(each.forks) > len(each.unsent) for each in self._zygotes.values()
        )

    # --- what the core wants --------------------------------------------------------------------

    def start(
        self, number: int, request: control.StartDaemon, interpreter: Interpreter, cwd: str = "/"
    ) -> list[Event]:
        """Start one for daemons such as this."""
        boot = self._processes.boot_of(request)
        if not os.path.isfile(os.path.join(os.path.dirname(boot), "zygote.py")):
            return [ZygoteGone(number, "its kernel is too old to be forked", is_unfit=True)]
        try:
            adopt_orphans()
            descriptors.check_room(1)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            return [ZygoteGone(number, str(error), is_unfit=True)]
        with theirs:
            try:
                sys_path = list(map(_said, request.sys_path)) if request.preload else []
                child = self._spawn(request, interpreter, boot, theirs.fileno(), cwd)
            except (OSError, ValueError) as error:
                ours.close()
                return [ZygoteGone(number, f"it could not be executed: {error}")]
        descriptors.limit_to(self._descriptor_limit, child.pid)
        ours = socket.socket(fileno=descriptors.put_away(ours.detach()))
        ours.setblocking(False)
        zygote = _Zygote(number, child, ours, time.monotonic() + PREPARE_SECONDS)
        self._zygotes[number] = zygote
        self._watch.put(ours.fileno())
        _send(zygote, json.dumps({"preload": request.preload, "sys_path": sys_path}).encode())
        return []

    def _spawn(
        self, request: control.StartDaemon, interpreter: Interpreter, boot: str, fd: int, cwd: str
    ) -> subprocess.Popen[bytes]:
        environ = daemon_environ(request, interpreter)
        environ[DAEMON_VARIABLE] = _ROOM_MARK  # last, where the room is; and the mark of no daemon
        room = "-" * (len(os.fsencode(self._paths.runtime)) + _ROOM_COMMAND_BYTES)
        zygote = ["--zygote", str(PROTOCOL), str(fd), *request.preload, room]
        log_fd = logs.open_for_append(self._paths.zygotes_log)
        try:
            return children.start(
                [interpreter.executable, boot, *zygote],
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                pass_fds=(fd,),
                start_new_session=True,
                cwd=cwd,
                env=environ,
            )
        finally:
            os.close(log_fd)

    def fork(
        self, number: int, request: control.StartDaemon, interpreter: Interpreter
    ) -> list[Event]:
        """Have a daemon forked, as soon as it is ready. `ChildSpawned` or `ForkRefused` follows."""
        zygote = self._zygotes.get(number)
        if zygote is None or zygote.is_ending:
            return [ForkRefused(request.name, number, "it has ended")]
        self._last_fork += 1
        arguments = request.name, request.token, str(self._paths.runtime)
        try:
            header: dict[str, Any] = {
                "id": self._last_fork,
                "arguments": [_said(each) for each in arguments],
                "command": _block(self._processes.command(request, interpreter)),
                "environ": _environment(daemon_environ(request, interpreter)),
                "cwd": _said(request.cwd),
            }
        except ValueError as error:  # a plain start tells the user
            return [ForkRefused(request.name, number, f"its environment is unusable: {error}")]
        message = json.dumps(header).encode()
        if len(message) > _MESSAGE_BYTES:
            return [ForkRefused(request.name, number, "its environment is too large")]
        if not os.path.isdir(request.cwd):
            return [ForkRefused(request.name, number, f"{request.cwd} is no directory")]
        try:
            descriptors.check_room(2)
            log_fd = logs.open_for_append(self._paths.log_file(request.name))
        except OSError as error:
            return [ForkRefused(request.name, number, str(error))]
        patience = min(request.start_timeout / 2, PATIENCE_SECONDS)
        zygote.forks[self._last_fork] = _Fork(
            request, message, log_fd, os.fstat(log_fd).st_size, time.monotonic() + patience
        )
        zygote.unsent.append(self._last_fork)
        self._flush(zygote)
        return []

    def disown(self, name: str) -> None:
        """The daemon of this name is started in another way; a process that comes is killed."""
        for zygote in self._zygotes.values():
            for number, fork in list(zygote.forks.items()):
                if fork.request.name == name:
                    fork.is_wanted = False
                    if number in zygote.unsent:
                        _withdraw(zygote, number)

    def end(self, number: int) -> list[Event]:
        """End a zygote, when it has answered what it was asked."""
        zygote = self._zygotes.get(number)
        if zygote is None:
            return []
        zygote.is_ending = True
        refused = [
            ForkRefused(_withdraw(zygote, each).name, number, "it was ended")
            for each in list(zygote.unsent)
        ]
        if zygote.until is not None:
            _kill(zygote)  # it hears nothing while it imports
        else:
            zygote.socket.shutdown(socket.SHUT_WR)
        return [*refused]

    def close(self) -> None:
        """End all, now."""
        for zygote in list(self._zygotes.values()):
            self._forget(zygote)

    def memory_bytes(self, number: int) -> int:
        """What it has in memory; 0 where that cannot be told."""
        zygote = self._zygotes.get(number)
        if zygote is not None:
            with suppress(OSError, ValueError, IndexError):
                resident = contents(f"/proc/{zygote.child.pid}/statm").split()[1]
                return int(resident) * os.sysconf("SC_PAGE_SIZE")
        return 0

    # --- what zygotes say -----------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When to `advance` though nothing is to be read."""
        due = [each.until for each in self._zygotes.values() if each.until is not None]
        due += [fork.until for each in self._zygotes.values() for fork in each.forks.values()]
        return min(due, default=None)

    def advance(self) -> Iterator[Event]:
        """Everything that was said, and what was to be by now. Cheap where there is nothing."""
        now = time.monotonic()
        for zygote in list(self._zygotes.values()):
            yield from self._receive(zygote)
            if zygote.number in self._zygotes:
                self._flush(zygote)
                yield from self._keep_time(zygote, now)

    def _receive(self, zygote: _Zygote) -> Iterator[Event]:
        while True:
            try:
                data = zygote.socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it has not read all that it was sent; what it has said is still there
            if not data:
                yield from self._gone(zygote)
                return
            try:
                yield from self._take(zygote, json.loads(data))
            except (ValueError, KeyError, TypeError) as error:
                logger.warning("zygote %d says %.200r: %r", zygote.number, data, error)
                _kill(zygote)

    def _take(self, zygote: _Zygote, header: dict[str, Any]) -> Iterator[Event]:
        match header["type"]:
            case "ready":
                zygote.until = None
                now = time.monotonic()
                for fork in zygote.forks.values():
                    fork.until = now + FORK_SECONDS
                yield ZygoteReady(zygote.number, zygote.child.pid, float(header["seconds"]))
            case "unfit":
                zygote.problem = str(header["reason"])
                zygote.lasts = header["lasts"] is True
            case "forked":
                yield from self._forked(zygote, int(header["id"]), int(header["pid"]))
            case "refused":
                fork = zygote.forks.pop(int(header["id"]))
                if fork.is_wanted:
                    is_stale = header.get("is_stale") is True
                    reason = str(header["reason"])
                    yield ForkRefused(fork.request.name, zygote.number, reason, is_stale)

    def _forked(self, zygote: _Zygote, number: int, pid: int) -> Iterator[Event]:
        fork = zygote.forks.pop(number)
        request = fork.request
        if not fork.is_wanted:
            identity = proctable.identify(pid)
            if identity is not None:
                self._processes.signal(identity, "SIGKILL", request.mark)
            return
        identity = self._processes.adopt(request.name, pid)
        yield ChildSpawned(request.name, identity, fork.log_offset, request.mark, zygote.number)

    def _keep_time(self, zygote: _Zygote, now: float) -> Iterator[Event]:
        if zygote.until is not None and now >= zygote.until:
            zygote.problem = f"it was not ready within {PREPARE_SECONDS:g} s"
            _kill(zygote)
            zygote.until = None
        for number, fork in list(zygote.forks.items()):
            if now < fork.until:
                continue
            if number in zygote.unsent:
                # It is still importing, and may become ready for others.
                request = _withdraw(zygote, number)
                yield ForkRefused(request.name, zygote.number, "it was not ready in time")
            else:
                zygote.problem = f"it did not answer within {FORK_SECONDS:g} s"
                _kill(zygote)
                fork.until = now + FORK_SECONDS

    def _flush(self, zygote: _Zygote) -> None:
        """Send what waits; a zygote that imports, or ends, is sent nothing."""
        if zygote.until is not None or zygote.is_ending:
            return
        while zygote.unsent:
            fork = zygote.forks[zygote.unsent[0]]
            if not _send(zygote, fork.message, fork.log_fd):
                break
            zygote.unsent.popleft()
            fork.close()
            fork.until = time.monotonic() + FORK_SECONDS
        self._watch.put(zygote.socket.fileno(), writes=bool(zygote.unsent))

    def _gone(self, zygote: _Zygote) -> Iterator[Event]:
        """Nothing is left that could answer: whatever it has not answered was not done."""
        code = self._forget(zygote)
        reason = zygote.problem or (
            "it was ended" if zygote.is_ending else f"it ended with exit code {code}"
        )
        yield ZygoteGone(zygote.number, reason, is_unfit=zygote.lasts)
        for fork in zygote.forks.values():
            fork.close()
            if fork.is_wanted:
                yield ForkRefused(fork.request.name, zygote.number, reason)

    def _forget(self, zygote: _Zygote) -> int:
        del self._zygotes[zygote.number]
        self._watch.drop(zygote.socket.fileno())
        zygote.socket.close()
        if zygote.until is not None:
            _kill(zygote)
        try:
            # It ends by itself, or has ended.
            return zygote.child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(zygote)
            return zygote.child.wait()


def _kill(zygote: _Zygote) -> None:
    """End it with those that wait for requests."""
    if zygote.child.returncode is None:  # else its pid may be another's
        os.killpg(zygote.child.pid, signal.SIGKILL)


def _said(text: str) -> str:
    """As a message has it: what this process would hand the system, as UTF-8."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def _block(texts: list[str]) -> str:
    """These joined by NULs; raises ValueError where one has a NUL."""
    if any("\0" in each for each in texts):
        raise ValueError("embedded null byte")
    return _said("\0".join(texts))


def _environment(environ: dict[str, str]) -> str:
    """The block of these variables; raises ValueError where no process can have them."""
    if any(not name or "=" in name for name in environ):
        raise ValueError("illegal environment variable name")
    return _block([f"{name}={value}" for name, value in environ.items()])


def _send(zygote: _Zygote, message: bytes, fd: int | None = None) -> bool:
    """False when there is no room for it now."""
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    try:
        zygote.socket.sendmsg([message], rights, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return False
    except OSError as error:
        # It is about to be found gone.
        logger.info("zygote %d hears nothing: %s", zygote.number, error)
    return True


def _withdraw(zygote: _Zygote, number: int) -> control.StartDaemon:
    """Take back what was not sent."""
    zygote.unsent.remove(number)
    fork = zygote.forks.pop(number)
    fork.close()
    return fork.request


def adopt_orphans(is_wanted: bool = True) -> None:
    """Have what a zygote forks become our children; raises OSError where that cannot be."""
    if not sys.platform.startswith("linux"):
        raise OSError("zygotes need Linux")
    import ctypes  # here, since most supervisors never need it

    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_CHILD_SUBREAPER, int(is_wanted), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this system has no subreapers")
