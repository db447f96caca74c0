"""A virtual environment that is deleted while a daemon runs in it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import spawny
from tests.end_to_end.processes import kill

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    path = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True)
    return path


def test_the_daemon_goes_on_and_a_restart_names_what_is_missing(venv: Path) -> None:
    """By hand; a start names it as well."""
    etl = spawny.run_script("def f(): return 1", name="etl", python_exe=str(venv))
    shutil.rmtree(venv)
    assert etl.f() == 1
    with pytest.raises(spawny.DaemonStartError, match=str(venv)):
        spawny.daemon(etl).restart()
    with pytest.raises(spawny.InterpreterNotFound, match=str(venv)):
        spawny.run_script("x = 1", python_exe=str(venv))


def test_a_restart_by_policy_says_why_it_fails(venv: Path) -> None:
    """It is given up after some tries, and `why` names what is missing."""
    etl = spawny.run_script("import os", name="etl", python_exe=str(venv), restart="always")
    shutil.rmtree(venv)
    with spawny.connect() as supervisor:
        told = supervisor.events()
        kill(spawny.daemon(etl).pid)
        while (event := next(told)).kind != "failed":
            pass
        assert str(venv) in event.detail
        supervisor.stop("etl")
