"""Thousands of daemons, one after the other, under one supervisor: does it grow?"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from footprint import MIB, memory_bytes
from harness import Figure, Section, private_home

import spawny
from spawny.client.ending import wait_gone
from spawny.supervisor.fleet import ENDED_KEPT

GROWTH_GOAL_MIB = 5.0

# Looked at so often over the whole run.
LOOKS = 20

# Before it counts: the allocator's ease, and as many ended daemons as are remembered by name.
WARM_UP_CYCLES = 100

# The conversation of the client that asks has one, which may be closed already or not yet.
ASKING_DESCRIPTORS = 1

_PATIENCE_SECONDS = 30.0


def measure(cycles: int) -> Section:
    """Descriptors and memory of the supervisor along the way."""
    with private_home() as home:
        supervisor = spawny.connect()
        pid = supervisor.version().pid
        for number in range(WARM_UP_CYCLES):
            _cycle(supervisor, number)
        fds, rss = [_fds(pid)], [memory_bytes(pid)[0]]
        began = time.monotonic()
        every = max(1, cycles // LOOKS)
        for number in range(cycles):
            _cycle(supervisor, number)
            if (number + 1) % every == 0:
                fds.append(_fds(pid))
                rss.append(memory_bytes(pid)[0])
        seconds = time.monotonic() - began
        left = [each.name for each in supervisor.list()]
        left += [each.name for each in (home / "run" / "d").iterdir()]
        journal = [each.name for each in (home / "run" / "journal").iterdir()]
        left += [name for name in journal if name.endswith(".json")]
        ended = sum(name.endswith(".ended") for name in journal)
    course = " ".join(f"{each / MIB:.1f}" for each in rss)
    return Section(
        "Daemons started and ended",
        f"{cycles} in a row under one supervisor, after {WARM_UP_CYCLES} that do not count; in turn"
        " an unnamed one that ends with its last client, a named one that is stopped, and one that"
        f" is killed. Of the supervisor, {len(rss)} times along the way: its descriptors and its"
        " resident memory.",
        (
            Figure("daemons started and ended", cycles, ""),
            Figure("a start and an end, mean", 1000 * seconds / cycles, "ms"),
            Figure("descriptors at first", fds[0], ""),
            Figure(
                "descriptors more at most",
                max(fds) - fds[0],
                "",
                limit=ASKING_DESCRIPTORS,
                note=" ".join(map(str, fds)),
            ),
            Figure("RSS at first", rss[0] / MIB, "MiB"),
            Figure(
                "RSS more at most",
                (max(rss) - rss[0]) / MIB,
                "MiB",
                limit=GROWTH_GOAL_MIB,
                note=course,
            ),
            Figure("ended daemons that are remembered", ended, "", limit=ENDED_KEPT),
            Figure(
                "daemons, sockets and journals left", len(left), "", limit=0, note=" ".join(left)
            ),
        ),
    )


def _cycle(supervisor: spawny.Supervisor, number: int) -> None:
    way = number % 3
    module = spawny.run_script("x = 1", name=None if way == 0 else f"cycle-{number}")
    name, pid = spawny.daemon(module).name, spawny.daemon(module).pid
    with wait_gone(pid) as wait:
        if way == 0:
            del module
        elif way == 1:
            supervisor.stop(name)
        else:
            os.kill(pid, signal.SIGKILL)
        if not wait(_PATIENCE_SECONDS):
            raise TimeoutError(f"daemon {name!r} (pid {pid}) does not end")
    # The process is gone; the supervisor sees that at the same moment. Asked, it has seen it.
    while supervisor.list():
        pass


def _fds(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
