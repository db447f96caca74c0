"""Where a daemon is: a socket whose path follows from its name, in a directory of its user's own.

The one rule: a directory is used only when it is a real directory (no symlink), ours, and closed to
group and others. Anything else is refused with the command that mends it, never repaired silently:
in /tmp another user may have put it there first.

This file is all that attaching needs to know of the file system. It is loaded by every script, so
it has neither pathlib nor dataclasses, which would cost as much as the whole attachment.
"""

from __future__ import annotations

import os
import re
import stat

from .errors import InvalidRequest, UnsafePath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    PathType = TypeVar("PathType", str, os.PathLike[str])

# sun_path holds 108 bytes on Linux with its closing NUL (104 on macOS); bind() past that fails with
# a bare OSError that names nothing.
SOCKET_PATH_LIMIT_BYTES = 107

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

# NAME:TOKEN in the environment of a daemon and of all that comes out of it, so that the supervisor
# finds what a daemon has left. Daemons and supervisors that are started from there do not have it.
DAEMON_VARIABLE = "SPAWNY_DAEMON"


def runtime_directory(environ: Mapping[str, str] | None = None, uid: int | None = None) -> str:
    """The directory of sockets, locks and the journal, for this user; nothing is touched."""
    environ = os.environ if environ is None else environ
    uid = os.getuid() if uid is None else uid
    if home := environ.get("SPAWNY_HOME"):
        return os.path.join(os.path.abspath(home), "run")
    # XDG_RUNTIME_DIR is deliberately not consulted: a cron job, an ssh session and a desktop
    # terminal of one user must meet at one address, and only some of them have it set.
    login = f"/run/user/{uid}"
    try:
        if os.lstat(login).st_uid == uid:
            return os.path.join(login, "spawny")
    except OSError:
        pass
    return f"/tmp/spawny-{uid}"


def call_socket(runtime: str, name: str) -> str:
    """The address of the daemon of this name, checked to be ours alone.

    Raises `InvalidRequest` for what is no name, `UnsafePath` where the runtime directory is open to
    others or the path too long for a socket.
    """
    path = check_socket_path(os.path.join(runtime, "d", f"{check_name(name)}.sock"))
    if os.path.lexists(runtime):
        check_private(runtime)
    return path


def check_private(directory: str | os.PathLike[str]) -> None:
    """Raise `UnsafePath` unless `directory` is a real directory, ours, and 0700 or stricter."""
    found = os.lstat(directory)
    if stat.S_ISLNK(found.st_mode):
        fault, remedy = "is a symbolic link", "remove it"
    elif not stat.S_ISDIR(found.st_mode):
        fault, remedy = "is not a directory", "remove it"
    elif found.st_uid != os.getuid():
        fault, remedy = f"belongs to uid {found.st_uid}, not to you", "set SPAWNY_HOME elsewhere"
    elif found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        fault, remedy = f"is open to other users (mode {mode:04o})", f"run: chmod 700 {directory}"
    else:
        return
    raise UnsafePath(f"refusing to use {directory}: it {fault}; {remedy}")


def check_socket_path(path: PathType) -> PathType:
    """Raise `UnsafePath` when `path` is too long for a unix socket."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_LIMIT_BYTES:
        raise UnsafePath(
            f"{path} has {length} bytes, a unix socket's path at most {SOCKET_PATH_LIMIT_BYTES};"
            " set SPAWNY_HOME to a shorter directory"
        )
    return path


def check_name(name: str) -> str:
    """Raise `InvalidRequest` unless `name` may name a daemon."""
    if not isinstance(name, str) or not NAME_PATTERN.match(name):
        raise InvalidRequest(
            f"{name!r} cannot name a daemon: use 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter"
            " or a digit"
        )
    return name


def numbered(name: str, count: int) -> tuple[str, ...]:
    """The names of so many equal daemons."""
    return tuple(f"{name}-{number}" for number in range(1, count + 1))
