"""What is said at an attachment of code that has changed since it was loaded there."""

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import StaleModuleWarning
from tests.end_to_end.processes import Script
from tests.interpreters import Interpreter

SCRIPT = """
import importlib, mine
def late():
    import late
    return late.x
def reload():
    importlib.reload(mine)
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caller's own source directory, with two modules."""
    (tmp_path / "mine.py").write_text("x = 1")
    (tmp_path / "late.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def edit(file: Path) -> None:
    before = file.stat().st_mtime_ns
    file.write_text(file.read_text() + "  # edited")
    os.utime(file, ns=(before + 10**9, before + 10**9))


@pytest.fixture
def stopped(home: Path) -> Iterator[None]:
    """The daemon of the test has a name and is stopped after it."""
    yield
    with spawny.connect() as supervisor:
        supervisor.stop("stale")


def attach_in_a_script(source: Path, text: str = "spawny.attach('stale')") -> str:
    """What another script's attachment prints on stderr."""
    with Script(
        f"""
        import sys, spawny
        sys.stderr = sys.stdout
        sys.path.insert(0, sys.argv[1])
        script = {SCRIPT!r}
        daemon = {text}
        daemon = spawny.attach("stale")
        daemon.late()
        print("over")
        """,
        str(source),
    ) as client:
        lines: list[str] = []
        while "over" not in lines:
            lines.append(client.line())
        client.end()
    return "\n".join(lines[:-1])


@pytest.mark.usefixtures("stopped")
def test_a_module_that_was_edited(interpreter: Interpreter, source: Path) -> None:
    """Whoever attaches is warned, once, at its own line, with its name and what to do; whatever
    interpreter the daemon has."""
    module = spawny.run_script(SCRIPT, python_exe=str(interpreter.path), name="stale")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spawny.attach("stale")
    edit(source / "mine.py")
    with pytest.warns(StaleModuleWarning) as caught:
        again: Any = spawny.attach("stale")
    (warning,) = caught
    assert warning.filename == __file__
    assert warning.message.modules == [("mine", str(source / "mine.py"))]  # type: ignore[union-attr]
    assert "spawny restart stale" in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert again.late() == 1 and module.late() == 1


@pytest.mark.usefixtures("stopped")
def test_a_module_that_a_call_imported(source: Path) -> None:
    """It is noted before the answer to that call."""
    module = spawny.run_script(SCRIPT, name="stale")
    assert module.late() == 1
    edit(source / "late.py")
    with pytest.warns(StaleModuleWarning, match="late"):
        spawny.run_script(SCRIPT, name="stale")


@pytest.mark.usefixtures("stopped")
def test_a_module_that_was_reloaded(source: Path) -> None:
    """It is up to date again."""
    module = spawny.run_script(SCRIPT, name="stale")
    edit(source / "mine.py")
    module.reload()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spawny.attach("stale")


@pytest.mark.usefixtures("stopped")
def test_what_a_script_shows(source: Path) -> None:
    """The warning is there by default, on stderr, and nothing where nothing has changed."""
    module = spawny.run_script(SCRIPT, name="stale")
    assert attach_in_a_script(source) == ""
    edit(source / "mine.py")
    shown = attach_in_a_script(source, "spawny.run_script(script, name='stale')")
    assert shown.count("StaleModuleWarning") == 2  # of two attachments in two lines
    assert "mine" in shown
    del module


@pytest.mark.usefixtures("stopped")
def test_a_warning_that_is_an_error(source: Path) -> None:
    """The attachment fails by it, and leaves no lease behind."""
    spawny.run_script(SCRIPT, name="stale")
    edit(source / "mine.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StaleModuleWarning):
            spawny.attach("stale")
    assert "mine" not in sys.modules
