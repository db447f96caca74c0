"""Environments that several need at once, and builds that do not end well."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spawny.environments.obtain import obtained
from spawny.environments.progress import Lines
from spawny.environments.requirements import Requirements
from spawny.environments.store import Store
from spawny.errors import InterpreterNotFound
from spawny.paths import locate
from tests import interpreters
from tests.cli.processes import COMMAND, environment, spawny
from tests.end_to_end.processes import is_gone
from tests.environments.packages import SlowProject

pytestmark = pytest.mark.usefixtures("home", "wheels")

RACERS = 6

# The command where uv is not there.
WITHOUT_UV = """
import sys
from spawny.cli import main
from spawny.environments import obtain
obtain.find_uv = lambda environ: None
sys.exit(main(sys.argv[1:]))
"""

COMMANDS = {"uv": COMMAND, "pip": (sys.executable, "-c", WITHOUT_UV)}

with_both = pytest.mark.parametrize("tool", COMMANDS)


def building(*arguments: str, tool: str = "uv") -> "subprocess.Popen[str]":
    """A process that builds, with its stderr to read; where uv is not here, by pip anyway."""
    return subprocess.Popen(
        [*COMMANDS[tool], "env", "build", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(process: "subprocess.Popen[str]", wanted: str) -> str:
    """The first line on its stderr that has this."""
    assert process.stderr is not None
    for line in process.stderr:
        if wanted in line:
            return line
    raise AssertionError(f"it ended without saying {wanted!r}")


def left() -> list[str]:
    """What is in the store, but for the supervisor's and the tools' own."""
    return sorted(os.listdir(locate().environments))


def test_of_many_processes_one_builds() -> None:
    """The others wait for it, and all have the same environment."""
    racers = [building("demo") for _ in range(RACERS)]
    ended = [each.communicate(timeout=100) for each in racers]
    assert [each.returncode for each in racers] == [0] * RACERS, ended
    assert len({out for out, _ in ended}) == 1
    assert sum("building an environment" in error for _, error in ended) == 1
    path = Path(ended[0][0].strip())
    assert (path / "bin" / "demo").exists()


def test_of_many_threads_one_builds() -> None:
    """They are of one process, and no less others."""
    shown: list[str] = []

    def obtain(_: int) -> str:
        wanted = Requirements(("demo",))
        with obtained(wanted, None, os.environ, "/", Lines(shown.append)) as found:
            return found.name

    with ThreadPoolExecutor(RACERS) as threads:
        assert len(set(threads.map(obtain, range(RACERS)))) == 1
    assert sum("building an environment" in line for line in shown) == 1


def test_those_who_wait_are_told_for_whom(tmp_path: Path) -> None:
    """And go on when it is there."""
    project = SlowProject(tmp_path)
    first = building(str(project.path))
    project.wait()
    second = building(str(project.path))
    assert f"waiting for process {first.pid}" in until(second, "waiting")
    project.go_on()
    first.communicate(timeout=100)
    out, error = second.communicate(timeout=100)
    assert second.returncode == 0, error
    assert (Path(out.strip()) / "spawny.json").exists()
    assert "building" not in error


@with_both
def test_what_a_killed_client_left_is_not_believed(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tool may go on for a while: so long the next one waits, and builds anew."""
    monkeypatch.setenv("UV_NO_CACHE", "1")
    project = SlowProject(tmp_path)
    first = building(str(project.path), tool=tool)
    project.wait()
    first.kill()
    first.communicate()
    (store,) = Store(locate()).all()
    assert store.built() is None
    second = building(str(project.path), tool=tool)
    said = until(second, "ing ")
    # uv and pip hold the lock as long as they live.
    assert f"waiting for process {first.pid}" in said
    project.go_on()
    until(second, "building an environment")
    project.wait()
    project.go_on()
    out, error = second.communicate(timeout=100)
    assert second.returncode == 0, error
    assert Path(out.strip()) == store.path
    assert store.built() is not None


@with_both
def test_an_interrupt_ends_the_build_and_all_of_its_processes(tool: str, tmp_path: Path) -> None:
    """Nothing is left, and the next build begins from nothing."""
    project = SlowProject(tmp_path)
    client = building(str(project.path), tool=tool)
    backend = project.wait()
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=100)
    assert client.returncode == 130
    assert is_gone(backend)
    assert left() == []


def test_a_full_disk_is_told(home: Path) -> None:
    """In the system's words, and nothing stays behind."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not here")
    cache = home / "cache"
    cache.mkdir()
    mount = f"mount -t tmpfs -o size=64k tmpfs {cache} || exit 77; exec"
    script = f'{mount} "$@"; exit $?'
    command = ["unshare", "--mount", "sh", "-c", script, "sh"]
    with_shell = ["sh", "-c", f'"$@"; code=$?; ls {cache}/environments; exit $code', "sh"]
    ended = subprocess.run(
        [*command, *with_shell, *COMMAND, "env", "build", "demo"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    if ended.returncode in (1, 77) and "spawny" not in ended.stderr:
        pytest.skip("no file system may be mounted here")
    assert ended.returncode == 1
    assert "No space left on device" in ended.stderr or "os error 28" in ended.stderr
    assert ended.stdout == ""


def test_requires_python_is_heeded() -> None:
    """By the caller's interpreter, and by one that was chosen."""
    here = "{}.{}".format(*sys.version_info)
    for needed, python in ((f">={here}", None), (f"=={here}.*", here)):
        wanted = Requirements(("demo",), requires_python=needed)
        with obtained(wanted, python, os.environ, "/", Lines(print)) as found:
            said = subprocess.check_output([found.python, "--version"], text=True)
            assert said.startswith(f"Python {here}.")
    impossible = Requirements(requires_python="<3.6")
    with (
        pytest.raises(InterpreterNotFound, match=r"is not <3\.6"),
        obtained(impossible, here, os.environ, "/", Lines(print)),
    ):
        pass


@pytest.mark.skipif(len(interpreters.find()) < 2, reason="there is no other interpreter")
def test_requires_python_finds_another_interpreter() -> None:
    """Where the caller's is none of those."""
    other = next(each for each in interpreters.find() if each.version[:2] != sys.version_info[:2])
    needed = "=={}.{}.*".format(*other.version)
    wanted = Requirements(("demo",), requires_python=needed)
    with obtained(wanted, None, os.environ, "/", Lines(print)) as found:
        built = found.built()
        assert built is not None
        assert built.version.startswith("{}.{}.".format(*other.version))


def test_one_in_use_is_not_removed() -> None:
    """Between its build and the start of a daemon there is no daemon to be seen."""
    path = Path(spawny("env", "build", "demo").out.strip())
    found = Store(locate()).environment(path.name)
    lock = found.lock()
    lock.share()
    assert f"kept {path.name}: it is in use" in spawny("env", "prune", "--all").out
    lock.close()
    assert f"removed {path.name}" in spawny("env", "prune", "--all").out
    assert left() == []
