"""What a supervisor leaves to the next one: a file per daemon, and one for its definition.

A file is written under another name and moved into place, so that it is whole or not there. It
holds the caller's environment, and so is closed to others. It need not survive the machine: neither
do the daemons.

A definition may be large and never changes: it is written once, and read when it is sent. So it
takes no memory here, unless the disk is full. What could not be written is kept, and tried again by
`retry`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from .. import control, errors
from .lifecycle import State
from .records import Record
from .values import Ending, Identity, Interpreter

logger = logging.getLogger(__name__)

# 1 had the definition in the file, and nothing of how daemons had ended.
FORMAT = 2

Standing = Literal["running", "waiting", "failed", "ended"]
_STANDINGS: dict[State, Standing] = {
    State.WAITING: "waiting",
    State.FAILED: "failed",
    State.ENDED: "ended",
}

# Daemons that have ended can be restarted as long as their definitions do not take more than this
# together: the directory may be in memory. The one that ended last always can.
ENDED_DEFINITIONS_BYTES = 256 * 1024 * 1024


# Whatever a file holds that is no entry comes up as one of these; RecursionError is JSON that is
# nested without end.
_NO_ENTRY = (OSError, ValueError, KeyError, TypeError, RecursionError, errors.SpawnyError)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file says. The request is without its definition."""

    request: control.StartDaemon
    interpreter: Interpreter
    state: Standing
    identity: Identity | None
    restarts: int
    reason: str
    endings: tuple[Ending, ...] = ()
    restore: str = ""
    began_at: float | None = None  # when it was asked for, by our clock


def _standing(record: Record) -> Standing:
    if record.comes_back and record.state not in _STANDINGS:
        return "waiting"  # once its process is gone
    return _STANDINGS.get(record.state, "running")


class Journal:
    """The files in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unwritten: dict[str, Record] = {}
        self._unkept: dict[Path, bytes] = {}
        self._definitions: dict[str, set[Path]] = {}  # of each daemon
        self._ended: dict[str, int] = {}  # bytes of the definitions of those, the oldest first
        self._there: dict[str, Path] = {}  # the file of each daemon, as far as they are written

    # --- definitions ----------------------------------------------------------------------------

    def keep(self, request: control.StartDaemon) -> str | None:
        """Keep the definition of a daemon that is to be started; what went wrong, in words.

        Even then it is there for as long as this supervisor lives.
        """
        path = self._definition_path(request)
        self._unkept[path] = request.definition
        self._definitions.setdefault(request.name, set()).add(path)
        return self._keep(path)

    def _keep(self, path: Path) -> str | None:
        try:
            if path.exists():
                self._put(path, self._unkept[path])
            else:  # in its place at once: nobody reads it before an entry speaks of it
                _write(path, self._unkept[path])
        except OSError as error:
            return _in_words(path, error)
        del self._unkept[path]
        return None

    def definition(self, request: control.StartDaemon) -> bytes:
        """What was kept; raises `OSError`."""
        path = self._definition_path(request)
        return self._unkept[path] if path in self._unkept else path.read_bytes()

    def _definition_path(self, request: control.StartDaemon) -> Path:
        # A token is a client's own word, and may have slashes in it. No name has a tilde in it.
        word = hashlib.sha256(request.token.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return self._directory / f"{request.name}~{word}.definition"

    # --- entries --------------------------------------------------------------------------------

    def write(self, record: Record) -> str | None:
        """Keep what is needed to take up this daemon again; what went wrong, in words."""
        path, other = self._paths(record.name)
        if record.state is State.ENDED:
            path, other = other, path
        try:
            self._put(path, json.dumps(_content(record)).encode())
            self._there[record.name] = path
        except OSError as error:
            self._unwritten[record.name] = record
            return _in_words(path, error)
        self._unwritten.pop(record.name, None)
        other.unlink(missing_ok=True)
        self._drop_definitions(record.name, besides=self._definition_path(record.request))
        if record.state is State.ENDED:
            self._bound_ended(record.name)
        else:
            self._ended.pop(record.name, None)
        return None

    def retry(self) -> str | None:
        """Write what could not be written before; what still goes wrong, in words."""
        problems = [self._keep(path) for path in list(self._unkept)]
        problems += [self.write(record) for record in list(self._unwritten.values())]
        return next(filter(None, problems), None)

    def is_whole(self) -> bool:
        """Whether every entry that was written is still there."""
        try:
            found = set(os.listdir(self._directory))
        except OSError:
            found = set()
        return all(path.name in found for path in self._there.values())

    def drop(self, name: str) -> None:
        self._unwritten.pop(name, None)
        self._there.pop(name, None)
        self._ended.pop(name, None)
        for path in self._paths(name):
            path.unlink(missing_ok=True)
        self._drop_definitions(name)

    def _paths(self, name: str) -> tuple[Path, Path]:
        """Its file, and its file once it has ended."""
        return self._directory / f"{name}.json", self._directory / f"{name}.ended"

    def _drop_definitions(self, name: str, besides: Path | None = None) -> None:
        for path in self._definitions.pop(name, ()):
            if path != besides:
                self._unkept.pop(path, None)
                path.unlink(missing_ok=True)
        if besides is not None:
            self._definitions[name] = {besides}

    def _bound_ended(self, name: str) -> None:
        """This one has ended; the definitions of those that ended long ago go."""
        self._ended.pop(name, None)
        self._ended[name] = sum(map(_size, self._definitions.get(name, ())))
        total = sum(self._ended.values())
        for oldest in list(self._ended)[:-1]:
            if total <= ENDED_DEFINITIONS_BYTES:
                break
            total -= self._ended.pop(oldest)
            self._drop_definitions(oldest)

    def _put(self, path: Path, content: bytes) -> None:
        # A daemon's name begins with a letter or a digit: this is none's.
        temporary = self._directory / f"_{path.name}.tmp"
        _write(temporary, content)
        temporary.replace(path)

    # --- reading --------------------------------------------------------------------------------

    def read(self) -> Iterator[Entry]:
        """Every entry; a file that holds none is moved aside, with a line in the log.

        Those that have ended come first, in the order in which they did.
        """
        for path in self._directory.glob("_*.tmp"):
            path.unlink(missing_ok=True)  # its writer was killed
        needed = set()
        ended = sorted(self._directory.glob("*.ended"), key=lambda each: each.stat().st_mtime)
        for path in [*ended, *sorted(self._directory.glob("*.json"))]:
            try:
                entry = self._parse(json.loads(path.read_text(encoding="utf-8")))
                if path not in self._paths(entry.request.name):
                    raise ValueError(f"it is about daemon {entry.request.name!r}")
            except _NO_ENTRY as error:
                aside = path.with_suffix(".broken")
                logger.error("%s is no journal (%s); moved to %s", path, error, aside.name)
                path.replace(aside)
            else:
                needed.add(self._definition_path(entry.request))
                self._definitions[entry.request.name] = {self._definition_path(entry.request)}
                self._there[entry.request.name] = path
                if entry.state == "ended":
                    self._ended[entry.request.name] = _size(self._definition_path(entry.request))
                yield entry
        for path in self._directory.glob("*.definition"):
            if path not in needed:
                path.unlink(missing_ok=True)

    def _parse(self, content: Any) -> Entry:
        """The entry in a file's JSON; raises one of many errors when there is none."""
        if content["format"] == 1:
            definition = base64.b64decode(content["definition"], validate=True)
            content["endings"] = []
        elif content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
        request = control.decode([json.dumps(content["request"]).encode(), b""]).message
        if not isinstance(request, control.StartDaemon):
            raise TypeError(f"it holds a {type(request).__name__}")
        if content["state"] not in get_args(Standing):
            raise ValueError(f"there is no state {content['state']!r}")
        entry = Entry(
            request,
            Interpreter(**_typed(content["interpreter"], executable=str, key=str)),
            content["state"],
            Identity(**_typed(content["identity"], boot_id=str, pid=int, start_ticks=int))
            if content["identity"] is not None
            else None,
            endings=tuple(map(_ending, content["endings"])),
            **_typed(
                {key: content[key] for key in ("restarts", "reason")}, restarts=int, reason=str
            ),
            **_typed({"restore": content.get("restore", "")}, restore=str),
            began_at=_typed({"at": content["began_at"]}, at=float)["at"] - _shift()
            if "began_at" in content
            else None,
        )
        if content["format"] == 1:
            problem = self.keep(replace(request, definition=definition))
            if problem:
                logger.warning("%s", problem)
        return entry


def _content(record: Record) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "request": control.header_of(replace(record.request, definition=b"")),
        "interpreter": asdict(record.interpreter),
        "state": _standing(record),
        "restore": (record.comes_back and record.life.recycle) or record.restore,
        "began_at": record.life.began_at + _shift(),
        "identity": asdict(record.identity) if record.identity else None,
        "restarts": record.restarts,
        "reason": record.life.reason,
        "endings": [_dated(each) for each in record.endings],
    }


def _dated(ending: Ending) -> dict[str, Any]:
    shift = _shift()
    return {**asdict(ending), "at": ending.at + shift, "began_at": ending.began_at + shift}


def _shift() -> float:
    """Between our clock and the time of day, which is what is written: the next supervisor may
    serve after the machine has slept."""
    return time.time() - time.monotonic()


def _ending(content: Any) -> Ending:
    shift = _shift()
    known = _typed(
        content, at=float, began_at=float, reason=str, asked_by=str, log_offset=int,
        is_out_of_memory=bool,
    )  # fmt: skip
    for key, kind in {"pid": int, "exit_code": int, "signal_name": str}.items():
        if known[key] is not None:
            _typed(known, **{key: kind})
    known["at"] -= shift
    known["began_at"] -= shift
    return Ending(**known)


def _write(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(path, flags, 0o600), "wb") as file:
            file.write(content)
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # it may be what fills the disk
        raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _in_words(path: Path, error: OSError) -> str:
    return f"cannot write {path}: {error.strerror or error}"


def _typed(values: dict[str, Any], **types: type) -> dict[str, Any]:
    for key, kind in types.items():
        if type(values[key]) is not kind:
            raise TypeError(f"{key} is {values[key]!r}")
    return values
