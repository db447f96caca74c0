"""What a supervisor has made in the file system, and whether that is still there.

Cleaners of /tmp, and people, remove what nobody seems to use. What has vanished is made anew; but
where another supervisor has been started meanwhile, nothing here touches what is its.

systemd-tmpfiles leaves alone the whole of a directory that somebody has locked. Others go by the
times at which files were used, so these are renewed now and then.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import UnsafePath
from ..paths import Paths, make_private
from . import singleton
from .events import FilesLookedAt
from .journal import Journal
from .links import Links
from .sockets import ControlSocket, listen

logger = logging.getLogger(__name__)

# Cleaners go by days.
TOUCH_SECONDS = 3600.0

_NOWHERE = os.stat_result((0,) * 10)


class Premises:
    """The directories, the lock and both sockets of the supervisor that serves.

    Args:
        paths: Where they are; they exist.
        lock_fd: The lock; the descriptor stays the same when the file is made anew.
        owns_socket: Whether the control plane's socket is ours to remove, rather than the service
            manager's.
    """

    def __init__(
        self,
        paths: Paths,
        lock_fd: int,
        clients: ControlSocket,
        daemons: Links,
        journal: Journal,
        *,
        owns_socket: bool,
    ) -> None:
        self._paths = paths
        self._lock_fd = lock_fd
        self._clients = clients
        self._daemons = daemons
        self._journal = journal
        self.owns_socket = owns_socket
        self._directories = (paths.runtime, paths.daemons, paths.journal)
        self._elsewhere = (paths.state, paths.logs)  # perhaps in a home directory of the network
        self._sockets = (paths.supervisor_socket, paths.link_socket)
        self._made: dict[Path, os.stat_result] = {}
        for path in (*self._directories, *self._elsewhere, *self._sockets):
            # What is gone already, when one supervisor becomes another, is found by the first look.
            self._made[path] = _NOWHERE
            with suppress(FileNotFoundError):
                self._note(path)
        self._held_fd: int | None = None
        self._hold()
        self._touched_at = time.monotonic()

    def is_ours(self, path: Path) -> bool:
        """Whether this is still what we have made, at its path."""
        try:
            found, made = os.lstat(path), self._made[path]
        except OSError:
            return False
        # The inode of a directory that was removed may be that of something else at once. Those of
        # the sockets and of the runtime directory may not, since we have them open.
        return os.path.samestat(found, made) and stat.S_IFMT(found.st_mode) == stat.S_IFMT(
            made.st_mode
        )

    def look(self) -> list[FilesLookedAt]:
        """See whether all is there, and make anew what is not; nothing where all is well."""
        self._touch()
        lost = [each for each in self._made if not self.is_ours(each)]
        has_lock = singleton.is_at(self._lock_fd, self._paths.supervisor_lock)
        has_journal = self._journal.is_whole()
        if not lost and has_lock and has_journal:
            return []
        try:
            return [self._mend(lost, has_lock, has_journal)]
        except (OSError, UnsafePath) as error:
            return [FilesLookedAt((), False, _in_words(error))]

    def _mend(self, lost: list[Path], has_lock: bool, has_journal: bool) -> FilesLookedAt:
        self._make(self._directories, lost)
        if self._paths.runtime in lost:
            self._hold()
        if not has_lock and not singleton.renew(self._lock_fd, self._paths.supervisor_lock):
            return FilesLookedAt((), True)
        mended = [str(each) for each in lost]
        if not has_lock:
            mended.append(str(self._paths.supervisor_lock))
        if not has_journal and self._paths.journal not in lost:
            mended.append(f"files in {self._paths.journal}")
        if self._paths.supervisor_socket in lost:
            self._clients.listen_also(listen(self._paths.supervisor_socket))
            self._note(self._paths.supervisor_socket)
            self.owns_socket = True
        if self._paths.link_socket in lost:
            self._daemons.listen_again(self._paths.link_socket)
            self._note(self._paths.link_socket)
        problem = None
        try:
            self._make(self._elsewhere, lost)
        except (OSError, UnsafePath) as error:
            problem = _in_words(error)
            mended = [each for each in mended if each not in map(str, self._elsewhere)]
        return FilesLookedAt(tuple(mended), False, problem, has_lost_journal=not has_journal)

    def _make(self, directories: Iterable[Path], lost: list[Path]) -> None:
        for directory in directories:
            if directory in lost:
                make_private(directory)
                self._note(directory)

    def remove(self) -> None:
        """Leave no socket of ours; where there is another one at its path, it stays."""
        for path in self._sockets:
            is_ours_to_remove = self.owns_socket or path == self._paths.link_socket
            if is_ours_to_remove and self.is_ours(path):
                path.unlink(missing_ok=True)
        self._let_go()

    def _note(self, path: Path) -> None:
        self._made[path] = os.lstat(path)

    def _hold(self) -> None:
        self._let_go()
        self._held_fd = os.open(self._paths.runtime, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Shared, as several supervisors may follow each other closely; the cleaner wants it alone.
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._held_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _let_go(self) -> None:
        if self._held_fd is not None:
            os.close(self._held_fd)
            self._held_fd = None

    def _touch(self) -> None:
        now = time.monotonic()
        if now < self._touched_at + TOUCH_SECONDS:
            return
        self._touched_at = now
        for path in (self._paths.runtime, *self._paths.runtime.rglob("*")):
            with suppress(OSError):
                # The time of access alone: by the other one the journal knows who ended last.
                times = (time.time_ns(), os.lstat(path).st_mtime_ns)
                os.utime(path, ns=times, follow_symlinks=False)


def _in_words(error: Exception) -> str:
    return f"cannot make anew what has vanished: {error}"
