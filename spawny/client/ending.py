"""Waiting for the end of a process that is not our child."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Where the system has no pidfd (macOS, Linux before 5.3).
_LOOK_AGAIN_SECONDS = 0.05


@contextmanager
def wait_gone(pid: int) -> Iterator[Callable[[float], bool]]:
    """A function that waits up to so many seconds for this process to end, and says if it did.

    Enter it while the process surely is the right one: what is opened then stands for that process,
    whoever gets its number later. Process 0 stands for none, which has always ended.
    """
    if not pid:
        yield lambda seconds: True
        return
    try:
        fd = _pidfd(pid)
    except ProcessLookupError:
        yield lambda seconds: True
        return
    if fd is None:
        yield lambda seconds: _wait_by_looking(pid, seconds)
        return
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    try:
        yield lambda seconds: bool(poller.poll(seconds * 1000))
    finally:
        os.close(fd)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):
        return None


def _wait_by_looking(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return True  # another user's by now
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_AGAIN_SECONDS)
