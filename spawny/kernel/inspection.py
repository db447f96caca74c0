"""All that is to be known of an object, in one answer: what `dir`, `help`, `inspect` and tab
completion ask, who else would ask for it in twenty requests.

The one rule: only plain values are told, which every Python loads, and references to objects.
"""

import io
import itertools
import linecache
import pickle
import types

from . import objects, wire

# Of a longer repr, doc string or source only this much is told, or none.
REPR_LIMIT = 200
SOURCE_LIMIT_BYTES = 1 << 18

# Of a function that wraps one that wraps one that ...
DEPTH_LIMIT = 5

_ATOMS = frozenset([type(None), bool, int, float, complex, str, bytes, type(Ellipsis)])

# Told where they are text or None; of anything else the object itself is asked.
_TEXTS = ("__doc__", "__name__", "__qualname__", "__module__", "__text_signature__", "__file__")
# Told where they are empty.
_MAPPINGS = ("__annotations__", "__kwdefaults__")

# These are as they are as long as the object lives.
_CODE_NAMES = (
    "co_argcount co_kwonlyargcount co_nlocals co_flags co_filename co_firstlineno co_name"
).split()

_NO_TEXT = object()


class Kept:
    """An object of which a reference is told."""

    def __init__(self, obj):
        self.obj = obj


class _FactsPickler(pickle.Pickler):
    def persistent_id(self, item):
        if type(item) is not Kept:
            return None
        body = self.exports.reference(item.obj, self.connection.session)
        self.connection.referenced.append(body[0])
        self.references.append((None, 0, body))
        return len(self.references) - 1


def answer(exports, connection, target, name):
    """The frame that tells of an object, or of its attribute of that name.

    `__origin__` is what help() shows of an object: its class, with all that is inherited.
    """
    if name == "__origin__":
        told = lineage(target if isinstance(target, type) else type(target))
    else:
        # (The client has an owner of that method by itself.)
        told = facts(target, has_self=True) if name is None else facts(getattr(target, name))
    buffer = io.BytesIO()
    pickler = _FactsPickler(buffer, 4)
    pickler.exports, pickler.connection, pickler.references = exports, connection, []
    pickler.dump(told)
    body = pickle.dumps(pickler.references, 4) + buffer.getvalue()
    return wire.frame(wire.VALUE, body, wire.WITH_REFERENCES)


def _attempt(otherwise, function, *args):
    try:
        return function(*args)
    except Exception:
        return otherwise


def facts(obj, has_self=False, depth=0):
    """What is known of an object; see docs/protocol-call.md."""
    kind = type(obj)
    listed = _attempt([], dir, obj)
    told = {
        "dir": [name for name in listed if type(name) is str],
        "names": _names(obj, kind, listed),
        "texts": _texts(obj),
        # Without a `__dict__` it is, to all that is told here, what its type is.
        "is_stable": objects.lookup(kind, "__dict__") is objects.MISSING,
        "is_dynamic": isinstance(obj, types.ModuleType) and "__getattr__" in vars(obj),
        "constants": {},
        "objects": {},
    }
    if callable(obj):
        told["signature"] = _attempt(None, _signature, obj)
    if isinstance(obj, types.CodeType):
        told["constants"] = {name: getattr(obj, name) for name in _CODE_NAMES}
        told["source"] = _source(obj.co_filename)
    elif isinstance(obj, objects.ALWAYS_REFERENCES) and depth < DEPTH_LIMIT:
        for name in ("__func__", "__code__", "__wrapped__") + ("__self__",) * has_self:
            part = _attempt(None, getattr, obj, name)
            is_owner = name == "__self__" and part is not None
            if is_owner or isinstance(part, objects.ALWAYS_REFERENCES):
                told["objects"][name] = Kept(part), facts(part, depth=depth + 1)
    return told


def _names(obj, kind, listed):
    """Names of attributes that begin with an underscore, such as are asked of every object."""
    own = _attempt({}, object.__getattribute__, obj, "__dict__")
    names = set(itertools.chain(listed, _attempt([], dir, kind), own))
    if "__abstractmethods__" in names and not _attempt(False, hasattr, obj, "__abstractmethods__"):
        names.remove("__abstractmethods__")  # classes have it by name, and few in fact
    return sorted(name for name in names if type(name) is str and name[:1] == "_")


def _texts(obj):
    texts = {}
    for name in _TEXTS:
        value = _attempt(_NO_TEXT, getattr, obj, name)
        if value is None or isinstance(value, str):
            texts[name] = None if value is None else str.__str__(value)
    for name in _MAPPINGS:
        value = _attempt(_NO_TEXT, getattr, obj, name)
        if value is None or type(value) is dict and not value:
            texts[name] = value
    return texts


def _source(filename):
    """The text of a file that only this process has, as of a script."""
    known = linecache.cache.get(filename)
    if known is None or len(known) != 4 or known[1] is not None:
        return None
    size, _, lines, _ = known
    return "".join(lines) if size <= SOURCE_LIMIT_BYTES else None


# --- signatures ---


def _signature(obj):
    """([(name, kind, default, annotation), ...], annotation of the result)."""
    import inspect  # 10 ms, and most daemons are never inspected

    signature = inspect.signature(obj)
    parameters = [
        (each.name, int(each.kind), _item(each.default, repr), _annotation(each.annotation))
        for each in signature.parameters.values()
    ]
    return parameters, _annotation(signature.return_annotation)


def _annotation(annotation):
    import inspect

    return _item(annotation, inspect.formatannotation)


def _item(value, text_of):
    """() for none, (value,) where every Python loads it, else (name of a builtin or None, text)."""
    import inspect

    if value is inspect.Parameter.empty:
        return ()
    if type(value) in _ATOMS or (type(value) is tuple and _ATOMS.issuperset(map(type, value))):
        return (value,)
    name = value.__name__ if isinstance(value, type) and value.__module__ == "builtins" else None
    return name, _attempt("...", text_of, value)[:REPR_LIMIT]


# --- classes, as help() shows them ---

_NOT_SHOWN = frozenset(
    "__dict__ __weakref__ __module__ __doc__ __slots__ __init_subclass__ __class_getitem__"
    " __set_name__ __abstractmethods__ __qualname__ __classcell__".split()
)


def lineage(cls):
    """The classes that a class inherits from, itself first, as help() needs them."""
    classes = [each for each in cls.__mro__ if each is not object]
    return [_class_facts(each, classes) for each in classes]


def _class_facts(cls, classes):
    is_builtin = cls.__module__ == "builtins"
    return {
        "module": cls.__module__ if isinstance(cls.__module__, str) else "?",
        "qualname": cls.__qualname__,
        "doc": _texts(cls).get("__doc__"),
        "bases": [classes.index(base) for base in cls.__bases__ if base in classes],
        "members": [] if is_builtin else _members(cls),
    }


def _members(cls):
    """[(name, kind, doc, signature or repr), ...] of what stands in the class itself."""
    members = []
    for name, value in list(cls.__dict__.items()):
        if type(name) is not str or name in _NOT_SHOWN:
            continue
        kind, shown = "data", value
        for each in (staticmethod, classmethod, property):
            if isinstance(value, each):
                kind, shown = each.__name__, getattr(value, "__func__", value)
        if kind == "data" and isinstance(value, objects.METHOD_TYPES):
            kind = "function"
        if kind == "data":
            members.append((name, kind, None, _attempt("...", repr, value)[:REPR_LIMIT]))
        else:
            signature = None if kind == "property" else _attempt(None, _signature, shown)
            members.append((name, kind, _texts(shown).get("__doc__"), signature))
    return members
