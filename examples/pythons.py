"""Another Python for the demo, and a virtual environment of it with numpy and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 6)
NEWEST = (3, 20)

# The last numpy for a Python that newer ones have left behind; the newest for all others.
LAST_NUMPY = {(3, 6): "1.19.5", (3, 7): "1.21.6", (3, 8): "1.24.4", (3, 9): "2.0.2"}

# Old enough to make the point, yet found on many machines.
FAVOURITE = (3, 8)

# One that cannot tell its version within this time is broken.
PROBE_SECONDS = 20

PROBE = "import sys, venv; print(sys.implementation.name, *sys.version_info[:3])"


@dataclass(frozen=True)
class Python:
    """A CPython that can make virtual environments."""

    version: tuple[int, int, int]
    path: str

    @property
    def minor(self) -> tuple[int, int]:
        return self.version[:2]

    @property
    def numpy(self) -> str:
        """What pip is asked for."""
        last = LAST_NUMPY.get(self.minor)
        return f"numpy=={last}" if last else "numpy"

    def __str__(self) -> str:
        return f"Python {'.'.join(map(str, self.version))}"


def find() -> list[Python]:
    """One for each minor version, the best for a demo first; our own version is the last resort."""
    found: dict[tuple[int, int], Python] = {}
    for path in _candidates():
        python = probe(path)
        if python and python.minor >= OLDEST:
            found.setdefault(python.minor, python)
    return sorted(found.values(), key=_preference)


def _preference(python: Python) -> tuple[bool, int]:
    return python.minor == sys.version_info[:2], abs(python.minor[1] - FAVOURITE[1])


def _candidates() -> Iterator[str]:
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1])]
    for name in [*names, "python3"]:
        if path := shutil.which(name):
            yield path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    uv = Path.home() / ".local" / "share" / "uv" / "python"
    for name in names:
        for folder in (pyenv / "versions", uv):
            yield from map(str, sorted(folder.glob(f"*/bin/{name}"), reverse=True))
    yield getattr(sys, "_base_executable", sys.executable)


def probe(path: str) -> Python | None:
    """What is at the path; None where it is broken (as a pyenv shim may be), or no CPython."""
    try:
        told = subprocess.run(
            [path, "-I", "-c", PROBE], capture_output=True, timeout=PROBE_SECONDS, check=True
        ).stdout
        implementation, major, minor, micro = told.decode().split()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if implementation != "cpython":
        return None
    return Python((int(major), int(minor), int(micro)), path)


def make_venv(python: Python, venv: Path) -> None:
    """A fresh environment with numpy in it; raises `subprocess.CalledProcessError`.

    Our own pip fetches what is made for the other Python. So that one needs neither pip nor
    ensurepip, which some distributions split off, and the environment holds numpy alone.
    """
    _run(python.path, "-m", "venv", "--clear", "--without-pip", str(venv))
    major, minor = python.minor
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--implementation=cp", f"--python-version={major}.{minor}"),
        "--ignore-requires-python",  # it would hold the other Python's limits against this one
        f"--target={site_packages(python, venv)}",
        python.numpy,
    )
    # A wheel for another platform, a library that is missing: now is the time to know.
    _run(str(venv / "bin" / "python"), "-I", "-c", "import numpy")


def site_packages(python: Python, venv: Path) -> Path:
    """Where the environment's packages are."""
    major, minor = python.minor
    return venv / "lib" / f"python{major}.{minor}" / "site-packages"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
