"""What cleaners of /tmp do: files of a supervisor that runs are removed, one after the other."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import spawny
from spawny.paths import Paths, locate
from tests.chaos.invariants import Invariants
from tests.end_to_end.processes import PATIENCE_SECONDS, eventually, is_gone

WORKER = """
import os
def wait_for(path):
    with open(path) as fifo:
        return fifo.read()
def pid():
    return os.getpid()
"""


@pytest.fixture
def paths(home: Path) -> Iterator[Paths]:
    """Of a supervisor that looks often."""
    found = locate()
    found.config.mkdir(parents=True)
    found.config_file.write_text("[supervisor]\nhealth_interval_seconds = 0.2\n")
    yield found
    spawny.connect().shutdown()


def until_mended(paths: Paths) -> str:
    """What the supervisor says of it; a question might start another one meanwhile."""
    lines: list[str] = []

    def is_told() -> bool:
        text = paths.supervisor_log.read_text()
        lines[:] = [each for each in text.splitlines() if "are made anew" in each]
        return bool(lines)

    assert eventually(is_told)
    return lines[0]


@pytest.mark.parametrize(
    "what",
    ["supervisor.sock", "link.sock", "supervisor.lock", "journal", "journal/etl.json", "d", "."],
)
def test_what_vanishes_is_made_anew(paths: Paths, tmp_path: Path, what: str) -> None:
    """Within a health interval, and with a word; the call under way goes on; then a daemon can be
    attached to by its name, and be started and stopped, and all is as it should be."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    invariants = Invariants(paths.runtime.parent, paths)
    etl = spawny.run_script(WORKER, name="etl")
    supervisor = spawny.connect().version().pid
    call = spawny.submit(etl.wait_for, str(fifo))
    path = paths.runtime / what
    path.rename(tmp_path / "gone")  # at once: in a directory, things might be made anew meanwhile
    said = until_mended(paths)
    assert str(path if what != "journal/etl.json" else paths.journal) in said
    assert path.exists()
    assert spawny.connect().version().pid == supervisor
    assert eventually(paths.call_socket("etl").exists)
    fifo.write_text("go on")
    assert call.result(PATIENCE_SECONDS) == "go on"
    assert spawny.attach("etl").pid() == spawny.daemon(etl).pid
    with pytest.raises(spawny.DaemonExists):
        spawny.run_script("another", name="etl", if_exists="error")
    spawny.run_script(WORKER, name="other")
    assert {each.name for each in spawny.connect().list()} == {"etl", "other"}
    if what in ("supervisor.sock", "."):
        invariants._fixed += 1  # libzmq's: the socket that nobody finds
    assert invariants.settle([]) == []
    spawny.connect().stop("other")
    spawny.connect().stop("etl")


def test_a_call_socket_that_vanishes_is_made_anew(paths: Paths) -> None:
    """By its daemon; clients that are attached notice nothing."""
    etl = spawny.run_script(WORKER, name="etl")
    socket = paths.call_socket("etl")
    socket.unlink()
    assert eventually(socket.exists)
    assert socket.stat().st_mode & 0o777 == 0o600
    assert spawny.attach("etl").pid() == etl.pid()
    spawny.connect().stop("etl")
    assert not socket.exists()


def test_a_daemon_without_a_supervisor_makes_its_socket_anew(paths: Paths) -> None:
    """When it looks for a supervisor, which it does every few seconds."""
    etl = spawny.run_script(WORKER, name="etl")
    pid = spawny.connect().version().pid
    os.kill(pid, signal.SIGKILL)
    assert is_gone(pid)
    paths.call_socket("etl").unlink()
    assert eventually(paths.call_socket("etl").exists)
    assert spawny.attach("etl").pid() == etl.pid()
    spawny.connect().stop("etl")


def test_of_two_supervisors_the_one_without_the_lock_leaves(paths: Paths) -> None:
    """It leaves the daemons, and the files of the other one, which takes the daemons up."""
    etl = spawny.run_script(WORKER, name="etl")
    first = spawny.connect().version().pid
    os.kill(first, signal.SIGSTOP)
    paths.runtime.rename(paths.runtime.with_name("gone"))
    reader, writer = os.pipe()
    second = subprocess.Popen(
        [sys.executable, "-m", "spawny.supervisor", "--ready-fd", str(writer)], pass_fds=[writer]
    )
    os.close(writer)
    with open(reader) as ready:
        assert ready.read() == "READY\n"
    os.kill(first, signal.SIGCONT)
    assert is_gone(first)
    assert "another supervisor has its lock" in paths.supervisor_log.read_text()
    assert spawny.connect().version().pid == second.pid
    assert eventually(lambda: [each.name for each in spawny.connect().list()] == ["etl"])
    assert eventually(paths.call_socket("etl").exists)
    assert spawny.attach("etl").pid() == etl.pid()
    assert paths.supervisor_lock.read_text() == f"{second.pid}\n"
    spawny.connect().stop("etl")
    spawny.connect().shutdown()
    assert second.wait(PATIENCE_SECONDS) == 0
