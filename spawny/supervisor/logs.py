"""Log files: opened for appending, cut by copying, read from the end.

Daemons hold their log open for as long as they live, over the death of any supervisor: a log is
therefore rotated by copying it and truncating the original. What is written in between is lost;
every writer appends (`O_APPEND`), so that none leaves a hole.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

TAIL_BYTES = 8 * 1024

# How many times the limit a rotated log may have, if it grew so fast.
_MOST_LIMITS = 2


def open_for_append(path: Path) -> int:
    """A descriptor to write a log with."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def size(path: Path) -> int:
    """Its bytes; 0 without a log."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def rotate(path: Path, limit_bytes: int, files: int) -> bool:
    """Move a log over the limit to `path.1`, that to `path.2`, up to `files`; whether it was."""
    try:
        if path.stat().st_size <= limit_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(files - 1, 0, -1):
        older = _numbered(path, number)
        if older.exists():
            older.replace(_numbered(path, number + 1))
    # First under another name, so that a half-made copy is never taken for a log.
    copy = _numbered(path, 0)
    try:
        with open(path, "rb") as source, open(open_for_append(copy), "wb") as target:
            # Only the end of one that has grown far over the limit since it was looked at last: the
            # supervisor does nothing else meanwhile.
            source.seek(max(0, source.seek(0, os.SEEK_END) - _MOST_LIMITS * limit_bytes))
            shutil.copyfileobj(source, target)
        copy.replace(_numbered(path, 1))
    except OSError as error:
        # The disk is full, and this log is what fills it: it is cut all the same.
        logger.warning("%s is cut without a copy: %s", path, error)
        with suppress(OSError):
            copy.unlink(missing_ok=True)
    os.truncate(path, 0)
    return True


def remove(path: Path) -> None:
    """A log with all that was rotated out of it."""
    for each in [path, *path.parent.glob(f"{path.name}.*")]:
        each.unlink(missing_ok=True)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def tail(
    path: Path, offset: int = 0, limit_bytes: int = TAIL_BYTES, *, until: int | None = None
) -> str:
    """The end of a log, or of the part before `until`, from `offset` at the earliest, in whole
    lines; empty without a log."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if until is not None and until <= size:  # it was not rotated since
                size = until
            begin = offset if offset <= size else 0  # it was rotated since
            start = max(begin, size - limit_bytes)
            file.seek(start)
            text = file.read(min(limit_bytes, size - start))
    except OSError:
        return ""
    if start > begin:
        text = text.partition(b"\n")[2]
    return text.decode("utf-8", "replace")
