"""Daemons under interpreters that are named in all the ways there are."""

import os
import signal
import sys
import venv
from pathlib import Path

import pytest

import spawny
from tests.discovery.zoo import Zoo
from tests.end_to_end.processes import Script, is_gone
from tests.interpreters import Interpreter

SCRIPT = "import os, sys\ndef pid():\n    return os.getpid()\n"
OURS = "{}.{}".format(*sys.version_info)


@pytest.fixture
def zoo(home: Path, tmp_path: Path) -> Zoo:
    """Where interpreters are, under a home with a configuration of its own."""
    (home / "config").mkdir(mode=0o700)
    return Zoo(tmp_path)


@pytest.fixture
def work(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an environment, whose directory it is."""
    venv.create(zoo.root / "environments" / "work", symlinks=True)
    monkeypatch.setenv("WORKON_HOME", str(zoo.root / "environments"))
    return "work"


def alias(home: Path, line: str) -> None:
    (home / "config" / "config.toml").write_text(f"[pythons]\n{line}\n")


@pytest.mark.usefixtures("zoo")
def test_every_interpreter_is_started_by_its_version(interpreter: Interpreter) -> None:
    """By two numbers, or a range that leaves no other."""
    major, minor, _ = interpreter.version
    name = "" if interpreter.implementation == "cpython" else interpreter.implementation
    for text in (f"{name}{major}.{minor}", f"{name}>={major}.{minor},<{major}.{minor + 1}"):
        module = spawny.run_script(SCRIPT, python_exe=text)
        assert tuple(module.sys.version_info[:2]) == (major, minor)
        assert module.sys.implementation.name == interpreter.implementation


def test_names_and_aliases(home: Path, zoo: Zoo, work: str) -> None:
    """Of an environment, of what the configuration says, of the two together."""
    prefix = str(zoo.root / "environments" / "work")
    assert spawny.run_script(SCRIPT, python_exe=work).sys.prefix == prefix
    alias(home, f"lab = {prefix!r}\nany = '>=3.8'\nviaduct = {work!r}")
    assert spawny.run_script(SCRIPT, python_exe="lab").sys.prefix == prefix
    assert spawny.run_script(SCRIPT, python_exe="viaduct").sys.prefix == prefix
    assert spawny.run_script(SCRIPT, python_exe="any").sys.version_info >= (3, 8)


@pytest.mark.usefixtures("zoo")
def test_what_is_listed_can_be_started() -> None:
    """As it is."""
    best = spawny.pythons()[0]
    assert spawny.run_script(SCRIPT, python_exe=best).sys.version_info[:3] == best.version


def test_a_named_daemon_is_found_by_all_that_means_its_interpreter(
    home: Path, zoo: Zoo, work: str
) -> None:
    """And refused to who means another one."""
    alias(home, f"lab = {work!r}\nother = '3.6'")
    first = spawny.run_script(SCRIPT, name="one", python_exe="lab")
    prefix = zoo.root / "environments" / "work"
    for same in ("lab", work, prefix, prefix / "bin" / "python3", OURS, f">={OURS}", "python"):
        assert spawny.run_script(SCRIPT, name="one", python_exe=same).pid() == first.pid()
    for other in ("other", "3.6", "pypy", f"<{OURS}", "no-such-name", sys.executable, "/nowhere"):
        with pytest.raises(spawny.DaemonExists, match="it runs under"):
            spawny.run_script(SCRIPT, name="one", python_exe=other)
    first.terminate_daemon()


def test_a_directory_here_goes_before_an_environment_elsewhere(
    zoo: Zoo, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is one; a version is never a directory."""
    monkeypatch.chdir(zoo.root)
    (zoo.root / "work").mkdir()
    elsewhere = str(zoo.root / "environments" / "work")
    assert spawny.run_script(SCRIPT, python_exe="work", cwd="/").sys.prefix == elsewhere
    (zoo.root / "work").rmdir()
    for name in ("work", OURS):
        venv.create(zoo.root / name, symlinks=True)
    assert spawny.run_script(SCRIPT, python_exe="work", cwd="/").sys.prefix == str(
        zoo.root / "work"
    )
    here = str(zoo.root / OURS)
    assert spawny.run_script(SCRIPT, python_exe=OURS).sys.prefix != here
    assert spawny.run_script(SCRIPT, python_exe=f"./{OURS}", cwd="/").sys.prefix == here
    assert spawny.run_script(SCRIPT, python_exe=Path(OURS), cwd="/").sys.prefix == here


def test_a_broken_interpreter_on_the_path_is_passed_over(zoo: Zoo) -> None:
    """It is executed by itself, once, and the start takes another one."""
    zoo.script(f"bin/python{OURS}", "kill -SEGV $$")
    path = f"{zoo.root}/bin:{os.environ['PATH']}"
    module = spawny.run_script(SCRIPT, python_exe=OURS, env={"PATH": path})
    assert module.sys.version_info[:2] == sys.version_info[:2]


LOOKING = f"""
import sys, spawny
module = spawny.run_script("import sys", python_exe={OURS!r}, env={{"PATH": sys.argv[1]}})
print("python", *module.sys.version_info[:2])
"""


def test_a_supervisor_that_is_upgraded_while_it_looks(zoo: Zoo) -> None:
    """What it had executed ends, and its successor looks again: the start succeeds."""
    hanging = zoo.hanging(f"bin/python{OURS}")
    with Script(LOOKING, f"{zoo.root}/bin") as script:
        pids = zoo.hanging_pids()
        os.unlink(hanging)
        spawny.connect().upgrade()
        assert all(map(is_gone, pids))
        assert script.until("python") == "python {} {}".format(*sys.version_info)


def test_a_supervisor_that_is_killed_while_it_looks(zoo: Zoo) -> None:
    """Its client starts another one, and asks again."""
    hanging = zoo.hanging(f"bin/python{OURS}")
    with Script(LOOKING, f"{zoo.root}/bin") as script:
        pids = zoo.hanging_pids()
        os.unlink(hanging)
        os.kill(spawny.connect().version().pid, signal.SIGKILL)
        assert all(map(is_gone, pids))
        assert script.until("python") == "python {} {}".format(*sys.version_info)
