"""Functions of clients, as user code in the daemon has them: calling one runs it in its client."""

import functools
import threading
import weakref

from . import buffers, failures, wire

# What is left of the recursion limit where a callback, or a call made in one, is sent off.
ROOM_FRAMES = 60


class RemoteCallback:
    """A function that was passed to `spawny.callback`, in a client."""

    def __init__(self, calls, session, callback_id, name):
        self._spawny_calls = calls
        self._spawny_session = session
        self._spawny_id = callback_id
        self.__name__ = self.__qualname__ = name

    def __call__(*args, **kwargs):
        self = args[0]
        return self._spawny_calls.call_back(
            self._spawny_session, self._spawny_id, self.__name__, args[1:], kwargs
        )

    def __repr__(self):
        return "<callback %s of client %d>" % (self.__name__, self._spawny_session.client_pid)

    def __reduce__(self):
        raise TypeError("a callback runs in its client, and stays in this process")


class Callbacks:
    """Those that one session has passed here and that are still in use, one object for each."""

    def __init__(self, calls, session):
        self._calls = calls
        self._session = session
        self._known = {}  # callback id -> [weak reference, how many times it was sent]
        self._lock = threading.RLock()

    def get(self, callback_id, name):
        """The callback of this number, which the client has sent once more."""
        with self._lock:
            entry = self._known.get(callback_id)
            callback = entry and entry[0]()
            if callback is None:
                callback = RemoteCallback(self._calls, self._session, callback_id, name)
                gone = functools.partial(self._gone, callback_id)
                # One that has gone, but unheard by `_gone`, leaves its count to the new one. Taken
                # out at once: on PyPy `_gone` may come between any two lines of this, and tell it.
                unheard = self._known.pop(callback_id, None)
                count = unheard[1] if unheard else 0
                entry = self._known[callback_id] = [weakref.ref(callback, gone), count]
            entry[1] += 1
            return callback

    def _gone(self, callback_id, reference):
        # In the middle of any line of any thread: only what is safe there. (So is the lock, under
        # which nobody waits, and no user code runs.)
        with self._lock:
            entry = self._known.get(callback_id)
            if entry is None or entry[0] is not reference:
                return
            del self._known[callback_id]
        self._calls.drop_callback(self._session, callback_id, entry[1])


class ArgumentUnpickler(buffers.Unpickler):
    """Loads what a client sends. A persistent id is the number of an object that lives here, or
    (callback id, name) of a function of the client's, or names what puts code together."""

    def __init__(self, body, exports, callbacks, large=()):
        super().__init__(body, large)
        self._exports = exports
        self._callbacks = callbacks

    def persistent_load(self, pid):
        if type(pid) is tuple:
            return self._callbacks.get(*pid)
        if type(pid) is str:
            from .code import maker  # which few clients need

            return maker(pid)
        return self._exports.get(pid)


class Pending:
    """A callback under way that its client runs on a thread of its own."""

    def __init__(self):
        self.reply = None  # the frame that answered it
        self.relief = None  # that waits for it
        self.is_over = threading.Event()


def need_room(frames=ROOM_FRAMES):
    """Raise the RecursionError of a recursion over both processes here, where nothing is under way
    yet: in the middle of an exchange one end would take the answer to one for that to another."""
    if frames:
        need_room(frames - 1)


def number_of(body):
    """The number that the body of a RETURN or RAISE begins with; None where it is none."""
    return wire.NUMBER.unpack_from(body)[0] if len(body) >= wire.NUMBER.size else None


def result_of(reply, exports, callbacks, session, name):
    """What a callback has returned; raises what it has raised."""
    kind, flags, body = reply
    try:
        body = memoryview(body)[wire.NUMBER.size :]
        large = ()
        if flags & wire.WITH_BUFFERS:
            body, large = session.unpack(body)
        answer = ArgumentUnpickler(body, exports, callbacks, large).load()
        if kind == wire.RAISE:
            answer = failures.rebuild(answer)
    except Exception as error:
        text = "what the callback %s gave back cannot be loaded: %s" % (name, error)
        raise failures.KernelError("SerializationError", text) from error
    if kind == wire.RAISE:
        raise answer
    return answer
