"""Which modules are noted, and what counts as a change of one."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from spawny.kernel import modules, stamps
from spawny.kernel.modules import Modules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source directory on `sys.path`; what is imported from it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    """A file that tells by its time, too, that it was written: clocks of file systems are slow."""
    path.parent.mkdir(exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    if before:
        os.utime(path, ns=(before + 10**9, before + 10**9))
    importlib.invalidate_caches()
    return path


def watching(*directories: Path) -> Modules:
    watched = Modules()
    watched.watch([str(each) for each in directories])
    return watched


def changed(watched: Modules) -> list[tuple[str, str]]:
    """The names and files of what has changed."""
    return [(name, file) for _, name, file, _ in watched.changed()]


def test_an_edited_file(folder: Path) -> None:
    """Its module has changed, however short it is and of whatever size the edit is."""
    file = write(folder / "res_edited.py", "x = 1")
    watched = watching(folder)
    importlib.import_module("res_edited")
    watched.note()
    assert changed(watched) == []
    write(file, "x = 2")
    assert changed(watched) == [("res_edited", str(file))]
    write(file, "x = 1")
    assert changed(watched) == []


def test_a_touched_file(folder: Path) -> None:
    """It has not changed, and its content is not read again for that time."""
    file = write(folder / "res_touched.py", "x = 1")
    watched = watching(folder)
    importlib.import_module("res_touched")
    watched.note()
    write(file, "x = 1")
    assert changed(watched) == []
    file.chmod(0)
    assert changed(watched) == []


def test_a_removed_file(folder: Path) -> None:
    """It has changed: the next daemon could not import it."""
    file = write(folder / "res_removed.py", "")
    watched = watching(folder)
    importlib.import_module("res_removed")
    watched.note()
    file.unlink()
    assert changed(watched) == [("res_removed", str(file))]


def test_packages(folder: Path) -> None:
    """Their modules are noted like others, by their full names."""
    write(folder / "res_package" / "__init__.py", "")
    file = write(folder / "res_package" / "part.py", "x = 1")
    watched = watching(folder)
    importlib.import_module("res_package.part")
    watched.note()
    write(file, "x = 2")
    assert [name for name, _ in changed(watched)] == ["res_package.part"]


def test_a_module_that_was_reloaded(folder: Path) -> None:
    """What it was loaded from last is what counts."""
    file = write(folder / "res_reloaded.py", "x = 1")
    watched = watching(folder)
    module = importlib.import_module("res_reloaded")
    watched.note()
    write(file, "x = 2")
    importlib.reload(module)
    assert changed(watched) == []
    write(file, "x = 3")
    assert len(changed(watched)) == 1


def test_what_is_installed_or_elsewhere(folder: Path, tmp_path: Path) -> None:
    """It is none of the caller's own, even where it lies below a source directory."""
    file = write(folder / "site-packages" / "res_installed.py", "")
    other = write(folder / "other" / "res_other.py", "")
    sys.path[:0] = [str(file.parent), str(other.parent)]
    try:
        watched = Modules()
        watched.watch([str(folder / "mine"), sys.prefix, str(folder / "site-packages")])
        importlib.import_module("res_installed")
        importlib.import_module("res_other")
        sys.modules.pop("this", None)
        watched.note()
    finally:
        del sys.path[:2]
    file.unlink()
    other.unlink()
    assert changed(watched) == []


def test_the_root_from_anywhere(folder: Path) -> None:
    """The module that a definition names by its file is noted wherever that lies."""
    file = write(folder / "res_root.py", "x = 1")
    watched = watching()
    root = importlib.import_module("res_root")
    watched.note_first(root)
    write(file, "x = 2")
    assert changed(watched) == [("res_root", str(file))]


def test_no_code_of_a_module_runs(folder: Path) -> None:
    """What stands in `sys.modules` may do anything when it is asked for an attribute."""

    class Loud(ModuleType):
        def __getattribute__(self, name: str) -> object:
            raise AssertionError(name)

    watched = watching(folder)
    sys.modules["res_loud"] = Loud("res_loud")
    sys.modules["res_none"] = object()  # type: ignore[assignment]
    watched.note()
    assert changed(watched) == []


def test_a_current_directory_that_is_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that means nothing any more is left out."""
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    watched = watching(folder)
    relative = sys.modules["res_relative"] = ModuleType("res_relative")
    relative.__file__ = "res_relative.py"
    watched.note_first(relative)
    assert changed(watched) == []


def test_the_number_is_limited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many files are looked at, at an attachment, and no more."""
    monkeypatch.setattr(modules, "MODULES_LIMIT", 2)
    files = [write(folder / f"res_many{i}.py", "") for i in range(4)]
    watched = watching(folder)
    for file in files:
        importlib.import_module(file.stem)
    watched.note()
    for file in files:
        file.unlink()
    assert len(changed(watched)) == 2


def test_a_large_file_is_told_by_its_stamp(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content is not read."""
    monkeypatch.setattr(stamps, "CONTENT_LIMIT_BYTES", 3)
    file = write(folder / "res_large.py", "x = 1")
    watched = watching(folder)
    importlib.import_module("res_large")
    watched.note()
    assert changed(watched) == []
    write(file, "x = 1")
    assert len(changed(watched)) == 1
