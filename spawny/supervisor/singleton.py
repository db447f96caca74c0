"""One supervisor per user: a lock held for as long as it serves."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..errors import SpawnyError

# One that is about to end has closed its socket already; it frees the lock in a moment.
PATIENCE_SECONDS = 5.0


class AlreadyRunning(SpawnyError):
    """Another supervisor serves this user."""


@contextmanager
def hold(
    lock: Path,
    serving: Path,
    patience_seconds: float = PATIENCE_SECONDS,
    *,
    held_fd: int | None = None,
) -> Iterator[int]:
    """Be the one supervisor, and give the lock's descriptor; only from the main thread.

    `held_fd` is that of the version that has become this one: the lock goes with the open file.

    Raises `AlreadyRunning` when another one answers at the socket `serving`, or does not let go of
    the lock.
    """
    fd = _acquire(lock, serving, patience_seconds) if held_fd is None else held_fd
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    try:
        yield fd
    finally:
        # Removed before it is freed: whoever waits for it notices that the file is not the one of
        # this path any more, and takes a new one. If it is not ours any more, it stays.
        if is_at(fd, lock):
            lock.unlink(missing_ok=True)
        os.close(fd)


def _acquire(lock: Path, serving: Path, patience_seconds: float) -> int:
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not _try(fd) and (is_answered(serving) or not _wait(fd, patience_seconds)):
                pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
                raise AlreadyRunning(f"another supervisor (pid {pid or 'unknown'}) serves already")
            if is_at(fd, lock):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(fd: int, seconds: float) -> bool:
    """Wait for the lock; flock has no timeout of its own, but a signal that raises ends it."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except TimeoutError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True


def renew(fd: int, lock: Path) -> bool:
    """Have the lock again, under the same descriptor, when its file is gone from its path.

    False when another supervisor has it.
    """
    new = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not _try(new) or not is_at(new, lock):
            return False
        os.ftruncate(new, 0)
        os.pwrite(new, f"{os.getpid()}\n".encode(), 0)
        os.dup2(new, fd, inheritable=False)
    finally:
        os.close(new)
    return True


def is_at(fd: int, path: Path) -> bool:
    """Whether the file that is open as `fd` is the one of this path."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def is_answered(path: Path) -> bool:
    """Whether anybody accepts connections at this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True
