"""What counts as a change of the interpreter, and of what is installed for it."""

import os
import sys
from pathlib import Path

import pytest

from spawny.kernel.surroundings import Surroundings


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of installed distributions, the only one on the path."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(folder), str(folder)])
    return folder


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for the executable of this process."""
    file = tmp_path / "python"
    file.write_text("one")
    monkeypatch.setattr(sys, "executable", str(file))
    monkeypatch.setattr(sys, "path", [])
    return file


def install(packages: Path, name: str, version: str) -> Path:
    """As an installer: the metadata is a directory of its own, made anew."""
    metadata = packages / f"{name}-{version}.dist-info"
    metadata.mkdir()
    later(packages)
    return metadata


def later(*paths: Path) -> None:
    """Clocks of file systems are slow."""
    for path in paths:
        at = path.stat().st_mtime_ns + 10**9
        os.utime(path, ns=(at, at))


def noted() -> Surroundings:
    found = Surroundings()
    found.note()
    return found


def texts(surroundings: Surroundings) -> list[str]:
    return [text for _, _, _, text in surroundings.changed()]


def test_another_version(packages: Path) -> None:
    """It is told with both versions, once, and no more when the first is there again."""
    metadata = install(packages, "numpy", "1.26.4")
    surroundings = noted()
    assert texts(surroundings) == []
    newer = packages / "numpy-2.1.0.dist-info"
    metadata.rename(newer)
    later(packages)
    assert surroundings.changed() == [
        ("environment", "numpy", str(packages), "numpy 1.26.4 -> 2.1.0")
    ]
    newer.rename(metadata)
    later(packages)
    assert texts(surroundings) == []


def test_what_comes_and_goes(packages: Path) -> None:
    """Distributions are told by name; eggs, too, without the version of Python in their names."""
    (packages / "old_one-1.0-py3.6.egg-info").touch()
    surroundings = noted()
    (packages / "old_one-1.0-py3.6.egg-info").unlink()
    install(packages, "New.One", "2")
    assert texts(surroundings) == [
        "New.One 2 was installed",
        "old_one 1.0 is not installed any more",
    ]


def test_the_same_version_anew(packages: Path) -> None:
    """An installation of one's own package need not change its version."""
    metadata = install(packages, "mine", "0.1")
    surroundings = noted()
    later(packages, metadata)
    assert texts(surroundings) == ["mine 0.1 was installed anew"]


def test_spellings_of_a_name(packages: Path) -> None:
    """Installers of different ages write the same name differently."""
    metadata = install(packages, "zope.interface", "5")
    surroundings = noted()
    metadata.rename(packages / "zope_interface-6.dist-info")
    later(packages)
    assert texts(surroundings) == ["zope_interface 5 -> 6"]


def test_bytecode_and_temporary_files(packages: Path) -> None:
    """What is written there without an installation is no change."""
    install(packages, "numpy", "1.26.4")
    surroundings = noted()
    (packages / "__pycache__").mkdir()
    (packages / "~umpy-1.26.4.dist-info").mkdir()
    later(packages)
    assert texts(surroundings) == []


def test_a_directory_that_is_deleted(packages: Path) -> None:
    """It is told as one change, whatever it held; another one that never was is none."""
    metadata = install(packages, "numpy", "1.26.4")
    sys.path.append(str(packages.parent / "never" / "site-packages"))
    surroundings = noted()
    metadata.rmdir()
    packages.rmdir()
    assert texts(surroundings) == [f"{packages} is gone"]


def test_an_interpreter_that_is_replaced(python: Path) -> None:
    """Another executable at its path is told; the same one, written again with its time, is not."""
    surroundings = noted()
    stat = python.stat()
    python.rename(python.with_name("before"))
    python.write_text("one")
    os.utime(python, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert texts(surroundings) == []
    python.write_text("another")
    assert texts(surroundings) == [f"interpreter {python} was replaced"]
    python.unlink()
    assert texts(surroundings) == [f"interpreter {python} is gone"]


def test_a_link_to_another_interpreter(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a virtual environment: both targets are told."""
    link = python.with_name("link")
    link.symlink_to(python)
    monkeypatch.setattr(sys, "executable", str(link))
    surroundings = noted()
    other = python.with_name("python9")
    other.write_text("another")
    link.unlink()
    link.symlink_to(other)
    assert texts(surroundings) == [f"interpreter {link} is {other} now, and was {python}"]


def test_the_settings_of_a_virtual_environment(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count by their content."""
    settings = python.with_name("pyvenv.cfg")
    settings.write_text("home = /usr/bin")
    monkeypatch.setattr(sys, "prefix", str(python.parent))
    surroundings = noted()
    later(settings)
    assert texts(surroundings) == []
    settings.write_text("home = /usr/local/bin")
    later(settings)
    assert texts(surroundings) == [f"{settings} was edited"]
    settings.unlink()
    assert texts(surroundings) == [f"{settings} is gone"]


def test_without_an_executable(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded interpreter has none to look at, and nothing changes before anything is noted."""
    monkeypatch.setattr(sys, "executable", "")
    assert texts(Surroundings()) == []
    assert texts(noted()) == []
