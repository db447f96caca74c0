"""What inspects proxies is answered from here: `dir`, `help`, `inspect`, tab completion, debuggers.

The one rule: nobody waits twice for the same. One round trip brings all that is to be known of an
object; until this process asks its daemon for anything else, which may change the object, nothing
more is asked. What a type tells of all its objects is asked once.
"""

from __future__ import annotations

import sys

from ..errors import DaemonDied, StaleReference
from ..kernel import wire
from .proxy import (
    MethodProxy,
    ObjectProxy,
    Reference,
    bound_method,
    has_local_attribute,
    reference_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any

# Told for as long as the object lives, and for this once.
_ALWAYS, _NEVER = -1, -3

_MISSING = object()


class Facts:
    """What was told of an object by the `inspection.py` of its daemon."""

    __slots__ = ("_signature", "dir", "generation", "is_dynamic", "likeness", "names", "values")

    def __init__(self, told: dict[str, Any], generation: int) -> None:
        self.generation = _ALWAYS if told["is_stable"] else generation
        self.dir: list[str] = told["dir"]
        self.names = frozenset(told["names"])
        self.is_dynamic: bool = told["is_dynamic"]
        self.likeness: type | None = None
        self.values: dict[str, Any] = told["texts"]
        self._signature = told.get("signature")
        for name, (proxy, facts) in told["objects"].items():
            self.values[name] = proxy
            reference = reference_of(proxy)
            reference.facts[None] = Facts(facts, generation)
            if facts["constants"]:
                _remember_code(reference, facts)

    def value(self, name: str) -> Any:
        """The attribute's value, _MISSING where there surely is none; None where to ask for it."""
        if name == "__signature__" and self._signature is not None:
            if type(self._signature) is tuple:
                self._signature = _signature(*self._signature)
            return (self._signature,)
        if name in self.values:
            value = self.values[name]
            return ({} if type(value) is dict else value,)
        return None if name in self.names or self.is_dynamic else _MISSING


def facts_of(reference: Reference, name: str | None = None) -> Facts:
    """What is to be known of the object, or of its attribute of that name."""
    session = reference.session
    known = reference.facts.get(name)
    if known is not None and known.generation in (_ALWAYS, session.generation):
        return known
    # Looked at before: what another thread requests meanwhile may change the object. So may the
    # call that goes on when the callback that asks returns.
    generation = _NEVER if session.nested else session.generation
    facts = Facts(reference.ask(wire.INSPECT, name), generation)
    reference.facts[name] = facts
    return facts


def underscored(proxy: ObjectProxy, reference: Reference, name: str) -> Any:
    """An attribute whose name begins with an underscore: asked by machinery, as a rule."""
    try:
        return _underscored(proxy, reference, name)
    except (DaemonDied, StaleReference) as gone:
        if name[-1:] != "_":
            raise
        # Who looks through all objects, such as a debugger, expects no other error.
        raise AttributeError(f"{name!r} of a proxy of what is gone: {gone}", name=name) from gone


def _underscored(proxy: ObjectProxy, reference: Reference, name: str) -> Any:
    kind = reference.remote_type
    if name == "__origin__" and _asks_help():
        return _origin(reference)
    if name == "__mro_entries__" and kind.is_class:
        return _no_base(reference)
    if kind.lookup in ("type", "instance") and name not in reference.shadowed:
        is_of_type = name in kind.attributes or name in kind.methods
        is_special = name[:2] == "__" == name[-2:]
        if not is_of_type and (kind.lookup == "type" or is_special) and not _is_told(kind, name):
            raise _no_attribute(kind.qualname, name)
        if not (is_of_type or name[-1:] == "_" or kind.is_routine):
            return _ask(reference, name)  # somebody's private attribute
    has_facts = name in _TOLD or name not in kind.attributes or kind.lookup == "object"
    if has_facts and kind.lookup != "dynamic":
        found = facts_of(reference).value(name)
        if found is _MISSING:
            raise _no_attribute(kind.qualname, name)
        if found is not None:
            return found[0]
    elif _is_told(kind, name):
        found = facts_of(reference).value(name)
        if type(found) is tuple:
            return found[0]
    return _ask(reference, name)


def method_attribute(method: MethodProxy, owner: ObjectProxy, method_name: str, name: str) -> Any:
    """The same of a method that was not fetched: it need not be, if the facts know."""
    reference = reference_of(owner)
    kind = reference.remote_type.methods[method_name]
    if name == "__name__":
        return method_name
    if name == "__class__":
        return reference.remote_type.class_of_method(method_name)
    if name == "__self__" and kind in ("method", "builtin_function_or_method", "method-wrapper"):
        return owner
    if not has_local_attribute(name):
        found = facts_of(reference, method_name).value(name)
        if found is _MISSING:
            raise _no_attribute(kind, name)
        if found is not None:
            return found[0]
    return getattr(bound_method(method), name)


# What facts have a value for, which the object need not have: `inspect` looks for it first.
_TOLD = frozenset(
    [
        "__doc__",
        "__name__",
        "__qualname__",
        "__module__",
        "__text_signature__",
        "__file__",
        "__func__",
        "__kwdefaults__",
        "__annotations__",
        "__self__",
        "__wrapped__",
        "__code__",
        "__signature__",
    ]
)


def _is_told(kind: Any, name: str) -> bool:
    return name == "__signature__" and bool(kind.is_callable)


def _ask(reference: Reference, name: str) -> Any:
    return reference.ask(wire.GETATTR, name)


def _no_attribute(kind: str, name: str) -> AttributeError:
    return AttributeError(f"{kind!r} object has no attribute {name!r}", name=name)


def _no_base(reference: Reference) -> Any:
    def mro_entries(bases: Any) -> Any:
        raise TypeError(
            f"a class here cannot inherit from {reference.operate('__repr__', ())}, which lives in"
            f" daemon {reference.session.name!r}: define the subclass there, in its script or"
            " module, or keep a proxy of an instance and pass on to it"
        )

    return mro_entries


# --- signatures ---


class Text(str):
    """A default value or an annotation that stays in its daemon: shown as it is shown there."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(parameters: list[tuple[Any, ...]], result: tuple[Any, ...]) -> inspect.Signature:
    import inspect

    def item(told: tuple[Any, ...]) -> Any:
        if len(told) < 2:
            return told[0] if told else inspect.Parameter.empty
        name, text = told
        return getattr(sys.modules["builtins"], name or "", None) or Text(text)

    made = [
        inspect.Parameter(
            name,
            inspect._ParameterKind(kind),
            default=item(default),
            annotation=item(annotation),
        )
        for name, kind, default, annotation in parameters
    ]
    # Unchecked, or an order that only another Python allows could not be shown.
    return inspect.Signature(made, return_annotation=item(result), __validate_parameters__=False)


# --- sources ---


def _remember_code(reference: Reference, facts: dict[str, Any]) -> None:
    """A code object's constants; the text of its script goes where `inspect` looks for files."""
    reference.constants = facts["constants"]
    text, filename = facts.get("source"), facts["constants"]["co_filename"]
    if text is None:
        return
    import linecache
    import os

    if not os.path.exists(filename):
        linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)


# --- what help() shows ---


def _asks_help() -> bool:
    """Of an instance, help() shows the class, and of an alias such as `list[int]` its origin.

    By the latter it can be given a class to show for an instance or class that is not here.
    """
    # Above this function: two of this module, two of proxy.py; hasattr() has no frame.
    return sys._getframe(5).f_globals.get("__name__") == "pydoc"


def _origin(reference: Reference) -> type:
    """A class that looks like the remote one, or like that of the instance; for help() alone."""
    facts = facts_of(reference)
    owner = facts if reference.remote_type.is_class else reference.remote_type
    if owner.likeness is None:
        told = reference.ask(wire.INSPECT, "__origin__")
        owner.likeness = _likeness(told)
    return owner.likeness


def _likeness(lineage: list[dict[str, Any]]) -> type:
    made: list[type] = [object] * len(lineage)
    for number in reversed(range(len(lineage))):
        told = lineage[number]
        bases = tuple(made[base] for base in told["bases"]) or (object,)
        made[number] = _builtin(told) or _class_like(told, bases)
    return made[0] if made else object


def _builtin(told: dict[str, Any]) -> type | None:
    found = getattr(sys.modules["builtins"], told["qualname"], None)
    return found if told["module"] == "builtins" and isinstance(found, type) else None


def _class_like(told: dict[str, Any], bases: tuple[type, ...]) -> type:
    namespace: dict[str, Any] = {
        "__module__": told["module"],
        "__qualname__": told["qualname"],
        "__doc__": told["doc"],
    }
    for member in told["members"]:
        namespace[member[0]] = _member_like(told, *member)
    name = told["qualname"].rpartition(".")[2]
    try:
        return type(name, bases, namespace)
    except TypeError:  # their layouts conflict here, or one is final
        return type(name, (), namespace)


def _member_like(told: dict[str, Any], name: str, kind: str, doc: Any, more: Any) -> Any:
    if kind == "data":
        return Text(more)

    def member(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("this is for help() alone")

    member.__name__, member.__qualname__ = name, f"{told['qualname']}.{name}"
    member.__module__, member.__doc__ = told["module"], doc
    if kind == "property":
        return property(member, doc=doc)
    if more is not None:
        member.__signature__ = _signature(*more)  # type: ignore[attr-defined]
    return {"staticmethod": staticmethod, "classmethod": classmethod}.get(kind, _as_it_is)(member)


def _as_it_is(function: Any) -> Any:
    return function
