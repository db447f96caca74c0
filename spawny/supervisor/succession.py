"""The supervisor's successor: tried as a child, then executed in place of this process."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence

from .. import children
from .events import SuccessorChecked
from .watch import Watch

logger = logging.getLogger(__name__)

# The end of what a successor that fails has said: a traceback.
_OUTPUT_BYTES = 4096

# Between the end of its output and its own end.
_END_SECONDS = 5.0


class Succession:
    """The one trial that may be under way."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._child: subprocess.Popen[bytes] | None = None
        self._said = b""

    def check(self, python: str, python_path: str) -> list[SuccessorChecked]:
        """Begin to try it; the verdict where that is known already."""
        self.abandon()
        try:
            self._child = children.start(
                [python, "-m", "spawny.supervisor", "--check"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environ(python_path),
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL byte
            return [SuccessorChecked("", f"it cannot be executed: {error}")]
        self._said = b""
        assert self._child.stdout is not None
        self._watch.put(self._child.stdout.fileno())
        return []

    def advance(self, fd: int) -> list[SuccessorChecked]:
        """Read what it says; the verdict when that is all."""
        if self._child is None or self._child.stdout is None or self._child.stdout.fileno() != fd:
            return []
        data = os.read(fd, _OUTPUT_BYTES)
        self._said = (self._said + data)[-_OUTPUT_BYTES:]
        return [] if data else [self._verdict(self._child)]

    def _verdict(self, child: subprocess.Popen[bytes]) -> SuccessorChecked:
        try:
            code: int | None = child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        self.abandon()
        text = self._said.decode("utf-8", "replace").strip()
        if code == 0:
            return SuccessorChecked(text.rpartition("\n")[2], "")
        return SuccessorChecked("", f"its trial ended with exit code {code}:\n{text}")

    def abandon(self) -> None:
        """End a trial that is under way."""
        child, self._child = self._child, None
        if child is not None:
            assert child.stdout is not None
            self._watch.drop(child.stdout.fileno())
            with child:  # which closes the pipe, and waits
                child.kill()


def execute(python: str, python_path: str, arguments: Sequence[str], handover_fd: int) -> None:
    """Become the successor; returns only by an OSError."""
    command = [python, "-m", "spawny.supervisor", *arguments, "--handover-fd", str(handover_fd)]
    logger.info("becoming %s", " ".join(command))
    sys.stderr.flush()
    os.chdir("/")  # where its trial was
    os.execve(python, command, _environ(python_path))


def _environ(python_path: str) -> dict[str, str]:
    """This process's environment, with the successor's own place to import from."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if python_path:
        environ["PYTHONPATH"] = python_path
    return environ
