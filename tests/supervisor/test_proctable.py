"""What the operating system says of processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from spawny.supervisor import proctable
from spawny.supervisor.values import Identity

# A process with a child in its session, and one in a session of its own; says their pids.
FAMILY = """
import subprocess, sys
child = [sys.executable, "-c", "import sys; sys.stdin.read()"]
one = subprocess.Popen(child)
two = subprocess.Popen(child, start_new_session=True)
print(one.pid, two.pid, flush=True)
sys.stdin.read()
"""


class Family:
    def __init__(self) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-c", FAMILY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "SPAWNY_DAEMON": "etl:1"},
        )
        assert self.parent.stdout is not None
        self.same_session, self.other_session = map(int, self.parent.stdout.readline().split())

    def identity(self) -> Identity:
        return known(self.parent.pid)


def known(pid: int) -> Identity:
    identity = proctable.identify(pid)
    assert identity is not None
    return identity


@pytest.fixture(params=["proc", "psutil"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read the process table; the facts are the same."""
    if request.param == "psutil":
        monkeypatch.setattr(proctable, "_HAS_PROC", False)
    elif not proctable._HAS_PROC:
        pytest.skip("this system has no /proc")
    way: str = request.param
    return way


@pytest.fixture
def family() -> Iterator[Family]:
    """They all end when the pipe does."""
    family = Family()
    yield family
    family.parent.communicate()


def test_a_process_is_found_by_its_pid(way: str) -> None:
    """Parent and session are those that it knows itself."""
    process = proctable.read(os.getpid())
    assert process is not None
    assert (process.ppid, process.session) == (os.getppid(), os.getsid(0))
    assert not process.is_zombie


def test_an_identity_is_stable_and_one_process_only(way: str, family: Family) -> None:
    """The same at every look, another one for another process; alive until it is not."""
    mine = known(os.getpid())
    assert mine == known(os.getpid())
    assert family.identity() != mine
    assert proctable.is_alive(mine)
    assert not proctable.is_alive(replace(mine, start_ticks=mine.start_ticks + 1))
    assert not proctable.is_alive(replace(mine, boot_id="another boot"))


def test_a_zombie_is_not_alive(way: str) -> None:
    """It still has its pid, so that its identity can be told; nothing of it runs."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = known(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    process = proctable.read(child.pid)
    assert process is not None
    assert process.identity == identity
    assert process.is_zombie
    assert not proctable.is_alive(identity)
    child.wait()
    assert proctable.identify(child.pid) is None


def test_a_command_may_be_named_like_the_table_itself(tmp_path) -> None:
    """Linux puts the name in parentheses between the fields, and a name may hold anything."""
    odd = tmp_path / "a) R 1 ("
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(odd), "60"])
    process = proctable.read(child.pid)
    child.kill()
    child.wait()
    assert process is not None
    assert process.ppid == os.getpid()


def test_a_family_is_found_through_every_generation(way: str, family: Family) -> None:
    """Also those in sessions of their own."""
    found = {each.pid for each in proctable.family(family.identity(), "etl:1")}
    assert found == {family.same_session, family.other_session}


def test_who_is_spared_is_not_looked_at(way: str, family: Family) -> None:
    """Another daemon, though its mark would be the same."""
    spared = {known(family.other_session)}
    found = {each.pid for each in proctable.family(family.identity(), "etl:1", spared)}
    assert found == {family.same_session}


def test_who_has_the_mark_of_another_daemon_is_no_family(way: str, family: Family) -> None:
    """Nor is what came out of it, though all of them came out of this process."""
    assert proctable.family(known(os.getpid()), "other:1") == []
    assert family.parent.poll() is None


def test_a_session_outlives_its_leader(way: str, family: Family) -> None:
    """That is when it has to be swept; who has left it is found by the mark alone."""
    leader = family.identity()
    family.parent.kill()
    family.parent.wait()
    found = {each.pid for each in proctable.family(leader, "etl:1")}
    assert found == {family.same_session, family.other_session}
    assert proctable.family(leader, "etl:12") == []


def test_a_pid_that_was_given_out_again_leads_another_session(way: str, family: Family) -> None:
    """Whoever is in it is none of ours, nor its children."""
    leader = family.identity()
    earlier = replace(leader, start_ticks=leader.start_ticks - 1)
    assert proctable.family(earlier, "other:1") == []
    assert proctable.group_members(earlier) == []


def test_a_group_is_its_leader_and_who_has_stayed(way: str, family: Family) -> None:
    """As the system would signal it."""
    found = {each.pid for each in proctable.group_members(family.identity())}
    assert found == {family.parent.pid, family.same_session}


@pytest.mark.skipif(not proctable._HAS_PROC, reason="looks at /proc")
def test_a_process_lives_on_when_its_main_thread_has_ended() -> None:
    """Linux shows it as a zombie, which it is not."""
    script = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print(flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1) as child:
        assert child.stdin and child.stdout
        child.stdout.readline()
        identity = known(child.pid)
        with open(f"/proc/{child.pid}/stat", "rb") as stat:
            while b") Z " not in stat.read():
                stat.seek(0)
        assert proctable.is_alive(identity)
        child.stdin.close()


def test_what_a_process_does(way: str, family: Family) -> None:
    """Stopped or not; of one that is gone, or whose pid is another's, nothing is said."""
    identity = family.identity()
    assert proctable.state(identity) == "other"
    os.kill(identity.pid, signal.SIGSTOP)
    while proctable.state(identity) != "stopped":
        pass
    assert proctable.state(replace(identity, start_ticks=1)) is None
    family.parent.kill()
    family.parent.wait()
    assert proctable.state(identity) is None


def test_age(way: str, family: Family) -> None:
    """Counted from the start of the process."""
    assert 0 <= proctable.age_seconds(family.identity()) < 60
    assert proctable.age_seconds(known(1)) > proctable.age_seconds(family.identity())


def test_the_boot_is_told_apart_somehow_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux names it; elsewhere its time has to do."""
    assert proctable.boot_id() == proctable.boot_id()

    def no_file(self, **how):
        raise FileNotFoundError

    monkeypatch.setattr(proctable.Path, "read_text", no_file)
    assert int(proctable.boot_id.__wrapped__()) > 0
