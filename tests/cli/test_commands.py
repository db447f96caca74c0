"""The commands, run as a person or a script runs them, against a real supervisor."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import spawny as package
from spawny import paths
from tests.cli.processes import COMMAND, environment, spawny
from tests.end_to_end.processes import is_gone, kill

pytestmark = pytest.mark.one_supervisor

SCRIPT = """
import os, sibling
print("hello from", os.environ.get("WHERE"), os.getcwd())
def wait():
    print("waiting", flush=True)
    while True:
        pass
"""

JSON_KEYS = {
    "name": str,
    "state": str,
    "pid": int,
    "python": str,
    "uptime_seconds": float,
    "rss_bytes": int,
    "cpu_percent": float,
    "clients": int,
    "calls": int,
    "restarts": int,
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory with a script and the module that it imports."""
    (tmp_path / "etl.py").write_text(SCRIPT)
    (tmp_path / "sibling.py").write_text("answer = 42\n")
    (tmp_path / "fails.py").write_text("def deep():\n    1 / 0\ndeep()\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    return tmp_path


@pytest.fixture
def etl(home: Path, work: Path) -> str:
    """The name of a daemon that runs."""
    started = spawny("run", "etl.py", "--name", "etl", cwd=work)
    assert started.code == 0, started.error
    return "etl"


def stop(*names: str) -> None:
    assert spawny("stop", *names).code == 0


# --- with nothing there ---------------------------------------------------------------------------


@pytest.mark.own_supervisor
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ps",), 0, "no daemons run"),
        (("ps", "--json"), 0, "[]"),
        (("stop", "--all"), 0, "no daemons run"),
        (("shutdown",), 0, "no supervisor runs"),
        (("version",), 0, "none runs"),
        (("stop", "etl"), 3, ""),
        (("logs", "etl"), 3, ""),
        (("interrupt", "etl"), 3, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_no_supervisor_is_started_to_say_that_nothing_runs(home, arguments, code, said):
    """Asking about nothing answers, and leaves no trace."""
    done = spawny(*arguments)
    assert (done.code, said in done.out) == (code, True)
    assert re.fullmatch(r"(spawny: .*'etl'.*\n)?", done.error)
    assert list(home.iterdir()) == []


# --- run ------------------------------------------------------------------------------------------


def test_run_starts_a_daemon_that_stays(home, work):
    """It has the environment and the directory asked for, and its script's own neighbours."""
    done = spawny(
        *("run", "etl.py", "--name", "etl", "--env", "WHERE=here", "--cwd", "/tmp"), cwd=work
    )
    assert done.code == 0, done.error
    assert "hello from here /tmp\n" in done.out
    pid = package.daemon(package.attach("etl")).pid
    assert re.search(rf"daemon 'etl' is ready, pid {pid}, {sys.executable} \(.*\)\n$", done.out)
    assert package.attach("etl").sibling.answer == 42
    stop("etl")
    assert is_gone(pid)


def test_run_again_finds_the_one_that_runs(etl, work):
    """The same definition under the same name is the same daemon; another one is refused."""
    pid = package.daemon(package.attach(etl)).pid
    again = spawny("run", "etl.py", "--name", etl, cwd=work)
    assert again.code == 0
    assert f"pid {pid}," in again.out
    other = spawny("run", "sibling.py", "--name", etl, cwd=work)
    assert other.code == 1
    assert "differs" in other.error
    replaced = spawny("run", "sibling.py", "--name", etl, "--if-exists", "replace", cwd=work)
    assert replaced.code == 0
    assert f"pid {pid}," not in replaced.out
    stop(etl)


def test_run_imports_a_module_as_python_does(home, work):
    """With -m, a module of the current directory is found."""
    assert spawny("run", "-m", "sibling", "--name", "mod", cwd=work).code == 0
    assert package.attach("mod").answer == 42
    stop("mod")


def test_run_in_another_interpreter(home, work, interpreter):
    """--python takes each interpreter found."""
    done = spawny("run", "sibling.py", "--name", "other", "--python", interpreter.path, cwd=work)
    assert done.code == 0, done.error
    assert package.daemon(package.attach("other")).python == str(interpreter.path)
    stop("other")


@pytest.mark.parametrize("script", ["fails.py", "exits.py"])
def test_run_shows_the_traceback_of_a_script_that_fails(home, work, script):
    """It is the script's own traceback, none of spawny's; exit(3) there is no exit code here."""
    done = spawny("run", script, "--name", "bad", cwd=work)
    assert done.code == 1
    assert done.error.startswith("spawny: daemon 'bad' did not start\n")
    assert str(work / script) in done.error
    assert "spawny/cli" not in done.error
    assert spawny("ps", "--json").out == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "nowhere.py", "--name", "etl"),
        ("run", "etl.py", "--name", "not/a/name"),
        ("run", "etl.py"),
        ("run", "--name", "etl"),
        ("run", "etl.py", "-m", "sibling", "--name", "etl"),
        ("run", "etl.py", "--name", "etl", "--env", "FOO"),
        ("run", "etl.py", "--name", "etl", "--idle-timeout", "-1"),
        ("stop",),
        ("stop", "--all", "etl"),
        ("logs", "etl", "-n", "-1"),
        ("restart", "not/a/name"),
        ("dance",),
        (),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(home, work, arguments):
    """What makes no sense is said so, without a traceback."""
    done = spawny(*arguments, cwd=work)
    assert done.code == 2
    assert re.search(r"^spawny( \w+)?: ", done.error, re.MULTILINE)
    assert "Traceback" not in done.error


# --- ps -------------------------------------------------------------------------------------------


def test_ps_json_has_what_programs_rely_on(etl):
    """Each of the promised keys is there, with its type."""
    (status,) = json.loads(spawny("ps", "--json").out)
    assert {key: type(status[key]) for key in JSON_KEYS} == JSON_KEYS
    assert status["name"] == etl
    assert status["state"] == "ready"
    assert status["python"] == sys.executable
    assert status["rss_bytes"] > 1_000_000
    stop(etl)


def test_ps_for_people_is_a_table(etl):
    """A head and a line per daemon, without colours where no terminal is."""
    head, line = spawny("ps").out.splitlines()
    assert head.split()[:3] == ["NAME", "STATE", "PID"]
    assert line.split()[:2] == [etl, "ready"]
    assert line.endswith("script etl.py")
    assert "\x1b" not in line
    stop(etl)


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_ps_is_coloured_on_a_terminal(etl, no_color, is_coloured):
    """Only a terminal gets colours, and only if its user wants them."""
    ours, theirs = pty.openpty()
    subprocess.run(
        [*COMMAND, "ps"],
        stdout=theirs,
        env=environment(NO_COLOR=no_color, TERM="xterm"),
        check=True,
        timeout=60,
    )
    os.close(theirs)
    said = b""
    while select.select([ours], [], [], 0)[0]:
        try:
            said += os.read(ours, 65536)
        except OSError:  # Linux's end of file for a terminal
            break
    os.close(ours)
    assert b"etl" in said
    assert (b"\x1b[32mready" in said) is is_coloured
    stop(etl)


def test_ps_finds_what_a_dead_supervisor_left(etl):
    """Daemons outlive their supervisor: one is started to take them up, and lists them."""
    pid = package.daemon(package.attach(etl)).pid
    kill(package.connect().version().pid)
    (status,) = json.loads(spawny("ps", "--json").out)
    assert (status["name"], status["pid"]) == (etl, pid)
    stop(etl)


# --- stop, restart, interrupt, shutdown -----------------------------------------------------------


def test_stop_ends_each_and_tells_of_those_that_are_not_there(etl):
    """One name that is unknown keeps no other one running, but shows in the exit code."""
    pid = package.daemon(package.attach(etl)).pid
    done = spawny("stop", "nobody", etl)
    assert done.code == 3
    assert "'etl' ended" in done.out
    assert done.error.startswith("spawny: no daemon 'nobody'")
    assert is_gone(pid)


def test_stop_all_ends_every_daemon_but_not_the_supervisor(etl, work):
    """The supervisor goes on."""
    assert spawny("run", "sibling.py", "--name", "other", cwd=work).code == 0
    supervisor = package.connect().version().pid
    done = spawny("stop", "--all")
    assert done.code == 0
    assert len(done.out.splitlines()) == 2
    assert package.connect(start=False).version().pid == supervisor
    assert package.connect().list() == []


def test_restart_starts_it_anew(etl):
    """The same name has another process; an unknown name is exit code 3."""
    pid = package.daemon(package.attach(etl)).pid
    done = spawny("restart", etl)
    assert done.code == 0
    assert is_gone(pid)
    assert done.out == f"daemon 'etl' restarted, pid {package.daemon(package.attach(etl)).pid}\n"
    assert spawny("restart", "nobody").code == 3
    stop(etl)


def test_restart_tells_that_the_definition_raises(home, work):
    """As run does: the traceback, and exit code 1."""
    (work / "once.py").write_text("import os\nos.mkdir('made')\n")
    assert spawny("run", "once.py", "--name", "once", cwd=work).code == 0
    done = spawny("restart", "once")
    assert (done.code, done.out) == (1, "")
    assert done.error.startswith("spawny: daemon 'once' did not start: its definition raised File")
    assert f'File "{work / "once.py"}", line 2' in done.error
    assert done.error.splitlines()[-1].startswith("FileExistsError: ")
    stop("once")


def test_a_closed_output_is_no_error(etl):
    """As with >&- in a shell."""
    line = f"exec {sys.executable} -m spawny.cli status {etl} >&-"
    done = subprocess.run(line, shell=True, env=environment(), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    stop(etl)


def test_a_log_is_shown_in_every_encoding(home, work):
    """What the terminal cannot show is escaped."""
    (work / "umlaut.py").write_text("print('gr\u00fc\u00dfe', flush=True)\n", encoding="utf-8")
    started = spawny("run", "umlaut.py", "--name", "umlaut", cwd=work, PYTHONIOENCODING="utf-8")
    assert started.code == 0
    done = spawny("logs", "umlaut", PYTHONIOENCODING="ascii")
    assert (done.code, done.error) == (0, "")
    assert "gr\\xfc\\xdfe" in done.out
    stop("umlaut")


def test_interrupt_ends_the_call_that_runs(etl):
    """Exit code 0 when it interrupted a call, 1 when there was none."""
    assert spawny("interrupt", etl).code == 1
    call = "import spawny\ntry: spawny.attach('etl').wait()\nexcept KeyboardInterrupt: print('^C')"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", call],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout.readline() == "waiting\n"
        done = spawny("interrupt", etl)
        assert done.code == 0, done
        assert client.communicate(timeout=30)[0] == "^C\n"
    assert spawny("interrupt", "nobody").code == 3
    stop(etl)


def test_shutdown_ends_everything_and_tells_of_it(etl):
    """The daemon is named; afterwards nothing runs."""
    supervisor = package.connect().version().pid
    pid = package.daemon(package.attach(etl)).pid
    done = spawny("shutdown")
    assert done.code == 0
    assert "'etl' ended" in done.out
    assert done.out.endswith("the supervisor has ended\n")
    assert is_gone(pid)
    assert is_gone(supervisor)


# --- logs -----------------------------------------------------------------------------------------


def test_logs_show_what_a_daemon_wrote_after_its_end_too(etl, work):
    """The log outlives the daemon, and the supervisor."""
    expected = f"hello from None {work}"
    assert expected in spawny("logs", etl).out.splitlines()
    assert spawny("logs", etl, "-n", "0").out == ""
    assert spawny("shutdown").code == 0
    assert expected in spawny("logs", etl).out.splitlines()
    with pytest.raises(package.SupervisorUnavailable):
        package.connect(start=False)


def test_logs_can_be_followed(etl):
    """New lines come at once, and Ctrl-C ends it with 130 and not a word."""
    with subprocess.Popen(
        [*COMMAND, "logs", etl, "-f", "-n", "1"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout.readline().startswith("hello")
        for line in ("one", "two"):
            with open(paths.locate().log_file(etl), "a") as log:
                log.write(f"{line}\n")
            assert follower.stdout.readline() == f"{line}\n"
        follower.send_signal(signal.SIGINT)
        assert follower.communicate(timeout=30) == ("", "")
        assert follower.returncode == 130
    stop(etl)


def test_a_pipe_that_is_closed_early_is_no_error(etl):
    """`spawny logs etl | head -1` ends quietly."""
    with open(paths.locate().log_file(etl), "a") as log:
        log.write("line\n" * 100_000)  # more than a pipe holds
    with subprocess.Popen(
        [*COMMAND, "logs", etl],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout.readline()
        command.stdout.close()
        assert command.stderr.read() == ""
        assert command.wait(30) == 0
    stop(etl)


# --- version, help, errors ------------------------------------------------------------------------


def test_version_tells_both(etl):
    """The client's version and the supervisor's, with its process id."""
    client, supervisor = spawny("version").out.splitlines()
    assert package.__version__ in client
    assert package.__version__ in supervisor
    assert f"pid {package.connect().version().pid}" in supervisor
    stop(etl)


def test_help_needs_no_zmq():
    """`spawny --help` is quick, and tells the exit codes."""
    script = (
        "import sys; from spawny.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print([name for name in ('zmq', 'psutil') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True
    ).stdout
    assert "exit codes" in said
    assert said.endswith("[]\n")


@pytest.mark.own_supervisor
def test_a_supervisor_that_does_not_start_is_exit_code_4(home, work):
    """The error quotes its log; with SPAWNY_DEBUG there is a traceback."""
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text("[supervisor]\nlog_files = -1\n")
    done = spawny("run", "etl.py", "--name", "etl", cwd=work)
    assert done.code == 4
    assert done.error.startswith("spawny: the supervisor ended before it was ready")
    assert "log_files must be positive" in done.error
    assert "Traceback" not in done.error
    debugged = spawny("run", "etl.py", "--name", "etl", cwd=work, SPAWNY_DEBUG="1")
    assert "Traceback" in debugged.error
