"""Nobody but the user reaches a daemon or the supervisor."""

import os
import stat
from pathlib import Path

import pytest

import spawny
from spawny.paths import locate

NOBODY = 65534

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")


def as_nobody(attempt: str, home: Path) -> str:
    """What becomes of `attempt`, Python code, when another user of the machine runs it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            import socket

            try:
                exec(attempt, {"socket": socket, "home": home, "os": os})
                result = "reached"
            except Exception as error:
                result = type(error).__name__
            os.write(write, result.encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    result = os.read(read, 1000).decode()
    os.close(read)
    return result


@needs_root
def test_another_user_reaches_no_socket(home: Path) -> None:
    """Neither the daemon's, nor the supervisor's, nor the link's: the directory is closed."""
    module = spawny.run_script("x = 1", name="private")
    paths = locate()
    sockets = [paths.call_socket("private"), paths.supervisor_socket, paths.link_socket]
    for path in sockets:
        connect = f"socket.socket(socket.AF_UNIX).connect({str(path)!r})"
        assert as_nobody(connect, home) == "PermissionError"
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    module.terminate_daemon()


@needs_root
def test_another_user_who_gets_through_is_turned_away(home: Path) -> None:
    """With every directory and socket thrown open, the kernel of the system still tells who
    connects, and nothing is answered."""
    module = spawny.run_script("x = 1", name="private")
    paths = locate()
    for directory in (home, paths.runtime, paths.daemons):
        directory.chmod(0o755)
    for path in (paths.call_socket("private"), paths.link_socket, paths.supervisor_socket):
        path.chmod(0o666)
        ask = (
            f"s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r})\n"
            "s.sendall(bytes(12)); got = s.recv(100)\n"
            "assert not got, got; raise EOFError"
        )
        assert as_nobody(ask, home) in ("EOFError", "ConnectionResetError", "BrokenPipeError")
    for directory in (home, paths.runtime, paths.daemons):
        directory.chmod(0o700)
    assert module.x == 1
    module.terminate_daemon()


def test_files_are_private(home: Path) -> None:
    """Directories 0700; the log, the journal and the sockets 0600."""
    module = spawny.run_script("print('secret')", name="private")
    for path in home.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"
    module.terminate_daemon()


@pytest.mark.parametrize("fault", ["symlink", "mode", "file"])
def test_unsafe_runtime_directory_is_refused(home: Path, tmp_path: Path, fault: str) -> None:
    """A runtime directory that another could have prepared is refused, and the error says why."""
    runtime = locate().runtime
    if fault == "symlink":
        tmp_path.chmod(0o700)
        runtime.symlink_to(tmp_path)
    elif fault == "mode":
        runtime.mkdir(mode=0o755)
        runtime.chmod(0o755)
    else:
        runtime.touch(mode=0o600)
    reason = {"symlink": "symbolic link", "mode": "chmod 700", "file": "not a directory"}[fault]
    with pytest.raises(spawny.UnsafePath, match=reason):
        spawny.run_script("x = 1")
    with pytest.raises(spawny.UnsafePath, match=reason):
        spawny.attach("any")


@needs_root
def test_runtime_directory_of_another_user_is_refused(home: Path) -> None:
    """In /tmp, somebody else may have made it first."""
    runtime = locate().runtime
    runtime.mkdir(mode=0o700)
    os.chown(runtime, NOBODY, NOBODY)
    with pytest.raises(spawny.UnsafePath, match="uid 65534"):
        spawny.run_script("x = 1")


def test_too_long_a_home_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is bound, in words."""
    monkeypatch.setenv("SPAWNY_HOME", str(home / ("x" * 100)))
    with pytest.raises(spawny.UnsafePath, match="at most 107"):
        spawny.run_script("x = 1")
