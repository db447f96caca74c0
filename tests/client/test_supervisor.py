"""Asking the supervisor, starting it where there is none, and its death at any moment."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from spawny import control, errors, paths
from spawny.client import autostart
from spawny.client.supervisor import Supervisor, connect
from spawny.definitions import ScriptDefinition

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def process(*arguments: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process whose output is read line by line; it is gone at the end."""
    child = subprocess.Popen(
        [sys.executable, "-u", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        **options,  # type: ignore[call-overload]
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


@pytest.fixture
def router(home: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a peer that behaves in one of the ways of `tests/client/router.py`."""
    running = []

    def start(mode: str) -> subprocess.Popen[str]:
        running.append(process("-m", "tests.client.router", mode))
        child = running[-1].__enter__()
        assert said(child) == "READY"
        return child

    yield start
    for child in running:
        child.__exit__(None, None, None)


def start_request(name: str, script: str = "foo = 1") -> control.StartDaemon:
    definition = ScriptDefinition(script)
    return control.StartDaemon(
        name=name,
        token=os.urandom(8).hex(),
        digest=definition.digest(),
        summary="a script",
        python=sys.executable,
        python_is_default=True,
        caller_python=sys.executable,
        environ=dict(os.environ),
        cwd="/",
        sys_path=[],
        definition=definition.payload(),
    )


# --- starting it ----------------------------------------------------------------------------------


def test_the_first_client_starts_a_supervisor(home):
    """It serves, is nobody's child, and has neither a terminal nor a directory of the client."""
    welcome = connect().version()
    supervisor = psutil.Process(welcome.pid)
    assert supervisor not in psutil.Process().children(recursive=True)
    assert supervisor.cwd() == "/"
    assert supervisor.terminal() is None
    assert os.getsid(welcome.pid) != os.getsid(0)
    assert welcome.python == sys.executable


def test_the_second_client_finds_it(home):
    """Connecting again starts nothing."""
    assert connect().version() == connect(start=False).version()


def test_many_cold_starts_at_once_get_one_supervisor(home):
    """All of twenty processes are answered, by one and the same."""
    script = "from spawny import connect; input(); print(connect().version().pid)"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = {child.communicate(timeout=60)[0] for child in children}
    assert answers == {f"{connect(start=False).version().pid}\n"}


def test_a_relative_home_is_the_same_place_for_the_supervisor(home, monkeypatch):
    """SPAWNY_HOME counts from the client's directory, not from the supervisor's."""
    monkeypatch.chdir(home.parent)
    monkeypatch.setenv("SPAWNY_HOME", home.name)
    pid = connect().version().pid
    assert psutil.Process(pid).environ()["SPAWNY_HOME"] == str(home)


def test_the_service_managers_words_stay_with_the_client(home, monkeypatch):
    """A client that is a service itself starts a supervisor that is none."""
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"):
        monkeypatch.setenv(name, "1")
    environ = psutil.Process(connect().version().pid).environ()
    assert not {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"} & environ.keys()


def test_blocked_signals_of_a_client_do_not_reach_the_supervisor(home):
    """A client that blocks SIGTERM starts a supervisor that does not."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        pid = connect().version().pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    blocked = next(
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("SigBlk")
    )
    assert int(blocked.split()[1], 16) & 1 << (signal.SIGTERM - 1) == 0


def test_a_supervisor_that_fails_to_start_is_quoted(home):
    """The error holds what the supervisor wrote this time, and where."""
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text("[supervisor]\nlog_files = -1\n")
    here = paths.locate()
    for directory in (here.runtime, here.state, here.logs):
        paths.make_private(directory)
    here.supervisor_log.write_text("of an earlier one\n")
    with pytest.raises(errors.SupervisorUnavailable, match="log_files must be positive") as caught:
        connect()
    assert str(here.supervisor_log) in str(caught.value)
    assert "of an earlier one" not in str(caught.value)


def test_waiting_for_another_client_that_starts_one_has_an_end(home, monkeypatch):
    """Whoever holds the start lock for too long is reported; the lock is not taken along."""
    here = paths.locate()
    paths.make_private(here.runtime)
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('held'); input()"
    )
    with (
        process("-c", hold, str(here.start_lock), stdin=subprocess.PIPE) as holder,
        monkeypatch.context() as patch,
    ):
        patch.setattr(autostart, "START_LOCK_SECONDS", 0.1)
        assert said(holder) == "held"
        with pytest.raises(errors.SupervisorUnavailable, match=r"start\.lock"):
            connect()
    assert connect().list() == []


def test_a_missing_supervisor_is_not_started_against_the_will(home):
    """Without `start` there is an error, and nothing is created."""
    with pytest.raises(errors.SupervisorUnavailable, match="no supervisor runs"):
        connect(start=False)
    assert list(home.iterdir()) == []


# --- refusing what may be another's ---------------------------------------------------------------


def test_an_open_runtime_directory_is_refused(home):
    """A runtime directory that others may write to is not used, nor closed silently."""
    here = paths.locate()
    here.runtime.mkdir(mode=0o755)
    here.runtime.chmod(0o755)
    with pytest.raises(errors.UnsafePath, match="chmod 700"):
        connect()
    assert stat.S_IMODE(here.runtime.stat().st_mode) == 0o755


def test_a_socket_that_is_none_is_refused(home):
    """A symbolic link in the socket's place is not followed."""
    here = paths.locate()
    paths.make_private(here.runtime)
    here.supervisor_socket.symlink_to("/tmp/elsewhere")
    with pytest.raises(errors.UnsafePath, match="no socket of yours"):
        connect()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket away")
def test_another_users_socket_is_refused(home, router):
    """A socket of another uid is not spoken to, though it would answer."""
    router("mute")
    os.chown(paths.locate().supervisor_socket, 65534, 65534)
    with pytest.raises(errors.UnsafePath, match="no socket of yours"):
        Supervisor(paths.locate(), start=False).version()


def test_a_home_too_deep_for_a_socket_is_refused(home, monkeypatch):
    """The error speaks of the path, not of a failing bind."""
    monkeypatch.setenv("SPAWNY_HOME", str(home / ("x" * 90)))
    with pytest.raises(errors.UnsafePath, match="shorter"):
        connect()


# --- its death and its silence --------------------------------------------------------------------


def test_a_question_is_asked_again_when_the_supervisor_dies_in_it(home, router):
    """Its death is noticed long before the deadline, and the next supervisor answers."""
    dying = router("dies")
    assert connect().list() == []
    assert said(dying) == "ListDaemons"


def test_a_supervisor_that_dies_is_not_taken_for_one_that_serves(home):
    """It may take a connection just before the system closes its socket."""
    where = paths.locate()
    paths.make_private(where.runtime)
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(where.supervisor_socket))
        dying.listen()

        def die() -> None:
            select.select([dying], [], [])
            dying.close()

        thread = threading.Thread(target=die)
        thread.start()
        assert not autostart.supervisor_listens(where)
        thread.join()


def test_a_supervisor_that_is_stopped_is_not_taken_for_dead(home, monkeypatch):
    """It takes connections, and says nothing."""
    monkeypatch.setattr(autostart, "GREETING_SECONDS", 0.05)
    connect()
    pid = connect().version().pid
    os.kill(pid, signal.SIGSTOP)
    assert autostart.supervisor_listens(paths.locate())
    os.kill(pid, signal.SIGCONT)


def test_a_start_is_asked_again_when_the_supervisor_dies_in_it(home, router):
    """A start has a token, so that asking again is safe: the next supervisor starts it, once."""
    dying = router("dies")
    supervisor = connect()
    started = supervisor.start(start_request("etl"))
    assert said(dying) == "StartDaemon"
    assert [(each.name, each.pid) for each in supervisor.list()] == [("etl", started.pid)]
    supervisor.stop("etl")


def test_a_supervisor_that_dies_each_time_is_not_asked_for_ever(home, router):
    """After some tries the error comes; where no start is allowed, after one."""
    router("dies")
    with pytest.raises(errors.SupervisorUnavailable, match="no supervisor runs"):
        connect(start=False).list()


@pytest.mark.parametrize(
    "ask",
    [
        lambda supervisor: supervisor.stop("etl"),
        lambda supervisor: supervisor.restart("etl"),
        lambda supervisor: supervisor.interrupt("etl"),
        lambda supervisor: supervisor.shutdown(),
    ],
    ids=["stop", "restart", "interrupt", "shutdown"],
)
def test_an_action_is_not_repeated_behind_the_callers_back(home, router, ask):
    """Whether it was done is not known: the error says so, and no supervisor is started."""
    dying = router("dies")
    supervisor = connect()
    with pytest.raises(errors.SupervisorUnavailable, match=r"ended while .*spawny ps"):
        ask(supervisor)
    dying.wait(30)  # the connection ends a moment before the listening socket
    with pytest.raises(errors.SupervisorUnavailable):
        connect(start=False)


def test_an_action_that_was_never_heard_is_sent_to_the_next_supervisor(home):
    """A supervisor that ended between two requests costs none of them."""
    supervisor = connect()
    before = supervisor.version().pid
    supervisor.shutdown()
    with pytest.raises(errors.DaemonNotFound):
        supervisor.stop("etl")
    assert supervisor.version().pid != before


def test_a_silent_supervisor_is_an_error(home, router):
    """One that is stopped or hangs answers neither question nor action."""
    router("mute")
    hasty = connect(answer_seconds=0.2)
    for ask in (hasty.stop, hasty.status, lambda _: hasty.events()):
        with pytest.raises(errors.SupervisorUnavailable, match=r"not answered for 0\.2 s"):
            ask("etl")


def test_a_long_action_is_waited_for_while_the_supervisor_lives(home, router):
    """An answer may take many times the limit, as long as Hello is answered."""
    slow = router("slow")
    assert connect(answer_seconds=0.5).stop("etl") == "at last"
    assert [said(slow) for _ in range(3)] == ["StopDaemon", "Hello", "Hello"]


def test_a_supervisor_of_another_protocol_is_named_so(home, router):
    """The error says what to do; who it is can still be asked."""
    router("slow-foreign")
    assert connect().version().version == "0"
    router("newer-foreign")
    with pytest.raises(errors.VersionMismatch, match="99"):
        connect().list()


def test_an_answer_that_was_not_asked_for_is_an_error(home, router):
    """A confused supervisor is reported, not believed."""
    router("confused")
    with pytest.raises(errors.SpawnyError, match="answered Done instead of Listing"):
        connect().list()


# --- what it leaves behind ------------------------------------------------------------------------


def test_ctrl_c_ends_the_wait(home, router):
    """A client that waits for an answer is interrupted, and ends with its own exit code."""
    mute = router("mute")
    script = (
        "from spawny import connect\ntry: connect().list()\nexcept KeyboardInterrupt: print('^C')"
    )
    with process("-c", script) as client:
        assert said(mute) == "ListDaemons"
        client.send_signal(signal.SIGINT)
        assert said(client) == "^C"
        assert client.wait(30) == 0


def test_an_abandoned_stream_of_events_does_not_keep_the_process(home):
    """A script ends though it never closed its events."""
    script = "from spawny import connect; events = connect().events(); print('subscribed')"
    with process("-c", script, stderr=subprocess.STDOUT) as client:
        assert said(client) == "subscribed"
        assert client.wait(30) == 0
        assert client.stdout.read() == ""


def test_an_abandoned_stream_in_a_cycle_can_be_collected(home):
    """The collector ends a stream of events that nobody can reach, without waiting for anything."""
    cycle: list[object] = [connect().events()]
    cycle.append(cycle)
    threads = psutil.Process().num_threads()
    del cycle
    gc.collect()
    assert psutil.Process().num_threads() < threads


def test_a_fork_neither_uses_nor_breaks_its_parents_stream(home):
    """The child is told; the parent hears of events after the child has ended."""
    script = """
import os, sys
from spawny import SpawnyError, connect
supervisor = connect()
events = supervisor.events()
child = os.fork()
if child == 0:
    try:
        next(events)
    except SpawnyError as error:
        print(error, flush=True)
    print(supervisor.list(), flush=True)
    sys.exit()
os.waitpid(child, 0)
print(input(), flush=True)
print(next(events).name)
"""
    with process("-c", script, stdin=subprocess.PIPE) as client:
        assert "call it again in this process" in said(client)
        assert said(client) == "[]"
        client.stdin.write("go on\n")
        client.stdin.flush()
        assert said(client) == "go on"
        supervisor = connect(start=False)
        supervisor.start(start_request("etl"))
        assert said(client) == "etl"
        assert client.wait(30) == 0
        supervisor.stop("etl")


# --- daemons --------------------------------------------------------------------------------------


def test_a_daemons_life_as_a_client_sees_it(home):
    """Started, listed, restarted, stopped; its log stays."""
    with connect() as supervisor:
        events = supervisor.events()
        started = supervisor.start(start_request("etl", "print('hello')"))
        assert not started.existing
        while (event := next(events)).kind != "ready":
            assert event.name == "etl"
        assert supervisor.status("etl").pid == started.pid
        assert supervisor.start(start_request("etl", "print('hello')")).existing
        assert supervisor.interrupt("etl") is False
        again = supervisor.restart("etl")
        assert again.pid != started.pid
        assert supervisor.stop("etl")
        assert supervisor.list() == []
        assert supervisor.status("etl").state == "ended"
        with pytest.raises(errors.DaemonNotFound, match="etl"):
            supervisor.stop("etl")
        supervisor.shutdown()
    assert "hello" in list(supervisor.logs("etl"))
    with pytest.raises(errors.DaemonNotFound, match="nobody"):
        supervisor.logs("nobody")


def test_a_refusal_is_raised_as_what_it_is(home):
    """An interpreter that is not there is an InterpreterNotFound here."""
    request = start_request("etl")
    missing = control.StartDaemon(
        **{
            field: getattr(request, field)
            for field in control.StartDaemon.__dataclass_fields__
            if field != "python"
        },
        python="/nowhere/python",
    )
    with pytest.raises(errors.InterpreterNotFound, match="/nowhere/python"):
        connect().start(missing)


def test_a_shutdown_tells_its_steps_and_leaves_nothing(home):
    """Each daemon is told of; when it returns the supervisor is gone."""
    supervisor = connect()
    supervisor.start(start_request("one"))
    supervisor.start(start_request("two"))
    steps: list[str] = []
    supervisor.shutdown(steps.append)
    assert any("one" in step for step in steps)
    assert any("two" in step for step in steps)
    with pytest.raises(errors.SupervisorUnavailable):
        connect(start=False)


def test_events_from_before_and_after_the_subscription_arrive_in_order(home, router):
    """Nothing is lost while subscribing; the supervisor's end ends the stream with an error."""
    router("eager")
    events = connect().events()
    assert [next(events).name, next(events).name] == ["early", "late"]
    with pytest.raises(errors.SupervisorUnavailable, match="ended"):
        next(events)
