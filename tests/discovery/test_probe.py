"""What interpreters say of themselves, and what becomes of those that do not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spawny.client.ending import wait_gone
from spawny.interpreters import probe
from spawny.interpreters.probe import Report
from tests.discovery.zoo import Zoo
from tests.interpreters import Interpreter

# For what hangs: long enough for a good one on a machine that is busy with other things.
SECONDS = 20.0

SAY = "import sys; print(sys.version.split()[0], sys.prefix, sys.executable, sep='\\n')"


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return Zoo(tmp_path)


def asked(*paths: str, seconds: float = SECONDS) -> dict[str, Report]:
    return dict(probe.probe(paths, os.environ, seconds))


def problem_of(path: str) -> str:
    return asked(path)[path].problem


def test_each_interpreter_says_what_it_is(interpreter: Interpreter) -> None:
    """As it says it to everybody; and it can run a daemon."""
    said = subprocess.run(
        [interpreter.path, "-c", SAY], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    report = asked(interpreter.path)[interpreter.path]
    if interpreter.implementation == "cpython":
        assert said[0].rstrip("+") == report.version_text.rstrip("+")
    assert (report.version, report.implementation) == (
        interpreter.version,
        interpreter.implementation,
    )
    assert [report.prefix, report.executable] == said[1:]
    assert report.base_prefix == report.prefix
    assert (report.problem, report.remark) == ("", "")


def test_a_virtual_environment_says_its_own_prefix(zoo: Zoo) -> None:
    """And that of the interpreter that it was made with."""
    path = zoo.venv("env")
    report = asked(path)[path]
    assert report.prefix == str(zoo.root / "env")
    assert report.base_prefix == sys.base_prefix


def test_rubbish_around_the_answer_does_not_matter(zoo: Zoo) -> None:
    """Nor if it is no text at all."""
    path = zoo.rubbish()
    report = asked(path)[path]
    assert (report.version, report.problem) == (sys.version_info[:3], "")


def test_one_that_lacks_ssl_can_run_a_daemon(zoo: Zoo) -> None:
    """It is told all the same."""
    path = zoo.without_ssl()
    report = asked(path)[path]
    assert report.problem == ""
    assert report.remark == "no ssl (ImportError: No module named _ssl)"


def test_one_that_lacks_what_a_daemon_needs(zoo: Zoo) -> None:
    """The reason names it."""
    zoo.file("broken/socket.py", "raise ImportError('no sockets here')\n")
    path = zoo.script("p", f'PYTHONPATH={zoo.root}/broken exec "{sys.executable}" "$@"')
    assert problem_of(path) == "it cannot load what a daemon needs: ImportError: no sockets here"


def test_a_read_only_one_is_no_worse(zoo: Zoo) -> None:
    """Nothing is written where it is."""
    path = zoo.venv("env")
    before = sorted(zoo.root.rglob("*"))
    for each in (zoo.root / "env" / "bin", zoo.root / "env"):
        each.chmod(0o555)
    assert problem_of(path) == ""
    assert sorted(zoo.root.rglob("*")) == before


def test_a_crash_names_the_signal(zoo: Zoo) -> None:
    """As `spawny why` would."""
    assert problem_of(zoo.script("p", "kill -SEGV $$")) == "it was killed by SIGSEGV"


def test_an_error_is_told_by_its_last_line(zoo: Zoo) -> None:
    """A shim that finds nothing, for one."""
    path = zoo.script(
        "p", "echo first >&2; echo 'pyenv: python3.9: command not found' >&2; exit 127"
    )
    assert problem_of(path) == "it ends with exit code 127: pyenv: python3.9: command not found"
    assert problem_of(zoo.script("q", "exit 0")) == "it ends without an answer"


def test_what_cannot_be_executed_is_told_apart(zoo: Zoo) -> None:
    """Files without permission or format, directories, links to nothing."""
    (zoo.root / "python3.9").mkdir()
    os.mkfifo(zoo.root / "fifo")
    paths = {
        zoo.file("text", "no program", 0o644): "it is not executable",
        zoo.file("format", "no program"): "it cannot be executed: Exec format error",
        str(zoo.root / "python3.9"): "it is a directory",
        str(zoo.root / "fifo"): "it is no regular file",
        str(zoo.root / "missing"): "there is no such file",
        zoo.baseless(): "its interpreter is gone: /nowhere/bin/python3.9",
    }
    assert {path: report.problem for path, report in asked(*paths).items()} == paths


def test_nonsense_is_no_answer(zoo: Zoo) -> None:
    """Only what is whole, and of the right types, is believed."""
    for said in ("[1]", '{"version": [3, 9, 18]}', "{", '{"version": ["3", 9, 18]}'):
        path = zoo.script("p", f"echo '<spawny-probe>{said}</spawny-probe>'")
        assert problem_of(path) == "what it says of itself makes no sense"


def test_one_that_prints_without_end(zoo: Zoo) -> None:
    """It is ended."""
    assert problem_of(zoo.script("p", "exec yes")) == "it prints without end"


def test_one_that_hangs_is_ended_with_its_children(zoo: Zoo) -> None:
    """Whatever it ignores; and the others have answered by then."""
    hanging = zoo.hanging()
    reports = probe.probe([hanging, sys.executable], os.environ, 2.0)
    path, report = next(reports)
    assert (path, report.problem) == (sys.executable, "")
    pids = zoo.hanging_pids()
    path, report = next(reports)
    assert (path, report.problem) == (hanging, "it did not answer within 2 s")
    assert report.is_passing
    for pid in pids:
        wait_for_end(pid)


def test_who_looks_away_ends_all(zoo: Zoo) -> None:
    """As Ctrl-C does in between."""
    reports = probe.probe([zoo.hanging(), sys.executable], os.environ, SECONDS)
    next(reports)
    pids = zoo.hanging_pids()
    reports.close()  # type: ignore[attr-defined]
    for pid in pids:
        wait_for_end(pid)


def test_a_killed_client_leaves_nothing_running(zoo: Zoo) -> None:
    """What it had executed ends with it."""
    ask = f"""
import os
from spawny.interpreters import probe
list(probe.probe([{zoo.hanging()!r}], os.environ, {SECONDS}))
"""
    client = subprocess.Popen([sys.executable, "-c", ask])
    pids = zoo.hanging_pids()
    client.send_signal(signal.SIGKILL)
    client.wait()
    for pid in pids:
        wait_for_end(pid)


def test_without_pidfds_it_is_the_same(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that have none."""
    prober = Path(probe.__file__).with_name("prober.py")
    portable = zoo.file(
        "prober.py",
        "import os\nif hasattr(os, 'pidfd_open'): del os.pidfd_open\n"
        + prober.read_text().replace("from __future__ import annotations\n", ""),
    )
    monkeypatch.setattr(probe, "_PROBER", portable)
    crashes, hangs = (
        zoo.script("p", "kill -SEGV $$"),
        zoo.script("q", "exec >&- 2>&-; /bin/sleep 1000"),
    )
    reports = asked(crashes, hangs, sys.executable)
    assert reports[crashes].problem == "it was killed by SIGSEGV"
    assert reports[hangs].problem.startswith("it did not answer")
    assert reports[sys.executable].problem == ""


def test_without_anything_to_ask_with(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own interpreter may have been uninstalled: that says nothing of the others."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    path = zoo.rubbish()
    report = asked(path)[path]
    assert report.problem == "it could not be tried: No such file or directory"
    assert report.is_untried


def wait_for_end(pid: int) -> None:
    with wait_gone(pid) as wait:
        assert wait(SECONDS)
