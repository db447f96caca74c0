"""The Python interpreters on this machine that a daemon can run under."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 6)

# An interpreter that cannot print its version within this time is broken.
PROBE_SECONDS = 20

PROBE = """
import json, platform, sys
print(json.dumps([platform.python_implementation().lower(), sys.version_info[:3],
                  sys.executable, sys.prefix == getattr(sys, "base_prefix", None)]))
"""

EXECUTABLE = re.compile(r"(python3|pypy3)(\.\d+)?")


@dataclass(frozen=True, order=True)
class Interpreter:
    """An executable that has been run and said this of itself."""

    implementation: str
    version: tuple[int, int, int]
    path: str

    @property
    def label(self) -> str:
        """As in test ids and SPAWNY_TEST_INTERPRETERS: `cpython3.8`, `pypy3.9`."""
        major, minor, _ = self.version
        return f"{self.implementation}{major}.{minor}"


@functools.cache
def find() -> list[Interpreter]:
    """One interpreter per implementation and minor version, oldest first; found once a session."""
    found: dict[str, Interpreter] = {}
    for executable in _candidates(os.environ):
        interpreter = _probe(executable)
        if interpreter and interpreter.version >= OLDEST:
            found.setdefault(interpreter.label, interpreter)
    return sorted(found.values())


def select(found: list[Interpreter], wanted: str) -> list[Interpreter]:
    """Those whose labels stand in `wanted`, comma-separated; all when it is empty.

    Raises `LookupError` for a label that was not found, since a silent skip would look like a pass.
    """
    labels = [label.strip() for label in wanted.split(",") if label.strip()]
    if missing := set(labels) - {each.label for each in found}:
        have = ", ".join(each.label for each in found)
        raise LookupError(f"no interpreter {', '.join(sorted(missing))} here; found: {have}")
    return [each for each in found if not labels or each.label in labels]


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    # First our own, without the venv around it: there is always at least that one.
    yield getattr(sys, "_base_executable", sys.executable)
    minors = range(OLDEST[1], 15)
    for name in [*(f"python3.{minor}" for minor in minors), "python3", "pypy3"]:
        if executable := shutil.which(name, path=environ.get("PATH")):
            yield executable
    pyenv = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for path in sorted(pyenv.glob("versions/*/bin/*")):
        if EXECUTABLE.fullmatch(path.name):
            yield str(path)


def _probe(executable: str) -> Interpreter | None:
    """What the executable says of itself; None where it is broken, Python 2, or a venv's."""
    try:
        # A pyenv shim of a version that is not active exits with an error.
        probe = subprocess.run(
            [executable, "-S", "-E", "-c", PROBE],
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        implementation, version, path, is_bare = json.loads(probe.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    # A venv may hold our dependencies, and tests are to show that a daemon needs none.
    return Interpreter(implementation, tuple(version), path) if is_bare else None
