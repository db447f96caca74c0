"""What a client may ask of the objects here; each handler gives the frame that answers.

A handler takes the connection, the flags and the fields of the request as `wire.py` lists them.
What user code raises passes through: the server answers with it.
"""

from . import inspection, objects, streams, tasks, wire
from .answers import UNDIVIDED
from .failures import KernelError, describe

_Module = type(objects)


class Requests:
    """The handlers by kind of request."""

    def __init__(self, exports, answers, coroutines):
        self._exports = exports
        self._answers = answers
        self._encode = answers.encode
        self._tasks = coroutines
        self.handlers = {
            wire.CALL: self._call,
            wire.METHOD: self._method,
            wire.GETATTR: self._getattr,
            wire.SETATTR: self._setattr,
            wire.DELATTR: self._delattr,
            wire.OPERATE: self._operate,
            wire.NEXT: self._next,
            wire.PUTBACK: self._put_back,
            wire.GETVALUE: self._getvalue,
            wire.DESCRIBE: self._describe,
            wire.HELD: self._held,
            wire.AWAIT: self._await,
            wire.INSPECT: self._inspect,
        }

    def _call(self, connection, flags, oid, args, kwargs):
        target = self._exports.get(oid)
        return self._encode(connection, target(*args, **kwargs), None, flags & wire.KEEP)

    def _method(self, connection, flags, oid, name, args, kwargs):
        target = self._exports.get(oid)
        return self._encode(
            connection, getattr(target, name)(*args, **kwargs), target, flags & wire.KEEP
        )

    def _getattr(self, connection, flags, oid, name):
        target = self._exports.get(oid)
        result = getattr(target, name)
        # The variables of a module that is the root are proxies, as they always were in spawny.
        if oid == wire.ROOT and type(target) is _Module and name[:2] != "__":
            flags |= wire.KEEP
        return self._encode(connection, result, None, flags & wire.KEEP)

    def _setattr(self, connection, flags, oid, name, value):
        setattr(self._exports.get(oid), name, value)
        return self._encode(connection, None)

    def _delattr(self, connection, flags, oid, name):
        delattr(self._exports.get(oid), name)
        return self._encode(connection, None)

    def _operate(self, connection, flags, oid, name, args):
        target = self._exports.get(oid)
        return self._encode(
            connection, objects.OPERATIONS[name](target, *args), target, flags & wire.KEEP
        )

    def _next(self, connection, flags, oid, most, seconds, received, is_hidden):
        export = self._exports.export(oid)
        session = connection.session
        is_shared = export.count != session.counts.get(oid)
        freeze = self._answers.freeze
        chunk = streams.fetch(
            export, session, is_shared, most, seconds, received, is_hidden, freeze
        )
        items, ending = chunk.items, chunk.ending
        has_returned = type(ending) is StopIteration
        if has_returned:
            items = items + [ending.value]
        failure = None if ending is None or has_returned else describe(ending)
        frame = self._answers.items(connection, items, (failure, has_returned, chunk.is_late))
        chunk.weigh(len(frame) if type(frame) is bytes else frame.weight)
        return frame

    def _put_back(self, connection, flags, oid, used):
        export = self._exports.export(oid)
        if export.chunk is not None and export.chunk.session is connection.session:
            self._exports.replace(oid, streams.put_back(export.chunk, used, export.obj))
        return self._encode(connection, None)

    def _await(self, connection, flags, oid, name, args, kwargs):
        target = self._exports.get(oid)
        if name is None:
            result = target(*args, **kwargs)
        elif name in tasks.OPERATIONS:
            result = tasks.OPERATIONS[name](target, *args)
        else:
            result = getattr(target, name)(*args, **kwargs)
        if not tasks.is_awaitable(result):
            return self._encode(
                connection, result, None if name is None else target, flags & wire.KEEP
            )
        task = self._tasks.start(result, connection.session)
        connection.held = None
        answer = self._answers.reference(connection, task)
        task.oid = connection.referenced[-1]
        return answer

    def _getvalue(self, connection, flags, oid):
        if flags & wire.KEEP:
            return self._answers.reference(connection, self._exports.get(oid))
        return self._answers.copy(connection, self._exports.get(oid))

    def _describe(self, connection, flags, oid):
        # Another thread of the client has the description, but has not come to read it yet.
        description = self._exports.describe(type(self._exports.get(oid)))[1]
        return self._encode(connection, description)

    def _inspect(self, connection, flags, oid, name):
        connection.held = None
        return inspection.answer(self._exports, connection, self._exports.get(oid), name)

    def _held(self, connection, flags, number):
        held = connection.kept.pop(number, None)
        if number == connection.number - 1:
            held, connection.held = connection.held, None
        if held is None:
            raise KernelError("StaleReference", "the last result is not held any more")
        value, rest = held  # of a NEXT: its items, and what is said of how it went on
        if rest is None and not flags & wire.KEEP:
            return self._answers.divided(connection, value, is_unloaded=True)
        if rest is None or rest is UNDIVIDED:
            return self._answers.reference(connection, value)
        return self._answers.items(connection, value, rest, by_reference=True)
