"""The options of run_script, run_module and run_object."""

import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import spawny
from tests.end_to_end.processes import Script, eventually, is_gone, pause
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

SCRIPT = "import os, sys\nstate = []\ndef pid():\n    return os.getpid()\n"


def test_a_second_script_finds_what_the_first_one_left(interpreter: Interpreter) -> None:
    """The main job: a daemon in another interpreter, made by one script and used by another."""
    with Script(
        f"""
        import spawny
        module = spawny.run_script({SCRIPT!r}, python_exe={str(interpreter.path)!r}, name="kept")
        module.state.append("from the first")
        print("pid", module.pid())
        """
    ) as first:
        made = first.until("pid")
        assert first.end()[0] == 0
    with Script(
        """
        import sys
        import spawny
        module = spawny.attach("kept")
        print("state", module.state)
        print("pid", module.pid())
        print("loaded", [name for name in ("zmq", "psutil", "logging", "cloudpickle", "asyncio")
                         if name in sys.modules])
        """
    ) as second:
        assert second.line() == "state ['from the first']"
        assert second.line() == made
        assert second.line() == "loaded []"
    spawny.attach("kept").terminate_daemon()


def test_same_definition_attaches() -> None:
    """The same script under the same name is the same daemon."""
    first = spawny.run_script(SCRIPT, name="one")
    assert spawny.run_script(SCRIPT, name="one").pid() == first.pid()
    first.terminate_daemon()


def test_another_definition_is_refused() -> None:
    """`DaemonExists` says what differs and what can be done."""
    first = spawny.run_script(SCRIPT, name="one")
    with pytest.raises(spawny.DaemonExists, match=r"it runs script .* not this script 'x = 1'"):
        spawny.run_script("x = 1", name="one")
    with pytest.raises(spawny.DaemonExists, match="runs under"):
        spawny.run_script(SCRIPT, name="one", python_exe="/usr/bin/another-python")
    first.terminate_daemon()


def test_if_exists() -> None:
    """ "error" refuses even the same definition, "replace" begins anew."""
    first = spawny.run_script(SCRIPT, name="one")
    pid = first.pid()
    with pytest.raises(spawny.DaemonExists, match="if_exists"):
        spawny.run_script(SCRIPT, name="one", if_exists="error")
    again = spawny.run_script(SCRIPT, name="one", if_exists="replace")
    assert again.pid() != pid
    assert is_gone(pid)
    again.terminate_daemon()


def test_attach_to_nothing() -> None:
    """`DaemonNotFound`, and nothing is started but a supervisor."""
    with pytest.raises(spawny.DaemonNotFound, match="nobody"):
        spawny.attach("nobody")
    assert spawny.connect().list() == []


def test_env_and_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's, not the supervisor's, with the changes asked for."""
    spawny.connect()  # a supervisor that knows nothing of what follows
    monkeypatch.setenv("OF_THE_CALLER", "yes")
    monkeypatch.setenv("UNWANTED", "yes")
    monkeypatch.chdir(tmp_path)
    script = "import os\ndef env(key):\n    return os.environ.get(key)\ncwd = os.getcwd"
    module = spawny.run_script(script, env={"ADDED": "1", "UNWANTED": None})
    assert (module.env("OF_THE_CALLER"), module.env("ADDED")) == ("yes", "1")
    assert module.env("UNWANTED") is None
    assert module.cwd() == str(tmp_path)
    assert spawny.run_script(script, cwd=tmp_path / "..").cwd() == str(tmp_path.parent)
    assert module.env("NOTIFY_SOCKET") is None


def test_idle_timeout_of_a_named_daemon() -> None:
    """It ends when nobody has been attached for so long, and not while somebody is."""
    module = spawny.run_script(SCRIPT, name="brief", idle_timeout=0.2)
    pid = module.pid()
    assert not is_gone(pid, seconds=0.5)
    del module
    gc.collect()
    assert is_gone(pid)
    with pytest.raises(spawny.DaemonNotFound, match="no client"):
        spawny.attach("brief")


def test_a_client_in_time_stops_the_clock_of_idle_timeout() -> None:
    """It counts anew from when that client leaves."""
    text = "import os, time\ndef pid(seconds=0):\n    time.sleep(seconds)\n    return os.getpid()"
    module = spawny.run_script(text, name="brief", idle_timeout=1.0)
    pid = module.pid()
    del module
    module = spawny.attach("brief")
    assert module.pid(1.5) == pid
    del module
    assert is_gone(pid)
    assert "no client for 1 s" in spawny.connect().status("brief").reason


def test_unnamed_daemon_may_linger() -> None:
    """With an idle_timeout an unnamed daemon outlives its last proxy for that time."""
    module = spawny.run_script(SCRIPT, idle_timeout=0.3)
    name, pid = spawny.daemon(module).name, module.pid()
    del module
    gc.collect()
    assert spawny.attach(name).pid() == pid
    gc.collect()
    assert is_gone(pid)


def test_start_timeout(tmp_path: Path) -> None:
    """A definition that is not ready in time is ended, and the error says so."""
    fifo, pid = tmp_path / "fifo", tmp_path / "pid"
    os.mkfifo(fifo)
    script = f"import os\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\nopen({str(fifo)!r})"
    with pytest.raises(spawny.DaemonStartError, match=r"not ready within 0\.5 s"):
        spawny.run_script(script, start_timeout=0.5)
    assert is_gone(int(pid.read_text()), seconds=0)


def test_preload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are imported before the definition, also those of the caller's own directories."""
    (tmp_path / "preloaded_one.py").write_text("import sys\nsys.was_here = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = spawny.run_script(
        "import sys\nfound = sys.was_here, 'wave' in sys.modules", preload=["preloaded_one", "wave"]
    )
    assert spawny.value(module.found) == (True, True)


def test_preload_that_fails() -> None:
    """The start fails with the import's own error, and its traceback as the cause."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        spawny.run_script("x = 1", preload=("no_such_module",))
    assert isinstance(caught.value.__cause__, spawny.RemoteTraceback)


def test_output_of_a_call_comes_before_its_result(capfd: pytest.CaptureFixture[str]) -> None:
    """stdout to stdout, stderr to stderr, a line without its end included."""
    module = spawny.run_script(
        "import sys\ndef talk():\n    print('to out')\n    sys.stderr.write('to err')\n"
    )
    capfd.readouterr()
    module.talk()
    assert capfd.readouterr() == ("to out\n", "to err")


def test_output_to_the_log_only(capfd: pytest.CaptureFixture[str]) -> None:
    """`output="log"` forwards nothing; the log has it in either case."""
    module = spawny.run_script("print('while loading')", output="log", name="quiet")
    assert "while loading" not in capfd.readouterr().out
    assert "while loading" in list(spawny.daemon(module).logs())
    module.terminate_daemon()


def test_large_output_arrives_whole(capfd: pytest.CaptureFixture[str]) -> None:
    """Also when it is cut into pieces, in characters of several bytes."""
    text = "\u20ac" * 300_000
    module = spawny.run_script("def talk(text):\n    print('a' + text)")
    capfd.readouterr()
    module.talk(text)
    assert capfd.readouterr().out == "a" + text + "\n"


@pytest.mark.parametrize(
    "wrong",
    [
        {"nmae": "x"},
        {"name": "no spaces"},
        {"name": "../up"},
        {"name": ""},
        {"if_exists": "maybe"},
        {"restart": True},
        {"output": "nowhere"},
        {"idle_timeout": -1},
        {"start_timeout": "long"},
        {"cwd": "/no/such/directory"},
        {"env": {"A": 1}},
        {"env": None},
        {"cwd": 5},
        {"cwd": b"/tmp"},
        {"start_timeout": None},
        {"start_timeout": float("nan")},
        {"idle_timeout": float("inf")},
        {"start_timeout": 10**400},
        {"max_calls": 10**400},
        {"max_rss": f"{10**400} GB"},
        {"name": "", "if_exists": "replace"},
        {"python_exe": 5},
        {"preload": "numpy"},
        {"preload": (1,)},
        {"preload": ("not a name",)},
    ],
    ids=str,
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    """Refused here, by name, before anything is started."""
    with pytest.raises(spawny.InvalidRequest):
        spawny.run_script("x = 1", **wrong)


def test_unknown_interpreter() -> None:
    """The error lists what was found."""
    with pytest.raises(spawny.InterpreterNotFound, match=r"'9\.9'.*found"):
        spawny.run_script("x = 1", python_exe="9.9")


def test_interpreter_that_is_none(tmp_path: Path) -> None:
    """A file that is no Python, or not even executable, is a clear error."""
    wrong = tmp_path / "python"
    wrong.write_text("#!/bin/sh\necho I am no Python\nexit 7\n")
    with pytest.raises((spawny.InterpreterNotFound, spawny.DaemonStartError), match=str(wrong)):
        spawny.run_script("x = 1", python_exe=wrong)
    wrong.chmod(0o755)
    with pytest.raises(spawny.DaemonStartError, match="code 7") as caught:
        spawny.run_script("x = 1", python_exe=wrong)
    assert "I am no Python" in caught.value.output


def test_logs_of_unnamed_daemons_go_with_them() -> None:
    """When they end well; a named one's stays to be read."""
    for name in (None, "named"):
        module = spawny.run_script("print('words')", name=name)
        log = Path(spawny.daemon(module).status().log)
        assert log.read_text() == "words\n"
        module.terminate_daemon()
        assert eventually(lambda: not spawny.connect().list())
        assert log.exists() == (name is not None)


def test_log_of_a_definition_that_failed() -> None:
    """Its traceback is the end of the log."""
    with pytest.raises(ZeroDivisionError):
        spawny.run_script("1 / 0", name="failing")
    assert "ZeroDivisionError: division by zero" in list(spawny.connect().logs("failing"))


def test_a_stopped_daemon_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attaching to one does not wait for ever; the error says what may be done."""
    monkeypatch.setattr("spawny.client.attachment.GREETING_SECONDS", 0.3)
    module = spawny.run_script(SCRIPT, name="stopped")
    pid = module.pid()
    pause(pid)
    with pytest.raises(spawny.CallTimeout, match="stopped"):
        spawny.attach("stopped")
    os.kill(pid, signal.SIGCONT)
    assert spawny.attach("stopped").pid() == pid
    module.terminate_daemon()


def test_a_daemon_cannot_attach_to_itself() -> None:
    """Its one thread for calls would wait for itself."""
    module = spawny.run_script("def attach(name):\n    import spawny\n    spawny.attach(name)\n")
    with pytest.raises(spawny.InvalidRequest, match="itself"):
        module.attach(spawny.daemon(module).name)


def test_text_that_stdout_cannot_take() -> None:
    """It is shown as well as that goes, and the call succeeds."""
    with Script(
        """
        import spawny
        module = spawny.run_script("def talk():\\n    print('euro \\u20ac')\\n    return 1")
        print(module.talk())
        """,
        PYTHONIOENCODING="ascii",
    ) as client:
        client.until("euro")
        assert client.until("1") == "1"


def test_no_stdout_at_all() -> None:
    """A client without one starts and calls all the same."""
    with Script(
        """
        import os, sys
        sys.stdout = None
        import spawny
        module = spawny.run_script("print(1)\\ndef talk():\\n    print(2)\\n    return 3")
        os._exit(module.talk())
        """
    ) as client:
        assert client.end()[0] == 3
