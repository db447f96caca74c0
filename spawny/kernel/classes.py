"""Classes that clients define, put together from what is sent; see `code.py`.

A class is made empty first and filled then, since what is in it may lead back to it. The statement
that made it is not executed once more: what decorators, metaclasses and `__init_subclass__` did to
the class is in what is sent, and what they noted elsewhere is not to be noted twice.

The same class of the client's is one class here, however often it is sent.
"""

import types
import weakref

from . import code

# Classes that travelled by value, by their number and the other way round; at the client's end too.
by_number = weakref.WeakValueDictionary()
numbers = weakref.WeakKeyDictionary()


def _track(number, cls):
    by_number[number] = cls
    try:
        numbers[cls] = number
    except TypeError:  # its metaclass has no hash
        pass
    return cls


def _is_ours(cls):
    try:
        return cls in numbers
    except TypeError:
        return False


def make_class(number, kind, name, bases, namespace):
    """The class of this number, or a new one with nothing in it but its `namespace`."""
    known = by_number.get(number)
    if known is not None:
        return known
    put_aside = []
    for base in {each for direct in bases for each in direct.__mro__}:
        hook = base.__dict__.get("__init_subclass__") if _is_ours(base) else None
        if hook is not None:
            put_aside.append((base, hook))
            type.__delattr__(base, "__init_subclass__")
    try:
        if _is_ours(kind):
            # The same for what the metaclass does.
            outer = next(each for each in kind.__mro__ if not _is_ours(each))
            cls = outer.__new__(kind, name, bases, namespace)
        else:
            cls = types.new_class(name, bases, {"metaclass": kind}, lambda to: to.update(namespace))
    finally:
        for base, hook in put_aside:
            type.__setattr__(base, "__init_subclass__", hook)
    return _track(number, cls)


def fill_class(cls, state):
    """Give it the attributes that it has at the client now."""
    for name, value in state["attributes"].items():
        type.__setattr__(cls, name, value)
    if state["annotations"]:
        type.__setattr__(cls, "__annotations__", code.annotations(state["annotations"]))
    for each in state.get("registered", ()):
        cls.register(each)
    if "dataclass" in state:
        _make_dataclass(cls, *state["dataclass"])
    for name, attributes in state.get("members", {}).items():
        cls.__members__[name].__dict__.update(attributes)


def make_enum(number, name, bases, namespace, members):
    """An enumeration and its members: none can be added later."""
    known = by_number.get(number)
    if known is not None:
        return known
    kind = type(bases[-1])
    body = kind.__prepare__(name, bases)
    for each, value in list(namespace.items()) + members:
        body[each] = value
    cls = kind.__new__(kind, name, bases, body)
    if [(each, cls.__members__[each].value) for each in cls.__members__] != members:
        raise code.CodeError(
            "the members of %s come out differently here" % name,
            "move it into a module that both can import",
        )
    return _track(number, cls)


def make_named_tuple(number, name, fields, defaults, namespace):
    """A class of `collections.namedtuple`."""
    known = by_number.get(number)
    if known is not None:
        return known
    import collections

    # Where names may be replaced, those that are names already are not.
    cls = collections.namedtuple(name, fields, rename=True)
    if cls._fields != fields:
        text = "the fields of %s cannot have these names here: %s" % (name, ", ".join(fields))
        raise code.CodeError(text, "give them others")
    cls.__new__.__defaults__ = defaults
    for each, value in namespace.items():
        setattr(cls, each, value)
    return _track(number, cls)


def _make_dataclass(cls, parameters, fields):
    """Have `dataclass` add its methods again: they have no source."""
    import dataclasses
    import typing

    if "__dataclass_fields__" in cls.__dict__:
        return  # it was sent before
    kept = cls.__dict__.get("__annotations__", {})
    slots = {}
    hints = {}
    for name, kind, options in fields:
        if isinstance(cls.__dict__.get(name), types.MemberDescriptorType):
            slots[name] = cls.__dict__[name]
        # As they stand they may be texts that mean nothing here.
        hints[name] = object
        if kind == "_FIELD_CLASSVAR":
            hints[name] = typing.ClassVar
            continue
        if kind == "_FIELD_INITVAR":
            hints[name] = dataclasses.InitVar
        type.__setattr__(cls, name, dataclasses.field(**options))
    type.__setattr__(cls, "__annotations__", hints)
    dataclasses.dataclass(**parameters)(cls)
    type.__setattr__(cls, "__annotations__", kept)
    for name in hints:
        cls.__dataclass_fields__[name].type = kept.get(name, object)
    for name, slot in slots.items():
        type.__setattr__(cls, name, slot)
