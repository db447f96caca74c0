"""Proxies: objects here that stand for objects in a daemon.

All attributes of a proxy belong to the remote object; what is ours sits in a `Reference` behind one
slot, and what one may ask *about* a proxy is in functions (`spawny.daemon(p)`, `spawny.value(p)`).
The classes of proxies, one for each remote type, are made by `remote_type.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import DaemonDied, InvalidRequest, StaleReference
from ..kernel import wire
from .arguments import with_items
from .serialize import Unsendable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from .inspection import Facts
    from .references import Epitaph, Run
    from .remote_type import RemoteType
    from .session import Session
    from .streams import Stream

    # An object's number in its daemon, or a name, such as b"os.getpid", that the root has it by.
    Oid: TypeAlias = int | bytes


# The number of what is gone: no object's.
GONE = -1


def is_lasting(oid: Oid) -> bool:
    """Does it mean the same to the next daemon?"""
    return oid == wire.ROOT or type(oid) is bytes


class Reference:
    """What is ours of a proxy: which object of which session it stands for.

    That is the object's number or, in a daemon after the one in which it was looked up, its name.
    `name` is that name: None where it has none, and b"" where it has more than one.
    """

    __slots__ = (
        "constants",
        "count",
        "facts",
        "name",
        "oid",
        "remote_type",
        "session",
        "shadowed",
        "stream",
    )

    def __init__(
        self,
        session: Session | Epitaph,
        oid: Oid,
        remote_type: RemoteType,
        shadowed: tuple[str, ...],
    ) -> None:
        self.session = session
        self.oid = oid
        self.remote_type = remote_type
        self.shadowed = shadowed
        self.name: bytes | None = None
        self.stream: Stream | None = None  # of an iterator, once it was asked for an item
        self.count = 1  # how many times the daemon has sent it, all to be released
        self.facts: dict[str | None, Facts] = {}  # what inspection.py knows of it
        self.constants: dict[str, Any] | None = None  # attributes that never change

    def found_as(self, attribute: str, owner: Reference) -> None:
        """The owner has the object as this attribute. Functions, classes and modules that a module
        that is the root has so, be it through others, are found by that name in the next daemon."""
        is_root = owner.oid == wire.ROOT
        is_named = (is_root or owner.name) and owner.remote_type.is_namespace
        if not is_named or not self.remote_type.is_found_by_name:
            return
        name = attribute.encode("utf-8", "surrogatepass")
        if not is_root:
            name = b"%s.%s" % (owner.name, name)
        # Of two names, which may have been bound to it for a while, nobody knows the right one.
        is_it = "." not in attribute and self.name in (None, name)
        self.name = name if is_it else b""

    def ask(self, kind: int, *fields: Any, flags: int = 0) -> Any:
        """What comes of a request for this object."""
        return self.session.request(kind, (self.oid, *fields), flags, self)

    def operate(self, name: str, args: tuple[Any, ...], flags: int = 0) -> Any:
        return self.ask(wire.OPERATE, name, args, flags=flags)


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
        if name[:1] == "_":
            return _underscored(self, reference, name)
        constants = reference.constants
        if constants is not None and name in constants:
            return constants[name]
        return reference.session.request(wire.GETATTR, (reference.oid, name), 0, reference)

    def __setattr__(self, name: str, value: Any) -> None:
        reference: Reference = reference_of(self)
        reference.ask(wire.SETATTR, name, value)
        if name in reference.remote_type.methods or name[:2] == "__":
            reference.shadowed = (*reference.shadowed, name)

    def __delattr__(self, name: str) -> None:
        reference: Reference = reference_of(self)
        reference.ask(wire.DELATTR, name)
        reference.shadowed = tuple(one for one in reference.shadowed if one != name)

    def __repr__(self) -> str:
        reference: Reference = reference_of(self)
        try:
            return str(reference.operate("__repr__", ()))
        except (DaemonDied, StaleReference):
            kind, name = reference.remote_type.qualname, reference.session.name
            return f"<proxy of a {kind} in daemon {name!r}, which is gone>"

    def __dir__(self) -> list[str]:
        reference: Reference = reference_of(self)
        return facts_of(reference).dir

    def __copy__(self) -> Any:
        reference: Reference = reference_of(self)
        return reference.operate("__copy__", (), wire.KEEP)

    def __deepcopy__(self, memo: Any = None) -> Any:
        reference: Reference = reference_of(self)
        return reference.operate("__deepcopy__", (), wire.KEEP)

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
        if name[:1] == "_":
            from .inspection import method_attribute

            return method_attribute(self, _method_owner(self), _method_name(self), name)
        return getattr(bound_method(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(bound_method(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(bound_method(self), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        reference: Reference = reference_of(self)
        name: str = _method_name(self)
        try:
            request = (reference.oid, name, args, kwargs)
            return reference.session.request(wire.METHOD, request, 0, reference)
        except Unsendable as refused:
            args, kwargs = with_items(refused, args, kwargs)
        return reference.ask(wire.METHOD, name, args, kwargs)

    def __eq__(self, other: object) -> Any:
        return bound_method(self) == other

    def __hash__(self) -> int:
        return hash(bound_method(self))

    def __repr__(self) -> str:
        return repr(bound_method(self))

    def __dir__(self) -> list[str]:
        reference: Reference = reference_of(self)
        return facts_of(reference, _method_name(self)).dir

    def __copy__(self) -> Any:
        return bound_method(self).__copy__()

    def __deepcopy__(self, memo: Any = None) -> Any:
        return bound_method(self).__deepcopy__(memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bound_method(self).__reduce_ex__(protocol)


# For those who go past __getattribute__, such as help().
REMOTE_DOC = property(lambda self: self.__doc__)
MethodProxy.__doc__ = REMOTE_DOC  # type: ignore[assignment]

_method_name = MethodProxy.__dict__["_spawny_name"].__get__
_set_method_name = MethodProxy.__dict__["_spawny_name"].__set__
_method_owner = MethodProxy.__dict__["_spawny_owner"].__get__
_set_method_owner = MethodProxy.__dict__["_spawny_owner"].__set__
_new = object.__new__


def _make_method(owner: ObjectProxy, reference: Reference, name: str) -> MethodProxy:
    method: MethodProxy = _new(MethodProxy)
    _set_reference(method, reference)
    _set_method_name(method, name)
    _set_method_owner(method, owner)  # or the object could be released under the method
    return method


def has_local_attribute(name: str) -> bool:
    """Is this one answered here for every proxy?"""
    return name in _LOCAL_ATTRIBUTES


def method_name_of(proxy: ObjectProxy) -> str | None:
    """The name of a method that was not fetched yet, else None."""
    return _method_name(proxy) if type(proxy) is MethodProxy else None


def call_request(
    proxy: ObjectProxy, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[int, tuple[Any, ...]]:
    """(kind, fields) of the request that calls what the proxy stands for."""
    oid, name = reference_of(proxy).oid, method_name_of(proxy)
    if name is None:
        return wire.CALL, (oid, args, kwargs)
    return wire.METHOD, (oid, name, args, kwargs)


def checked_proxy(obj: Any) -> ObjectProxy:
    """The same object; raises `InvalidRequest` where it is no proxy."""
    if not issubclass(type(obj), ObjectProxy):
        raise InvalidRequest(f"{type(obj).__name__} object is no proxy")
    return obj  # type: ignore[no-any-return]


def bound_method(method: MethodProxy) -> Any:
    """The real bound method behind a MethodProxy, as a proxy; fetched once."""
    slot = MethodProxy.__dict__["_spawny_method"]
    try:
        return slot.__get__(method)
    except AttributeError:
        reference: Reference = reference_of(method)
        fetched = reference.ask(wire.GETATTR, _method_name(method), flags=wire.KEEP)
        slot.__set__(method, fetched)
        return fetched


def make_proxy(reference: Reference) -> ObjectProxy:
    """A new proxy of the class of its remote type."""
    proxy: ObjectProxy = _new(reference.remote_type.proxy_class)
    _set_reference(proxy, reference)
    return proxy


# --- attributes that are not simply the remote object's -------------------------------------------


def facts_of(reference: Reference, name: str | None = None) -> Facts:
    """What is to be known of the object, or of that attribute of it, without asking twice."""
    from .inspection import facts_of

    return facts_of(reference, name)


def _underscored(proxy: ObjectProxy, reference: Reference, name: str) -> Any:
    from .inspection import underscored

    return underscored(proxy, reference, name)


def _class(proxy: ObjectProxy) -> type:
    # isinstance() looks at type(proxy) first, then here: a proxy of a str is an instance of both.
    return reference_of(proxy).remote_type.local_class() or type(proxy)


def _copier(proxy: ObjectProxy) -> Callable[[], Any]:
    return lambda: ObjectProxy.__copy__(proxy)


def _deepcopier(proxy: ObjectProxy) -> Callable[..., Any]:
    return lambda memo=None: ObjectProxy.__deepcopy__(proxy, memo)


def attach_again(
    name: str,
    run: Run | None = None,
    oid: Oid = wire.ROOT,
    found_as: bytes | None = None,
    digest: str = "",
) -> Any:
    """What a pickled proxy becomes where it is loaded: a proxy of the same object.

    The number is of that very run of the daemon, the name of any that has this definition; the root
    is that of whatever runs by now.
    """
    from .launch import attach
    from .session import session_of

    session: Session | Epitaph | None = session_of(name, run)
    if session is None:
        root = attach(name)  # kept until there is another proxy: its session lives as long
        session = reference_of(root).session
        if run is not None and session.run != run:
            if not found_as or session.started["digest"] != digest:
                raise StaleReference(
                    f"this proxy was of a daemon {name!r} that has ended; another one runs now:"
                    f" spawny.attach({name!r}) reaches it"
                )
            oid = found_as
    proxy = session.request(wire.GETVALUE, (oid,), wire.KEEP)
    reference: Reference = reference_of(proxy)
    if reference.name is None:
        reference.name = found_as
    return proxy


def _reduce(proxy: ObjectProxy) -> Callable[..., Any]:
    """A pickle of a proxy holds no reference: it is good while the object is referenced from
    elsewhere, by the proxy as a rule."""

    def reduce_ex(protocol: Any = None) -> Any:
        reference: Reference = reference_of(proxy)
        session = reference.session
        if reference.oid == wire.ROOT:
            return attach_again, (session.name,)
        digest = session.started["digest"]
        return attach_again, (session.name, session.run, reference.oid, reference.name, digest)

    return reduce_ex


def _terminate(proxy: ObjectProxy) -> Callable[[], None]:
    from .run import terminate

    return lambda: terminate(proxy)


def _array(proxy: ObjectProxy) -> Callable[..., Any]:
    """For numpy: what the remote `__array__` gives, copied, since memory cannot be shared."""
    reference: Reference = reference_of(proxy)
    if "__array__" not in reference.remote_type.attributes:
        raise AttributeError(f"{reference.remote_type.qualname!r} object has no '__array__'")

    def array(dtype: Any = None, copy: bool | None = None) -> Any:
        from .run import value

        if copy is False:
            raise ValueError(
                f"an array in daemon {reference.session.name!r} can only be had here as a copy"
            )
        made = value(reference_of(proxy).session.request(*_array_request(reference)))
        return made if dtype is None else made.astype(dtype, copy=False)

    return array


def _array_request(reference: Reference) -> tuple[int, tuple[Any, ...]]:
    if reference.remote_type.qualname == "ndarray":
        return wire.GETVALUE, (reference.oid,)
    return wire.METHOD, (reference.oid, "__array__", (), {})


def _no_address(name: str) -> Callable[[ObjectProxy], Any]:
    def refuse(proxy: ObjectProxy) -> Any:
        raise AttributeError(f"{name} is an address in another process")

    return refuse


# These reach another process's memory by address, which would crash this one.
_ADDRESSES = (
    "__array_interface__",
    "__array_struct__",
    "__cuda_array_interface__",
    "__dlpack__",
    "__dlpack_device__",
    "__buffer__",
    "__release_buffer__",
    "_as_parameter_",
)

_LOCAL_ATTRIBUTES: dict[str, Callable[[ObjectProxy], Any]] = {
    "__class__": _class,
    "__copy__": _copier,
    "__deepcopy__": _deepcopier,
    "__reduce__": _reduce,
    "__reduce_ex__": _reduce,
    "__array__": _array,
    "terminate_daemon": _terminate,
    **{name: _no_address(name) for name in _ADDRESSES},
}
