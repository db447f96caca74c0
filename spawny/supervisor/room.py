"""How much memory is free: the least of what the machine has and what our cgroups allow.

Pages of files that can be dropped count as free, as they do in MemAvailable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def free_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """The figure; None where the system does not tell (macOS)."""
    found = [_available(proc), *_rooms(proc, cgroups)]
    return min((each for each in found if each is not None), default=None)


def _available(proc: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _rooms(proc: Path, cgroups: Path) -> Iterator[int]:
    """What is left in our cgroup, and in each one around it."""
    with suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
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
        limit = int((folder / limit_name).read_text(encoding="ascii"))
        usage = int((folder / usage_name).read_text(encoding="ascii"))
        stat = dict(
            line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines()
        )
    except (OSError, ValueError):  # "max": no limit; or no such cgroup
        return None
    prefix = "total_" if "total_inactive_file" in stat else ""
    files = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return max(0, limit - usage + files)
