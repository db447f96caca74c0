"""What end-to-end tests need to watch processes and to run scripts in ones of their own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from spawny.client.ending import wait_gone

# Only a failing test waits so long.
PATIENCE_SECONDS = 20


def is_gone(pid: int, seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait for the end of a process, whosever child it is; False when it goes on."""
    with wait_gone(pid) as wait:
        return wait(seconds)


def kill(pid: int) -> None:
    """SIGKILL a process of this test, and wait until it is gone."""
    with wait_gone(pid) as wait:
        os.kill(pid, signal.SIGKILL)
        assert wait(PATIENCE_SECONDS)


def pause(pid: int) -> None:
    """SIGSTOP a process of this test, and wait until all its threads have stopped."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    assert eventually(
        lambda: all(
            each.read_text().rpartition(")")[2].split()[0] == "T" for each in tasks.glob("*/stat")
        )
    )


def eventually(is_so: Callable[[], bool]) -> bool:
    """Ask again and again, each time by a round trip, until it is so; False when patience ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            return False
    return True


class Script:
    """A client script in a process of its own; lines go in and out, so that nothing need sleep."""

    def __init__(self, text: str, *arguments: str, **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(text), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # or `line` would take more than the line, of which `end` knows nothing
            env={**os.environ, **environ},
        )

    def line(self) -> str:
        """The next line it prints; its stderr is the error where it prints none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line:
            assert self.process.stderr is not None
            error = self.process.stderr.read().decode()
            raise AssertionError(f"the script ended early: {error}")
        return line.rstrip("\n")

    def until(self, wanted: str) -> str:
        """The first line that begins so."""
        while not (line := self.line()).startswith(wanted):
            pass
        return line

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def end(self) -> tuple[int, str, str]:
        """(exit code, rest of stdout, stderr) once it has ended by itself."""
        out, error = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out.decode(), error.decode()

    def __enter__(self) -> "Script":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()
