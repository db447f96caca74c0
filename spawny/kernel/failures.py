"""Exceptions as they travel: told at one end, rebuilt at the other; the same file at both ends.

A *failure* is what is told of an exception:

    (pickle or None, module, qualified name, text, traceback, details)

`details` is a dict of plain values, so that what fails to load costs itself alone:

    lineage  (module, qualified name, lineages of its bases), down to what every Python has
    args     its arguments, each an item
    fields   {name: item} of its slots, such as `errno`, `value`, `lineno`
    state    {name: item} of its `__dict__`, notes among them
    repr     its repr, where its class has one of its own
    tracked  the number of its class, where that came from the other end by value
    members  (message, failures) of an exception group

An item is (value,) where every Python loads it, else (pickle or None, repr). A failure of five
fields is an error of spawny's own: the class of that name in `spawny.errors`, and in place of the
pickle {package: version} of what may be the reason, or None. The pickle is there
for classes that say themselves how they are pickled. All others are rebuilt without their
`__init__`, whose parameters are seldom those that the exception was given as `args`.
"""

import copyreg
import pickle
import sys
import traceback
import types

from . import buffers, objects, wire

# Tracebacks and reprs go into one frame of the link, too, which has a limit.
TEXT_LIMIT = 200000

# Of a longer traceback (a recursion's, as a rule) the beginning and the end are told.
TRACEBACK_LINES = 400

REPR_LIMIT = 10000

# Groups within groups are told down to here: a pickle of more would not be made, or not load.
GROUP_DEPTH = 50

# What every Python unpickles from either end.
_PROTOCOL = 4

_FOLDER = __file__.rpartition("/")[0]


class KernelError(Exception):
    """An error of spawny's own, raised at the client as the class of that name in spawny.errors."""

    def __init__(self, kind, message, remote_traceback=""):
        super().__init__(message)
        self.kind = kind
        self.remote_traceback = remote_traceback
        self.versions = None  # {package: version here} of what may be the reason


class ClientTraceback(Exception):
    """The traceback of an exception of the client's, as the cause of the one rebuilt here."""

    __module__ = "spawny"  # as a traceback names it

    def __str__(self):
        return "\n" + self.args[0].rstrip()


class Likeness(str):
    """The repr of an object that could not travel, in its place."""

    def __repr__(self):
        return str(self)

    def __reduce__(self):
        return str, (_plain(self),)


def _attempt(otherwise, function, *args):
    try:
        return function(*args)
    except BaseException:
        return otherwise


def _attempt_unless_interrupted(otherwise, function, *args):
    try:
        return function(*args)
    except KeyboardInterrupt:
        raise  # for who waits for the exception that is being rebuilt
    except BaseException:
        return otherwise


# --- telling ---


def describe(error, depth=0):
    """The failure that tells of this exception; never fails, whatever the exception is like."""
    kind = type(error)
    if issubclass(kind, KernelError):
        return error.versions, "spawny.errors", error.kind, str(error), error.remote_traceback
    if kind is objects.UnknownReference:
        return None, "spawny.errors", "StaleReference", str(error), ""
    pickled = None
    if _attempt(True, _pickles_itself, kind):
        pickled = _attempt(None, pickle.dumps, error, _PROTOCOL)
    details = _attempt({}, _details, kind, error, depth)
    return (pickled,) + describe_error(error) + (format_error(error), details)


def describe_error(error):
    """(module, qualified name, message) of an exception, as plain texts, whatever it is like."""
    module, qualname = _names(type(error))
    message = _attempt("(its text cannot be made)", lambda: _plain(str(error))[:TEXT_LIMIT])
    return module, qualname, message


def error_frame(connection, error):
    """The frame for an exception; never fails, whatever the exception is like."""
    failure = describe(error)
    body = _attempt(None, pickle.dumps, failure, _PROTOCOL)
    if body is None:  # of some hundreds of classes that derive from each other, say
        body = pickle.dumps(failure[:5] + ({},), _PROTOCOL)
    return wire.frame(wire.ERROR, body)


def _names(kind):
    lineage = type.__dict__["__dict__"].__get__(kind).get("_spawny_lineage")
    if lineage is not None:  # a substitute: it goes on under the names of what it stands for
        return lineage[:2]
    # One made by type() in code without a `__name__` has none.
    module = _attempt(None, type.__dict__["__module__"].__get__, kind)
    qualname = type.__dict__["__qualname__"].__get__(kind)
    return _plain(module) if isinstance(module, str) else "?", qualname


# Text of a subclass of str is stripped of the subclass.
_plain = str.__str__


def _pickles_itself(kind):
    """Does the class say how its exceptions are pickled, other than those of Python itself?"""
    if "_spawny_lineage" in kind.__dict__:
        return False
    return kind in copyreg.dispatch_table or any(
        name in base.__dict__
        for base in kind.__mro__
        if base.__module__ != "builtins"
        for name in ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
    )


def _details(kind, error, depth):
    details = {"lineage": _lineage(kind)}
    number = _tracked("BY_CLASS", kind)
    if number is not None:
        details["tracked"] = number
    if _is_group(kind):
        # Not str(error): that counts the members, too.
        members = error.exceptions
        if depth == GROUP_DEPTH:
            members = [Exception("%d exceptions are left out here" % len(members))]
        details["members"] = error.message, [describe(each, depth + 1) for each in members]
    else:
        details["args"] = [_item(each) for each in BaseException.args.__get__(error)]
    details["fields"] = _fields(kind, error)
    state = object.__getattribute__(error, "__dict__")
    ours = _OF_SUBSTITUTES if "_spawny_lineage" in kind.__dict__ else ()
    details["state"] = {name: _item(state[name]) for name in state if name not in ours}
    if kind.__repr__ is not BaseException.__repr__:
        details["repr"] = _repr(error)
    return details


def _lineage(kind):
    known = kind.__dict__.get("_spawny_lineage")
    if known is not None:
        return known
    names = _names(kind)
    is_known_everywhere = names[0] == "builtins" and kind in _BUILTINS
    bases = () if is_known_everywhere else [b for b in kind.__bases__ if b is not object]
    return names + (tuple(_lineage(each) for each in bases),)


# Those of the oldest Python; a newer one tells of its own by their bases.
_BUILTINS = frozenset(
    each
    for each in vars(sys.modules["builtins"]).values()
    if isinstance(each, type)
    and issubclass(each, BaseException)
    and each.__name__ not in ("BaseExceptionGroup", "ExceptionGroup", "EncodingWarning")
    and each.__name__ != "PythonFinalizationError"
)


def _is_group(kind):
    group = getattr(sys.modules["builtins"], "BaseExceptionGroup", None)
    return group is not None and issubclass(kind, group)


_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)

# Set by Python, or told otherwise; `obj` is what lacks an attribute, and as large as may be.
_NO_FIELDS = frozenset(
    "args obj exceptions message with_traceback __traceback__ __context__ __cause__"
    " __suppress_context__ __dict__ __weakref__".split()
)


def _fields(kind, error):
    fields = {}
    for base in kind.__mro__:
        for name, slot in base.__dict__.items():
            if isinstance(slot, _SLOTS) and name not in _NO_FIELDS:
                value = _attempt(None, slot.__get__, error)
                if value is not None:
                    fields.setdefault(name, _item(value))
    return fields


_ATOMS = frozenset([type(None), bool, int, float, complex, str, bytes])


def _item(value):
    if type(value) in _ATOMS:
        return (value,)
    return _attempt(None, pickle.dumps, value, _PROTOCOL), _repr(value)


def _repr(value):
    otherwise = "<%s object>" % type(value).__name__
    return _attempt(otherwise, lambda: _plain(repr(value))[:REPR_LIMIT])


# --- its traceback ---

_traceback_of = BaseException.__dict__["__traceback__"]


def format_error(error):
    """The traceback as text, without the frames that are ours."""
    text = _attempt(None, _format, error, True)
    if text is None:  # a chain that is too long, say
        text = _attempt("(its traceback cannot be formatted)", _format, error, False)
    lines = text.splitlines(True)
    if len(lines) > TRACEBACK_LINES:
        half = TRACEBACK_LINES // 2
        lines[half:-half] = ["  [%d lines left out]\n" % (len(lines) - 2 * half)]
        text = "".join(lines)
    if len(text) > TEXT_LIMIT:
        half = TEXT_LIMIT // 2 - 50
        text = text[:half] + "\n  [the middle is left out]\n" + text[-half:]
    return text


def _format(error, chain):
    whole = traceback.TracebackException(type(error), error, _traceback_of.__get__(error))
    pending = [whole]
    while pending:
        each = pending.pop()
        each.stack[:] = [frame for frame in each.stack if not frame.filename.startswith(_FOLDER)]
        pending += filter(None, [each.__cause__, each.__context__])
        pending += getattr(each, "exceptions", None) or ()
    return "".join(whole.format(chain=chain))


def forget_traceback(error):
    """Let the frames of an exception go: they hold the arguments of a call that is over."""
    _attempt(None, _traceback_of.__set__, error, None)


# --- rebuilding ---


def rebuild(failure):
    """The client's exception that this failure tells of, with its traceback there as the cause."""
    error = restore(failure)
    if failure[4]:
        BaseException.__cause__.__set__(error, ClientTraceback(failure[4]))
    return error


def restore(failure, substitute_base=None):
    """The exception of a failure, without its traceback.

    One whose class does not import here gets a substitute, which derives from `substitute_base`
    besides.
    """
    pickled, module, qualname, text, trace = failure[:5]
    details = failure[5] if len(failure) > 5 else {}
    error = None
    if pickled is not None:
        error = _attempt_unless_interrupted(None, pickle.loads, pickled)
    if not isinstance(error, BaseException):
        lineage = details.get("lineage") or (module, qualname, ())
        kind = _tracked("BY_ID", details.get("tracked")) or _find_class(module, qualname)
        error = kind and _attempt_unless_interrupted(None, _make, kind, details, substitute_base)
        if error is None:
            kind = _substitute(lineage, substitute_base)
            error = _make(kind, details, substitute_base)
            vars(error).update(
                type_name="%s.%s" % (module, qualname),
                remote_message=text,
                remote_traceback=trace,
                remote_repr=details.get("repr"),
            )
    notes = _load(details.get("state", {}).get("__notes__", (None,)))
    if notes and not hasattr(error, "__notes__"):
        _attempt_unless_interrupted(None, object.__setattr__, error, "__notes__", notes)
    return error


# What a substitute keeps in its `__dict__` that was not the original's.
_OF_SUBSTITUTES = ("type_name", "remote_message", "remote_traceback", "remote_repr")


def _tracked(by, key):
    """Of a class that travelled by value, as one made in a function does, the number; or the other
    way round. Account of them is kept at both ends, and so they are known when they return."""
    ours = sys.modules.get(__package__ + ".classes")
    lender = sys.modules.get(__package__ + ".code")
    if ours is not None:
        found = (ours.numbers if by == "BY_CLASS" else ours.by_number).get(key)
        if found is not None:
            return found
    lent = [] if lender is None else lender.lent_modules()
    for module in [sys.modules.get("cloudpickle.cloudpickle")] + lent:
        found = getattr(module, "_DYNAMIC_CLASS_TRACKER_" + by, {}).get(key)
        if found is not None:
            return found
    return None


def _find_class(module, qualname):
    """The exception class of that name, importing its module as pickle would; None without one."""
    try:
        __import__(module)
        found = sys.modules[module]
        for part in qualname.split("."):
            found = getattr(found, part)
        return found if issubclass(found, BaseException) else None
    except Exception:
        return None


def _load(item):
    if len(item) == 1:
        return item[0]
    pickled, likeness = item
    try:
        return buffers.loads(pickled)
    except Exception:
        return Likeness(likeness)


def _make(kind, details, substitute_base):
    """An exception of this class, filled in without a line of the class's own code."""
    if "members" in details and _is_group(kind):
        message, failures = details["members"]
        args = message, [restore(each, substitute_base) for each in failures]
        error = _blank(kind, args)
    else:
        args = tuple(map(_load, details.get("args", ()))) or details.get("members", ())[:1]
        error = _blank(kind, args)
        BaseException.args.__set__(error, args)
    for name, item in details.get("fields", {}).items():
        _attempt_unless_interrupted(None, object.__setattr__, error, name, _load(item))
    state = object.__getattribute__(error, "__dict__")
    for name, item in details.get("state", {}).items():
        state[name] = _load(item)
    return error


def _blank(kind, args):
    """A new exception on which no `__init__` was called."""
    reason = TypeError("%s cannot be made" % kind.__name__)
    for base in kind.__mro__:
        new = base.__dict__.get("__new__")
        if new is None or base.__module__ != "builtins":
            continue
        for each in (args, ()):
            try:
                return base.__new__(kind, *each)
            except (TypeError, ValueError) as error:  # it insists on another base's, or on others
                reason = error
    raise reason


# Two exceptions of one class must have one class here; more classes than this are made anew.
_SUBSTITUTES_LIMIT = 1000
_substitutes = {}


def _substitute(lineage, extra):
    """A class of that name, made from the nearest bases that are found here."""
    bases = []
    for base in ([] if extra is None else [extra]) + _nearest(lineage[2]):
        if not any(issubclass(each, base) for each in bases):
            bases = [each for each in bases if not issubclass(base, each)] + [base]
    bases = bases or [Exception]
    key = lineage, tuple(bases)
    found = _substitutes.get(key)
    if found is not None:
        return found
    module, qualname, _ = lineage
    namespace = {
        "__module__": module,
        "__qualname__": qualname,
        "__str__": _substitute_str,
        "__repr__": _substitute_repr,
        "__reduce__": _substitute_reduce,
        "_spawny_lineage": lineage,
        "_spawny_base": extra,
    }
    name = qualname.rpartition(".")[2]
    kind = None
    while kind is None:
        try:
            # Of the bases' metaclass there may be more to know than we do.
            kind = type(name, tuple(bases), namespace)
        except TypeError:  # two of them differ in layout, or one takes no subclasses
            if len(bases) == 1:
                bases = [Exception]
            else:
                del bases[-1]
    if len(_substitutes) < _SUBSTITUTES_LIMIT:
        _substitutes[key] = kind
    return kind


def _nearest(lineages):
    found = []
    for module, qualname, bases in lineages:
        kind = _find_class(module, qualname)
        found += _nearest(bases) if kind is None else [kind]
    return found


def _substitute_str(self):
    return self.remote_message


def _substitute_repr(self):
    return self.remote_repr or BaseException.__repr__(self)


def _substitute_reduce(self):
    return _restore_substitute, (describe(self), type(self)._spawny_base)


def _restore_substitute(failure, extra):
    return restore(failure, extra)
