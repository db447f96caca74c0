"""Packages to install that no index has: wheels, and projects whose build waits for the test."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel(folder: Path, name: str, version: str = "1.0", requires: Sequence[str] = ()) -> Path:
    """A wheel of one module, which knows its version, and a script of the same name."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{name}.py": f"version = {version!r}\ndef main(): print({name!r}, version)\n",
        f"{info}/METADATA": METADATA.format(name=name, version=version) + needs,
        f"{info}/WHEEL": WHEEL,
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for each, text in files.items():
            archive.writestr(each, text)
    return path


PROJECT = """
[project]
name = "slow"
version = "1.0"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

BACKEND = """
import os, sys, zipfile
HERE = {here!r}
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    os.mkdir(folder + "/slow-1.0.dist-info")
    with open(folder + "/slow-1.0.dist-info/METADATA", "w") as file:
        file.write({metadata!r})
    return "slow-1.0.dist-info"
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open(HERE + "/began", "w") as file:
        file.write(str(os.getpid()))
    with open(HERE + "/go") as file:
        file.read()
    name = "slow-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as archive:
        archive.writestr("slow.py", "version = '1.0'")
        archive.writestr("slow-1.0.dist-info/METADATA", {metadata!r})
        archive.writestr("slow-1.0.dist-info/WHEEL", {wheel!r})
        archive.writestr("slow-1.0.dist-info/RECORD", "")
    return name
"""


class SlowProject:
    """A project whose build tells when it is under way, and goes on when it is told."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "slow"
        self.path.mkdir()
        self._pipes = folder / "pipes"
        self._pipes.mkdir()
        for name in ("began", "go"):
            os.mkfifo(self._pipes / name)
        metadata = METADATA.format(name="slow", version="1.0")
        (self.path / "pyproject.toml").write_text(PROJECT)
        (self.path / "backend.py").write_text(
            BACKEND.format(here=str(self._pipes), metadata=metadata, wheel=WHEEL)
        )

    def wait(self) -> int:
        """Wait until a build is under way; the pid of the process that builds."""
        return int((self._pipes / "began").read_text())

    def go_on(self) -> None:
        """Have the build that waits go on."""
        (self._pipes / "go").write_text("go")
