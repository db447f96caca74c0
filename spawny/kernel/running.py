"""What runs now, as it is told to others while it runs; read by the control thread."""

import sys
import threading
import time
import traceback
import types

from . import wire
from .failures import TEXT_LIMIT

# The kind of what is no request.
SAVING = "saving its state"


class Running:
    """A request under way; the definition, where it has no connection."""

    __slots__ = (
        "connection",
        "number",
        "kind",
        "flags",
        "outer",
        "request",
        "since",
        "thread",
        "is_cancelled",
        "dropped",
        "limit",
    )

    def __init__(self, connection, number, kind, flags=0):
        self.connection = connection
        self.number = number
        self.kind = kind
        self.flags = flags
        # The request before on this connection, which waits for the callback that made this one.
        self.outer = None if connection is None else connection.running
        self.thread = threading.get_ident()
        self.request = None  # its fields, once they are unpickled
        self.since = time.monotonic()
        self.is_cancelled = False
        self.limit = None  # why it is interrupted, where it has run too long
        self.dropped = None  # callbacks that went meanwhile, to be told when it is over

    def describe(self, exports):
        """The "busy" of a pong."""
        connection = self.connection
        return {
            "connection": connection.connection_id if connection else 0,
            "call": self.number,
            "what": self.kind or "its definition" if connection is None else self._what(exports),
            "client_pid": connection.session.client_pid if connection else None,
            "seconds": round(time.monotonic() - self.since, 3),
        }

    def _what(self, exports):
        request = self.request
        if self.kind == wire.PROGRAM:
            return "a program of spawny python"
        if not request:
            return "?"
        if self.kind == wire.CALL:
            if type(request[0]) is bytes:
                return request[0].decode("utf-8", "replace").rpartition(".")[2] + "()"
            try:
                function = exports.get(request[0])
            except ReferenceError:
                return "?"
            # Of other objects, looking the name up could run user code, here of all places.
            is_plain = type(function) in (types.FunctionType, types.BuiltinFunctionType, type)
            return "%s()" % (function if is_plain else type(function)).__name__
        name = request[1] if len(request) > 1 and isinstance(request[1], str) else "?"
        return name + "()" if self.kind == wire.METHOD else name


def stacks():
    """The stacks of all threads, as text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append("thread %s (%d):\n" % (names.get(ident, "?"), ident))
        parts.extend(traceback.format_stack(frame))
    return "".join(parts)[:TEXT_LIMIT]
