"""What the operating system says of processes: who each is, its descendants, its session.

Linux is read from /proc, anything else through psutil; tests compare the two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from .values import Identity

_HAS_PROC = os.path.isfile("/proc/self/stat")
_PSUTIL_TICKS = 100  # psutil gives seconds; as precise as Linux's own ticks


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table."""

    pid: int
    ppid: int
    session: int
    start_ticks: int
    is_zombie: bool

    @property
    def identity(self) -> Identity:
        return Identity(boot_id(), self.pid, self.start_ticks)


@cache
def boot_id() -> str:
    """Which run of the machine this is: pids and start times mean nothing in another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(int(psutil.boot_time()))


def read(pid: int) -> Process | None:
    """The process of this pid, a zombie too; None when there is none."""
    return _read_proc(pid) if _HAS_PROC else _read_psutil(pid)


def _read_proc(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError:
        return None
    # The second field is the command in parentheses, which may itself hold spaces and parentheses.
    state, ppid, _group, session, *rest = line[line.rindex(b")") + 2 :].split()
    return Process(pid, int(ppid), int(session), int(rest[15]), state in (b"Z", b"X"))


def _read_psutil(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        ticks = round(process.create_time() * _PSUTIL_TICKS)
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return Process(pid, process.ppid(), os.getsid(pid), ticks, is_zombie)
    except (psutil.Error, OSError):
        return None


def everything() -> Iterator[Process]:
    """Every process there is."""
    pids: Iterable[int] = (
        map(int, filter(str.isdigit, os.listdir("/proc"))) if _HAS_PROC else (psutil.pids())
    )
    return (process for pid in pids if (process := read(pid)) is not None)


def identify(pid: int) -> Identity | None:
    """Who has this pid now; None when nobody has."""
    process = read(pid)
    return process.identity if process else None


def is_alive(identity: Identity) -> bool:
    """Whether that very process still runs; a zombie does not."""
    process = read(identity.pid)
    return process is not None and process.identity == identity and not process.is_zombie


def age_seconds(identity: Identity) -> float:
    """How long ago it started."""
    if _HAS_PROC:
        began_at = identity.start_ticks / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began_at)
    return max(0.0, time.time() - identity.start_ticks / _PSUTIL_TICKS)


def descendants(identity: Identity) -> list[Identity]:
    """Its children, theirs, and so on; without itself."""
    children: dict[int, list[Process]] = {}
    for process in everything():
        children.setdefault(process.ppid, []).append(process)
    found: list[Process] = list(children.get(identity.pid, []))
    for process in found:  # grows as it goes
        found += children.get(process.pid, [])
    return [process.identity for process in found]


def session_members(identity: Identity) -> list[Identity]:
    """Who runs in the session that this process led; without itself.

    A pid is not given out again while a session carries it, unless to nobody but the same leader:
    where another process has it, nothing of the old session is left.
    """
    leader = read(identity.pid)
    if leader is not None and leader.identity != identity:
        return []
    return [
        process.identity
        for process in everything()
        if process.session == identity.pid and process.pid != identity.pid and not process.is_zombie
    ]
