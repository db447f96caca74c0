"""What `ps` shows of daemons that are not well, each made to happen."""

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

import spawny
from tests.end_to_end.processes import PATIENCE_SECONDS, eventually

# A parent waits for the child of its vfork() as for a disk.
HOLD = """
#include <fcntl.h>
#include <unistd.h>
void hold(const char *path) {
    if (vfork() == 0) {
        open(path, O_RDONLY);
        _exit(0);
    }
}
"""

WORKER = """
import ctypes, os, threading
libc = ctypes.CDLL(None)
def pid():
    return os.getpid()
def wait_for(path):
    with open(path) as fifo:
        return fifo.read()
def hold(library, path):
    ctypes.CDLL(library).hold(path.encode())
def end_main_thread():
    libc.pthread_exit(None)
def keep_the_lock(go, path):
    # PyDLL keeps the interpreter's lock, so that no thread runs until somebody opens the other end.
    def keep():
        open(go).close()
        ctypes.PyDLL(None).open(path.encode(), os.O_RDONLY)
    threading.Thread(target=keep).start()
"""


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Something to wait for: a reader blocks until the test writes."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def is_shown_as(state: str) -> bool:
    return eventually(lambda: spawny.connect().status("worker").state == state)


def test_stopped(home: Path) -> None:
    """Seen at the next look, not at the next round of the supervisor's own."""
    worker = spawny.run_script(WORKER, name="worker")
    os.kill(worker.pid(), signal.SIGSTOP)
    assert is_shown_as("stopped")
    os.kill(spawny.daemon(worker).pid, signal.SIGCONT)
    assert is_shown_as("ready")
    worker.terminate_daemon()


def test_busy(home: Path, fifo: Path) -> None:
    """With which call, since when, and whose it is."""
    worker = spawny.run_script(WORKER, name="worker")
    call = threading.Thread(target=worker.wait_for, args=(str(fifo),))
    call.start()
    with open(fifo, "w"):
        assert is_shown_as("busy")
        status = spawny.connect().status("worker")
    call.join(PATIENCE_SECONDS)
    assert status.busy_call == "wait_for()"
    assert status.busy_client_pid == os.getpid()
    assert status.busy_seconds is not None
    assert 0 <= status.busy_seconds < PATIENCE_SECONDS
    worker.terminate_daemon()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_zombie(home: Path) -> None:
    """Its main thread has ended, and with it all calls; the others go on, so it has not exited."""
    worker = spawny.run_script(WORKER, name="worker")
    spawny.oneway(worker.end_main_thread)()
    assert is_shown_as("zombie")
    spawny.connect().stop("worker")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_uninterruptible(home: Path, fifo: Path, tmp_path: Path) -> None:
    """For over a second; the daemon's control thread still answers."""
    if shutil.which("cc") is None:
        pytest.skip("a C compiler is needed to wait like this")
    source, library = tmp_path / "hold.c", tmp_path / "hold.so"
    source.write_text(HOLD)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    worker = spawny.run_script(WORKER, name="worker")
    spawny.oneway(worker.hold)(str(library), str(fifo))
    assert is_shown_as("uninterruptible")
    with open(fifo, "w"):
        assert is_shown_as("ready")
    worker.terminate_daemon()


def test_unresponsive(home: Path, fifo: Path) -> None:
    """Idle by all that is known, but no thread of it runs."""
    config = home / "config" / "config.toml"
    config.parent.mkdir(mode=0o700)
    config.write_text("[supervisor]\nunresponsive_after_seconds = 0.5\n")
    worker = spawny.run_script(WORKER, name="worker")
    go = fifo.with_name("go")
    os.mkfifo(go)
    worker.keep_the_lock(str(go), str(fifo))
    assert is_shown_as("ready")  # a call that were known to run would be what it does
    with open(go, "w"):
        pass
    assert is_shown_as("unresponsive")
    assert "has not answered" in spawny.connect().status("worker").reason
    with open(fifo, "w"):
        assert is_shown_as("ready")
    worker.terminate_daemon()
