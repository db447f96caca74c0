"""Virtual environments of other interpreters with chosen packages in them, made by pip and kept."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import interpreters

# Wheels alone: nobody wants to compile numpy, and a failure should be quick.
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]

# For a download of a hundred megabytes over a slow line.
INSTALL_SECONDS = 600

_missing: dict[str, str] = {}  # why one could not be made in this session


def environment(config: pytest.Config, versions: list[str], *requirements: str) -> str:
    """The python of an environment of the first of these versions ("3.8") that is here.

    Skips the test where there is none, or where pip cannot have the packages.
    """
    labels = [f"cpython{each}" for each in versions]
    found = {each.label: each for each in interpreters.find()}
    base = next((found[each] for each in labels if each in found), None)
    if base is None:
        pytest.skip(f"none of {', '.join(labels)} is here")
    what = " ".join([base.label, *requirements])
    if what in _missing:
        pytest.skip(_missing[what])
    key = zlib.crc32(" ".join([base.path, *requirements]).encode())
    folder = _folder(config) / f"{base.label}-{key:08x}"
    python = folder / "bin" / "python"
    with _is_missing(folder) as is_missing:
        if is_missing:
            try:
                _run(base.path, "-m", "venv", str(folder))
                _run(str(python), *PIP, *requirements)
            except (OSError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", None) or str(error)
                _missing[what] = f"no environment of {what}: {said.strip().splitlines()[-1]}"
                pytest.skip(_missing[what])
    return str(python)


def released(config: pytest.Config, wheel: Path) -> str:
    """The python of an environment with the spawny of this wheel, and what it needs taken from the
    environment that runs the tests: so no network is needed, nor pip."""
    folder = _folder(config) / f"{wheel.name}-{zlib.crc32(sys.executable.encode()):08x}"
    with _is_missing(folder) as is_missing:
        if is_missing:
            _borrow(folder, wheel)
    return str(folder / "bin" / "python")


def _borrow(folder: Path, wheel: Path) -> None:
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    packages = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # Behind the environment's own, so that the wheel's spawny is found first. What is in the
    # .pth files there (this checkout, perhaps) is not followed.
    (packages / "borrowed.pth").write_text("\n".join(sorted(ours)) + "\n")


def without_ours(home: Path) -> dict[str, str]:
    """The variables of a program of another environment, whose spawny is that environment's."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "SPAWNY_HOME": str(home)}


def _folder(config: pytest.Config) -> Path:
    cache = config.cache
    assert cache is not None, "the cache of pytest keeps the environments: not -p no:cacheprovider"
    return cache.mkdir("environments")


@contextmanager
def _is_missing(folder: Path) -> Iterator[bool]:
    """Whether it has to be made; none else of the processes that run the tests makes it meanwhile.

    It is there from then on, unless making it raises.
    """
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "made"
        is_missing = not made.exists()
        if is_missing:
            shutil.rmtree(folder, ignore_errors=True)
        yield is_missing
        if is_missing:
            made.touch()


def _run(*command: str) -> None:
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
