"""File descriptors, when they become few.

One rule: low numbers are for what comes and goes, what stays is put above them. libzmq aborts the
process when it cannot accept a connection for want of a descriptor (4.3.5; only in want of the
whole machine it does not). It takes the lowest number, as does whatever is opened for a moment, so
there is one left for it however many daemons there are, and even if the limit is lowered.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from contextlib import suppress
from functools import cache

# Of these some twenty are in use for as long as a supervisor lives.
RESERVED = 128

_EXHAUSTED = (errno.EMFILE, errno.ENFILE)


def raise_limit() -> int | None:
    """Allow this process as many as it may have; what it was allowed before, for its children.

    None where it stays as it was.
    """
    if not hasattr(resource, "prlimit"):
        return None  # children could not be given less without a moment of it here
    _first_lasting()  # of the limit that it was started with
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # more than the system has for anybody
        return None
    return soft


def limit_to(soft: int | None, pid: int = 0) -> None:
    """Give a process (this one) the limit that `raise_limit` has told."""
    if soft is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, hard), hard))


@cache
def _first_lasting() -> int:
    # 256 are all that macOS gives.
    return min(RESERVED, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


def put_away(fd: int) -> int:
    """The same under a number that is not reserved; it is closed as `fd`, even by an OSError."""
    try:
        return fd if fd >= _first_lasting() else _lasting(fd)
    finally:
        if fd < _first_lasting():
            os.close(fd)


def _lasting(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _first_lasting())
    except OSError as error:
        if error.errno == errno.EINVAL:  # the first one is above the limit already
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
        raise


def check_room(count: int) -> None:
    """Raise OSError unless so many more can be put away."""
    found: list[int] = []
    try:
        for _ in range(count):
            found.append(_lasting(0))
    finally:
        for each in found:
            os.close(each)


def are_exhausted(error: Exception) -> bool:
    """Whether this is an error for want of descriptors."""
    return getattr(error, "errno", None) in _EXHAUSTED
