"""Pickling classes that no daemon can import, as what they are made of.

The near end of `kernel/classes.py`. Those that have methods without source (dataclasses, named
tuples, enumerations) are made there by the same functions of the standard library.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import enum
import os
import types
from types import FunctionType
from typing import Any

from ..kernel import classes as far
from ..kernel.code import make_type
from .code import REMEDY, CannotTravel, SourcePickler, is_importable, travelling_annotations

_IS_HEAP_TYPE = 1 << 9

# Python's own, which each version makes of a class by itself.
_MADE_BY_TYPE = frozenset(
    (
        *("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__slots__"),
        *("__orig_bases__", "__annotations__", "__annotate__", "__annotate_func__"),
        *("__annotations_cache__", "__firstlineno__", "__static_attributes__"),
        *("__type_params__", "_abc_impl"),
    )
)

_FIELD_OPTIONS = ("default", "default_factory", "init", "repr", "hash", "compare")
_DATACLASS_OPTIONS = ("init", "repr", "eq", "order", "unsafe_hash", "frozen")

_SLOT_TYPES = (types.MemberDescriptorType, types.GetSetDescriptorType)


def number_of(cls: type) -> str:
    """What the class is known by at the far end; the same as long as it lives here."""
    try:
        number: str = far.numbers.setdefault(cls, os.urandom(8).hex())
    except TypeError:  # its metaclass has no hash
        return os.urandom(8).hex()
    far.by_number[number] = cls
    return number


def reduce_class(pickler: SourcePickler, cls: type) -> Any:
    """How to make a class that does not go by name."""
    if not cls.__flags__ & _IS_HEAP_TYPE:
        for name, value in vars(types).items():
            if value is cls:
                return make_type, (name,)
        return NotImplemented  # pickle knows some, and says what it thinks of the others
    if issubclass(cls, enum.Enum):
        return _enum(pickler, cls)
    if cls.__bases__ == (tuple,) and hasattr(cls, "_fields") and "_make" in vars(cls):
        return _named_tuple(pickler, cls)
    attributes = {
        name: value
        for name, value in vars(cls).items()
        if name not in _MADE_BY_TYPE and not _is_own_slot(cls, value)
    }
    state: dict[str, Any] = {"attributes": attributes, "annotations": travelling_annotations(cls)}
    if isinstance(cls, abc.ABCMeta):
        state["registered"] = _registered(cls)
    if "__dataclass_fields__" in attributes:
        state["dataclass"] = _dataclass(cls, attributes)
    _see(pickler, cls, attributes)
    made = number_of(cls), type(cls), cls.__name__, cls.__bases__, _beginning(cls)
    return far.make_class, made, state, None, None, far.fill_class


def _beginning(cls: type) -> dict[str, Any]:
    """What has to be there when the class is made."""
    names = ("__module__", "__qualname__", "__doc__", "__orig_bases__", "__slots__")
    namespace = {name: vars(cls)[name] for name in names if name in vars(cls)}
    namespace["__qualname__"] = cls.__qualname__
    slots = namespace.get("__slots__", ())
    if not isinstance(slots, (str, tuple, list, dict)):
        raise CannotTravel(f"{cls.__qualname__} was given its __slots__ by an iterator; {REMEDY}")
    return namespace


def _is_own_slot(cls: type, value: Any) -> bool:
    return type(value) in _SLOT_TYPES and value.__objclass__ is cls


def _see(pickler: SourcePickler, cls: type, attributes: dict[str, Any]) -> None:
    captured = [(f"attribute {name}", value) for name, value in attributes.items()]
    pickler.seen.append((cls, captured))


def _registered(cls: abc.ABCMeta) -> list[type]:
    """Those that were registered as its virtual subclasses."""
    get = getattr(abc, "_get_dump", None)
    return [] if get is None else [each for each in (ref() for ref in get(cls)[0]) if each]


def _dataclass(cls: Any, attributes: dict[str, Any]) -> Any:
    """What to call `dataclass` with; takes out of the attributes what it will make."""
    known = attributes.pop("__dataclass_fields__")
    made = attributes.pop("__dataclass_params__")
    parameters = {name: getattr(made, name) for name in _DATACLASS_OPTIONS}
    for name, value in list(attributes.items()):
        if name[:2] == "__" and _is_made_by(value, dataclasses) and not is_importable(value):
            del attributes[name]
    fields = []
    for name in vars(cls).get("__annotations__", {}):
        field = known.get(name)
        if field is None:
            continue
        kind = field._field_type.name
        options = {each: getattr(field, each) for each in _FIELD_OPTIONS}
        options = {k: v for k, v in options.items() if v is not dataclasses.MISSING}
        if field.metadata:
            options["metadata"] = dict(field.metadata)
        if field.kw_only is True:
            options["kw_only"] = True
        if kind != "_FIELD_CLASSVAR":
            attributes.pop(name, None)
        fields.append((name, kind, options))
    return parameters, fields


def _is_made_by(value: Any, module: types.ModuleType) -> bool:
    """Is it a function that this module of the standard library makes, without source?"""
    if type(value) is not FunctionType:
        return False
    if value.__code__.co_filename == "<string>" or value.__globals__ is vars(module):
        return True
    inner = getattr(value, "__wrapped__", None)
    return inner is not None and _is_made_by(inner, module)


def _named_tuple(pickler: SourcePickler, cls: Any) -> Any:
    # The class itself, not its `vars()` alone: those are emptied when it is collected.
    plain: Any = collections.namedtuple("plain", cls._fields, rename=True)  # type: ignore[misc]
    attributes = {
        name: value
        for name, value in vars(cls).items()
        if name not in _MADE_BY_TYPE
        and (name not in vars(plain) or _is_users(value, vars(plain)[name]))
    }
    _see(pickler, cls, attributes)
    namespace = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    made = number_of(cls), cls.__name__, cls._fields, cls.__new__.__defaults__, namespace
    attributes["__doc__"] = cls.__doc__
    attributes["_field_defaults"] = cls._field_defaults
    state = {"attributes": attributes, "annotations": travelling_annotations(cls)}
    return far.make_named_tuple, made, state, None, None, far.fill_class


def _is_users(value: Any, plain: Any) -> bool:
    """Was a method of this name written by the user, in place of that of every named tuple?"""
    return type(value) is FunctionType and (
        type(plain) is not FunctionType or value.__code__.co_filename != plain.__code__.co_filename
    )


def _enum(pickler: SourcePickler, cls: Any) -> Any:
    kind: Any = type(cls)
    if kind is not enum.EnumMeta:
        raise CannotTravel(f"{cls.__qualname__} has a metaclass of its own; {REMEDY}")
    if "__new_member__" in vars(cls) and cls._member_type_ is not object:
        raise CannotTravel(f"{cls.__qualname__} makes its members by a __new__; {REMEDY}")
    if getattr(cls.__bases__[-1], "_boundary_", None) is not getattr(cls, "_boundary_", None):
        raise CannotTravel(f"{cls.__qualname__} has a boundary of its own; {REMEDY}")
    members: list[tuple[str, Any]] = list(cls.__members__.items())
    attributes = {
        name: value
        for name, value in vars(cls).items()
        if name not in _MADE_BY_TYPE and name not in cls.__members__ and _is_of_enum(name, value)
    }
    _see(pickler, cls, attributes)
    own = {
        name: {key: value for key, value in vars(member).items() if key[:1] != "_"}
        for name, member in members
    }
    state = {"attributes": attributes, "annotations": [], "members": own}
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    values = [(name, member.value) for name, member in members]
    made = number_of(cls), cls.__name__, cls.__bases__, namespace, values
    return far.make_enum, made, state, None, None, far.fill_class


def _is_of_enum(name: str, value: Any) -> bool:
    """Does it stand in the statement of the enumeration, rather than being made of it?"""
    function = value.fget if type(value) is property else getattr(value, "__func__", value)
    if type(function) is FunctionType:
        is_python_s = is_importable(function) or function.__globals__ is vars(enum)
        return not is_python_s and name not in ("__new__", "__init__", "__new_member__")
    return name[:1] != "_" and not isinstance(value, enum.property)
