"""Two versions of spawny side by side: the one of this tree, and each that lies in tests/wheels."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import spawny
from spawny import control
from spawny.control import StartDaemon
from spawny.errors import VersionMismatch
from spawny.paths import locate
from tests import venvs

REPOSITORY = Path(__file__).parents[2]
WHEELS = sorted((REPOSITORY / "tests" / "wheels").glob("*.whl"))

SECONDS = 60

# What a script of any version does with a daemon; the last line says that all of it worked.
A_LIFE = """
import spawny
made = spawny.run_script("def add(a, b): return a + b\\nfoo = 'hello'", name="shared")
assert made.add(20, 22) == 42
found = spawny.attach("shared")
assert found.foo == "hello"
with spawny.connect() as supervisor:
    welcome = supervisor.version()
    (status,) = supervisor.list()
    assert (status.name, status.state) == ("shared", "ready"), status
    assert supervisor.status("shared").pid == status.pid
    supervisor.stop("shared")
    assert supervisor.list() == []
print("lived under", welcome.version)
"""


@pytest.fixture(params=WHEELS, ids=lambda wheel: wheel.name.split("-")[1])
def old(request: pytest.FixtureRequest) -> str:
    """The python of an environment with an older spawny."""
    return venvs.released(request.config, request.param)


def run(python: str, home: Path, script: str, *, succeeds: bool = True) -> str:
    """What a script prints under another environment."""
    done = subprocess.run(
        [python, "-c", script],
        cwd=home,
        env=venvs.without_ours(home),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode == 0) is succeeds, done.stderr
    return done.stdout if succeeds else done.stderr


def last_line(text: str) -> str:
    """Before it come the lines that a default logger prints."""
    return text.splitlines()[-1]


def version_of(python: str, home: Path) -> str:
    return run(python, home, "import spawny; print(spawny.__version__)").strip()


def end_supervisor(pid: int) -> None:
    """End a supervisor alone: its daemons run on."""
    process = psutil.Process(pid)
    process.terminate()
    process.wait(SECONDS)


def test_the_wheels_are_of_other_versions(old: str, home: Path) -> None:
    """Each environment has its own spawny, not this one."""
    assert version_of(old, home) != spawny.__version__


def test_an_old_client_of_a_new_supervisor(old: str, home: Path) -> None:
    """It starts, calls, attaches, lists and stops as ever."""
    spawny.connect()
    assert last_line(run(old, home, A_LIFE)) == f"lived under {spawny.__version__}"


def test_a_new_client_of_an_old_supervisor(
    old: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does the same, in the protocol that the supervisor speaks."""
    theirs = version_of(old, home)
    run(old, home, "import spawny; spawny.connect()")
    exec(A_LIFE)
    assert last_line(capsys.readouterr().out) == f"lived under {theirs}"


def test_an_old_daemon_under_a_new_supervisor(old: str, home: Path) -> None:
    """It is adopted with its definition, restarts under the new supervisor, and keeps its state
    until then."""
    run(old, home, "import spawny; spawny.run_script('n = [1]', name='kept').n.append(2)")
    before = spawny.connect().status("kept")
    assert before.version
    end_supervisor(spawny.connect().version().pid)
    supervisor = spawny.connect()
    assert supervisor.version().version == spawny.__version__
    assert supervisor.status("kept").pid == before.pid
    assert spawny.attach("kept").n == [1, 2]
    supervisor.restart("kept")
    assert spawny.attach("kept").n == [1]
    supervisor.stop("kept")


def test_what_an_old_supervisor_does_not_know(
    old: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names what was asked, both versions and the next step; no daemon starts."""
    theirs = version_of(old, home)
    run(old, home, "import spawny; spawny.connect()")
    monkeypatch.setitem(control._SINCE, "StartDaemon", control.PROTOCOL)
    with pytest.raises(VersionMismatch) as caught:
        spawny.run_script("pass", name="never")
    said = str(caught.value)
    assert "StartDaemon" in said
    assert theirs in said
    assert spawny.__version__ in said
    assert "spawny supervisor upgrade" in said
    assert spawny.connect().list() == []


def test_the_command_line_says_a_mismatch_in_one_line(old: str, home: Path) -> None:
    """A sentence on stderr, no traceback."""
    run(old, home, "import spawny; spawny.connect()")
    text = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from spawny import control
from spawny.cli import main
control._SINCE["RestartDaemon"] = control.PROTOCOL
sys.exit(main(["restart", "x"]))
"""
    said = run(sys.executable, home, text, succeeds=False)
    assert said.startswith("spawny: the supervisor (pid ")
    assert said.count("\n") == 1


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A spawny whose call protocol is another one."""
    shutil.copytree(REPOSITORY / "spawny", tmp_path / "spawny")
    wire = tmp_path / "spawny" / "kernel" / "wire.py"
    text = wire.read_text()
    changed = text.replace("\nPROTOCOL = ", "\nPROTOCOL = 100 + ")
    assert changed != text
    wire.write_text(changed)
    return tmp_path


def test_a_client_starts_daemons_that_speak_as_it_does(newer: Path, home: Path) -> None:
    """The kernel is the client's own, whatever the supervisor's."""
    spawny.connect()
    theirs = f"import sys; sys.path.insert(0, {str(newer)!r})\n"
    said = run(sys.executable, home, theirs + A_LIFE)
    assert last_line(said) == f"lived under {spawny.__version__}"


def test_a_daemon_of_another_call_protocol(newer: Path, home: Path) -> None:
    """Who attaches gets one sentence, and the daemon serves on."""
    proxy = spawny.run_script("foo = 'here'", name="ours")
    pid = spawny.daemon(proxy).pid
    text = f"""
import sys
sys.path.insert(0, {str(newer)!r})
import spawny
again = lambda: spawny.run_script("foo = 'here'", name="ours")
for attempt in (lambda: spawny.attach("ours"), again):
    try:
        attempt()
    except spawny.VersionMismatch as error:
        print(error)
"""
    first, second = run(sys.executable, home, text).splitlines()
    assert first == second
    assert "'ours'" in first
    assert "call protocol" in first
    assert proxy.foo == "here"
    assert spawny.connect().status("ours").pid == pid
    spawny.connect().stop("ours")


def test_a_kernel_that_is_gone(newer: Path, home: Path) -> None:
    """After the client's spawny was removed, its daemon restarts with the supervisor's kernel."""
    spawny.connect()
    text = f"import sys; sys.path.insert(0, {str(newer)!r})\nimport spawny\n"
    run(sys.executable, home, text + "spawny.run_script('foo = 1', name='orphan')")
    with pytest.raises(VersionMismatch):
        spawny.attach("orphan")
    shutil.rmtree(newer / "spawny")
    spawny.connect().restart("orphan")
    assert spawny.attach("orphan").foo == 1
    spawny.connect().stop("orphan")


def test_the_kernel_of_a_start_is_the_clients(home: Path) -> None:
    """What a client sends is the path of its own boot.py."""
    spawny.run_script("pass", name="plain")
    entry = (locate().journal / "plain.json").read_text()
    boot = os.path.join(os.path.dirname(spawny.__file__), "kernel", "boot.py")
    assert f'"kernel": "{boot}"' in entry
    assert StartDaemon.__dataclass_fields__["kernel"].default == ""
    spawny.connect().stop("plain")
