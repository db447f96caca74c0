"""`config.toml`: the supervisor's figures, daemons that are declared, aliases of interpreters.

Everything that is wrong with a file is found at once, each with its line. Paths are relative to the
file's folder. Scripts are read with the file, so that a configuration is a value.
"""

from __future__ import annotations

import os
import stat
import sys
import tokenize
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .address import NAME_PATTERN, numbered
from .definitions import ModuleDefinition, ScriptDefinition
from .errors import InvalidRequest
from .interpreters import spec
from .settings import Settings, from_table
from .sizes import size_bytes

# At the top of a file, and as a user writes them.
_TABLES = {
    "supervisor": "[supervisor]",
    "zygotes": "[zygotes]",
    "daemons": "[daemons.NAME]",
    "pythons": "[pythons]",
}

# Daemons of one table. More than any machine has use for; a slip of the finger declares no fleet.
MOST_EQUAL = 100


@dataclass(frozen=True, slots=True)
class DeclaredDaemon:
    """A `[daemons.NAME]`, or one of those that it declares; `keys` is the table as it is written,
    without their `count`, which changes none of them."""

    name: str
    keys: Mapping[str, Any]
    definition: ScriptDefinition | ModuleDefinition
    sys_path: tuple[str, ...]
    cwd: str
    python: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    idle_timeout: float | None = None
    restart: str = "never"
    requirements: tuple[str, ...] | str | None = None
    preload: tuple[str, ...] = ()
    start_timeout: float = 60.0
    max_rss: int | None = None
    max_calls: int | None = None
    max_age: float | None = None
    call_deadline: float | None = None
    output: str = "forward"
    autostart: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """What a file says."""

    settings: Settings = field(default_factory=Settings)
    daemons: Mapping[str, DeclaredDaemon] = field(default_factory=dict)
    pythons: Mapping[str, str] = field(default_factory=dict)


def load(path: Path) -> Config:
    """The configuration of this file; the defaults where there is none.

    Raises `InvalidRequest` with a line for everything that is wrong: file, line, key, and what is
    allowed.
    """
    reading, tables = _read(path)
    for key in tables:
        if key not in _TABLES:
            known = ", ".join(_TABLES.values())
            reading.object(f"there is no {key!r} here; there are {known}", key)
    config = Config(
        _settings(reading, tables), _daemons(reading, tables), _pythons(reading, tables)
    )
    reading.check()
    return config


def pythons(path: Path) -> Mapping[str, str]:
    """The aliases of interpreters in this file, and what they stand for; errors as of `load`."""
    reading, tables = _read(path)
    found = _pythons(reading, tables)
    reading.check()
    return found


def _read(path: Path) -> tuple[_Reading, Mapping[str, Any]]:
    try:
        text = _text_of(path)
        return _Reading(path, text), tomllib.loads(text)
    except FileNotFoundError:
        return _Reading(path, ""), {}
    except (OSError, ValueError, RecursionError) as error:  # no TOML, with its line; or no UTF-8
        raise InvalidRequest(f"{path}: {error}") from error


def _text_of(path: Path) -> str:
    # A FIFO would be waited for, for ever; a device may have no end.
    def opened(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    with open(path, encoding="utf-8", opener=opened) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no regular file")
        return file.read()


def line_of(text: str, *keys: str) -> int:
    """The line where the statement begins that first says something of this key; 1 for none.

    The parser tells no positions. But a statement and a table's head are files of their own, and
    lines that end within a statement are none.
    """
    return _line_of(_statements(text), keys)


def _statements(text: str) -> list[tuple[int, Any]]:
    """The line and the meaning of each statement of a good file, in its table."""
    found: list[tuple[int, Any]] = []
    table: list[str] = []
    begin, lines = 0, text.splitlines(keepends=True)
    for end in range(1, len(lines) + 1):
        try:
            said: Any = tomllib.loads("".join(lines[begin:end]))
        except tomllib.TOMLDecodeError:
            continue
        if lines[begin].lstrip().startswith("["):
            table = _path(said)
        elif said:
            for key in reversed(table):
                said = {key: said}
        found.append((begin + 1, said))
        begin = end
    return found


def _path(head: Any) -> list[str]:
    """The keys in a table's head."""
    keys = []
    while isinstance(head, dict) and head:
        ((key, head),) = head.items()
        keys.append(key)
    return keys


def _line_of(statements: list[tuple[int, Any]], keys: tuple[str, ...]) -> int:
    for line, found in statements:
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            return line
    return 1


class _Reading:
    """One file, and what is wrong with it so far."""

    def __init__(self, path: Path, text: str) -> None:
        self.folder = str(path.parent)
        self.problems: list[str] = []
        self._path = path
        self._text = text
        self._found: list[tuple[int, Any]] | None = None  # its statements, once they are needed

    def object(self, problem: str, *keys: str) -> None:
        """Note what is wrong at this key."""
        if self._found is None:
            self._found = _statements(self._text)
        self.problems.append(f"{self._path}:{_line_of(self._found, keys)}: {problem}")

    def check(self) -> None:
        """Raise `InvalidRequest` if anything is wrong."""
        if self.problems:
            raise InvalidRequest("\n".join(self.problems))

    def resolved(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.folder, os.path.expanduser(path)))


def _settings(reading: _Reading, tables: Mapping[str, Any]) -> Settings:
    found = Settings()
    for section in ("supervisor", "zygotes"):
        table = tables.get(section, {})
        if not isinstance(table, dict):
            reading.object(f"[{section}] must be a table", section)
            continue
        for key, value in table.items():
            try:
                found = from_table({key: value}, section, found)
            except InvalidRequest as error:
                reading.object(str(error), section, key)
    return found


def _pythons(reading: _Reading, tables: Mapping[str, Any]) -> dict[str, str]:
    table = tables.get("pythons", {})
    if not isinstance(table, dict):
        reading.object("[pythons] must be a table of names and interpreters", "pythons")
        return {}
    found = {}
    for name, stands_for in table.items():
        if not NAME_PATTERN.match(name) or spec.parse(name) is not None:
            wrong = f"{name!r} cannot be an alias: it is no name, or means a version already"
            reading.object(f"[pythons] {wrong}", "pythons", name)
        elif not _is_text(stands_for):
            wrong = f"{name} must be {_KEYS['python'][1]}, not {stands_for!r}"
            reading.object(f"[pythons] {wrong}", "pythons", name)
        elif stands_for in table:
            wrong = f"{name} stands for another alias, {stands_for!r}, which no alias may"
            reading.object(f"[pythons] {wrong}", "pythons", name)
        elif os.sep in stands_for or stands_for.startswith("~"):
            found[name] = reading.resolved(stands_for)
        else:
            found[name] = stands_for
    return found


def _daemons(reading: _Reading, tables: Mapping[str, Any]) -> dict[str, DeclaredDaemon]:
    daemons = tables.get("daemons", {})
    if not isinstance(daemons, dict):
        reading.object("daemons must be tables such as [daemons.NAME]", "daemons")
        return {}
    found = {}
    for name, table in daemons.items():
        before = len(reading.problems)
        if not NAME_PATTERN.match(name):
            reading.object(f"{name!r} cannot name a daemon", "daemons", name)
        elif not isinstance(table, dict):
            reading.object(f"[daemons.{name}] must be a table", "daemons", name)
        else:
            names = _names(reading, name, table.get("count"), daemons)
            declared = _daemon(reading, name, table)
            if declared is not None and len(reading.problems) == before:
                found.update({each: replace(declared, name=each) for each in names})
    return found


def _names(reading: _Reading, name: str, count: Any, daemons: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the daemons that a table declares."""
    if not _is_count(count):  # there is none; or it is wrong, which is said with the other keys
        return (name,)
    names = numbered(name, count)
    if not NAME_PATTERN.match(names[-1]):
        wrong = f"count makes a name that is too long: {names[-1]!r}"
        reading.object(f"[daemons.{name}] {wrong}", "daemons", name, "count")
    for each in names:
        if each in daemons:
            twice = f"is declared twice, also by [daemons.{name}] with count = {count}"
            reading.object(f"[daemons.{each}] {twice}", "daemons", each)
    return names


def _daemon(reading: _Reading, name: str, table: Mapping[str, Any]) -> DeclaredDaemon | None:
    for key, value in table.items():
        if key not in _KEYS:
            known = f"the keys are {', '.join(_KEYS)}"
            reading.object(f"[daemons.{name}] has no key {key!r}; {known}", "daemons", name, key)
        elif not _KEYS[key][0](value):
            wrong = f"{key} must be {_KEYS[key][1]}, not {value!r}"
            reading.object(f"[daemons.{name}] {wrong}", "daemons", name, key)
            return None
    if ("script" in table) == ("module" in table):
        reading.object(f"[daemons.{name}] must have a script or a module", "daemons", name)
        return None
    if "module_path" in table and "script" in table:
        alone = "has a module_path, which belongs to a module"
        reading.object(f"[daemons.{name}] {alone}", "daemons", name, "module_path")
        return None
    cwd = reading.resolved(table.get("cwd", "~"))
    definition, sys_path = _definition(reading, name, table, cwd)
    if definition is None:
        return None
    options: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in table.items()
        if key in _OPTIONS
    }
    if "max_rss" in table:
        options["max_rss"] = size_bytes(table["max_rss"])
    keys = {key: value for key, value in table.items() if key != "count"}
    return DeclaredDaemon(name, keys, definition, (sys_path,), cwd, table.get("python"), **options)


def _definition(
    reading: _Reading, name: str, table: Mapping[str, Any], cwd: str
) -> tuple[ScriptDefinition | ModuleDefinition | None, str]:
    """What it runs, and where that finds its modules: as `spawny run` has it."""
    key = "script" if "script" in table else "module_path"
    try:
        if key == "script":
            path = reading.resolved(table["script"])
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError("it is no regular file")
            with tokenize.open(path) as file:  # in the encoding that it declares
                return ScriptDefinition(file.read(), path), os.path.dirname(path)
        module_path = table.get("module_path")
        if module_path is not None:
            module_path = reading.resolved(module_path)
        return ModuleDefinition(table["module"], module_path), cwd
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        wrong = f"{key} cannot be read: {reason}: {table.get(key)!r}"
        reading.object(f"[daemons.{name}] {wrong}", "daemons", name, key)
        return None, ""


# --- what each key may be -------------------------------------------------------------------------


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_seconds(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= sys.float_info.max  # type: ignore[operator]


def _is_limit(value: object) -> bool:
    return _is_seconds(value) and bool(value)


def _is_size(value: object) -> bool:
    if not isinstance(value, int | str):
        return False
    try:
        return size_bytes(value) is not None
    except InvalidRequest:
        return False


def _is_module(value: object) -> bool:
    return isinstance(value, str) and all(map(str.isidentifier, value.split(".")))


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST_EQUAL


def _one_of(*choices: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in choices), f"one of {', '.join(choices)}"


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "script": (_is_text, "the path of a script"),
    "module": (_is_module, "the name of a module"),
    "module_path": (_is_text, "the path of a module's file"),
    "python": (
        _is_text,
        "a path, the directory or name of an environment, an alias, or a version such as '3.9'",
    ),
    "cwd": (_is_text, "a directory"),
    "env": (
        lambda value: isinstance(value, dict) and all(isinstance(v, str) for v in value.values()),
        "a table of texts",
    ),
    "idle_timeout": (_is_seconds, "a number of seconds"),
    "restart": _one_of("never", "on-failure", "always"),
    "requirements": (
        lambda value: _is_text(value) or (isinstance(value, list) and all(map(_is_text, value))),
        "a list of texts such as 'numpy<2', the path of a file, or 'script'",
    ),
    "preload": (
        lambda value: isinstance(value, list) and all(map(_is_module, value)),
        "a list of modules' names",
    ),
    "start_timeout": (_is_seconds, "a number of seconds"),
    "max_rss": (_is_size, "a number of bytes or a text such as '2 GB'"),
    "max_calls": (lambda value: type(value) is int and 1 <= value < 2**62, "a number from 1 on"),
    "max_age": (_is_limit, "a number of seconds above 0"),
    "call_deadline": (_is_limit, "a number of seconds above 0"),
    "output": _one_of("forward", "log"),
    "autostart": (lambda value: isinstance(value, bool), "true or false"),
    "count": (_is_count, f"a number from 1 to {MOST_EQUAL}"),
}

# Those that are a field of `DeclaredDaemon` as they are.
_OPTIONS = frozenset(
    {
        "env",
        "idle_timeout",
        "restart",
        "requirements",
        "preload",
        "start_timeout",
        "output",
        "autostart",
    }
    | {"max_calls", "max_age", "call_deadline"}
)
