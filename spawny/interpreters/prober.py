"""Executes interpreters and tells what they say: a program of its own, so that nobody waits for it.

It is started by its path, by `probe.py`. Its standard input says in one line what to do, and stays
open as long as anybody wants the answers: when it ends, so does every process that was started. A
line of JSON is written about each interpreter as soon as it has answered, ended, or taken too long.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress

# What is between these is the answer, whatever a start-up file prints before or after.
BEGIN, END = "<spawny-probe>", "</spawny-probe>"

# So much more than that is printed without end.
_OUTPUT_BYTES = 1 << 20

# For the end of a process that is about to end.
_END_SECONDS = 0.5

# Of what a broken one has said.
_STDERR_BYTES = 4000

# In the language of Python 2.7 and 3.0 on, which are to be told apart. As a daemon it is started
# without options: -S, -E, -I and -s change what it finds, a venv's own prefix among others.
_QUESTION = r"""
import sys, json, platform
if sys.path and sys.path[0] == "":
    del sys.path[0]
problem, no_ssl = "", ""
if sys.version_info < (3, 6):
    problem = "a daemon needs Python 3.6 or newer"
else:
    try:
        package = type(sys)("_spawny_kernel")
        package.__path__ = [sys.argv[1]]
        sys.modules["_spawny_kernel"] = package
        __import__("_spawny_kernel.daemon")
    except BaseException as error:
        problem = "it cannot load what a daemon needs: %s: %s" % (type(error).__name__, error)
try:
    import ssl
except BaseException as error:
    no_ssl = "%s: %s" % (type(error).__name__, error)
answer = {
    "version": list(sys.version_info[:3]),
    "version_text": platform.python_version(),
    "level": sys.version_info[3],
    "implementation": sys.implementation.name
    if hasattr(sys, "implementation") else platform.python_implementation().lower(),
    "executable": sys.executable or "",
    "prefix": sys.prefix,
    "base_prefix": getattr(sys, "real_prefix", getattr(sys, "base_prefix", sys.prefix)),
    "abiflags": getattr(sys, "abiflags", ""),
    "problem": problem,
    "no_ssl": no_ssl,
}
sys.stdout.write("\n%s" + json.dumps(answer) + "%s\n")
sys.stdout.flush()
"""
QUESTION = _QUESTION.replace('"\\n%s"', f'"\\n{BEGIN}"').replace('"%s\\n"', f'"{END}\\n"')


class Probe:
    """One interpreter that is being asked."""

    def __init__(self, path: str, kernel: str, environ: dict[str, str], deadline: float) -> None:
        self.path = path
        self.deadline = deadline
        self.said = b""
        self.complained = b""
        self.open = 2
        self.child = subprocess.Popen(
            [path, "-c", QUESTION, kernel],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environ,
            start_new_session=True,
        )
        assert self.child.stdout and self.child.stderr
        self.stdout, self.stderr = self.child.stdout.fileno(), self.child.stderr.fileno()
        # Its end may be later than that of its pipes, or earlier, where a child of it has them.
        self.pidfd = os.pidfd_open(self.child.pid) if hasattr(os, "pidfd_open") else None
        for fd in (self.stdout, self.stderr):
            os.set_blocking(fd, False)

    def fds(self) -> list[int]:
        return [self.stdout, self.stderr, *([] if self.pidfd is None else [self.pidfd])]

    def read(self, fd: int) -> bool:
        """Take what there is; false at the end."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return True
        if fd == self.stdout:
            self.said += data
        else:
            self.complained = (self.complained + data)[-_STDERR_BYTES:]
        return bool(data)

    @property
    def has_answered(self) -> bool:
        return END.encode() in self.said

    @property
    def is_endless(self) -> bool:
        return len(self.said) > _OUTPUT_BYTES

    def end(self, *, is_late: bool) -> dict[str, object]:
        """Kill what is left of it; what is told of it."""
        if self.pidfd is None and not (is_late or self.has_answered or self.is_endless):
            # Its pipes are closed, which comes a moment before its end.
            try:
                self.child.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                is_late = True
        # With its whole group, whose number is its own until it is reaped.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)
        # Not for ever: it may be in a wait of the system that no signal ends.
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(_END_SECONDS)
        code = self.child.returncode
        for fd in (self.stdout, self.stderr):
            while len(self.said) <= _OUTPUT_BYTES and _has_more(self, fd):
                pass
        self.child.stdout.close()  # type: ignore[union-attr]
        self.child.stderr.close()  # type: ignore[union-attr]
        if self.pidfd is not None:
            os.close(self.pidfd)
        _, _, said = self.said.partition(BEGIN.encode())
        answer, mark, _ = said.partition(END.encode())
        return {
            "path": self.path,
            "answer": answer.decode("utf-8", "replace") if mark else "",
            "late": is_late and not mark,
            "endless": self.is_endless and not mark,
            "code": code,
            "stderr": self.complained.decode("utf-8", "replace"),
        }


def _has_more(probe: Probe, fd: int) -> bool:
    before = len(probe.said) + len(probe.complained)
    return probe.read(fd) and len(probe.said) + len(probe.complained) > before


def main() -> None:
    # A line of any length; what follows it is the end.
    request = json.loads(sys.stdin.buffer.readline())
    waiting: list[str] = request["paths"][::-1]
    running: list[Probe] = []
    # Whoever asked has a terminal, and Ctrl-C is theirs.
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ, None)
        try:
            while waiting or running:
                while waiting and len(running) < request["at_once"]:
                    _begin(waiting.pop(), request, running, selector)
                patience = min((each.deadline for each in running), default=0) - time.monotonic()
                for key, _ in selector.select(max(0.0, patience)):
                    if key.data is None:
                        return  # nobody waits any more
                    _advance(key.data, key.fd, running, selector)
                for each in list(running):
                    if time.monotonic() >= each.deadline:
                        _finish(each, running, selector, is_late=True)
        finally:
            for each in running:
                each.end(is_late=True)


def _begin(
    path: str, request: dict[str, object], running: list[Probe], selector: selectors.BaseSelector
) -> None:
    deadline = time.monotonic() + float(request["seconds"])  # type: ignore[arg-type]
    try:
        probe = Probe(path, str(request["kernel"]), dict(request["environ"]), deadline)  # type: ignore[call-overload]
    except (OSError, ValueError) as error:
        _tell({"path": path, "error": getattr(error, "strerror", None) or str(error)})
        return
    running.append(probe)
    for fd in probe.fds():
        selector.register(fd, selectors.EVENT_READ, probe)


def _advance(probe: Probe, fd: int, running: list[Probe], selector: selectors.BaseSelector) -> None:
    if probe not in running:
        return
    if fd == probe.pidfd:
        _finish(probe, running, selector)
        return
    if not probe.read(fd):
        selector.unregister(fd)
        probe.open -= 1
    if probe.has_answered or probe.is_endless or not (probe.open or probe.pidfd is not None):
        _finish(probe, running, selector)


def _finish(
    probe: Probe, running: list[Probe], selector: selectors.BaseSelector, *, is_late: bool = False
) -> None:
    running.remove(probe)
    for fd in probe.fds():
        if fd in selector.get_map():
            selector.unregister(fd)
    _tell(probe.end(is_late=is_late))


def _tell(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(1)  # nobody listens
