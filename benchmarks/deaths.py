"""How long it takes until a `kill -9` is noticed, and mended."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path

from harness import Figure, Section, percentile, private_home

import spawny

DIED_GOAL_MILLISECONDS = 100.0
ADOPTED_GOAL_MILLISECONDS = 1000.0

ADOPTED_DAEMONS = 20

# What takes so long will not happen.
PATIENCE_SECONDS = 30.0

# Opening a FIFO waits for the other end: whoever gets past it knows that the call is under way.
_STUCK = """
import time

def stick(fifo):
    open(fifo, "w").close()
    time.sleep(600)
"""


def measure(rounds: int) -> Section:
    """Milliseconds until the client knows, and until a new supervisor has it all in hand."""
    with private_home() as home:
        died = [_daemon_death(home / f"fifo-{number}") for number in range(rounds)]
    with private_home():
        for number in range(ADOPTED_DAEMONS):
            spawny.run_script("def noop(): pass", name=f"kept-{number}")
        adoptions = [_supervisor_death() for _ in range(rounds)]
    served = [one[0] for one in adoptions]
    adopted = [one[1] for one in adoptions]
    failed = sum(one[2] for one in adoptions)
    return Section(
        "Sudden deaths",
        f"SIGKILL, {rounds} times each. A daemon is killed in a call; the supervisor while a thread"
        f" calls one of its {ADOPTED_DAEMONS} daemons without a pause.",
        (
            Figure(
                "daemon killed in a call, until DaemonDied is raised",
                statistics.median(died),
                "ms",
                limit=DIED_GOAL_MILLISECONDS,
                note=f"worst {max(died):.1f} ms",
            ),
            Figure(
                "supervisor killed, until the next one serves",
                statistics.median(served),
                "ms",
                note="its start included",
            ),
            Figure(
                "from there until every daemon is adopted",
                statistics.median(adopted),
                "ms",
                limit=ADOPTED_GOAL_MILLISECONDS,
                note=f"worst {percentile(adopted, 100):.1f} ms",
            ),
            Figure("calls that failed meanwhile", failed, "", limit=0),
        ),
    )


def _daemon_death(fifo: Path) -> float:
    os.mkfifo(fifo)
    module = spawny.run_script(_STUCK)
    pid = spawny.daemon(module).pid
    killed_at: list[float] = []

    def kill() -> None:
        fifo.open().close()
        killed_at.append(time.perf_counter())
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        module.stick(str(fifo))
    except spawny.DaemonDied:
        noticed_at = time.perf_counter()
    else:
        raise AssertionError("a call outlived its daemon")
    killer.join()
    return (noticed_at - killed_at[0]) * 1000


def _supervisor_death() -> tuple[float, float, int]:
    """Milliseconds until the next one serves, from then on until it has all; failed calls."""
    old = spawny.connect().version().pid
    with _Caller("kept-0") as caller:
        killed_at = time.perf_counter()
        os.kill(old, signal.SIGKILL)
        supervisor = next_supervisor(old)
        serves_at = time.perf_counter()
        await_adoption(supervisor, ADOPTED_DAEMONS)
        adopted_at = time.perf_counter()
    return (serves_at - killed_at) * 1000, (adopted_at - serves_at) * 1000, caller.failed


def next_supervisor(old: int) -> spawny.Supervisor:
    """A killed process's sockets outlive it for a moment: look until another one answers."""
    began = time.perf_counter()
    while True:
        with suppress(spawny.SupervisorUnavailable):
            supervisor = spawny.connect()
            if supervisor.version().pid != old:
                return supervisor
        _check_patience(began)


def await_adoption(supervisor: spawny.Supervisor, daemons: int) -> None:
    """Return once so many daemons are in its hands, those that are being called among them."""
    began = time.perf_counter()
    while True:
        states = [each.state for each in supervisor.list()]
        if len(states) == daemons and all(one in ("ready", "busy") for one in states):
            return
        _check_patience(began)


def _check_patience(began: float) -> None:
    if time.perf_counter() - began > PATIENCE_SECONDS:
        raise TimeoutError(f"not mended within {PATIENCE_SECONDS:.0f} s")


class _Caller:
    """A thread that calls a daemon without a pause."""

    def __init__(self, name: str) -> None:
        self.failed = 0
        self._module = spawny.attach(name)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._call)

    def __enter__(self) -> _Caller:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _call(self) -> None:
        while not self._is_over.is_set():
            try:
                self._module.noop()
            except spawny.SpawnyError:
                self.failed += 1
