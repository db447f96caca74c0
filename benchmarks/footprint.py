"""What spawny costs while nothing happens: a supervisor with idle daemons, and those."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness import Figure, Section, private_home

import spawny

DAEMONS = 20
RSS_GOAL_MIB = 35.0
CPU_GOAL_PERCENT = 0.5

# After a start there is work to finish: journals, first health samples, the allocator's ease.
SETTLE_SECONDS = 3.0

MIB = 1024 * 1024


@dataclass(frozen=True)
class Usage:
    """What a process has used since it began, over all of its threads."""

    cpu_nanoseconds: int
    voluntary_switches: int


def measure(seconds: float) -> Section:
    """Memory, CPU and wake-ups of an idle fleet over so many seconds."""
    with private_home():
        for number in range(DAEMONS):
            spawny.run_script("state = {}", name=f"idle-{number}")  # and let go at once
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
    return Section(
        f"A supervisor and {len(pids)} idle daemons",
        f"Over {elapsed:.0f} s in which nobody asked for anything, from /proc: CPU time of all"
        " threads (schedstat), their voluntary context switches as wake-ups, and memory at the end."
        " CPU is in percent of one core. PSS shares out pages that several processes have.",
        (
            Figure("supervisor, RSS", rss / MIB, "MiB", limit=RSS_GOAL_MIB, note=f"{rss} bytes"),
            Figure("supervisor, PSS", pss / MIB, "MiB", note=f"{pss} bytes"),
            Figure("supervisor, CPU", cpu[supervisor_pid], "%", limit=CPU_GOAL_PERCENT),
            Figure("supervisor, wake-ups", wakes[supervisor_pid], "/s"),
            Figure("a daemon, RSS", statistics.median(memory[p][0] for p in pids) / MIB, "MiB"),
            Figure("a daemon, PSS", statistics.median(memory[p][1] for p in pids) / MIB, "MiB"),
            Figure("a daemon, CPU", statistics.median(cpu[p] for p in pids), "%"),
            Figure("a daemon, wake-ups", statistics.median(wakes[p] for p in pids), "/s"),
            Figure("all of it, CPU", sum(cpu.values()), "%"),
        ),
    )


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
