"""One look at the daemons' processes from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from . import proctable
from .events import HealthSampled
from .sysfiles import contents
from .values import Identity, ProcessState, Sample

# CPU time comes in ticks of 10 ms: over a shorter stretch a share of it would be mostly noise.
_CPU_STRETCH_SECONDS = 0.5


# Linux is read from /proc, whose one line of a process has nearly all: of three hundred daemons in
# a third of the time that psutil takes, and somebody who asks for a listing waits for it.
_HAS_PROC = os.path.isfile("/proc/self/stat")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class _Seen:
    at: float
    cpu_seconds: float
    cpu_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has and has had."""

    cpu_seconds: float
    rss_bytes: int
    state: ProcessState


class Health:
    """Remembers what CPU time each process had used, to tell what it uses now."""

    def __init__(self, *, has_proc: bool = _HAS_PROC) -> None:
        self._usage = usage_from_proc if has_proc else usage_from_psutil
        self._seen: dict[Identity, _Seen] = {}

    def sample(self, processes: Iterable[tuple[str, Identity]]) -> HealthSampled:
        """One pass over these processes; those that have gone are left out."""
        seen, self._seen = self._seen, {}
        samples: dict[str, Sample] = {}
        for name, identity in processes:
            usage = self._usage(identity)
            if usage is not None:
                one = self._seen[identity] = seen.get(identity) or _first_look(identity)
                samples[name] = _look(one, usage)
        return HealthSampled(samples)


def usage_from_proc(identity: Identity) -> Usage | None:
    """None where that very process has gone."""
    try:
        line = contents(f"/proc/{identity.pid}/stat")
    except OSError:
        return None
    # Counted from the state, which follows the command in parentheses: see proc(5).
    found = line[line.rindex(b")") + 2 :].split()
    if int(found[19]) != identity.start_ticks:
        return None
    cpu_seconds = (int(found[11]) + int(found[12])) / _TICKS
    state = proctable.STATES.get(found[0], "other")
    return Usage(cpu_seconds, int(found[21]) * _PAGE_BYTES, state)


def usage_from_psutil(identity: Identity) -> Usage | None:
    """The same, on any system."""
    try:
        process = psutil.Process(identity.pid)
        with process.oneshot():
            if not proctable.is_alive(identity):
                return None
            times = process.cpu_times()
            return Usage(
                times.user + times.system,
                process.memory_info().rss,
                proctable.STATES.get(process.status(), "other"),
            )
    except psutil.Error:
        return None


def _first_look(identity: Identity) -> _Seen:
    # Its first share is that of its whole life.
    return _Seen(time.monotonic() - proctable.age_seconds(identity), 0.0)


def _look(seen: _Seen, usage: Usage) -> Sample:
    now = time.monotonic()
    if now - seen.at >= _CPU_STRETCH_SECONDS:
        seen.cpu_percent = 100 * (usage.cpu_seconds - seen.cpu_seconds) / (now - seen.at)
        seen.at, seen.cpu_seconds = now, usage.cpu_seconds
    return Sample(
        rss_bytes=usage.rss_bytes,
        cpu_percent=round(max(0.0, seen.cpu_percent), 1),
        state=usage.state,
    )
