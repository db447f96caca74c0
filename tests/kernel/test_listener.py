"""Sockets that only their user can reach."""

import errno
import os
import socket
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spawny.kernel import listener, wire


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "etl.sock"


def refuse(*_: Any) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.skipif(sys.platform != "linux", reason="a socket has no mode of its own elsewhere")
def test_a_socket_is_private_from_its_first_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when bound() returns: whoever looks in between sees the same, whatever the umask."""
    seen = []

    def chmod(where: str, mode: int) -> None:
        seen.append(stat.S_IMODE(os.stat(where).st_mode))

    monkeypatch.setattr(os, "chmod", chmod)
    before = os.umask(0)
    try:
        listener.bound(str(path)).close()
    finally:
        assert os.umask(before) == 0
    assert seen == [0o600]


def test_a_socket_is_private_where_its_mode_cannot_be_set_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS: as soon as it is bound."""

    monkeypatch.setattr(os, "fchmod", refuse)
    listener.bound(str(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_cannot_be_bound_leaves_nothing_open(tmp_path: Path) -> None:
    """A daemon tries again with every ping, while its directory is gone."""
    descriptors = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            listener.bound(str(tmp_path / "gone" / "etl.sock"))
    assert len(os.listdir("/dev/fd")) == descriptors


def knock(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as knocker:
        knocker.connect(path)


@pytest.mark.parametrize("how", ["link", "rename"])
def test_one_that_is_made_anew_is_found_once_it_listens(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nobody is turned away in between, and nothing else is left there. Not every system links
    sockets."""
    listening = listener.Listener(str(path))
    path.unlink()
    assert listening.has_vanished()
    moved = []
    real = getattr(os, how)

    def watched(aside: str, there: str) -> None:
        assert not path.exists()
        knock(aside)
        real(aside, there)
        moved.append(there)

    monkeypatch.setattr(os, how, watched)
    if how == "rename":
        monkeypatch.setattr(os, "link", refuse)
    listening.renew()
    assert moved == [str(path)]
    assert os.listdir(path.parent) == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    knock(str(path))
    assert not listening.has_vanished()
    listening.unlink()
    listening.close()
    assert not path.exists()


def test_one_that_cannot_be_made_anew_is_as_it_was(tmp_path: Path) -> None:
    """As while its directory is gone; the next try succeeds, whatever the one before has left."""
    path = tmp_path / "d" / "etl.sock"
    path.parent.mkdir()
    listening = listener.Listener(str(path))
    path.parent.rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        listening.renew()
    knock(str(tmp_path / "gone" / "etl.sock"))
    path.parent.mkdir()
    (path.parent / "etl.soc~").touch()
    listening.renew()
    knock(str(path))
    assert os.listdir(path.parent) == [path.name]
    listening.close()


def test_another_daemon_that_has_come_meanwhile_keeps_the_path(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path has its name, and so belongs to the one that came last."""
    listening = listener.Listener(str(path))
    path.unlink()
    link = os.link

    def late(aside: str, there: str) -> None:
        path.touch()
        link(aside, there)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(FileExistsError):
        listening.renew()
    listening.unlink()
    assert os.listdir(path.parent) == [path.name]
    assert path.is_file()
    listening.close()


def test_a_daemon_waits_for_another_that_serves_at_its_path(path: Path) -> None:
    """It has the other one tell the supervisor of itself, which may end either; then it serves."""
    other = listener.Listener(str(path))
    with ThreadPoolExecutor(1) as thread:
        own = thread.submit(listener.Listener, str(path))
        with other.accept() as watch, other.accept() as poker:
            assert poker.recv(100) == wire.frame(wire.POKE)
            assert poker.recv(100) == b""
            assert not own.done()
            other.unlink()
            other.close()
            watch.close()
        listening = own.result()
    knock(str(path))
    listening.close()


def test_a_daemon_does_not_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says why it ends, and leaves the other one alone."""
    other = listener.Listener(str(path))
    monkeypatch.setattr(listener, "OTHER_SECONDS", 0.0)
    with pytest.raises(SystemExit, match="another daemon serves"):
        listener.Listener(str(path))
    knock(str(path))
    other.close()
