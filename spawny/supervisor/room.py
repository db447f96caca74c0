"""How much memory is free: the least of what the machine has and what our cgroups allow.

Pages of files that can be dropped count as free, as they do in MemAvailable.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from .sysfiles import contents

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

# What a daemon takes shows when it has loaded, so a figure this old is as good as a new one.
_GOOD_FOR_SECONDS = 0.2


class Room:
    """The figure for starts that follow each other."""

    def __init__(self) -> None:
        self._found: int | None = None
        self._good_until = 0.0

    def free_bytes(self) -> int | None:
        """As `free_bytes`, or as it was a moment ago."""
        now = time.monotonic()
        if now >= self._good_until:
            self._found = free_bytes()
            self._good_until = now + _GOOD_FOR_SECONDS
        return self._found


def free_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """The figure; None where the system does not tell (macOS)."""
    found = [_available(proc), *_rooms(proc, cgroups)]
    return min((each for each in found if each is not None), default=None)


def _available(proc: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in contents(f"{proc}/meminfo").splitlines():
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _rooms(proc: Path, cgroups: Path) -> Iterator[int]:
    """What is left in our cgroup, and in each one around it."""
    with suppress(OSError):
        for line in os.fsdecode(contents(f"{proc}/self/cgroup")).splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                names = "memory.max", "memory.current"
                roots = [cgroups, cgroups / "unified"]
            elif "memory" in controllers.split(","):
                names = "memory.limit_in_bytes", "memory.usage_in_bytes"
                roots = [cgroups / "memory"]
            else:
                continue
            inner = PurePosixPath(path.lstrip("/"))
            for root in roots:
                # In a container the path may be that of the host: then its root is what we see.
                for each in (inner, *inner.parents):
                    room = _room(root / each, *names)
                    if room is not None:
                        yield room


def _room(folder: Path, limit_name: str, usage_name: str) -> int | None:
    try:
        limit = int(contents(f"{folder}/{limit_name}"))
        usage = int(contents(f"{folder}/{usage_name}"))
        stat = dict(line.split() for line in contents(f"{folder}/memory.stat").splitlines())
    except (OSError, ValueError):  # "max": no limit; or no such cgroup
        return None
    prefix = b"total_" if b"total_inactive_file" in stat else b""
    files = sum(int(stat.get(prefix + kind, 0)) for kind in (b"active_file", b"inactive_file"))
    return max(0, limit - usage + files)
