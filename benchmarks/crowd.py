"""Hundreds of daemons at once: what a listing takes, and what the supervisor does."""

from __future__ import annotations

import time

from footprint import MIB, SETTLE_SECONDS, memory_bytes, start_daemons, usage
from harness import Figure, Section, percentile, private_home, python, run_milliseconds

import spawny

LISTING_GOAL_MILLISECONDS = 50.0
CPU_GOAL_PERCENT = 2.0
RSS_GOAL_MIB = 60.0

# Asked more often, a listing saves itself the look at every process; a person does not.
PAUSE_SECONDS = 1.1


def measure(daemons: int, *, listings: int, seconds: float) -> Section:
    """Milliseconds of a listing; CPU of the supervisor while nobody asks, and its memory."""
    with private_home():
        began = time.monotonic()
        start_daemons(f"one-{number}" for number in range(daemons))
        started = time.monotonic() - began
        supervisor = spawny.connect()
        pid = supervisor.version().pid
        time.sleep(SETTLE_SECONDS)
        wrong = [each.name for each in supervisor.list() if each.state != "ready"]
        times = []
        for _ in range(listings):
            times.append(_listing(supervisor, daemons))
            time.sleep(PAUSE_SECONDS)
        command = run_milliseconds(python("-m", "spawny.cli", "ps"))
        time.sleep(SETTLE_SECONDS)
        before, began = usage(pid), time.monotonic()
        time.sleep(seconds)
        after, elapsed = usage(pid), time.monotonic() - began
        rss, _ = memory_bytes(pid)
        cpu = (after.cpu_nanoseconds - before.cpu_nanoseconds) / elapsed / 1e7
    return Section(
        f"{daemons} daemons at once",
        f"Named, idle. A listing is `connect().list()` in a client that runs already, {listings}"
        f" times, {PAUSE_SECONDS} s apart: with the zmq conversation that it is, a look at every"
        " process and every daemon's own answer; the command has the start of Python on top. CPU is"
        f" of one core, over {elapsed:.0f} s in which nobody asked for anything, with the looks at"
        " every daemon's health in them.",
        (
            Figure("daemons", daemons, ""),
            Figure("started within", started, "s"),
            Figure("daemons that are not ready", len(wrong), "", limit=0),
            Figure(
                "a listing, p50",
                percentile(times, 50),
                "ms",
                limit=LISTING_GOAL_MILLISECONDS,
                note=f"p90 {percentile(times, 90):.1f} ms, worst {max(times):.1f} ms",
            ),
            Figure("spawny ps", command, "ms"),
            Figure("supervisor, CPU", cpu, "%", limit=CPU_GOAL_PERCENT),
            Figure("supervisor, RSS", rss / MIB, "MiB", limit=RSS_GOAL_MIB),
        ),
    )


def _listing(supervisor: spawny.Supervisor, daemons: int) -> float:
    began = time.perf_counter()
    found = supervisor.list()
    took = 1000 * (time.perf_counter() - began)
    if len(found) != daemons:
        raise AssertionError(f"{len(found)} daemons are listed, not {daemons}")
    return took
