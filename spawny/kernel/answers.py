"""What goes back to a client: a value or a reference, decided once per type."""

import io
import pickle
import sys
import weakref

from . import buffers, objects, wire
from .elements import ATOMS, CONTAINERS, Trial, elements_of, shape_of
from .failures import KernelError

# Pickle protocol 4 and 5 name a class or function by this opcode alone; a pickle without it loads
# anywhere. The byte may occur as data too: then a value is held a little longer than needed.
_STACK_GLOBAL = b"\x93"

_NONE = wire.frame(wire.VALUE, pickle.dumps(None, 4))

# What HELD gets next, of a container that a client could not load in part either.
UNDIVIDED = object()

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
        connection.held = None
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
            return self.divided(connection, result)
        if type(result) in CONTAINERS and _STACK_GLOBAL in body and self._holds_script(body):
            return self.divided(connection, result)
        flags = 0
        if large:
            flags, body = wire.WITH_BUFFERS | wire.IS_HELD, session.pack(body, large)
        elif _STACK_GLOBAL in body:
            flags = wire.IS_HELD
        if flags:
            connection.held = (result, None)
        return wire.frame(wire.VALUE, body, flags)

    def divided(self, connection, result, is_unloaded=False):
        """The frame with what can be copied of a container, its other elements as references; of
        anything else, a reference.

        When the client could not load that (`is_unloaded`), it has each element by itself to try;
        and when it asks once more, it gets a reference to the container.
        """
        if type(result) not in CONTAINERS:
            return self.reference(connection, result)
        try:
            body, flags = self._divide(connection, result, elements_of(result), is_unloaded)
        except Exception:
            return self.reference(connection, result)
        connection.held = (result, UNDIVIDED if is_unloaded else None)
        return wire.frame(wire.VALUE, body, flags | wire.IS_HELD)

    def _holds_script(self, pickled):
        """Does it seem to name what the script defines, which loads nowhere else?"""
        return self.script_module is not None and self.script_module.encode() in pickled

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
            if self._holds_script(pickled):
                return None
            may_be_divided = type(item) in CONTAINERS and _STACK_GLOBAL in pickled
            return Frozen(item, pickled, shape_of(item) if may_be_divided else None)
        except Exception:
            return None

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
        opened = [
            each.shape if type(each) is Frozen and each.shape is not None else each
            for each in items
        ]
        try:
            elements = elements_of(opened)
            body, flags = self._divide(connection, (opened, rest), elements, by_reference)
        except Exception:  # too deep, or another thread changes it: then each item as a whole
            whole = {id(each): each for each in items if type(each) not in ATOMS}.values()
            body, flags = self._divide(connection, (items, rest), whole, True)
        return body, flags if by_reference else flags | wire.IS_HELD

    def _divide(self, connection, container, elements, is_careful):
        """(pickle of a container of which some elements are references, flags of a VALUE).

        Those are what is always a reference, and what cannot be pickled. If `is_careful`, all
        others have a pickle of their own, to be used where it loads, beside their reference.
        """
        session = connection.session
        trial = Trial(len(elements), session.pickle_protocol)
        places = {}  # id of an element -> its place among the references
        references = []
        large = []
        try:
            for each in elements:
                pickled, its_large = self._pickled(each, trial)
                if is_careful or pickled is None:
                    referent = each.item if type(each) is Frozen else each
                    reference = self._exports.reference(referent, session)
                    places[id(each)] = len(references)
                    references.append((pickled, len(its_large), reference))
                    large += its_large
            file = io.BytesIO()
            pickle.dump(references, file, session.pickle_protocol)
            collector = buffers.Collector(session.pickle_protocol)
            pickler = collector.pickler(_ReferencePickler, file)
            pickler.places = places
            pickler.dump(container)
            large += collector.buffers
            body, flags = file.getvalue(), wire.WITH_REFERENCES
            if large:
                body, flags = session.pack(body, large), flags | wire.WITH_BUFFERS
        except BaseException:
            for _, _, reference in references:
                self._exports.release(session, reference[0], 1)
            raise
        connection.referenced.extend(reference[0] for _, _, reference in references)
        return body, flags

    def _pickled(self, element, trial):
        """The pickle of one element and its buffers; without a pickle it is to be a reference."""
        if type(element) is Frozen:
            return element.pickled, ()
        return (None, ()) if self._mode(type(element)) == _REFERENCE else trial.pickled(element)


class Frozen:
    """An item of an iteration that was pickled before its owner could change it."""

    __slots__ = ("item", "pickled", "shape")

    def __init__(self, item, pickled, shape=None):
        self.item = item
        self.pickled = pickled
        self.shape = shape  # of a container that may have to be divided

    def __reduce__(self):
        return pickle.loads, (self.pickled,)


class _ReferencePickler(pickle.Pickler):
    """An element that is a reference is written as its place among these."""

    def persistent_id(self, item):
        return self.places.get(id(item))


def describe_interpreter():
    """What a client or supervisor is told of this interpreter."""
    return {
        "executable": sys.executable,
        "version": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
    }
