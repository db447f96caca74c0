"""Zygotes as the supervisor's edge has them: real processes, and those that say nonsense."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spawny import control
from spawny.paths import Paths
from spawny.supervisor import interpreters, zygotes
from spawny.supervisor.events import (
    ChildSpawned,
    Event,
    ForkRefused,
    ProcessExited,
    SessionSwept,
    ZygoteGone,
    ZygoteReady,
)
from spawny.supervisor.processes import Processes
from spawny.supervisor.watch import Watch
from spawny.supervisor.zygotes import Zygotes, adopt_orphans

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="zygotes need Linux")

# In place of the kernel: what a zygote does is told by the first module that it is to preload.
BOOT = """
import json, os, socket, sys, time
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, int(sys.argv[3]))
def say(**fields):
    sock.send(json.dumps(fields).encode())
word = json.loads(sock.recv(65536))["preload"][0]
if word == "dies":
    os._exit(9)
if word == "babbles":
    sock.send(b"[]")
if word == "imports":
    time.sleep(600)
say(type="ready", seconds=0.5)
if word == "leaves":
    sock.recv(65536)
    os._exit(0)
if word == "answers once":
    number = json.loads(sock.recv(65536))["id"]
    reader, writer = os.pipe()
    time.sleep(0.2)
    child = os.fork()
    if child:
        os.read(reader, 1)
        say(type="forked", id=number, pid=child)
        os._exit(0)
    sock.close()
    os.write(writer, b"!")
    time.sleep(600)
if word == "stops":
    sock.recv(65536)
    time.sleep(600)
while True:
    data = sock.recv(65536)
    if not data:
        os._exit(0)
    number = json.loads(data)["id"]
    if word == "refuses":
        say(type="refused", id=number, reason="no", is_stale=True)
        continue
    pid = os.fork()
    if pid == 0:
        child = os.fork()
        if child == 0:
            sock.close()
            time.sleep(0 if word == "ends" else 600)
            os._exit(7)
        say(type="forked", id=number, pid=child)
        os._exit(0)
    os.waitpid(pid, 0)
"""


class Site:
    """The edge, and the loop around it."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root, root, root, root)
        self.paths.logs.mkdir()
        boot = root / "boot.py"
        boot.write_text(BOOT)
        (root / "zygote.py").write_text("")
        self.watch = Watch()
        self.processes = Processes(self.paths, self.watch, str(boot))
        self.zygotes = Zygotes(self.paths, self.watch, self.processes)
        self.interpreter = interpreters.describe(sys.executable)

    def request(self, word: str, name: str = "a", **changes: Any) -> control.StartDaemon:
        base = control.StartDaemon(
            name=name,
            token="token",
            digest="d",
            summary="",
            python=sys.executable,
            python_is_default=True,
            caller_python=sys.executable,
            environ={},
            cwd="/",
            sys_path=[],
            preload=[word],
        )
        return replace(base, **changes)

    def start(self, word: str) -> list[Event]:
        return self.zygotes.start(1, self.request(word), self.interpreter)

    def fork(self, word: str, name: str = "a", **changes: Any) -> list[Event]:
        return self.zygotes.fork(1, self.request(word, name, **changes), self.interpreter)

    def exited(self) -> list[ProcessExited | SessionSwept]:
        return self.processes.exited(self.watch.ready())

    def until(self, kind: type[Event]) -> list[Event]:
        """What is said until there is one of these."""
        found: list[Event] = []
        while not any(isinstance(each, kind) for each in found):
            assert select.select([self.watch], [], [], 30)[0], found
            found += self.zygotes.advance()
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.zygotes.close()
    while site.processes._watched:
        for identity in list(site.processes._watched):
            site.processes.signal(identity, "SIGKILL", "")
        site.exited()
    site.watch.close()
    adopt_orphans(False)  # other tests reap none


def test_a_daemon_that_is_asked_for_early_is_forked_when_the_zygote_is_ready(site: Site) -> None:
    """It is watched, as a child of ours."""
    assert site.start("forks") == []
    assert site.fork("forks") == []
    ready, spawned = site.until(ChildSpawned)
    assert isinstance(ready, ZygoteReady)
    assert isinstance(spawned, ChildSpawned)
    assert (ready.number, ready.seconds) == (1, 0.5)
    assert (spawned.name, spawned.mark, spawned.zygote) == ("a", "a:token", 1)
    assert spawned.identity in site.processes._watched
    assert site.zygotes.memory_bytes(1) > 1_000_000
    assert site.zygotes.memory_bytes(2) == 0


def test_the_exit_code_of_a_forked_daemon_is_told(site: Site) -> None:
    """However soon it ends: nobody else reaps it."""
    site.start("ends")
    for number in range(20):
        site.fork("ends", f"d{number}")
        site.exited()
    codes = []
    while len(codes) < 20:
        list(site.zygotes.advance())
        codes += [getattr(each, "exit_code", None) for each in site.exited()]
        os.sched_yield()
    assert codes == [7] * 20


def test_a_refusal_is_passed_on(site: Site) -> None:
    """With the word that the zygote is of no more use."""
    site.start("refuses")
    site.fork("refuses")
    assert site.until(ForkRefused)[-1] == ForkRefused("a", 1, "no", is_stale=True)


@pytest.mark.parametrize("word", ["dies", "babbles", "leaves"])
def test_what_was_asked_of_one_that_ends_is_refused(site: Site, word: str) -> None:
    """After the core has heard that it is gone, so that it is not asked again."""
    site.start(word)
    site.fork(word)
    *_, gone, refused = site.until(ForkRefused)
    assert isinstance(gone, ZygoteGone)
    assert isinstance(refused, ForkRefused)
    assert not gone.is_unfit
    assert refused.reason == gone.reason
    assert not site.zygotes._zygotes
    (late,) = site.fork(word)
    assert isinstance(late, ForkRefused)


def test_an_answer_is_heard_though_a_later_request_was_never_read(site: Site) -> None:
    """The system tells of what was not read before it gives what was said."""
    site.start("answers once")
    site.until(ZygoteReady)
    site.fork("answers once", "a")
    site.fork("answers once", "b")
    pid = next(iter(site.zygotes._zygotes.values())).child.pid
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    *_, spawned, gone, refused = site.until(ForkRefused)
    assert isinstance(spawned, ChildSpawned)
    assert isinstance(gone, ZygoteGone)
    assert (spawned.name, getattr(refused, "name", None)) == ("a", "b")


def test_one_that_does_not_answer_is_killed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only then what it was asked is refused: there are never two processes."""
    monkeypatch.setattr(zygotes, "FORK_SECONDS", 0.05)
    site.start("stops")
    site.fork("stops")
    found = site.until(ZygoteReady)
    while not any(isinstance(each, ForkRefused) for each in found):
        assert site.zygotes.deadline is not None
        select.select([site.watch], [], [], 0.05)
        found += site.zygotes.advance()
    assert [type(each) for each in found] == [ZygoteReady, ZygoteGone, ForkRefused]
    assert "did not answer" in getattr(found[1], "reason", "")


def test_a_daemon_does_not_wait_for_ever_for_its_zygote(site: Site) -> None:
    """It is started plainly, and the zygote goes on."""
    site.start("imports")
    site.fork("imports", start_timeout=0.1)
    found: list[Event] = []
    while not found:
        select.select([site.watch], [], [], 0.05)
        found += site.zygotes.advance()
    assert found == [ForkRefused("a", 1, "it was not ready in time")]
    assert len(site.zygotes._zygotes) == 1


def test_one_that_imports_for_ever_is_killed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon would not come of it either."""
    monkeypatch.setattr(zygotes, "PREPARE_SECONDS", 0.1)
    site.start("imports")
    found: list[Event] = []
    while not found:
        select.select([site.watch], [], [], 0.05)
        found += site.zygotes.advance()
    (gone,) = found
    assert isinstance(gone, ZygoteGone)
    assert gone.reason == "it was not ready within 0.1 s"


def test_a_disowned_daemon_is_killed(site: Site) -> None:
    """It was started in another way meanwhile."""
    site.start("forks")
    site.until(ZygoteReady)
    site.fork("forks")
    site.zygotes.disown("a")
    site.fork("forks", "b")
    found = site.until(ChildSpawned)
    assert [getattr(each, "name", None) for each in found] == ["b"]
    # Only what is not asked for any more may be reaped unseen.
    while True:
        site.exited()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if len(children) == 2:  # the zygote and b
            break
        os.sched_yield()


def test_what_was_not_sent_yet_is_withdrawn(site: Site) -> None:
    """By its name, or with the zygote."""
    site.start("imports")
    site.fork("imports", "a")
    site.fork("imports", "b")
    site.zygotes.disown("a")
    assert site.zygotes.end(1) == [ForkRefused("b", 1, "it was ended")]
    assert isinstance(site.until(ZygoteGone)[-1], ZygoteGone)
    assert site.zygotes.end(1) == []


def test_one_that_is_ended_does_what_it_was_asked_for(site: Site) -> None:
    """A request that was sent is answered."""
    site.start("forks")
    site.until(ZygoteReady)
    site.fork("forks")
    site.zygotes.end(1)
    spawned, gone = site.until(ZygoteGone)
    assert isinstance(spawned, ChildSpawned)
    assert isinstance(gone, ZygoteGone)


def test_an_environment_that_is_too_large_is_refused(site: Site) -> None:
    """A message must go as a whole."""
    site.start("forks")
    (refused,) = site.fork("forks", environ={"X": "x" * 100_000})
    assert isinstance(refused, ForkRefused)


@pytest.mark.parametrize("environ", [{"X": "a\0b"}, {"X": "\ud800"}, {"A=B": "x"}, {"": "x"}])
def test_an_environment_that_no_process_can_have_is_refused(
    site: Site, environ: dict[str, str]
) -> None:
    """The plain start that follows says so to the user."""
    site.start("forks")
    (refused,) = site.fork("forks", environ=environ)
    assert isinstance(refused, ForkRefused)
    assert "unusable" in refused.reason


def test_an_old_kernel_has_no_zygote(site: Site) -> None:
    """It is known by its files."""
    os.unlink(site.paths.runtime / "zygote.py")
    (gone,) = site.start("forks")
    assert gone == ZygoteGone(1, "its kernel is too old to be forked", is_unfit=True)


def test_an_interpreter_that_cannot_be_executed_is_told(site: Site) -> None:
    """The plain start says so, too."""
    nothing = interpreters.describe("/nonexistent/python")
    (gone,) = site.zygotes.start(1, site.request("forks"), nothing)
    assert isinstance(gone, ZygoteGone)
    assert "could not be executed" in gone.reason


def test_a_killed_zygote_takes_nothing_with_it(site: Site) -> None:
    """What it has forked lives on."""
    site.start("forks")
    site.fork("forks")
    spawned = site.until(ChildSpawned)[-1]
    assert isinstance(spawned, ChildSpawned)
    ready_pid = next(iter(site.zygotes._zygotes.values())).child.pid
    os.kill(ready_pid, signal.SIGKILL)
    assert getattr(site.until(ZygoteGone)[-1], "reason", "") == "it ended with exit code -9"
    assert site.exited() == []
