"""`spawny python`: whatever a program does, it is as if python itself had run it."""

import itertools
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import spawny as package
from tests.cli.processes import COMMAND, Ended, environment, spawny
from tests.end_to_end.processes import eventually, is_gone
from tests.interpreters import Interpreter

pytestmark = pytest.mark.one_supervisor

WARM = [*COMMAND, "python", "--name", "warm"]

FORK = """
import os, warnings
warnings.simplefilter("ignore")
if os.fork() == 0:
    raise SystemExit(4)
print(os.wait()[1] >> 8)
"""

PROGRAMS = {
    "output": "import sys; print('out', sys.argv); print('error', file=sys.stderr)",
    "a code": "import sys; sys.exit(7)",
    "a large code": "raise SystemExit(300)",
    "a message": "raise SystemExit('that was it')",
    "an exception": "def f():\n    1 / 0\nf()",
    "a chain": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('x')",
    "no syntax": "x = = 1",
    "its namespace": "x = 1; import __main__; print(__name__, __main__.x)",
    "input": "print(input('who? ')); print(input())",
    "the end of input": "import sys; print(repr(sys.stdin.read())); input()",
    "children": "import os; os.system('cat; echo from a child; echo error >&2')",
    "descriptors": "import os; os.write(1, b'one'); os.write(2, b'two'); print(os.isatty(0))",
    "a fork": FORK,
    "its directory": "import os; print(os.getcwd(), open('data').read())",
    "its path": "import sys; print(repr(sys.path[0])); import helper; print(helper.x)",
    "its own hook": "import sys; sys.excepthook = lambda *each: print('hooked', each[1]); 1 / 0",
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory with a file, and a module."""
    (tmp_path / "data").write_text("data")
    (tmp_path / "helper.py").write_text("x = 1")
    return tmp_path


@pytest.fixture
def warm(home: Path) -> Iterator[int]:
    """The pid of a daemon of that name."""
    root = package.run_script("", name="warm")
    pid = package.daemon(root).pid
    del root
    yield pid
    with package.connect() as supervisor:
        assert supervisor.status("warm").pid == pid
        supervisor.stop("warm")


def run(*arguments: str, cwd: Path, given: str = "") -> Ended:
    """What this command does with this input."""
    done = subprocess.run(
        arguments,
        cwd=cwd,
        env=environment(),
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_programs(home: Path, interpreter: Interpreter, work: Path) -> None:
    """Whatever the interpreter: text, script, module or standard input, each has the output, the
    traceback and the exit code that the interpreter itself gives it."""
    name = f"warm-{interpreter.label}"
    command = [*COMMAND, "python", "--name", name, "--python", str(interpreter.path)]
    ways = itertools.cycle([["program.py", "one", "-c"], ["-m", "program"], [], ["-", "one"]])
    try:
        for what, program in PROGRAMS.items():
            (work / "program.py").write_text(program)
            for way in (["-c", program, "one", "-x"], next(ways)):
                is_input = way[:1] in ([], ["-"])
                given = program if is_input else "one\ntwo\nthree\n"
                expected = run(interpreter.path, *way, cwd=work, given=given)
                found = run(*command, *way, cwd=work, given=given)
                if way[:1] == ["-m"]:  # the frames of runpy are others, as for any caller of it
                    expected, found = (Ended(each.code, each.out, "") for each in (expected, found))
                assert found == expected, (what, way)
    finally:
        with package.connect() as supervisor:
            supervisor.stop(name)


def test_what_stays(warm: int, work: Path) -> None:
    """The root and what is imported; the namespace, the arguments, the directory and the modules of
    the program's folder are new each time."""
    first = "import sys, os, json, helper; y = root.x = helper.x; os.chdir('/'); sys.argv = []"
    assert run(*WARM, "-c", first, cwd=work).error == ""
    (work / "helper.py").write_text("x = 'edited'")
    second = (
        "import sys; print('json' in sys.modules, 'y' in globals(), sys.argv, root.x);"
        "import os, helper; print(helper.x, os.getcwd())"
    )
    done = run(*WARM, "-c", second, cwd=work)
    assert done.out == f"True False ['-c'] 1\nedited {work}\n"
    root: Any = package.attach("warm")
    assert root.x == 1


def test_clients_see_nothing_of_it(warm: int, work: Path) -> None:
    """Neither what a program prints, nor what it leaves in the process."""
    script = "import os, signal, sys\n"
    script += "def look(): return os.getcwd(), sys.argv, str(signal.getsignal(2)), sys.stdin.name"
    root: Any = package.run_script(script, name="other")
    before = root.look()
    program = "import signal, sys; signal.signal(2, signal.SIG_IGN); sys.argv = 0; print('mine')"
    program += "; sys.stdin.close(); sys.stdout.close()"
    other = [*COMMAND, "python", "--name", "other"]
    assert run(*other, "-c", program, cwd=work).code == 0
    assert root.look() == before
    with package.connect() as supervisor:
        assert "mine" not in "".join(supervisor.logs("other"))
        supervisor.stop("other")


class Running:
    """The command under way, in a process group of its own, as a shell has it."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        stdin: Any = subprocess.DEVNULL,
        command: Sequence[str] = WARM,
    ) -> None:
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=cwd,
            env=environment(PYTHONUNBUFFERED="1"),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # or `line` would take more than the line, of which `end` knows nothing
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip()

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> Ended:
        out, error = self.process.communicate(timeout=60)
        return Ended(self.process.returncode, out.decode(), error.decode())


def test_an_interrupt(warm: int, work: Path) -> None:
    """Ctrl-C raises KeyboardInterrupt there: traceback, exit code 130, and the daemon lives on."""
    with Running("-c", "print('begun')\nwhile True: pass", cwd=work) as running:
        assert running.line() == "begun"
        running.interrupt()
        done = running.end()
    assert (done.code, done.out) == (130, "")
    assert done.error.endswith("line 2, in <module>\nKeyboardInterrupt\n")
    assert run(*WARM, "-c", "print(1)", cwd=work).out == "1\n"


def test_an_interrupt_of_one_that_has_to_wait(warm: int, work: Path) -> None:
    """It is given up at once; what it waits for goes on."""
    root: Any = package.run_script("", name="busy")
    ours, theirs = os.pipe()
    busy = [*COMMAND, "python", "--name", "busy"]
    program = f"print('begun', flush=True); open('/proc/{os.getpid()}/fd/{ours}').read()"
    with Running("-c", program, cwd=work, command=busy) as first:
        assert first.line() == "begun"
        with Running("-c", "1", cwd=work, command=busy) as second:
            assert eventually(lambda: package.daemon(root).status().clients == 3)
            second.interrupt()
            assert second.end().code == 130
        os.close(theirs)
        assert first.end().code == 0
    os.close(ours)
    root.terminate_daemon()


def test_a_program_that_lives_by_interrupts(warm: int, work: Path) -> None:
    """Each is its own, in whatever it waits; a handler of its own is called, and gone after it."""
    program = """
import signal, sys, time
for i in range(3):
    try:
        print(i, flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        pass
signal.signal(signal.SIGINT, lambda *each: sys.exit(5))
print('last', flush=True)
time.sleep(60)
"""
    with Running("-c", program, cwd=work) as running:
        for expected in ("0", "1", "2", "last"):
            assert running.line() == expected
            running.interrupt()
        assert running.end() == Ended(5, "", "")
    with Running("-c", "print('begun', flush=True); import time; time.sleep(60)", cwd=work) as last:
        assert last.line() == "begun"
        last.interrupt()
        assert last.end().code == 130


def test_a_pipe_that_nobody_reads(warm: int, work: Path) -> None:
    """The program ends, and nothing is said."""
    with Running("-c", "while True: print('y')", cwd=work) as running:
        assert running.line() == "y"
        assert running.process.stdout is not None
        running.process.stdout.close()
        assert running.process.stderr is not None
        assert running.process.stderr.read() == b""
        assert running.process.wait(60) == 0


def test_a_daemon_that_dies(home: Path, work: Path) -> None:
    """The message names it, and how it died."""
    done = run(*WARM, "-c", "import os; os.kill(os.getpid(), 9)", cwd=work)
    assert done.code == 1
    assert "daemon 'warm'" in done.error
    assert "killed by SIGKILL during a program" in done.error


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_killed(warm: int, work: Path, signal_number: int) -> None:
    """The program there is interrupted: it would read what is typed in the terminal."""
    ours, theirs = os.pipe()
    program = "print('begun', flush=True); input()"
    with Running("-c", program, cwd=work, stdin=ours) as running:
        assert running.line() == "begun"
        running.process.send_signal(signal_number)
        assert running.process.wait(60) == -signal_number
    os.close(ours)
    os.close(theirs)
    root = package.attach("warm")
    with package.timeout(20):
        package.value(root.__name__)
    with package.connect() as supervisor:
        assert supervisor.status("warm").busy_call is None


def test_while_a_call_waits_for_its_callback(warm: int, work: Path) -> None:
    """A program has the whole process to itself: it is refused, and the call goes on."""
    root: Any = package.run_script("def call(f): return f()", name="calling")
    command = [*COMMAND, "python", "--name", "calling", "-c", "1"]
    done = root.call(package.callback(lambda: run(*command, cwd=work).error))
    assert "waits for a callback" in done
    assert run(*command, cwd=work).code == 0
    root.terminate_daemon()


def test_a_daemon_of_its_own(home: Path, work: Path) -> None:
    """Without a name it ends with the program."""
    done = run(*COMMAND, "python", "-c", "import os; print(os.getpid())", cwd=work)
    assert (done.code, done.error) == (0, "")
    assert is_gone(int(done.out))


def test_where_none_runs(home: Path, work: Path) -> None:
    """One of that name is started, with its modules, and left running; another interpreter than it
    has is an error."""
    program = "import os, sys; print(os.getpid(), 'wave' in sys.modules)"
    command = [*COMMAND, "python", "--name", "warm", "--preload", "wave"]
    pid, has_wave = run(*command, "-c", program, cwd=work).out.split()
    assert has_wave == "True"
    assert run(*WARM, "-c", "import os; print(os.getpid())", cwd=work).out == f"{pid}\n"
    assert "runs under" in run(*WARM, "--python", "2.0", "-c", "1", cwd=work).error
    with package.connect() as supervisor:
        supervisor.stop("warm")


def test_standard_input_that_is_none(warm: int, work: Path) -> None:
    """Where it is closed the program reads nothing, rather than something of the daemon's."""
    closed = ["sh", "-c", '"$@" <&-', "sh", *WARM]
    program = "import sys; print(repr(sys.stdin.read()))"
    assert run(*closed, "-c", program, cwd=work) == Ended(0, "''\n", "")


def test_usage(home: Path, work: Path) -> None:
    """What cannot be run starts no daemon."""
    for arguments in (["nothing.py"], ["-c"], ["-m"]):
        done = run(*WARM, *arguments, cwd=work)
        assert done.code == 2
        assert "Traceback" not in done.error
    assert "no daemons" in spawny("ps").out


# --- in a terminal --------------------------------------------------------------------------------


class Typed:
    """The command in a terminal of its own, where somebody types."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            os.chdir(cwd)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.execve(sys.executable, [*WARM, *arguments], environment(TERM="dumb"))
        self.shown, self._seen = "", 0

    def until(self, wanted: str) -> None:
        """Read on until this is shown, after what was waited for before."""
        while wanted not in self.shown[self._seen :]:
            self.shown += os.read(self._terminal, 1024).decode()
        self._seen = self.shown.index(wanted, self._seen) + len(wanted)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        """Its exit code."""
        try:
            while data := os.read(self._terminal, 1024):
                self.shown += data.decode()
        except OSError:  # Linux's end of file for a terminal
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def test_the_terminal_is_its_own(warm: int, work: Path) -> None:
    """What is typed is read there, and Ctrl-C ends it while it reads."""
    program = "import sys; print(sys.stdin.isatty(), sys.stdout.isatty()); print(input('? ') * 2)"
    typed = Typed("-c", program + "; input('! ')", cwd=work)
    typed.until("? ")
    typed.type("ab\n")
    typed.until("abab")
    typed.until("! ")
    typed.type("\x03")
    assert typed.end() == 130
    assert "True True" in typed.shown
    assert typed.shown.rstrip().endswith("KeyboardInterrupt")


def test_a_prompt(warm: int, work: Path) -> None:
    """Blocks run there, in one namespace; Ctrl-C ends the block that runs, and exit() all."""
    typed = Typed(cwd=work)
    for block, shown in (
        ("x = 20", ""),
        ("x + 1", "21"),
        ("for i in range(2):\n    print('i', i)\n", "i 1"),
        ("import os; os.getpid()", str(warm)),
        ("os.chdir('/')", ""),
        ("os.getcwd()", "'/'"),
        ("x = = 1", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("root.kept = x", ""),
    ):
        typed.until(">>> ")
        typed.type(block + "\n")
        if shown:
            typed.until(shown)
    typed.until(">>> ")
    typed.type("print('be' + 'gun')\n")
    typed.until("begun")
    typed.until(">>> ")
    typed.type("while True: print('lo' + 'op')\n\n")
    typed.until("loop")
    typed.type("\x03")
    typed.until("KeyboardInterrupt")
    typed.until(">>> ")
    typed.type("exit(3)\n")
    assert typed.end() == 3
    root: Any = package.attach("warm")
    assert root.kept == 20


def test_the_end_of_a_prompt(warm: int, work: Path) -> None:
    """Ctrl-D, and the daemon serves on."""
    typed = Typed(cwd=work)
    typed.until(">>> ")
    typed.type("\x04")
    assert typed.end() == 0
