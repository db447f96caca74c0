"""Whether a process was killed for want of memory: the system leaves a count, and no name.

Linux kills with SIGKILL, and so does anybody else. So the count of such kills in the process's
memory cgroup is remembered at each look, and asked again when the process has gone. Where it has
none, the count of the whole machine has to tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from .sysfiles import contents
from .values import Identity

_MACHINE = "/proc/vmstat"


@dataclass(frozen=True, slots=True)
class _Counts:
    file: str | None  # of the cgroup
    in_cgroup: int | None
    in_machine: int | None


class OutOfMemory:
    """Remembers counts of kills. A system that keeps none is asked in vain."""

    def __init__(self) -> None:
        self._seen: dict[Identity, _Counts] = {}
        self._in_machine = _count(_MACHINE)  # at the last look: a long file

    def look(self, processes: Iterable[Identity]) -> None:
        """Remember how things stand while these live."""
        self._in_machine = _count(_MACHINE)
        for identity in processes:
            self.note(identity)

    def note(self, identity: Identity) -> None:
        """Remember how things stand as this one begins."""
        file = _file_of(identity.pid)
        self._seen[identity] = _Counts(file, _count(file), self._in_machine)

    def has_killed(self, identity: Identity) -> bool:
        """Whether this process, which has died of a SIGKILL, was most likely killed for that. It is
        forgotten."""
        seen = self._seen.pop(identity, None)
        if seen is None:
            return False
        # Not asked of the dead: its cgroup is told as that of the whole machine.
        now, before = _count(seen.file), seen.in_cgroup
        if now is None or before is None:
            now, before = _count(_MACHINE), seen.in_machine
        return now is not None and before is not None and now > before


def _file_of(pid: int) -> str | None:
    """Where the kills in the memory cgroup of this process are counted."""
    try:
        text = os.fsdecode(contents(f"/proc/{pid}/cgroup"))
    except OSError:
        return None
    groups = {
        controller: path
        for _, controllers, path in (line.split(":", 2) for line in text.splitlines())
        for controller in controllers.split(",")
    }
    if "memory" in groups:
        return f"/sys/fs/cgroup/memory{groups['memory']}/memory.oom_control"
    if "" in groups:
        return f"/sys/fs/cgroup{groups['']}/memory.events"
    return None


def _count(path: str | None) -> int | None:
    if path is None:
        return None
    try:
        words = contents(path).split()
        return int(words[words.index(b"oom_kill") + 1])
    except (OSError, ValueError, IndexError):  # no such cgroup any more, or an older kernel
        return None
