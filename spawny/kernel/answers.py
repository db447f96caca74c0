"""What goes back to a client: a value, a reference or an error, decided once per type."""

import io
import pickle
import sys
import traceback
import weakref

from . import objects, wire

_ATOMS = frozenset([type(None), bool, int, float, complex, str, bytes, type(NotImplemented)])

# Pickle protocol 4 and 5 name a class or function by this opcode alone; a pickle without it loads
# anywhere. The byte may occur as data too: then a value is held a little longer than needed.
_STACK_GLOBAL = b"\x93"

_NONE = wire.frame(wire.VALUE, pickle.dumps(None, 4))

# How a value of a type answers.
_ATOM, _VALUE, _REFERENCE = range(3)

# Tracebacks and reprs go into one frame of the link, too, which has a limit.
TEXT_LIMIT = 200000

_FOLDER = __file__.rpartition("/")[0]


class KernelError(Exception):
    """An error of spawny's own, raised at the client as the class of that name in spawny.errors."""

    def __init__(self, kind, message, remote_traceback=""):
        super().__init__(message)
        self.kind = kind
        self.remote_traceback = remote_traceback


class Answers:
    """Encodes results for one daemon's clients."""

    def __init__(self, exports):
        self._exports = exports
        self._modes = weakref.WeakKeyDictionary()  # of types that are no atoms
        self.script_module = None  # classes of a script's own module import nowhere else

    def _mode(self, cls):
        try:
            if cls in _ATOMS:
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
        try:
            body = pickle.dumps(result, connection.session.pickle_protocol)
        except Exception:
            return self.reference(connection, result)
        if mode is _VALUE and _STACK_GLOBAL in body:
            connection.held = (result, None)
            return wire.frame(wire.VALUE, body, wire.IS_HELD)
        return wire.frame(wire.VALUE, body)

    def reference(self, connection, result):
        body = self._exports.reference(result, connection.session)
        connection.referenced.append(body[0])
        return wire.frame(wire.REFERENCE, pickle.dumps(body, 4))

    def copy(self, connection, result):
        """The frame with a copy of `result`, whatever its type; a KernelError where none can be."""
        try:
            return wire.frame(wire.VALUE, pickle.dumps(result, connection.session.pickle_protocol))
        except Exception as error:
            raise KernelError(
                "SerializationError",
                "%s cannot be copied out of its daemon: %s" % (type(result).__name__, error),
            ) from error

    def items(self, connection, items, is_over, by_reference=False):
        """The frame for a chunk of an iteration: each item a value or a reference by itself."""
        if not by_reference and all(self._mode(type(item)) != _REFERENCE for item in items):
            try:
                body = pickle.dumps((items, is_over), connection.session.pickle_protocol)
            except Exception:
                pass
            else:
                held = _STACK_GLOBAL in body
                connection.held = (items, is_over) if held else None
                return wire.frame(wire.VALUE, body, wire.IS_HELD if held else 0)
        referenced = set()
        for item in items:
            if type(item) not in _ATOMS and (by_reference or not self._copies(item)):
                referenced.add(id(item))
        buffer = io.BytesIO()
        pickler = _ReferencePickler(buffer, connection.session.pickle_protocol)
        pickler.referenced = referenced
        pickler.exports, pickler.connection = self._exports, connection
        pickler.dump((items, is_over))
        return wire.frame(wire.VALUE, buffer.getvalue(), wire.WITH_REFERENCES)

    def _copies(self, item):
        if self._mode(type(item)) == _REFERENCE:
            return False
        try:
            return _STACK_GLOBAL not in pickle.dumps(item, 4)
        except Exception:
            return False

    def error(self, connection, error):
        """The frame for an exception; never fails, whatever the exception is like."""
        kind = type(error)
        if issubclass(kind, KernelError):
            body = (None, "spawny.errors", error.kind, str(error), error.remote_traceback)
        elif kind is objects.UnknownReference:
            body = (None, "spawny.errors", "StaleReference", str(error), "")
        else:
            protocol = connection.session.pickle_protocol
            # Its __reduce__ is the user's code, and may raise anything; without a pickle the client
            # raises a RemoteError from the rest.
            pickled = _attempt(lambda: pickle.dumps(error, protocol), None)
            body = (pickled,) + describe_error(error) + (format_error(error),)
        return wire.frame(wire.ERROR, pickle.dumps(body, 4))


def _attempt(function, otherwise):
    try:
        return function()
    except BaseException:
        return otherwise


def describe_error(error):
    """(module, qualified name, message) of an exception, as plain texts, whatever it is like."""
    kind = type(error)
    message = _attempt(lambda: str.__str__(str(error))[:TEXT_LIMIT], "(its text cannot be made)")
    module = type.__dict__["__module__"].__get__(kind)
    qualname = type.__dict__["__qualname__"].__get__(kind)
    return str.__str__(module) if isinstance(module, str) else "?", qualname, message


class _ReferencePickler(pickle.Pickler):
    def persistent_id(self, item):
        if id(item) not in self.referenced:
            return None
        body = self.exports.reference(item, self.connection.session)
        self.connection.referenced.append(body[0])
        return body


class ReferenceUnpickler(pickle.Unpickler):
    """Loads arguments among which are objects that live here: persistent ids are their numbers."""

    exports = None

    def persistent_load(self, oid):
        return self.exports.get(oid)


_traceback_of = BaseException.__dict__["__traceback__"]


def format_error(error):
    """The traceback as text, without the frames that are ours."""
    return _attempt(lambda: _format(error), "(its traceback cannot be formatted)")[-TEXT_LIMIT:]


def _format(error):
    whole = traceback.TracebackException(type(error), error, _traceback_of.__get__(error))
    whole.stack[:] = [each for each in whole.stack if not each.filename.startswith(_FOLDER)]
    return "".join(whole.format())


def forget_traceback(error):
    """Let the frames of an exception go: they hold the arguments of a call that is over."""
    _attempt(lambda: _traceback_of.__set__(error, None), None)


def describe_interpreter():
    """What a client or supervisor is told of this interpreter."""
    return {
        "executable": sys.executable,
        "version": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
    }
