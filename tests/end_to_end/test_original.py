"""The documented behaviour of the original spawny, under every interpreter found."""

import gc
import io
import logging
import queue
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spawny import (
    InstanceDefinition,
    ModuleDefinition,
    ObjectProxy,
    RemoteTraceback,
    ScriptDefinition,
    daemon,
    run_module,
    run_object,
    run_script,
)
from tests.end_to_end.processes import PATIENCE_SECONDS, Script, is_gone
from tests.interpreters import Interpreter

SCRIPT = """
from collections import OrderedDict
odct = OrderedDict()
odct['a'] = 1
foo = "hello world"
def say_hello(who):
    return "hello %s" % who
print(say_hello("process"))
"""

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]


class Greeting:
    """Defined here, so that a daemon finds it where this process does."""

    def __init__(self, who: str) -> None:
        self.who = who

    def text(self) -> str:
        return f"hello {self.who}"


def test_script(interpreter: Interpreter) -> None:
    """The variables of a script are proxies, the results of its functions values."""
    daemon_module = run_script(SCRIPT, python_exe=interpreter.path)
    assert str(daemon_module.odct).startswith("OrderedDict(")
    assert daemon_module.foo == "hello world"
    assert daemon_module.say_hello("earthling") == "hello earthling"
    assert issubclass(type(daemon_module.foo), ObjectProxy)
    assert type(daemon_module.say_hello("x")) is str
    assert daemon(daemon_module).python == str(interpreter.path)


def test_log_lines(interpreter: Interpreter) -> None:
    """Where no logging is configured, the start is told on stdout, the script's output between."""
    script = f"""
        import spawny
        daemon_module = spawny.run_script({SCRIPT!r}, python_exe={str(interpreter.path)!r})
        print("pid", spawny.daemon(daemon_module).pid)
    """
    with Script(script) as client:
        code, out, error = client.end()
    assert (code, error) == (0, "")
    *lines, last = out.splitlines()
    pid = last.removeprefix("pid ")
    assert lines == [
        "[DaemonProxy] spawning child process...",
        f"[{pid}] Daemon started using python interpreter: {interpreter.path}",
        "hello process",
        f"[DaemonProxy] spawning child process... DONE. PID={pid}",
    ]


def test_log_lines_go_to_the_given_logger(capsys: pytest.CaptureFixture[str]) -> None:
    """With `logger=` the lines go there, and nothing but the script's output to stdout."""
    stream = io.StringIO()
    logger = logging.getLogger("tests.given")
    logger.addHandler(logging.StreamHandler(stream))
    logger.setLevel(logging.INFO)
    daemon_module = run_script(SCRIPT, logger=logger)
    assert f"DONE. PID={daemon(daemon_module).pid}" in stream.getvalue()
    assert capsys.readouterr().out == "hello process\n"


def test_ends_with_its_last_proxy(interpreter: Interpreter) -> None:
    """Not while any proxy is alive, one of the second level too; then at once."""
    daemon_module = run_script(SCRIPT, python_exe=interpreter.path)
    pid = daemon(daemon_module).pid
    say_hello = daemon_module.say_hello
    daemon_module = None  # type: ignore[assignment]
    gc.collect()
    assert say_hello("you") == "hello you"
    say_hello = None
    gc.collect()
    assert is_gone(pid)


@contextmanager
def logged_lines(level: int) -> Iterator[queue.Queue[str]]:
    """What the logger `spawny` says from that level on, from whatever thread."""
    said: queue.Queue[str] = queue.Queue()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.put(record.getMessage())

    logger, handler = logging.getLogger("spawny"), Keep()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.mark.parametrize("how", ["collected", "terminated"])
def test_the_end_is_logged(how: str) -> None:
    """A log line says that the process has ended, and why."""
    with logged_lines(logging.INFO) as lines:
        daemon_module = run_script(SCRIPT)
        pid = daemon(daemon_module).pid
        if how == "terminated":
            daemon_module.terminate_daemon()
        del daemon_module
        gc.collect()
        while f"daemon process {pid} has ended" not in (
            line := lines.get(timeout=PATIENCE_SECONDS)
        ):
            pass
    assert ("terminate_daemon() was called by" if how == "terminated" else "client left") in line


@pytest.mark.parametrize("level", ["first", "second"])
def test_terminate_daemon(interpreter: Interpreter, level: str) -> None:
    """`terminate_daemon()` on any proxy ends the process before it returns."""
    daemon_module = run_script(SCRIPT, python_exe=interpreter.path)
    pid = daemon(daemon_module).pid
    (daemon_module if level == "first" else daemon_module.odct).terminate_daemon()
    assert is_gone(pid, seconds=0)


def test_module_that_the_caller_can_import(interpreter: Interpreter) -> None:
    """`run_module(name)` for a module of the standard library."""
    module = run_module("textwrap", python_exe=interpreter.path)
    assert module.dedent("  x") == "x"


def test_module_on_the_callers_own_path(
    interpreter: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run_module(name)` for a module in one of the caller's own directories."""
    (tmp_path / "callers_own.py").write_text("def double(n):\n    return 2 * n\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run_module("callers_own", python_exe=interpreter.path).double(21) == 42


def test_module_by_path(interpreter: Interpreter, tmp_path: Path) -> None:
    """`run_module(name, path)` for a module that nobody can import."""
    path = tmp_path / "somewhere.py"
    path.write_text("import sys\nanswer = 42\ndef name():\n    return __name__\n")
    module = run_module("elsewhere", path, python_exe=interpreter.path)
    assert module.answer == 42
    assert module.name() == "elsewhere"


def test_instance_definition(interpreter: Interpreter) -> None:
    """An instance made there from module, class and arguments."""
    definition = InstanceDefinition("io", "StringIO", "hello, world!")
    assert run_object(definition, python_exe=interpreter.path).getvalue() == "hello, world!"
    assert run_object(InstanceDefinition("builtins", "str", 1), interpreter.path) == "1"


def test_instance_definition_without_module(interpreter: Interpreter) -> None:
    """With module None the class is looked up in the caller's globals, then in builtins."""
    assert run_object(InstanceDefinition(None, "str", 1), python_exe=interpreter.path) == "1"
    assert InstanceDefinition("", "str", 1) == InstanceDefinition(None, "str", 1)


def test_instance_definition_of_the_callers_globals() -> None:
    """A class of the calling module is found by its bare name."""
    greeting = run_object(InstanceDefinition(None, "Greeting", "you"))
    assert greeting.text() == "hello you"


def test_object(interpreter: Interpreter) -> None:
    """Any picklable instance moves into a daemon and keeps its state there."""
    numbers = run_object([1, 2, 3], python_exe=interpreter.path)
    numbers.append(4)
    assert numbers == [1, 2, 3, 4]
    assert len(numbers) == 4


def test_object_of_the_callers_class() -> None:
    """An instance of a class in the caller's own module; its attributes come by value."""
    greeting = run_object(Greeting("you"))
    assert greeting.text() == "hello you"
    assert type(greeting.who) is str
    greeting.who = "me"
    assert greeting.text() == "hello me"


def test_definitions_are_run_by_run_object(tmp_path: Path) -> None:
    """`run_object` takes the other definitions too."""
    assert run_object(ScriptDefinition("x = 1")).x == 1
    path = tmp_path / "some.py"
    path.write_text("x = 2")
    assert run_object(ModuleDefinition("some", path)).x == 2


def test_debug_level() -> None:
    """`logging.getLogger('spawny')` is the logger to turn up."""
    with logged_lines(logging.DEBUG) as lines:
        module = run_script("x = 1")
        del module
        gc.collect()
        while "last proxy" not in lines.get(timeout=PATIENCE_SECONDS):
            pass


def test_exception_in_the_definition(interpreter: Interpreter, tmp_path: Path) -> None:
    """It is raised here as itself, with the remote traceback, and no process stays behind."""
    marker = tmp_path / "pid"
    script = f"""
        import os
        with open({str(marker)!r}, "w") as file:
            file.write(str(os.getpid()))
        {{}}["missing key"]
        """
    with pytest.raises(KeyError, match="missing key") as caught:
        run_script(textwrap.dedent(script), python_exe=interpreter.path)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert '{}["missing key"]' in str(caught.value.__cause__)
    assert is_gone(int(marker.read_text()))
