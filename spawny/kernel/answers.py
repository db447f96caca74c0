"""What goes back to a client: a value, a reference or an error, decided once per type."""

import io
import pickle
import sys
import traceback

from . import objects, wire

_ATOMS = frozenset([type(None), bool, int, float, complex, str, bytes, type(NotImplemented)])

# Pickle protocol 4 and 5 name a class or function by this opcode alone; a pickle without it loads
# anywhere. The byte may occur as data too: then a value is held a little longer than needed.
_STACK_GLOBAL = b"\x93"

# How a value of a type answers.
_ATOM, _VALUE, _REFERENCE = range(3)

# Tracebacks and reprs go into one frame of the link, too, which has a limit.
TEXT_LIMIT = 200000

_FOLDER = __file__.rpartition("/")[0]


class KernelError(Exception):
    """An error of spawny's own, raised at the client as the class of that name in spawny.errors."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Answers:
    """Encodes results for one daemon's clients."""

    def __init__(self, exports):
        self._exports = exports
        self._modes = dict.fromkeys(_ATOMS, _ATOM)
        self.script_module = None  # classes of a script's own module import nowhere else

    def _mode(self, cls):
        mode = self._modes.get(cls)
        if mode is None:
            by_reference = (
                issubclass(cls, objects.ALWAYS_REFERENCES + (io.IOBase,))
                or hasattr(cls, "__next__")
                or cls.__module__ == self.script_module
                or cls.__module__ == "__main__"
            )
            mode = self._modes[cls] = _REFERENCE if by_reference else _VALUE
        return mode

    def encode(self, connection, result, target=None, keep=False):
        """The frame that answers with `result`.

        A method that returns its own object (`target`) answers with a reference to it, so that
        identity holds; otherwise what can be copied is.
        """
        mode = self._modes.get(type(result))
        if mode is not _ATOM or keep:
            if mode is None:
                mode = self._mode(type(result))
            if keep or mode is _REFERENCE or result is target:
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
            if self._modes.get(type(item)) != _ATOM and (by_reference or not self._copies(item)):
                referenced.add(id(item))
        buffer = io.BytesIO()
        pickler = _ReferencePickler(buffer, connection.session.pickle_protocol)
        pickler.referenced = referenced
        pickler.reference = lambda item: self._exports.reference(item, connection.session)
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
        module, qualname, pickled = kind.__module__, kind.__qualname__, None
        if isinstance(error, KernelError):
            module, qualname = "spawny.errors", error.kind
        elif isinstance(error, objects.UnknownReference):
            module, qualname = "spawny.errors", "StaleReference"
        else:
            try:
                pickled = pickle.dumps(error, connection.session.pickle_protocol)
            except Exception:
                pass  # the client raises a RemoteError from what follows
        try:
            message = str(error)[:TEXT_LIMIT]
        except Exception as broken:
            message = "(its own text cannot be made: %s)" % type(broken).__name__
        body = (pickled, module, qualname, message, format_error(error))
        return wire.frame(wire.ERROR, pickle.dumps(body, 4))


class _ReferencePickler(pickle.Pickler):
    def persistent_id(self, item):
        if id(item) in self.referenced:
            return self.reference(item)
        return None


class ReferenceUnpickler(pickle.Unpickler):
    """Loads arguments among which are objects that live here: persistent ids are their numbers."""

    exports = None

    def persistent_load(self, oid):
        return self.exports.get(oid)


def format_error(error):
    """The traceback as text, from the first frame that is not ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_FOLDER):
        trace = trace.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except Exception as broken:
        text = "(its traceback cannot be formatted: %r)" % broken
    return text[-TEXT_LIMIT:]


def describe_interpreter():
    """What a client or supervisor is told of this interpreter."""
    return {
        "executable": sys.executable,
        "version": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
    }
