"""What interpreters have said of themselves, kept until their files change.

One rule: a cache that is broken, old or cannot be written is no error; it only costs time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from .. import __version__
from ..errors import UnsafePath
from ..paths import locate, make_private
from .probe import Report

# A report that may be another the next time is believed for so long.
PASSING_SECONDS = 600.0

# More are forgotten when it is written, those first that have not been asked for.
_MOST = 2000

_TYPES = {name: type(value) for name, value in asdict(Report()).items()} | {"version": list}


class Cache:
    """The reports of one user, in a file that is read once.

    Args:
        environ: Says which libraries interpreters load.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._file = locate().cache / "interpreters.json"
        # The one variable that decides whether an interpreter starts at all.
        self._libraries = environ.get("LD_LIBRARY_PATH", "")
        self._entries = self._read()
        self._stamps: dict[str, list[Any]] = {}
        self._is_changed = False

    def get(self, path: str, passing_seconds: float = PASSING_SECONDS) -> Report | None:
        """What it said, if it has not changed since; what may have changed all the same is believed
        for so long."""
        # Kept for `put`: what it says while it changes may be of the one before.
        stamp = self._stamps[path] = self._stamp(path)
        entry = self._entries.get(path)
        if entry is None or entry["stamp"] != stamp:
            return None
        report = Report(**{**entry["report"], "version": tuple(entry["report"]["version"])})
        age = time.time() - entry["at"]
        if report.is_passing and not 0 <= age < passing_seconds:  # nor if the clock was set back
            return None
        return report

    def put(self, path: str, report: Report) -> None:
        """Remember what it said, if it was asked."""
        if report.is_untried:
            return
        self._entries.pop(path, None)  # the latest is the last
        self._entries[path] = {
            "stamp": self._stamps.get(path) or self._stamp(path),
            "at": time.time(),
            "report": asdict(report),
        }
        self._is_changed = True

    def save(self) -> None:
        """Write the file, with what others have written to it meanwhile."""
        if not self._is_changed:
            return
        entries = {**self._read(), **self._entries}
        content = {"spawny": __version__, "entries": dict(list(entries.items())[-_MOST:])}
        draft = self._file.with_name(f"{self._file.name}.{os.getpid()}-{time.monotonic_ns()}")
        try:
            make_private(self._file.parent)
            with open(draft, "x", encoding="utf-8", opener=_private) as file:
                json.dump(content, file)
            os.replace(draft, self._file)
        except (OSError, UnsafePath):
            with suppress(OSError):
                os.unlink(draft)
        self._is_changed = False

    def _read(self) -> dict[str, Any]:
        try:
            with open(self._file, encoding="utf-8") as file:
                content = json.load(file)
            # Another version may ask other questions.
            if content["spawny"] == __version__ and _is_whole(content["entries"]):
                return dict(content["entries"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        return {}

    def _stamp(self, path: str) -> list[Any]:
        """What is another when the interpreter is another one: its file, or that of its venv."""
        config = os.path.join(os.path.dirname(os.path.dirname(path)), "pyvenv.cfg")
        return [os.path.realpath(path), _facts(path), _facts(config), self._libraries]


def _facts(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode]


def _is_whole(entries: Any) -> bool:
    return isinstance(entries, dict) and all(
        isinstance(each, dict)
        and isinstance(each.get("at"), (int, float))
        and "stamp" in each
        and isinstance(each.get("report"), dict)
        and {name: type(value) for name, value in each["report"].items()} == _TYPES
        for each in entries.values()
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
