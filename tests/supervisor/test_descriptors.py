"""A supervisor that may open nothing more, and one that need not fear it."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from spawny import control
from spawny.supervisor import descriptors, links, proctable
from spawny.supervisor.links import Links
from spawny.supervisor.watch import Watch
from tests.supervisor.site import Client, Supervised, wait_gone

pytestmark = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="nobody else's limits can be changed here"
)


@pytest.fixture
def site(home: Path) -> Iterator[Supervised]:
    site = Supervised(home)
    yield site
    site.close()


@contextmanager
def exhausted(pid: int = 0) -> Iterator[None]:
    """This process has no descriptor above those that it has, and above those that come and go."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(f"/proc/{pid or 'self'}/fd")))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def nothing_to_open() -> Iterator[None]:
    """This process can open nothing whatever."""
    next_one = os.dup(0)
    os.close(next_one)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def listed(client: Client) -> dict[str, int | None]:
    listing = client.ask(control.ListDaemons())
    assert isinstance(listing, control.Listing)
    return {each.name: each.pid for each in listing.daemons}


def test_a_supervisor_without_descriptors_loses_no_daemon(site: Supervised) -> None:
    """It answers, new clients too, says why it starts nothing, sees who ends, and takes no daemon
    for dead, neither its own nor an adopted one; with descriptors all is as before."""
    site.configure(health_interval_seconds=0.05)
    before = site.start()
    with site.client() as client:
        adopted = client.start("adopted").pid
    before.kill()
    before.wait()
    supervisor = site.start()
    with site.client() as client:
        own, dying = client.start("own").pid, client.start("dying").pid
        client.watch()
        while client.status("adopted").state != "ready":
            pass
        with exhausted(supervisor.pid):
            refused = client.ask(site.request("another"))
            assert isinstance(refused, control.Refused)
            assert "no file descriptors left" in refused.message
            for _ in range(20):
                with site.client() as other:
                    running = listed(other)
            assert {**running, "dying": dying} == {"adopted": adopted, "own": own, "dying": dying}
            os.kill(dying, signal.SIGKILL)
            client.until("ended", "dying")
            assert listed(client) == {"adopted": adopted, "own": own}
        client.start("another")
        assert listed(client).keys() == {"adopted", "own", "another"}
        for name in ("adopted", "own", "another"):
            assert isinstance(client.ask(control.StopDaemon(name)), control.Done)
    for pid in (adopted, own):
        wait_gone(pid)


def test_knocking_at_a_supervisor_without_descriptors_costs_it_no_time(site: Supervised) -> None:
    """Daemons that want to link up are turned away, which is no reason to spin."""
    supervisor = site.start()
    pidfd = os.pidfd_open(supervisor.pid)
    with site.client() as client:
        client.start("etl")
        with exhausted(supervisor.pid):
            knocking = [socket.socket(socket.AF_UNIX) for _ in range(20)]
            before = sum(psutil.Process(supervisor.pid).cpu_times()[:2])
            for each in knocking:
                each.connect(str(site.paths.link_socket))
            # It does not end of it within two seconds; meanwhile it has better things to do.
            assert select.select([pidfd], [], [], 2.0)[0] == []
            assert sum(psutil.Process(supervisor.pid).cpu_times()[:2]) - before < 0.5
            assert client.status("etl").state == "ready"
            for each in knocking:
                each.close()
        client.start("another")
        client.ask(control.Shutdown())
    os.close(pidfd)


def test_daemons_have_the_limit_that_the_supervisor_was_started_with(site: Supervised) -> None:
    """It raises its own as far as it may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    supervisor = site.start(within=["sh", "-c", 'ulimit -S -n 200; exec "$@"', "sh"])
    assert resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    with site.client() as client:
        daemon = client.start("etl")
        assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (200, hard)
        client.ask(control.Shutdown())


def test_what_stays_leaves_the_low_numbers_free() -> None:
    """A descriptor is moved above them, once."""
    kept = descriptors.put_away(os.dup(0))
    try:
        assert kept >= descriptors._first_lasting() > 3
        assert descriptors.put_away(kept) == kept
    finally:
        os.close(kept)


def test_a_descriptor_that_cannot_be_put_away_is_closed() -> None:
    """Whoever had it gets the error."""
    next_one = os.dup(0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one + 1, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            descriptors.put_away(next_one)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(next_one)


def test_a_process_that_cannot_be_looked_at_is_not_gone() -> None:
    """Without a descriptor nothing is known of it; one that has ended is still found to have."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        identity = proctable.identify(child.pid)
        assert identity is not None
        with nothing_to_open():
            assert proctable.is_alive(identity)
            with pytest.raises(OSError, match="Too many open files"):
                proctable.identify(child.pid)
        child.kill()
    assert not proctable.is_alive(identity)


def test_a_link_that_cannot_be_accepted_is_not_tried_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listening socket is not watched for a while; then the daemon is let in."""
    watch = Watch()
    home = Links(tmp_path / "link.sock", watch)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.connect(str(tmp_path / "link.sock"))
        with nothing_to_open():
            home.advance(home.listener.fileno(), is_writable=False)
            assert home.listener.fileno() not in watch
            assert home.accepts_again_at is not None
        monkeypatch.setattr(links, "ACCEPT_AGAIN_SECONDS", 0.0)
        with nothing_to_open():
            home.advance(home.listener.fileno(), is_writable=False)
        home.accept_again()
        assert home.listener.fileno() in watch
        home.advance(home.listener.fileno(), is_writable=False)
        assert len(home._connections) == 1
    home.close_all()
    watch.close()
