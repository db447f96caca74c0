"""Where things live, and who else may get there."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawny.errors import InvalidRequest, UnsafePath
from spawny.paths import (
    SOCKET_PATH_LIMIT_BYTES,
    Paths,
    check_name,
    check_private,
    check_socket_path,
    locate,
    make_private,
)


def test_spawny_home_holds_everything(tmp_path: Path) -> None:
    """Sockets, locks, logs, journal and configuration: all under it."""
    paths = locate({"SPAWNY_HOME": str(tmp_path)}, os.getuid())
    every = [
        paths.runtime,
        paths.state,
        paths.cache,
        paths.config,
        paths.supervisor_socket,
        paths.link_socket,
        paths.supervisor_lock,
        paths.start_lock,
        paths.call_socket("x"),
        paths.log_file("x"),
        paths.journal_file("x"),
        paths.supervisor_log,
        paths.config_file,
    ]
    assert all(path.is_relative_to(tmp_path) for path in every)
    assert len(set(every)) == len(every)


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor runs elsewhere and must find the same place."""
    monkeypatch.chdir(tmp_path)
    assert locate({"SPAWNY_HOME": "here"}).runtime == tmp_path / "here" / "run"


def test_without_a_home_the_xdg_places_are_used() -> None:
    """Absolute ones; a relative XDG directory is invalid and ignored."""
    environ = {
        "HOME": "/home/anna",
        "XDG_STATE_HOME": "/state",
        "XDG_CACHE_HOME": "cache",
        "XDG_RUNTIME_DIR": "/elsewhere",
    }
    paths = locate(environ, os.getuid())
    assert paths.state == Path("/state/spawny")
    assert paths.cache == Path("/home/anna/.cache/spawny")
    assert paths.config == Path("/home/anna/.config/spawny")
    assert "elsewhere" not in str(paths.runtime)


@pytest.mark.parametrize(
    ("owner", "runtime"), [(4000, "/run/user/4000/spawny"), (0, "/tmp/spawny-4000")]
)
def test_the_runtime_directory_of_a_login(
    monkeypatch: pytest.MonkeyPatch, owner: int, runtime: str
) -> None:
    """It is taken when it is the user's own: here the system is made to say whose it is."""
    found = os.stat_result((0o40700, 0, 0, 0, owner, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "lstat", lambda path: found if path == "/run/user/4000" else None)
    assert str(locate({"HOME": "/x"}, 4000).runtime) == runtime


def test_the_runtime_directory_of_a_user_without_a_login() -> None:
    """Where /run/user/<uid> is missing there is still one place to meet at."""
    assert locate({"HOME": "/x"}, 4_000_000).runtime == Path("/tmp/spawny-4000000")


def test_a_private_directory_is_made_and_found(tmp_path: Path) -> None:
    """With its parents, 0700 whatever the umask, and the second time it is only checked."""
    before = os.umask(0o022)
    try:
        made = make_private(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o700
    assert make_private(made) == made


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o720])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that mends it; it is not repaired behind the user's back."""
    directory = tmp_path / "d"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(UnsafePath, match=rf"mode {mode:04o}.*chmod 700"):
        make_private(directory)
    assert directory.stat().st_mode & 0o777 == mode


def test_a_symlink_is_refused(tmp_path: Path) -> None:
    """Even to a directory that would do: in /tmp another user may have put it there."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UnsafePath, match="symbolic link"):
        make_private(tmp_path / "link")


def test_a_dangling_symlink_is_refused(tmp_path: Path) -> None:
    """Nothing is created where it points."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UnsafePath, match="symbolic link"):
        make_private(tmp_path / "link")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_is_refused(tmp_path: Path) -> None:
    """It is in the way."""
    (tmp_path / "f").touch(0o600)
    with pytest.raises(UnsafePath, match="not a directory"):
        make_private(tmp_path / "f")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_another_users_directory_is_refused(tmp_path: Path) -> None:
    """Its owner could put anything into it."""
    directory = tmp_path / "d"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, -1)
    with pytest.raises(UnsafePath, match="uid 12345"):
        check_private(directory)


def test_the_longest_socket_path_is_what_the_system_takes(tmp_path: Path) -> None:
    """One byte more fails to bind with an error that names nothing; ours comes first."""
    folder = Path("/tmp")
    fits = folder / ("x" * (SOCKET_PATH_LIMIT_BYTES - len("/tmp/")))
    assert check_socket_path(fits) == fits
    long = fits.with_name(fits.name + "x")
    with pytest.raises(UnsafePath, match=r"108 bytes.*SPAWNY_HOME"):
        check_socket_path(long)
    with socket.socket(socket.AF_UNIX) as probe:
        with pytest.raises(OSError, match="too long"):
            probe.connect(str(long))
        with pytest.raises(FileNotFoundError):
            probe.connect(str(fits))


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True))
def test_a_name_is_a_file_name(name: str) -> None:
    """Every valid name has its socket in the one directory, and a log of its own."""
    paths = Paths(Path("/r"), Path("/s"), Path("/c"), Path("/k"))
    assert check_name(name) == name
    assert paths.call_socket(name).parent == paths.daemons
    assert paths.log_file(name) != paths.supervisor_log


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "-x", "_supervisor", "a b", "ä", "a\n", "a\0", "x" * 65]
)
def test_other_names_are_refused(name: str) -> None:
    """Paths, options, and what a terminal cannot show."""
    with pytest.raises(InvalidRequest):
        check_name(name)


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    """The error names it."""
    (tmp_path / "home").touch()
    with pytest.raises(UnsafePath, match="home is not a directory"):
        make_private(tmp_path / "home" / "run")
