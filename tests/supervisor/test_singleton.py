"""One supervisor per user."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from spawny.supervisor import singleton

HOLDER = """
import sys
from pathlib import Path
from spawny.supervisor import singleton
lock, serving, patience = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
try:
    with singleton.hold(lock, serving, patience):
        print("held", flush=True)
        sys.stdin.read(1)
except singleton.AlreadyRunning as error:
    print(error, flush=True)
"""


class Holder:
    """Another process that tries to be the one."""

    def __init__(self, lock: Path, serving: Path, patience: float = 0.2) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(lock), str(serving), str(patience)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def release(self) -> None:
        self.process.communicate("x")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_only_one_holds_it(tmp_path: Path) -> None:
    """The other one says who does; afterwards the file is gone."""
    lock, serving = tmp_path / "lock", tmp_path / "link.sock"
    with singleton.hold(lock, serving):
        other = Holder(lock, serving)
        assert other.line() == f"another supervisor (pid {os.getpid()}) serves already"
        other.release()
    assert not lock.exists()


def test_one_that_answers_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever accepts connections will not let go of the lock soon."""
    lock, serving = tmp_path / "lock", tmp_path / "link.sock"
    with socket.socket(socket.AF_UNIX) as listener, singleton.hold(lock, serving):
        listener.bind(str(serving))
        listener.listen()
        other = Holder(lock, serving, patience=3600)
        assert "serves already" in other.line()
        other.release()


def test_one_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    """Its socket is closed already, the lock follows, and the file may be a new one by then."""
    lock, serving = tmp_path / "lock", tmp_path / "link.sock"
    first = Holder(lock, serving)
    assert first.line() == "held"
    others = [Holder(lock, serving, patience=60) for _ in range(3)]
    first.release()
    for _ in others:
        # Whichever is next; they print in the order in which they hold it.
        holders = [each for each in others if each.process.poll() is None]
        readable = wait_for_a_line(holders)
        assert readable.line() == "held"
        assert sum(each.process.poll() is None for each in others) == len(holders)
        readable.release()
    assert not lock.exists()


def wait_for_a_line(holders: list[Holder]) -> Holder:
    import select

    ready, _, _ = select.select([each.process.stdout for each in holders], [], [], 30)
    assert len(ready) == 1, "two hold the lock at once"
    return next(each for each in holders if each.process.stdout is ready[0])


def test_one_that_was_killed_is_in_nobodys_way(tmp_path: Path) -> None:
    """The lock is the operating system's, not the file's existence."""
    lock, serving = tmp_path / "lock", tmp_path / "link.sock"
    first = Holder(lock, serving)
    assert first.line() == "held"
    first.kill()
    assert lock.exists()
    with singleton.hold(lock, serving):
        assert lock.read_text() == f"{os.getpid()}\n"


def test_a_lock_that_somebody_removed_is_made_anew(tmp_path: Path) -> None:
    """Whoever holds a file that is not there any more holds nothing; a new one can come."""
    lock, serving = tmp_path / "lock", tmp_path / "link.sock"
    first = Holder(lock, serving)
    assert first.line() == "held"
    lock.unlink()
    with singleton.hold(lock, serving):
        pass
    first.release()


def test_a_symlink_in_its_place_is_refused(tmp_path: Path) -> None:
    """Nobody makes us write where they want."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), singleton.hold(tmp_path / "lock", tmp_path / "s"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_whose_file_was_removed_is_taken_again(tmp_path: Path) -> None:
    """Under its old descriptor, unless somebody else was faster."""
    lock, serving = tmp_path / "lock", tmp_path / "link.sock"
    with singleton.hold(lock, serving) as fd:
        lock.unlink()
        assert singleton.renew(fd, lock)
        assert singleton.is_at(fd, lock)
        assert lock.read_text() == f"{os.getpid()}\n"
        assert "serves already" in Holder(lock, serving).line()
        lock.unlink()
        other = Holder(lock, serving)
        assert other.line() == "held"
        assert not singleton.renew(fd, lock)
    assert lock.exists()
    other.release()
