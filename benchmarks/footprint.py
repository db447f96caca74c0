"""What spawny costs while nothing happens: a supervisor with idle daemons, and those."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness import Figure, Section, private_home

import spawny

COUNTS = (1, 20, 300)

# The goals are of this many.
USUAL = 20
RSS_GOAL_MIB = 35.0
CPU_GOAL_PERCENT = 0.5
# Of any idle daemon, among however many.
WAKE_GOAL_PER_SECOND = 0.5

# After a start there is work to finish: journals, first health samples, the allocator's ease.
SETTLE_SECONDS = 3.0

MIB = 1024 * 1024

METHOD = (
    "Over {seconds:.0f} s in which nobody asked for anything, from /proc: CPU time of all threads"
    " (schedstat), their voluntary context switches as wake-ups, and memory at the end. CPU is in"
    " percent of one core. PSS shares out pages that several processes have. Of daemons the median,"
    " of wake-ups the most that one had. Daemons are executed or forked as spawny chooses."
)


@dataclass(frozen=True)
class Usage:
    """What a process has used since it began, over all of its threads."""

    cpu_nanoseconds: int
    voluntary_switches: int


def measure(seconds: float) -> Section:
    """Memory, CPU and wake-ups of idle fleets over so many seconds each."""
    return Section(
        "Cost at rest",
        METHOD.format(seconds=seconds),
        tuple(each for count in COUNTS for each in _measure(count, seconds)),
    )


def _measure(count: int, seconds: float) -> list[Figure]:
    with private_home():
        start_daemons(f"idle-{number}" for number in range(count))
        supervisor = spawny.connect()
        supervisor_pid = supervisor.version().pid
        pids = [each.pid for each in supervisor.list() if each.pid is not None]
        time.sleep(SETTLE_SECONDS)
        before = {pid: usage(pid) for pid in (supervisor_pid, *pids)}
        began = time.monotonic()
        time.sleep(seconds)
        after = {pid: usage(pid) for pid in before}
        elapsed = time.monotonic() - began
        memory = {pid: memory_bytes(pid) for pid in before}
    cpu = {
        p: (after[p].cpu_nanoseconds - before[p].cpu_nanoseconds) / elapsed / 1e7 for p in before
    }
    wakes = {
        p: (after[p].voluntary_switches - before[p].voluntary_switches) / elapsed for p in before
    }
    rss, pss = memory[supervisor_pid]
    is_usual = count == USUAL

    def figure(what: str, value: float, unit: str, limit: float | None = None) -> Figure:
        column = f"{count} daemon{'s' if count > 1 else ''}"
        return Figure(what, value, unit, limit=limit, column=column)

    def median(of: Callable[[int], float]) -> float:
        return statistics.median(map(of, pids))

    return [
        figure("supervisor, RSS", rss / MIB, "MiB", RSS_GOAL_MIB if is_usual else None),
        figure("supervisor, PSS", pss / MIB, "MiB"),
        figure("supervisor, CPU", cpu[supervisor_pid], "%", CPU_GOAL_PERCENT if is_usual else None),
        figure("supervisor, wake-ups", wakes[supervisor_pid], "/s"),
        figure("a daemon, RSS", median(lambda pid: memory[pid][0]) / MIB, "MiB"),
        figure("a daemon, PSS", median(lambda pid: memory[pid][1]) / MIB, "MiB"),
        figure("a daemon, CPU", median(lambda pid: cpu[pid]), "%"),
        figure("a daemon, wake-ups", max(wakes[p] for p in pids), "/s", WAKE_GOAL_PER_SECOND),
        figure("all of it, PSS", sum(memory[p][1] for p in before) / MIB, "MiB"),
        figure("all of it, CPU", sum(cpu.values()), "%"),
    ]


def start_daemons(names: Iterable[str]) -> None:
    """Named ones, that are let go at once; by as many clients as there are cores, since
    interpreters that start are what it takes."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: spawny.run_script("state = {}", name=name) and None, names))


def usage(pid: int) -> Usage:
    """Exact where the kernel keeps schedstat; else in clock ticks, which miss short wake-ups."""
    cpu = switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        cpu += _cpu_nanoseconds(task)
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                switches += int(line.split()[1])
    return Usage(cpu, switches)


def _cpu_nanoseconds(task: Path) -> int:
    with suppress(FileNotFoundError):
        return int((task / "schedstat").read_text().split()[0])
    after_name = (task / "stat").read_text().rpartition(")")[2].split()
    ticks = int(after_name[11]) + int(after_name[12])  # utime and stime
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> tuple[int, int]:
    """Resident, and resident with shared pages shared out."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, kilobytes = line.split()[:2]
        found[name.rstrip(":")] = int(kilobytes) * 1024
    return found["Rss"], found["Pss"]
