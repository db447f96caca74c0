"""Daemons that are forked from a zygote, beside those that are executed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import spawny
from tests.end_to_end.zygotes import is_forked, named, warm
from tests.interpreters import Interpreter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")

# Everything of a process that its user can look at. What is random, or a number of this very
# process, is told by a property that it must have.
LOOK = """
import gc, json, locale, logging, multiprocessing, os, random, resource, select, signal, sys
import threading, time, warnings

def read(path):
    with open(path, "rb") as file:
        return file.read()

def shell(command):
    with os.popen(command) as file:
        return file.read()

def stdio(stream):
    return [type(stream).__name__, stream.encoding, stream.errors, stream.line_buffering,
            stream.fileno(), stream.isatty(), stream.name if stream is sys.stdin else None]

def descriptors():
    found = []  # not by their numbers
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            continue
        kind = target.split(":")[0] if ":" in target else target
        found.append([kind, os.get_inheritable(int(fd)), int(fd) > 2])
    return sorted(found)

def disposition(number):
    handler = signal.getsignal(number)
    return getattr(handler, "__qualname__", str(handler))

def status(*names):
    with open("/proc/self/status") as file:
        lines = [line.split(":", 1) for line in file]
    return {name: value.strip() for name, value in lines if name in names}

def frames():
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found

AT_LOAD = {
    "modules": sorted(sys.modules), "path": list(sys.path), "argv": list(sys.argv),
    "main": sorted(vars(sys.modules["__main__"])), "frames": frames(),
    "importers": sorted(path for path, f in sys.path_importer_cache.items() if f is None),
}

def look():
    main = threading.main_thread()
    process = multiprocessing.current_process()
    command = read("/proc/self/cmdline").rstrip(b"\\0").split(b"\\0")
    shown = read("/proc/self/environ").rstrip(b"\\0").split(b"\\0")
    return {
        **AT_LOAD, "descriptors": descriptors(),
        "flags": str(sys.flags), "executable": sys.executable, "prefixes": [
            sys.prefix, sys.base_prefix, sys.exec_prefix],
        "orig_argv": getattr(sys, "orig_argv", None) and [
            os.path.basename(each) for each in sys.orig_argv[:2]] + sys.orig_argv[4:],
        "warnoptions": sys.warnoptions, "xoptions": sys._xoptions,
        "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.dont_write_bytecode],
        "trace": [sys.gettrace() is None, sys.getprofile() is None],
        "stdio": [stdio(each) for each in (sys.stdin, sys.stdout, sys.stderr)],
        "originals": [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
        "environ": list(os.environ.items()), "shown environment": [
            each.decode() for each in shown],
        "getenv": shell("env | sort"),
        "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
        "parent": os.getppid(), "cwd": os.getcwd(), "umask": [os.umask(0o22), os.umask(0o22)][0],
        "nice": os.nice(0), "ids": os.getresuid() + os.getresgid(),
        "scheduling": hasattr(os, "sched_getaffinity") and [  # PyPy has them not
            sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0)],
        "terminal": os.path.exists("/dev/tty") and status("Groups", "NoNewPrivs", "Seccomp"),
        "signals": {int(number): disposition(number) for number in range(1, 65) if number not in (
            signal.SIGKILL, signal.SIGSTOP, 32, 33)},
        "masks": status("SigBlk", "SigIgn", "SigCgt", "ShdPnd"),
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "timers": signal.getitimer(signal.ITIMER_REAL), "wakeup": signal.set_wakeup_fd(-1),
        "threads": sorted(each.name for each in threading.enumerate()),
        "main thread": [threading.current_thread() is main, main.ident == threading.get_ident(),
            main.daemon, getattr(main, "native_id", os.getpid()) == os.getpid(),
            type(main).__name__],
        "native threads": len(os.listdir("/proc/self/task")),
        "multiprocessing": [process.name, process.daemon, process._identity,
            process._parent_pid, process.authkey != b"" , multiprocessing.get_start_method()],
        "logging": [logging.getLogger().level, len(logging.getLogger().handlers),
            logging.raiseExceptions, abs(logging._startTime / (
                1e9 if isinstance(logging._startTime, int) else 1) - time.time()) < 60],
        "gc": [gc.isenabled(), hasattr(gc, "get_threshold") and gc.get_threshold()],
        "resources": [resource.getrlimit(getattr(resource, name))
            for name in sorted(dir(resource)) if name.startswith("RLIMIT_")],
        "locale": [locale.setlocale(category) for category in (
            locale.LC_CTYPE, locale.LC_COLLATE, locale.LC_NUMERIC, locale.LC_TIME)],
        "encodings": [sys.getfilesystemencoding(), locale.getpreferredencoding(False),
            sys.getdefaultencoding()],
        "warnings": [str(each) for each in warnings.filters],
        "command": [os.path.basename(each.decode()) for each in command[:2]] + [
            each.decode() for each in command[4:]],
        "mark": os.environ["SPAWNY_DAEMON"].split(":")[0],
        "name": read("/proc/self/comm"), "exe": os.readlink("/proc/self/exe"),
        "children": status("Threads"), "oom": read("/proc/self/oom_score_adj"),
        "cpu": time.process_time() < 60, "group": read("/proc/self/cgroup"),
    }

def draws():
    found = [random.random(), random.randint(0, 10**9), multiprocessing.current_process().authkey]
    import tempfile, uuid
    found += [next(tempfile._get_candidate_names()), str(uuid.uuid1()), str(uuid.uuid4())]
    numpy = sys.modules.get("numpy")
    return found + ([numpy.random.random()] if numpy else [])
"""


def without_name(found: dict[str, Any], name: str) -> dict[str, Any]:
    """What was looked at, without what any two daemons differ in."""
    text = repr({key: found[key] for key in sorted(found)})
    token = dict(found["environ"])["SPAWNY_DAEMON"].partition(":")[2]
    there: dict[str, Any] = eval(text.replace(token, "TOKEN").replace(name, "NAME"))
    return there


PRELOADS = [(), ("multiprocessing", "logging", "json", "ssl", "uuid", "tempfile")]


@pytest.mark.parametrize("preload", PRELOADS, ids=["bare", "preloaded"])
def test_nobody_can_tell_a_forked_daemon(
    home: Path, interpreter: Interpreter, preload: tuple[str, ...]
) -> None:
    """Of all that a process shows of itself nothing differs from one that was executed."""
    python = interpreter.path
    config = home / "config" / "config.toml"
    config.parent.mkdir()
    config.write_text("[zygotes]\nenabled = false\n")
    supervisor = spawny.connect()
    with named("plain-one", python, preload, LOOK) as executed:
        config.write_text("")
        supervisor.reload()
        warm(python, preload)
        with named("other-one", python, preload, LOOK) as forked:
            assert is_forked("other-one")
            assert not is_forked("plain-one")
            expected = without_name(spawny.value(executed.look()), "plain-one")
            found = without_name(spawny.value(forked.look()), "other-one")
            for what in expected:
                assert found[what] == expected[what], what


def test_an_environment_that_its_locale_cannot_read(home: Path, interpreter: Interpreter) -> None:
    """A forked daemon has it all the same, and bytes that are no text."""
    script = "import os\ndef look(): return os.environb[b'COLOUR'], os.environb[b'BYTES']"
    env = {"LC_ALL": "C", "COLOUR": "grün", "BYTES": "\udcff"}
    for name in ("first", "next"):
        module = spawny.run_script(
            script, name=name, python_exe=interpreter.path, preload=["json"], env=env
        )
        assert spawny.value(module.look()) == ("grün".encode(), b"\xff")
        assert is_forked(name)
        module.terminate_daemon()


@pytest.mark.parametrize("preload", PRELOADS, ids=["bare", "preloaded"])
def test_two_daemons_of_one_zygote_draw_different_numbers(
    home: Path, interpreter: Interpreter, preload: tuple[str, ...]
) -> None:
    """Random numbers, keys and names are each process's own."""
    warm(interpreter.path, preload)
    python = interpreter.path
    with named("a", python, preload, LOOK) as a, named("b", python, preload, LOOK) as b:
        for one, other in zip(spawny.value(a.draws()), spawny.value(b.draws()), strict=True):
            assert one != other


NOISY = """
import logging, os, signal, sys
print("one is here")
sys.stderr.write("half a line")
logging.basicConfig(format="%(message)s")
logging.getLogger().warning("logged early")
os.environ["SET_BY_NOISY"] = "1"
os.environ.pop("GONE", None)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
def log(): logging.getLogger().warning("logged late")
"""


def test_what_a_preloaded_module_does_is_done_in_each_daemon(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it prints, logs, and sets is found as after a plain start, by each client."""
    (tmp_path / "noisy.py").write_text(NOISY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("GONE", "1")
    text = """
import noisy, os, signal
def facts():
    return (os.environ["SET_BY_NOISY"], "GONE" in os.environ, os.popen("echo $GONE").read().strip(),
            signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN)
"""
    for name in ("a", "b"):
        with named(name, sys.executable, ("noisy",), text) as proxy:
            assert is_forked(name)
            assert spawny.value(proxy.facts()) == ("1", False, "", True)
            out, err = capfd.readouterr()
            assert "one is here" in out
            assert "half a line" in err
            assert "logged early" in err
            proxy.noisy.log()
            assert "logged late" in capfd.readouterr().err
            log = (home / "state" / "logs" / f"{name}.log").read_text()
            assert log.count("one is here") == log.count("logged early") == 1


def test_a_module_that_was_edited_is_imported_anew(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No daemon runs older code than is on disk, however warm its zygote."""
    module = tmp_path / "edited.py"
    module.write_text("version = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []
    for version in (1, 1, 22, 22):
        module.write_text(f"version = {version}")
        with named("a", sys.executable, ("edited",), "import edited") as proxy:
            seen.append((spawny.value(proxy.edited.version), is_forked("a")))
    assert seen == [(1, True), (1, True), (22, False), (22, True)]


def test_numpy_computes_in_a_forked_daemon(home: Path) -> None:
    """With the right result, and with as many threads as in any process."""
    pytest.importorskip("numpy")
    text = """
import numpy, os
def product(n):
    a = numpy.arange(n * n, dtype=float).reshape(n, n) % 7
    b = a @ a
    return float(b.sum()), len(os.listdir("/proc/self/task")), numpy.random.random()
"""
    expected = spawny.value(spawny.run_script(text).product(600))
    found = []
    for name in ("a", "b"):
        with named(name, sys.executable, ("numpy",), text) as proxy:
            assert is_forked(name)
            found.append(spawny.value(proxy.product(600)))
    assert [each[:2] for each in found] == [expected[:2]] * 2
    assert found[0][2] != found[1][2]


# --- what cannot be forked ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "import threading as t\nt.Thread(target=t.Event().wait, daemon=True).start()",
            "threads of unfit run, which a fork would lose",
        ),
        ("import socket\ns = socket.socketpair()", "unfit leaves socket:"),
        ("import subprocess\np = subprocess.Popen(['sleep', '60'])", "has started another process"),
    ],
    ids=["thread", "socket", "process"],
)
def test_what_a_fork_would_lose_is_started_plainly(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    """The daemon works, and the reason is told."""
    (tmp_path / "unfit.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        with named("a", sys.executable, ("unfit",), "import unfit"):
            assert not is_forked("a")
    (found,) = spawny.connect().zygotes()
    assert (found.state, found.pid) == ("unfit", None)
    assert reason in found.reason


def test_an_error_of_a_preload_reaches_the_user(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its own class, as from a plain start; and not for longer than it is there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        spawny.run_script("x = 1", preload=["broken"])
    assert "importing broken raised ZeroDivisionError" in spawny.connect().zygotes()[0].reason
    (tmp_path / "broken.py").write_text("import sys; sys.exit(3)")
    with pytest.raises(SystemExit):
        spawny.run_script("x = 2", preload=["broken"])
    (tmp_path / "broken.py").write_text("y = 5")
    assert spawny.value(spawny.run_script("import broken", preload=["broken"]).broken.y) == 5


def test_a_preload_that_crashes_the_zygote_fails_as_plainly(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is told of it is the daemon that was asked for."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "crash.py").write_text("import os; os.kill(os.getpid(), 11)")
    with pytest.raises(spawny.DaemonStartError, match="SIGSEGV"):
        spawny.run_script("x = 1", preload=["crash"])
    assert "exit code -11" in spawny.connect().zygotes()[0].reason


def test_a_forked_daemon_that_crashes_at_once_is_started_plainly_next(home: Path) -> None:
    """It might be the fork's fault."""
    text = "import os\ndef crash(): os.kill(os.getpid(), 11)"
    preload = ("json",)
    with named("a", sys.executable, preload, text) as proxy:
        assert is_forked("a")
        with pytest.raises(spawny.DaemonDied, match="SIGSEGV"):
            proxy.crash()
    with named("a", sys.executable, preload, text):
        assert not is_forked("a")
    (found,) = spawny.connect().zygotes()
    assert "forked from it, was killed by SIGSEGV" in found.reason


# --- deaths ---------------------------------------------------------------------------------------


def test_a_daemon_that_ends_at_once_is_told_with_its_code(home: Path) -> None:
    """A zygote's children are the supervisor's: it hears how they end."""
    for code in (7, 8):
        with pytest.raises(spawny.DaemonStartError, match=f"exited with code {code}"):
            spawny.run_script(f"import os; os._exit({code})", preload=["json"])


def test_fifty_daemons_at_once(home: Path) -> None:
    """Each is a process of its own, and all come from one zygote."""
    warm(sys.executable, ("json",))
    starts = "import spawny, sys; spawny.run_script('x = 1', name=sys.argv[1], preload=['json'])"
    clients = [
        subprocess.Popen([sys.executable, "-c", starts, f"d{n}"], stdout=subprocess.DEVNULL)
        for n in range(50)
    ]
    assert [each.wait() for each in clients] == [0] * 50
    supervisor = spawny.connect()
    listed = supervisor.list()
    assert len({each.pid for each in listed}) == 50
    assert sum(each.daemons for each in supervisor.zygotes()) == 50
    for each in listed:
        supervisor.stop(each.name)
