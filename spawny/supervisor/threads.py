"""What the system says of the threads of a process that does not speak for itself."""

from __future__ import annotations

import os

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in an uninterruptible wait",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "ended",
}


def describe(pid: int) -> str:
    """A paragraph for each thread; empty where the system has nothing to say."""
    try:
        threads = sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return ""
    return "\n".join(filter(None, (_describe_thread(pid, each) for each in threads)))


def _describe_thread(pid: int, thread: int) -> str:
    stat = _read(pid, thread, "stat")
    if ")" not in stat:
        return ""  # it has ended meanwhile
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    state = stat[stat.rindex(")") + 2]
    line = f"thread {thread} ({name}) is {_STATES.get(state, state)}"
    waits_in = _read(pid, thread, "wchan")
    if waits_in not in ("", "0"):
        line += f", in {waits_in} of the kernel"
    # For root alone.
    stack = _read(pid, thread, "stack").splitlines()
    return "\n".join([line, *(f"    {each}" for each in stack)])


def _read(pid: int, thread: int, what: str) -> str:
    try:
        with open(f"/proc/{pid}/task/{thread}/{what}", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
