"""Limits of real daemons: they are started anew between calls, and their calls end in time."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny.control import DaemonStatus
from tests.end_to_end.processes import PATIENCE_SECONDS, eventually, is_gone
from tests.interpreters import Interpreter

pytestmark = pytest.mark.one_supervisor

SCRIPT = """
import os, time

kept = []

def pid():
    return os.getpid()

def grow(count):
    kept.append(bytearray(b"x" * count))
    return os.getpid()

def sleep(seconds):
    time.sleep(seconds)
    return os.getpid()

def sleep_and_tell(seconds, path):
    with open(path, "a") as file:
        file.write("begun ")
    time.sleep(seconds)
    return os.getpid()

def ignore(seconds):
    end = time.time() + seconds
    while time.time() < end:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass

class Held:
    def pid(self):
        return os.getpid()

held = Held()

async def later(seconds):
    import asyncio
    await asyncio.sleep(seconds)
    return os.getpid()

def through(callback):
    return callback(), os.getpid()

def keep_lock():
    return sum(range(10**12))  # C code that lets no other thread run
"""


@pytest.fixture
def run(home: Path) -> Iterator[Any]:
    names: list[str] = []

    def start(python: str | None = None, **options: Any) -> spawny.ObjectProxy:
        names.append(options.setdefault("name", "limited"))
        return spawny.run_script(SCRIPT, python, **options)

    yield start
    for name in names:
        with suppress(spawny.DaemonNotFound):
            spawny.connect().stop(name)


def status(name: str = "limited") -> DaemonStatus:
    return spawny.connect().status(name)


def restarted(pid: int, name: str = "limited") -> bool:
    """Wait until the daemon serves in another process."""

    def is_new() -> bool:
        now = status(name)
        return now.pid not in (None, pid) and now.state == "ready"

    return eventually(is_new)


def test_after_max_calls_the_next_call_is_made_in_a_new_process(
    run: Any, interpreter: Interpreter
) -> None:
    """Callers notice nothing; `restarts` and its reason tell."""
    root = run(interpreter.path, max_calls=10)
    pids: list[int] = []

    def has_called_three() -> bool:
        pids.append(root.pid())
        return len(set(pids)) > 2

    assert eventually(has_called_three)
    assert pids == sorted(pids, key=pids.index)
    now = status()
    assert now.restarts >= 2
    assert now.restart_reason.startswith("max_calls")
    assert now.max_calls == 10


def test_beyond_max_rss_it_is_started_anew_once_its_call_has_ended(
    run: Any, interpreter: Interpreter
) -> None:
    """What runs goes on to its end, and has its result."""
    root = run(interpreter.path, max_rss="200 MB")
    before = root.pid()
    assert root.grow(300_000_000) == before
    assert root.sleep(0.1) in (before, root.pid())
    assert restarted(before)
    assert status().restart_reason.startswith("max_rss")
    assert root.pid() != before


def test_at_max_age_it_is_started_anew_between_calls(run: Any, tmp_path: Path) -> None:
    """A call that runs across the limit is not cut short."""
    root = run(max_age=0.5)
    assert restarted(root.sleep_and_tell(1.0, str(tmp_path / "told")))
    assert (tmp_path / "told").read_text() == "begun "
    assert status().restart_reason.startswith("max_age")


def test_one_without_a_name_waits_for_a_request(run: Any, home: Path) -> None:
    """Started anew while nobody asks, it would end for want of clients; so a request does it."""
    root = spawny.run_script(SCRIPT, max_age=0.3)
    name, before = spawny.daemon(root).name, root.pid()
    assert eventually(lambda: "max_age" in status(name).reason)
    assert status(name).pid == before
    after = root.pid()
    assert after != before
    assert status(name).restarts >= 1
    pid = status(name).pid
    del root
    assert is_gone(pid)


def test_references_beside_the_root_become_stale(run: Any) -> None:
    """The object is gone with its process."""
    root = run(max_rss="200 MB")
    held, before = root.held, root.grow(300_000_000)
    assert restarted(before)
    with pytest.raises(spawny.StaleReference):
        held.pid()
    assert root.held.pid() == root.pid() != before


def test_calls_of_many_threads_get_through(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every one of them is made, over several processes, each being one request to the root."""
    (tmp_path / "limited_here.py").write_text(
        "import os\nclass Worker:\n    def pid(self): return os.getpid()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    definition = spawny.InstanceDefinition("limited_here", "Worker")
    root = spawny.run_object(definition, name="limited", max_calls=20)
    pids: set[int] = set()

    def work() -> None:
        while len(pids) < 3:
            pids.add(root.pid())

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(work) for _ in range(4)]:
            each.result()
    spawny.connect().stop("limited")


def test_a_coroutine_and_its_result_come_first(run: Any) -> None:
    """It is something that runs, too."""
    root = run(max_age=0.2)
    assert restarted(spawny.submit(root.later, 0.6).result())


def test_a_call_that_waits_for_its_callback_comes_first(run: Any) -> None:
    """And so do the calls that the callback makes, whoever makes them."""
    root = run(max_age=0.2)

    def callback() -> int:
        time.sleep(0.5)
        with ThreadPoolExecutor() as pool:
            return pool.submit(root.pid).result()

    there, after = root.through(spawny.callback(callback))
    assert there == after
    assert restarted(after)


def test_a_call_is_interrupted_at_its_deadline(run: Any, interpreter: Interpreter) -> None:
    """With an error that names the limit; the daemon goes on."""
    root = run(interpreter.path, call_deadline=0.5)
    before = root.pid()
    began = time.monotonic()
    with pytest.raises(spawny.CallTimeout, match=r"more than 0\.5 s, its call_deadline"):
        root.sleep(60)
    assert 0.5 <= time.monotonic() - began < PATIENCE_SECONDS
    assert root.pid() == before
    assert root.sleep(0.1) == before


def test_a_call_that_ignores_its_interrupt_ends_with_its_daemon(run: Any) -> None:
    """By a signal; the restart policy has the rest."""
    root = run(call_deadline=0.3, restart="on-failure")
    before = root.pid()
    with pytest.raises(spawny.DaemonDied):
        root.ignore(60)
    assert restarted(before)
    assert status().restart_reason.startswith("call_deadline")


def test_a_daemon_with_a_deadline_rests_when_idle(run: Any) -> None:
    """Its threads wake up for pings alone: a few times in the seconds that this looks on."""
    root = run(call_deadline=0.2)
    pid = root.pid()
    task = Path(f"/proc/{pid}/task")

    def switches() -> int:
        lines = [
            line
            for each in task.glob("*/status")
            for line in each.read_text().splitlines()
            if line.startswith("voluntary_ctxt_switches")
        ]
        return sum(int(line.split()[1]) for line in lines)

    other = spawny.run_script(SCRIPT)  # whose calls take as long as they are told to
    other.sleep(1)
    before = switches()
    other.sleep(3)
    assert switches() - before <= 6


def configure(home: Path, figures: str) -> None:
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text(f"[supervisor]\n{figures}\n")


@pytest.mark.own_supervisor
def test_c_code_that_keeps_the_lock_past_the_deadline_ends_with_its_daemon(
    run: Any, home: Path
) -> None:
    """Nobody in the daemon can tell of it, and no interrupt is heeded; the caller is told why."""
    configure(home, "stop_grace_seconds = 0.3\nhealth_interval_seconds = 0.3")
    if sys.implementation.name != "cpython":
        pytest.skip("its C code is this interpreter's own")
    root = run(call_deadline=0.3)
    with pytest.raises(spawny.DaemonDied, match=r"SIGTERM \(call_deadline: .* than 0\.3 s"):
        root.keep_lock()


def test_what_does_not_fit_into_memory_is_refused_in_figures(home: Path) -> None:
    """What is free, what is needed, and what is kept in reserve; no process was started."""
    with pytest.raises(spawny.DaemonStartError, match=r"\d MB are free.* 10000000 MB, its max_rss"):
        spawny.run_script(SCRIPT, name="huge", max_rss="10 TB")
    now = status("huge")
    assert (now.state, now.pid) == ("ended", None)
    assert "(memory_reserve_bytes)" in now.reason


@pytest.mark.own_supervisor
def test_without_a_reserve_nothing_is_refused(run: Any, home: Path) -> None:
    """A figure of 0 switches the guard off."""
    configure(home, "memory_reserve_bytes = 0")
    assert run(max_rss="10 TB").pid() == status().pid
