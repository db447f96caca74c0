"""`spawny pythons`, as a person or a program runs it."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import COMMAND, environment, spawny
from tests.discovery.zoo import Zoo
from tests.end_to_end.processes import is_gone

VERSION = "{}.{}.{}".format(*sys.version_info)
MINOR = "{}.{}".format(*sys.version_info)


@pytest.fixture
def zoo(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    """What the PATH has."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    return Zoo(tmp_path)


def test_all_are_listed_the_broken_with_their_reason(zoo: Zoo) -> None:
    """In columns; each once, whatever ails it."""
    zoo.script("bin/python3.3", f'exec {sys.executable} "$@"')
    (zoo.root / "bin" / "python3.5").mkdir()
    zoo.file("bin/python3.4", "no program", 0o644)
    zoo.script("bin/python3.6", "kill -SEGV $$")
    zoo.script("bin/python3.7", "echo 'pyenv: python3.7: command not found' >&2; exit 127")
    done = spawny("pythons")
    assert (done.code, done.error) == (0, "")
    head, *lines = done.out.splitlines()
    assert head.split() == ["VERSION", "IMPLEMENTATION", "FOUND", "DAEMONS", "PATH"]
    assert any(each.startswith(f"{VERSION} ") and " yes " in each for each in lines)
    broken = [each.partition("/bin/")[2] for each in lines if " no " in each]
    assert [each for each in broken if each.startswith("python3.")] == [
        "python3.4: it is not executable",
        "python3.5: it is a directory",
        "python3.6: it was killed by SIGSEGV",
        "python3.7: it ends with exit code 127: pyenv: python3.7: command not found",
    ]


def test_one_that_is_asked_for(zoo: Zoo) -> None:
    """The one that a daemon would get; where there is none, why."""
    done = spawny("pythons", MINOR)
    assert (done.code, len(done.out.splitlines())) == (0, 2)
    assert done.out.splitlines()[1].startswith(MINOR)
    done = spawny("pythons", "9.9")
    assert (done.code, done.out) == (1, "")
    assert done.error.startswith(
        "spawny: there is no Python interpreter '9.9'; found were: cpython"
    )
    path = zoo.script("crashes", "kill -SEGV $$")
    done = spawny("pythons", path)
    assert done.error == f"spawny: {path} cannot run a daemon: it was killed by SIGSEGV\n"


def test_json_has_it_all(zoo: Zoo) -> None:
    """A list of objects."""
    path = zoo.without_ssl("bin/python3")
    found = json.loads(spawny("pythons", "--json").out)
    (ours,) = (each for each in found if os.path.samefile(each["prefix"] or "/", sys.prefix))
    assert ours["version"] == list(sys.version_info[:3])
    assert ours["version_text"] == VERSION
    assert ours["can_run"] is True
    assert "PATH" in ours["sources"]
    (one,) = json.loads(spawny("pythons", "--json", path).out)
    assert (one["path"], one["problem"]) == (path, "")
    assert one["remark"].startswith("no ssl (ImportError")


def test_a_refresh_executes_them_again(zoo: Zoo) -> None:
    """Otherwise what they said is remembered."""
    zoo.saying("bin/python3.9", "3.9.18")
    for _ in range(2):
        assert "3.9.18" in spawny("pythons").out
    assert zoo.asked() == ["bin/python3.9"]
    spawny("pythons", "--refresh")
    spawny("pythons", "3.9", "--refresh")
    assert zoo.asked() == ["bin/python3.9"] * 2


def test_progress_is_shown_on_a_terminal(zoo: Zoo) -> None:
    """And taken away again."""
    zoo.saying("bin/python3.9", "3.9.18")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "pythons"], stdout=subprocess.PIPE, stderr=theirs, env=environment()
    ) as command:
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                said += os.read(ours, 65536)
            except OSError:  # Linux's end of file for a terminal
                break
        os.close(ours)
    assert command.returncode == 0
    assert b"\rasked 1 of " in said
    assert said.endswith(b"\r\x1b[K")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_the_end_in_the_middle_leaves_nothing_running(
    zoo: Zoo, number: signal.Signals, code: int
) -> None:
    """Ctrl-C, and worse."""
    zoo.hanging("bin/python3.9")
    with subprocess.Popen(
        ["/usr/bin/env", "--default-signal=INT", *COMMAND, "pythons"], env=environment()
    ) as command:
        pids = zoo.hanging_pids()
        command.send_signal(number)
    assert command.returncode == code
    assert all(map(is_gone, pids))
