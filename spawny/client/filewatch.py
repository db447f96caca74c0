"""Waiting until a file may have changed.

Two ways with one face: inotify on Linux, and a timer everywhere else. Either may wake too often,
never too seldom: who waits looks at the file each time.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import Protocol

# What a person who follows a log takes for "at once"; an idle look costs one stat().
LOOK_INTERVAL_SECONDS = 0.25

_IN_MODIFY = 0x002
_IN_MOVED_TO = 0x080
_IN_CREATE = 0x100


class FileWatch(Protocol):
    """One watched file."""

    def wait(self, stop: int | None = None) -> bool:
        """Return True when the file may have changed, False once `stop` (a descriptor) is readable.

        What happened since the watch was made, or since the last wait, counts.
        """

    def close(self) -> None:
        """Stop watching."""


class InotifyWatch:
    """Told by the kernel; raises `OSError` where that is not to be had.

    The file itself is watched for writing and truncation, its directory for a file that takes its
    place; the latter one alone would wake for every write to every other log.
    """

    def __init__(self, path: str) -> None:
        if sys.platform != "linux":
            raise OSError("inotify is Linux's")
        import ctypes  # for this only: 10 ms that no other command should pay

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._path = os.fsencode(path)
        self._descriptor = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            self._add(os.path.dirname(self._path) or b".", _IN_CREATE | _IN_MOVED_TO)
            self._watch_file()
        except OSError:
            self.close()
            raise

    def wait(self, stop: int | None = None) -> bool:
        """See `FileWatch`."""
        if stop in _wait_readable(None, self._descriptor, stop):
            return False
        os.read(self._descriptor, 65536)  # which events these are does not matter
        self._watch_file()
        return True

    def close(self) -> None:
        """See `FileWatch`."""
        os.close(self._descriptor)

    def _watch_file(self) -> None:
        # Where it is not there, its directory will tell when it is. Watched again, the same file
        # still has one watch.
        with contextlib.suppress(FileNotFoundError):
            self._add(self._path, _IN_MODIFY)

    def _add(self, path: bytes, mask: int) -> None:
        self._checked(self._libc.inotify_add_watch(self._descriptor, path, mask))

    def _checked(self, result: int) -> int:
        if result < 0:
            import ctypes

            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result


class TimerWatch:
    """The portable fallback: look every so often."""

    def __init__(self, path: str) -> None:
        pass

    def wait(self, stop: int | None = None) -> bool:
        """See `FileWatch`."""
        return stop not in _wait_readable(LOOK_INTERVAL_SECONDS, stop)

    def close(self) -> None:
        """Nothing to release."""


def watch_file(path: str) -> FileWatch:
    """The best watch that is to be had here."""
    try:
        return InotifyWatch(path)
    except OSError:  # another platform, or the user's inotify instances are used up
        return TimerWatch(path)


def _wait_readable(seconds: float | None, *descriptors: int | None) -> set[int | None]:
    """Those that are readable, at the latest after so many seconds; None is never."""
    poll = select.poll()
    for descriptor in descriptors:
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
    return {found for found, _ in poll.poll(None if seconds is None else seconds * 1000)}
