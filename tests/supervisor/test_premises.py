"""What a supervisor has made, as cleaners and people find it."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from spawny.paths import Paths, make_private
from spawny.supervisor import premises, singleton
from spawny.supervisor.events import FilesLookedAt
from spawny.supervisor.journal import Journal
from spawny.supervisor.links import Links
from spawny.supervisor.premises import Premises
from spawny.supervisor.sockets import ControlSocket, listen
from spawny.supervisor.watch import Watch


@pytest.fixture
def paths(home: Path) -> Paths:
    paths = Paths(home / "run", home / "state", home / "cache", home / "config")
    for each in (paths.runtime, paths.daemons, paths.journal, paths.state, paths.logs):
        make_private(each)
    return paths


@pytest.fixture
def place(paths: Paths) -> Iterator[Premises]:
    with singleton.hold(paths.supervisor_lock, paths.link_socket) as lock_fd:
        clients = ControlSocket(listen(paths.supervisor_socket), paths.supervisor_socket)
        daemons = Links(paths.link_socket, Watch())
        place = Premises(
            paths, lock_fd, clients, daemons, Journal(paths.journal), owns_socket=False
        )
        yield place
        place.remove()
        daemons.close_all()
        clients.close()


def test_nothing_is_said_of_what_is_there(place: Premises) -> None:
    """However often it is looked at."""
    assert place.look() == place.look() == []


def test_a_cleaner_finds_the_directory_locked(paths: Paths, place: Premises) -> None:
    """systemd-tmpfiles takes such a lock, and goes into no directory where it does not get it."""
    fd = os.open(paths.runtime, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    place.remove()
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_files_look_new_to_cleaners(
    paths: Paths, place: Premises, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if just read; call sockets, too, of daemons that nobody has asked for days."""
    socket = paths.call_socket("etl")
    socket.touch()
    monkeypatch.setattr(premises, "TOUCH_SECONDS", 0.0)
    for path in (paths.runtime, paths.link_socket, socket):
        os.utime(path, (0, 0))
        place.look()
        assert path.stat().st_atime > 0 == path.stat().st_mtime


def test_a_directory_that_is_somebody_elses_now_is_not_used(paths: Paths, place: Premises) -> None:
    """It is told, tried again, and made when the other is gone; all else is made meanwhile."""
    paths.link_socket.unlink()
    paths.logs.rmdir()
    paths.logs.symlink_to("/tmp")
    for mended in [(str(paths.link_socket),), ()]:
        (event,) = place.look()
        assert event.mended == mended
        assert event.problem is not None
        assert "is a symbolic link" in event.problem
    paths.logs.unlink()
    assert place.look() == [FilesLookedAt((str(paths.logs),), False)]
    assert place.look() == []


def test_the_service_managers_socket_is_left_to_it(paths: Paths, place: Premises) -> None:
    """Unless it had vanished: the one that was made in its place is ours."""
    place.remove()
    assert paths.supervisor_socket.exists()
    assert not paths.link_socket.exists()
    paths.supervisor_socket.unlink()
    place.look()
    assert paths.supervisor_socket.exists()
    place.remove()
    assert not paths.supervisor_socket.exists()
