"""What a supervisor leaves to the next one: a file per daemon.

A file is written under another name and moved into place, so that it is whole or not there. It
holds the caller's environment, and so is closed to others. It need not survive the machine: neither
do the daemons.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from .. import control, errors
from .lifecycle import State
from .records import Record
from .values import Identity, Interpreter

logger = logging.getLogger(__name__)

FORMAT = 1

Standing = Literal["running", "waiting", "failed"]
_STANDINGS: dict[State, Standing] = {State.WAITING: "waiting", State.FAILED: "failed"}


# Whatever a file holds that is no entry comes up as one of these; RecursionError is JSON that is
# nested without end.
_NO_ENTRY = (OSError, ValueError, KeyError, TypeError, RecursionError, errors.SpawnyError)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file says."""

    request: control.StartDaemon
    interpreter: Interpreter
    state: Standing
    identity: Identity | None
    restarts: int
    reason: str


class Journal:
    """The files in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def write(self, record: Record) -> None:
        """Keep what is needed to take up this daemon again."""
        header, definition = control.encode(record.request)
        content = {
            "format": FORMAT,
            "request": json.loads(header),
            "definition": base64.b64encode(definition).decode("ascii"),
            "interpreter": asdict(record.interpreter),
            "state": _STANDINGS.get(record.state, "running"),
            "identity": asdict(record.identity) if record.identity else None,
            "restarts": record.restarts,
            "reason": record.life.reason,
        }
        # A daemon's name begins with a letter or a digit: this is none's.
        temporary = self._directory / f"_{record.name}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(content, file)
        temporary.replace(self._path(record.name))

    def drop(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def read(self) -> Iterator[Entry]:
        """Every entry; a file that holds none is moved aside, with a line in the log."""
        for path in sorted(self._directory.glob("*.json")):
            try:
                entry = _parse(json.loads(path.read_text(encoding="utf-8")))
                if self._path(entry.request.name) != path:
                    raise ValueError(f"it is about daemon {entry.request.name!r}")
            except _NO_ENTRY as error:
                aside = path.with_suffix(".broken")
                logger.error("%s is no journal (%s); moved to %s", path, error, aside.name)
                path.replace(aside)
            else:
                yield entry


def _parse(content: Any) -> Entry:
    """The entry in a file's JSON; raises one of many errors when there is none."""
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
    definition = base64.b64decode(content["definition"], validate=True)
    request = control.decode([json.dumps(content["request"]).encode(), definition]).message
    if not isinstance(request, control.StartDaemon):
        raise TypeError(f"it holds a {type(request).__name__}")
    if content["state"] not in get_args(Standing):
        raise ValueError(f"there is no state {content['state']!r}")
    return Entry(
        request,
        Interpreter(**_typed(content["interpreter"], executable=str, key=str)),
        content["state"],
        Identity(**_typed(content["identity"], boot_id=str, pid=int, start_ticks=int))
        if content["identity"] is not None
        else None,
        **_typed({key: content[key] for key in ("restarts", "reason")}, restarts=int, reason=str),
    )


def _typed(values: dict[str, Any], **types: type) -> dict[str, Any]:
    for key, kind in types.items():
        if type(values[key]) is not kind:
            raise TypeError(f"{key} is {values[key]!r}")
    return values
