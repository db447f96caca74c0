"""Why daemons are as they are, and how they ended: of real ones."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import spawny
from spawny.client.ending import wait_gone
from tests.cli.processes import spawny as command
from tests.end_to_end.processes import PATIENCE_SECONDS, eventually, kill

CGROUPS = Path("/sys/fs/cgroup")

WORKER = """
import ctypes, os, signal, threading
def pid():
    return os.getpid()
def die():
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
def wait_for(path):
    with open(path) as fifo:
        return fifo.read()
def keep_the_lock(path):
    threading.Thread(target=ctypes.PyDLL(None).open, args=(path.encode(), os.O_RDONLY)).start()
def eat():
    return len(bytearray(b"x") * 1_000_000_000)
"""

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Something to wait for: a reader blocks until the test writes."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_a_death_of_another_life_is_told_with_its_own_output() -> None:
    """By name of the signal; what the next process has printed since is not its."""
    worker = spawny.run_script(WORKER + "print('begins')", name="worker", restart="on-failure")
    pid = worker.pid()
    with pytest.raises(spawny.DaemonDied):
        worker.die()
    assert spawny.attach("worker").pid() != pid
    found = spawny.connect().why("worker")
    assert (found.name, found.state) == ("worker", "ready")
    (ending,) = found.endings
    assert (ending.pid, ending.signal_name) == (pid, "SIGKILL")
    assert ending.how.startswith("killed by SIGKILL")
    assert not ending.is_out_of_memory
    assert found.output == "begins\nlast words\n"
    spawny.attach("worker").terminate_daemon()


def test_who_asked_for_the_end_is_known_and_outlives_the_supervisor() -> None:
    """And the daemon that has ended can be restarted then."""
    spawny.run_script(WORKER, name="worker")
    supervisor = spawny.connect()
    supervisor.stop("worker")
    kill(supervisor.version().pid)
    found = supervisor.why("worker")
    assert found.state == "ended"
    assert found.endings[0].asked_by.startswith(f"pid {os.getpid()} (")
    assert found.endings[0].exit_code == 0
    supervisor.restart("worker")
    worker = spawny.attach("worker")
    assert worker.pid() != found.endings[0].pid
    worker.terminate_daemon()
    assert eventually(lambda: supervisor.why("worker").state == "ended")
    assert f"was called by pid {os.getpid()}" in supervisor.why("worker").endings[0].how


def test_why_on_the_command_line(fifo: Path) -> None:
    """What it runs and for whom; then how it ended."""
    worker = spawny.run_script(WORKER, name="worker")
    call = threading.Thread(target=worker.wait_for, args=(str(fifo),))
    call.start()
    with open(fifo, "w"):
        said = command("why", "worker")
    call.join(PATIENCE_SECONDS)
    assert said.code == 0
    assert "daemon 'worker' is busy: it has been running wait_for() for" in said.out
    assert f"called by the client with pid {os.getpid()}" in said.out
    assert command("stop", "worker").code == 0
    said = command("why", "worker")
    assert "daemon 'worker' is ended: stop requested" in said.out
    assert "it last ended" in said.out
    assert " stop worker)" in said.out
    assert command("why", "nobody").code == 3


def test_stacks_of_a_busy_daemon(fifo: Path) -> None:
    """It goes on meanwhile."""
    worker = spawny.run_script(WORKER, name="worker")
    answers: list[str] = []
    call = threading.Thread(target=lambda: answers.append(worker.wait_for(str(fifo))))
    call.start()
    with open(fifo, "w") as end:
        said = command("stacks", "worker")
        end.write("done")
    call.join(PATIENCE_SECONDS)
    assert said.code == 0
    assert "in wait_for" in said.out
    assert answers == ["done"]
    worker.terminate_daemon()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc")
def test_stacks_of_a_daemon_that_cannot_answer(fifo: Path) -> None:
    """Why, and what the system knows."""
    worker = spawny.run_script(WORKER, name="worker")
    spawny.oneway(worker.keep_the_lock)(str(fifo))
    assert eventually(lambda: bool(spawny.connect().stacks("worker").problem))
    found = spawny.connect().stacks("worker")
    with open(fifo, "w"):
        pass
    assert "keeps the interpreter's lock" in found.problem
    assert "is sleeping" in found.text
    worker.terminate_daemon()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup of 160 MB: more than what is kept in reserve."""
    is_first = (CGROUPS / "memory").is_dir()
    parent = CGROUPS / "memory" if is_first else CGROUPS
    path = parent / f"spawny-test-{os.getpid()}"
    try:
        path.mkdir()
        limit = "memory.limit_in_bytes" if is_first else "memory.max"
        (path / limit).write_text("160000000")
    except OSError as error:
        pytest.skip(f"cannot make a memory cgroup here: {error}")
    yield path
    path.rmdir()


def test_want_of_memory_is_told_from_other_kills(cgroup: Path) -> None:
    """The system's own count of them has risen."""
    supervisor = spawny.connect()
    pid = supervisor.version().pid
    (cgroup / "cgroup.procs").write_text(str(pid))  # and so its daemons
    worker = spawny.run_script(WORKER, name="worker")
    with pytest.raises(spawny.DaemonDied):
        worker.eat()
    assert eventually(lambda: supervisor.why("worker").state == "ended")
    (ending,) = supervisor.why("worker").endings
    assert ending.is_out_of_memory
    assert "most likely by the system for want of memory" in ending.how
    with wait_gone(pid) as wait:
        supervisor.shutdown()
        assert wait(10)  # or its cgroup could not be removed


def test_a_full_disk_stops_nobody(home: Path) -> None:
    """A daemon starts, serves and ends; the event says so once, and once that it is over."""
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(runtime)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("this user cannot mount a small file system")
    try:
        config = home / "config" / "config.toml"
        config.parent.mkdir(mode=0o700)
        config.write_text("[supervisor]\nhealth_interval_seconds = 0.05\n")
        supervisor = spawny.connect()
        filler = runtime / "filler"
        events = supervisor.events()
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        worker = spawny.run_script(WORKER, name="worker")
        said = next(event for event in events if event.kind == "journal")
        assert "No space left on device" in said.detail
        assert worker.pid()
        filler.unlink()
        said = next(event for event in events if event.kind == "journal")
        assert "written again" in said.detail
        kill(supervisor.version().pid)
        assert supervisor.restart("worker").pid
        supervisor.shutdown()
    finally:
        subprocess.run(["umount", "--lazy", str(runtime)], check=True)
