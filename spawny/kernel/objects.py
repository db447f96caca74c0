"""The objects that clients hold references to, and what clients are told of their types.

The one rule: only the main thread changes an export table, so no lock is needed and no user
`__del__` ever runs elsewhere.
"""

import collections.abc
import itertools
import operator
import sys
import types
import weakref

from . import wire

# Results of these types are never copied to a client, whatever pickle thinks of them.
ALWAYS_REFERENCES = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    types.CodeType,
    types.FrameType,
    type([].__add__),  # method-wrapper
    type(list.append),  # method_descriptor
    type(object.__init__),  # wrapper_descriptor
)


def _power(base, exponent, modulus=None):
    return pow(base, exponent) if modulus is None else pow(base, exponent, modulus)


def _exit(manager, failure):
    from .failures import rebuild  # which needs this module

    leave = type(manager).__exit__
    if failure is None:
        return leave(manager, None, None, None)
    error = rebuild(failure)
    try:
        raise error
    except BaseException:
        try:
            return leave(manager, type(error), error, error.__traceback__)
        except BaseException as raised:
            if raised is error:
                return False  # so the client goes on with its own one
            raise


def _exact(convert, kind):
    """`convert`, its result stripped of any subclass, as these special methods must give it."""

    def converted(*args):
        result = convert(*args)
        return result if type(result) is kind else kind.__new__(kind, result)

    return converted


def _text(value, convert=str):
    result = convert(value)
    return result if type(result) is str else "".join(result)


def _copy(value):
    import copy  # which few daemons need

    return copy.copy(value)


def _deepcopy(value):
    import copy

    return copy.deepcopy(value)


def _is_subclass(cls, subclass):
    """Like issubclass, but also for the name of a class that the client had to do without."""
    if type(subclass) is not str:
        return issubclass(subclass, cls)
    family, known = [cls], set()
    while family:
        each = family.pop()
        if "%s.%s" % (each.__module__, each.__qualname__) == subclass:
            return True
        if each not in known:
            known.add(each)
            family += type.__subclasses__(each)
    return False


# Special methods are carried out by what triggers them in Python, not by calling the method: so
# reflected operands, the priority of subclasses and TypeErrors come out just as they do there.
OPERATIONS = {
    "__add__": operator.add,
    "__sub__": operator.sub,
    "__mul__": operator.mul,
    "__matmul__": operator.matmul,
    "__truediv__": operator.truediv,
    "__floordiv__": operator.floordiv,
    "__mod__": operator.mod,
    "__divmod__": divmod,
    "__pow__": _power,
    "__lshift__": operator.lshift,
    "__rshift__": operator.rshift,
    "__and__": operator.and_,
    "__xor__": operator.xor,
    "__or__": operator.or_,
    "__iadd__": operator.iadd,
    "__isub__": operator.isub,
    "__imul__": operator.imul,
    "__imatmul__": operator.imatmul,
    "__itruediv__": operator.itruediv,
    "__ifloordiv__": operator.ifloordiv,
    "__imod__": operator.imod,
    "__ipow__": operator.ipow,
    "__ilshift__": operator.ilshift,
    "__irshift__": operator.irshift,
    "__iand__": operator.iand,
    "__ixor__": operator.ixor,
    "__ior__": operator.ior,
    "__neg__": operator.neg,
    "__pos__": operator.pos,
    "__abs__": operator.abs,
    "__invert__": operator.invert,
    "__lt__": operator.lt,
    "__le__": operator.le,
    "__eq__": operator.eq,
    "__ne__": operator.ne,
    "__gt__": operator.gt,
    "__ge__": operator.ge,
    "__contains__": operator.contains,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__delitem__": operator.delitem,
    "__len__": len,
    "__length_hint__": operator.length_hint,
    "__bool__": bool,
    "__hash__": hash,
    "__int__": _exact(int, int),
    "__float__": _exact(float, float),
    "__complex__": _exact(complex, complex),
    "__index__": _exact(operator.index, int),
    "__round__": round,
    "__trunc__": lambda value: type(value).__trunc__(value),
    "__floor__": lambda value: type(value).__floor__(value),
    "__ceil__": lambda value: type(value).__ceil__(value),
    "__str__": _text,
    "__repr__": lambda value: _text(value, repr),
    "__bytes__": _exact(bytes, bytes),
    "__format__": lambda value, spec: _text(format(value, spec)),
    "__fspath__": lambda value: type(value).__fspath__(value),
    "__dir__": lambda value: [name for name in dir(value) if type(name) is str],
    "__iter__": iter,
    "__reversed__": reversed,
    "__next__": next,
    "__enter__": lambda value: type(value).__enter__(value),
    "__exit__": _exit,
    "__instancecheck__": lambda cls, instance: isinstance(instance, cls),
    "__subclasscheck__": _is_subclass,
    "__get__": lambda value, instance, owner: type(value).__get__(value, instance, owner),
    "__set__": lambda value, instance, new: type(value).__set__(value, instance, new),
    "__delete__": lambda value, instance: type(value).__delete__(value, instance),
    "__set_name__": lambda value, owner, name: type(value).__set_name__(value, owner, name),
    "__copy__": _copy,
    "__deepcopy__": _deepcopy,
}

# "__radd__" -> "__add__". A proxy has the reflected method whenever its type has either, since
# `[0] + proxy` must reach the daemon although lists have no __radd__.
_BINARY = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or".split()
_REFLECTED = {"__r%s__" % name: "__%s__" % name for name in _BINARY}


def _reflect(forward):
    return lambda value, other: forward(other, value)


OPERATIONS.update((name, _reflect(OPERATIONS[plain])) for name, plain in _REFLECTED.items())

# What an object gives for an attribute of its class of one of these types: a new one each time,
# whatever the object is like. Of all others the object itself has to be asked.
_METHOD_KINDS = (
    (types.FunctionType, "method"),
    (type(list.append), "builtin_function_or_method"),  # method_descriptor
    (type(object.__init__), "method-wrapper"),  # wrapper_descriptor
    (type(dict.__dict__["fromkeys"]), "builtin classmethod"),
)
METHOD_TYPES = tuple(each for each, _ in _METHOD_KINDS)


class UnknownReference(ReferenceError):
    """A client named an object that is not (or no longer) exported."""

    def __init__(self, oid):
        if type(oid) is bytes:
            text = "this process was started anew, and its definition has not made %r"
            oid = oid.decode("utf-8", "replace")
        else:
            text = "no object %r is referenced here any more"
        super().__init__(text % (oid,))


class Export:
    """An object that clients refer to."""

    __slots__ = ("obj", "count", "chunk")

    def __init__(self, obj, count=0):
        self.obj = obj
        self.count = count  # of the references of all sessions
        self.chunk = None  # the last one, of an iterator; see streams.py


class Exports:
    """Objects by number. Each session holds counts; an object goes with its last count.

    A name instead of a number, such as b"os.getpid", is what the root has by that name now.
    """

    def __init__(self):
        self._objects = {}  # oid -> Export
        self._oids = {}  # id(object) -> oid, valid while the export above keeps the object alive
        self._next = wire.ROOT + 1
        # type -> (type id, description, methods); weakly, or every class ever sent would stay
        self._types = weakref.WeakKeyDictionary()
        self._type_ids = itertools.count()
        self.root = None

    def set_root(self, root):
        self.root = root
        self._objects[wire.ROOT] = Export(root, 1)
        self._oids[id(root)] = wire.ROOT

    def __len__(self):
        return len(self._objects)

    def get(self, oid):
        try:
            return self._objects[oid].obj
        except (KeyError, TypeError):
            if type(oid) is bytes:
                return self._named(oid)
            raise UnknownReference(oid) from None

    def export(self, oid):
        """The Export of that number, which a name is not; raises as `get` does."""
        try:
            return self._objects[oid]
        except (KeyError, TypeError):
            raise UnknownReference(oid) from None

    def _named(self, name):
        found = self.root
        try:
            for each in name.decode().split("."):
                found = getattr(found, each)
        except (AttributeError, UnicodeError):
            raise UnknownReference(name) from None
        return found

    def replace(self, oid, obj):
        """Let the number stand for another object: what an iterator was wrapped into."""
        export = self._objects[oid]
        if obj is not export.obj:
            del self._oids[id(export.obj)]
            self._oids[id(obj)] = oid
        export.obj, export.chunk = obj, None

    def reference(self, obj, session):
        """One more reference of `session` to `obj`: the body of a REFERENCE frame.

        The description of its type is in it the first time that this session meets the type.
        """
        oid = self._oids.get(id(obj))
        if oid is None:
            oid, self._next = self._next, self._next + 1
            self._oids[id(obj)] = oid
            self._objects[oid] = Export(obj)
        if oid != wire.ROOT:
            self._objects[oid].count += 1
            session.counts[oid] = session.counts.get(oid, 0) + 1
        type_id, description, methods = self.describe(type(obj))
        known = type_id in session.types
        session.types.add(type_id)
        return oid, type_id, _shadowed(obj, methods), None if known else description

    def release(self, session, oid, count):
        held = session.counts.get(oid, 0)
        count = min(count, held)
        if count < held:
            session.counts[oid] = held - count
        else:
            session.counts.pop(oid, None)
        self._drop(oid, count)

    def release_all(self, session):
        counts, session.counts = session.counts, {}
        for oid, count in counts.items():
            self._drop(oid, count)

    def inherit(self, session, parent):
        """Give `session` (of a forked process) its own count on all that `parent` holds."""
        for oid, count in parent.counts.items():
            self._objects[oid].count += count
            session.counts[oid] = session.counts.get(oid, 0) + count

    def _drop(self, oid, count):
        export = self._objects.get(oid)
        if export is None or oid == wire.ROOT:
            return
        export.count -= count
        if export.count <= 0:
            del self._oids[id(export.obj)]
            del self._objects[oid]

    def describe(self, cls):
        """(type id, description, names of plain methods) of a type; worked out once per type."""
        try:
            known = self._types.get(cls)
        except TypeError:  # a metaclass without a hash
            cls, known = object, self._types.get(object)
        if known is None:
            kinds = _method_kinds(cls)
            methods = frozenset(kinds)
            description = _describe(cls, kinds)
            known = self._types[cls] = (next(self._type_ids), description, methods)
        return known


MISSING = object()

# Those that are no operation by themselves: the client carries them out by other requests.
_ASYNC_NAMES = ["__await__", "__aiter__", "__anext__", "__aenter__", "__aexit__"]
# All proxies have these, whatever their type has.
_OF_ALL_PROXIES = ["__copy__", "__deepcopy__"]
_SPECIAL_NAMES = sorted(set(OPERATIONS).union(_ASYNC_NAMES).difference(_OF_ALL_PROXIES))


def _describe(cls, kinds):
    """What a client is told of a type; see docs/protocol-call.md."""
    module = cls.__module__
    methods = {}
    for name in sorted(kinds):
        methods.setdefault(kinds[name], []).append(name)
    return {
        "module": module if isinstance(module, str) else "?",
        "qualname": cls.__qualname__,
        "specials": [name for name in _SPECIAL_NAMES if _has_special(cls, name)],
        "unhashable": lookup(cls, "__hash__") is None,
        "hash": "identity" if lookup(cls, "__hash__") is object.__hash__ else "value",
        "callable": lookup(cls, "__call__") is not MISSING,
        "collections": _collections(cls),
        "iterator": lookup(cls, "__next__") is not MISSING,
        "methods": methods,
        "attributes": sorted(_underscored(cls).difference(methods)),
        "lookup": _lookup_kind(cls),
    }


def lookup(cls, name):
    """The attribute as Python looks special methods up: on the type, never on the instance."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return MISSING


def _has_special(cls, name):
    if name == "__bool__":
        return True  # every object has a truth value
    if name == "__getitem__" and issubclass(cls, type):
        return True  # by the __class_getitem__ of the class that such an object is
    if name in _REFLECTED and lookup(cls, _REFLECTED[name]) is not MISSING:
        return True
    found = lookup(cls, name)
    if found is MISSING and name in ("__iter__", "__contains__", "__reversed__"):
        if name == "__reversed__" and lookup(cls, "__len__") is MISSING:
            return False
        return lookup(cls, "__getitem__") is not MISSING  # what they fall back to
    return found is not MISSING and found is not None


def _collections(cls):
    """The abstract classes that isinstance() and `match` take instances for, the nearest ones.

    Text is no sequence to `match`, and isinstance() knows it by its class.
    """
    if issubclass(cls, (str, bytes, bytearray)):
        return []
    found = [each for each in _ABSTRACT if issubclass(cls, each)]
    if cls.__module__ != "builtins" and "numbers" in sys.modules:
        numbers = sys.modules["numbers"]
        towers = (numbers.Integral, numbers.Rational, numbers.Real, numbers.Complex, numbers.Number)
        found += [each for each in towers if issubclass(cls, each)]
    nearest = [one for one in found if not any(_is_above(one, each) for each in found)]
    return [(each.__module__, each.__name__) for each in nearest]


# Those that one is by declaration; of others, such as Iterable, the special methods tell.
_ABSTRACT = tuple(
    getattr(collections.abc, name)
    for name in (
        "MutableSequence Sequence MutableSet Set MutableMapping Mapping KeysView ItemsView"
        " ValuesView MappingView"
    ).split()
)


def _is_above(one, other):
    return one is not other and issubclass(other, one)


def _method_kinds(cls):
    """{name: kind} of what is surely a method of every instance that does not shadow it."""
    if _lookup_kind(cls) in ("object", "dynamic", "routine"):
        return {}
    kinds = {}
    for base in cls.__mro__:
        for name in base.__dict__:
            kind = _method_kind(lookup(cls, name))
            if kind is not None and type(name) is str:
                kinds[name] = kind
    return kinds


def _method_kind(attribute):
    if isinstance(attribute, (classmethod, staticmethod)):
        if type(attribute.__func__) is not types.FunctionType:
            return None
        return "classmethod" if isinstance(attribute, classmethod) else "function"
    for each, kind in _METHOD_KINDS:
        if isinstance(attribute, each):
            return kind
    return None


def _lookup_kind(cls):
    """How instances come to their attributes, and how much of them the type tells.

    "type": it tells all; "instance": all but what is in the `__dict__` of each; "object": each
    module and class has its own; "routine": so has each bound method, that of its function;
    "dynamic": code decides.
    """
    if issubclass(cls, (type, types.ModuleType)):
        return "object"
    if issubclass(cls, types.MethodType):
        return "routine"
    if lookup(cls, "__getattr__") is not MISSING:
        return "dynamic"
    if _is_python_code(lookup(cls, "__getattribute__")) or issubclass(cls, _GO_BETWEENS):
        return "dynamic"
    return "instance" if lookup(cls, "__dict__") is not MISSING else "type"


def _is_python_code(function):
    # Every builtin type has a __getattribute__ of its own, which does what object's does.
    return isinstance(getattr(function, "__code__", None), types.CodeType)


_GO_BETWEENS = (super,) + weakref.ProxyTypes


def _is_underscored(name):
    """Is it `__so__`, or `_so_` as IPython has them? Such names are asked of every object."""
    return type(name) is str and name[:1] == "_" == name[-1:]


def _underscored(cls):
    return set(name for base in cls.__mro__ for name in base.__dict__ if _is_underscored(name))


def _shadowed(obj, methods):
    """Names that this very object has an attribute of its own for, and that its type seems to
    tell all about: those of methods, and `__so__`."""
    try:
        own = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return ()
    if not own or type(own) is not dict or isinstance(obj, types.ModuleType):
        return ()
    return tuple(
        name for name in own if name in methods or _is_underscored(name) and name[:2] == "__"
    )
