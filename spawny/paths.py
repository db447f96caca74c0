"""Where everything of one user lives: sockets and locks, logs, environments, configuration.

`address.py` says where a daemon is and what makes a directory safe; this is the rest of the map.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .address import (
    NAME_PATTERN,
    SOCKET_PATH_LIMIT_BYTES,
    check_name,
    check_private,
    check_socket_path,
    runtime_directory,
)
from .errors import UnsafePath

__all__ = [
    "NAME_PATTERN",
    "SOCKET_PATH_LIMIT_BYTES",
    "Paths",
    "check_name",
    "check_private",
    "check_socket_path",
    "locate",
    "make_private",
]


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
    def environments(self) -> Path:
        """One directory per environment that was made on demand."""
        return self.cache / "environments"

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def supervisor_log(self) -> Path:
        # The leading underscore cannot begin a daemon's name.
        return self.logs / "_supervisor.log"

    @property
    def zygotes_log(self) -> Path:
        """What modules print that zygotes import."""
        return self.logs / "_zygotes.log"

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
        runtime=Path(runtime_directory(environ, uid)),
        state=_xdg(environ, "XDG_STATE_HOME", user_home / ".local" / "state"),
        cache=_xdg(environ, "XDG_CACHE_HOME", user_home / ".cache"),
        config=_xdg(environ, "XDG_CONFIG_HOME", user_home / ".config"),
    )


def _xdg(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    chosen = environ.get(variable, "")
    # The XDG specification: a relative path is invalid and must be ignored.
    return (Path(chosen) if os.path.isabs(chosen) else default) / "spawny"


def make_private(directory: Path) -> Path:
    """Create `directory` (0700) with its parents, or check the one that is there.

    Raises `UnsafePath` when it is a symlink, not a directory, another user's, or open to others.
    """
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UnsafePath(
            f"{directory} cannot be made: {error.filename} is not a directory; set SPAWNY_HOME to"
            " one that is yours"
        ) from error
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        check_private(directory)
    return directory
