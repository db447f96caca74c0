"""What a supervisor leaves to its successor in the same process: JSON in an unlinked file.

The two may be of different versions. So each field is read by its own annotation, one that is not
known is skipped and one that is missing has its default; a record that makes no sense all the same
is taken from the journal.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import tempfile
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any

from .. import __version__, control
from ..errors import SpawnyError
from .records import Record

logger = logging.getLogger(__name__)

_NONSENSE = (ValueError, KeyError, TypeError, RecursionError, SpawnyError)


@dataclass(frozen=True, slots=True)
class Handover:
    """Descriptors of the lock and of both listening sockets, and what the core knew.

    `owns_socket`: the supervisor has bound the control plane's socket itself, and removes it.
    """

    version: str
    lock_fd: int
    control_fd: int
    link_fd: int
    owns_socket: bool
    records: tuple[Record, ...]
    answered: Mapping[str, control.Message]


def write(
    fds: tuple[int, int, int],
    owns_socket: bool,
    records: tuple[Record, ...],
    answered: Mapping[str, control.Message],
) -> int:
    """A descriptor to read all of this from; it and the three given are inherited from now on."""
    content = {
        "version": __version__,
        "fds": fds,
        "owns_socket": owns_socket,
        "records": [_pack(each) for each in records],
        "answered": {token: _pack(message) for token, message in answered.items()},
    }
    with tempfile.TemporaryFile("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        fd = os.dup(file.fileno())
    os.lseek(fd, 0, os.SEEK_SET)
    for each in (fd, *fds):
        os.set_inheritable(each, True)
    return fd


def read(fd: int) -> Handover:
    """What the one before has written; no child inherits any of the descriptors."""
    with open(fd, encoding="utf-8") as file:
        content = json.load(file)
    lock_fd, control_fd, link_fd = content["fds"]
    for each in (lock_fd, control_fd, link_fd):
        os.set_inheritable(each, False)
    records = (_unpacked(Record, each) for each in content["records"])
    answered = {
        token: _unpacked(control.Message, each) for token, each in content["answered"].items()
    }
    return Handover(
        content["version"],
        lock_fd,
        control_fd,
        link_fd,
        content["owns_socket"],
        tuple(each for each in records if each is not None),
        {token: message for token, message in answered.items() if message is not None},
    )


def _unpacked(kind: type[Any], packed: Any) -> Any:
    try:
        return _unpack(kind, packed)
    except _NONSENSE as error:
        logger.warning("cannot take over a %s: %r", kind.__name__, error)
        return None


def _pack(value: Any) -> Any:
    if isinstance(value, control.Message):
        return [base64.b64encode(frame).decode() for frame in control.encode(value)]
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {each.name: _pack(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list | set | frozenset):
        return [_pack(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _pack(each) for key, each in value.items()}
    return value


@cache
def _annotations(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _unpack(annotation: Any, value: Any) -> Any:
    """`value` as `annotation` wants it; raises one of many errors where it is not."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (annotation,) = (each for each in arguments if each is not types.NoneType)
        return _unpack(annotation, value)
    if origin in (tuple, list, set, frozenset):
        return origin(_unpack(arguments[0], each) for each in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _unpack(arguments[1], each) for key, each in value.items()}
    if not isinstance(annotation, type):
        return value  # a Literal, say
    return _unpack_plain(annotation, value)


def _unpack_plain(kind: type[Any], value: Any) -> Any:
    if issubclass(kind, control.Message):
        return control.decode([base64.b64decode(frame) for frame in value]).message
    if issubclass(kind, Enum):
        return kind(value)
    if is_dataclass(kind):
        return _unpack_dataclass(kind, value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r:.80} is no {kind.__name__}")
    return value


def _unpack_dataclass(kind: Any, value: Any) -> Any:
    found = {}
    for each in fields(kind):
        if each.name in value:
            found[each.name] = _unpack(_annotations(kind)[each.name], value[each.name])
        elif each.default is MISSING and each.default_factory is MISSING:
            raise KeyError(each.name)
    return kind(**found)
