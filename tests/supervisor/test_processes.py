"""Starting, watching and signalling real processes."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spawny import children, control
from spawny.paths import Paths
from spawny.supervisor import interpreters, proctable
from spawny.supervisor.events import ChildSpawned, ProcessExited, SessionSwept, SpawnFailed
from spawny.supervisor.processes import Processes, daemon_environ
from spawny.supervisor.values import Identity
from spawny.supervisor.watch import Watch
from tests.supervisor.site import wait_gone

# What runs in place of the kernel: it does what its NAME says, and tells of it over a socket.
BOOT = """
import os, signal, socket, subprocess, sys, time
name, token, runtime = sys.argv[1:]
home = socket.socket(socket.AF_UNIX)
home.connect(os.path.join(runtime, "home"))
def say(text):
    home.sendall(text.encode() + b"\\n")
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [sys.executable, "-c", '''
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
''']
if name.startswith("exit"):
    sys.exit(int(name[4:]))
if name == "facts":
    say(repr(sys.argv[1:] + [os.getcwd(), os.getsid(0) == os.getpid(), os.environ.get("COLOUR")]))
    print("to the log", flush=True)
    print("errors too", file=sys.stderr, flush=True)
    say(repr(sys.stdin.read()))
if name == "fds":
    say(repr(sorted(map(int, os.listdir("/proc/self/fd")))[:-1]))
if name == "child":
    say(str(subprocess.Popen(SLEEP).pid))
if name == "stubborn":
    child = subprocess.Popen(STUBBORN, stdout=subprocess.PIPE)
    child.stdout.readline()
    say(str(child.pid))
if name == "hidden" or name == "freed":
    environ = dict(os.environ)
    if name == "freed":
        del environ["SPAWNY_DAEMON"]
    if os.fork() == 0:
        say(str(subprocess.Popen(SLEEP, start_new_session=True, env=environ).pid))
        os._exit(0)
    os.wait()
if name == "stranger":
    child = subprocess.Popen(STUBBORN, stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(str(child.pid))
say("waits")
home.recv(1)
"""


class Site:
    """Processes under a temporary home, and the socket that they talk to."""

    def __init__(self, root: Path, *, has_pidfd: bool) -> None:
        self.paths = Paths(root, root, root, root)
        self.paths.logs.mkdir()
        boot = root / "boot.py"
        boot.write_text(BOOT)
        self.watch = Watch()
        self.processes = Processes(self.paths, self.watch, str(boot), has_pidfd=has_pidfd)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(root / "home"))
        self.listener.listen()
        self.listener.settimeout(30)
        self.open: list[Any] = []

    def request(self, name: str, **changes: Any) -> control.StartDaemon:
        base = control.StartDaemon(
            name=name,
            token="token",
            digest="d",
            summary="",
            python=sys.executable,
            python_is_default=True,
            caller_python=sys.executable,
            environ={"COLOUR": "red", "PATH": os.environ["PATH"]},
            cwd="/",
            sys_path=[],
        )
        return replace(base, **changes)

    def spawn(self, name: str, **changes: Any) -> Identity:
        event = self.processes.spawn(
            self.request(name, **changes), interpreters.describe(sys.executable)
        )
        assert isinstance(event, ChildSpawned)
        return event.identity

    def talk(self) -> Callable[[], str]:
        """Accept the process that phones home; each call gives a line it says."""
        connection, _ = self.listener.accept()
        connection.settimeout(30)
        lines = connection.makefile()
        self.open += [connection, lines]
        return lambda: lines.readline().strip()

    def exited(self) -> list[ProcessExited | SessionSwept]:
        return self.processes.exited(self.watch.ready())

    def wait_exits(self) -> list[ProcessExited | SessionSwept]:
        """Wait as the loop does, until something has ended."""
        while True:
            interval = self.processes.interval
            select.select([self.watch], [], [], 30 if interval is None else interval)
            if events := self.exited():
                return events


@pytest.fixture(params=[True, False], ids=["pidfd", "portable"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param and not hasattr(os, "pidfd_open"):
        pytest.skip("this system has no pidfd")
    site = Site(tmp_path, has_pidfd=request.param)
    yield site
    for each in site.open:
        each.close()
    site.listener.close()
    # Without a home to talk to, each ends by itself.
    while site.processes._watched:
        for identity in list(site.processes._watched):
            site.processes.signal(identity, "SIGKILL", "")
        site.wait_exits()
    site.watch.close()


def test_a_process_is_spawned_as_agreed(site: Site, tmp_path: Path) -> None:
    """Arguments, directory, environment, session; its output in the log, nothing to read."""
    event = site.processes.spawn(site.request("facts"), interpreters.describe(sys.executable))
    assert isinstance(event, ChildSpawned)
    assert (event.name, event.log_offset) == ("facts", 0)
    say = site.talk()
    runtime = str(tmp_path)
    assert say() == repr(["facts", "token", runtime, "/", True, "red"])
    assert say() == "''"
    log = site.paths.log_file("facts")
    assert log.read_text() == "to the log\nerrors too\n"
    again = site.processes.spawn(site.request("facts"), interpreters.describe(sys.executable))
    assert isinstance(again, ChildSpawned)
    assert again.log_offset == len("to the log\nerrors too\n")
    site.talk()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc")
def test_no_descriptor_leaks_into_a_daemon(site: Site) -> None:
    """Nothing but the three standard ones, even if something here is inheritable."""
    leak = os.dup(0)
    os.set_inheritable(leak, True)
    site.spawn("fds")
    os.close(leak)
    assert site.talk()() == "[0, 1, 2, 3]"  # and its own socket


@pytest.mark.parametrize("code", [0, 7])
def test_an_exit_code_is_reported(site: Site, code: int) -> None:
    """Once, with the process that it was."""
    identity = site.spawn(f"exit{code}")
    assert site.wait_exits() == [ProcessExited(f"exit{code}", identity, code, None)]
    assert site.exited() == []
    assert not site.processes._watched


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMIN + 1])
def test_a_death_by_signal_is_reported(site: Site, number: int) -> None:
    """By name; a real-time signal has none."""
    identity = site.spawn("idle")
    site.talk()()
    os.kill(identity.pid, number)
    name = signal.Signals(number).name if number < signal.SIGRTMIN else f"signal {number}"
    assert site.wait_exits() == [ProcessExited("idle", identity, None, name)]


def test_the_exit_of_another_ones_child_is_seen(site: Site) -> None:
    """How it ended only its parent is told."""
    script = """
import os, sys
if os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
else:
    os.wait()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1) as parent:
        assert parent.stdin and parent.stdout
        identity = known(int(parent.stdout.readline()))
        site.processes.watch("adopted", identity)
        assert site.exited() == []
        parent.stdin.close()
        assert site.wait_exits() == [ProcessExited("adopted", identity, None, None)]


@pytest.mark.parametrize(("code", "signal_name"), [(7, None), (None, "SIGKILL")])
def test_the_exit_of_a_child_that_was_not_spawned_here(
    site: Site, code: int | None, signal_name: str | None
) -> None:
    """A supervisor that has executed itself anew keeps its children, and is told how they end."""
    pid = os.fork()
    if pid == 0:
        signal.pause() if code is None else os._exit(code)
    identity = known(pid)
    site.processes.watch("kept", identity)
    if code is None:
        os.kill(pid, signal.SIGKILL)
    assert site.wait_exits() == [ProcessExited("kept", identity, code, signal_name)]
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="this system cannot look before it reaps")
def test_orphans_that_were_inherited_are_reaped(site: Site) -> None:
    """And no exit code of a daemon is lost to that."""
    identity = site.spawn("exit7")
    orphan = os.fork()
    if orphan == 0:
        os._exit(0)
    os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    assert site.wait_exits() == [ProcessExited("exit7", identity, 7, None)]
    site.exited()
    assert proctable.identify(orphan) is None


def test_a_child_that_somebody_else_waits_for_is_not_reaped(site: Site) -> None:
    """Or who waits would find nothing, and take that for a success."""
    child = children.start([sys.executable, "-c", "raise SystemExit(3)"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    site.exited()
    assert child.wait() == 3
    assert not children.is_awaited(child.pid)


def test_a_process_that_is_gone_before_it_is_watched(site: Site) -> None:
    """Its end is reported all the same."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = proctable.identify(child.pid)
    assert identity is not None
    child.wait()
    site.processes.watch("gone", identity)
    assert site.processes.interval is not None
    assert site.wait_exits() == [ProcessExited("gone", identity, None, None)]


@pytest.mark.parametrize(
    ("changes", "executable", "complaint"),
    [
        ({}, "/nowhere/python", "/nowhere/python could not be executed: No such file"),
        ({}, "/etc/passwd", "/etc/passwd could not be executed: Permission denied"),
        ({"cwd": "/nowhere"}, sys.executable, "its working directory /nowhere does not exist"),
        ({"environ": {"A": "x\0y"}}, sys.executable, "embedded null byte"),
        ({"environ": {"A": "\ud800"}}, sys.executable, "surrogates not allowed"),
        ({"environ": {"A": "x" * 10_000_000}}, sys.executable, "Argument list too long"),
    ],
)
def test_what_cannot_be_spawned_says_why(
    site: Site, changes: dict[str, Any], executable: str, complaint: str
) -> None:
    """In words for whoever asked for it."""
    event = site.processes.spawn(site.request("x", **changes), interpreters.describe(executable))
    assert isinstance(event, SpawnFailed)
    assert complaint in event.problem
    assert not site.processes._watched


@pytest.mark.parametrize("spare", [0, 1])
def test_a_start_without_descriptors_says_so(site: Site, spare: int) -> None:
    """With the limit, whether it is the log that cannot be opened or a pipe to the child."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one + spare, before[1]))
    try:
        event = site.processes.spawn(site.request("x"), interpreters.describe(sys.executable))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert isinstance(event, SpawnFailed)
    assert f"no file descriptors left ({next_one + spare} are allowed)" in event.problem
    assert not site.processes._watched


def test_a_log_that_cannot_be_opened_fails_the_start(site: Site) -> None:
    """Whoever asked for it is told so at once."""
    site.paths.log_file("x").mkdir()
    event = site.processes.spawn(site.request("x"), interpreters.describe(sys.executable))
    assert isinstance(event, SpawnFailed)
    assert "its log cannot be opened" in event.problem


def test_sigterm_reaches_the_whole_group(site: Site) -> None:
    """A child in the group ends with the daemon, so that nothing is left to sweep."""
    identity = site.spawn("child")
    child = known(int(site.talk()()))
    site.processes.signal(identity, "SIGTERM", "child:token")
    assert site.wait_exits() == [ProcessExited("child", identity, None, "SIGTERM")]
    wait_gone(child.pid)
    assert site.processes.sweep("child", identity, "SIGTERM", "child:token") == SessionSwept(
        "child", identity, 0
    )


def test_a_stopped_daemon_hears_sigterm(site: Site) -> None:
    """It is woken up for it."""
    identity = site.spawn("idle")
    site.talk()()
    os.kill(identity.pid, signal.SIGSTOP)
    site.processes.signal(identity, "SIGTERM", "idle:token")
    assert site.wait_exits() == [ProcessExited("idle", identity, None, "SIGTERM")]


def test_sigkill_reaches_descendants_that_have_left(site: Site) -> None:
    """They were remembered while they could still be found, and nobody else is hit."""
    identity = site.spawn("stranger")
    stranger = known(int(site.talk()()))
    site.processes.snapshot(identity, "stranger:token")
    site.processes.signal(identity, "SIGTERM", "stranger:token")
    site.processes.signal(identity, "SIGKILL", "stranger:token")
    assert [each.identity for each in site.wait_exits()] == [identity]
    wait_gone(stranger.pid)


def test_what_a_killed_daemon_left_is_swept(site: Site) -> None:
    """SIGTERM first; the last end is told as an empty session."""
    identity = site.spawn("child")
    left = known(int(site.talk()()))
    os.kill(identity.pid, signal.SIGKILL)
    site.wait_exits()
    assert site.processes.sweep("child", identity, "SIGTERM", "child:token") == SessionSwept(
        "child", identity, 1
    )
    assert site.wait_exits() == [SessionSwept("child", identity, 0)]
    assert not proctable.is_alive(left)


def test_a_grandchild_of_a_killed_daemon_is_found(site: Site) -> None:
    """In a session of its own, its parent gone: by what it has inherited."""
    identity = site.spawn("hidden")
    say = site.talk()
    hidden = known(int(say()))
    assert say() == "waits"  # when what was between them is gone
    os.kill(identity.pid, signal.SIGKILL)
    site.wait_exits()
    assert site.processes.sweep("hidden", identity, "SIGTERM", "hidden:token").left == 1
    assert site.wait_exits() == [SessionSwept("hidden", identity, 0)]
    assert not proctable.is_alive(hidden)


def test_a_process_that_has_dropped_the_mark_outlives_its_daemon(site: Site) -> None:
    """It has a session of its own, too, and its parent is gone."""
    identity = site.spawn("freed")
    say = site.talk()
    freed = known(int(say()))
    assert say() == "waits"  # when what was between them is gone
    try:
        site.processes.signal(identity, "SIGKILL", "freed:token")
        site.wait_exits()
        assert site.processes.sweep("freed", identity, "SIGKILL", "freed:token").left == 0
        assert proctable.is_alive(freed)
    finally:
        os.kill(freed.pid, signal.SIGKILL)


def test_a_daemon_is_nobodys_family(site: Site) -> None:
    """Even if it has the mark of another one."""
    identity = site.spawn("idle")
    other = site.spawn("idle")
    site.processes.signal(identity, "SIGKILL", "idle:token")
    assert site.wait_exits() == [ProcessExited("idle", identity, None, "SIGKILL")]
    assert proctable.is_alive(other)


def test_what_ignores_sigterm_is_killed(site: Site) -> None:
    """On the second sweep."""
    identity = site.spawn("stubborn")
    left = known(int(site.talk()()))
    os.kill(identity.pid, signal.SIGKILL)
    site.wait_exits()
    assert site.processes.sweep("stubborn", identity, "SIGTERM", "stubborn:token").left == 1
    assert proctable.is_alive(left)
    assert site.processes.sweep("stubborn", identity, "SIGKILL", "stubborn:token").left == 1
    assert site.wait_exits() == [SessionSwept("stubborn", identity, 0)]
    assert not proctable.is_alive(left)


def test_the_supervisor_and_the_first_process_are_never_signalled(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is taken for a daemon, and whoever has its mark; the test would not see the end."""
    for pid in (1, os.getpid()):
        identity = known(pid)
        for name in ("SIGTERM", "SIGKILL"):
            # Its family, were it a daemon's, would be much of what runs.
            site.processes._families._send(identity, signal.Signals[name])
            assert f"process {pid} was not sent {name}" in caplog.text


def test_a_pid_that_is_somebody_elses_is_never_signalled(site: Site) -> None:
    """An identity of an earlier process with this pid hits nobody."""
    identity = site.spawn("idle")
    say = site.talk()
    say()
    earlier = replace(identity, start_ticks=identity.start_ticks - 1)
    site.processes.signal(earlier, "SIGTERM", "idle:token")
    site.processes._families._snapshots[earlier] = {earlier}
    site.processes.signal(earlier, "SIGKILL", "idle:token")
    assert site.processes.sweep("idle", earlier, "SIGKILL", "idle:token").left == 0
    assert proctable.is_alive(identity)


def known(pid: int) -> Identity:
    identity = proctable.identify(pid)
    assert identity is not None
    return identity


# --- the environment ------------------------------------------------------------------------------

ENVIRON = {
    "SPAWNY_DAEMON": "another:daemon",
    "PATH": "/bin",
    "PYTHONPATH": "/src",
    "PYTHONHOME": "/usr",
    "VIRTUAL_ENV": "/venv",
    "CONDA_PREFIX": "/conda",
    "__PYVENV_LAUNCHER__": "/x",
    "PYTHONUNBUFFERED": "1",
    "NOTIFY_SOCKET": "/run/notify",
    "WATCHDOG_USEC": "1000",
    "LISTEN_FDS": "1",
}


def environ_for(executable: str, caller: str) -> dict[str, str]:
    request = control.StartDaemon(
        "x", "t", "d", "", executable, False, caller, ENVIRON, "/", sys_path=[]
    )
    return daemon_environ(request, interpreters.describe(executable))


def test_the_supervisors_own_variables_never_arrive() -> None:
    """A daemon is no service of the service manager's; the rest is the client's."""
    left = environ_for(sys.executable, sys.executable)
    assert set(ENVIRON) - set(left) == {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"}
    assert left["SPAWNY_DAEMON"] == "x:t"
    assert [*left][-1] == "SPAWNY_DAEMON"  # see docs/protocol-zygote.md


def test_another_interpreter_gets_no_variables_of_the_callers() -> None:
    """They would lead it to packages of the wrong version, or to no standard library at all."""
    left = environ_for("/opt/python3.9", sys.executable)
    assert left == {"PATH": "/bin", "PYTHONUNBUFFERED": "1", "SPAWNY_DAEMON": "x:t"}
