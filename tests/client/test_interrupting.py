"""What becomes of code that is interrupted: by a time limit here; Ctrl-C and cancel do the same."""

import sys
from pathlib import Path

import pytest

import spawny
from spawny import CallTimeout
from tests.client.limits import limited
from tests.interpreters import Interpreter

pytestmark = pytest.mark.one_supervisor

SCRIPT = """
import socket, subprocess, time
events = []
def in_python():
    while True:
        pass
def in_sleep():
    time.sleep(600)
def in_socket():
    here, there = socket.socketpair()
    here.recv(1)
def in_lock():
    import threading
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
def in_child():
    subprocess.call(["sleep", "600"])
def in_finally():
    try:
        time.sleep(600)
    finally:
        events.append("cleaned up")
def import_numpy():
    global numpy
    import numpy
def in_c():
    events.append("begun")
    numpy.sort(numpy.arange(60_000_000)[::-1] % 1_000_003)
    events.append("after")
def swallowing():
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        return "swallowed"
"""


@pytest.mark.parametrize("where", ["in_python", "in_sleep", "in_socket", "in_lock", "in_child"])
def test_interrupted_at_once(home: Path, interpreter: Interpreter, where: str) -> None:
    """Byte code, and system calls that Python restarts, give up; the daemon is usable."""
    m = spawny.run_script(SCRIPT, interpreter.path)
    function = getattr(m, where)
    with pytest.raises(CallTimeout, match="was interrupted"):
        limited(function)
    m.events.append("usable")
    assert m.events == ["usable"]
    m.terminate_daemon()


def test_clean_up_runs(home: Path) -> None:
    """`finally` blocks run, since an interrupt is an exception like any other."""
    m = spawny.run_script(SCRIPT)
    with pytest.raises(CallTimeout):
        limited(m.in_finally)
    assert m.events == ["cleaned up"]
    m.terminate_daemon()


def test_one_long_call_in_c(home: Path) -> None:
    """It runs to its end, without us; the code after it does not run, and the daemon is usable."""
    pytest.importorskip("numpy")
    m = spawny.run_script(SCRIPT, sys.executable)
    m.import_numpy()
    with pytest.raises(CallTimeout):
        limited(m.in_c)
    assert m.events == ["begun"]
    m.terminate_daemon()


def test_code_that_swallows_it(home: Path) -> None:
    """What it returns in the end is its result: the call has ended, after all."""
    m = spawny.run_script(SCRIPT)
    assert limited(m.swallowing) == "swallowed"
    m.terminate_daemon()
