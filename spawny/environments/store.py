"""The environments that are kept: a directory each, believed only with its marker.

A virtual environment has its own path in its scripts, so it is built where it stays, and not moved
there. The marker is written last, in one piece: whatever has none is rubbish of a build that did
not end, and the next builder removes it. A lock file beside it is held by whoever builds, alone, or
removes, alone, or is about to start a daemon in it, together with others. The system lets go of it
for those that die.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ..errors import EnvironmentFailed
from ..paths import Paths, make_private
from .key import PATTERN

MARKER = "spawny.json"

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Built:
    """What the marker of an environment says. Times are in seconds since 1970.

    `requirements` has no passwords; `packages` is what is installed, as `NAME==VERSION`.
    """

    requirements: tuple[str, ...]
    base: str
    implementation: str
    version: str
    tool: str
    built_at: float
    build_seconds: float
    packages: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes on disk: those that only this environment has, and those shared with a tool's cache."""

    own: int
    shared: int

    @property
    def total(self) -> int:
        return self.own + self.shared


class Environment:
    """One of the environments, there or not."""

    def __init__(self, store: Path, name: str) -> None:
        self.name = name
        self.path = store / name
        self.lock_file = store / f"{name}.lock"

    @property
    def python(self) -> Path:
        # Not resolved: by this path it is the environment's interpreter.
        return self.path / "bin" / "python"

    def built(self) -> Built | None:
        """What it is; None where it is not, or not whole, or its interpreter has gone."""
        try:
            said = json.loads((self.path / MARKER).read_text(encoding="utf-8"))
            if said.pop("format") != FORMAT:
                return None
            known = {each.name for each in fields(Built)}
            for key in ("requirements", "packages"):
                said[key] = tuple(said[key])
            found = Built(**{key: value for key, value in said.items() if key in known})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if self.python.exists() else None

    def mark(self, built: Built) -> None:
        """Say that it is whole: from now on it is believed."""
        marker = self.path / MARKER
        draft = marker.with_suffix(".new")
        text = json.dumps({"format": FORMAT, **asdict(built)}, indent=1)
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(marker)

    def touch(self) -> None:
        """Say that it is used now."""
        with suppress(OSError):  # a cache that cannot be written is as good
            os.utime(self.path / MARKER)

    def used_at(self) -> float:
        """When it was used last; of one that is not whole, when somebody last worked at it."""
        for path in (self.path / MARKER, self.path):
            with suppress(OSError):
                return path.stat().st_mtime
        return time.time()

    def size(self) -> Size:
        """What it takes on disk."""
        own, shared, seen = 0, 0, set[int]()
        for parent, _, files in os.walk(self.path):
            for each in files:
                with suppress(OSError):
                    found = os.lstat(os.path.join(parent, each))
                    size = found.st_blocks * 512  # whatever the file system's blocks are
                    if found.st_nlink == 1:
                        own += size
                    elif found.st_ino not in seen:
                        seen.add(found.st_ino)
                        shared += size
        return Size(own, shared)

    def remove(self) -> None:
        """Remove it, the marker first: it must not be believed when only half of it is left."""
        with suppress(FileNotFoundError):
            (self.path / MARKER).unlink()
        if self.path.is_dir():
            shutil.rmtree(self.path)

    def lock(self) -> Lock:
        """A lock on it, not held yet."""
        return Lock(self)


class Lock:
    """The lock of an environment. Whoever holds it closes it."""

    def __init__(self, environment: Environment) -> None:
        self._path = environment.lock_file
        self.fd = -1

    def share(self) -> None:
        """Keep it from being removed, as others may at the same time."""
        self._take(fcntl.LOCK_SH)

    def own(self) -> None:
        """Be the only one. One that is shared is let go of first: look again what has changed."""
        self._take(fcntl.LOCK_EX)

    def try_share(self) -> bool:
        """The same, unless that has to wait."""
        return self._try(fcntl.LOCK_SH)

    def try_own(self) -> bool:
        return self._try(fcntl.LOCK_EX)

    def tell(self, text: str) -> None:
        """Tell those who will wait for us what we do."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, text.encode(), 0)

    def told(self) -> str:
        """What those who hold it said."""
        with suppress(OSError):
            return self._path.read_text(encoding="utf-8", errors="replace")
        return ""

    def close(self, *, remove: bool = False) -> None:
        """Let go of it. `remove` is for those who own it, where nothing is left to be locked."""
        if self.fd < 0:
            return
        if remove:
            with suppress(OSError):
                self._path.unlink()
        fd, self.fd = self.fd, -1
        # Closing alone is not enough: a process that was forked meanwhile shares the lock.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)

    def _try(self, kind: int) -> bool:
        try:
            self._take(kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _take(self, kind: int) -> None:
        while True:
            if self.fd < 0:
                self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self.fd, kind)
            # Whoever removed an environment removed its lock as well.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._path), os.fstat(self.fd)):
                    return
            self.close()


class Store:
    """All environments of this user."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.directory = paths.environments

    def prepare(self) -> None:
        """Make the directory; raises `EnvironmentFailed` where that cannot be."""
        try:
            self._paths.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_private(self.directory)
        except OSError as error:
            raise EnvironmentFailed(
                f"cannot create {self.directory} ({error.strerror}): set SPAWNY_HOME or"
                " XDG_CACHE_HOME to a directory that you can write"
            ) from error

    def environment(self, name: str) -> Environment:
        return Environment(self.directory, name)

    def all(self) -> Iterator[Environment]:
        """Every environment, and what is left of builds that did not end."""
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return
        for name in names:
            if PATTERN.match(name):
                yield self.environment(name)
