"""Where sockets, locks, logs and configuration live, and that nobody else can reach them.

The one rule: a directory is used only when it is a real directory (no symlink), ours, and closed to
group and others. Anything else is refused with the command that mends it, never repaired silently:
in /tmp another user may have put it there first.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import InvalidRequest, UnsafePath

# sun_path holds 108 bytes on Linux with its closing NUL (104 on macOS); bind() past that fails with
# a bare OSError that names nothing.
SOCKET_PATH_LIMIT_BYTES = 107

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories of one user's spawny. Nothing here touches the file system."""

    runtime: Path
    state: Path
    cache: Path
    config: Path

    @property
    def supervisor_socket(self) -> Path:
        """The control plane's ZeroMQ endpoint."""
        return self.runtime / "supervisor.sock"

    @property
    def link_socket(self) -> Path:
        """Where daemons phone home."""
        return self.runtime / "link.sock"

    @property
    def supervisor_lock(self) -> Path:
        """Held for as long as a supervisor serves."""
        return self.runtime / "supervisor.lock"

    @property
    def start_lock(self) -> Path:
        """Held by the one client that is starting a supervisor."""
        return self.runtime / "start.lock"

    @property
    def daemons(self) -> Path:
        """One call socket per daemon."""
        return self.runtime / "d"

    @property
    def journal(self) -> Path:
        """One file per supervised daemon."""
        return self.runtime / "journal"

    @property
    def logs(self) -> Path:
        """One log file per daemon, and the supervisor's own."""
        return self.state / "logs"

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def supervisor_log(self) -> Path:
        # The leading underscore cannot begin a daemon's name.
        return self.logs / "_supervisor.log"

    def call_socket(self, name: str) -> Path:
        """The address of a daemon: a pure function of its name."""
        return self.daemons / f"{name}.sock"

    def log_file(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def journal_file(self, name: str) -> Path:
        return self.journal / f"{name}.json"


def locate(environ: Mapping[str, str] | None = None, uid: int | None = None) -> Paths:
    """The paths for this user: everything under `SPAWNY_HOME` when set, else the XDG places."""
    environ = os.environ if environ is None else environ
    uid = os.getuid() if uid is None else uid
    if home := environ.get("SPAWNY_HOME"):
        base = Path(os.path.abspath(home))
        return Paths(base / "run", base / "state", base / "cache", base / "config")
    user_home = Path(environ.get("HOME") or os.path.expanduser("~"))
    return Paths(
        runtime=_runtime_directory(uid),
        state=_xdg(environ, "XDG_STATE_HOME", user_home / ".local" / "state"),
        cache=_xdg(environ, "XDG_CACHE_HOME", user_home / ".cache"),
        config=_xdg(environ, "XDG_CONFIG_HOME", user_home / ".config"),
    )


def _runtime_directory(uid: int) -> Path:
    # XDG_RUNTIME_DIR is deliberately not consulted: a cron job, an ssh session and a desktop
    # terminal of one user must meet at one address, and only some of them have it set.
    login = Path(f"/run/user/{uid}")
    try:
        if os.lstat(login).st_uid == uid:
            return login / "spawny"
    except OSError:
        pass
    return Path(f"/tmp/spawny-{uid}")


def _xdg(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    chosen = environ.get(variable, "")
    # The XDG specification: a relative path is invalid and must be ignored.
    return (Path(chosen) if os.path.isabs(chosen) else default) / "spawny"


def make_private(directory: Path) -> Path:
    """Create `directory` (0700) with its parents, or check the one that is there.

    Raises `UnsafePath` when it is a symlink, not a directory, another user's, or open to others.
    """
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        check_private(directory)
    return directory


def check_private(directory: Path) -> None:
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


def check_socket_path(path: Path) -> Path:
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
