"""One class of proxies for each remote type, made from a description that travels once.

Python looks special methods up on the type, so a proxy has those, and only those, that the remote
type has.
"""

from __future__ import annotations

import collections.abc
import sys
import types
from collections.abc import Callable

from ..kernel import wire
from .failures import describe_exception
from .proxy import REMOTE_DOC, ObjectProxy, Reference, reference_of
from .serialize import Unsendable
from .streams import iterate, iterate_itself, iterator_attribute, next_item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Types that call themselves members of builtins, but are only found in `types`.
_UNNAMED_TYPES = {
    each.__qualname__: each
    for each in vars(types).values()
    if isinstance(each, type) and each.__module__ == "builtins"
}


class RemoteType:
    """A type of a daemon, as described by it, and the class of its proxies here."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.module: str = description["module"]
        self.qualname: str = description["qualname"]
        self.methods = frozenset(description["methods"])
        self.proxy_class = _make_proxy_class(self.qualname, description)

    def local_class(self) -> type | None:
        """The class of this name here, if its module is loaded; never imports anything."""
        if self.module == "builtins" and self.qualname in _UNNAMED_TYPES:
            return _UNNAMED_TYPES[self.qualname]
        found: Any = sys.modules.get(self.module)
        for part in self.qualname.split("."):
            found = getattr(found, part, None)
        # A proxy of a class is none to C code, which would crash on it: it must not claim to be.
        return found if isinstance(found, type) and found is not type else None


def _operation(name: str) -> Callable[..., Any]:
    def special(self: ObjectProxy, *args: Any) -> Any:
        reference: Reference = reference_of(self)
        return reference.session.request(wire.OPERATE, (reference.oid, name, args))

    special.__name__ = special.__qualname__ = name
    return special


def _binary_operation(name: str) -> Callable[..., Any]:
    def special(self: ObjectProxy, *args: Any) -> Any:
        reference: Reference = reference_of(self)
        try:
            return reference.session.request(wire.OPERATE, (reference.oid, name, args))
        except Unsendable:
            return NotImplemented  # the other operand cannot go there, but may know what to do

    special.__name__ = special.__qualname__ = name
    return special


def _call(self: ObjectProxy, *args: Any, **kwargs: Any) -> Any:
    reference: Reference = reference_of(self)
    return reference.session.request(wire.CALL, (reference.oid, args, kwargs))


def _exit(self: ObjectProxy, kind: Any, error: BaseException | None, trace: Any) -> Any:
    reference: Reference = reference_of(self)
    if error is None and kind is not None:
        error = kind()
    failure = None if error is None else describe_exception(error)
    return reference.operate("__exit__", (failure,))


def _hash(self: ObjectProxy) -> int:
    """As equal objects here hash: of text and the like, each process has hashes of its own."""
    reference: Reference = reference_of(self)
    if reference.remote_type.qualname in _SALTED and reference.remote_type.module == "builtins":
        return hash(reference.session.request(wire.GETVALUE, (reference.oid,)))
    remote: int = reference.operate("__hash__", ())
    return remote


# Types whose hashes are salted anew in each process, or are made of such.
_SALTED = frozenset(["str", "bytes", "tuple", "frozenset"])

_BINARY_NAMES = (
    "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or radd rsub rmul"
    " rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror iadd isub imul"
    " imatmul itruediv ifloordiv imod ipow ilshift irshift iand ixor ior lt le eq ne gt ge"
)

_SPECIALS: dict[str, Callable[..., Any]] = {
    f"__{name}__": _binary_operation(f"__{name}__") for name in _BINARY_NAMES.split()
}
_SPECIALS["__iter__"] = iterate
_SPECIALS["__exit__"] = _exit
_SPECIALS["__hash__"] = _hash


def _special(name: str) -> Callable[..., Any]:
    method = _SPECIALS.get(name)
    if method is None:
        method = _SPECIALS[name] = _operation(name)
    return method


def _make_proxy_class(qualname: str, description: dict[str, Any]) -> type[ObjectProxy]:
    namespace: dict[str, Any] = {name: _special(name) for name in description["specials"]}
    namespace.pop("__repr__", None)  # ObjectProxy's own also answers when the daemon is gone
    namespace["__slots__"] = ()
    if description["unhashable"]:
        namespace["__hash__"] = None
    if description["callable"]:
        namespace["__call__"] = _call
    if description["iterator"]:
        namespace["__iter__"] = iterate_itself
        namespace["__next__"] = next_item
        namespace["__getattribute__"] = iterator_attribute(ObjectProxy.__getattribute__)
    namespace["__doc__"] = REMOTE_DOC
    proxy_class = type(f"ObjectProxy[{qualname}]", (ObjectProxy,), namespace)
    if description["collection"] is not None:
        # Registering is what makes `match` take it for one.
        getattr(collections.abc, description["collection"]).register(proxy_class)
    return proxy_class
