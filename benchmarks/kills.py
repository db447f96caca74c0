"""The supervisor killed over and over under load: what that costs calls and daemons, which is
nothing, and how long it takes until all is in the next one's hands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

from deaths import ADOPTED_GOAL_MILLISECONDS, await_adoption, next_supervisor
from harness import Figure, Section, percentile, private_home

import spawny

DAEMONS = 20
CALLERS = 4

# Calls one daemon without a pause until its stdin ends; then tells how that went.
_CALLER = """
import select, sys
import spawny
module = spawny.attach(sys.argv[1])
noop, calls, failed = module.noop, 0, 0
print("calling", flush=True)
while not select.select([0], [], [], 0)[0]:
    for _ in range(100):
        calls += 1
        try:
            noop()
        except Exception as error:
            failed += 1
            print(repr(error), file=sys.stderr)
print(calls, failed, flush=True)
"""


class Caller:
    """A process that calls a daemon without a pause."""

    def __init__(self, daemon: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CALLER, daemon],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.calls = self.failed = 0

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exception: object) -> None:
        out, _ = self._process.communicate()
        self.calls, self.failed = map(int, out.split())


def measure(kills: int) -> Section:
    """Failed calls and lost daemons; milliseconds until the next supervisor has them all."""
    with private_home():
        for number in range(DAEMONS):
            spawny.run_script("def noop(): pass", name=f"kept-{number}")
        before = _daemons()
        with ExitStack() as stack:
            callers = [stack.enter_context(Caller(f"kept-{n}")) for n in range(CALLERS)]
            times = [_kill() for _ in range(kills)]
        lost = len(before - _daemons())
    served = [one[0] for one in times]
    adopted = [one[1] for one in times]
    calls = sum(each.calls for each in callers)
    return Section(
        "The supervisor killed under load",
        f"SIGKILL, {kills} times in a row, while {CALLERS} processes call {CALLERS} of its"
        f" {DAEMONS} daemons without a pause. A daemon is lost if its process is another one"
        " afterwards.",
        (
            Figure("supervisors killed", kills, ""),
            Figure("calls made meanwhile", calls, ""),
            Figure("calls that failed", sum(each.failed for each in callers), "", limit=0),
            Figure("daemons lost", lost, "", limit=0),
            Figure("killed, until the next one serves, p50", percentile(served, 50), "ms"),
            Figure("killed, until the next one serves, p99", percentile(served, 99), "ms"),
            Figure("from there until every daemon is adopted, p50", percentile(adopted, 50), "ms"),
            Figure(
                "from there until every daemon is adopted, p99",
                percentile(adopted, 99),
                "ms",
                limit=ADOPTED_GOAL_MILLISECONDS,
                note=f"worst {max(adopted):.1f} ms",
            ),
        ),
    )


def _daemons() -> set[tuple[str, int | None]]:
    return {(each.name, each.pid) for each in spawny.connect().list()}


def _kill() -> tuple[float, float]:
    """Milliseconds until the next supervisor serves, and from then on until it has all daemons."""
    old = spawny.connect().version().pid
    killed_at = time.perf_counter()
    os.kill(old, signal.SIGKILL)
    supervisor = next_supervisor(old)
    serves_at = time.perf_counter()
    await_adoption(supervisor, DAEMONS)
    return (serves_at - killed_at) * 1000, (time.perf_counter() - serves_at) * 1000
