"""What goes back to a client: a value or a reference, decided once per type."""

import io
import pickle
import sys
import weakref

from . import buffers, objects, wire
from .failures import KernelError

ATOMS = frozenset([type(None), bool, int, float, complex, str, bytes, type(NotImplemented)])

# Pickle protocol 4 and 5 name a class or function by this opcode alone; a pickle without it loads
# anywhere. The byte may occur as data too: then a value is held a little longer than needed.
_STACK_GLOBAL = b"\x93"

_NONE = wire.frame(wire.VALUE, pickle.dumps(None, 4))

# How a value of a type answers.
_ATOM, _VALUE, _REFERENCE = range(3)


class Answers:
    """Encodes results for one daemon's clients."""

    def __init__(self, exports):
        self._exports = exports
        self._modes = weakref.WeakKeyDictionary()  # of types that are no atoms
        self.script_module = None  # classes of a script's own module import nowhere else

    def _mode(self, cls):
        try:
            if cls in ATOMS:
                return _ATOM
            mode = self._modes.get(cls)
            if mode is None:
                mode = self._modes[cls] = self._decide_mode(cls)
            return mode
        except Exception:
            return _REFERENCE  # a class of a metaclass that cannot even be hashed, say

    def _decide_mode(self, cls):
        by_reference = (
            issubclass(cls, objects.ALWAYS_REFERENCES + (io.IOBase,))
            or objects.lookup(cls, "__next__") is not objects.MISSING
            or cls.__module__ in (self.script_module, "__main__")
        )
        return _REFERENCE if by_reference else _VALUE

    def encode(self, connection, result, target=None, keep=False):
        """The frame that answers with `result`.

        A method that returns its own object (`target`) answers with a reference to it, so that
        identity holds; otherwise what can be copied is.
        """
        if result is None and not keep:
            return _NONE
        mode = self._mode(type(result))
        if keep or mode is _REFERENCE or (mode is not _ATOM and result is target):
            return self.reference(connection, result)
        session = connection.session
        try:
            if mode is _ATOM:
                return wire.frame(wire.VALUE, pickle.dumps(result, session.pickle_protocol))
            body, large = buffers.dumps(result, session.pickle_protocol)
        except Exception:
            return self.reference(connection, result)
        flags = 0
        if large:
            flags, body = wire.WITH_BUFFERS | wire.IS_HELD, session.pack(body, large)
        elif _STACK_GLOBAL in body:
            flags = wire.IS_HELD
        if flags:
            connection.held = (result, None)
        return wire.frame(wire.VALUE, body, flags)

    def reference(self, connection, result):
        body = self._exports.reference(result, connection.session)
        connection.referenced.append(body[0])
        return wire.frame(wire.REFERENCE, pickle.dumps(body, 4))

    def copy(self, connection, result):
        """The frame with a copy of `result`, whatever its type; a KernelError where none can be."""
        session = connection.session
        try:
            body, large = buffers.dumps(result, session.pickle_protocol)
            if large:
                return wire.frame(wire.VALUE, session.pack(body, large), wire.WITH_BUFFERS)
            return wire.frame(wire.VALUE, body)
        except Exception as error:
            raise KernelError(
                "SerializationError",
                "%s cannot be copied out of its daemon: %s" % (type(result).__name__, error),
            ) from error

    def freeze(self, item):
        """The item of an iteration as it is now, where it goes by value; None where the object
        itself goes, and whoever gets it may see what its owner does to it."""
        if type(item) is tuple and all(type(each) in ATOMS for each in item):
            return item
        if self._mode(type(item)) == _REFERENCE:
            return None
        try:
            pickled = pickle.dumps(item, 4)
        except Exception:
            return None
        script = self.script_module
        if script is not None and script.encode() in pickled:
            return None  # it holds what the script defines, and loads nowhere else
        return Frozen(item, pickled)

    def items(self, connection, items, rest, by_reference=False):
        """The frame for a chunk of an iteration; `rest` is what is said of how it went on."""
        body, flags = self.pack(connection, items, rest, by_reference)
        connection.held = (items, rest) if flags & wire.IS_HELD else None
        return wire.frame(wire.VALUE, body, flags)

    def pack(self, connection, items, rest, by_reference=False):
        """(pickle of (items, rest), flags of a VALUE): each item a value or a reference by itself.

        With IS_HELD among the flags the pickle names classes that the client may lack.
        """
        session = connection.session
        if not by_reference and all(self._mode(kind) != _REFERENCE for kind in map(type, items)):
            try:
                body, large = buffers.dumps((items, rest), session.pickle_protocol)
            except Exception:
                pass
            else:
                if large:
                    return session.pack(body, large), wire.IS_HELD | wire.WITH_BUFFERS
                return body, wire.IS_HELD if _STACK_GLOBAL in body else 0
        referenced = {}
        for item in items:
            if type(item) not in ATOMS:
                pickled = self._pickled(item)
                if by_reference or pickled is None or _STACK_GLOBAL in pickled:
                    referenced[id(item)] = pickled
        buffer = io.BytesIO()
        pickler = _ReferencePickler(buffer, connection.session.pickle_protocol)
        pickler.referenced = referenced
        pickler.exports, pickler.connection = self._exports, connection
        pickler.dump((items, rest))
        return buffer.getvalue(), wire.WITH_REFERENCES

    def _pickled(self, item):
        """The pickle of one item among references; None where it is to be a reference itself."""
        if type(item) is Frozen:
            return item.pickled
        if self._mode(type(item)) == _REFERENCE:
            return None
        try:
            return pickle.dumps(item, 4)
        except Exception:
            return None


class Frozen:
    """An item of an iteration that was pickled before its owner could change it."""

    __slots__ = ("item", "pickled")

    def __init__(self, item, pickled):
        self.item = item
        self.pickled = pickled

    def __reduce__(self):
        return pickle.loads, (self.pickled,)


class _ReferencePickler(pickle.Pickler):
    """What is in `referenced` becomes a reference; or (pickle, reference), to be used where the
    pickle does not load."""

    def persistent_id(self, item):
        try:
            pickled = self.referenced[id(item)]
        except KeyError:
            return None
        if type(item) is Frozen:
            item = item.item
        body = self.exports.reference(item, self.connection.session)
        self.connection.referenced.append(body[0])
        return body if pickled is None else (pickled, body)


def describe_interpreter():
    """What a client or supervisor is told of this interpreter."""
    return {
        "executable": sys.executable,
        "version": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
    }
