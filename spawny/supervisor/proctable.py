"""What the operating system says of processes: who each is, and who came out of whom.

Linux is read from /proc, anything else through psutil; tests compare the two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from ..address import DAEMON_VARIABLE
from .sysfiles import contents
from .values import Identity, ProcessState

_HAS_PROC = os.path.isfile("/proc/self/stat")
_MARK_BEGINS = b"\0" + DAEMON_VARIABLE.encode() + b"="
_EMPTY_LOOKS = 20

# There is no such process, or it is another user's. Anything else (no descriptor is left, say)
# tells nothing of it.
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
_PSUTIL_TICKS = 100  # psutil gives seconds; as precise as Linux's own ticks


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table."""

    pid: int
    ppid: int
    group: int
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
    """The process of this pid, a zombie too; None when there is none.

    Raises OSError when it cannot be looked at, as do all that look here, but for those that say
    otherwise.
    """
    return _read_proc(pid) if _HAS_PROC else _read_psutil(pid)


def _read_proc(pid: int) -> Process | None:
    try:
        line = contents(f"/proc/{pid}/stat")
    except _GONE:
        return None
    return _parsed(pid, line)


def _parsed(pid: int, line: bytes) -> Process:
    # The second field is the command in parentheses, which may itself hold spaces and parentheses.
    state, ppid, group, session, *rest = line[line.rindex(b")") + 2 :].split()
    # One whose main thread alone has ended is a zombie by its state, and lives.
    is_zombie = state in (b"Z", b"X") and int(rest[13]) <= 1
    return Process(pid, int(ppid), int(group), int(session), int(rest[15]), is_zombie)


def _read_psutil(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        ticks = round(process.create_time() * _PSUTIL_TICKS)
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        group, session = os.getpgid(pid), os.getsid(pid)
        return Process(pid, process.ppid(), group, session, ticks, is_zombie)
    except (psutil.Error, *_GONE):
        return None


def everything(besides: Collection[int] = ()) -> Iterator[Process]:
    """Every process there is, but for these pids."""
    pids: Iterable[int] = (
        map(int, filter(str.isdigit, os.listdir("/proc"))) if _HAS_PROC else (psutil.pids())
    )
    found = (read(pid) for pid in pids if pid not in besides)
    return (process for process in found if process is not None)


def identify(pid: int) -> Identity | None:
    """Who has this pid now; None when nobody has."""
    process = read(pid)
    return process.identity if process else None


def is_alive(identity: Identity) -> bool:
    """Whether that very process still runs; a zombie does not.

    One that cannot be looked at does: nothing is taken for dead for want of a descriptor.
    """
    try:
        process = read(identity.pid)
    except OSError:
        return True
    return process is not None and process.identity == identity and not process.is_zombie


STATES: dict[bytes | str, ProcessState] = {
    b"T": "stopped",
    b"t": "stopped",  # by a debugger
    b"D": "uninterruptible",
    b"Z": "zombie",
    psutil.STATUS_STOPPED: "stopped",
    psutil.STATUS_TRACING_STOP: "stopped",
    psutil.STATUS_DISK_SLEEP: "uninterruptible",
    psutil.STATUS_ZOMBIE: "zombie",
}


def state(identity: Identity) -> ProcessState | None:
    """What that very process does; None where it is gone, or cannot be looked at."""
    try:
        if _HAS_PROC:
            line = contents(f"/proc/{identity.pid}/stat")
            process = _parsed(identity.pid, line)
            is_it = process.identity == identity and not process.is_zombie
            return STATES.get(line[line.rindex(b")") + 2 :][:1], "other") if is_it else None
        found = psutil.Process(identity.pid).status()
    except (psutil.Error, OSError):
        return None
    return STATES.get(found, "other") if is_alive(identity) else None


def age_seconds(identity: Identity) -> float:
    """How long ago it started."""
    if _HAS_PROC:
        began_at = identity.start_ticks / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began_at)
    return max(0.0, time.time() - identity.start_ticks / _PSUTIL_TICKS)


def group_members(leader: Identity) -> list[Identity]:
    """Who runs in the process group that this living process leads; itself included."""
    if not is_alive(leader):
        return []
    return [
        each.identity for each in everything() if each.group == leader.pid and not each.is_zombie
    ]


def family(leader: Identity, mark: str, spared: Collection[Identity] = ()) -> list[Identity]:
    """What came out of this process, dead or alive, and still runs; without itself.

    That is who runs in the session that it led, who has `mark` in its environment (which is
    inherited whatever a process does to its session and its parents), and all descendants of these.
    Whoever has the mark of another daemon belongs to that one, with all that comes out of it. Of
    `spared` that is known, and there may be hundreds of them: they are not looked at.
    """
    table = {each.pid: each for each in everything({each.pid for each in spared})}
    at_its_pid = table.pop(leader.pid, None)
    # A pid is not given out again while a session carries it: where another process has it,
    # nothing of the old session is left, and the children of that process are its own.
    is_its_own = at_its_pid is None or at_its_pid.identity == leader
    marks: dict[int, str | None] = {}
    found: list[Process] = []
    children: dict[int, list[Process]] = {}
    for each in table.values():
        children.setdefault(each.ppid, []).append(each)
        if each.is_zombie or each.pid == os.getpid() or each.start_ticks < leader.start_ticks:
            continue
        marks[each.pid] = _mark_of(each)
        is_near = is_its_own and leader.pid in (each.session, each.ppid)
        if is_near or (mark and marks[each.pid] == mark):
            found.append(each)
    members: dict[int, Process] = {}
    for each in found:  # grows as it goes
        if each.pid in marks and each.pid not in members and marks[each.pid] in (None, mark):
            members[each.pid] = each
            found += children.get(each.pid, [])
    return [each.identity for each in members.values()]


def _mark_of(process: Process) -> str | None:
    """Which daemon a process was begun under; None where it has no mark, or is not ours to read."""
    if process.session == 0:
        return None  # the kernel's own
    if not _HAS_PROC:
        try:
            return psutil.Process(process.pid).environ().get(DAEMON_VARIABLE)
        except (psutil.Error, OSError):
            return None
    data = b""
    try:
        # In the middle of an exec there is no environment, for some microseconds.
        for _ in range(_EMPTY_LOOKS):
            if data := contents(f"/proc/{process.pid}/environ"):
                break
            os.sched_yield()
    except OSError:
        return None
    _, is_there, rest = (b"\0" + data).partition(_MARK_BEGINS)
    return os.fsdecode(rest.partition(b"\0")[0]) if is_there else None
