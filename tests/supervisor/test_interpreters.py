"""From what a user writes to an executable."""

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
        self.environ = {"PATH": f"{root}/bin:{root}/pyenv/shims", "PYENV_ROOT": f"{root}/pyenv"}

    def executable(self, path: str) -> str:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
        return str(file)

    def resolve(self, spec: str) -> str:
        return interpreters.resolve(spec, self.environ, str(self.root)).executable


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_path_is_taken_as_it_is(machine: Machine) -> None:
    """Absolute, relative to the client's directory, below its home; symlinks unresolved."""
    python = machine.executable("opt/python3.9")
    link = machine.root / "link"
    link.symlink_to(python)
    machine.environ["HOME"] = str(machine.root)
    assert machine.resolve(python) == python
    assert machine.resolve("opt/python3.9") == python
    assert machine.resolve("./opt/../opt/python3.9") == python
    assert machine.resolve("~/opt/python3.9") == python
    assert machine.resolve(str(link)) == str(link)


def test_a_venv_is_its_directory(machine: Machine) -> None:
    """Its bin/python, also by a bare name in the client's directory."""
    python = machine.executable("venv/bin/python")
    assert machine.resolve(str(machine.root / "venv")) == python
    assert machine.resolve("venv") == python
    only_pypy = machine.executable("pypyvenv/bin/pypy3")
    assert machine.resolve("pypyvenv/") == only_pypy


@pytest.mark.parametrize("spec", ["3.9", "python3.9", "cpython3.9", "python-3.9"])
def test_a_version_is_looked_up_on_the_path(machine: Machine, spec: str) -> None:
    """As the client's shell would."""
    python = machine.executable("bin/python3.9")
    machine.executable("pyenv/versions/3.9.18/bin/python3.9")
    assert machine.resolve(spec) == python


def test_shims_are_passed_over(machine: Machine) -> None:
    """They fail for every version that is not switched on; the versions themselves do not."""
    machine.executable("pyenv/shims/python3.9")
    python = machine.executable("pyenv/versions/3.9.18/bin/python3.9")
    assert machine.resolve("3.9") == python


def test_the_newest_pyenv_version_wins(machine: Machine) -> None:
    """By number, not by letters."""
    machine.executable("pyenv/versions/3.9.9/bin/python3.9")
    newest = machine.executable("pyenv/versions/3.9.18/bin/python3.9")
    pypy = machine.executable("pyenv/versions/pypy3.9-7.3.13/bin/pypy3.9")
    machine.executable("pyenv/versions/pypy3.9-7.3.13/bin/pypy3")
    assert machine.resolve("3.9") == newest
    assert machine.resolve("pypy3.9") == pypy


def test_an_exact_version(machine: Machine) -> None:
    """Only pyenv tells the third number without running anything."""
    exact = machine.executable("pyenv/versions/3.9.9/bin/python3.9")
    machine.executable("pyenv/versions/3.9.18/bin/python3.9")
    assert machine.resolve("3.9.9") == exact
    with pytest.raises(InterpreterNotFound):
        machine.resolve("3.9.1")


def test_other_names_are_looked_up_too(machine: Machine) -> None:
    """pypy3, and names of the user's own."""
    pypy, own = machine.executable("bin/pypy3"), machine.executable("bin/my-python")
    assert machine.resolve("pypy3") == pypy
    assert machine.resolve("my-python") == own


def test_what_is_not_found_lists_what_is(machine: Machine) -> None:
    """On the PATH and under pyenv."""
    machine.executable("bin/python3.11")
    machine.executable("bin/pythonw-config")
    (machine.root / "bin" / "plain").touch()
    machine.executable("pyenv/versions/3.9.18/bin/python3.9")
    for spec in ("3.4", "/nowhere/python", "plain", str(machine.root / "bin"), ""):
        with pytest.raises(InterpreterNotFound) as caught:
            machine.resolve(spec)
        assert str(caught.value).endswith("found were: python3.11, 3.9.18 (pyenv)")


def test_a_machine_without_any_python(tmp_path: Path) -> None:
    """Nor a home."""
    with pytest.raises(InterpreterNotFound, match="none at all"):
        interpreters.resolve("3.9", {"PATH": str(tmp_path / "missing")}, "/")


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
    """The real one, by its real path, and by its version on the real PATH."""
    assert interpreters.resolve(sys.executable, os.environ, "/").executable == sys.executable
