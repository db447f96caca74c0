"""The whole supervisor, as a process, with daemons that are processes."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from spawny import control
from spawny.definitions import ScriptDefinition
from spawny.kernel import link
from spawny.supervisor.run import EXIT_ALREADY_RUNNING
from tests.end_to_end.processes import eventually
from tests.supervisor.site import SECONDS, Client, Supervised, wait_gone


@pytest.fixture
def site(home: Path) -> Iterator[Supervised]:
    site = Supervised(home)
    yield site
    site.close()


@pytest.fixture
def client(site: Supervised) -> Iterator[Client]:
    """A client of a supervisor that runs."""
    site.start()
    with site.client() as client:
        yield client


@pytest.fixture
def client_of_pid_1(site: Supervised) -> Iterator[Client]:
    """A client of a supervisor that is the first process of its container."""
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.call([*inside, "true"], stderr=-3) != 0:
        pytest.skip("this user cannot make a pid namespace with unshare")
    site.start(within=inside)
    with site.client() as client:
        yield client


def left_in(site: Supervised) -> list[str]:
    """The files of the runtime directory, without the memory of those that have ended."""
    runtime = site.paths.runtime
    memory = (".ended", ".definition")
    return sorted(
        str(path.relative_to(runtime))
        for path in runtime.rglob("*")
        if not path.is_dir() and path.suffix not in memory
    )


# --- serving --------------------------------------------------------------------------------------


def test_it_says_when_it_serves(site: Supervised) -> None:
    """READY, the end of the pipe, and from then on it answers; nobody else can reach it."""
    supervisor = site.start("--service")
    assert left_in(site) == ["link.sock", "supervisor.lock", "supervisor.sock"]
    for path in (site.paths.supervisor_socket, site.paths.link_socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with site.client() as client:
        welcome = client.ask(control.Hello("0"))
        assert isinstance(welcome, control.Welcome)
        assert (welcome.pid, welcome.service) == (supervisor.pid, True)


def test_a_supervisor_that_a_daemon_starts_by_hand_is_not_part_of_it(site: Supervised) -> None:
    """Nothing in the environment that the system shows of it says so."""
    site.environ["SPAWNY_DAEMON"] = "etl:1"
    supervisor = site.start()
    assert "SPAWNY_DAEMON" not in psutil.Process(supervisor.pid).environ()


def test_a_whole_life(site: Supervised, client: Client) -> None:
    """Start, list, attach, interrupt, restart, stop."""
    client.watch()
    started = client.start("busy")
    assert (started.name, started.existing) == ("busy", False)
    ready = client.until("ready", "busy")
    assert ready.pid == started.pid
    assert abs(ready.time - time.time()) < 60
    # What is known of it is told where it does not answer in time; so this may have to be asked.
    assert eventually(lambda: client.status("busy").calls == 5)
    status = client.status("busy")
    assert (status.state, status.pid, status.clients) == ("ready", started.pid, 1)
    assert status.rss_bytes > 1_000_000
    assert client.start("busy").existing
    assert client.ask(control.InterruptDaemon("busy")) == control.Done("the call was interrupted")
    again = client.ask(control.RestartDaemon("busy"))
    assert isinstance(again, control.Started)
    assert again.pid != started.pid
    wait_gone(started.pid)
    client.ask(control.UnwatchEvents())
    done = client.ask(control.StopDaemon("busy"))
    assert isinstance(done, control.Done)
    wait_gone(again.pid)
    assert client.ask(control.ListDaemons()) == control.Listing(())
    status = client.status("busy")
    assert (status.state, status.exit_code) == ("ended", 0)
    assert Path(status.log).read_text().count("loading ready does ready") == 2
    assert left_in(site) == ["link.sock", "supervisor.lock", "supervisor.sock"]


def test_a_daemon_that_dies_before_its_hello(client: Client, site: Supervised) -> None:
    """The answer has what it wrote: of this life, not of the one before."""
    for _ in range(2):
        refused = client.ask(site.request("dies"))
        assert isinstance(refused, control.Refused)
        assert (refused.error, refused.exit_code) == ("DaemonStartError", 3)
        assert refused.output == "hello from dies\ncannot find my library\n"


@pytest.mark.parametrize("name", ["mute", "garbage"])
def test_a_daemon_that_never_says_hello(client: Client, site: Supervised, name: str) -> None:
    """It is ended when its time is over, and its start refused."""
    refused = client.ask(site.request(name, start_timeout=0.5))
    assert isinstance(refused, control.Refused)
    assert "not ready within 0.5 s" in refused.message
    assert client.status(name).signal_name == "SIGTERM"


def test_an_executable_that_is_none(client: Client, site: Supervised) -> None:
    """The reason is in the refusal; so is a Python that is not there."""
    fake = site.home / "python"
    fake.write_text("no interpreter")
    fake.chmod(0o755)
    refused = client.ask(site.request("x", python=str(fake)))
    assert isinstance(refused, control.Refused)
    assert "could not be executed: Exec format error" in refused.message
    refused = client.ask(site.request("x", python="/nowhere/python"))
    assert isinstance(refused, control.Refused)
    assert refused.error == "InterpreterNotFound"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../x"},
        {"python": "a\0b"},
        {"python": "\ud800"},
        {"cwd": "\ud800"},
        {"environ": {"A\0": "x"}},
        {"python": "3.9\0", "environ": {"PATH": "\ud800"}},
    ],
)
def test_a_request_that_makes_no_sense(
    client: Client, site: Supervised, changes: dict[str, object]
) -> None:
    """It is refused, and the next one served."""
    assert isinstance(client.ask(site.request("x", **changes)), control.Refused)
    assert isinstance(client.ask(control.Hello("1")), control.Welcome)


# --- interpreters that have to be looked for ------------------------------------------------------


class Slow:
    """An interpreter that answers when it is told to, on a PATH; and the environment of a client
    that asks for it by its version, `SLOW`."""

    def __init__(self, site: Supervised) -> None:
        self._begun, self._go = site.home / "begun", site.home / "go"
        os.mkfifo(self._begun)
        os.mkfifo(self._go)
        path = site.home / "bin" / "python{}.{}".format(*sys.version_info)
        path.parent.mkdir()
        path.write_text(
            f'#!/bin/sh\n[ "$1" = -c ] && echo $$ > {self._begun} && read go < {self._go}\n'
            f'exec {sys.executable} "$@"\n'
        )
        path.chmod(0o755)
        self.environ = {**site.environ, "PATH": str(path.parent), "HOME": str(site.home)}
        self.environ.pop("PYENV_ROOT", None)

    def begun(self) -> int:
        """Its pid, as soon as it is being asked."""
        return int(self._begun.read_text())

    def end(self) -> None:
        self._go.write_text("go\n")


SLOW = "{}.{}".format(*sys.version_info)


@pytest.fixture
def slow(site: Supervised) -> Slow:
    return Slow(site)


def test_nobody_else_waits_for_an_interpreter_to_be_found(
    client: Client, site: Supervised, slow: Slow
) -> None:
    """Questions are answered and other daemons started meanwhile."""
    number = client.send(site.request("etl", python=SLOW, environ=slow.environ))
    slow.begun()
    assert isinstance(client.ask(control.Hello("1")), control.Welcome)
    client.start("other")
    assert client.ask(control.StopDaemon("other"))
    assert [each.name for each in client.ask(control.ListDaemons()).daemons] == []
    slow.end()
    started = client.receive()
    assert started.request_id == number
    assert isinstance(started.message, control.Started)
    site.pids.append(started.message.pid)
    client.ask(control.StopDaemon("etl"))


def test_what_is_about_the_same_daemon_waits_its_turn(
    client: Client, site: Supervised, slow: Slow
) -> None:
    """A second start finds the daemon of the first, as does who attaches."""
    asked = [
        client.send(site.request("etl", python=SLOW, environ=slow.environ)),
        client.send(site.request("etl")),
        client.send(control.FindDaemon("etl")),
    ]
    slow.begun()
    slow.end()
    answers = answers_to(client, asked)
    assert all(isinstance(each, control.Started) for each in answers)
    site.pids.append(answers[0].pid)
    assert [each.existing for each in answers] == [False, True, True]
    assert len({each.pid for each in answers}) == 1
    client.ask(control.StopDaemon("etl"))


def test_a_stop_does_not_overtake_the_start(client: Client, site: Supervised, slow: Slow) -> None:
    """It would find no daemon, and leave one running."""
    start = client.send(site.request("etl", python=SLOW, environ=slow.environ))
    stop = client.send(control.StopDaemon("etl"))
    slow.begun()
    slow.end()
    _, stopped = answers_to(client, [start, stop])
    assert isinstance(stopped, control.Done)
    assert client.ask(control.ListDaemons()) == control.Listing(())


def answers_to(client: Client, numbers: list[int]) -> list[Any]:
    answers = {}
    while set(answers) != set(numbers):
        envelope = client.receive()
        if not isinstance(envelope.message, control.Progress):
            answers[envelope.request_id] = envelope.message
    return [answers[number] for number in numbers]


def test_a_client_that_dies_meanwhile(client: Client, site: Supervised, slow: Slow) -> None:
    """Its request is carried out as if it had died a moment later."""
    client.watch()
    with site.client() as other:
        other.send(site.request("etl", python=SLOW, environ=slow.environ))
        slow.begun()
    slow.end()
    site.pids.append(client.until("ready", "etl").pid or 0)
    client.ask(control.StopDaemon("etl"))


def test_a_shutdown_meanwhile(client: Client, site: Supervised, slow: Slow) -> None:
    """It waits for nobody, and what is being asked ends with it."""
    client.send(site.request("etl", python=SLOW, environ=slow.environ))
    pid = slow.begun()
    client.send(control.Shutdown())
    assert site.supervisors[-1].wait(SECONDS) == 0
    wait_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_supervisor_meanwhile(
    client: Client, site: Supervised, slow: Slow, number: signal.Signals
) -> None:
    """What is being asked ends with it, too."""
    client.send(site.request("etl", python=SLOW, environ=slow.environ))
    pid = slow.begun()
    site.supervisors[-1].send_signal(number)
    site.supervisors[-1].wait(SECONDS)
    wait_gone(pid)


def test_declared_daemons_take_the_same_specs(site: Supervised, slow: Slow) -> None:
    """The supervisor serves meanwhile; who attaches to one waits until it is known."""
    site.paths.config.mkdir(parents=True)
    site.paths.config_file.write_text(
        f'[daemons.etl]\nmodule = "string"\npython = "{SLOW}"\nenv = {{PATH = "{site.home}/bin"}}'
    )
    site.environ |= {"HOME": str(site.home)}
    site.environ.pop("PYENV_ROOT", None)
    site.start("--service")
    with site.client() as client:
        slow.begun()
        number = client.send(control.FindDaemon("etl"))
        assert isinstance(client.ask(control.Hello("1")), control.Welcome)
        slow.end()
        started = client.receive()
        assert started.request_id == number
        assert isinstance(started.message, control.Started)
        site.pids.append(started.message.pid)
        client.ask(control.StopDaemon("etl"))


def test_a_definition_that_raises(client: Client) -> None:
    """It was started, ended by itself, and why is known; no policy brings it back."""
    client.watch()
    client.start("etl", "raise", restart="always")
    assert "ValueError: x" in client.until("ended", "etl").detail
    assert "ValueError: x" in client.status("etl").reason


def test_a_crash_is_followed_by_a_restart(client: Client, site: Supervised) -> None:
    """A new process with the same definition; its socket is not the dead one's."""
    client.watch()
    first = client.start("etl", restart="on-failure")
    client.until("ready", "etl")
    os.kill(first.pid, signal.SIGKILL)
    assert "killed by SIGKILL" in client.until("restarting", "etl").detail
    ready = client.until("ready", "etl")
    assert ready.pid not in (None, first.pid)
    site.pids.append(ready.pid or 0)
    assert client.status("etl").restarts == 1
    client.ask(control.StopDaemon("etl"))


def test_a_kill_of_a_daemon_without_a_policy(client: Client, site: Supervised) -> None:
    """It stays dead, how is known, and its socket does not stay."""
    client.watch()
    daemon = client.start("etl")
    client.until("ready", "etl")
    os.kill(daemon.pid, signal.SIGKILL)
    client.until("ended", "etl")
    assert client.status("etl").signal_name == "SIGKILL"
    assert not site.paths.call_socket("etl").exists()


def test_what_a_killed_daemon_started_goes_with_it(client: Client, site: Supervised) -> None:
    """Nobody leaks processes by being killed."""
    client.watch()
    daemon = client.start("leaves")
    client.until("ready", "leaves")
    child = int(site.paths.log_file("leaves").read_text().split()[3])
    os.kill(daemon.pid, signal.SIGKILL)
    client.until("ended", "leaves")
    wait_gone(child)


def test_a_stubborn_daemon_is_killed(site: Supervised) -> None:
    """Asked, SIGTERM, SIGKILL: the answer says which it took."""
    site.configure(stop_grace_seconds=0.2, term_grace_seconds=0.2)
    site.start()
    with site.client() as client:
        client.start("stubborn")
        done = client.ask(control.StopDaemon("stubborn"))
        assert isinstance(done, control.Done)
        assert "ended by SIGKILL" in done.detail


def test_a_daemon_that_does_not_listen_is_listed(client: Client) -> None:
    """After a quarter of a second, as it was last known; it ends by SIGTERM."""
    daemon = client.start("deaf")
    assert client.status("deaf").state == "loading"
    os.kill(daemon.pid, signal.SIGSTOP)
    assert client.status("deaf").state in ("loading", "stopped")
    os.kill(daemon.pid, signal.SIGKILL)


def test_logs_are_rotated(site: Supervised) -> None:
    """While their daemons run."""
    site.configure(log_bytes=10, health_interval_seconds=0.05)
    site.start()
    with site.client() as client:
        client.watch()
        client.start("etl")
        client.until("ready", "etl")
        log = site.paths.log_file("etl")
        while not log.with_name("etl.log.1").exists():
            client.status("etl")
        client.ask(control.StopDaemon("etl"))


def test_garbage_harms_nobody(client: Client, site: Supervised) -> None:
    """On either socket, in either protocol."""
    client.start("etl")
    for path in (site.paths.supervisor_socket, site.paths.link_socket):
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(path))
            rude.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(site.paths.link_socket))
        rude.sendall(link.encode({"type": "hello"}))
        assert rude.recv(1) == b""
    assert client.status("etl").pid
    client.ask(control.StopDaemon("etl"))


def test_pid_1_of_a_container(site: Supervised, client_of_pid_1: Client) -> None:
    """It reaps the orphans that fall to it, and knows how its own daemons ended."""
    client = client_of_pid_1
    welcome = client.ask(control.Hello("0"))
    assert isinstance(welcome, control.Welcome)
    assert welcome.pid == 1
    client.watch()
    client.ask(site.request("orphans"))
    client.until("ready", "orphans")
    (shell,) = site.supervisors
    (first,) = psutil.Process(shell.pid).children()
    # Its own child and nobody else's: the orphan, which ends at once, is not left as a zombie.
    while len(children := first.children()) != 1 or children[0].status() == "zombie":
        client.status("orphans")
    os.kill(children[0].pid, signal.SIGABRT)
    assert "killed by SIGABRT" in client.until("ended", "orphans").detail
    assert client.status("orphans").signal_name == "SIGABRT"


def test_the_real_kernel(site: Supervised) -> None:
    """What daemons are really started with: adopted after a kill -9, and ended by a shutdown."""
    definition = ScriptDefinition("state = [1, 2, 3]\nprint('loaded')")
    request = replace(site.request("etl"), definition=definition.payload())
    supervisor = site.start(boot=None)
    with site.client() as client:
        client.watch()
        started = client.ask(request)
        assert isinstance(started, control.Started), started
        client.until("ready", "etl")
    supervisor.kill()
    supervisor.wait()
    supervisor = site.start(boot=None)
    with site.client() as client:
        while (status := client.status("etl")).state != "ready":
            assert status.state == "unlinked"
        assert status.pid == started.pid
        assert isinstance(client.ask(control.Shutdown()), control.Done)
    assert supervisor.wait(30) == 0
    wait_gone(started.pid)
    assert "loaded" in site.paths.log_file("etl").read_text()
    assert left_in(site) == []


# --- ending ---------------------------------------------------------------------------------------


def test_shutdown_leaves_nothing(site: Supervised) -> None:
    """A word for each daemon, `Done`, exit code 0, and an empty runtime directory."""
    supervisor = site.start()
    with site.client() as client:
        daemons = [client.start(name) for name in ("a", "b", "c")]
        number = client.send(control.Shutdown())
        said = []
        while not said or isinstance(said[-1], control.Progress):
            envelope = client.receive()
            assert envelope.request_id == number
            said.append(envelope.message)
    assert len(said) == 4
    assert isinstance(said[-1], control.Done)
    assert supervisor.wait(30) == 0
    for daemon in daemons:
        wait_gone(daemon.pid)
    assert left_in(site) == []


def test_ctrl_c_ends_everything(site: Supervised) -> None:
    """In the foreground, with a word for each daemon."""
    supervisor = site.start()
    with site.client() as client:
        daemon = client.start("etl")
        client.status("etl")
    supervisor.send_signal(signal.SIGINT)
    assert "daemon 'etl' ended: shutdown" in site.log_of(supervisor)
    assert supervisor.returncode == 0
    wait_gone(daemon.pid)
    assert left_in(site) == []


def test_a_second_ctrl_c_does_not_wait(site: Supervised) -> None:
    """The daemon that is slow to end is left to itself, and to the next supervisor."""
    supervisor = site.start()
    with site.client() as client:
        client.watch()
        daemon = client.start("stubborn")
        client.until("ready", "stubborn")
        supervisor.send_signal(signal.SIGINT)
        client.until("stopping", "stubborn")
        supervisor.send_signal(signal.SIGINT)
        assert "the daemons run on" in site.log_of(supervisor)
    assert supervisor.returncode == 0
    os.kill(daemon.pid, signal.SIGKILL)


def test_idle_exit(site: Supervised) -> None:
    """With nothing to do it ends by itself and leaves nothing."""
    supervisor = site.start("--idle-exit", "0.1")
    assert "nothing to supervise" in site.log_of(supervisor)
    assert supervisor.returncode == 0
    assert left_in(site) == []


# --- the next supervisor --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_daemons_outlive_a_supervisor(site: Supervised, number: signal.Signals) -> None:
    """However it ends: the next one adopts them, at once, and can end them."""
    supervisor = site.start()
    with site.client() as client:
        client.watch()
        daemon = client.start("etl")
        client.until("ready", "etl")
    supervisor.send_signal(number)
    supervisor.communicate(timeout=30)
    assert supervisor.returncode == (-9 if number == signal.SIGKILL else 0)
    site.start()
    began = time.monotonic()
    with site.client() as client:
        while (status := client.status("etl")).state != "ready":
            assert status.state == "unlinked"
        assert time.monotonic() - began < 1
        assert status.pid == daemon.pid
        assert client.start("etl").existing
        done = client.ask(control.StopDaemon("etl"))
        assert isinstance(done, control.Done)
    wait_gone(daemon.pid)


def test_daemons_are_adopted_without_their_journal(site: Supervised) -> None:
    """They say who they are; the exit of one that nobody here started is seen."""
    supervisor = site.start()
    with site.client() as client:
        client.watch()
        daemon = client.start("etl")
        client.until("ready", "etl")
    supervisor.kill()
    supervisor.communicate()
    site.paths.journal_file("etl").unlink()
    site.start()
    with site.client() as client:
        client.watch()
        while not (listing := client.ask(control.ListDaemons())).daemons:
            pass
        assert listing.daemons[0].pid == daemon.pid
        os.kill(daemon.pid, signal.SIGKILL)
        client.until("ended", "etl")


def test_what_died_meanwhile_is_restarted(site: Supervised) -> None:
    """As its policy says; the socket of the dead one is swept, so are those of strangers."""
    supervisor = site.start()
    with site.client() as client:
        client.watch()
        first = client.start("etl", restart="on-failure")
        client.until("ready", "etl")
    supervisor.kill()
    supervisor.communicate()
    os.kill(first.pid, signal.SIGKILL)
    wait_gone(first.pid)
    stale = site.paths.call_socket("stale")
    unfinished = stale.with_name("etl.soc~")  # was being made anew
    for path in (stale, unfinished):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.bind(str(path))
    site.start()
    assert not stale.exists()
    assert not unfinished.exists()
    with site.client() as client:
        while (status := client.status("etl")).state != "ready":
            pass
        assert status.pid not in (None, first.pid)
        site.pids.append(status.pid or 0)
        client.ask(control.StopDaemon("etl"))


def test_a_start_that_lost_its_supervisor(site: Supervised) -> None:
    """Asked again with the same token, the next supervisor starts no second daemon."""
    supervisor = site.start()
    request = site.request("etl")
    with site.client() as client:
        started = client.ask(request)
        site.pids.append(started.pid)
        supervisor.kill()
        supervisor.communicate()
    site.start()
    with site.client() as client:
        again = client.ask(request)
        assert isinstance(again, control.Started)
        assert (again.pid, again.existing) == (started.pid, False)
        client.ask(control.StopDaemon("etl"))


# --- there is one ---------------------------------------------------------------------------------


def test_of_many_one_serves(site: Supervised) -> None:
    """Started at the same moment; the others say so and are gone."""
    everyone = [site.launch() for _ in range(4)]
    while not site.paths.supervisor_socket.exists():
        pass
    with site.client() as client:
        welcome = client.ask(control.Hello("1"))
    others = [each for each in everyone if each.pid != welcome.pid]
    assert len(others) == 3
    for other in others:
        assert f"(pid {welcome.pid}) serves already" in site.log_of(other)
        assert other.returncode == EXIT_ALREADY_RUNNING
    with site.client() as client:
        assert client.ask(control.Hello("1")) == welcome


# --- the service manager --------------------------------------------------------------------------


def test_the_service_manager_is_told(site: Supervised) -> None:
    """Ready, alive every half of its limit, and ending."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(site.home / "notify"))
        manager.settimeout(30)
        site.environ |= {"NOTIFY_SOCKET": str(site.home / "notify"), "WATCHDOG_USEC": "200000"}
        supervisor = site.start("--service")
        told = iter(lambda: manager.recv(4096).decode(), None)
        assert next(told) == "READY=1\nSTATUS=serving"
        assert [next(told), next(told)] == ["WATCHDOG=1", "WATCHDOG=1"]
        # A loop that turns for nobody is not alive: its socket is not where clients look for it.
        site.paths.supervisor_socket.unlink()
        assert supervisor.stderr is not None
        while "is not our socket any more" not in supervisor.stderr.readline():
            pass
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):  # what was sent before that
            deque(told, maxlen=0)
        manager.settimeout(30)
        while "is not our socket any more" not in supervisor.stderr.readline():
            pass
        supervisor.terminate()
        assert next(told).startswith("STOPPING=1")


def activated(listener: socket.socket) -> list[str]:
    """The command of a supervisor that is given a socket as systemd does."""
    variables = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=control"
    # exec keeps the pid that the shell has put into the variable.
    activate = f'{variables} exec "$0" "$@" 3<&{listener.fileno()}'
    return ["/bin/bash", "-c", activate, sys.executable, "-m", "spawny.supervisor"]


def test_a_socket_of_the_service_manager_is_used(site: Supervised) -> None:
    """It is served, and still there when the supervisor is not."""
    site.paths.runtime.mkdir(mode=0o700, parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site.paths.supervisor_socket))
        listener.listen()
        supervisor = subprocess.Popen(
            activated(listener),
            env=site.environ,
            pass_fds=(listener.fileno(),),
            stderr=subprocess.PIPE,
            text=True,
        )
        site.supervisors.append(supervisor)
        with site.client() as client:
            welcome = client.ask(control.Hello("1"))
            assert isinstance(welcome, control.Welcome)
            assert isinstance(client.ask(control.Shutdown()), control.Done)
        assert supervisor.wait(30) == 0
        assert left_in(site) == ["supervisor.sock"]


def test_a_socket_at_another_place_is_refused(site: Supervised) -> None:
    """Clients would look for it in vain."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site.home / "elsewhere"))
        listener.listen()
        refused = subprocess.run(
            activated(listener),
            env=site.environ,
            pass_fds=(listener.fileno(),),
            capture_output=True,
            text=True,
        )
    assert refused.returncode == 1
    assert "but clients look for" in refused.stderr


# --- what is wrong at the start -------------------------------------------------------------------


def test_a_wrong_configuration_is_named(site: Supervised) -> None:
    """File, line and key, no traceback."""
    site.configure(stop_grace=1)
    supervisor = site.launch()
    log = site.log_of(supervisor)
    assert supervisor.returncode == 1
    assert f"{site.paths.config_file}:2: [supervisor] has no key 'stop_grace'" in log
    assert "Traceback" not in log


def test_an_open_directory_is_refused(site: Supervised) -> None:
    """With the command that mends it."""
    site.paths.runtime.mkdir(parents=True)
    site.paths.runtime.chmod(0o755)
    supervisor = site.launch()
    log = site.log_of(supervisor)
    assert supervisor.returncode == 1
    assert f"chmod 700 {site.paths.runtime}" in log


def test_a_path_that_is_too_long_is_refused(site: Supervised) -> None:
    """Before anything is bound."""
    site.environ["SPAWNY_HOME"] = str(site.home / ("x" * 100))
    supervisor = site.launch()
    assert "set SPAWNY_HOME to a shorter directory" in site.log_of(supervisor)
    assert supervisor.returncode == 1


def test_nobody_waits_for_ready(site: Supervised) -> None:
    """Whoever started it has died: it serves all the same."""
    reader, writer = os.pipe()
    os.close(reader)
    supervisor = site.launch("--ready-fd", str(writer), "--idle-exit", "0.1", pass_fds=(writer,))
    os.close(writer)
    assert "nobody waits" in site.log_of(supervisor)
    assert supervisor.returncode == 0


def test_help_says_what_signals_do(site: Supervised) -> None:
    """Which of them end daemons is nothing to find out by trying."""
    supervisor = subprocess.run(
        [sys.executable, "-m", "spawny.supervisor", "--help"],
        env=site.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    text = " ".join(supervisor.stdout.split())
    assert "Ctrl-C ends every daemon" in text
    assert "SIGTERM and SIGHUP end the supervisor alone" in text
