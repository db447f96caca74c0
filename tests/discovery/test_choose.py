"""The interpreter that is meant, out of the real ones."""

import os
from pathlib import Path

import pytest

from spawny import interpreters
from spawny.errors import InterpreterNotFound
from tests.interpreters import Interpreter


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAWNY_HOME", str(tmp_path / "home"))


def test_every_interpreter_is_found_by_its_version(interpreter: Interpreter) -> None:
    """With the version that it says itself."""
    name = "" if interpreter.implementation == "cpython" else interpreter.implementation
    minor = ".".join(map(str, interpreter.version[:2]))
    found = interpreters.find(f"{name}{minor}", os.environ, "/")
    assert found.can_run
    assert (found.implementation, found.version[:2]) == (
        interpreter.implementation,
        interpreter.version[:2],
    )


def test_what_is_not_found_lists_what_is() -> None:
    """With those that are not fit for a daemon."""
    with pytest.raises(InterpreterNotFound, match=r"no Python interpreter '9\.9'; found were: cpy"):
        interpreters.find("9.9", os.environ, "/")
