"""Proxies: objects here that stand for objects in a daemon.

All attributes of a proxy belong to the remote object; what is ours sits in a `Reference` behind one
slot, and what one may ask *about* a proxy is in functions (`spawny.daemon(p)`, `spawny.value(p)`).
For each remote type one class is made, from a description that travels once: Python looks special
methods up on the type, so a proxy has those, and only those, that the remote type has.
"""

from __future__ import annotations

import collections.abc
import sys
import types
from collections.abc import Callable, Iterator

from ..errors import DaemonDied, SerializationError, StaleReference
from ..kernel import wire
from .serialize import Unsendable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .session import Epitaph, Session

# The most items that one round trip of an iteration brings, and how the number grows.
CHUNK_FIRST, CHUNK_GROWTH, CHUNK_MOST = 32, 4, 8192

# These reach another process's memory by address, which would crash this one.
_ADDRESSES = frozenset(
    ["__array_interface__", "__array_struct__", "__cuda_array_interface__", "__dlpack__"]
)

# Types that call themselves members of builtins, but are only found in `types`.
_UNNAMED_TYPES = {
    each.__qualname__: each
    for each in vars(types).values()
    if isinstance(each, type) and each.__module__ == "builtins"
}


class Reference:
    """What is ours of a proxy: which object of which session it stands for."""

    __slots__ = ("count", "oid", "remote_type", "session", "shadowed")

    def __init__(
        self,
        session: Session | Epitaph,
        oid: int,
        remote_type: RemoteType,
        shadowed: tuple[str, ...],
    ) -> None:
        self.session = session
        self.oid = oid
        self.remote_type = remote_type
        self.shadowed = shadowed
        self.count = 1  # how many times the daemon has sent it, all to be released

    def operate(self, name: str, args: tuple[Any, ...]) -> Any:
        return self.session.request(wire.OPERATE, (self.oid, name, args))


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


class ObjectProxy:
    """Stands for an object in a daemon; behaves like it in every way that it can.

    `terminate_daemon()`, on any proxy, ends the daemon.
    """

    __slots__ = ("__weakref__", "_spawny_reference")

    def __new__(cls, *args: Any, **kwargs: Any) -> ObjectProxy:
        raise TypeError("proxies are made by run_script, run_module, run_object and attach")

    def __getattribute__(self, name: str) -> Any:
        reference: Reference = reference_of(self)
        if name in reference.remote_type.methods and name not in reference.shadowed:
            return _make_method(self, reference, name)
        local = _LOCAL_ATTRIBUTES.get(name)
        if local is not None:
            return local(self)
        if name in _ADDRESSES:
            raise AttributeError(f"{name} is an address in another process")
        return reference.session.request(wire.GETATTR, (reference.oid, name))

    def __setattr__(self, name: str, value: Any) -> None:
        reference: Reference = reference_of(self)
        reference.session.request(wire.SETATTR, (reference.oid, name, value))
        if name in reference.remote_type.methods:
            reference.shadowed = (*reference.shadowed, name)

    def __delattr__(self, name: str) -> None:
        reference: Reference = reference_of(self)
        reference.session.request(wire.DELATTR, (reference.oid, name))
        reference.shadowed = tuple(one for one in reference.shadowed if one != name)

    def __repr__(self) -> str:
        reference: Reference = reference_of(self)
        try:
            return str(reference.operate("__repr__", ()))
        except (DaemonDied, StaleReference):
            kind, name = reference.remote_type.qualname, reference.session.name
            return f"<proxy of a {kind} in daemon {name!r}, which is gone>"

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        def terminate_daemon(self) -> None:
            """End the daemon that this object lives in."""


# The one way in: a slot's descriptor goes past __getattribute__, and is C.
reference_of: Callable[[ObjectProxy], Reference] = ObjectProxy.__dict__["_spawny_reference"].__get__
_set_reference = ObjectProxy.__dict__["_spawny_reference"].__set__


class MethodProxy(ObjectProxy):
    """A method of a proxied object, known from its type's description: calling it is the first
    and only round trip. Anything else asked of it fetches the real bound method."""

    __slots__ = ("_spawny_method", "_spawny_name", "_spawny_owner")

    def __getattribute__(self, name: str) -> Any:
        if name == "__name__":
            return _method_name(self)
        return getattr(bound_method(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(bound_method(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(bound_method(self), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        reference: Reference = reference_of(self)
        return reference.session.request(
            wire.METHOD, (reference.oid, _method_name(self), args, kwargs)
        )

    def __eq__(self, other: object) -> Any:
        return bound_method(self) == other

    def __hash__(self) -> int:
        return hash(bound_method(self))

    def __repr__(self) -> str:
        return repr(bound_method(self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bound_method(self).__reduce_ex__(protocol)


# For those who go past __getattribute__, such as help().
_REMOTE_DOC = property(lambda self: self.__doc__)
MethodProxy.__doc__ = _REMOTE_DOC  # type: ignore[assignment]

_method_name = MethodProxy.__dict__["_spawny_name"].__get__
_set_method_name = MethodProxy.__dict__["_spawny_name"].__set__
_set_method_owner = MethodProxy.__dict__["_spawny_owner"].__set__
_new = object.__new__


def _make_method(owner: ObjectProxy, reference: Reference, name: str) -> MethodProxy:
    method: MethodProxy = _new(MethodProxy)
    _set_reference(method, reference)
    _set_method_name(method, name)
    _set_method_owner(method, owner)  # or the object could be released under the method
    return method


def method_target(proxy: ObjectProxy) -> tuple[Reference, str] | None:
    """(reference to the object, name) of a method that was not fetched yet, else None."""
    if type(proxy) is MethodProxy:
        return reference_of(proxy), _method_name(proxy)
    return None


def bound_method(method: MethodProxy) -> Any:
    """The real bound method behind a MethodProxy, as a proxy; fetched once."""
    slot = MethodProxy.__dict__["_spawny_method"]
    try:
        return slot.__get__(method)
    except AttributeError:
        reference: Reference = reference_of(method)
        fetched = reference.session.request(
            wire.GETATTR, (reference.oid, _method_name(method)), wire.KEEP
        )
        slot.__set__(method, fetched)
        return fetched


def make_proxy(reference: Reference) -> ObjectProxy:
    """A new proxy of the class of its remote type."""
    proxy: ObjectProxy = _new(reference.remote_type.proxy_class)
    _set_reference(proxy, reference)
    return proxy


# --- attributes that are not the remote object's ------------------------------------------------


def _class(proxy: ObjectProxy) -> type:
    # isinstance() looks at type(proxy) first, then here: a proxy of a str is an instance of both.
    return reference_of(proxy).remote_type.local_class() or type(proxy)


def attach_again(name: str) -> ObjectProxy:
    """What a pickled root proxy becomes where it is loaded."""
    from .launch import attach

    return attach(name)


def _reduce(proxy: ObjectProxy) -> Callable[..., Any]:
    def reduce_ex(protocol: Any = None) -> Any:
        reference: Reference = reference_of(proxy)
        if reference.oid != wire.ROOT:
            raise SerializationError(
                f"a proxy of a {reference.remote_type.qualname} in daemon"
                f" {reference.session.name!r} cannot be pickled or copied: use spawny.value(...)"
            )
        return attach_again, (reference.session.name,)

    return reduce_ex


def _terminate(proxy: ObjectProxy) -> Callable[[], None]:
    from .run import terminate

    return lambda: terminate(proxy)


_LOCAL_ATTRIBUTES: dict[str, Callable[[ObjectProxy], Any]] = {
    "__class__": _class,
    "__reduce__": _reduce,
    "__reduce_ex__": _reduce,
    "terminate_daemon": _terminate,
}


# --- the class of a remote type -----------------------------------------------------------------


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


def _iterate(self: ObjectProxy) -> Iterator[Any]:
    """The items, fetched in growing chunks where that cannot be noticed."""
    reference: Reference = reference_of(self)
    # Now, not at the first next(): what is not iterable must say so to iter() itself.
    iterator = reference.session.request(wire.OPERATE, (reference.oid, "__iter__", ()), wire.KEEP)
    return _chunks(reference_of(iterator), iterator)


def _chunks(reference: Reference, iterator: ObjectProxy) -> Iterator[Any]:
    most = CHUNK_FIRST
    is_over = False
    while not is_over:
        items, is_over = reference.session.request(wire.NEXT, (reference.oid, most))
        yield from items
        most = min(most * CHUNK_GROWTH, CHUNK_MOST)
    del iterator  # until here it kept the remote iterator alive


def _iterate_itself(self: ObjectProxy) -> ObjectProxy:
    return self


def _exit(self: ObjectProxy, kind: Any, error: BaseException | None, trace: Any) -> Any:
    reference: Reference = reference_of(self)
    if error is None and kind is not None:
        error = kind()
    try:
        return reference.operate("__exit__", (error,))
    except Unsendable:
        # It is told at least that there was one, of a class that it has.
        return reference.operate("__exit__", (RuntimeError(f"{type(error).__name__}: {error}"),))


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
_SPECIALS["__iter__"] = _iterate
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
        namespace["__iter__"] = _iterate_itself
    namespace["__doc__"] = _REMOTE_DOC
    proxy_class = type(f"ObjectProxy[{qualname}]", (ObjectProxy,), namespace)
    if description["collection"] is not None:
        # Registering is what makes `match` take it for one.
        getattr(collections.abc, description["collection"]).register(proxy_class)
    return proxy_class
