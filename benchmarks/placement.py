"""Which processor runs what: it decides what a round trip costs more than most code does.

Waking a process on another, sleeping core takes tens of microseconds, on the same core a few; and
an end that looks for its answer before it sleeps wins on a core of its own and is in the way on a
shared one. The scheduler's own choice changes with whatever else runs. So calls are measured in all
three placements, and a guard compares within one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

FREE = "as the scheduler likes"
ONE_CORE = "both ends on one core"
OWN_CORES = "each end on a core of its own"

Pin = Callable[[int], None]


def placements() -> dict[str, Pin]:
    """What is possible here: each a function that puts this process and a peer's in place."""
    found: dict[str, Pin] = {FREE: lambda pid: _pin(pid, ALL, ALL)}
    if len(ALL) > 1:
        one, two = sorted(ALL)[:2]
        found[ONE_CORE] = lambda pid: _pin(pid, {one}, {one})
        found[OWN_CORES] = lambda pid: _pin(pid, {one}, {two})
    return found


def release() -> None:
    """This process may run anywhere again."""
    os.sched_setaffinity(0, ALL)


ALL = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _pin(pid: int, ours: set[int], theirs: set[int]) -> None:
    if not ALL:
        return  # not on this system
    os.sched_setaffinity(0, ours)  # the calling thread
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), theirs)
