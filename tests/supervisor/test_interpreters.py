"""From what a client asks for to an executable, in the supervisor."""

import os
import sys
from pathlib import Path

import pytest

from spawny.errors import InterpreterNotFound
from spawny.supervisor import interpreters


class Machine:
    """A directory with interpreters in it, and the environment of a client there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {"PATH": f"{root}/bin", "HOME": str(root)}

    def executable(self, path: str) -> str:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\nexit 1\n")
        file.chmod(0o755)
        return str(file)

    def at_once(self, spec: str) -> str | None:
        found = interpreters.resolve_at_once(spec, self.environ, str(self.root))
        return found.executable if found else None


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_path_is_taken_as_it_is(machine: Machine) -> None:
    """Absolute, relative to the client's directory, below its home; symlinks unresolved."""
    python = machine.executable("opt/python3.9")
    link = machine.root / "link"
    link.symlink_to(python)
    assert machine.at_once(python) == python
    assert machine.at_once("opt/python3.9") == python
    assert machine.at_once("./opt/../opt/python3.9") == python
    assert machine.at_once("~/opt/python3.9") == python
    assert machine.at_once(str(link)) == str(link)


def test_a_venv_is_its_directory(machine: Machine) -> None:
    """Its bin/python, or what PyPy calls it."""
    python = machine.executable("venv/bin/python")
    assert machine.at_once(str(machine.root / "venv")) == python
    only_pypy = machine.executable("pypyvenv/bin/pypy3")
    assert machine.at_once("pypyvenv/") == only_pypy


@pytest.mark.parametrize("spec", ["3.9", "python3.9", ">=3.8", "pypy", "venv", "", "/nowhere"])
def test_all_else_is_not_for_the_loop(machine: Machine, spec: str) -> None:
    """Versions, names, and what is not there, which is to be said with what is."""
    machine.executable("bin/python3.9")
    machine.executable("venv/bin/python")
    assert machine.at_once(spec) is None


def test_what_is_looked_for_is_an_interpreter_as_well(machine: Machine) -> None:
    """Of the same kind as one that is given by its path."""
    python = machine.executable("bin/my-python")
    found = interpreters.resolve("my-python", machine.environ, "/")
    assert found == interpreters.describe(python)
    with pytest.raises(InterpreterNotFound, match="no Python interpreter 'none-such'"):
        interpreters.resolve("none-such", machine.environ, "/")


def test_the_same_interpreter_by_two_names_has_one_key(machine: Machine) -> None:
    """A venv is another one than the interpreter that it was made with."""
    python = machine.executable("bin/python3.9")
    (machine.root / "bin" / "python3").symlink_to(python)
    venv = machine.root / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(python)
    (venv / "python3").symlink_to("python")
    (venv.parent / "pyvenv.cfg").touch()
    key = interpreters.key_of(python)
    assert interpreters.key_of(str(machine.root / "bin" / "python3")) == key
    venv_key = interpreters.key_of(str(venv / "python"))
    assert venv_key == interpreters.key_of(str(venv / "python3"))
    assert venv_key != key


def test_this_python_is_found() -> None:
    """The real one, by its real path."""
    found = interpreters.resolve_at_once(sys.executable, os.environ, "/")
    assert found is not None and found.executable == sys.executable
