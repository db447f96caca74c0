"""What is told of a daemon that has drifted, and what on_drift makes of it."""

import asyncio
import json
import os
import shutil
import subprocess
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import spawny
from tests.cli.processes import spawny as command
from tests.end_to_end.processes import eventually
from tests.interpreters import Interpreter

SCRIPT = """
import os, mine
kept = []
def value():
    return mine.x
def pid():
    return os.getpid()
def __spawny_save__():
    return kept
def __spawny_restore__(state):
    kept.extend(state)
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caller's own source directory, with a module."""
    (tmp_path / "mine.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def model(home: Path, source: Path) -> Iterator[Any]:
    """The root of a daemon of this name, which is stopped after the test."""
    yield spawny.run_script(SCRIPT, name="model")
    with spawny.connect() as supervisor:
        supervisor.stop("model")


def edit(file: Path, text: str) -> None:
    before = file.stat().st_mtime_ns
    file.write_text(text)
    os.utime(file, ns=(before + 10**9, before + 10**9))


def attach_quietly(**options: Any) -> Any:
    """Attach, and fail by any warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return spawny.attach("model", **options)


@pytest.fixture
def venv(tmp_path: Path, interpreter: Interpreter) -> Path:
    """An environment with one distribution in it."""
    path = tmp_path / "venv"
    subprocess.run([interpreter.path, "-m", "venv", "--without-pip", str(path)], check=True)
    (site_packages(path) / "numpy-1.26.4.dist-info").mkdir()
    return path


def site_packages(venv: Path) -> Path:
    return next(each for each in venv.rglob("site-packages") if not each.parent.is_symlink())


def upgrade(venv: Path) -> None:
    packages = site_packages(venv)
    before = packages.stat().st_mtime_ns
    (packages / "numpy-1.26.4.dist-info").rename(packages / "numpy-2.1.0.dist-info")
    os.utime(packages, ns=(before + 10**9, before + 10**9))


def test_what_is_installed(home: Path, venv: Path) -> None:
    """Another version is told at an attachment, in status and explanation, and with the next look
    at all daemons in the listing; whatever interpreter the daemon has."""
    daemon = spawny.run_script("x = 1", python_exe=str(venv), name="model")
    attach_quietly(on_drift="error")
    upgrade(venv)
    with pytest.warns(spawny.DriftWarning, match=r"numpy 1\.26\.4 -> 2\.1\.0") as caught:
        spawny.attach("model")
    assert caught[0].filename == __file__
    told = ["numpy 1.26.4 -> 2.1.0"]
    with spawny.connect() as supervisor:
        assert supervisor.status("model").drift == told
        assert told[0] in supervisor.why("model").why
        assert supervisor.list()[0].drift == told
        supervisor.stop("model")
    del daemon


def test_the_commands(model: Any, source: Path) -> None:
    """The state has a mark in `ps`; `status` and --json say what it is."""
    assert "drifted" not in command("ps").out
    edit(source / "mine.py", "x = 2")
    text = f"module mine ({source / 'mine.py'})"
    assert f"drift     {text}" in command("status", "model").out
    assert "ready, drifted" in command("ps").out
    assert json.loads(command("ps", "--json").out)[0]["drift"] == [text]


def test_an_error(model: Any, source: Path) -> None:
    """It says what has changed and what to do; the daemon serves on, without a lease of ours."""
    edit(source / "mine.py", "x = 2")
    with pytest.raises(spawny.DaemonDrifted, match="spawny restart model") as caught:
        spawny.attach("model", on_drift="error")
    assert caught.value.drift == [f"module mine ({source / 'mine.py'})"]
    with pytest.raises(spawny.DaemonDrifted):
        spawny.run_script(SCRIPT, name="model", on_drift="error")
    assert model.value() == 1
    assert spawny.daemon(model).status().clients == 1


def test_a_restart(model: Any, source: Path) -> None:
    """It runs what is on disk, with its state; roots that others have are roots of the new one. Who
    finds no drift restarts nothing."""
    model.kept.append(7)
    pid = model.pid()
    assert attach_quietly(on_drift="restart").pid() == pid
    edit(source / "mine.py", "x = 2")
    again = attach_quietly(on_drift="restart")
    assert again.value() == model.value() == 2
    assert again.pid() == model.pid() != pid
    assert spawny.value(again.kept) == [7]
    assert attach_quietly(on_drift="restart").pid() == again.pid()


def test_a_restart_waits_for_calls(home: Path, source: Path) -> None:
    """What another client runs goes on to its end, and has its answer."""
    text = SCRIPT + "def wait(began, goes_on):\n    began()\n    return goes_on()\n"
    model = spawny.run_script(text, name="model")
    began, may_go_on = threading.Event(), threading.Event()

    def hold() -> int:
        assert may_go_on.wait(60)
        return 42

    future = spawny.submit(model.wait, spawny.callback(began.set), spawny.callback(hold))
    assert began.wait(60)
    edit(source / "mine.py", "x = 2")
    with ThreadPoolExecutor(1) as threads:
        attaching = threads.submit(spawny.attach, "model", "restart")
        with spawny.connect() as supervisor:
            assert eventually(lambda: "drifted" in supervisor.status("model").reason)
            may_go_on.set()
            assert future.result(60) == 42
            assert attaching.result(60).value() == 2
            supervisor.stop("model")


def test_many_who_restart_at_once(model: Any, source: Path) -> None:
    """One restart is made, and all have the same daemon."""
    pid = model.pid()
    edit(source / "mine.py", "x = 2")
    with ThreadPoolExecutor(6) as threads:
        roots = list(threads.map(lambda _: attach_quietly(on_drift="restart"), range(6)))
    pids = {each.pid() for each in roots}
    assert len(pids) == 1
    assert pid not in pids
    with spawny.connect() as supervisor:
        assert len(supervisor.why("model").endings) == 1


def test_what_a_restart_does_not_help_against(home: Path, tmp_path: Path) -> None:
    """It is restarted once, and then warned about: here a script that cannot be read any more."""
    file = tmp_path / "model.py"
    file.write_text("x = 1")
    assert command("run", str(file), "--name", "model").code == 0
    file.write_bytes(b"\xff")
    with pytest.warns(spawny.DriftWarning):
        assert spawny.attach("model", on_drift="restart").x == 1
    with spawny.connect() as supervisor:
        assert len(supervisor.why("model").endings) == 1
        supervisor.stop("model")


def test_a_script_of_a_file(home: Path, tmp_path: Path) -> None:
    """Its file is what counts: a plain restart has its old text still, on_drift="restart" has the
    new one, and so has every restart after it."""
    file = tmp_path / "model.py"
    file.write_text("x = 1")
    assert command("run", str(file), "--name", "model").code == 0
    edit(file, "x = 2")
    with pytest.warns(spawny.DriftWarning, match="if-exists replace") as caught:
        root = spawny.attach("model")
    assert not isinstance(caught[0].message, spawny.StaleModuleWarning)
    spawny.daemon(root).restart()
    with pytest.warns(spawny.DriftWarning, match=str(file)):
        assert spawny.attach("model").x == 1
    root = attach_quietly(on_drift="restart")
    assert root.x == 2
    again = command("run", str(file), "--name", "model")
    assert (again.code, again.error) == (0, "")
    edit(file, "x = 3")
    assert command("run", str(file), "--name", "model").code == 1
    assert command("run", str(file), "--name", "model", "--on-drift", "restart").code == 0
    assert attach_quietly().x == 3
    edit(file, "x = 2")
    root = attach_quietly(on_drift="restart")
    spawny.daemon(root).restart()
    assert attach_quietly().x == 2
    file.unlink()
    assert attach_quietly().x == 2
    with spawny.connect() as supervisor:
        supervisor.stop("model")


def test_another_definition(model: Any) -> None:
    """run_* with on_drift="restart" replaces what runs by what it is given, whoever else asks."""
    other = SCRIPT + "y = 1"
    with pytest.raises(spawny.DaemonExists):
        spawny.run_script(other, name="model", on_drift="warn")
    with ThreadPoolExecutor(4) as threads:
        starts = [
            threads.submit(spawny.run_script, other, name="model", on_drift="restart")
            for _ in range(4)
        ]
        pids = {each.result(60).pid() for each in starts}
    assert len(pids) == 1
    assert attach_quietly().y == 1


def test_an_interpreter_that_is_gone(home: Path, venv: Path) -> None:
    """A restart is refused, since nothing could come of it; the daemon serves on."""
    root = spawny.run_script("x = 1", python_exe=str(venv), name="model")
    shutil.rmtree(venv)
    with pytest.raises(spawny.DaemonDrifted, match="is gone"):
        spawny.attach("model", on_drift="restart")
    assert root.x == 1
    with spawny.connect() as supervisor:
        supervisor.stop("model")


def test_what_on_drift_may_be(home: Path) -> None:
    """Anything else is refused before anything is done."""
    for attempt in (
        lambda: spawny.attach("model", on_drift="ignore"),  # type: ignore[arg-type]
        lambda: spawny.run_script("", name="model", on_drift=None),  # type: ignore[arg-type]
    ):
        with pytest.raises(spawny.InvalidRequest, match="on_drift is one of"):
            attempt()


def test_from_a_program_of_asyncio(model: Any, source: Path) -> None:
    """The same options are there."""
    edit(source / "mine.py", "x = 2")
    with pytest.raises(spawny.DaemonDrifted):
        asyncio.run(spawny.aio.attach("model", on_drift="error"))
    assert asyncio.run(spawny.aio.attach("model", on_drift="restart")).value() == 2
