"""One look at the daemons' processes from outside."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from . import proctable
from .events import HealthSampled
from .values import Identity, Sample

# CPU time comes in ticks of 10 ms: over a shorter stretch a share of it would be mostly noise.
_CPU_STRETCH_SECONDS = 0.5


@dataclass(slots=True)
class _Seen:
    process: psutil.Process
    at: float
    cpu_seconds: float
    cpu_percent: float = 0.0


class Health:
    """Remembers what CPU time each process had used, to tell what it uses now."""

    def __init__(self) -> None:
        self._seen: dict[Identity, _Seen] = {}

    def sample(self, processes: Iterable[tuple[str, Identity]]) -> HealthSampled:
        """One pass over these processes; those that have gone are left out."""
        parents = [each.ppid for each in proctable.everything()]
        seen, self._seen = self._seen, {}
        samples: dict[str, Sample] = {}
        for name, identity in processes:
            try:
                one = seen.get(identity) or _first_look(identity)
                samples[name] = _look(one, parents.count(identity.pid))
                self._seen[identity] = one
            except psutil.Error:
                continue
        return HealthSampled(samples)


def _first_look(identity: Identity) -> _Seen:
    process = psutil.Process(identity.pid)
    if not proctable.is_alive(identity):
        raise psutil.NoSuchProcess(identity.pid)
    # Its first share is that of its whole life.
    return _Seen(process, time.monotonic() - proctable.age_seconds(identity), 0.0)


def _look(seen: _Seen, children: int) -> Sample:
    with seen.process.oneshot():
        times = seen.process.cpu_times()
        used, now = times.user + times.system, time.monotonic()
        if now - seen.at >= _CPU_STRETCH_SECONDS:
            seen.cpu_percent = 100 * (used - seen.cpu_seconds) / (now - seen.at)
            seen.at, seen.cpu_seconds = now, used
        return Sample(
            rss_bytes=seen.process.memory_info().rss,
            cpu_percent=round(max(0.0, seen.cpu_percent), 1),
            threads=seen.process.num_threads(),
            fds=seen.process.num_fds(),
            children=children,
        )
