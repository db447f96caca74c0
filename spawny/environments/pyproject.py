"""The dependencies in a `pyproject.toml`: a project's, those of its extras, or a group of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InvalidRequest
from .requirements import Requirements, from_lines

NAME = "pyproject.toml"

_EXTRAS = re.compile(r"(?P<path>.*pyproject\.toml)\[(?P<extras>[\w.,\s-]+)\]\Z", re.DOTALL)
_GROUP = re.compile(r"(?P<path>.*pyproject\.toml):(?P<group>[\w.-]+)\Z", re.DOTALL)
_OWN_EXTRAS = re.compile(r"(?P<name>[\w.-]+)\s*\[(?P<extras>[^\]]*)\]\s*\Z")


def parts(text: str) -> tuple[str, tuple[str, ...], str | None]:
    """The path, the extras and the group in what a user writes."""
    if match := _EXTRAS.match(text):
        return match["path"], tuple(filter(None, map(_name, match["extras"].split(",")))), None
    if match := _GROUP.match(text):
        return match["path"], (), _name(match["group"])
    return text, (), None


def read(path: str, extras: tuple[str, ...], group: str | None) -> Requirements:
    """What this file requires. Raises `InvalidRequest` where it does not say so."""
    import tomllib

    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"requirements: cannot read {path}: {reason}") from error
    folder = os.path.dirname(path)
    if group is not None:
        groups = _by_name(path, "dependency-groups", tables.get("dependency-groups", {}))
        return from_lines(list(_group(path, groups, group, ())), folder, path)
    project = tables.get("project")
    if not isinstance(project, dict):
        raise InvalidRequest(
            f"requirements: {path} has no [project]; a dependency group is {NAME}:GROUP"
        )
    lines = from_lines(list(_project(path, project, extras)), folder, path)
    python = project.get("requires-python", "")
    return lines + Requirements(requires_python=" ".join(str(python).split()))


def _project(path: str, project: Mapping[str, Any], extras: tuple[str, ...]) -> Iterator[str]:
    dynamic = project.get("dynamic", [])
    for key in ("dependencies", "optional-dependencies")[: 2 if extras else 1]:
        if key in dynamic:
            raise InvalidRequest(
                f"requirements: the {key} in {path} are dynamic: only its build tells them; require"
                " the project itself, by the path of its folder"
            )
    yield from _texts(path, "dependencies", project.get("dependencies", []))
    optional = _by_name(path, "optional-dependencies", project.get("optional-dependencies", {}))
    own = _name(str(project.get("name", "")))
    left, done = list(extras), set[str]()
    while left:
        extra = left.pop()
        if extra in done:
            continue
        done.add(extra)
        if extra not in optional:
            raise _missing(path, "extra", extra, optional)
        for line in _texts(path, extra, optional[extra]):
            match = _OWN_EXTRAS.match(line)
            if match and _name(match["name"]) == own:
                left += map(_name, match["extras"].split(","))
            else:
                yield line


def _group(
    path: str, groups: Mapping[str, Any], group: str, outer: tuple[str, ...]
) -> Iterator[str]:
    if group in outer:
        raise InvalidRequest(f"requirements: the group {group!r} in {path} includes itself")
    if group not in groups:
        raise _missing(path, "dependency group", group, groups)
    for each in groups[group] if isinstance(groups[group], list) else [groups[group]]:
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict) and isinstance(each.get("include-group"), str):
            yield from _group(path, groups, _name(each["include-group"]), (*outer, group))
        else:
            raise InvalidRequest(f"requirements: the group {group!r} in {path} has {each!r}")


def _missing(path: str, kind: str, name: str, known: Mapping[str, Any]) -> InvalidRequest:
    return InvalidRequest(
        f"requirements: {path} has no {kind} {name!r}; it has {', '.join(sorted(known)) or 'none'}"
    )


def _by_name(path: str, key: str, table: object) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise InvalidRequest(f"requirements: {key} in {path} is no table")
    return {_name(name): value for name, value in table.items()}


def _texts(path: str, key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidRequest(f"requirements: {key} in {path} is no list of texts")
    return value


def _name(name: str) -> str:
    """Names that differ in these are the same (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
