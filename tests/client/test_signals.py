"""Threads of ours among those of the program."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from tests.end_to_end.processes import Script

pytestmark = pytest.mark.one_supervisor

SCRIPT = """
import threading, time
def identity(x):
    return x
def call(f):
    return f()
def call_in_background(f):
    threading.Thread(target=f).start()
async def later(x):
    return x
"""


@pytest.fixture
def m(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()


def mask(status: str) -> str:
    """The signals that are blocked, of a text such as /proc/PID/status."""
    return next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))


def test_no_interrupt_comes_to_our_threads(m: Any) -> None:
    """But to those of the program; other signals are none of our business."""
    threads = {each.name: each.native_id for each in threading.enumerate()}
    for name in ("spawny-listener", "spawny-janitor"):
        blocked = int(mask(Path(f"/proc/self/task/{threads[name]}/status").read_text()), 16)
        assert blocked == 1 << (signal.SIGINT - 1)
    assert mask(Path("/proc/self/status").read_text()) == "0" * 16


def test_what_the_program_starts_gets_every_signal(m: Any) -> None:
    """Its code may run on threads that ours have started: in callbacks, and when calls are over."""
    masks: list[str] = []
    are_there = threading.Semaphore(0)

    def look(*_: object) -> None:
        told = subprocess.run(
            [sys.executable, "-c", "print(open('/proc/self/status').read())"],
            capture_output=True,
            text=True,
            check=True,
        )
        masks.append(mask(told.stdout))
        are_there.release()

    m.call(spawny.callback(look))
    m.call_in_background(spawny.callback(look))
    spawny.submit(m.identity, 1).add_done_callback(look)
    spawny.submit(m.later, 1).add_done_callback(look)
    for _ in range(4):
        assert are_there.acquire(timeout=60)
    assert set(masks) == {"0" * 16}


@pytest.mark.usefixtures("home")
def test_a_program_that_blocks_signals_keeps_them_blocked() -> None:
    """Also on threads that run its code, which it starts without knowing."""
    with Script(
        """
        import signal, spawny
        m = spawny.run_script("def call(f): return f()")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        masks = []
        def look(*_):
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        m.call(spawny.callback(look))
        future = spawny.submit(m.call, spawny.callback(look))
        future.add_done_callback(look)
        future.result()
        assert masks[0] == masks[1] == {signal.SIGINT, signal.SIGTERM}, masks
        m.terminate_daemon()
        """
    ) as script:
        assert script.end()[0] == 0
