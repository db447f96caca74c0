"""One class of proxies for each remote type, made from a description that travels once.

Python looks special methods up on the type, so a proxy has those, and only those, that the remote
type has.
"""

from __future__ import annotations

import collections.abc
import sys
import types
from collections.abc import Callable

from ..errors import SerializationError
from ..kernel import wire
from .arguments import with_items
from .failures import describe_exception
from .proxy import REMOTE_DOC, ObjectProxy, Reference, has_local_attribute, reference_of
from .serialize import Unsendable
from .streams import iterate, iterate_backwards, iterate_itself, iterator_attribute, next_item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Types that call themselves members of builtins, but are only found in `types`.
_UNNAMED_TYPES = {
    each.__qualname__: each
    for each in vars(types).values()
    if isinstance(each, type) and each.__module__ == "builtins"
}

# Kinds of methods that are not the names of what one gets for them.
_BOUND_KINDS = {"classmethod": "method", "builtin classmethod": "builtin_function_or_method"}

_ROUTINES = frozenset(["function", "method", "builtin_function_or_method", "method-wrapper"])

# What a definition defines, beside classes; a state that it is bound to is the next daemon's.
_DEFINED = frozenset([*_ROUTINES, "builtin_function", "module"])  # one is PyPy's


class RemoteType:
    """A type of a daemon, as described by it, and the class of its proxies here."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.module: str = description["module"]
        self.qualname: str = description["qualname"]
        self.methods = {
            name: kind
            for kind, names in description["methods"].items()
            for name in names
            if not has_local_attribute(name)
        }
        self.attributes = frozenset(description["attributes"]).union(
            *description["methods"].values()
        )
        self.lookup: str = description["lookup"]
        self.is_callable: bool = description["callable"]
        self.is_class = "__subclasscheck__" in description["specials"]
        self.is_routine = self.module == "builtins" and self.qualname in _ROUTINES
        is_defined = self.module == "builtins" and self.qualname in _DEFINED
        # Descriptors that can be called are methods of the classes that they are in: functools'
        # caches, and what numpy and Cython have for functions.
        is_function = self.is_callable and "__get__" in self.attributes
        self.is_namespace = self.is_class or (self.module, self.qualname) == ("builtins", "module")
        self.is_found_by_name = self.is_class or is_defined or is_function
        self.has_value_hash: bool = description["hash"] == "value"
        self.likeness: type | None = None  # what help() shows, see inspection.py
        self.proxy_class = _make_proxy_class(self.qualname, description)

    def local_class(self) -> type | None:
        """The class of this name here, if its module is loaded; never imports anything."""
        if self.module == "builtins" and self.qualname in _UNNAMED_TYPES:
            return _UNNAMED_TYPES[self.qualname]
        found: Any = sys.modules.get(self.module)
        for part in self.qualname.split("."):
            found = getattr(found, part, None)
        # A proxy of a class is none to C code, which would crash on it: it must not claim to be.
        is_class = isinstance(found, type) and not issubclass(found, type)
        return found if is_class else None

    def class_of_method(self, name: str) -> type:
        """The class of what an object of this type gives for this method."""
        kind = self.methods[name]
        return _UNNAMED_TYPES[_BOUND_KINDS.get(kind, kind)]


def _operation(name: str) -> Callable[..., Any]:
    def special(self: ObjectProxy, *args: Any) -> Any:
        reference: Reference = reference_of(self)
        return reference.session.request(wire.OPERATE, (reference.oid, name, args), 0, reference)

    special.__name__ = special.__qualname__ = name
    return special


def _binary_operation(name: str) -> Callable[..., Any]:
    def special(self: ObjectProxy, *args: Any) -> Any:
        reference: Reference = reference_of(self)
        try:
            return reference.session.request(
                wire.OPERATE, (reference.oid, name, args), 0, reference
            )
        except Unsendable:
            return NotImplemented  # the other operand cannot go there, but may know what to do

    special.__name__ = special.__qualname__ = name
    return special


def _call(self: ObjectProxy, *args: Any, **kwargs: Any) -> Any:
    reference: Reference = reference_of(self)
    try:
        return reference.session.request(wire.CALL, (reference.oid, args, kwargs), 0, reference)
    except Unsendable as refused:
        args, kwargs = with_items(refused, args, kwargs)
    return reference.ask(wire.CALL, args, kwargs)


def _exit(self: ObjectProxy, kind: Any, error: BaseException | None, trace: Any) -> Any:
    reference: Reference = reference_of(self)
    if error is None and kind is not None:
        error = kind()
    failure = None if error is None else describe_exception(error)
    return reference.operate("__exit__", (failure,))


def _hash(self: ObjectProxy) -> int:
    """As equal objects here hash: of text and what holds text, each process has its own hashes."""
    reference: Reference = reference_of(self)
    kind = reference.remote_type
    is_salted = kind.has_value_hash and not (
        kind.module == "builtins" and kind.qualname in _NUMBERS
    )
    if is_salted and kind.local_class() is not None:
        try:
            return hash(reference.ask(wire.GETVALUE))
        except SerializationError:
            pass  # then no equal object can be here either
    remote: int = reference.operate("__hash__", ())
    return remote


_NUMBERS = frozenset(["int", "float", "complex", "bool"])


def _is_instance(self: ObjectProxy, instance: Any) -> bool:
    """By the class of the instance, which is quicker sent; only a protocol looks at more."""
    reference: Reference = reference_of(self)
    if issubclass(type(instance), ObjectProxy):
        if reference_of(instance).session is not reference.session:
            return False
        return bool(reference.operate("__instancecheck__", (instance,)))
    try:
        return _is_subclass(self, type(instance))
    except TypeError:
        return bool(reference.operate("__instancecheck__", (instance,)))


def _is_subclass(self: ObjectProxy, subclass: Any) -> bool:
    # The class of an exception that came from there, and that does not import here, has its name.
    lineage = getattr(subclass, "_spawny_lineage", None)
    told = subclass if lineage is None else f"{lineage[0]}.{lineage[1]}"
    reference: Reference = reference_of(self)
    try:
        return bool(reference.operate("__subclasscheck__", (told,)))
    except Unsendable:
        return False  # no class there can be above one that it cannot even load


def _get(self: ObjectProxy, instance: Any, owner: Any = None) -> Any:
    """A function in a class here becomes a method of its instances, as any function does."""
    reference: Reference = reference_of(self)
    if reference.remote_type.is_routine:
        return self if instance is None else types.MethodType(self, instance)
    try:
        return reference.operate("__get__", (instance, owner))
    except Unsendable:
        if instance is None:
            return self
        return reference.operate("__get__", (instance, None))


def _set_name(self: ObjectProxy, owner: Any, name: str) -> None:
    reference: Reference = reference_of(self)
    try:
        reference.operate("__set_name__", (owner, name))
    except Unsendable:
        reference.operate("__set_name__", (None, name))  # the name is what they want


_BINARY_NAMES = (
    "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or radd rsub rmul"
    " rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror iadd isub imul"
    " imatmul itruediv ifloordiv imod ipow ilshift irshift iand ixor ior lt le eq ne gt ge"
)

_SPECIALS: dict[str, Callable[..., Any]] = {
    f"__{name}__": _binary_operation(f"__{name}__") for name in _BINARY_NAMES.split()
}
_SPECIALS["__iter__"] = iterate
_SPECIALS["__reversed__"] = iterate_backwards
_SPECIALS["__exit__"] = _exit
_SPECIALS["__hash__"] = _hash
_SPECIALS["__instancecheck__"] = _is_instance
_SPECIALS["__subclasscheck__"] = _is_subclass
_SPECIALS["__get__"] = _get
_SPECIALS["__set_name__"] = _set_name

# ObjectProxy's own: dir() is cached, and repr() also answers when the daemon is gone.
_OF_ALL = frozenset(["__repr__", "__dir__"])


def _asynchronous(function: str) -> Callable[..., Any]:
    def special(self: ObjectProxy, *args: Any) -> Any:
        from . import aio

        return getattr(aio, function)(self, *args)

    return special


_SPECIALS["__await__"] = _asynchronous("await_proxy")
_SPECIALS["__aiter__"] = _asynchronous("iterate")
_SPECIALS["__anext__"] = _asynchronous("next_item")
_SPECIALS["__aenter__"] = _asynchronous("enter")
_SPECIALS["__aexit__"] = _asynchronous("leave")


def _special(name: str) -> Callable[..., Any]:
    method = _SPECIALS.get(name)
    if method is None:
        method = _SPECIALS[name] = _operation(name)
    return method


def _gives_itself(description: dict[str, Any]) -> bool:
    """Is `iter()` of such an iterator surely that very one? That of user code may begin anew."""
    methods: dict[str, list[str]] = description["methods"]
    return description["module"] == "builtins" or "__iter__" in methods.get("method-wrapper", ())


def _make_proxy_class(qualname: str, description: dict[str, Any]) -> type[ObjectProxy]:
    namespace: dict[str, Any] = {
        name: _special(name) for name in description["specials"] if name not in _OF_ALL
    }
    namespace["__slots__"] = ()
    namespace["__module__"] = ObjectProxy.__module__
    if description["unhashable"]:
        namespace["__hash__"] = None
    if description["callable"]:
        namespace["__call__"] = _call
    if description["iterator"]:
        if _gives_itself(description):
            namespace["__iter__"] = iterate_itself
        namespace["__next__"] = next_item
        namespace["__getattribute__"] = iterator_attribute(ObjectProxy.__getattribute__)
    if "__subclasscheck__" in namespace and "__iter__" not in namespace:
        # A class has __getitem__ for its __class_getitem__, and is no sequence by that.
        namespace["__iter__"] = namespace["__contains__"] = None
    # Of anything else help() is to show the class, which it would not if there were a text.
    namespace["__doc__"] = REMOTE_DOC if qualname in _ROUTINES or qualname == "module" else None
    proxy_class = type(f"ObjectProxy[{qualname}]", (ObjectProxy,), namespace)
    for module, name in description["collections"]:
        # Registering is also what makes `match` take it for one.
        _abstract_class(module, name).register(proxy_class)
    return proxy_class


def _abstract_class(module: str, name: str) -> Any:
    if module == "collections.abc":
        return getattr(collections.abc, name)
    import numbers  # the only others that there are

    return getattr(numbers, name)
